//! Prepared statements: one value per text, parameter types and reading, shared by all clients; what one server holds of them is
//! in `set`.
//!
//! Invariant: a [`StatementId`] stands for one text, one list of types and one [`Reading`] for the life of the process, so
//! that a name made from it never means two things on a server: PostgreSQL refuses a statement whose result would have
//! other columns than when it was parsed ("cached plan must not change result type"). Its constants mean what they meant to
//! the client that parsed it, whatever has been set since ([`Prepared::is_misread`]); one that stands for the moment at which it is
//! parsed (`'now'`) is no two clients' ([`Prepared::momentary`]).
//!
//! Approximate: PostgreSQL reads constants anew after DDL on what the statement names; here that happens on no server that
//! still holds it.
//!
//! Deliberately absent: clients' names for statements (`session`).

mod set;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;

pub(super) use set::DOUBTED;
pub use set::PreparedSet;

use super::Settings;
use crate::sql::{Analysis, FOLDING, Kind, OUTPUT, names_moment};
use crate::wire::frame::HEADER_LEN;

/// Names a prepared statement within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// The statement that has this number in its name.
    pub(super) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The statement that servers know by this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        name.strip_prefix("pm_")?.parse().ok().map(Self)
    }

    /// The name under which servers know it: three letters and at most twenty digits.
    #[must_use]
    pub fn name(self) -> SmallVec<[u8; 24]> {
        let mut name = SmallVec::from_slice(b"pm_");
        name.extend_from_slice(itoa::Buffer::new().format(self.0).as_bytes());
        name
    }
}

/// A statement that some client has parsed.
#[derive(Debug)]
pub struct Prepared {
    /// Its identity.
    pub id: StatementId,
    /// Its text, without the NUL.
    pub text: Box<[u8]>,
    /// Count and object ids of its parameter types as the client sent them.
    pub types: Box<[u8]>,
    /// What the text means.
    pub analysis: Analysis,
    /// The first client's reading of it; nothing for a statement that is not shared.
    schema: Schema,
    under: Under,
    /// That is not known: something ahead of its Parse may have set another thing.
    unsettled: bool,
    /// What the server told of that.
    told: OnceLock<Box<Under>>,
    /// Whether they matter.
    constant: bool,
    /// A literal of it may stand for the moment of its Parse: each Parse makes one anew.
    pub momentary: bool,
    /// What servers said of it when it was described first.
    described: Described,
    /// Where a Parse of it succeeded, the latest last.
    proven: Mutex<SmallVec<[Proof; 2]>>,
    /// Where it is listed, for a statement that is shared.
    listed: Option<Listed>,
}

/// The settings that a text is read under.
#[derive(Debug)]
struct Under {
    names: Names,
    /// Values of [`CHARACTERS`] and [`FOLDING`], so far as they matter to it.
    constants: Settings,
}

impl Under {
    fn new(reading: Reading<'_>, constant: bool) -> Self {
        let mut held = Settings::default();
        constants(reading.settings, constant).for_each(|(name, value)| held.set(name, value));
        Self { names: reading.names().map(|value| value.map(Box::from)), constants: held }
    }
}

/// What a transaction may have set otherwise than its session's settings say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Within {
    /// Settings that make constants.
    pub constants: bool,
    /// The search path.
    pub path: bool,
}

/// What clients know of a statement: PostgreSQL never changes it while the statement is prepared (`RevalidateCachedQuery` in
/// `plancache.c`), so that it must not change either where the statement is prepared anew.
#[derive(Debug, Default)]
struct Described {
    /// Count and object ids of all its parameters, those that the client left open included.
    types: OnceLock<Box<[u8]>>,
    /// See [`row_shape`](crate::wire::backend::row_shape).
    columns: OnceLock<Box<[u8]>>,
}

/// What decides which objects a text names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// DDL statements known: who parses a text again because the schema has changed must not get what was parsed before.
    pub scope: Scope,
    /// Where names are looked up.
    pub settings: Option<&'a Settings>,
    /// Something ahead of it may have changed that.
    pub unsettled: bool,
}

/// DDL known of all sessions, and of the session's own.
type Schema = (u64, u64);

/// Values of [`NAMING`].
type Names = [Option<Box<[u8]>>; 3];

/// Settings that say which schemas names are looked up in.
const NAMING: [&str; 3] = ["search_path", "role", "session_authorization"];

/// Settings that say what a text's characters are: values are made of those, and of what [`FOLDING`] lists, when a text is prepared.
const CHARACTERS: [&str; 3] = ["backslash_quote", "client_encoding", "standard_conforming_strings"];

/// Whether a setting may change what a prepared text's constants mean, or what is worked out of a text without any.
#[must_use]
pub fn makes_constants(setting: &str, constant: bool) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| setting.eq_ignore_ascii_case(name));
    if constant { any(&FOLDING) || any(&CHARACTERS) } else { any(&OUTPUT) }
}

/// Whether a setting may change what a text's names mean.
#[must_use]
pub fn finds_names(setting: &str) -> bool {
    NAMING.iter().any(|name| setting.eq_ignore_ascii_case(name))
}

/// All settings that a text may be read under.
pub fn read_under() -> impl Iterator<Item = &'static str> {
    NAMING.into_iter().chain(CHARACTERS).chain(FOLDING)
}

/// Whether all of those matter to a text: it has a string in it, a comparison with NULL, or a character beyond ASCII.
#[must_use]
pub fn has_constants(text: &[u8]) -> bool {
    let dollar = |pair: &[u8]| pair[0] == b'$' && !pair[1].is_ascii_digit();
    let null = |word: &[u8]| word.eq_ignore_ascii_case(b"null");
    text.iter().any(|byte| *byte == b'\'' || !byte.is_ascii())
        || text.windows(2).any(dollar)
        || text.windows(4).any(null)
}

/// Those that matter to a text: [`OUTPUT`] for one without constants.
fn constants(settings: Option<&Settings>, constant: bool) -> impl Iterator<Item = (&str, &[u8])> {
    let matters = move |name: &str| {
        if constant { FOLDING.contains(&name) || CHARACTERS.contains(&name) } else { OUTPUT.contains(&name) }
    };
    settings.into_iter().flat_map(Settings::iter).filter(move |(name, _)| matters(name))
}

impl Reading<'_> {
    fn schema(&self) -> Schema {
        (self.scope.schema, self.scope.own)
    }

    fn names(&self) -> [Option<&[u8]>; 3] {
        NAMING.map(|name| self.settings.and_then(|settings| settings.bytes(name)))
    }
}

/// The place of a statement in its registry's list.
#[derive(Debug)]
struct Listed {
    list: Weak<Mutex<List>>,
    hash: u64,
}

/// Where a Parse is known to succeed: an account's servers while the schema stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope {
    /// Unique to the account for the life of the process; 0 for none.
    pub account: u64,
    /// Grows with every DDL statement known.
    pub schema: u64,
    /// Unique to a session whose own definitions others do not see: temporary objects, those of its open transaction; else 0.
    pub own: u64,
}

#[derive(Debug)]
struct Proof {
    scope: Scope,
    settings: Arc<Settings>,
}

/// Most proofs that one statement keeps.
const PROOFS: usize = 8;

impl Prepared {
    /// The types of its parameters for a Parse on one more server: what the first server made of those left open, else what
    /// the client sent.
    #[must_use]
    pub fn settled_types(&self) -> &[u8] {
        self.described.types.get().unwrap_or(&self.types)
    }

    /// Whether the client left types to the server that has not told which it chose.
    #[must_use]
    pub fn leaves_types_open(&self) -> bool {
        let given = || self.types.get(2..).unwrap_or_default().chunks_exact(4);
        let open = || given().any(|oid| oid == [0; 4]) || given().len() < highest_parameter(&self.text);
        self.described.types.get().is_none() && open() && self.is_planned()
    }

    /// Whether it is an EXECUTE of another.
    #[inline]
    #[must_use]
    pub fn executes(&self) -> bool {
        matches!(self.analysis.shape.statements.as_slice(), [only] if only.kind == Kind::Execute)
    }

    /// Whether clients may know what it returns.
    #[inline]
    #[must_use]
    pub fn is_described(&self) -> bool {
        self.described.columns.get().is_some()
    }

    /// Whether it has names of ours on servers, unlike one that clients gave no name.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether all DDL known in `scope` was known when the first client parsed it. What the session alone has defined does not
    /// count: for that the server makes its plans anew, as for any client of its own.
    #[must_use]
    pub fn is_read_under(&self, scope: Scope) -> bool {
        self.schema.0 == scope.schema
    }

    /// Whether `settings` look its names up where they were looked up when it was parsed. Where they do not, PostgreSQL lets nobody
    /// have other columns than those that it was parsed with (`RevalidateCachedQuery` in `plancache.c`), told anew or not.
    #[must_use]
    pub fn finds_the_same(&self, settings: &Settings) -> bool {
        let now = Reading { settings: Some(settings), ..Reading::default() };
        !self.is_unsettled() && self.under().names.each_ref().map(Option::as_deref) == now.names()
    }

    /// Whether its names were looked up along another search path, or as another role, and nobody was told yet what it returned there: a server must learn
    /// that before it uses it under `settings`, as PostgreSQL lets it return nothing else.
    #[must_use]
    pub fn is_read_elsewhere(&self, settings: &Settings, within: Within) -> bool {
        self.names_to_set(settings, within).next().is_some()
            && self.is_shared()
            && !self.is_described()
            && !self.is_unsettled()
            && self.is_planned()
    }

    /// What must be set for its names to be looked up as they were, in this order, with the values; `None`: the server's own. Whose
    /// they are matters where a search path has the user's own schema in it.
    pub fn names_to_set(
        &self,
        settings: &Settings,
        within: Within,
    ) -> impl Iterator<Item = (&'static str, Option<&[u8]>)> {
        let own = |path: Option<&[u8]>| path.is_none_or(|path| path.windows(5).any(|word| word == b"$user"));
        let [path, ..] = self.under().names.each_ref().map(Option::as_deref);
        let users = own(path) || own(settings.bytes(NAMING[0]));
        let names = NAMING.iter().zip(&self.under().names).enumerate().rev();
        names.filter_map(move |(at, (name, was))| {
            let differs = was.as_deref() != settings.bytes(name);
            let matters = if at == 0 { within.path || differs } else { users && differs };
            matters.then_some((*name, was.as_deref()))
        })
    }

    /// Whether it is not known what it was read under.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.unsettled && self.told.get().is_none()
    }

    /// The same, where a server can tell: its Parse has taken a snapshot, so that a question right behind it changes nothing.
    #[must_use]
    pub fn can_be_settled(&self) -> bool {
        self.is_unsettled() && !self.analysis.shape.statements.is_empty() && self.is_planned()
    }

    /// Its server has told what it was read under.
    pub fn settle(&self, settings: &Settings) {
        let reading = Reading { settings: Some(settings), ..Reading::default() };
        self.told.get_or_init(|| Box::new(Under::new(reading, self.constant)));
    }

    fn under(&self) -> &Under {
        self.told.get().map_or(&self.under, |told| told)
    }

    /// Whether a Parse under `settings` would give its constants another meaning.
    #[must_use]
    pub fn is_misread(&self, settings: &Settings) -> bool {
        self.constant && self.is_shared() && !self.under().constants.iter().eq(constants(Some(settings), true))
    }

    /// The same where other settings may hold that are not known.
    #[must_use]
    pub fn may_be_misread(&self, settings: &Settings, within: Within) -> bool {
        self.is_misread(settings) || within.constants && self.constant && self.is_shared()
    }

    /// What must be set for a Parse to give its constants their meaning, with the values; `None`: as it is for a session that has
    /// set nothing. Where names mean something else now, PostgreSQL makes its constants anew.
    pub fn constants(&self, settings: &Settings) -> impl Iterator<Item = (&'static str, Option<&[u8]>)> {
        let same_names = Reading { settings: Some(settings), ..Reading::default() }.names()
            == self.under().names.each_ref().map(Option::as_deref);
        let folding = if same_names { &FOLDING[..] } else { &[] };
        CHARACTERS.iter().chain(folding).map(|name| (*name, self.under().constants.bytes(name)))
    }

    /// A ParameterDescription of it came, whole.
    pub(super) fn learn_types(&self, frame: &[u8]) {
        if !self.is_planned() {
            return;
        }
        // Two bytes of count and four for each type, as in a Parse.
        self.described.types.get_or_init(|| frame[HEADER_LEN..].into());
    }

    /// Its columns were told. Returns whether they are those that were told first.
    pub fn learn_columns(&self, shape: &[u8]) -> bool {
        !self.is_planned() || **self.described.columns.get_or_init(|| shape.into()) == *shape
    }

    /// Whether its result is what it was when it was parsed. That of a FETCH is its cursor's.
    fn is_planned(&self) -> bool {
        let planned = |kind| {
            matches!(kind, Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge | Kind::Values)
        };
        self.analysis.shape.statements.iter().all(|statement| planned(statement.kind))
    }

    /// Whether a Parse of it would surely succeed: one succeeded in this scope under the same role and search path.
    #[must_use]
    pub fn is_proven(&self, scope: Scope, settings: &Arc<Settings>) -> bool {
        let proven =
            || self.proven.lock().iter().any(|proof| proof.scope == scope && parses_alike(&proof.settings, settings));
        !self.unsettled && proven()
    }

    /// A Parse of it succeeded.
    pub(super) fn prove(&self, scope: Scope, settings: &Arc<Settings>) {
        let mut proven = self.proven.lock();
        if proven.iter().any(|proof| proof.scope == scope && parses_alike(&proof.settings, settings)) {
            return;
        }
        proven.retain(|proof| proof.scope.account != scope.account || proof.scope.schema == scope.schema);
        if proven.len() >= PROOFS {
            proven.remove(0);
        }
        proven.push(Proof { scope, settings: Arc::clone(settings) });
    }
}

/// The highest parameter of a text, or what looks like one.
fn highest_parameter(text: &[u8]) -> usize {
    let numbers = text.split(|byte| *byte == b'$').skip(1).map(|rest| {
        let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
    });
    numbers.max().unwrap_or(0)
}

/// Whether a text means the same under both, as far as settings decide that.
fn parses_alike(one: &Arc<Settings>, other: &Arc<Settings>) -> bool {
    Arc::ptr_eq(one, other) || NAMING.iter().all(|name| one.bytes(name) == other.bytes(name))
}

impl Drop for Prepared {
    /// The last who held it is gone: so is its place in the registry, and with it all that it took.
    fn drop(&mut self) {
        let Some(Listed { list, hash }) = &self.listed else { return };
        let Some(list) = list.upgrade() else { return };
        let mut list = list.lock();
        let Some(alike) = list.by_hash.get_mut(hash) else { return };
        // Another of the same text may have been listed since the last hold on this one was given up.
        alike.retain(|held| held.strong_count() > 0);
        if alike.is_empty() {
            list.by_hash.remove(hash);
        }
    }
}

/// Gives out [`Prepared`] values; equal texts and types share one while anybody holds it. What nobody holds takes no memory.
#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    hasher: foldhash::fast::RandomState,
    /// By the hash of types, text and reading, which stand in the statement and nowhere else.
    by_hash: HashMap<u64, SmallVec<[Weak<Prepared>; 1]>, foldhash::fast::RandomState>,
}

impl Registry {
    /// A statement of its own, not shared: for unnamed statements, which live shortly.
    pub fn single(&self, text: &[u8], types: &[u8], analysis: Analysis) -> Arc<Prepared> {
        Arc::new(self.make(text, types, Reading::default(), false, analysis, None))
    }

    fn make(
        &self,
        text: &[u8],
        types: &[u8],
        reading: Reading<'_>,
        constant: bool,
        analysis: Analysis,
        listed: Option<Listed>,
    ) -> Prepared {
        let id = StatementId(self.next.fetch_add(1, Ordering::Relaxed));
        let (schema, under, unsettled) = (reading.schema(), Under::new(reading, constant), reading.unsettled);
        let (described, proven) = (Described::default(), Mutex::default());
        let (text, types, momentary) = (text.into(), types.into(), false);
        Prepared {
            id,
            text,
            types,
            analysis,
            schema,
            under,
            unsettled,
            told: OnceLock::new(),
            constant,
            momentary,
            described,
            proven,
            listed,
        }
    }

    /// The shared statement of this text and these types, read like this; one that nobody else gets if it is momentary.
    pub fn share(
        &self,
        text: &[u8],
        types: &[u8],
        reading: Reading<'_>,
        analysis: impl FnOnce() -> Analysis,
    ) -> Arc<Prepared> {
        // Declared before the lock is taken, so given up after it: the drop of a statement takes the lock itself.
        let mut others: SmallVec<[Arc<Prepared>; 1]> = SmallVec::new();
        let mut list = self.list.lock();
        let names = reading.names();
        let constant = has_constants(text);
        let hash = {
            let mut hasher = list.hasher.build_hasher();
            (types, text, reading.schema(), names).hash(&mut hasher);
            constants(reading.settings, constant).for_each(|pair| pair.hash(&mut hasher));
            hasher.finish()
        };
        for held in list.by_hash.get(&hash).into_iter().flatten().filter_map(Weak::upgrade) {
            let under = &held.under;
            let alike = held.schema == reading.schema() && under.names.each_ref().map(Option::as_deref) == names;
            let alike = alike && under.constants.iter().eq(constants(reading.settings, constant));
            if alike && *held.text == *text && *held.types == *types {
                return held;
            }
            others.push(held);
        }
        let analysis = analysis();
        // Those are never found, so that no other text pays for the look.
        let momentary = constant && names_moment(text, &analysis);
        let own = momentary.then(|| self.unique());
        let hash = own.unwrap_or(hash);
        let reading = Reading { scope: Scope { own: own.unwrap_or(reading.scope.own), ..reading.scope }, ..reading };
        let listed = Listed { list: Arc::downgrade(&self.list), hash };
        let mut made = self.make(text, types, reading, constant, analysis, Some(listed));
        made.momentary = momentary;
        let made = Arc::new(made);
        list.by_hash.entry(hash).or_default().push(Arc::downgrade(&made));
        made
    }

    /// A number for [`Scope::own`].
    pub fn unique(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Statements that are shared now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.lock().by_hash.values().map(SmallVec::len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.lock().by_hash.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Analyzer, TextContext};

    #[test]
    fn a_statement_is_shared_while_held_and_gone_afterwards() {
        let registry = Registry::default();
        let analyzer = Analyzer::new(1 << 20);
        let share_as = |text: &str, types: &[u8], reading: Reading<'_>| {
            let analyze = || analyzer.analyze(text.as_bytes(), TextContext::new(true, "UTF8"));
            registry.share(text.as_bytes(), types, reading, analyze)
        };
        let share = |text: &str, types: &[u8]| share_as(text, types, Reading::default());
        let one = share("SELECT 1", &[0, 0]);
        assert!(Arc::ptr_eq(&one, &share("SELECT 1", &[0, 0])));
        let typed = share("SELECT 1", &[0, 1, 0, 0, 0, 23]);
        assert!(one.id != typed.id && registry.len() == 2);
        // The same text names other objects under another search path, and after DDL.
        let mut settings = Settings::default();
        settings.set("search_path", "elsewhere");
        let elsewhere = Reading { settings: Some(&settings), ..Reading::default() };
        let later = Reading { scope: Scope { schema: 1, ..Scope::default() }, ..Reading::default() };
        let own = Reading { scope: Scope { own: 1, ..Scope::default() }, ..Reading::default() };
        for reading in [elsewhere, later, own] {
            let other = share_as("SELECT 1", &[0, 0], reading);
            assert!(other.id != one.id && Arc::ptr_eq(&other, &share_as("SELECT 1", &[0, 0], reading)));
        }
        // What is read at another moment is another, and goes like any.
        let text = "SELECT 'now'::date";
        let (first, second) = (share(text, &[0, 0]), share(text, &[0, 0]));
        assert!(first.momentary && second.momentary && first.id != second.id && !one.momentary);
        drop((first, second));
        let id = one.id;
        drop(one);
        assert_eq!(registry.len(), 1);
        assert_ne!(share("SELECT 1", &[0, 0]).id, id, "an id is never given twice");
        drop(typed);
        assert!(registry.is_empty());
        // Many threads that make and drop the same one find the list as it must be.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2000).for_each(|n| drop(share(["SELECT 2", "SELECT 3"][n % 2], &[0, 0]))));
            }
        });
        assert!(registry.is_empty());
    }
}
