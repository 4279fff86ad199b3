//! What all sessions of a gateway share.
//!
//! Invariant: immutable, or swapped as a whole, or a counter.
//! Deliberately absent: anything that belongs to one session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};

use super::listen::Listeners;
use super::runtime::Spawner;
use super::{StartError, cancel, peers};
use crate::auth::MockSecret;
use crate::config::Config;
use crate::control::Live;
use crate::control::cluster::SettingsInterner;
use crate::control::policies::store_config;
use crate::observe::Metrics;
use crate::policy::Chain;
use crate::pool::Budget;
use crate::session;
use crate::sql::Analyzer;
use crate::upstream::{Interner, Parameters, Registry};
use crate::wasm::{PolicyEvent, PolicyStore};

/// Bytes that the caches of analyses may hold.
const ANALYSIS_CACHE: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) live: ArcSwap<Live>,
    /// The configuration at the start: what is bound or built once is as it says.
    pub(super) started: Config,
    pub(super) session: Arc<session::Shared>,
    pub(super) settings: SettingsInterner,
    pub(super) parameters: Interner<Parameters>,
    pub(super) cancels: cancel::Registry,
    /// Places for cancel requests on their way to peers.
    pub(super) forwards: Semaphore,
    pub(super) listeners: Listeners,
    pub(super) budget: Arc<Budget>,
    pub(super) mock: MockSecret,
    pub(super) policies: PolicyStore,
    pub(super) metrics: Arc<Metrics>,
    /// Runtimes that server connections can belong to.
    pub(super) workers: usize,
    /// Threads that sessions run on.
    pub(super) threads: usize,
    /// Where the monitors run: a runtime of the sessions', and its number.
    monitors: (tokio::runtime::Handle, usize),
    /// Connections accepted and not yet over, log-ins included.
    pub(super) clients: AtomicUsize,
    next_session: AtomicU64,
    draining: watch::Sender<bool>,
    /// The same, at the cost of a load.
    stops: AtomicBool,
    emptied: Notify,
}

impl Context {
    pub(super) fn new(
        config: Config,
        workers: usize,
        threads: usize,
        monitors: (tokio::runtime::Handle, usize),
    ) -> Result<Arc<Self>, StartError> {
        let budget = Budget::new(config.max_server_connections);
        let hold = usize::try_from(config.server.hold_limit.as_u64()).unwrap_or(usize::MAX);
        let started = config.clone();
        let live = Live::build(config, None, &budget, workers)?;
        let limits = session::Limits { hold, ..session::Limits::default() };
        let metrics = Arc::new(Metrics::new(workers));
        let policies = PolicyStore::start(store_config(&live.config, threads), {
            let metrics = Arc::clone(&metrics);
            Arc::new(move |event: &PolicyEvent| tell(event, &metrics))
        })?;
        Ok(Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            started,
            session: Arc::new(session::Shared {
                analyzer: Analyzer::new(ANALYSIS_CACHE),
                registry: Registry::default(),
                limits,
            }),
            settings: SettingsInterner::default(),
            parameters: Interner::default(),
            cancels: cancel::Registry::default(),
            forwards: Semaphore::new(peers::FORWARDS),
            listeners: Listeners::new(),
            budget,
            mock: MockSecret::random(),
            policies,
            metrics,
            workers,
            threads,
            monitors,
            clients: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            draining: watch::Sender::new(false),
            stops: AtomicBool::new(false),
            emptied: Notify::new(),
        }))
    }

    /// A number for a new session, unique for the life of the process.
    pub(super) fn session_id(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the monitors of all clusters that have none yet.
    pub(super) fn watch_clusters(&self) {
        let (runtime, worker) = &self.monitors;
        for cluster in self.live.load().clusters.values() {
            cluster.watch(runtime, *worker);
        }
    }

    /// The chain that decides for a database now.
    pub(super) fn chain(&self, database: &str) -> Arc<Chain> {
        Arc::clone(self.policies.chains().load().of(database))
    }

    /// Counts a client; `None` when there are too many, also for what is let in beyond that.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let most = self.live.load().config.server.max_clients;
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        let admission = Admission { context: Arc::clone(self), beyond: before >= most };
        (before < most.saturating_add(BEYOND)).then_some(admission)
    }

    /// Tells every session to end as soon as it can.
    pub(super) fn drain(&self) {
        self.stops.store(true, Ordering::Relaxed);
        self.draining.send_replace(true);
    }

    /// Whether sessions are to end.
    pub(super) fn draining(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
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

/// What the policy store has to say goes to the log and is counted.
fn tell(event: &PolicyEvent, metrics: &Metrics) {
    match event {
        PolicyEvent::Loaded { .. } => metrics.policy_loads.one(),
        PolicyEvent::Refused { .. } | PolicyEvent::Tripped { .. } => metrics.policy_failures.one(),
        _ => {}
    }
    if event.is_trouble() {
        tracing::warn!("{event}");
    } else {
        tracing::info!("{event}");
    }
}

/// Clients above max_clients that may say what they want.
const BEYOND: usize = 16;

/// A client that is counted while this lives.
#[derive(Debug)]
pub(super) struct Admission {
    context: Arc<Context>,
    /// It is one above max_clients: for the console, and to ask for a cancel.
    pub(super) beyond: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.context.clients.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.context.emptied.notify_waiters();
        }
    }
}

fn all_pools(live: &Live) -> Vec<Arc<crate::pool::Pool>> {
    live.clusters.values().flat_map(|cluster| cluster.accounts()).flat_map(|account| account.pools()).collect()
}

/// Closes idle connections that are due, opens those that are missing, has sessions give up what is in flight on replicas that
/// are out, once a second, for ever.
pub(super) async fn tidy(context: Arc<Context>, spawner: Spawner) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for cluster in context.live.load().clusters.values() {
            for node in cluster.topology.nodes() {
                if node.still_out() && node.in_flight() > 0 {
                    context.cancels.wake(&node.spec.name);
                }
            }
            for account in cluster.accounts() {
                for pool in account.pools() {
                    pool.tidy(now);
                    if cluster.vacated.holds(&account.dbname) {
                        continue;
                    }
                    for ahead in pool.ahead() {
                        spawner.spawn(move |worker| ahead.open(worker));
                    }
                }
            }
        }
        context.budget.relieve();
    }
}
