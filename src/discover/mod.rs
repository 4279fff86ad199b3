//! Watching a cluster: which node is the primary, which are alive, how far each has come, what its databases define.
//!
//! Invariant: what is learnt is stored in the topology's nodes, and nobody else stores it there. A node that cannot be asked
//! keeps what the configuration or its last answer said; it is taken out only for failures that are its own.
//!
//! Deliberately absent: the choice of a node (`topology`), where nodes come from other than the configuration, fencing of a
//! second primary: it is named in the log and gets no statement.
//!
//! One task a node asks, on a connection of the monitor's account or on one borrowed from a pool of a client's. One task a
//! cluster reads the catalogues.

mod catalogs;
mod health;
mod lag;
mod link;
mod probe;
mod shard;
mod vacated;
mod watch;

use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::catalog::{Catalog, Definitions};
use crate::config;
use crate::pool::{ConnectError, Connector, Pool};
use crate::topology::{Node, Topology};

use shard::ShardWatch;
pub use vacated::Vacated;

/// What the monitor needs of a cluster at work.
pub trait Source: Send + Sync + 'static {
    /// Its name, for the log.
    fn name(&self) -> &str;

    /// Its configuration: the monitor's account and times, when nodes are ejected.
    fn config(&self) -> &config::Cluster;

    /// Its nodes. The same for as long as the monitor runs.
    fn topology(&self) -> &Topology;

    /// Opens connections of the monitor's account to `node`, in the account's own database or in `dbname` (its name on the
    /// servers). `None`: there is no account.
    fn connector(&self, node: &Node, dbname: Option<&str>) -> Option<Connector>;

    /// Pools of connections to `node` that the monitor may borrow from, those in `dbname` only if one is given.
    fn lenders(&self, node: &Arc<Node>, dbname: Option<&str>) -> Vec<Arc<Pool>>;

    /// The databases in use, by their names on the servers, and where their catalogues are kept.
    fn catalogs(&self) -> Vec<(Box<str>, Arc<ArcSwap<Catalog>>)>;

    /// A number for a catalogue that no other in the process has.
    fn next_catalog(&self) -> u64;

    /// Changes when a statement may have changed what the catalogues hold.
    fn definitions(&self) -> Definitions;

    /// A schema has changed that nobody told of; that counts as one definition more.
    fn schema_changed(&self);

    /// The databases that are left alone now.
    fn vacated(&self) -> &Vacated;

    /// The servers have no such database any more.
    fn database_gone(&self, dbname: &str);
}

/// What went wrong on a node, as whoever used it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there, or the host is not reached.
    Refused,
    /// An open connection ended without a word (a server that ends one in order says 57P01 first).
    Lost,
    /// It took too long.
    TimedOut,
    /// It says itself that it is starting, stopping or not accepting (57P0x).
    NotReady,
}

impl Failure {
    /// What a failed attempt to connect says of the node; `None` if something else is to blame.
    #[must_use]
    pub fn of(error: &ConnectError) -> Option<Self> {
        match error {
            _ if !error.blames_node() => None,
            ConnectError::TimedOut { .. } => Some(Self::TimedOut),
            ConnectError::Net { source: crate::net::NetError::Timeout { .. }, .. } => Some(Self::TimedOut),
            ConnectError::Net { .. } => Some(Self::Refused),
            ConnectError::Io { .. } => Some(Self::Lost),
            ConnectError::Login { .. } => Some(Self::NotReady),
        }
    }

    /// Whether the node is certainly of no use now: it is left out until it has answered, however many failures the
    /// configuration asks for.
    fn certain(self) -> bool {
        matches!(self, Self::Refused | Self::Lost)
    }
}

/// A running monitor. It ends when this is dropped.
#[derive(Debug)]
pub struct MonitorHandle {
    shards: Vec<Arc<ShardWatch>>,
    catalogs: Arc<tokio::sync::Notify>,
    tasks: Vec<AbortHandle>,
}

/// Starts the monitor of a cluster on `runtime`. `worker` is that runtime's number towards pools: connections that the
/// monitor has to open in order to borrow them belong to it. The monitor ends by itself when the cluster is dropped.
#[must_use]
pub fn spawn<S: Source>(source: &Arc<S>, runtime: &Handle, worker: usize) -> MonitorHandle {
    let topology = source.topology();
    let weak = Arc::downgrade(source);
    let weak: Weak<dyn Source> = weak;
    let shards: Vec<_> = (0..topology.shards().len()).map(|number| ShardWatch::new(&**source, number)).collect();
    let catalogs = Arc::<tokio::sync::Notify>::default();
    let mut tasks = Vec::new();
    for (number, shard) in topology.shards().iter().enumerate() {
        for index in 0..shard.nodes.len() {
            let task = watch::run(Weak::clone(&weak), Arc::clone(&shards[number]), index, worker);
            tasks.push(runtime.spawn(task).abort_handle());
        }
    }
    let task = catalogs::run(weak, Arc::clone(&catalogs), worker);
    tasks.push(runtime.spawn(task).abort_handle());
    MonitorHandle { shards, catalogs, tasks }
}

impl MonitorHandle {
    /// A session or pool could not use `node`. The node is asked at once, on a new connection.
    pub fn report_failure(&self, node: &Node, failure: Failure) {
        if let Some(shard) = self.shards.get(node.shard) {
            shard.reported(node, failure, Instant::now());
        }
    }

    /// A session or pool connected to `node`, or it answered there. Costs one load.
    pub fn report_success(&self, node: &Node) {
        node.answered();
    }

    /// An account came into use: its database's catalogue is read now, and nodes that nobody could ask yet are asked.
    pub fn account_adopted(&self) {
        self.catalogs.notify_one();
        for shard in &self.shards {
            shard.call_all();
        }
    }

    /// Ends the monitor; what is known of the nodes stays as it is.
    pub fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for MonitorHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
