//! One running component: made under bounds, asked, and thrown away when it fails.
//!
//! Invariant: an instance that faulted is never asked again; [`Instance::route`] takes care that its owner knows.

use std::time::Duration;

use wasmtime::{Store, Trap};

use super::bindings::exports::pointsman::policy::routing as wit;
use super::bindings::pointsman::policy::types;
use super::bindings::{Policy, PolicyPre};
use super::current::lend;
use super::engine::Engine;
use super::host::{Breach, Host};
use super::limits::Limits;
use crate::policy::{
    Decision, Depends, Fault, FaultKind, Manifest, Needs, Query, Role, ShardId, Shards, SqlState, Target,
};

/// Bounds on what an answer holds; `wit/policy.wit` names them.
const MESSAGE: usize = 1024;
const LABELS: usize = 16;
const LABEL: usize = 256;
const CONSISTENCY: usize = 256;
const MANY: usize = 1024;
const VERSION: usize = 64;

/// A component, started and configured.
pub(super) struct Instance {
    store: Store<Host>,
    policy: Policy,
}

impl Instance {
    /// Starts a component and hands it the settings.
    pub(super) fn start(
        engine: &Engine,
        pre: &PolicyPre<Host>,
        host: Host,
        settings: &str,
        limits: &Limits,
    ) -> Result<(Self, Box<str>, Manifest), Fault> {
        let mut store = engine.store(host);
        store.limiter(|host| &mut host.meter);
        store.set_hostcall_fuel(limits.answer);
        engine.begin(&mut store, limits.configure_deadline);
        let policy = match pre.instantiate(&mut store) {
            Ok(policy) => policy,
            Err(error) => return Err(fault(&error, &mut store, limits.configure_deadline)),
        };
        engine.begin(&mut store, limits.configure_deadline);
        let configured = policy.pointsman_policy_routing().call_configure(&mut store, settings);
        let (version, manifest) = match configured {
            Ok(Ok(manifest)) => checked(manifest)?,
            Ok(Err(message)) => return Err(Fault::new(FaultKind::Declared, clipped(&message))),
            Err(error) => return Err(fault(&error, &mut store, limits.configure_deadline)),
        };
        store.data_mut().needs = manifest.needs;
        Ok((Self { store, policy }, version, manifest))
    }

    /// Asks about one query. After an error the instance must be dropped.
    #[inline]
    pub(super) fn route(&mut self, engine: &Engine, deadline: Duration, query: &Query<'_>) -> Result<Decision, Fault> {
        let scalars = scalars(query);
        engine.begin(&mut self.store, deadline);
        self.store.data_mut().meter.refused = None;
        let policy = &self.policy;
        let answer = lend(&mut self.store, query, |store| policy.pointsman_policy_routing().call_route(store, scalars));
        match answer {
            Ok(Ok(decision)) => decided(decision, query),
            Ok(Err(message)) => Err(Fault::new(FaultKind::Declared, clipped(&message))),
            Err(error) => Err(fault(&error, &mut self.store, deadline)),
        }
    }

    /// Memory is nearly used up: better a fresh instance for the next call.
    #[inline]
    pub(super) fn is_worn(&self) -> bool {
        self.store.data().meter.nearly_full()
    }
}

/// The numbers that travel with the call.
fn scalars(query: &Query<'_>) -> types::Query {
    let statements = &query.analysis.shape.statements;
    let (mut tables, mut functions, mut equalities, mut hints) = (0, 0, 0, 0);
    for statement in statements {
        tables += statement.tables.len();
        functions += statement.functions.len();
        equalities += statement.equalities.len();
        hints += statement.hints.len();
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let fingerprint = query.analysis.shape.fingerprint;
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    let (fingerprint_low, fingerprint_high) = (fingerprint as u64, (fingerprint >> 64) as u64);
    types::Query {
        kind: query.kind() as u32,
        access: query.access as u32,
        effects: query.effects.0,
        facts: query.facts().0,
        fingerprint_low,
        fingerprint_high,
        topology: query.topology.version(),
        statements: number(statements.len()),
        tables: number(tables),
        functions: number(functions),
        equalities: number(equalities),
        hints: number(hints),
        parameters: query.parameters.count(),
        reserved_1: 0,
        reserved_2: 0,
        reserved_3: 0,
    }
}

/// A manifest that does not contradict itself.
fn checked(manifest: wit::Manifest) -> Result<(Box<str>, Manifest), Fault> {
    let wrong = |message: String| Err(Fault::new(FaultKind::Answer, message));
    if manifest.version.len() > VERSION || manifest.version.chars().any(char::is_control) {
        return wrong(format!("its manifest's version is not one line of at most {VERSION} bytes"));
    }
    let needs = Needs(manifest.needs);
    if !Needs::ALL.all(needs) {
        return wrong(format!("its manifest needs facts that this gateway does not know (bits {:#x})", needs.0));
    }
    let depends = match manifest.depends {
        0 => Depends::Statement,
        1 => Depends::Session,
        2 => Depends::Values,
        3 => Depends::Anything,
        other => return wrong(format!("its manifest's `depends` is {other}; 0 to 3 have a meaning")),
    };
    for (group, name, at_least) in [
        (Needs::SESSION, "session", Depends::Session),
        (Needs::TEXT, "text", Depends::Values),
        (Needs::VALUES, "values", Depends::Values),
        (Needs::LOAD, "load", Depends::Anything),
        (Needs::CLOCK, "clock", Depends::Anything),
    ] {
        if needs.all(group) && depends < at_least {
            return wrong(format!(
                "its manifest contradicts itself: it needs {name}, yet promises that decisions depend on less; \
                 `depends` must be at least {}",
                at_least as u8
            ));
        }
    }
    Ok((manifest.version.into(), Manifest { needs, depends }))
}

/// A decision whose every number and text is in range.
#[inline]
fn decided(decision: wit::Decision, query: &Query<'_>) -> Result<Decision, Fault> {
    match decision {
        wit::Decision::Pass => Ok(Decision::Pass),
        wit::Decision::Route(target) => routed(target, query).map(Decision::Route).map_err(answer),
        wit::Decision::Reject(rejection) => rejected(rejection).map_err(answer),
    }
}

fn answer(message: String) -> Fault {
    Fault::new(FaultKind::Answer, message)
}

#[inline]
fn routed(target: wit::Target, query: &Query<'_>) -> Result<Target, String> {
    let role = match target.role {
        0 => Role::Primary,
        1 => Role::Replica,
        2 => Role::Any,
        other => return Err(format!("it answered role {other}; 0 to 2 have a meaning")),
    };
    let shards = match target.shards {
        wit::Shards::Default => Shards::Default,
        wit::Shards::One(shard) => Shards::One(existing(shard, query)?),
        wit::Shards::Many(shards) => several(&shards, query)?,
        wit::Shards::All => Shards::All,
    };
    let labels = if target.labels.is_empty() {
        None
    } else {
        let fits = |(name, value): &(String, String)| name.len() <= LABEL && value.len() <= LABEL;
        if target.labels.len() > LABELS || !target.labels.iter().all(fits) {
            return Err(format!("it answered more than {LABELS} labels, or one of more than {LABEL} bytes"));
        }
        Some(target.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    };
    if target.consistency.as_ref().is_some_and(|key| key.len() > CONSISTENCY) {
        return Err(format!("it answered a consistency key of more than {CONSISTENCY} bytes"));
    }
    Ok(Target {
        role,
        shards,
        labels,
        max_lag: target.max_lag.map(|lag| Duration::from_millis(u64::from(lag))),
        consistency: target.consistency.map(Into::into),
    })
}

fn existing(shard: u32, query: &Query<'_>) -> Result<ShardId, String> {
    let count = query.topology.shards();
    if shard < count { Ok(ShardId(shard)) } else { Err(format!("it answered shard {shard} of {count}")) }
}

fn several(shards: &[u32], query: &Query<'_>) -> Result<Shards, String> {
    if shards.is_empty() || shards.len() > MANY {
        return Err(format!("it answered a list of {} shards; 1 to {MANY} are allowed", shards.len()));
    }
    let mut all = shards.iter().map(|shard| existing(*shard, query)).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(match all[..] {
        [one] => Shards::One(one),
        _ => Shards::Many(all.into()),
    })
}

fn rejected(rejection: wit::Rejection) -> Result<Decision, String> {
    let Some(sqlstate) = SqlState::parse(rejection.sqlstate.as_bytes()) else {
        return Err(format!(
            "it rejected with SQLSTATE {:?}, which is none for an error",
            clipped(&rejection.sqlstate)
        ));
    };
    let long = |text: &str| text.len() > MESSAGE || text.contains('\0');
    if rejection.message.is_empty() || long(&rejection.message) || rejection.hint.as_deref().is_some_and(long) {
        return Err(format!("it rejected with an empty message, or one of more than {MESSAGE} bytes"));
    }
    Ok(Decision::reject(sqlstate, rejection.message, rejection.hint.map(Into::into)))
}

/// What an error of Wasmtime's means.
#[cold]
fn fault(error: &wasmtime::Error, store: &mut Store<Host>, deadline: Duration) -> Fault {
    // A guest that is refused memory mostly traps on its own a little later; the refusal is the cause.
    if let Some(refused) = store.data_mut().meter.refused.take() {
        return Fault::new(FaultKind::Memory, refused);
    }
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return Fault::new(FaultKind::Breach, breach.0);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            Fault::new(FaultKind::Deadline, format!("it ran longer than {}", humantime::format_duration(deadline)))
        }
        Some(Trap::StackOverflow) => Fault::new(FaultKind::Stack, "it recursed too deeply"),
        Some(trap) => Fault::new(FaultKind::Trap, format!("it trapped: {trap}")),
        // Everything else is about values that cross the border: lengths, discriminants, UTF-8, the answer's bound.
        None => Fault::new(FaultKind::Answer, clipped(&format!("{error:#}"))),
    }
}

/// A text cut to what a message may hold.
pub(super) fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE)].to_owned()
}
