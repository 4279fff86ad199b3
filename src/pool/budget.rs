//! The bound on server connections of the whole process.
//!
//! Invariant: the number of places given out never exceeds the limit. A pool that found no place is remembered, and the
//! next connection that comes back or closes anywhere makes room for it, so that no pool starves beside idle ones.
//!
//! Deliberately absent: which connection goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Pool;

/// Places for server connections, shared by all pools.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    opened: AtomicU64,
    /// Pools in which somebody waits because no place was free, oldest first.
    starving: Mutex<VecDeque<Weak<Pool>>>,
    starving_count: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Budget {
    /// A budget of `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            starving: Mutex::default(),
            starving_count: AtomicUsize::new(0),
            pools: Mutex::default(),
        })
    }

    /// Changes the limit; connections above it close as they come back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections open now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A number for a connection that was opened, from 1.
    pub(super) fn number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a pool known, so that its idle connections can make room for others.
    pub fn register(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Takes a place; `false` if there is none.
    pub(super) fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| (used < limit).then_some(used + 1)).is_ok()
    }

    /// Takes a place, an idle connection's if no other is free; `false` if there is none.
    pub(super) fn take_or_evict(&self) -> bool {
        if self.take() {
            return true;
        }
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().any(|pool| pool.evict())
    }

    /// Gives a place back, to a starving pool if there is one.
    pub(super) fn give(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
        self.feed();
    }

    fn feed(&self) {
        while self.starving_count.load(Ordering::Acquire) > 0 {
            if !self.take() {
                return;
            }
            let pool = {
                let mut starving = self.starving.lock();
                let pool = starving.pop_front();
                self.starving_count.store(starving.len(), Ordering::Release);
                pool
            };
            let fed = pool.and_then(|pool| pool.upgrade()).is_some_and(|pool| pool.feed());
            if fed {
                return;
            }
            self.used.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether a connection that comes back should make room.
    pub(super) fn anyone_starves(&self) -> bool {
        self.starving_count.load(Ordering::Acquire) > 0
    }

    /// Notes that somebody waits in `pool` because no place was free. Its own lock is held by the caller, so the idle
    /// connections of others are asked for later, in [`Budget::relieve`].
    pub(super) fn starve(&self, pool: &Arc<Pool>) {
        let mut starving = self.starving.lock();
        starving.push_back(Arc::downgrade(pool));
        self.starving_count.store(starving.len(), Ordering::Release);
    }

    /// Closes an idle connection somewhere for each pool that starves. Call it after a checkout began to wait.
    pub fn relieve(&self) {
        self.feed();
        if !self.anyone_starves() {
            return;
        }
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        for pool in pools {
            if !self.anyone_starves() {
                return;
            }
            pool.shed();
        }
    }
}
