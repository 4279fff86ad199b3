//! Server connections: who holds one, who waits for one, how many there may be.
//!
//! Invariant: a connection is in exactly one place (idle here, lent, or being opened), each place counts, and one whose
//! holder vanishes is closed, never lent again: that is [`Lent`]'s drop.
//!
//! Deliberately absent: the choice of a node, what is said on a connection once it is lent.
//!
//! A pool belongs to one (node, database, user). Its lock is held for a few instructions and never across an await. Idle
//! connections are kept a worker each, so that a session normally gets one whose socket its own runtime watches, and the one
//! that it had last (`idle`).

#![expect(clippy::vec_box, reason = "a connection is moved for every transaction: the box makes that one word")]

mod budget;
mod connect;
mod dedicated;
mod idle;
mod kin;
mod lent;
mod queue;
mod server;
mod share;
mod supply;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::observe::PoolStats;
use crate::topology::Node;

pub use budget::Budget;
pub use connect::{ConnectError, Connector};
pub use dedicated::Dedicated;
pub use idle::Wish;
pub use kin::Kin;
pub use lent::Lent;
pub use server::{CancelGate, CancelGuard, CancelTarget, Server, ShutGate};
pub use supply::Ahead;

use idle::Idle;
use queue::{Asked, Grant, Patience, Permit, Waiter};
use share::{Open, Share};
use supply::Pace;

/// The bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most connections, idle, lent and being opened.
    pub size: usize,
    /// Connections kept open, opened ahead where they are missing.
    pub min_size: usize,
    /// Connections above `size` for those who waited long.
    pub reserve: usize,
    /// So long.
    pub reserve_after: Duration,
    /// An idle connection above `min_size` is closed after this.
    pub idle_timeout: Option<Duration>,
    /// A connection older than this is closed when it comes back.
    pub lifetime: Option<Duration>,
    /// Longest wait in the queue.
    pub query_wait: Option<Duration>,
    /// Most waiters.
    pub max_queue: usize,
}

/// Why no connection was lent.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The wait in the queue took longer than allowed.
    #[error("no server connection became free within {0:?}")]
    TimedOut(Duration),
    /// The queue is full.
    #[error("{0} clients already wait for a server connection")]
    QueueFull(usize),
    /// As many connections are open as the whole gateway may have, and none is idle.
    #[error("all of the gateway's server connections are in use (server.max_server_connections)")]
    NoRoom,
    /// A connection could not be opened.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The pool was closed: the configuration no longer has it, or the gateway stops.
    #[error("the pool was closed")]
    Closed,
}

/// Connections to one node for one database and user.
#[derive(Debug)]
pub struct Pool {
    /// The node.
    pub node: Arc<Node>,
    /// What it counts, in the queue and when it connects only.
    pub stats: PoolStats,
    connector: Connector,
    budget: Arc<Budget>,
    share: Arc<Share>,
    /// Of those counted, the ones that are being opened: the permits.
    opening: AtomicUsize,
    keeps_sequences: AtomicBool,
    /// What sessions have let pass of the moments in which they were left a server, see [`Pool::left_in_vain`].
    left_in_vain: AtomicU32,
    kin: OnceLock<Arc<Kin>>,
    /// What its connections are to start with, whatever the servers have set for those that start now.
    starts: OnceLock<Connector>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: PoolLimits,
    idle: Idle,
    /// Idle, lent and being opened.
    open: Open,
    waiting: VecDeque<Waiter>,
    /// Noted in the budget as starving.
    starves: bool,
    ahead: Pace,
    /// The server gave no more connections: until then none is opened beside others.
    refused: Option<Instant>,
    closed: bool,
    /// Raised when every connection open at that time must go: see [`Pool::recycle`].
    epoch: u64,
    /// When [`Pool::keep_sequences`] was called last.
    sequences_asked: Option<Instant>,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Idle, lent and being opened.
    pub open: usize,
    /// Being opened.
    pub opening: usize,
    /// Idle.
    pub idle: usize,
    /// Waiting for one.
    pub waiting: usize,
    /// Of those, the longest so far.
    pub longest_wait: Duration,
}

impl std::ops::Add for PoolCounts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            opening: self.opening + other.opening,
            idle: self.idle + other.idle,
            waiting: self.waiting + other.waiting,
            longest_wait: self.longest_wait.max(other.longest_wait),
        }
    }
}

/// From which sum of [`Pool::left_in_vain`] on its account is one that does not ask.
const LEFT_IN_VAIN: u32 = 2048;

/// How long [`Pool::keep_sequences`] holds.
const KEEPS_SEQUENCES: Duration = Duration::from_secs(600);

impl Pool {
    /// An empty pool. `workers` is the number of runtimes that sessions run on.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        connector: Connector,
        budget: Arc<Budget>,
        limits: PoolLimits,
        workers: usize,
    ) -> Arc<Self> {
        let share = budget.share(connector.user());
        let inner = Inner {
            limits,
            idle: Idle::new(workers),
            open: Open::none(Arc::clone(&share)),
            waiting: VecDeque::new(),
            starves: false,
            ahead: Pace::default(),
            refused: None,
            closed: false,
            epoch: 0,
            sequences_asked: None,
        };
        Arc::new(Self {
            node,
            stats: PoolStats::default(),
            connector,
            budget,
            share,
            opening: AtomicUsize::new(0),
            keeps_sequences: AtomicBool::new(false),
            left_in_vain: AtomicU32::new(0),
            kin: OnceLock::new(),
            starts: OnceLock::new(),
            inner: Mutex::new(inner),
        })
    }

    /// Lends an idle connection of the worker's own, if there is one and nobody waits.
    pub fn idle(self: &Arc<Self>, worker: usize, wish: Wish) -> Option<Lent> {
        let mut inner = self.inner.lock();
        if inner.closed || !inner.waiting.is_empty() {
            return None;
        }
        let mut server = inner.idle.take(worker, wish)?;
        if server.still_alive() {
            drop(inner);
            return Some(self.lend(server));
        }
        inner.open.sub();
        drop(inner);
        drop(server);
        self.budget.give();
        None
    }

    /// Lends a connection: an idle one, a new one, or the next that comes back, in the order of asking.
    ///
    /// Cancel-safe: whoever stops waiting leaves the queue, and a connection on its way to it goes to the next.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub async fn checkout(self: &Arc<Self>, worker: usize, wish: Wish) -> Result<Lent, CheckoutError> {
        let asked = Asked { worker, wish, since: Instant::now() };
        let (mut tried, mut refused) = (self.try_checkout(asked)?, false);
        loop {
            let permit = match tried {
                Tried::Lent(lent) => return Ok(lent),
                Tried::Permit(permit) => permit,
                Tried::Replace(server, permit) => {
                    server.quit().await;
                    permit
                }
                Tried::Wait(receiver, patience) => match self.granted(receiver, patience, asked.since).await? {
                    Grant::Lent(lent) if wish == Wish::New => {
                        let server = lent.into_server();
                        let permit = Permit::new(self, server.epoch);
                        server.quit().await;
                        permit
                    }
                    Grant::Lent(lent) => return Ok(lent),
                    Grant::Permit(permit) => permit,
                },
            };
            tried = match self.open(permit, worker).await {
                Ok(lent) => return Ok(lent),
                Err(error) => self.make_do(asked, std::mem::replace(&mut refused, true), error)?,
            };
        }
    }

    fn try_checkout(self: &Arc<Self>, asked: Asked) -> Result<Tried, CheckoutError> {
        let (mut stale, mut starves) = (Vec::new(), false);
        let tried = self.try_checkout_locked(asked, &mut stale, &mut starves);
        for server in stale {
            drop(server);
            self.budget.give();
        }
        if starves {
            self.budget.relieve();
        }
        tried
    }

    /// Connections found dead are uncounted here and left in `stale`, to be closed when the lock is free. `starves` is set when
    /// the pool began to.
    fn try_checkout_locked(
        self: &Arc<Self>,
        asked: Asked,
        stale: &mut Vec<Box<Server>>,
        starves: &mut bool,
    ) -> Result<Tried, CheckoutError> {
        let Asked { worker, wish, .. } = asked;
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(CheckoutError::Closed);
        }
        // Whoever waits was here first.
        if inner.waiting.is_empty() {
            if let Some(server) = inner.take_alive(stale, |idle| idle.take(worker, wish)) {
                return Ok(Tried::Lent(self.lend(server)));
            }
            if self.may_open(&inner) && self.budget.take() {
                inner.open.add();
                return Ok(Tried::Permit(Permit::new(self, inner.epoch)));
            }
            if wish == Wish::New
                && let Some(server) = inner.idle.take_any()
            {
                // Its place is the new one's.
                return Ok(Tried::Replace(server, Permit::new(self, inner.epoch)));
            }
            if let Some(server) = inner.take_alive(stale, Idle::take_any) {
                return Ok(Tried::Lent(self.lend(server)));
            }
        }
        if inner.waiting.len() >= inner.limits.max_queue {
            // Who left the queue is still in it until a connection comes its way.
            inner.waiting.retain(Waiter::waits);
        }
        if inner.waiting.len() >= inner.limits.max_queue {
            self.stats.queue_full.one();
            return Err(CheckoutError::QueueFull(inner.waiting.len()));
        }
        let tried = inner.queue(asked);
        *starves = self.starves(&mut inner);
        Ok(tried)
    }

    async fn open(self: &Arc<Self>, permit: Permit, worker: usize) -> Result<Lent, Arc<ConnectError>> {
        let epoch = permit.epoch;
        self.make_room();
        let since = Instant::now();
        let connected = match self.starts.get() {
            None => self.connector.connect(worker, epoch).await,
            Some(starts) => self.connect_as_before(starts, worker, epoch).await,
        };
        match &connected {
            Ok(_) => self.stats.connects.observe(since.elapsed()),
            Err(_) => self.stats.connect_failures.one(),
        }
        let mut server = connected.map_err(Arc::new)?;
        server.number = self.budget.number();
        // The permit's count is the connection's now.
        permit.spend();
        Ok(self.lend(Box::new(server)))
    }

    fn lend(self: &Arc<Self>, server: Box<Server>) -> Lent {
        self.node.lent(1);
        Lent::new(server, Arc::clone(self))
    }

    /// Takes a clean connection back: to a pool that should have its place, else to the first who waits, else among the idle
    /// ones.
    fn take_back(self: &Arc<Self>, mut server: Box<Server>) {
        let mut creditors_asked = false;
        loop {
            let mut inner = self.inner.lock();
            let (open, limits) = (inner.open.get(), &inner.limits);
            let aged = limits.lifetime.is_some_and(|limit| server.age(inner.idle.now) >= limit);
            if open > limits.size + limits.reserve {
                return self.close_surplus(inner, server);
            }
            if inner.closed || aged || self.budget.is_exceeded() || server.epoch < inner.epoch {
                drop(inner);
                drop(server);
                return self.closed_one();
            }
            let scarce = self.budget.anyone_starves();
            if scarce && !creditors_asked {
                creditors_asked = true;
                drop(inner);
                match self.budget.creditor(&self.share) {
                    Some(creditor) => {
                        drop(server);
                        return self.cede(&creditor);
                    }
                    None => continue,
                }
            }
            let Some(waiter) = inner.next_waiter(server.worker) else {
                if open > inner.limits.size {
                    return self.close_surplus(inner, server);
                }
                if scarce && self.budget.wants_idle(&self.share) {
                    drop(inner);
                    drop(server);
                    return self.closed_one();
                }
                return inner.idle.put(server);
            };
            drop(inner);
            match waiter.sender.send(Grant::Lent(self.lend(server))) {
                Err(Grant::Lent(lent)) => server = lent.into_server(),
                Ok(()) | Err(Grant::Permit(_)) => return,
            }
        }
    }

    /// Closes a connection above the size, so that nobody here may have its place. It is uncounted under the lock that it was counted
    /// under: of two that come back at once, one goes where one is too many.
    fn close_surplus(&self, mut inner: MutexGuard<'_, Inner>, server: Box<Server>) {
        inner.open.sub();
        drop(inner);
        drop(server);
        self.budget.give();
    }

    /// Somebody asked what `currval` tells: for ten minutes a connection that has a session's values is kept from others, if one
    /// that has none is idle or can be opened.
    pub fn keep_sequences(&self) {
        self.keeps_sequences.store(true, Ordering::Relaxed);
        self.left_in_vain.store(0, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.sequences_asked = Some(inner.idle.now);
        inner.idle.keeps_sequences = true;
    }

    /// Whether somebody did.
    #[must_use]
    pub fn keeps_sequences(&self) -> bool {
        self.keeps_sequences.load(Ordering::Relaxed)
    }

    /// Whether somebody may: not where sessions have been left their servers in vain too often.
    #[must_use]
    pub fn may_keep_sequences(&self) -> bool {
        self.left_in_vain.load(Ordering::Relaxed) < LEFT_IN_VAIN
    }

    /// A session was left its server and did not ask. `cost`: 1, or more if others may have waited for it.
    pub fn left_in_vain(&self, cost: u32) {
        // Lost updates do no harm, and it stays far from overflow.
        let so_far = self.left_in_vain.load(Ordering::Relaxed);
        self.left_in_vain.store(so_far.saturating_add(cost), Ordering::Relaxed);
    }

    /// Changes the bounds.
    pub fn set_limits(&self, limits: PoolLimits) {
        // Nobody comes to a pool that only old sessions use.
        let min_size = if self.starts.get().is_some() { 0 } else { limits.min_size };
        self.inner.lock().limits = PoolLimits { min_size, ..limits };
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let inner = self.inner.lock();
        let waits = || inner.waiting.iter().filter(|waiter| waiter.waits());
        let longest_wait = waits().map(|waiter| waiter.since).min().map_or(Duration::ZERO, |since| since.elapsed());
        PoolCounts {
            open: inner.open.get(),
            opening: self.opening.load(Ordering::Relaxed),
            idle: inner.idle.count(),
            waiting: waits().count(),
            longest_wait,
        }
    }

    /// What is idle now, to be shown.
    #[must_use]
    pub fn idle_targets(&self) -> Vec<Arc<CancelTarget>> {
        self.inner.lock().idle.servers().map(|server| Arc::clone(&server.target)).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Nobody holds the pool, so nothing is lent or being opened: what is open is idle, and closes now.
        for _ in 0..self.inner.get_mut().idle.count() {
            self.budget.give();
        }
    }
}

enum Tried {
    Lent(Lent),
    Permit(Permit),
    /// A connection to be closed, and the right to open one in its place.
    Replace(Box<Server>, Permit),
    Wait(oneshot::Receiver<Grant>, Patience),
}

impl Inner {
    /// The first of what `take` yields that can still be used; the others are uncounted.
    fn take_alive(
        &mut self,
        stale: &mut Vec<Box<Server>>,
        mut take: impl FnMut(&mut Idle) -> Option<Box<Server>>,
    ) -> Option<Box<Server>> {
        while let Some(mut server) = take(&mut self.idle) {
            if server.still_alive() {
                return Some(server);
            }
            self.open.sub();
            stale.push(server);
        }
        None
    }
}
