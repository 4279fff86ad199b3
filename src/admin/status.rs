//! What is told of the gateway at one moment: for the API and the page.
//!
//! Invariant: no secret and no statement is in it. Deliberately absent: its rendering.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::scrape::shard_name;
use super::{Policy, Sessions, Source};
use crate::config::PoolMode;
use crate::control::Cluster;
use crate::policy::Role as Target;
use crate::topology::{Node, Role, Standing};

/// A gateway at one moment. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The gateway's version.
    pub version: &'static str,
    /// Since it started, in seconds.
    pub uptime: u64,
    /// Why it is not ready for clients; empty if it is.
    pub unready: Vec<String>,
    /// Connections of clients.
    pub clients: usize,
    /// Most of them.
    pub max_clients: usize,
    /// Sessions by state.
    pub sessions: Sessions,
    /// Server connections.
    pub servers: usize,
    /// Most of them.
    pub max_servers: usize,
    /// In the order of their names.
    pub clusters: Vec<ClusterStatus>,
    /// In the order of their names.
    pub policies: Vec<Policy>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub shards: Vec<ShardStatus>,
    /// Those that were used, by database, user and node.
    pub pools: Vec<PoolStatus>,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// primary, replica or unknown.
    pub role: &'static str,
    /// up or ejected.
    pub standing: &'static str,
    /// How far a replica is behind, in seconds, if known.
    pub lag: Option<f64>,
    /// Its share of the reads.
    pub weight: u32,
    /// Connections lent now.
    pub in_flight: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Statements sent to it so far.
    pub statements: u64,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PoolStatus {
    /// As clients name it.
    pub database: String,
    /// Who is logged in.
    pub user: String,
    /// The node's shard.
    pub shard: String,
    /// The node.
    pub node: String,
    /// session or transaction.
    pub mode: &'static str,
    /// Idle connections.
    pub idle: usize,
    /// Connections lent or being opened.
    pub lent: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// Most connections.
    pub size: usize,
}

impl Status {
    /// Reads everything.
    pub(super) fn read(source: &dyn Source) -> Self {
        let live = source.live();
        let uptime = SystemTime::now().duration_since(source.metrics().started).unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime: uptime.as_secs(),
            unready: unready(source),
            clients: source.clients(),
            max_clients: live.config.server.max_clients,
            sessions: source.sessions(),
            servers: source.servers(),
            max_servers: live.config.max_server_connections,
            clusters: live.clusters.values().map(|cluster| ClusterStatus::read(cluster)).collect(),
            policies: source.policies(),
        }
    }
}

impl ClusterStatus {
    fn read(cluster: &Cluster) -> Self {
        let shards = cluster.topology.shards().iter().map(|shard| ShardStatus {
            name: shard.name.to_string(),
            nodes: shard.nodes.iter().map(|node| NodeStatus::read(node)).collect(),
        });
        let mut pools = Vec::new();
        for account in cluster.accounts() {
            for (node, counts) in account.counts() {
                pools.push(PoolStatus {
                    database: account.database.to_string(),
                    user: account.user.to_string(),
                    shard: shard_name(cluster, &node).to_owned(),
                    node: node.spec.name.to_string(),
                    mode: match account.mode {
                        PoolMode::Session => "session",
                        PoolMode::Transaction => "transaction",
                        PoolMode::Statement => "statement",
                    },
                    idle: counts.idle,
                    lent: counts.open.saturating_sub(counts.idle),
                    waiting: counts.waiting,
                    size: account.pool_config().size,
                });
            }
        }
        pools.sort();
        Self { name: cluster.name.to_string(), shards: shards.collect(), pools }
    }
}

impl NodeStatus {
    fn read(node: &Node) -> Self {
        Self {
            name: node.spec.name.to_string(),
            role: role(node.role()),
            standing: if node.standing() == Standing::Up { "up" } else { "ejected" },
            lag: node.lag().filter(|_| node.role() == Role::Replica).map(|lag| lag.as_secs_f64()),
            weight: node.spec.weight,
            in_flight: node.in_flight(),
            failures: node.failures(),
            statements: [Target::Primary, Target::Replica, Target::Any].into_iter().map(|t| node.sent(t)).sum(),
        }
    }
}

/// A word for a role.
pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
        Role::Unknown => "unknown",
    }
}

/// Why no client should be sent here; empty if one may be. A shard is of use while one of its nodes is up and it is known
/// which node is the primary: with the primary down, reads are still served.
pub(super) fn unready(source: &dyn Source) -> Vec<String> {
    let mut reasons = Vec::new();
    if source.draining() {
        reasons.push("the gateway stops".to_owned());
    }
    for cluster in source.live().clusters.values() {
        for shard in cluster.topology.shards() {
            let of = format!("cluster \"{}\", shard \"{}\"", cluster.name, shard.name);
            if shard.nodes.iter().all(|node| node.standing() == Standing::Ejected) {
                reasons.push(format!("{of}: no node answers; look at the log for what they failed with"));
            } else if shard.nodes.iter().all(|node| node.role() == Role::Replica) {
                reasons.push(format!("{of}: every node says that it is a standby; none takes writes"));
            }
        }
    }
    reasons
}

/// Seconds since 1970.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(super) fn seconds<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.as_ref().map(Duration::as_secs).serialize(to)
}
