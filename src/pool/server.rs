//! One open server connection: socket and machine together, and what cancels it.
//!
//! Invariant: a cancel that was sent has taken effect or missed before anybody else gets the connection; nobody does where that is
//! not known.
//! Deliberately absent: when to cancel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::net::{self, Stream};
use crate::upstream::{Private, Upstream};
use crate::wire::frontend;
use crate::wire::startup::CancelKey;

/// Longest wait for a server to end.
const QUIT: Duration = Duration::from_secs(1);

/// A logged-in connection.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub stream: Stream,
    /// The protocol's state on it.
    pub upstream: Box<Upstream>,
    /// Cancels on their way to it.
    pub gate: Arc<CancelGate>,
    /// Where a cancel request goes.
    pub target: Arc<CancelTarget>,
    /// The worker whose runtime watches the socket.
    pub(super) worker: usize,
    /// The pool's epoch when it was opened.
    pub(super) epoch: u64,
    /// Unique for the life of the process, from 1.
    pub(super) number: u64,
    born: Instant,
}

/// Where and with what key a server's work is cancelled, and what else is shown of it.
#[derive(Debug)]
pub struct CancelTarget {
    /// Opens connections to the same node.
    pub connector: super::Connector,
    /// What the server gave at log-in.
    pub key: CancelKey,
    /// When that was.
    pub since: SystemTime,
}

/// Counts the cancel requests on their way to one server, and knows who waits for its answer.
#[derive(Debug, Default)]
pub struct CancelGate {
    in_flight: AtomicUsize,
    empty: Notify,
    /// Nothing of the client's runs: see [`CancelGate::shut`].
    shut: AtomicBool,
    /// A cancel was sent, and nobody knows when it arrives.
    astray: AtomicBool,
    waits: Mutex<Option<Waker>>,
}

impl CancelGate {
    /// A cancel is on its way until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> CancelGuard {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        CancelGuard { gate: Arc::clone(self), under_way: AtomicBool::new(false) }
    }

    /// Nothing of the client's runs until the guard is dropped: a cancel request of its would hit a question of the gateway's own.
    pub fn shut(self: &Arc<Self>) -> ShutGate {
        self.shut.store(true, Ordering::SeqCst);
        ShutGate(Arc::clone(self))
    }

    fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// Who waits for an answer of the server's is woken by [`CancelGate::wake`].
    pub fn watch(&self, waker: &Waker) {
        let mut waits = self.waits.lock();
        if waits.as_ref().is_none_or(|held| !held.will_wake(waker)) {
            *waits = Some(waker.clone());
        }
    }

    /// Whoever waits is to look whether the server will answer at all. It may be somebody who waits no more.
    pub fn wake(&self) {
        let waker = self.waits.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether one was sent that may arrive at any time: whatever runs then is struck.
    #[must_use]
    pub fn astray(&self) -> bool {
        self.astray.load(Ordering::SeqCst)
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Waits until none is on its way. Cancel-safe.
    pub async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            if self.is_empty() {
                return;
            }
            notified.await;
        }
    }
}

/// One cancel on its way.
#[derive(Debug)]
pub struct CancelGuard {
    gate: Arc<CancelGate>,
    /// It was sent, and its arrival not seen.
    under_way: AtomicBool,
}

impl CancelGuard {
    /// Whether it came when nothing of the client's ran.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.gate.is_shut()
    }

    /// The request may arrive from now on.
    pub(super) fn sent(&self) {
        self.under_way.store(true, Ordering::SeqCst);
    }

    /// It has.
    pub(super) fn arrived(&self) {
        self.under_way.store(false, Ordering::SeqCst);
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if *self.under_way.get_mut() {
            self.gate.astray.store(true, Ordering::SeqCst);
        }
        if self.gate.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gate.empty.notify_waiters();
        }
    }
}

/// See [`CancelGate::shut`].
#[derive(Debug)]
pub struct ShutGate(Arc<CancelGate>);

impl Drop for ShutGate {
    fn drop(&mut self) {
        self.0.shut.store(false, Ordering::SeqCst);
    }
}

impl Server {
    pub(super) fn new(
        stream: Stream,
        upstream: Box<Upstream>,
        connector: super::Connector,
        worker: usize,
        epoch: u64,
    ) -> Self {
        let now = Instant::now();
        let target = Arc::new(CancelTarget { connector, key: upstream.key.clone(), since: SystemTime::now() });
        Self { stream, upstream, gate: Arc::default(), target, worker, epoch, number: 0, born: now }
    }

    /// Tells it from every other that was ever open.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Ends it, and waits until the server has: another can be opened in its place then. Cancel-safe: it is gone in any case.
    pub(super) async fn quit(mut self: Box<Self>) {
        let mut goodbye = bytes::BytesMut::new();
        frontend::write_terminate(&mut goodbye);
        let mut rest = [0; 64];
        let ended = async {
            self.stream.write_all(&goodbye).await?;
            self.stream.flush().await?;
            while self.stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // One that does not is left to itself.
        let _ = net::timeout(QUIT, ended).await;
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Whether an idle connection can still be used, judged by what has arrived on it: nothing, or reports of settings.
    /// Costs no system call while nothing has.
    pub(super) fn still_alive(&mut self) -> bool {
        let mut bytes = [0; 256];
        loop {
            match self.stream.try_read(&mut bytes) {
                Ok(read) if read > 0 => self.upstream.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                _ => return false,
            }
        }
        if !self.upstream.input.is_empty() && self.upstream.deliver(&mut Private::default()).is_err() {
            return false;
        }
        self.upstream.idle()
    }

    /// Whether it may be lent to somebody else as it is.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.upstream.idle() && !self.gate.astray()
    }
}
