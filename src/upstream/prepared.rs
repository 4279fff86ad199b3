//! Prepared statements: one value per text, parameter types and reading, shared by all clients, and what one server holds of
//! them.
//!
//! Invariant: a [`StatementId`] stands for one text, one list of types and one [`Reading`] for the life of the process, so
//! that a name made from it never means two things on a server: PostgreSQL refuses a statement whose result would have
//! other columns than when it was parsed ("cached plan must not change result type"). Its constants mean what they meant to
//! the client that parsed it, whatever has been set since ([`Prepared::misread`]).
//!
//! Approximate: PostgreSQL reads constants anew after DDL on what the statement names; here that happens on no server that
//! still holds it.
//!
//! Deliberately absent: clients' names for statements (`session`).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Settings;
use crate::sql::{Analysis, Kind};
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

    /// Appends the name under which servers know it.
    pub fn write_name(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"pm_");
        out.extend_from_slice(itoa::Buffer::new().format(self.0).as_bytes());
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
    reading: (Schema, Names),
    /// Where its names were looked up is not known.
    unsettled: bool,
    /// Values of [`CONSTANTS`] under which it was read first; nothing for a text to which they do not matter.
    constants: Settings,
    /// Whether they matter.
    constant: bool,
    /// What servers said of it when it was described first.
    described: Described,
    /// Where a Parse of it succeeded, the latest last.
    proven: Mutex<SmallVec<[Proof; 2]>>,
    /// Where it is listed, for a statement that is shared.
    listed: Option<Listed>,
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

/// Settings that say what a text's characters are.
const CHARACTERS: [&str; 3] = ["backslash_quote", "client_encoding", "standard_conforming_strings"];

/// Settings that say what a text's constants are, those of [`CHARACTERS`] included: values are made of them when a text is
/// prepared.
const CONSTANTS: [&str; 11] = [
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Whether a setting may change what a prepared text's constants mean.
#[must_use]
pub fn makes_constants(setting: &str) -> bool {
    CONSTANTS.iter().any(|name| setting.eq_ignore_ascii_case(name))
}

/// Whether a setting may change what a text's names mean.
#[must_use]
pub fn finds_names(setting: &str) -> bool {
    NAMING.iter().any(|name| setting.eq_ignore_ascii_case(name))
}

/// Whether [`CONSTANTS`] matter to a text: it has a string in it, a comparison with NULL, or a character beyond ASCII.
#[must_use]
pub fn has_constants(text: &[u8]) -> bool {
    let dollar = |pair: &[u8]| pair[0] == b'$' && !pair[1].is_ascii_digit();
    let null = |word: &[u8]| word.eq_ignore_ascii_case(b"null");
    text.iter().any(|byte| *byte == b'\'' || !byte.is_ascii())
        || text.windows(2).any(dollar)
        || text.windows(4).any(null)
}

fn constants(settings: Option<&Settings>) -> impl Iterator<Item = (&str, &[u8])> {
    settings.into_iter().flat_map(Settings::iter).filter(|(name, _)| CONSTANTS.contains(name))
}

impl Reading<'_> {
    fn schema(&self) -> Schema {
        (self.scope.schema, self.scope.own)
    }

    fn names(&self) -> [Option<&[u8]>; 3] {
        NAMING.map(|name| self.settings.and_then(|settings| settings.bytes(name)))
    }
}

/// A group in which nothing is sent: the next user of a statement makes sure of it.
pub(super) const DOUBTED: u64 = u64::MAX;

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
        self.reading.0.0 == scope.schema
    }

    /// Whether `settings` look its names up where they were looked up when it was parsed. Where they do not, PostgreSQL lets nobody
    /// have other columns than those that it was parsed with (`RevalidateCachedQuery` in `plancache.c`), told anew or not.
    #[must_use]
    pub fn finds_the_same(&self, settings: &Settings) -> bool {
        let now = Reading { settings: Some(settings), ..Reading::default() };
        !self.unsettled && self.reading.1.each_ref().map(Option::as_deref) == now.names()
    }

    /// Whether a Parse under `settings` would give its constants another meaning.
    #[must_use]
    pub fn is_misread(&self, settings: &Settings) -> bool {
        self.constant && self.is_shared() && !self.constants.iter().eq(constants(Some(settings)))
    }

    /// The same where `for_now` other settings may hold that are not known.
    #[must_use]
    pub fn may_be_misread(&self, settings: &Settings, for_now: bool) -> bool {
        self.is_misread(settings) || for_now && self.constant && self.is_shared()
    }

    /// What must be set for a Parse to give its constants their meaning, with the values; `None`: as it is for a session that has
    /// set nothing. Where names mean something else now, PostgreSQL makes its constants anew.
    pub fn constants(&self, settings: &Settings) -> impl Iterator<Item = (&'static str, Option<&[u8]>)> {
        let same_names = Reading { settings: Some(settings), ..Reading::default() }.names()
            == self.reading.1.each_ref().map(Option::as_deref);
        let names = if same_names { &CONSTANTS[..] } else { &CHARACTERS[..] };
        names.iter().map(|name| (*name, self.constants.bytes(name)))
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
        self.proven.lock().iter().any(|proof| proof.scope == scope && parses_alike(&proof.settings, settings))
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
        let mut held = Settings::default();
        constants(reading.settings.filter(|_| constant)).for_each(|(name, value)| held.set(name, value));
        let unsettled = reading.unsettled;
        let reading = (reading.schema(), reading.names().map(|value| value.map(Box::from)));
        let (described, proven) = (Described::default(), Mutex::default());
        let (text, types) = (text.into(), types.into());
        Prepared { id, text, types, analysis, reading, unsettled, constants: held, constant, described, proven, listed }
    }

    /// The shared statement of this text and these types, read like this.
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
        let settings = reading.settings.filter(|_| constant);
        let hash = {
            let mut hasher = list.hasher.build_hasher();
            (types, text, reading.schema(), names).hash(&mut hasher);
            constants(settings).for_each(|pair| pair.hash(&mut hasher));
            hasher.finish()
        };
        for held in list.by_hash.get(&hash).into_iter().flatten().filter_map(Weak::upgrade) {
            let (schema, held_names) = &held.reading;
            let alike = *schema == reading.schema() && held_names.each_ref().map(Option::as_deref) == names;
            let alike = alike && held.constants.iter().eq(constants(settings));
            if alike && *held.text == *text && *held.types == *types {
                return held;
            }
            others.push(held);
        }
        let listed = Listed { list: Arc::downgrade(&self.list), hash };
        let made = Arc::new(self.make(text, types, reading, constant, analysis(), Some(listed)));
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

/// The statements that one server holds under names of ours.
#[derive(Debug)]
pub struct PreparedSet {
    held: HashMap<StatementId, Held, foldhash::fast::RandomState>,
    /// Most statements held; the one unused for longest goes first.
    limit: usize,
    clock: u64,
    scope: Scope,
    /// One had to go for another: what is prepared here is often prepared anew.
    crowded: bool,
}

#[derive(Debug)]
struct Held {
    used: u64,
    /// The group in which its Parse was sent; `None`: it was answered.
    sent_in: Option<u64>,
    /// What it returns is no longer what clients know.
    changed: bool,
    /// It was described here since it was parsed: the server lets nothing else come of it without an error.
    described: bool,
    /// Its plan was discarded: its constants are made anew under whatever is set at its next use.
    replans: bool,
    /// Under what its Parse was sent.
    parsed: Option<(Arc<Settings>, Scope)>,
}

impl PreparedSet {
    /// An empty set that holds `limit` statements at most (at least one).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: HashMap::default(), limit: limit.max(1), clock: 0, scope: Scope::default(), crowded: false }
    }

    /// Whether the server holds it; marks it as used.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.held.get_mut(&id) {
            Some(held) => {
                held.used = self.clock;
                true
            }
            None => false,
        }
    }

    /// Whether clients may know what it returns, and this server may see that otherwise: it must be asked before the statement
    /// is used. Where statements come and go, one server's answer stands for the account's others. `for_now` as in
    /// [`PreparedSet::misreads`].
    #[must_use]
    pub fn doubts(&self, statement: &Prepared, settings: &Arc<Settings>, for_now: bool) -> bool {
        if !statement.is_described() || !statement.is_shared() {
            return self.misreads(statement, settings, for_now);
        }
        match self.held.get(&statement.id) {
            Some(held) => {
                held.changed
                    || held.sent_in == Some(DOUBTED)
                    || held.replans && statement.may_be_misread(settings, for_now)
            }
            None => {
                !(self.crowded && statement.is_proven(self.scope, settings))
                    || statement.may_be_misread(settings, for_now)
            }
        }
    }

    /// Whether this server lacks the statement, or its plan, and would give its constants another meaning. `for_now`: other
    /// settings may hold until the transaction ends.
    #[must_use]
    pub fn misreads(&self, statement: &Prepared, settings: &Settings, for_now: bool) -> bool {
        statement.constant
            && self.held.get(&statement.id).is_none_or(|held| held.replans)
            && statement.may_be_misread(settings, for_now)
    }

    /// The server has discarded all plans.
    pub(super) fn plans_discarded(&mut self) {
        self.held.values_mut().for_each(|held| held.replans = true);
    }

    /// Whether a description of it is worth looking into: the first since it was parsed here.
    #[must_use]
    pub fn undescribed(&self, id: StatementId) -> bool {
        self.held.get(&id).is_none_or(|held| !held.described)
    }

    /// It was described. `changed`: with other columns than clients know.
    pub(super) fn was_described(&mut self, id: StatementId, changed: bool) {
        if let Some(held) = self.held.get_mut(&id) {
            held.described = true;
            held.changed |= changed;
        }
    }

    /// Whether a Parse of it would surely succeed again: one succeeded under the same role and search path, and no change
    /// of the schema is known since.
    pub fn fresh(&mut self, id: StatementId, settings: &Arc<Settings>) -> bool {
        let scope = self.scope;
        let fresh = self.held.get(&id).and_then(|held| held.parsed.as_ref());
        let fresh = fresh.is_some_and(|(under, at)| *at == scope && parses_alike(under, settings));
        fresh && self.touch(id)
    }

    /// Notes under which settings a statement just sent is parsed.
    pub fn parsed_under(&mut self, id: StatementId, settings: Arc<Settings>) {
        let scope = self.scope;
        if let Some(held) = self.held.get_mut(&id) {
            held.parsed = Some((settings, scope));
        }
    }

    /// Tells whom the server works for, and under which schema.
    pub fn enter(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// A Parse that was sent under a name of ours succeeded.
    pub(super) fn succeeded(&mut self, statement: &Prepared) {
        let Some(held) = self.held.get_mut(&statement.id) else { return };
        held.sent_in = None;
        if let Some((settings, scope)) = &held.parsed {
            statement.prove(*scope, settings);
        }
    }

    /// The statement to close before another is prepared, if the set is full.
    #[must_use]
    pub fn victim(&mut self) -> Option<StatementId> {
        if self.held.len() < self.limit {
            return None;
        }
        self.crowded = true;
        self.held.iter().min_by_key(|(_, held)| held.used).map(|(id, _)| *id)
    }

    /// The statement held under this name, which a client might use as its own.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<StatementId> {
        let id = StatementId::named(std::str::from_utf8(name).ok()?)?;
        self.held.contains_key(&id).then_some(id)
    }

    /// Statements held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Notes a statement whose Parse is sent in this group.
    pub(super) fn insert(&mut self, id: StatementId, group: u64) {
        self.clock += 1;
        self.held.insert(
            id,
            Held {
                used: self.clock,
                sent_in: Some(group),
                changed: false,
                described: false,
                replans: false,
                parsed: None,
            },
        );
    }

    /// Whether a message of this group surely finds it; `None`: it is not held. Marks it as used.
    pub(super) fn sure(&mut self, id: StatementId, group: u64) -> Option<bool> {
        self.clock += 1;
        let held = self.held.get_mut(&id)?;
        held.used = self.clock;
        Some(!held.changed && held.sent_in.is_none_or(|sent_in| sent_in == group))
    }

    pub(super) fn remove(&mut self, id: StatementId) {
        self.held.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
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
