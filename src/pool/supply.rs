//! How a pool's connections come and go: places and who gets them, what is opened ahead, what is closed.
//!
//! Invariant: a place in the budget is given back, or handed on, once for each connection that was counted.
//! Deliberately absent: lending (the parent), who deserves a place (`share`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{
    Asked, CheckoutError, ConnectError, Grant, Idle, Inner, KEEPS_SEQUENCES, Permit, Pool, PoolLimits, Tried, Wish,
};
use crate::topology::Standing;

/// Connections that one pool opens ahead at the same time.
const AHEAD: usize = 4;

/// Before the next attempt to open ahead after a failure; it doubles with each, up to the longest.
const BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(1);

/// `ERRCODE_TOO_MANY_CONNECTIONS`.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// After the server gave no more connections (53300), those that there are must do for so long.
const REFUSED: Duration = Duration::from_secs(1);

/// How opening ahead goes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    opening: usize,
    failures: u32,
    not_before: Option<Instant>,
}

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|moment| now >= moment)
    }

    /// How long nothing is opened ahead after one more failure.
    fn failed(&mut self, now: Instant) -> Duration {
        let pause = BACK_OFF.saturating_mul(1 << self.failures.min(16)).min(LONGEST_BACK_OFF);
        self.failures += 1;
        self.not_before = Some(now + pause);
        pause
    }
}

/// The right to open one connection before anybody asks for it.
#[derive(Debug)]
pub struct Ahead {
    pool: Arc<Pool>,
    /// `None` once it was used.
    permit: Option<Permit>,
}

impl Ahead {
    /// Opens the connection, watched by the runtime that this runs on, and puts it among the idle ones. After a failure the
    /// pool opens none ahead for a while.
    pub async fn open(mut self, worker: usize) {
        // Made with one, and this takes it.
        let Some(permit) = self.permit.take() else { return };
        let opened = self.pool.open(permit, worker).await;
        let mut inner = self.pool.inner.lock();
        match &opened {
            Ok(_) => inner.ahead.failures = 0,
            // One word for those that were under way together.
            Err(error) if inner.ahead.allows(Instant::now()) => {
                let pause = inner.ahead.failed(Instant::now());
                tracing::warn!(%error, "a connection could not be opened ahead (pool.min_size); the next attempt is in {pause:?}");
            }
            Err(_) => {}
        }
        drop(inner);
        if let Ok(lent) = opened {
            lent.give_back();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.pool.inner.lock().ahead.opening -= 1;
    }
}

impl Pool {
    /// Rights to open the connections that are missing from `min_size`; none while others starve, or the node is left out.
    pub fn ahead(self: &Arc<Self>) -> Vec<Ahead> {
        let mut rights = Vec::new();
        if self.node.standing() == Standing::Ejected {
            return rights;
        }
        let mut inner = self.inner.lock();
        let wanted = inner.limits.min_size.min(inner.limits.size);
        while inner.open.get() < wanted
            && inner.ahead.opening < AHEAD
            && inner.ahead.allows(Instant::now())
            && !inner.closed
            && !self.budget.anyone_starves()
            && self.budget.take()
        {
            inner.open.add();
            inner.ahead.opening += 1;
            rights.push(Ahead { pool: Arc::clone(self), permit: Some(Permit::new(self, inner.epoch)) });
        }
        rights
    }

    /// Whether there is room for one more connection. Where the server gave no more lately, only for the first.
    pub(super) fn may_open(&self, inner: &Inner) -> bool {
        let open = inner.open.get();
        let refused = || inner.refused.is_some_and(|until| Instant::now() < until);
        open < inner.limits.size && (open <= self.opening.load(Ordering::Relaxed) || !refused())
    }

    /// No connection could be opened: if that is because the server gives no more, one of those that there are will do. `refused`: it
    /// said so before.
    pub(super) fn make_do(
        self: &Arc<Self>,
        asked: Asked,
        refused: bool,
        error: Arc<ConnectError>,
    ) -> Result<Tried, CheckoutError> {
        if error.refused().is_none_or(|fields| fields.sqlstate != TOO_MANY_CONNECTIONS) {
            return Err(CheckoutError::Connect(error));
        }
        let mut stale = Vec::new();
        let tried = {
            let mut inner = self.inner.lock();
            inner.refused = Some(Instant::now() + REFUSED);
            // Those that are being opened may be refused as well: nobody waits for such a one twice.
            let opening = if refused { self.opening.load(Ordering::Relaxed) } else { 0 };
            match inner.take_alive(&mut stale, Idle::take_any) {
                // Its place is the new one's.
                Some(server) if asked.wish == Wish::New => Ok(Tried::Replace(server, Permit::new(self, inner.epoch))),
                Some(server) => Ok(Tried::Lent(self.lend(server))),
                None if inner.open.get() > opening => Ok(inner.queue(asked)),
                None => Err(CheckoutError::Connect(error)),
            }
        };
        for server in stale {
            drop(server);
            self.budget.give();
        }
        tried
    }

    /// Lets those who wait open connections, where there is room: the server may give more again, or a place went by them.
    fn catch_up(self: &Arc<Self>, now: Instant) {
        // One tries first.
        let mut tries = usize::MAX;
        {
            let mut inner = self.inner.lock();
            if inner.refused.is_some_and(|until| now >= until) {
                (inner.refused, tries) = (None, 1);
            }
        }
        for _ in 0..tries {
            let mut inner = self.inner.lock();
            inner.waiting.retain(super::Waiter::waits);
            if inner.closed || inner.waiting.is_empty() || !self.may_open(&inner) {
                return;
            }
            if !self.budget.take() {
                self.starves(&mut inner);
                return;
            }
            drop(inner);
            if !self.feed(false) {
                return self.budget.give();
            }
        }
    }

    /// Somebody waited for long: a connection above `size`, if the reserve has one.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Permit> {
        let mut inner = self.inner.lock();
        let (open, limits) = (inner.open.get(), &inner.limits);
        let within = open >= limits.size && open < limits.size + limits.reserve;
        if inner.closed || inner.refused.is_some() || !within || !self.budget.take() {
            return None;
        }
        inner.open.add();
        self.stats.reserve_used.one();
        Some(Permit::new(self, inner.epoch))
    }

    /// Notes that who waits here lacks a place in the budget, if that is so; whether it was news.
    pub(super) fn starves(self: &Arc<Self>, inner: &mut Inner) -> bool {
        if self.budget.has_room() {
            // It is not for want of a place that they wait.
            return false;
        }
        self.starves_now(inner)
    }

    fn starves_now(self: &Arc<Self>, inner: &mut Inner) -> bool {
        if inner.starves || inner.waiting.is_empty() || !self.may_open(inner) {
            return false;
        }
        inner.starves = true;
        self.budget.starve(self, &self.share);
        true
    }

    /// Whether somebody waits here still. The pool was taken off the budget's list; if nobody does it may come back there.
    pub(super) fn is_awaited(&self) -> bool {
        let mut inner = self.inner.lock();
        let awaited = inner.waiting.iter().any(super::Waiter::waits);
        inner.starves &= awaited;
        awaited
    }

    /// A connection is gone: its place goes to a pool that should have it, else to the first who waits, here or anywhere.
    pub(super) fn closed_one(self: &Arc<Self>) {
        // Above a limit that was lowered it is nobody's.
        let exceeded = self.budget.is_exceeded();
        if !exceeded
            && self.budget.anyone_starves()
            && let Some(creditor) = self.budget.creditor(&self.share)
        {
            return self.cede(&creditor);
        }
        let mut inner = self.inner.lock();
        while !exceeded && inner.open.get() <= inner.limits.size && !inner.closed && self.may_replace(&inner) {
            let Some(waiter) = inner.next_waiter(usize::MAX) else { break };
            let epoch = inner.epoch;
            drop(inner);
            match waiter.sender.send(Grant::Permit(Permit::new(self, epoch))) {
                Ok(()) => return,
                Err(Grant::Permit(permit)) => permit.spend(),
                Err(Grant::Lent(_)) => {}
            }
            inner = self.inner.lock();
        }
        inner.open.sub();
        if exceeded {
            self.starves(&mut inner);
        }
        drop(inner);
        self.budget.give();
    }

    /// Whether a connection that is gone, and still counted, may make room for another: see [`Pool::may_open`].
    fn may_replace(&self, inner: &Inner) -> bool {
        let others = inner.open.get() - 1;
        others <= self.opening.load(Ordering::Relaxed) || inner.refused.is_none_or(|until| Instant::now() >= until)
    }

    /// A connection is gone, and its place goes to `creditor`.
    pub(super) fn cede(self: &Arc<Self>, creditor: &Arc<Self>) {
        {
            let mut inner = self.inner.lock();
            inner.open.sub();
            // Whoever waits here waits for a place again.
            self.starves(&mut inner);
        }
        if !creditor.feed(true) {
            self.budget.give();
        }
    }

    /// A place in the budget is free: whoever waits here may open a connection. Returns whether somebody took it. `scarce`: places
    /// were lacking, and the next who waits here lacks one still.
    pub(super) fn feed(self: &Arc<Self>, scarce: bool) -> bool {
        let mut inner = self.inner.lock();
        inner.starves = false;
        while self.may_open(&inner) {
            let Some(waiter) = inner.next_waiter(usize::MAX) else { return false };
            inner.open.add();
            let epoch = inner.epoch;
            drop(inner);
            let sent = waiter.sender.send(Grant::Permit(Permit::new(self, epoch)));
            inner = self.inner.lock();
            match sent {
                Ok(()) => {
                    if scarce {
                        self.starves_now(&mut inner);
                    }
                    return true;
                }
                Err(Grant::Permit(permit)) => permit.spend(),
                Err(Grant::Lent(_)) => {}
            }
            inner.open.sub();
        }
        false
    }

    /// Closes idle connections that are lost, too old, or have been idle for too long. Call it about once a second: the pool's
    /// own clock goes no finer.
    pub fn tidy(self: &Arc<Self>, now: Instant) {
        let expired = {
            let mut inner = self.inner.lock();
            inner.idle.tick(now);
            if inner.sequences_asked.is_some_and(|asked| now.saturating_duration_since(asked) >= KEEPS_SEQUENCES) {
                inner.sequences_asked = None;
                inner.idle.keeps_sequences = false;
                self.keeps_sequences.store(false, Ordering::Relaxed);
            }
            let PoolLimits { min_size, idle_timeout, lifetime, .. } = inner.limits;
            let mut expired = inner.idle.expired(min_size, idle_timeout, lifetime);
            // The size was lowered.
            let surplus = inner.open.get().saturating_sub(inner.limits.size + expired.len());
            expired.extend((0..surplus).map_while(|_| inner.idle.take_any()));
            expired
        };
        for server in expired {
            drop(server);
            self.closed_one();
        }
        self.catch_up(now);
        self.keep_bound();
    }

    /// Closes one idle connection for a starving pool, if there is one that can be spared: any, where the others have fewer, else one
    /// that was not used for about a second.
    pub(super) fn shed(self: &Arc<Self>) {
        let wanted = self.budget.wants_idle(&self.share);
        let shed = {
            let mut inner = self.inner.lock();
            if wanted { inner.idle.take_any() } else { inner.idle.take_unused() }
        };
        if let Some(server) = shed {
            drop(server);
            self.closed_one();
        }
    }

    /// Closes one idle connection, if there is one, and leaves its place in the budget to the caller.
    pub(super) fn evict(&self) -> bool {
        let evicted = {
            let mut inner = self.inner.lock();
            let evicted = inner.idle.take_any();
            if evicted.is_some() {
                inner.open.sub();
            }
            evicted
        };
        evicted.is_some()
    }

    /// Closes every connection that is open now: idle ones at once, lent ones when they come back.
    pub fn recycle(self: &Arc<Self>) {
        let idle = {
            let mut inner = self.inner.lock();
            inner.epoch += 1;
            inner.idle.take_all()
        };
        for server in idle {
            drop(server);
            self.closed_one();
        }
    }

    /// Ends the pool: nobody is lent a connection any more.
    pub fn close(self: &Arc<Self>) {
        {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.waiting.clear();
        }
        self.recycle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_open_ahead_become_rarer() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let pauses: Vec<_> = (0..9).map(|_| pace.failed(now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(!pace.allows(now) && pace.allows(now + LONGEST_BACK_OFF));
    }
}
