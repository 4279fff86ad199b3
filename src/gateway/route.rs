//! From a unit to a node: the policy chain is asked, its answers are made into one, a node is chosen.
//!
//! Invariant: what nobody understood goes to the primary; a unit that would need two shards is refused.
//! Deliberately absent: connections.

use std::cell::RefCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::block::{self, Defaults};
use super::shards;
use super::trace::Trace;
use crate::catalog::{self, Catalog};
use crate::control::Cluster;
use crate::policy::{
    Answer, Attributes, Bound, Chain, Decision, DecisionCache, NoParameters, Parameters, Phase, Query, Role,
    SessionFacts, Shards, Target, Transaction,
};
use crate::session::{Part, Session};
use crate::sql::{Access, Effects, Kind};
use crate::topology::{Conditions, Node};
use crate::upstream::{ErrorReply, Settings};
use crate::wire::TransactionStatus;

thread_local! {
    /// A worker's own slot: kept decisions are found without a lock.
    static DECISIONS: RefCell<DecisionCache> = RefCell::new(DecisionCache::new());
}

/// Bytes of a custom setting's name. `NAMEDATALEN` bounds each part, nothing the number of parts; longer ones are not used.
const LONGEST_NAME: usize = 127;

/// The setting that makes the transactions of a session SERIALIZABLE.
pub(super) const ISOLATION: &str = "default_transaction_isolation";

/// Where a unit goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) target: Target,
    /// Position of the shard in the cluster.
    pub(super) shard: usize,
    /// Nobody named that shard: any other will do.
    any_shard: bool,
    /// Whether anything in it may write.
    pub(super) writes: bool,
    /// The consistency keys of its statements, each once. Most have none.
    pub(super) keys: Vec<Arc<str>>,
    /// No policy was asked about some of it: what that writes may belong to any key.
    pub(super) unseen: bool,
    /// Databases that it needs to itself: nobody may read their catalogues.
    pub(super) vacates: Vec<Box<str>>,
    /// What in it would succeed on a standby and mean nothing there. Looked for only while a server is held.
    pub(super) useless: Option<&'static str>,
}

impl Route {
    /// To the primary of a shard that nobody named.
    fn primary(shard: usize) -> Self {
        Self {
            target: Target::PRIMARY,
            shard,
            any_shard: true,
            writes: true,
            keys: Vec::new(),
            unseen: false,
            vacates: Vec::new(),
            useless: None,
        }
    }

    /// What a node must meet.
    pub(super) fn conditions(&self) -> Conditions<'_> {
        Conditions {
            shard: self.shard,
            replica: self.target.role == Role::Replica,
            any: self.target.role == Role::Any,
            labels: self.target.labels.as_deref().unwrap_or_default(),
            max_lag: self.target.max_lag,
            replayed: None,
            keeps_turn: false,
        }
    }

    /// Whether a server on `node` will do, were it free.
    pub(super) fn admits(&self, node: &Node) -> bool {
        node.shard == self.shard
            && match node.role() {
                crate::topology::Role::Primary => true,
                _ => self.target.role != Role::Primary,
            }
    }
}

/// What does not change while a session lives.
pub(super) struct Asker<'a> {
    pub(super) id: u64,
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) catalog: &'a Catalog,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) client: Option<std::net::IpAddr>,
    /// See [`SessionFacts::key`].
    pub(super) key: u64,
    pub(super) wrote: bool,
}

/// Decides for the unit that `session` holds, and notes its effects there. `held`: the shard of the server that is held; without
/// one the unit begins a transaction of its own or a deferred one.
pub(super) fn decide(
    session: &mut Session,
    chain: &Chain,
    asker: &Asker<'_>,
    held: Option<usize>,
    mut trace: Option<&mut Trace>,
) -> Result<Route, ErrorReply> {
    // What names no shard goes where the session is.
    let home = held.unwrap_or_default();
    let held = held.is_some();
    let outer = transaction(session, held);
    let transaction = block::through(session.shapes(), outer, defaults(session), !held);
    let mut route: Option<Route> = None;
    let mut custom: Vec<Box<str>> = Vec::new();
    let mut computed = false;
    let trust = asker.catalog.trust(asker.cluster.definitions());
    let several = Some(asker.cluster.topology.shards().len()).filter(|shards| *shards > 1);
    if let Some(count) = several.filter(|_| !held && session.unit().opaque()) {
        return Err(shards::unseen(count));
    }
    let blind = several.filter(|_| shards::blind(chain));
    let mut redefines = false;
    let mut publishes = false;
    let mut alters_starts = false;
    let mut vacates: Vec<Box<str>> = Vec::new();
    let mut useless = None;
    let opaque = session.unit().opaque();
    let mut refolds = opaque;
    let mut noted: SmallVec<[(Effects, Arc<crate::sql::Shape>); 2]> = SmallVec::new();
    {
        let attributes = SessionAttributes(&session.settings);
        let facts = SessionFacts {
            id: asker.id,
            user: asker.user,
            database: asker.database,
            client: asker.client,
            application_name: session.settings.value("application_name").unwrap_or_default(),
            attributes: &attributes,
            key: asker.key,
            wrote: asker.wrote,
        };
        for part in session.parts() {
            let mut verdict = asker.catalog.judge(&part.analysis.shape, part.text, trust);
            if verdict.effects.any(Effects::RUNS_TEXT) {
                verdict.effects |= part.bind.as_ref().map_or(Effects::NONE, |bind| said(asker.catalog, bind));
                verdict.effects.0 &= !Effects::RUNS_TEXT.0;
            }
            if held && useless.is_none() {
                useless = useless_on_standby(&part, verdict.effects);
            }
            if let Some(count) = blind
                && shards::concerns_data(&part.analysis.shape, verdict.effects)
            {
                return Err(shards::unnamed(count));
            }
            if verdict.effects.any(Effects::DDL) {
                redefines |= catalog::redefines(part.text);
                alters_starts |= catalog::alters_starts(part.text);
                // To make a function with such a SET sets it.
                verdict.effects |= crate::sql::sets_inside(&String::from_utf8_lossy(part.text));
                publishes |= !only_temporary(&part.analysis.shape);
                vacates.extend(catalog::emptied_databases(part.text));
            }
            if verdict.effects != Effects::NONE {
                noted.push((verdict.effects, Arc::clone(&part.analysis.shape)));
            }
            if let Some(bind) = &part.bind {
                for number in part.analysis.shape.statements.iter().flat_map(|s| &s.setting_parameters) {
                    // A Bind with too few values fails: nothing is set.
                    if bind.lacks(u32::from(*number)) {
                        continue;
                    }
                    match bound_name(bind, u32::from(*number)) {
                        Bound::Bytes(name) => custom.extend(std::str::from_utf8(name).ok().map(Into::into)),
                        Bound::Null => {}
                        Bound::Streamed => computed = true,
                    }
                }
                if verdict.effects.any(Effects::UNKNOWN) {
                    custom.extend(custom_names(bind));
                }
            }
            if verdict.effects.any(Effects::UNKNOWN | Effects::OPAQUE) {
                refolds |= asker.catalog.sets_folding() || does(&part.analysis.shape) && sets_folding(part.text);
                custom.extend(dotted_names(part.text));
                custom.extend(asker.catalog.custom_settings().iter().cloned());
                computed |= does(&part.analysis.shape) && computes_name(part.text);
            }
            let query = Query {
                text: part.text,
                analysis: part.analysis,
                access: verdict.access,
                effects: verdict.effects,
                phase: phase(&part),
                transaction,
                parameters: part.bind.as_ref().map_or(&NoParameters as &dyn Parameters, |bind| bind),
                session: &facts,
                topology: &asker.cluster.topology,
            };
            let answer = DECISIONS.with_borrow_mut(|cache| chain.route_cached(&query, cache));
            if let Some(trace) = &mut trace {
                trace.decided(&part, verdict.access, chain, &answer);
            }
            let next = resolve(chain, answer, asker, verdict.access, home)?;
            route = Some(match route.take() {
                None => next,
                Some(first) => join(first, next)?,
            });
        }
    }
    if computed {
        session.note_computed();
    }
    // From here to the end of its transaction: nobody knows at which moment others see it.
    session.redefines |= redefines;
    session.publishes |= publishes;
    session.alters_starts |= alters_starts;
    session.refolds |= refolds;
    if session.redefines {
        asker.cluster.redefined();
    }
    for (effects, shape) in noted {
        session.note(effects, &shape);
    }
    for name in custom {
        session.touch(&name);
    }
    if opaque {
        // A custom setting can be asked for only by its name.
        let named: Vec<_> = session.arguments().iter().flat_map(custom_names).collect();
        for name in named.iter().chain(asker.catalog.custom_settings()) {
            session.touch(name);
        }
        if let Some(trace) = &mut trace {
            trace.opaque();
        }
        session.note_opaque();
        session.hear(asker.catalog.names());
    }
    let mut route = match route {
        // Nothing is known of it, or something in it is not: the primary of the shard that the rest names.
        None => Route::primary(home),
        Some(route) if opaque => {
            Route { target: Target { role: Role::Primary, ..route.target }, writes: true, ..route }
        }
        Some(route) => route,
    };
    if !held && session.will_pin() {
        // The session will stay where this runs: it must be where everything can.
        if let Some(trace) = &mut trace {
            trace.reason("the session will keep this server");
        }
        route.target.role = Role::Primary;
    }
    // What is still to come of the group may write. Drivers that ask what a statement is like, and wait, run it next.
    let cut = !session.unit().closed && outer == Transaction::Idle && !session.in_group();
    if cut && (route.writes || transaction != Transaction::Idle || !session.unit().declares_one()) {
        if let Some(trace) = &mut trace {
            trace.reason("cut short by a Flush or the limit");
        }
        route.target.role = Role::Primary;
    }
    // A standby refuses serializable transactions.
    let serializable = defaults_to_serializable(session) || session.may_set(ISOLATION);
    if serializable && transaction == Transaction::Idle {
        if let Some(trace) = trace {
            trace.reason("default_transaction_isolation is or may become serializable");
        }
        route.target.role = Role::Primary;
    }
    for database in &vacates {
        asker.cluster.vacate(database);
    }
    route.unseen = opaque;
    route.vacates = vacates;
    route.useless = useless;
    Ok(route)
}

/// What the values may do that are bound to a statement which may run them.
fn said(catalog: &Catalog, bind: &impl Parameters) -> Effects {
    let values = (1..=bind.count()).filter_map(|number| match bind.parameter(number)?.value {
        Bound::Bytes(value) => Some(catalog.said(value)),
        _ => None,
    });
    values.fold(Effects::NONE, Effects::with)
}

/// What a statement does, by itself or in what it runs, that a standby does as well, for itself alone: two clients could hold one
/// lock, one of them there. Not what gives one back: nobody has any there.
fn useless_on_standby(part: &Part<'_>, effects: Effects) -> Option<&'static str> {
    if effects.any(Effects::TAKES_ADVISORY) {
        return Some("an advisory lock");
    }
    let mut called = part.analysis.shape.statements.iter().flat_map(|statement| &statement.functions);
    called.any(|function| *function.name == *"pg_export_snapshot").then_some("an exported snapshot")
}

/// Whether there is a DO in it.
fn does(shape: &crate::sql::Shape) -> bool {
    shape.statements.iter().any(|statement| statement.kind == Kind::Do)
}

/// Whether the body of a DO sets what plans are made of.
fn sets_folding(text: &[u8]) -> bool {
    crate::sql::sets_folding(&String::from_utf8_lossy(text))
}

/// Whether all the DDL that a text shows concerns what only its session sees.
fn only_temporary(shape: &crate::sql::Shape) -> bool {
    let mut shown = shape.statements.iter().filter(|statement| statement.effects.any(Effects::DDL)).peekable();
    shown.peek().is_some() && shown.all(|statement| statement.effects.any(Effects::TEMPORARY))
}

/// What may be the name of a custom setting in the body of a DO or in a text that was not understood.
fn dotted_names(text: &[u8]) -> impl Iterator<Item = Box<str>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$');
    text.split(move |byte| !plain(byte))
        .filter(|word| {
            (3..=LONGEST_NAME).contains(&word.len()) && word[0].is_ascii_alphabetic() && word.contains(&b'.')
        })
        .filter_map(|word| std::str::from_utf8(word).ok())
        .take(64)
        .map(|word| word.to_ascii_lowercase().into())
}

/// The value of the parameter that names a setting; what cannot be read as a name counts as not here.
fn bound_name(bind: &impl Parameters, number: u32) -> Bound<'_> {
    match bind.parameter(number).map(|parameter| parameter.value) {
        Some(Bound::Bytes(name)) if name.len() <= LONGEST_NAME && name.is_ascii() => Bound::Bytes(name),
        Some(Bound::Null) => Bound::Null,
        _ => Bound::Streamed,
    }
}

/// Whether a text, say the body of a DO, calls `set_config` with anything but a constant for a name.
fn computes_name(text: &[u8]) -> bool {
    const CALL: &[u8] = b"set_config";
    let found =
        (0..text.len()).filter(|at| text[*at..].get(..CALL.len()).is_some_and(|t| t.eq_ignore_ascii_case(CALL)));
    found.map(|at| text[at + CALL.len()..].trim_ascii_start()).any(|rest| {
        let Some(rest) = rest.strip_prefix(b"(") else { return false };
        let quoted = rest.trim_ascii_start();
        let name = unquote(quoted);
        name.len() == quoted.len() || {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$');
            let end = name.iter().position(|byte| !plain(byte)).unwrap_or(name.len());
            let behind = unquote(&name[end..]);
            behind.len() == name.len() - end || !behind.trim_ascii_start().starts_with(b",")
        }
    })
}

/// Without the quotes that it begins with: two where the text stands in a string.
fn unquote(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| **byte == b'\'').count()..]
}

/// Bound values that may be the name of a custom setting, as in `set_config($1, …)`: no catalogue lists those, so each is
/// asked for by its name, and asking for one that does not exist does no harm.
fn custom_names(bind: &impl Parameters) -> impl Iterator<Item = Box<str>> {
    (1..=bind.count().min(16)).filter_map(|number| {
        let Bound::Bytes(value) = bind.parameter(number)?.value else { return None };
        let name = std::str::from_utf8(value).ok().filter(|name| name.len() <= LONGEST_NAME && name.contains('.'))?;
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '$');
        name.chars().all(plain).then(|| name.into())
    })
}

fn defaults(session: &Session) -> Defaults {
    let is = |name, wanted| session.settings.value(name).is_some_and(|value| value == wanted);
    Defaults { read_only: is(block::READ_ONLY, "on"), serializable: defaults_to_serializable(session) }
}

fn defaults_to_serializable(session: &Session) -> bool {
    session.settings.value(ISOLATION).map_or(session.begins_serializable, |value| value == "serializable")
}

/// The transaction that the unit begins in.
fn transaction(session: &Session, held: bool) -> Transaction {
    if session.deferred.active() {
        let defaults = defaults(session);
        return Transaction::Block {
            read_only: session.deferred.read_only().unwrap_or(defaults.read_only),
            serializable: session.deferred.serializable().unwrap_or(defaults.serializable),
            first: true,
        };
    }
    if held && session.status() != TransactionStatus::Idle {
        return Transaction::Block { read_only: false, serializable: false, first: false };
    }
    Transaction::Idle
}

fn phase(part: &Part<'_>) -> Phase {
    match (part.simple, &part.bind) {
        (true, _) => Phase::Simple,
        (false, Some(_)) => Phase::Bind,
        (false, None) => Phase::Parse,
    }
}

fn resolve(chain: &Chain, answer: Answer, asker: &Asker<'_>, access: Access, home: usize) -> Result<Route, ErrorReply> {
    if let Some(fault) = &answer.fault {
        let name = chain.links().get(usize::from(fault.0)).map_or("", |link| link.policy.name());
        // The breaker says more, once; a policy that always fails must not fill the log.
        tracing::debug!(session = asker.id, policy = name, fault = %fault.1, "a policy failed on a statement");
    }
    match answer.decision {
        Decision::Route(target) => {
            let shard = match &target.shards {
                Shards::Default => home,
                Shards::One(shard) => shard.0 as usize,
                Shards::All if asker.cluster.topology.shards().len() == 1 => 0,
                Shards::Many(_) | Shards::All => {
                    return Err(ErrorReply::error(
                        "0A000",
                        "a statement that concerns several shards is not supported",
                    )
                    .hint("Name one shard's key in the statement, or run it on each shard by itself."));
                }
            };
            let any_shard = matches!(target.shards, Shards::Default);
            let keys = target.consistency.iter().cloned().collect();
            let writes = access != Access::Read;
            Ok(Route { target, shard, any_shard, writes, keys, unseen: false, vacates: Vec::new(), useless: None })
        }
        Decision::Reject(rejection) => {
            let mut reply = ErrorReply::error(rejection.sqlstate.as_str(), &*rejection.message);
            reply.hint = rejection.hint.as_deref().map(str::to_owned);
            Err(reply)
        }
        // A chain answers; its last resort is compiled in.
        Decision::Pass => Ok(Route::primary(home)),
    }
}

/// One server for two statements: the same shard, and the stronger of the two roles.
fn join(mut first: Route, second: Route) -> Result<Route, ErrorReply> {
    let shard = if first.any_shard { second.shard } else { first.shard };
    if first.shard != second.shard && !first.any_shard && !second.any_shard {
        return Err(ErrorReply::error("0A000", "the statements of one pipeline concern different shards")
            .hint("Send a Sync between them, or one statement at a time."));
    }
    let any_shard = first.any_shard && second.any_shard;
    let writes = first.writes || second.writes;
    let mut keys = std::mem::take(&mut first.keys);
    for key in &second.keys {
        if !keys.contains(key) {
            keys.push(Arc::clone(key));
        }
    }
    // The narrower conditions: a primary over a replica, the second's labels and lag only where the first has none.
    let (narrow, wide) = if second.target.role == Role::Primary { (second, first) } else { (first, second) };
    let mut target = narrow.target;
    target.labels = target.labels.or(wide.target.labels);
    target.max_lag = target.max_lag.or(wide.target.max_lag);
    if wide.target.role == Role::Replica && target.role == Role::Any {
        target.role = Role::Replica;
    }
    Ok(Route { target, shard, any_shard, writes, keys, unseen: false, vacates: Vec::new(), useless: None })
}

struct SessionAttributes<'a>(&'a Settings);

/// What marks a session's own attributes among its settings.
const PREFIX: &str = "pointsman.";

impl Attributes for SessionAttributes<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find_map(|(held, value)| (held.strip_prefix(PREFIX)? == name).then_some(value))?;
        std::str::from_utf8(value).ok()
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (name, value) in self.0.iter() {
            if let (Some(name), Ok(value)) = (name.strip_prefix(PREFIX), std::str::from_utf8(value)) {
                visit(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::computes_name;

    #[test]
    fn names_that_are_no_constants_are_seen() {
        let check = |text: &str, expected| assert_eq!(computes_name(text.as_bytes()), expected, "{text}");
        check("DO $$ BEGIN PERFORM set_config('a.b', x, false); END $$", false);
        check("DO 'BEGIN PERFORM SET_CONFIG ( ''a.b'' , ''x'', false); END'", false);
        check("DO $$ BEGIN PERFORM set_config('a.' || n, x, false); END $$", true);
        check("DO $$ BEGIN PERFORM set_config('a.b', x, false), pg_catalog.set_config(n, x, false); END $$", true);
        check("DO $$ BEGIN NULL; END $$", false);
        check("set_config(", true);
    }
}
