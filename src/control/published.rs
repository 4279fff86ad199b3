//! DDL is everybody's write: an application with several connections has made it for all of them.
//!
//! Invariant: a session that has joined reads nothing from a replica that lacks the DDL acknowledged before.
//!
//! Deliberately absent: which statements are DDL (`sql`), who waits for what (`topology`).

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::topology::{Topology, Writes};

/// The DDL of a cluster that was acknowledged and that others can see.
#[derive(Debug, Default)]
pub struct Published {
    count: AtomicU64,
    /// Bounds all of it.
    writes: Mutex<Writes>,
}

impl Published {
    /// DDL was acknowledged.
    pub fn add(&self, topology: &Topology) {
        let mut writes = self.writes.lock();
        *writes = Writes::everywhere(topology);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// What was published on a topology that this one takes the place of.
    pub(super) fn inherit(&self, old: &Self, topology: &Topology) {
        if !old.writes.lock().none() {
            self.add(topology);
        }
    }

    /// How often something was; a session begins at 0.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Makes it a session's own. Returns up to which count.
    #[must_use]
    pub fn join(&self, topology: &Topology, session: &mut Writes) -> u64 {
        let mut writes = self.writes.lock();
        writes.forget_passed(topology);
        session.join(&writes);
        self.count()
    }
}
