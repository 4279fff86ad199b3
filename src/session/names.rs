//! Names of statements about which something is not known yet.
//!
//! Invariant: a name that was added is found; beyond a bound every other name is found, too, so that who asks waits rather
//! than errs.
//!
//! Deliberately absent: what the names stand for.

use std::collections::HashSet;

/// Bytes of all names in a set.
const BYTES: usize = 1 << 20;

/// A bounded set of names; the empty one is that of the unnamed statement.
#[derive(Debug, Default)]
pub(super) struct Names {
    unnamed: bool,
    named: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    bytes: usize,
    /// All, or more than could be held.
    any: bool,
}

impl Names {
    pub(super) fn insert(&mut self, name: &[u8], limit: usize) {
        if name.is_empty() {
            self.unnamed = true;
        } else if self.named.len() < limit && self.bytes + name.len() <= BYTES {
            if self.named.insert(name.into()) {
                self.bytes += name.len();
            }
        } else {
            self.any = true;
        }
    }

    /// Adds all but that of the unnamed statement.
    pub(super) fn insert_all(&mut self) {
        self.any = true;
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        if name.is_empty() { self.unnamed } else { self.any || self.named.contains(name) }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.unnamed && !self.any && self.named.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.unnamed = false;
        self.any = false;
        self.bytes = 0;
        self.named.clear();
    }

    /// Takes over all names of `other`'s, which is empty afterwards.
    pub(super) fn take(&mut self, other: &mut Self, limit: usize) {
        self.unnamed |= std::mem::take(&mut other.unnamed);
        self.any |= std::mem::take(&mut other.any);
        other.bytes = 0;
        for name in other.named.drain() {
            self.insert(&name, limit);
        }
    }
}
