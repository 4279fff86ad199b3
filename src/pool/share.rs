//! How much of the budget a pool and its user have, and who should have more.
//!
//! Invariant: a pool's connections are counted in its share and in its user's, each as long as it counts in the pool.
//! Deliberately absent: who waits (`budget`), how a place changes hands (`supply`).
//!
//! What users share is the budget, so users are compared first; pools only with others of the same user. A place changes hands
//! when a connection comes back, never earlier, and only if the giver still has as much as the taker afterwards: two users at
//! work end with equal shares, or one more for one of them, and then nothing moves. Where there are fewer places than users or
//! pools, whoever has none gets one in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A user without any connection gets a place after this, whoever has it.
const TURN: Duration = Duration::from_millis(100);

/// So does a pool without any, whose user has others.
const POOLS_TURN: Duration = Duration::from_secs(1);

/// A pool's connections and its user's.
#[derive(Debug)]
pub(super) struct Share {
    own: AtomicUsize,
    user: Arc<AtomicUsize>,
}

impl Share {
    /// Of a new pool; `user` is shared by all pools of one user.
    pub(super) fn new(user: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { own: AtomicUsize::new(0), user })
    }

    /// The less, the needier.
    pub(super) fn need(&self) -> (usize, usize) {
        (self.user.load(Ordering::Relaxed), self.own.load(Ordering::Relaxed))
    }

    /// Whether a connection that comes back here should make room for one of `other`, where somebody waited so long.
    pub(super) fn owes(&self, other: &Self, waited: Duration) -> bool {
        let (mine, theirs) = self.beside(other);
        let none_at_all = other.own.load(Ordering::Relaxed) == 0;
        theirs + 2 <= mine || (theirs == 0 && waited >= TURN) || (none_at_all && waited >= POOLS_TURN)
    }

    /// Whether an idle connection should, though it may be needed here again soon.
    pub(super) fn spares(&self, other: &Self) -> bool {
        let (mine, theirs) = self.beside(other);
        theirs < mine || self.same_user(other)
    }

    fn beside(&self, other: &Self) -> (usize, usize) {
        let ((my_user, mine), (their_user, theirs)) = (self.need(), other.need());
        if self.same_user(other) { (mine, theirs) } else { (my_user, their_user) }
    }

    fn same_user(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.user, &other.user)
    }
}

/// The number of a pool's connections, idle, lent and being opened.
#[derive(Debug)]
pub(super) struct Open {
    count: usize,
    share: Arc<Share>,
}

impl Open {
    pub(super) fn none(share: Arc<Share>) -> Self {
        Self { count: 0, share }
    }

    pub(super) fn get(&self) -> usize {
        self.count
    }

    /// One more.
    pub(super) fn add(&mut self) {
        self.count += 1;
        self.share.own.fetch_add(1, Ordering::Relaxed);
        self.share.user.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn sub(&mut self) {
        self.count -= 1;
        self.share.own.fetch_sub(1, Ordering::Relaxed);
        self.share.user.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.share.user.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(user: &Arc<AtomicUsize>, connections: usize) -> (Arc<Share>, Open) {
        let share = Share::new(Arc::clone(user));
        let mut open = Open::none(Arc::clone(&share));
        (0..connections).for_each(|_| open.add());
        (share, open)
    }

    #[test]
    fn a_place_goes_to_the_poorer_user_until_both_have_as_much() {
        let (rich, poor) = (Arc::default(), Arc::default());
        // One user's connections lie in two pools.
        let ((first, mut open), (_, _second)) = (pool(&rich, 4), pool(&rich, 3));
        let (other, mut others) = pool(&poor, 0);
        let mut moved = 0;
        while first.owes(&other, Duration::ZERO) {
            open.sub();
            others.add();
            moved += 1;
        }
        assert_eq!((moved, first.need(), other.need()), (3, (4, 1), (3, 3)));
        assert!(!other.owes(&first, Duration::from_hours(1)), "nothing goes back and forth");
    }

    #[test]
    fn who_has_nothing_gets_a_turn() {
        let (one, two) = (Arc::default(), Arc::default());
        let ((holder, _open), (waiter, _none)) = (pool(&one, 1), pool(&two, 0));
        assert!(!holder.owes(&waiter, Duration::ZERO) && holder.owes(&waiter, TURN));
        // A user with connections elsewhere waits longer.
        let (_elsewhere, _busy) = pool(&two, 1);
        assert!(!holder.owes(&waiter, TURN) && holder.owes(&waiter, POOLS_TURN));
    }

    #[test]
    fn pools_of_one_user_are_compared_with_each_other() {
        let user = Arc::default();
        let ((large, _a), (small, _b)) = (pool(&user, 5), pool(&user, 1));
        assert!(large.owes(&small, Duration::ZERO) && !small.owes(&large, Duration::ZERO));
        assert!(large.spares(&small) && small.spares(&large));
    }

    #[test]
    fn an_idle_connection_stays_where_the_others_have_more() {
        let (flood, quiet) = (Arc::default(), Arc::default());
        let ((flooding, _a), (one, _b)) = (pool(&flood, 7), pool(&quiet, 1));
        assert!(flooding.spares(&one) && !one.spares(&flooding));
    }

    #[test]
    fn a_pool_that_goes_takes_its_connections_from_its_user() {
        let user = Arc::default();
        let (share, open) = pool(&user, 3);
        let (_, other) = pool(&user, 2);
        drop(open);
        assert_eq!(share.user.load(Ordering::Relaxed), 2);
        drop(other);
    }
}
