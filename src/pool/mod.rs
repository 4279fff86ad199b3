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
mod lent;
mod server;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::observe::PoolStats;
use crate::topology::Node;

pub use budget::Budget;
pub use connect::{ConnectError, Connector};
pub use dedicated::Dedicated;
use idle::Idle;
pub use idle::Wish;
pub use lent::Lent;
pub use server::{CancelGate, CancelTarget, Server};

/// The bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most connections, idle, lent and being opened.
    pub size: usize,
    /// Idle connections kept.
    pub min_size: usize,
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
    keeps_sequences: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: PoolLimits,
    idle: Idle,
    /// Idle, lent and being opened.
    open: usize,
    waiting: VecDeque<Waiter>,
    closed: bool,
    /// Raised when every connection open at that time must go: see [`Pool::recycle`].
    epoch: u64,
    /// When [`Pool::keep_sequences`] was called last.
    sequences_asked: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    worker: usize,
    since: Instant,
    sender: oneshot::Sender<Grant>,
}

impl Waiter {
    fn waits(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// What a waiter is given.
#[derive(Debug)]
enum Grant {
    /// A connection.
    Lent(Lent),
    /// The right to open one.
    Permit(Permit),
}

/// The right to have one connection open. Dropped, it goes to whoever waits.
#[derive(Debug)]
struct Permit {
    /// `None` once the right was used.
    pool: Option<Arc<Pool>>,
    epoch: u64,
}

impl Permit {
    fn new(pool: &Arc<Pool>, epoch: u64) -> Self {
        Self { pool: Some(Arc::clone(pool)), epoch }
    }

    /// The right was used, or its count is somebody else's now.
    fn spend(mut self) {
        self.pool = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.closed_one();
        }
    }
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Idle, lent and being opened.
    pub open: usize,
    /// Idle.
    pub idle: usize,
    /// Waiting for one.
    pub waiting: usize,
}

/// A waiter this old is served before any younger one, whatever worker the connection belongs to.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long [`Pool::keep_sequences`] holds.
const KEEPS_SEQUENCES: Duration = Duration::from_secs(600);

/// How many waiters are looked at for one of the connection's own worker.
const LOOK_AHEAD: usize = 8;

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
        let inner = Inner {
            limits,
            idle: Idle::new(workers),
            open: 0,
            waiting: VecDeque::new(),
            closed: false,
            epoch: 0,
            sequences_asked: None,
        };
        Arc::new(Self {
            node,
            stats: PoolStats::default(),
            connector,
            budget,
            keeps_sequences: AtomicBool::new(false),
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
        inner.open -= 1;
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
        let (receiver, wait) = match self.try_checkout(worker, wish)? {
            Tried::Lent(lent) => return Ok(lent),
            Tried::Permit(permit) => return Ok(self.open(permit, worker).await?),
            Tried::Replace(server, permit) => {
                drop(server);
                return Ok(self.open(permit, worker).await?);
            }
            Tried::Wait(receiver, wait) => (receiver, wait),
        };
        let mut receiver = GrantReceiver(receiver);
        let waited = Waited { stats: &self.stats, since: Instant::now() };
        let granted = match wait {
            Some(limit) => match crate::net::timeout(limit, &mut receiver.0).await {
                Ok(granted) => granted,
                Err(_) => {
                    self.stats.timed_out.one();
                    return Err(CheckoutError::TimedOut(limit));
                }
            },
            None => (&mut receiver.0).await,
        };
        drop(waited);
        match granted {
            Ok(Grant::Lent(lent)) if wish == Wish::New => {
                let permit = Permit::new(self, lent.into_server().epoch);
                Ok(self.open(permit, worker).await?)
            }
            Ok(Grant::Lent(lent)) => Ok(lent),
            Ok(Grant::Permit(permit)) => Ok(self.open(permit, worker).await?),
            Err(_) => Err(CheckoutError::Closed),
        }
    }

    fn try_checkout(self: &Arc<Self>, worker: usize, wish: Wish) -> Result<Tried, CheckoutError> {
        let mut stale = Vec::new();
        let tried = self.try_checkout_locked(worker, wish, &mut stale);
        for server in stale {
            drop(server);
            self.budget.give();
        }
        if matches!(tried, Ok(Tried::Wait(..))) && self.budget.anyone_starves() {
            self.budget.relieve();
        }
        tried
    }

    /// Connections found dead are uncounted here and left in `stale`, to be closed when the lock is free.
    fn try_checkout_locked(
        self: &Arc<Self>,
        worker: usize,
        wish: Wish,
        stale: &mut Vec<Box<Server>>,
    ) -> Result<Tried, CheckoutError> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(CheckoutError::Closed);
        }
        // Whoever waits was here first.
        if inner.waiting.is_empty() {
            if let Some(server) = inner.take_alive(stale, |idle| idle.take(worker, wish)) {
                return Ok(Tried::Lent(self.lend(server)));
            }
            if inner.open < inner.limits.size && self.budget.take() {
                inner.open += 1;
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
            if inner.open < inner.limits.size {
                self.budget.starve(self);
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
        let (sender, receiver) = oneshot::channel();
        inner.waiting.push_back(Waiter { worker, since: Instant::now(), sender });
        Ok(Tried::Wait(receiver, inner.limits.query_wait))
    }

    async fn open(self: &Arc<Self>, permit: Permit, worker: usize) -> Result<Lent, Arc<ConnectError>> {
        let epoch = permit.epoch;
        let since = Instant::now();
        let connected = self.connector.connect(worker, epoch).await;
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

    /// Takes a clean connection back: to the first who waits, else among the idle ones.
    fn take_back(self: &Arc<Self>, server: Box<Server>) {
        let mut inner = self.inner.lock();
        let aged = inner.limits.lifetime.is_some_and(|limit| server.age(inner.idle.now) >= limit);
        let surplus = inner.open > inner.limits.size;
        if inner.closed || aged || surplus || server.epoch < inner.epoch {
            drop(inner);
            drop(server);
            self.closed_one();
            return;
        }
        let mut server = server;
        while let Some(waiter) = inner.next_waiter(server.worker) {
            drop(inner);
            let lent = self.lend(server);
            match waiter.sender.send(Grant::Lent(lent)) {
                Ok(()) => return,
                Err(Grant::Lent(lent)) => server = lent.into_server(),
                Err(Grant::Permit(_)) => return,
            }
            inner = self.inner.lock();
        }
        if self.budget.anyone_starves() {
            drop(inner);
            drop(server);
            self.closed_one();
            return;
        }
        inner.idle.put(server);
    }

    /// A connection is gone: its place goes to the first who waits, here or in another pool.
    fn closed_one(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        while inner.open <= inner.limits.size && !inner.closed {
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
        inner.open -= 1;
        drop(inner);
        self.budget.give();
    }

    /// A place in the budget is free: whoever waits here may open a connection. Returns whether somebody took it.
    fn feed(self: &Arc<Self>) -> bool {
        let mut inner = self.inner.lock();
        while inner.open < inner.limits.size {
            let Some(waiter) = inner.next_waiter(usize::MAX) else { return false };
            inner.open += 1;
            let epoch = inner.epoch;
            drop(inner);
            match waiter.sender.send(Grant::Permit(Permit::new(self, epoch))) {
                Ok(()) => return true,
                Err(Grant::Permit(permit)) => permit.spend(),
                Err(Grant::Lent(_)) => {}
            }
            inner = self.inner.lock();
            inner.open -= 1;
        }
        false
    }

    /// Closes idle connections that are too old or have been idle for too long. Call it about once a second: the pool's own
    /// clock goes no finer.
    pub fn tidy(self: &Arc<Self>, now: Instant) {
        let expired = {
            let mut inner = self.inner.lock();
            inner.idle.now = now;
            if inner.sequences_asked.is_some_and(|asked| now.saturating_duration_since(asked) >= KEEPS_SEQUENCES) {
                inner.sequences_asked = None;
                inner.idle.keeps_sequences = false;
                self.keeps_sequences.store(false, Ordering::Relaxed);
            }
            let PoolLimits { min_size, idle_timeout, lifetime, .. } = inner.limits;
            inner.idle.expired(min_size, idle_timeout, lifetime)
        };
        for server in expired {
            drop(server);
            self.closed_one();
        }
    }

    /// Closes one idle connection, if there is one, so that another pool may open one.
    fn shed(self: &Arc<Self>) -> bool {
        let shed = self.inner.lock().idle.take_any();
        match shed {
            Some(server) => {
                drop(server);
                self.closed_one();
                true
            }
            None => false,
        }
    }

    /// Closes one idle connection, if there is one, and leaves its place in the budget to the caller.
    fn evict(&self) -> bool {
        let evicted = {
            let mut inner = self.inner.lock();
            let evicted = inner.idle.take_any();
            inner.open -= usize::from(evicted.is_some());
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

    /// Somebody asked what `currval` tells: for ten minutes a connection that has a session's values is kept from others, if one
    /// that has none is idle or can be opened.
    pub fn keep_sequences(&self) {
        self.keeps_sequences.store(true, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.sequences_asked = Some(inner.idle.now);
        inner.idle.keeps_sequences = true;
    }

    /// Whether somebody did.
    #[must_use]
    pub fn keeps_sequences(&self) -> bool {
        self.keeps_sequences.load(Ordering::Relaxed)
    }

    /// Changes the bounds.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.inner.lock().limits = limits;
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let inner = self.inner.lock();
        let waiting = inner.waiting.iter().filter(|waiter| waiter.waits()).count();
        PoolCounts { open: inner.open, idle: inner.idle.count(), waiting }
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
    Wait(oneshot::Receiver<Grant>, Option<Duration>),
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
            self.open -= 1;
            stale.push(server);
        }
        None
    }

    /// The next to be served: the oldest, or one of the first few on the connection's own worker if the oldest is young.
    fn next_waiter(&mut self, worker: usize) -> Option<Waiter> {
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
