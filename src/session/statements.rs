//! The prepared statements of one session by the client's names for them.
//!
//! Invariant: they take no more than the limits allow, in number and in bytes; what would is refused before it is held.
//!
//! Deliberately absent: the unnamed statement, of which there is one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Limits;
use crate::upstream::{ErrorReply, Prepared, StatementId};

/// Bytes that a statement takes beside its name, text and types: about what the gateway's own records of it do.
const OVERHEAD: usize = 200;

/// Statements by the client's names.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_name: HashMap<Box<[u8]>, Arc<Prepared>, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Statements {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.by_name.get(name)
    }

    /// The name of a statement, by a look at all of them.
    pub(super) fn name_of(&self, id: StatementId) -> Option<&[u8]> {
        self.by_name.iter().find(|(_, statement)| statement.id == id).map(|(name, _)| &**name)
    }

    /// All names of a statement, by a look at all of them.
    pub(super) fn names_of(&self, id: StatementId) -> Vec<Box<[u8]>> {
        self.by_name.iter().filter(|(_, statement)| statement.id == id).map(|(name, _)| name.clone()).collect()
    }

    /// The one that servers know by this name, by a look at all of them.
    pub(super) fn known_as(&self, name: &str) -> Option<&Arc<Prepared>> {
        let id = StatementId::named(name)?;
        self.by_name.values().find(|statement| statement.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// Why a statement of this name with `len` bytes of text and types cannot be held beside the others, if so.
    pub(super) fn refusal(&self, name: &[u8], len: usize, limits: Limits) -> Option<ErrorReply> {
        let message = if self.by_name.len() >= limits.prepared {
            format!("this session has {} prepared statements, the most that the gateway holds for one", limits.prepared)
        } else if self.bytes + weight(name, len) > limits.prepared_bytes {
            format!(
                "the prepared statements of this session would take more than {} bytes, the most that the gateway holds for one",
                limits.prepared_bytes
            )
        } else {
            return None;
        };
        Some(ErrorReply::error("53400", message).hint(
            "Close statements that are no longer used (Close, DEALLOCATE), lower the driver's limit of cached statements, or send \
             long texts without a name.",
        ))
    }

    /// Adds one, unless the name is taken.
    pub(super) fn insert(&mut self, name: &[u8], statement: &Arc<Prepared>) {
        if let Entry::Vacant(free) = self.by_name.entry(name.into()) {
            self.bytes += weight(name, statement.text.len() + statement.types.len());
            free.insert(Arc::clone(statement));
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let statement = self.by_name.remove(name)?;
        self.bytes -= weight(name, statement.text.len() + statement.types.len());
        Some(statement)
    }

    /// All with their names; none is left.
    pub(super) fn take_all(&mut self) -> Vec<(Box<[u8]>, Arc<Prepared>)> {
        std::mem::take(self).by_name.into_iter().collect()
    }

    pub(super) fn clear(&mut self) {
        // Its room as well: it may have been that of thousands.
        *self = Self::default();
    }
}

fn weight(name: &[u8], len: usize) -> usize {
    OVERHEAD + name.len() + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Analyzer, TextContext};
    use crate::upstream::Registry;

    #[test]
    fn number_and_bytes_are_bounded_and_given_back() {
        let analyzer = Analyzer::new(1 << 20);
        let registry = Registry::default();
        let statement = registry.single(&[b' '; 1000], &[0, 0], analyzer.analyze(b"", TextContext::new(true, "UTF8")));
        let limits = Limits { prepared: 3, prepared_bytes: 3000, ..Limits::default() };
        let mut statements = Statements::default();
        let refused = |statements: &Statements, len| statements.refusal(b"n", len, limits).map(|reply| reply.message);
        for name in [b"a", b"b"] {
            assert_eq!(refused(&statements, 1002), None);
            statements.insert(name, &statement);
            statements.insert(name, &statement);
        }
        assert!(refused(&statements, 1002).is_some_and(|message| message.contains("3000 bytes")));
        statements.remove(b"a");
        assert_eq!(refused(&statements, 1002), None);
        statements.clear();
        let small = registry.single(b"", &[0, 0], analyzer.analyze(b"", TextContext::new(true, "UTF8")));
        for name in [b"a", b"b", b"c"] {
            assert_eq!(refused(&statements, 2), None);
            statements.insert(name, &small);
        }
        assert!(refused(&statements, 2).is_some_and(|message| message.contains("3 prepared statements")));
    }
}
