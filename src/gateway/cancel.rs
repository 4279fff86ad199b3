//! Cancel requests: from the key that a client shows to the statement that runs for it now.
//!
//! Invariant: a request reaches only a server that was lent to the named session when it was sent, and that server is lent
//! to nobody else before the request has arrived (DESIGN 4.13). A wrong secret does nothing, and nothing tells.
//!
//! Deliberately absent: other gateways' keys (`peers`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use tokio::sync::Notify;

use super::peers::process_id;
use crate::admin::Sessions;
use crate::pool::{CancelGate, CancelTarget};
use crate::session::Pins;
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

/// What can be done to a session from outside.
#[derive(Debug)]
pub(super) struct Handle {
    /// What the client was told.
    pub(super) key: CancelKey,
    running: Mutex<Option<(Arc<CancelGate>, Arc<CancelTarget>)>>,
    /// Whether something waits without a server: see [`Handle::waiting`].
    waits: AtomicU8,
    /// The server is kept between two transactions.
    resting: AtomicBool,
    /// Why, as of the last time.
    pins: Mutex<Pins>,
    cancelled: Notify,
}

impl Registry {
    /// A new session's handle under a random key, which names gateway `id` if there are several; `long` for protocol 3.2.
    pub(super) fn register(&self, long: bool, id: Option<u32>) -> Arc<Handle> {
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
                running: Mutex::new(None),
                waits: AtomicU8::new(RESTS),
                resting: AtomicBool::new(false),
                pins: Mutex::default(),
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
        self.sessions.lock().len()
    }

    /// What all sessions do now.
    pub(super) fn states(&self) -> Sessions {
        let handles: Vec<_> = self.sessions.lock().values().cloned().collect();
        let mut states = Sessions::default();
        for handle in handles {
            if handle.running.lock().is_none() {
                let waits = handle.waits.load(Ordering::Relaxed) != RESTS;
                *(if waits { &mut states.waiting } else { &mut states.idle }) += 1;
                continue;
            }
            let resting = handle.resting.load(Ordering::Relaxed);
            *(if resting { &mut states.pinned } else { &mut states.active }) += 1;
            let pins = *handle.pins.lock();
            let session_mode = (resting && !pins.any()).then_some("session pooling");
            for cause in pins.names().chain(session_mode) {
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
        let running = handle.running.lock().as_ref().map(|(gate, target)| (gate.enter(), Arc::clone(target)));
        match running {
            Some((guard, target)) => {
                if let Err(error) = target.connector.cancel(&target.key).await {
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
        *self.running.lock() = Some((Arc::clone(gate), Arc::clone(target)));
    }

    /// No server works for it any more.
    pub(super) fn rests(&self) {
        *self.running.lock() = None;
    }

    /// The server is kept though nothing runs on it.
    pub(super) fn keeps(&self, pins: Pins) {
        *self.pins.lock() = pins;
        self.resting.store(true, Ordering::Relaxed);
    }

    /// The server that is kept works again.
    pub(super) fn works(&self) {
        self.resting.store(false, Ordering::Relaxed);
    }

    /// Waits for a cancel of a statement that no server has yet; the guard ends the readiness for one.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.waits.store(WAITS, Ordering::Release);
        Waiting(self)
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
