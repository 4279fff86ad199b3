//! Prepared statements: one value per text and parameter types, shared by all clients, and what one server holds of them.
//!
//! Invariant: a [`StatementId`] stands for one text and one list of types for the life of the process, so that a name made
//! from it never means two things on a server.
//!
//! Deliberately absent: clients' names for statements (`session`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Settings;
use crate::sql::Analysis;

/// Names a prepared statement within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
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
}

/// Gives out [`Prepared`] values; equal texts and types share one while anybody holds it.
#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By types and text, concatenated: the types' own count makes that unambiguous.
    statements: HashMap<Box<[u8]>, Weak<Prepared>, foldhash::fast::RandomState>,
    /// Size at which values that nobody holds are dropped.
    prune_at: usize,
}

impl Registry {
    /// A statement of its own, not shared: for unnamed statements, which live shortly.
    pub fn single(&self, text: &[u8], types: &[u8], analysis: Analysis) -> Arc<Prepared> {
        let id = StatementId(self.next.fetch_add(1, Ordering::Relaxed));
        Arc::new(Prepared { id, text: text.into(), types: types.into(), analysis })
    }

    /// The shared statement of this text and these types. The number of values kept is at most twice the number held.
    pub fn share(&self, text: &[u8], types: &[u8], analysis: impl FnOnce() -> Analysis) -> Arc<Prepared> {
        let key: Box<[u8]> = [types, text].concat().into();
        let mut shared = self.shared.lock();
        if let Some(found) = shared.statements.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        let made = self.single(text, types, analysis());
        if shared.statements.len() >= shared.prune_at {
            shared.statements.retain(|_, weak| weak.strong_count() > 0);
            shared.prune_at = (shared.statements.len() * 2).max(1024);
        }
        shared.statements.insert(key, Arc::downgrade(&made));
        made
    }
}

/// The statements that one server holds under names of ours.
#[derive(Debug)]
pub struct PreparedSet {
    held: HashMap<StatementId, Held, foldhash::fast::RandomState>,
    /// Most statements held; the one unused for longest goes first.
    limit: usize,
    clock: u64,
    /// The schema's generation now; see [`PreparedSet::schema_changed`].
    schema: u64,
}

#[derive(Debug)]
struct Held {
    used: u64,
    /// The settings under which its Parse was sent, and the schema's generation then.
    parsed: Option<(Arc<Settings>, u64)>,
}

impl PreparedSet {
    /// An empty set that holds `limit` statements at most (at least one).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: HashMap::default(), limit: limit.max(1), clock: 0, schema: 0 }
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

    /// Whether a Parse of it would surely succeed again: one succeeded under the same role and search path, and no change
    /// of the schema is known since.
    pub fn fresh(&mut self, id: StatementId, settings: &Arc<Settings>) -> bool {
        let schema = self.schema;
        let fresh = self.held.get(&id).and_then(|held| held.parsed.as_ref()).is_some_and(|(under, at)| {
            let same = |name| under.value(name) == settings.value(name);
            *at == schema
                && (Arc::ptr_eq(under, settings)
                    || (same("search_path") && same("role") && same("session_authorization")))
        });
        fresh && self.touch(id)
    }

    /// Notes under which settings a statement just sent is parsed.
    pub fn parsed_under(&mut self, id: StatementId, settings: Arc<Settings>) {
        let schema = self.schema;
        if let Some(held) = self.held.get_mut(&id) {
            held.parsed = Some((settings, schema));
        }
    }

    /// Tells the schema's generation: a number that grows with every DDL statement known.
    pub fn schema_changed(&mut self, generation: u64) {
        self.schema = generation;
    }

    /// The statement to close before another is prepared, if the set is full.
    #[must_use]
    pub fn victim(&self) -> Option<StatementId> {
        if self.held.len() < self.limit {
            return None;
        }
        self.held.iter().min_by_key(|(_, held)| held.used).map(|(id, _)| *id)
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

    pub(super) fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.held.insert(id, Held { used: self.clock, parsed: None });
    }

    pub(super) fn remove(&mut self, id: StatementId) {
        self.held.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}
