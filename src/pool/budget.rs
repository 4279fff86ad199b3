//! The bound on server connections of the whole process.
//!
//! Invariant: the number of places given out never exceeds the limit. A pool that found no place is remembered, and a
//! connection that comes back or closes makes room for it if its user has less (`share`), so that no pool starves beside idle
//! ones, nor beside busy ones of a user with more.
//!
//! Deliberately absent: which connection goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::Pool;
use super::share::Share;

/// Places for server connections, shared by all pools.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    opened: AtomicU64,
    /// Pools in which somebody waits because no place was free, oldest first; each at most once.
    starving: Mutex<Vec<Starving>>,
    starving_count: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Connections of each user, as long as it has a pool.
    users: Mutex<HashMap<Box<str>, Weak<AtomicUsize>>>,
}

#[derive(Debug)]
struct Starving {
    pool: Weak<Pool>,
    share: Arc<Share>,
    since: Instant,
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
            users: Mutex::default(),
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

    /// The share of a new pool of `user`.
    pub(super) fn share(&self, user: &str) -> Arc<Share> {
        let mut users = self.users.lock();
        if let Some(connections) = users.get(user).and_then(Weak::upgrade) {
            return Share::new(connections);
        }
        users.retain(|_, connections| connections.strong_count() > 0);
        let connections = Arc::default();
        users.insert(user.into(), Arc::downgrade(&connections));
        Share::new(connections)
    }

    /// Whether a place is free.
    pub(super) fn has_room(&self) -> bool {
        self.used() < self.limit.load(Ordering::Relaxed)
    }

    /// Whether more places are taken than there are: the limit was lowered.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.limit.load(Ordering::Relaxed)
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

    /// Gives a place back, to the neediest starving pool if there is one.
    pub(super) fn give(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
        self.feed();
    }

    fn feed(&self) {
        while self.anyone_starves() {
            if !self.take() {
                return;
            }
            if self.neediest(|_| true).is_some_and(|pool| pool.feed(true)) {
                continue;
            }
            self.used.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether somebody waits for a place.
    pub(super) fn anyone_starves(&self) -> bool {
        self.starving_count.load(Ordering::Acquire) > 0
    }

    /// The pool that a connection of a pool with `share` should make room for, if there is one. It is no longer noted as
    /// starving: give it the place.
    pub(super) fn creditor(&self, share: &Share) -> Option<Arc<Pool>> {
        loop {
            let pool = self.neediest(|starving| share.owes(&starving.share, starving.since.elapsed()))?;
            // Those who waited may have left.
            if pool.is_awaited() {
                return Some(pool);
            }
        }
    }

    /// Whether an idle connection of a pool with `share` should make room for some starving pool.
    pub(super) fn wants_idle(&self, share: &Share) -> bool {
        let others = |starving: &&Starving| !std::ptr::eq(share, Arc::as_ptr(&starving.share));
        self.starving.lock().iter().filter(others).any(|starving| share.spares(&starving.share))
    }

    /// Takes the neediest of those starving pools that will do off the list; of equals the one that has waited longest.
    fn neediest(&self, mut will_do: impl FnMut(&Starving) -> bool) -> Option<Arc<Pool>> {
        let mut starving = self.starving.lock();
        starving.retain(|starving| starving.pool.strong_count() > 0);
        let candidates = starving.iter().enumerate().filter(|(_, candidate)| will_do(candidate));
        let found = candidates.min_by_key(|(_, candidate)| candidate.share.need()).map(|(index, _)| index);
        let found = found.map(|index| starving.remove(index));
        self.starving_count.store(starving.len(), Ordering::Release);
        found.and_then(|found| found.pool.upgrade())
    }

    /// Notes that somebody waits in `pool` because no place was free. Its own lock is held by the caller, who sees to it that
    /// it is noted once; the idle connections of others are asked for later, in [`Budget::relieve`].
    pub(super) fn starve(&self, pool: &Arc<Pool>, share: &Arc<Share>) {
        let mut starving = self.starving.lock();
        let (pool, share, since) = (Arc::downgrade(pool), Arc::clone(share), Instant::now());
        starving.push(Starving { pool, share, since });
        self.starving_count.store(starving.len(), Ordering::Release);
    }

    /// Closes idle connections for pools that starve: one in each pool that can spare it; and as many as there are above the
    /// limit. Call it when a pool began to starve, and about once a second.
    pub fn relieve(&self) {
        while self.is_exceeded() {
            let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
            let evicted = pools.iter().filter(|pool| self.is_exceeded() && pool.evict()).count();
            self.used.fetch_sub(evicted, Ordering::AcqRel);
            if evicted == 0 {
                break;
            }
        }
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
