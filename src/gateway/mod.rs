//! The gateway: accept, greet, drive; and how it stops.
//!
//! Invariant: whatever a client or a server does, the worst that happens to others is nothing. A session owns its client's
//! socket and the server it holds; both go when it goes.
//!
//! Deliberately absent: the protocol's rules (`session`, `upstream`), what a statement means (`sql`, `policy`).

mod accept;
mod block;
mod cancel;
mod checkout;
mod console;
mod context;
mod doubted;
mod drive;
mod greet;
mod held;
mod home;
mod io;
mod listen;
mod login;
mod peers;
mod prepare;
mod private;
mod pump;
mod refused;
mod reload;
mod replication;
mod rerun;
mod route;
mod runtime;
mod settle;
mod shards;
mod sight;
mod starts;
mod trace;
mod written;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::admin::{self, AdminError, AdminHandle};
use crate::config::Config;
use crate::control::{Live, LiveError};
use crate::net::{ListenAddress, ListenOptions, NetError};

use context::Context;
use runtime::Workers;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener, a certificate.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The configuration cannot be put to work.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The policy host.
    #[error(transparent)]
    Policies(#[from] crate::wasm::StoreError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Threads or runtimes.
    #[error("the workers did not start: {0}")]
    Workers(#[source] std::io::Error),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway;

/// Stops a gateway, reloads it, tells where it listens.
#[derive(Debug)]
pub struct GatewayHandle {
    context: Arc<Context>,
    workers: Workers,
    accepting: Vec<tokio::task::JoinHandle<()>>,
    tasks: [tokio::task::JoinHandle<()>; 3],
    addresses: Vec<SocketAddr>,
    admin: Option<AdminHandle>,
    origin: PathBuf,
}

impl Gateway {
    /// Starts listening. Must be called on a tokio runtime, which accepts; sessions run on workers of their own.
    /// `origin` is the configuration's file, read again by [`GatewayHandle::reload`].
    ///
    /// # Errors
    /// See [`StartError`]; nothing listens then.
    pub async fn start(config: Config, origin: &Path) -> Result<GatewayHandle, StartError> {
        let workers = Workers::start(&config.server).map_err(StartError::Workers)?;
        let context = Context::new(config, workers.count(), workers.threads(), workers.first())?;
        let live = context.live.load_full();
        let listen: Vec<_> = live.config.server.listen.iter().map(listen_address).collect();
        let options = ListenOptions {
            unix_port: unix_port(&live),
            unix_mode: live.config.server.unix_socket_mode,
            reuse_port: false,
        };
        let listeners = crate::net::bind(&listen, options).await?;
        let addresses: Vec<_> = listeners.iter().filter_map(crate::net::Listener::tcp_address).collect();
        let admin = match &live.config.admin {
            Some(admin) => Some(admin::start(admin, Arc::clone(&context) as Arc<dyn admin::Source>).await?),
            None => None,
        };
        let accepting = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept::accept(listener, Arc::clone(&context), workers.spawner())))
            .collect();
        tell_start(&live, admin.as_ref());
        shards::warn_of_blind_chains(&live, &context.policies.chains().load());
        context.watch_clusters();
        let tidying = tokio::spawn(context::tidy(Arc::clone(&context), workers.spawner()));
        let looking = tokio::spawn(starts::watch(Arc::clone(&context)));
        let watching = tokio::spawn(reload::watch(Arc::clone(&context), origin.to_owned()));
        Ok(GatewayHandle {
            context,
            workers,
            accepting,
            tasks: [tidying, looking, watching],
            addresses,
            admin,
            origin: origin.to_owned(),
        })
    }
}

impl GatewayHandle {
    /// The TCP addresses that it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin interface is, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminHandle::address)
    }

    /// Sessions now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.context.cancels.len()
    }

    /// Reads the configuration's file again and puts it to work. What fails changes nothing.
    pub fn reload(&self) {
        reload::reload(&self.context, &self.origin);
    }

    /// Stops: no new clients, idle sessions end at once, others when their transaction does, all at the latest after
    /// `drain_timeout`.
    pub async fn shutdown(self) {
        for task in &self.accepting {
            task.abort();
        }
        for task in self.accepting {
            // Aborted: the listener and its socket file are gone once this returns.
            let _ = task.await;
        }
        let limit = self.context.live.load().config.server.drain_timeout;
        self.context.drain();
        if tokio::time::timeout(limit, self.context.drained()).await.is_err() {
            tracing::warn!(sessions = self.context.cancels.len(), "sessions were cut off: drain_timeout has passed");
        }
        for task in &self.tasks {
            task.abort();
        }
        self.context.policies.stop();
        self.context.close_pools();
        self.workers.stop().await;
    }
}

/// The one line that says what runs here.
fn tell_start(live: &Live, admin: Option<&AdminHandle>) {
    let config = &live.config;
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    let clusters: Vec<_> = live.clusters.keys().map(String::as_str).collect();
    let nodes: usize = live.clusters.values().map(|cluster| cluster.topology.nodes().count()).sum();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = listen.join(", "),
        admin = admin.map(|admin| admin.address().to_string()),
        clusters = clusters.join(", "),
        nodes,
        "started"
    );
}

fn listen_address(address: &crate::config::Address) -> ListenAddress {
    match address {
        crate::config::Address::Tcp { host, port } => ListenAddress::Tcp { host: host.clone(), port: *port },
        crate::config::Address::Unix { directory, .. } => ListenAddress::Unix { directory: directory.clone() },
    }
}

/// The port in the names of Unix sockets: their own, else the first TCP port.
fn unix_port(live: &Live) -> u16 {
    let listen = &live.config.server.listen;
    let unix = listen.iter().find(|address| matches!(address, crate::config::Address::Unix { .. }));
    unix.or(listen.first()).map_or(6432, crate::config::Address::port)
}
