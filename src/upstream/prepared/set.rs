//! What one server holds of the prepared statements.
//!
//! Invariant: what is said to be held was sent there, and nothing since has made the server forget it, as far as is known.
//! Deliberately absent: sending and closing (`session`, `private`).

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Prepared, Scope, StatementId, Within, parses_alike};
use crate::upstream::Settings;

/// A group in which nothing is sent: the next user of a statement makes sure of it.
pub(in crate::upstream) const DOUBTED: u64 = u64::MAX;

/// The statements that one server holds under names of ours.
#[derive(Debug)]
pub struct PreparedSet {
    held: HashMap<StatementId, Held, foldhash::fast::RandomState>,
    /// Most statements held; the one unused for longest goes first.
    limit: usize,
    /// What one unit uses at once has room, though it be more.
    together: usize,
    clock: u64,
    scope: Scope,
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
    /// An empty set that holds `limit` statements at most (at least one), or as many as one unit uses.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: HashMap::default(), limit: limit.max(1), together: 0, clock: 0, scope: Scope::default() }
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
    /// is used. `within` as in [`PreparedSet::misreads`].
    #[must_use]
    pub fn doubts(&self, statement: &Prepared, settings: &Arc<Settings>, within: Within) -> bool {
        if !statement.is_described() || !statement.is_shared() {
            return self.misreads(statement, settings, within)
                || statement.is_read_elsewhere(settings, within) && !self.held.contains_key(&statement.id);
        }
        match self.held.get(&statement.id) {
            Some(held) => {
                held.changed
                    || held.sent_in == Some(DOUBTED)
                    || held.replans && statement.may_be_misread(settings, within)
            }
            // Nothing else tells in time: who waits here for DDL that another executes may be served before its answer comes.
            None => true,
        }
    }

    /// Whether the server holds it, unless what was sent ahead fails.
    #[must_use]
    pub fn surely_holds(&self, id: StatementId) -> bool {
        self.held.get(&id).is_some_and(|held| !held.changed && held.sent_in != Some(DOUBTED))
    }

    /// Whether this server lacks the statement, or its plan, and would give its constants another meaning. `within`: what
    /// may be set otherwise until the transaction ends.
    #[must_use]
    pub fn misreads(&self, statement: &Prepared, settings: &Settings, within: Within) -> bool {
        statement.constant
            && self.held.get(&statement.id).is_none_or(|held| held.replans)
            && statement.may_be_misread(settings, within)
    }

    /// Whether its plan was discarded: its next use takes a snapshot, behind which no isolation level can be set.
    #[must_use]
    pub fn replans(&self, id: StatementId) -> bool {
        self.held.get(&id).is_some_and(|held| held.replans)
    }

    /// The server has discarded all plans.
    pub(in crate::upstream) fn plans_discarded(&mut self) {
        self.held.values_mut().for_each(|held| held.replans = true);
    }

    /// Whether a description of it is worth looking into: the first since it was parsed here.
    #[must_use]
    pub fn undescribed(&self, id: StatementId) -> bool {
        self.held.get(&id).is_none_or(|held| !held.described)
    }

    /// It was described. `changed`: with other columns than clients know.
    pub(in crate::upstream) fn was_described(&mut self, id: StatementId, changed: bool) {
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
    pub(in crate::upstream) fn succeeded(&mut self, statement: &Prepared) {
        let Some(held) = self.held.get_mut(&statement.id) else { return };
        held.sent_in = None;
        if let Some((settings, scope)) = &held.parsed {
            statement.prove(*scope, settings);
        }
    }

    /// The statements to close before another is prepared, if the set is full: those unused for longest.
    #[must_use]
    pub fn victims(&self) -> SmallVec<[StatementId; 1]> {
        let surplus = (self.held.len() + 1).saturating_sub(self.limit.max(self.together));
        let by_age = || self.held.iter().map(|(id, held)| (held.used, *id));
        match surplus {
            0 => SmallVec::new(),
            1 => by_age().min().map(|(_, id)| id).into_iter().collect(),
            _ => {
                let mut by_age: Vec<_> = by_age().collect();
                by_age.sort_unstable();
                by_age.into_iter().take(surplus).map(|(_, id)| id).collect()
            }
        }
    }

    /// A unit uses these, each named once: none of them goes for another, until the next unit is asked about. The set may exceed its
    /// limit for that, by what the unit holds.
    pub fn hold_together(&mut self, used: &[StatementId]) {
        self.together = used.len();
        for id in used {
            self.touch(*id);
        }
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
    pub(in crate::upstream) fn insert(&mut self, id: StatementId, group: u64) {
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
    pub(in crate::upstream) fn sure(&mut self, id: StatementId, group: u64) -> Option<bool> {
        self.clock += 1;
        let held = self.held.get_mut(&id)?;
        held.used = self.clock;
        Some(!held.changed && held.sent_in.is_none_or(|sent_in| sent_in == group))
    }

    /// Whether the server still holds it is not known.
    pub(in crate::upstream) fn doubt(&mut self, id: StatementId) {
        if self.held.contains_key(&id) {
            self.insert(id, DOUBTED);
        }
    }

    /// The same of all: what drops them is on its way.
    pub fn doubt_all(&mut self) {
        for held in self.held.values_mut() {
            (held.sent_in, held.parsed) = (Some(DOUBTED), None);
            // If it is gone, the next Parse makes its constants.
            held.replans = true;
        }
    }

    pub(in crate::upstream) fn remove(&mut self, id: StatementId) {
        self.held.remove(&id);
    }

    pub(in crate::upstream) fn clear(&mut self) {
        self.held.clear();
    }
}
