//! What all sessions of a gateway share.
//!
//! Invariant: immutable, or swapped as a whole, or a counter.
//! Deliberately absent: anything that belongs to one session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::cancel;
use crate::auth::MockSecret;
use crate::config::Config;
use crate::control::cluster::SettingsInterner;
use crate::control::{Live, LiveError};
use crate::policy::{Chain, Link, OnFault, ReadWriteSplit, SplitSettings};
use crate::pool::Budget;
use crate::session;
use crate::sql::Analyzer;
use crate::upstream::Registry;

/// Bytes that the caches of analyses may hold.
const ANALYSIS_CACHE: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) live: ArcSwap<Live>,
    pub(super) session: Arc<session::Shared>,
    pub(super) settings: SettingsInterner,
    pub(super) cancels: cancel::Registry,
    pub(super) budget: Arc<Budget>,
    pub(super) mock: MockSecret,
    pub(super) chain: ArcSwap<Chain>,
    pub(super) workers: usize,
    /// Connections accepted and not yet over, log-ins included.
    pub(super) clients: AtomicUsize,
    next_session: AtomicU64,
    draining: watch::Sender<bool>,
    emptied: Notify,
}

impl Context {
    pub(super) fn new(config: Config, workers: usize) -> Result<Arc<Self>, LiveError> {
        let budget = Budget::new(config.max_server_connections);
        let hold = usize::try_from(config.server.hold_limit.as_u64()).unwrap_or(usize::MAX);
        let live = Live::build(config, None, &budget, workers)?;
        let limits = session::Limits { hold, ..session::Limits::default() };
        let split = ReadWriteSplit::new(SplitSettings::default());
        let link = Link { policy: Arc::new(split), on_fault: OnFault::Primary };
        Ok(Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            session: Arc::new(session::Shared {
                analyzer: Analyzer::new(ANALYSIS_CACHE),
                registry: Registry::default(),
                limits,
            }),
            settings: SettingsInterner::default(),
            cancels: cancel::Registry::default(),
            budget,
            mock: MockSecret::random(),
            chain: ArcSwap::from_pointee(Chain::new(1, vec![link])),
            workers,
            clients: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            draining: watch::Sender::new(false),
            emptied: Notify::new(),
        }))
    }

    /// A number for a new session, unique for the life of the process.
    pub(super) fn session_id(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a client; `None` when there are too many.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let most = self.live.load().config.server.max_clients;
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        let admission = Admission(Arc::clone(self));
        (before < most).then_some(admission)
    }

    /// Tells every session to end as soon as it can.
    pub(super) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Hears of [`Context::drain`].
    pub(super) fn on_drain(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Waits until no client is left. Cancel-safe.
    pub(super) async fn drained(&self) {
        loop {
            let notified = self.emptied.notified();
            if self.clients.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn close_pools(&self) {
        for pool in all_pools(&self.live.load()) {
            pool.close();
        }
    }
}

/// A client that is counted while this lives.
#[derive(Debug)]
pub(super) struct Admission(Arc<Context>);

impl Drop for Admission {
    fn drop(&mut self) {
        if self.0.clients.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

fn all_pools(live: &Live) -> Vec<Arc<crate::pool::Pool>> {
    live.clusters.values().flat_map(|cluster| cluster.accounts()).flat_map(|account| account.pools()).collect()
}

/// Closes idle connections that are due, once a second, for ever.
pub(super) async fn tidy(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for pool in all_pools(&context.live.load()) {
            pool.tidy(now);
        }
    }
}
