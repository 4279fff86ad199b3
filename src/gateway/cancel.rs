//! Cancel requests: from the key that a client shows to the statement that runs for it now.
//!
//! Invariant: a request reaches only a server that was lent to the named session when it was sent, and that server is lent
//! to nobody else before the request has arrived, and to nobody where that is not known (DESIGN 4.13). A wrong secret does nothing, and nothing tells.
//!
//! Deliberately absent: other gateways' keys (`peers`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use tokio::sync::Notify;

use super::peers::process_id;
use crate::admin::Sessions;
use crate::net::Peer;
use crate::pool::{CancelGate, CancelTarget};
use crate::session::Pins;
use crate::upstream::Settings;
use crate::wire::TransactionStatus;
use crate::wire::startup::CancelKey;

/// Nothing waits.
const RESTS: u8 = 0;
/// A statement waits for a server.
const WAITS: u8 = 1;
/// And a cancel request came for it.
const TOLD: u8 = 2;

/// Bytes of a secret key with protocol 3.2.
const LONG_SECRET: usize = 32;

/// All sessions by the process id that they were told.
#[derive(Debug, Default)]
pub(super) struct Registry {
    sessions: Mutex<HashMap<u32, Arc<Handle>, foldhash::fast::RandomState>>,
}

/// What can be done to a session from outside, and what is seen of it there.
#[derive(Debug)]
pub(super) struct Handle {
    /// What the client was told.
    pub(super) key: CancelKey,
    pub(super) who: Who,
    work: Mutex<Work>,
    /// Whether something waits without a server: see [`Handle::waiting`].
    waits: AtomicU8,
    /// Since when, as of the last time.
    waits_since: Mutex<Option<Instant>>,
    /// The transaction status that the client was told, as the protocol's byte.
    transaction: AtomicU8,
    /// It is no session yet.
    arrives: bool,
    cancelled: Notify,
}

/// Whose session it is.
#[derive(Debug)]
pub(super) struct Who {
    /// The session's number.
    pub(super) id: u64,
    /// C: a client's, R: a replication client's, A: the console's.
    pub(super) kind: &'static str,
    pub(super) user: Box<str>,
    pub(super) database: Box<str>,
    pub(super) peer: Peer,
    /// The TLS version.
    pub(super) tls: Option<&'static str>,
    pub(super) since: SystemTime,
    /// What the client began with.
    pub(super) baseline: Arc<Settings>,
}

impl Who {
    /// What the client called itself when it connected.
    pub(super) fn application_name(&self) -> &str {
        self.baseline.value("application_name").unwrap_or_default()
    }
}

/// What works for a session.
#[derive(Debug, Default)]
struct Work {
    server: Option<(Arc<CancelGate>, Arc<CancelTarget>)>,
    /// The server is kept between two transactions.
    resting: bool,
    /// A cancel request came since it began to work.
    cancelled: bool,
    /// Why, as of the last time.
    pins: Pins,
}

impl Work {
    /// A word for what the session does, if it has a server.
    fn state(&self) -> Option<&'static str> {
        self.server.as_ref().map(|_| if self.resting { "pinned" } else { "active" })
    }

    fn causes(&self) -> impl Iterator<Item = &'static str> + use<> {
        let session_mode = (self.resting && !self.pins.any()).then_some("session pooling");
        self.pins.names().chain(session_mode)
    }
}

/// A session as it is seen from outside.
pub(super) struct Sight {
    /// idle, waiting, active or pinned.
    pub(super) state: &'static str,
    pub(super) transaction: TransactionStatus,
    /// Why the server is kept.
    pub(super) pins: Vec<&'static str>,
    /// For how long it has waited for a server, if it waits.
    pub(super) waits: Option<Duration>,
    /// The server that it has.
    pub(super) target: Option<Arc<CancelTarget>>,
}

impl Registry {
    /// A new session's handle under a random key, which names gateway `id` if there are several; `long` for protocol 3.2.
    pub(super) fn register(&self, long: bool, id: Option<u32>, who: Who) -> Arc<Handle> {
        self.add(long, id, who, false)
    }

    /// A client whose log-in waits for a server is seen to, until the guard is dropped. Nobody is told its key.
    pub(super) fn arrives(&self, who: Who) -> Arriving<'_> {
        let handle = self.add(true, None, who, true);
        *handle.waits_since.lock() = Some(Instant::now());
        handle.waits.store(WAITS, Ordering::Release);
        Arriving { registry: self, handle }
    }

    fn add(&self, long: bool, id: Option<u32>, who: Who, arrives: bool) -> Arc<Handle> {
        let mut secret = [0_u8; LONG_SECRET];
        rand::rng().fill_bytes(&mut secret);
        let secret = &secret[..if long { LONG_SECRET } else { 4 }];
        let mut sessions = self.sessions.lock();
        loop {
            let pid = process_id(id, rand::rng().next_u32());
            if pid == 0 || sessions.contains_key(&pid) {
                continue;
            }
            let handle = Arc::new(Handle {
                key: CancelKey { pid, secret: secret.into() },
                who,
                work: Mutex::default(),
                waits: AtomicU8::new(RESTS),
                waits_since: Mutex::new(None),
                transaction: AtomicU8::new(TransactionStatus::Idle.byte()),
                arrives,
                cancelled: Notify::new(),
            });
            sessions.insert(pid, Arc::clone(&handle));
            return handle;
        }
    }

    /// The session is over.
    pub(super) fn forget(&self, handle: &Handle) {
        self.sessions.lock().remove(&handle.key.pid);
    }

    /// Sessions now.
    pub(super) fn len(&self) -> usize {
        self.sessions.lock().values().filter(|handle| !handle.arrives).count()
    }

    /// All sessions, and the log-ins that wait for a server.
    pub(super) fn all(&self) -> Vec<Arc<Handle>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Sessions for which a server of a node so named works look whether it is given up.
    pub(super) fn wake(&self, node: &str) {
        for handle in self.all() {
            let work = handle.work.lock();
            if let Some((gate, _)) = work.server.as_ref().filter(|(_, target)| target.connector.node() == node) {
                gate.wake();
            }
        }
    }

    /// What all sessions do now.
    pub(super) fn states(&self) -> Sessions {
        let mut states = Sessions::default();
        for handle in self.all().iter().filter(|handle| !handle.arrives) {
            let work = handle.work.lock();
            if work.server.is_none() {
                *(if handle.waits_now() { &mut states.waiting } else { &mut states.idle }) += 1;
                continue;
            }
            *(if work.resting { &mut states.pinned } else { &mut states.active }) += 1;
            for cause in work.causes() {
                match states.pins.iter_mut().find(|(known, _)| *known == cause) {
                    Some((_, count)) => *count += 1,
                    None => states.pins.push((cause, 1)),
                }
            }
        }
        states
    }

    /// Carries out a client's request; `false` if no session here has that key. Returns when the server has taken it.
    pub(super) async fn cancel(&self, key: &CancelKey) -> bool {
        let Some(handle) = self.sessions.lock().get(&key.pid).cloned() else { return false };
        if !bool::from(handle.key.secret.ct_eq(&key.secret)) {
            tracing::debug!(pid = key.pid, "a cancel request with a wrong secret was ignored");
            return false;
        }
        // Entered under the lock: the session cannot give the server back in between.
        let running = {
            let mut work = handle.work.lock();
            work.cancelled = true;
            work.server.as_ref().map(|(gate, target)| (gate.enter(), Arc::clone(target)))
        };
        match running {
            // Nothing of the client's runs: it would hit a question of the gateway's own, which is bounded or soon answered.
            Some((guard, _)) if guard.is_shut() => {}
            Some((guard, target)) => {
                if let Err(error) = target.connector.cancel(&target.key, &guard).await {
                    tracing::warn!(pid = key.pid, %error, "a cancel request could not be passed on");
                }
                drop(guard);
            }
            None => {
                let told = handle.waits.compare_exchange(WAITS, TOLD, Ordering::AcqRel, Ordering::Relaxed);
                if told.is_ok() {
                    handle.cancelled.notify_one();
                }
            }
        }
        true
    }
}

impl Handle {
    /// A server works for the session from now on.
    pub(super) fn runs(&self, gate: &Arc<CancelGate>, target: &Arc<CancelTarget>) {
        let mut work = self.work.lock();
        (work.server, work.cancelled) = (Some((Arc::clone(gate), Arc::clone(target))), false);
    }

    /// No server works for it any more. Whether a cancel request came while one did.
    pub(super) fn rests(&self) -> bool {
        std::mem::take(&mut *self.work.lock()).cancelled
    }

    /// The server is kept though nothing runs on it.
    pub(super) fn keeps(&self, pins: Pins) {
        let mut work = self.work.lock();
        (work.resting, work.pins) = (true, pins);
    }

    /// The server that is kept works again.
    pub(super) fn works(&self) {
        let mut work = self.work.lock();
        (work.resting, work.cancelled) = (false, false);
    }

    /// Whether a cancel request came since the server began to work; told once.
    pub(super) fn struck(&self) -> bool {
        std::mem::take(&mut self.work.lock().cancelled)
    }

    /// The client is told this status, or will be.
    #[inline]
    pub(super) fn shows(&self, status: TransactionStatus) {
        self.transaction.store(status.byte(), Ordering::Relaxed);
    }

    /// What is seen of it now.
    pub(super) fn sight(&self) -> Sight {
        let transaction = self.transaction.load(Ordering::Relaxed);
        let transaction = TransactionStatus::from_byte(transaction).unwrap_or_default();
        let work = self.work.lock();
        let waits = self.waits_now() && work.server.is_none();
        Sight {
            state: work.state().unwrap_or(if waits { "waiting" } else { "idle" }),
            transaction,
            pins: work.causes().collect(),
            waits: self.waits_since.lock().filter(|_| waits).map(|since| since.elapsed()),
            target: work.server.as_ref().map(|(_, target)| Arc::clone(target)),
        }
    }

    fn waits_now(&self) -> bool {
        self.waits.load(Ordering::Relaxed) != RESTS
    }

    /// Waits for a cancel of a statement that no server has yet; the guard ends the readiness for one.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        *self.waits_since.lock() = Some(Instant::now());
        self.waits.store(WAITS, Ordering::Release);
        Waiting(self)
    }
}

/// See [`Registry::arrives`].
pub(super) struct Arriving<'a> {
    registry: &'a Registry,
    handle: Arc<Handle>,
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.registry.forget(&self.handle);
    }
}

/// While it lives, a cancel request wakes [`Waiting::cancelled`].
pub(super) struct Waiting<'a>(&'a Handle);

impl Waiting<'_> {
    /// Cancel-safe.
    pub(super) async fn cancelled(&self) {
        self.0.cancelled.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waits.swap(RESTS, Ordering::AcqRel) == TOLD {
            // A request that came too late must not hit the next statement.
            let stale = self.0.cancelled.notified();
            tokio::pin!(stale);
            stale.as_mut().enable();
        }
    }
}
