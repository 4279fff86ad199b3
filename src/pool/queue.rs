//! The queue: who waits for a connection, and what they are given.
//!
//! Invariant: who left the queue is given nothing that gets lost: what was granted and never taken goes on to the next. They are
//! served in the order of asking, but for a moment in which a connection prefers its own worker.
//!
//! Deliberately absent: when there is something to give (the parent, `supply`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{CheckoutError, Inner, Lent, Pool, Tried, Wish};
use crate::observe::PoolStats;

/// A waiter this old is served before any younger one, whatever worker the connection belongs to.
const PATIENCE: Duration = Duration::from_millis(20);

/// How many waiters are looked at for one of the connection's own worker.
const LOOK_AHEAD: usize = 8;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) worker: usize,
    pub(super) since: Instant,
    pub(super) sender: oneshot::Sender<Grant>,
}

impl Waiter {
    pub(super) fn waits(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// What a waiter is given.
#[derive(Debug)]
pub(super) enum Grant {
    /// A connection.
    Lent(Lent),
    /// The right to open one.
    Permit(Permit),
}

/// The right to have one connection open. Dropped, it goes to whoever waits.
#[derive(Debug)]
pub(super) struct Permit {
    /// `None` once the right was used.
    pool: Option<Arc<Pool>>,
    pub(super) epoch: u64,
}

impl Permit {
    pub(super) fn new(pool: &Arc<Pool>, epoch: u64) -> Self {
        pool.opening.fetch_add(1, Ordering::Relaxed);
        Self { pool: Some(Arc::clone(pool)), epoch }
    }

    /// The right was used, or its count is somebody else's now.
    pub(super) fn spend(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<Arc<Pool>> {
        let pool = self.pool.take()?;
        pool.opening.fetch_sub(1, Ordering::Relaxed);
        Some(pool)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pool) = self.end() {
            pool.closed_one();
        }
    }
}

/// Who asks for a connection.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) worker: usize,
    pub(super) wish: Wish,
    pub(super) since: Instant,
}

/// How long somebody waits.
pub(super) struct Patience {
    /// In all.
    limit: Option<Duration>,
    /// Until the reserve is asked for, each time; `None` without one.
    reserve_after: Option<Duration>,
}

/// A wait in the queue, counted when it ends, whatever ends it.
struct Waited<'a> {
    stats: &'a PoolStats,
    since: Instant,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.stats.waits.observe(self.since.elapsed());
    }
}

/// A place in the queue. What was granted and never taken goes on to the next.
struct GrantReceiver(oneshot::Receiver<Grant>);

impl Drop for GrantReceiver {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(Grant::Lent(lent)) = self.0.try_recv() {
            lent.give_back();
        }
    }
}

impl Pool {
    /// Waits in the queue, and for the reserve; who asked at `since` waits so long in all. Cancel-safe.
    pub(super) async fn granted(
        self: &Arc<Self>,
        receiver: oneshot::Receiver<Grant>,
        patience: Patience,
        since: Instant,
    ) -> Result<Grant, CheckoutError> {
        let mut receiver = GrantReceiver(receiver);
        let _waited = Waited { stats: &self.stats, since: Instant::now() };
        loop {
            let left = patience.limit.map(|limit| limit.saturating_sub(since.elapsed()));
            let step = match (left, patience.reserve_after) {
                (Some(left), Some(after)) => Some(left.min(after)),
                (left, after) => left.or(after),
            };
            let Some(step) = step else { return (&mut receiver.0).await.map_err(|_| CheckoutError::Closed) };
            if let Ok(granted) = crate::net::timeout(step, &mut receiver.0).await {
                return granted.map_err(|_| CheckoutError::Closed);
            }
            if let Some(limit) = patience.limit.filter(|limit| since.elapsed() >= *limit) {
                self.stats.timed_out.one();
                return Err(CheckoutError::TimedOut(limit));
            }
            if patience.reserve_after.is_some()
                && let Some(permit) = self.reserve()
            {
                // What came just now is as good, and the permit goes on to the next.
                return Ok(receiver.0.try_recv().unwrap_or(Grant::Permit(permit)));
            }
        }
    }
}

impl Inner {
    /// A place in the queue, in the order of asking.
    pub(super) fn queue(&mut self, asked: Asked) -> Tried {
        let (sender, receiver) = oneshot::channel();
        let place = self.waiting.partition_point(|waiter| waiter.since <= asked.since);
        self.waiting.insert(place, Waiter { worker: asked.worker, since: asked.since, sender });
        let limits = &self.limits;
        let reserve_after = (limits.reserve > 0).then_some(limits.reserve_after);
        Tried::Wait(receiver, Patience { limit: limits.query_wait, reserve_after })
    }

    /// The next to be served: the oldest, or one of the first few on the connection's own worker if the oldest is young.
    pub(super) fn next_waiter(&mut self, worker: usize) -> Option<Waiter> {
        let oldest = self.waiting.front()?;
        if oldest.worker != worker && worker != usize::MAX && oldest.since.elapsed() < PATIENCE {
            let near = self.waiting.iter().take(LOOK_AHEAD).position(|waiter| waiter.worker == worker);
            if let Some(index) = near {
                return self.waiting.remove(index);
            }
        }
        self.waiting.pop_front()
    }
}
