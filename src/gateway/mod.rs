//! The gateway: accept, greet, drive; and how it stops.
//!
//! Invariant: whatever a client or a server does, the worst that happens to others is nothing. A session owns its client's
//! socket and the server it holds; both go when it goes.
//!
//! Deliberately absent: the protocol's rules (`session`, `upstream`), what a statement means (`sql`, `policy`).

mod accept;
mod cancel;
mod context;
mod drive;
mod greet;
mod io;
mod login;
mod private;
mod pump;
mod reload;
mod route;
mod runtime;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    tidying: tokio::task::JoinHandle<()>,
    addresses: Vec<SocketAddr>,
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
        let context = Context::new(config, workers.count())?;
        let live = context.live.load_full();
        let listen: Vec<_> = live.config.server.listen.iter().map(listen_address).collect();
        let options = ListenOptions {
            unix_port: unix_port(&live),
            unix_mode: live.config.server.unix_socket_mode,
            reuse_port: false,
        };
        let listeners = crate::net::bind(&listen, options).await?;
        let addresses = listeners.iter().filter_map(crate::net::Listener::tcp_address).collect();
        let accepting = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept::accept(listener, Arc::clone(&context), workers.spawner())))
            .collect();
        let tidying = tokio::spawn(context::tidy(Arc::clone(&context)));
        Ok(GatewayHandle { context, workers, accepting, tidying, addresses, origin: origin.to_owned() })
    }
}

impl GatewayHandle {
    /// The TCP addresses that it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        self.tidying.abort();
        self.context.close_pools();
        self.workers.stop().await;
    }
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
