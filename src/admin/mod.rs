//! The admin listener: metrics, health, status, and a page that shows the same at a glance.
//!
//! Invariant: whatever is asked here, sessions do not wait for it: everything is read from snapshots and counters. With a
//! token, nothing but health is told without it. Deliberately absent: commands; this interface only reads.
//!
//! `/metrics` OpenMetrics, `/healthz` 200 while the process serves, `/readyz` 200 or 503 with reasons, `/api/v1/status` JSON,
//! `/` for people.

mod page;
mod routes;
mod scrape;
mod serve;
mod status;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinHandle;

use crate::config;
use crate::control::Live;
use crate::observe::Metrics;
use crate::sql::CacheStats;

pub use status::{ClusterStatus, NodeStatus, PoolStatus, ShardStatus, Status};

/// What the admin interface reads of a gateway.
pub trait Source: Send + Sync + 'static {
    /// What was counted.
    fn metrics(&self) -> &Metrics;

    /// The live snapshot.
    fn live(&self) -> Arc<Live>;

    /// Connections of clients, those that log in among them.
    fn clients(&self) -> usize;

    /// Sessions by what they do now. Walks over all of them.
    fn sessions(&self) -> Sessions;

    /// What sessions hear through shared connections.
    fn listening(&self) -> Listening;

    /// Server connections in all pools.
    fn servers(&self) -> usize;

    /// The cache of analyses.
    fn analyses(&self) -> CacheStats;

    /// The policies, in name order.
    fn policies(&self) -> Vec<Policy>;

    /// Whether the gateway stops: no new sessions should come.
    fn draining(&self) -> bool;
}

/// Sessions, each in one of the states.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sessions {
    /// No server.
    pub idle: usize,
    /// Waiting for a server.
    pub waiting: usize,
    /// A statement or transaction has a server.
    pub active: usize,
    /// Kept on a server between transactions.
    pub pinned: usize,
    /// Sessions that must keep their server, by cause; one session may have several.
    pub pins: Vec<(&'static str, usize)>,
}

impl Sessions {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.idle + self.waiting + self.active + self.pinned
    }
}

/// LISTEN through shared connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listening {
    /// Shared connections.
    pub connections: usize,
    /// Sessions that hear through them.
    pub sessions: usize,
    /// Channels that they listen to.
    pub channels: usize,
}

/// A policy and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// A word: serving, last_good, broken, refused, compiling.
    pub state: &'static str,
    /// What the policy calls itself; may be empty.
    pub version: String,
    /// Of what serves: the first twelve hexadecimal digits of its SHA-256; empty if nothing does.
    pub digest: String,
    /// When that was loaded.
    #[serde(serialize_with = "status::seconds")]
    pub loaded_at: Option<SystemTime>,
    /// What is wrong, if anything is.
    pub error: Option<String>,
    /// Calls of what serves.
    pub calls: u64,
    /// Decisions that were kept and served again.
    pub cached: u64,
    /// Answers by what they say: primary, replica, any, reject, pass.
    pub decisions: Vec<(&'static str, u64)>,
    /// Faults by kind, those that happened.
    pub faults: Vec<(&'static str, u64)>,
    /// What the policy counts itself.
    pub own: Vec<(String, u64)>,
}

/// Why the admin listener did not start.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen: {address}: {source}; choose another address, or leave [admin] out")]
pub struct AdminError {
    /// As configured.
    address: String,
    /// The system's words.
    source: std::io::Error,
}

/// A running admin listener. It ends when this is dropped.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl AdminHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to listen, on the runtime that this is called on.
///
/// # Errors
/// An address that cannot be bound.
pub async fn start(admin: &config::Admin, source: Arc<dyn Source>) -> Result<AdminHandle, AdminError> {
    let address = admin.listen.to_string();
    let bound = serve::bind(&admin.listen).await;
    let (listener, address) = bound.map_err(|source| AdminError { address, source })?;
    let task = tokio::spawn(serve::run(listener, routes::router(source)));
    Ok(AdminHandle { address, task })
}
