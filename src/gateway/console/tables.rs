//! What the console's tables hold. Columns that PgBouncer's console has too bear the same names.
//!
//! Invariant: everything is read from snapshots, counters and what sessions publish. The moments of two rows may differ. The
//! application_name is the one that a client began with.
//!
//! Deliberately absent: what was counted so far (`stats`); the shared connections that listen (`listen`), which
//! `server_connections` of the metrics counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::command::{Kind, Show, Value};
use super::{help, stats};
use crate::config::{Config, Pool, PoolMode};
use crate::control::{Account, Cluster, Live};
use crate::gateway::cancel::{Handle, Sight};
use crate::gateway::context::Context;
use crate::net::Peer;
use crate::pool::{CancelTarget, PoolCounts};
use crate::topology::{Node, Role, Standing};
use crate::wire::TransactionStatus;

pub(super) type Row = Vec<Value>;

use Kind::{Number, Text};

const CLIENTS: &[(&str, Kind)] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("transaction", Text),
    ("pins", Text),
    ("addr", Text),
    ("port", Number),
    ("connect_time", Text),
    ("wait", Number),
    ("wait_us", Number),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Number),
    ("node", Text),
    ("tls", Text),
    ("application_name", Text),
    ("id", Number),
];

const SERVERS: &[(&str, Kind)] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Number),
    ("connect_time", Text),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Number),
    ("node", Text),
];

const POOLS: &[(&str, Kind)] = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Number),
    ("cl_waiting", Number),
    ("sv_active", Number),
    ("sv_idle", Number),
    ("sv_login", Number),
    ("maxwait", Number),
    ("maxwait_us", Number),
    ("pool_mode", Text),
    ("pool_size", Number),
    ("min_pool_size", Number),
    ("reserve_pool_size", Number),
    ("nodes", Number),
    ("cluster", Text),
];

const DATABASES: &[(&str, Kind)] = &[
    ("name", Text),
    ("host", Text),
    ("port", Number),
    ("database", Text),
    ("pool_size", Number),
    ("min_pool_size", Number),
    ("reserve_pool_size", Number),
    ("pool_mode", Text),
    ("current_connections", Number),
    ("cluster", Text),
];

const NODES: &[(&str, Kind)] = &[
    ("cluster", Text),
    ("shard", Text),
    ("node", Text),
    ("role", Text),
    ("state", Text),
    ("lag_ms", Number),
    ("weight", Number),
    ("in_flight", Number),
    ("failures", Number),
];

/// The columns of a table.
pub(super) fn columns(show: Show) -> &'static [(&'static str, Kind)] {
    match show {
        Show::Clients => CLIENTS,
        Show::Servers => SERVERS,
        Show::Pools => POOLS,
        Show::Databases => DATABASES,
        Show::Nodes => NODES,
        Show::Users => &[("name", Text), ("pool_mode", Text)],
        Show::Lists => &[("list", Text), ("items", Number)],
        Show::Stats => stats::STATS,
        Show::StatsTotals => stats::TOTALS,
        Show::Config => stats::CONFIG,
        Show::Version => &[("version", Text)],
        Show::Help => &[("command", Text), ("shows", Text)],
    }
}

/// The rows of a table; those that may be many are made one by one.
pub(super) fn rows(show: Show, context: &Context) -> Box<dyn Iterator<Item = Row> + Send> {
    let live = context.live.load_full();
    match show {
        Show::Clients => Box::new(context.cancels.all().into_iter().map(|handle| client(&handle))),
        Show::Servers => {
            let lent = context.cancels.all().into_iter().filter_map(|handle| lent(&handle));
            let idle: Vec<Row> = accounts(&live.clusters)
                .flat_map(|account| account.pools())
                .flat_map(|pool| pool.idle_targets())
                .map(|target| server("idle", &target, None))
                .collect();
            Box::new(lent.chain(idle))
        }
        Show::Pools => Box::new(pools(context, &live).into_iter()),
        Show::Databases => Box::new(databases(&live.config, &live.clusters).into_iter()),
        Show::Nodes => {
            Box::new(live.clusters.values().flat_map(|cluster| nodes(cluster)).collect::<Vec<_>>().into_iter())
        }
        Show::Users => {
            let modes = live
                .config
                .users
                .iter()
                .map(|(name, user)| vec![Value::from(name.as_str()), user.pool.mode.map(mode).into()]);
            Box::new(modes.collect::<Vec<_>>().into_iter())
        }
        Show::Lists => Box::new(lists(context).into_iter()),
        Show::Stats | Show::StatsTotals => Box::new(stats::stats(context).into_iter()),
        Show::Config => Box::new(stats::config(&live.config).into_iter()),
        Show::Version => Box::new(std::iter::once(vec![concat!("Pointsman ", env!("CARGO_PKG_VERSION")).into()])),
        Show::Help => Box::new(help().map(|(name, what)| vec![format!("SHOW {name}").into(), what.into()])),
    }
}

fn accounts(clusters: &BTreeMap<String, Arc<Cluster>>) -> impl Iterator<Item = Arc<Account>> {
    clusters.values().flat_map(|cluster| cluster.accounts())
}

fn client(handle: &Handle) -> Row {
    let Sight { state, transaction, pins, waits, target } = handle.sight();
    let who = &handle.who;
    let (address, port): (String, Value) = match &who.peer {
        Peer::Tcp(address) => (address.ip().to_string(), Value::from(u32::from(address.port()))),
        Peer::UnixClient { .. } | Peer::UnixServer(_) => ("unix".to_owned(), Value::Null),
    };
    let waits = waits.unwrap_or_default();
    vec![
        who.kind.into(),
        (&*who.user).into(),
        (&*who.database).into(),
        state.into(),
        transaction_word(transaction).into(),
        pins.join(", ").into(),
        address.into(),
        port,
        time(who.since).into(),
        waits.as_secs().into(),
        waits.subsec_micros().into(),
        pointer(who.id).into(),
        target.as_ref().map_or_else(String::new, |target| server_pointer(target)).into(),
        target.as_ref().map(|target| target.key.pid).into(),
        target.as_ref().map_or("", |target| target.connector.node()).into(),
        who.tls.unwrap_or_default().into(),
        who.application_name().into(),
        who.id.into(),
    ]
}

/// The server that a session has, if it has one.
fn lent(handle: &Handle) -> Option<Row> {
    let sight = handle.sight();
    Some(server(sight.state, sight.target.as_ref()?, Some(handle.who.id)))
}

fn server(state: &str, target: &CancelTarget, session: Option<u64>) -> Row {
    let connector = &target.connector;
    let (host, port) = connector.host_and_port();
    vec![
        "S".into(),
        connector.user().into(),
        connector.database().into(),
        state.into(),
        host.into(),
        port.map(u32::from).into(),
        time(target.since).into(),
        server_pointer(target).into(),
        session.map_or_else(String::new, pointer).into(),
        target.key.pid.into(),
        connector.node().into(),
    ]
}

/// Clients of a database and a user.
#[derive(Default)]
struct Clients {
    active: usize,
    waiting: usize,
    longest: Duration,
}

/// All nodes' pools of a database and a user are one row: tools know them by these two names. Clients are counted as SHOW CLIENTS
/// shows them, also those who are the first to come.
fn pools(context: &Context, live: &Live) -> Vec<Row> {
    let mut clients: BTreeMap<(String, String), Clients> = BTreeMap::new();
    for handle in context.cancels.all().iter().filter(|handle| handle.who.kind == "C") {
        let who = &handle.who;
        let count = clients.entry((who.database.to_string(), who.user.to_string())).or_default();
        match handle.sight().waits {
            Some(since) => (count.waiting, count.longest) = (count.waiting + 1, count.longest.max(since)),
            None => count.active += 1,
        }
    }
    let mut rows = Vec::new();
    let mut row = |database: &str, user: &str, clients: &Clients, servers: PoolCounts, nodes: usize, pool: &Pool| {
        let cluster = live.config.database(database).map_or("", |database| database.cluster.as_str());
        rows.push(vec![
            database.into(),
            user.into(),
            clients.active.into(),
            clients.waiting.into(),
            servers.open.saturating_sub(servers.idle + servers.opening).into(),
            servers.idle.into(),
            servers.opening.into(),
            clients.longest.as_secs().into(),
            clients.longest.subsec_micros().into(),
            mode(pool.mode).into(),
            pool.size.into(),
            pool.min_size.into(),
            pool.reserve_size.into(),
            nodes.into(),
            cluster.into(),
        ]);
    };
    for account in accounts(&live.clusters) {
        let who = (account.database.to_string(), account.user.to_string());
        let pools = account.counts();
        let servers = pools.iter().fold(PoolCounts::default(), |sum, (_, counts)| sum + *counts);
        let clients = clients.remove(&who).unwrap_or_default();
        let pool = Pool { mode: account.mode, ..(*account.pool_config()).clone() };
        row(&who.0, &who.1, &clients, servers, pools.len(), &pool);
    }
    for ((database, user), clients) in clients {
        row(&database, &user, &clients, PoolCounts::default(), 0, &live.config.pool_for(&database, &user));
    }
    rows.sort_by_key(|row| (text(&row[0]), text(&row[1])));
    rows
}

fn databases(config: &Config, clusters: &BTreeMap<String, Arc<Cluster>>) -> Vec<Row> {
    let rows = config.databases.iter().map(|(name, database)| {
        let pool = config.pool_for(name, "");
        let listed = |other: &str| config.databases.contains_key(other);
        let concerned = |account: &Account| *account.database == **name || (name == "*" && !listed(&account.database));
        let open: usize = accounts(clusters)
            .filter(|account| concerned(account))
            .flat_map(|account| account.pools())
            .map(|pool| pool.counts().open)
            .sum();
        let node = config.clusters.get(&database.cluster).and_then(|cluster| cluster.shards.first()?.nodes.first());
        let (host, port) = match node.map(|node| &node.address) {
            Some(crate::config::Address::Tcp { host, port }) => (host.clone(), Some(u32::from(*port))),
            Some(crate::config::Address::Unix { directory, port }) => {
                (directory.display().to_string(), Some(u32::from(*port)))
            }
            None => (String::new(), None),
        };
        vec![
            name.as_str().into(),
            host.into(),
            port.into(),
            database.dbname.as_deref().unwrap_or(name).into(),
            pool.size.into(),
            pool.min_size.into(),
            pool.reserve_size.into(),
            mode(pool.mode).into(),
            open.into(),
            database.cluster.as_str().into(),
        ]
    });
    rows.collect()
}

fn nodes(cluster: &Cluster) -> Vec<Row> {
    let row = |node: &Arc<Node>| {
        let shard = cluster.topology.shards().get(node.shard).map_or("", |shard| &*shard.name);
        let role = match node.role() {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Unknown => "unknown",
        };
        let standing = if node.standing() == Standing::Up { "up" } else { "ejected" };
        let lag = node.lag().filter(|_| node.role() == Role::Replica);
        vec![
            (&*cluster.name).into(),
            shard.into(),
            (&*node.spec.name).into(),
            role.into(),
            standing.into(),
            lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)).into(),
            node.spec.weight.into(),
            node.in_flight().into(),
            node.failures().into(),
        ]
    };
    cluster.topology.nodes().map(row).collect()
}

fn lists(context: &Context) -> Vec<Row> {
    let live = context.live.load_full();
    let accounts: Vec<_> = accounts(&live.clusters).collect();
    let idle: usize = accounts.iter().flat_map(|account| account.pools()).map(|pool| pool.counts().idle).sum();
    let sessions = context.cancels.states();
    let rows = [
        ("databases", live.config.databases.len()),
        ("users", live.config.users.len()),
        ("pools", accounts.len()),
        ("free_clients", sessions.idle),
        ("used_clients", sessions.total() - sessions.idle),
        ("login_clients", context.clients.load(Ordering::Relaxed).saturating_sub(sessions.total())),
        ("free_servers", idle),
        ("used_servers", context.budget.used().saturating_sub(idle)),
    ];
    rows.into_iter().map(|(list, items)| vec![list.into(), items.into()]).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(_) | Value::Null => String::new(),
    }
}

fn transaction_word(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Idle => "none",
        TransactionStatus::Active => "open",
        TransactionStatus::Failed => "failed",
    }
}

pub(super) const fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// As PgBouncer writes it: `2026-01-31 12:00:00 UTC`.
fn time(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string().replace('T', " ").replace('Z', " UTC")
}

/// Tells a session from others, as `ptr` and `link` of PgBouncer's tables do.
fn pointer(session: u64) -> String {
    format!("c{session}")
}

fn server_pointer(target: &CancelTarget) -> String {
    format!("s{}@{}", target.key.pid, target.connector.node())
}
