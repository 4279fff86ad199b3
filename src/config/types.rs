//! The checked configuration: what the rest of the gateway is handed.
//!
//! Invariant: a value of these types is complete (every default is filled in, every path is
//! resolved against the configuration file's directory, every secret is read) and consistent
//! (every name that is used is defined). Only [`super::parse`] makes one outside tests.
//!
//! Deliberately absent: how it is written (`raw.rs`), what is refused (`check/`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::address::Address;
use super::dump::{
    console_table, humantime_option, humantime_override, humantime_said, humantime_text, octal_text, size_text,
};
use super::secret::{Credential, Secret};

/// The whole configuration.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Config {
    /// What clients connect to.
    pub server: Server,
    /// The admin listener, if there is one.
    pub admin: Option<Admin>,
    /// The console's users and their passwords.
    #[serde(rename = "console", with = "console_table")]
    pub console_users: BTreeMap<String, Credential>,
    /// The policy folder and the bounds on policies.
    pub policies: Policies,
    /// Defaults of every pool; see [`Config::pool_for`].
    pub pool: Pool,
    /// Server connections of the whole process, over all pools and nodes.
    pub max_server_connections: usize,
    /// Logging.
    pub log: Log,
    /// Clusters by name; at least one.
    pub clusters: BTreeMap<String, Cluster>,
    /// Databases by the name that a client asks for; `*` stands for the rest. Never empty, and
    /// each one's cluster exists.
    pub databases: BTreeMap<String, Database>,
    /// The gateways that pass each other's cancel requests on.
    pub peers: Option<Peers>,
    /// Users by name. If empty, the password that a client gives is tried on the server;
    /// otherwise only these users are let in.
    pub users: BTreeMap<String, User>,
}

impl Config {
    /// The entry for the database that a client asks for: its own, else `*`.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }

    /// The pool settings for a database and a user: the user's word goes before the database's,
    /// the database's before `[pool]`.
    #[must_use]
    pub fn pool_for(&self, database: &str, user: &str) -> Pool {
        let mut pool = self.pool.clone();
        if let Some(database) = self.database(database) {
            database.pool.apply(&mut pool);
        }
        if let Some(user) = self.users.get(user) {
            user.pool.apply(&mut pool);
        }
        pool
    }
}

/// What clients connect to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Server {
    /// Where to listen; at least one. A TCP host may be a name.
    pub listen: Vec<Address>,
    /// Permission bits of the Unix socket files, as `chmod` takes them.
    #[serde(with = "octal_text")]
    pub unix_socket_mode: u32,
    /// TLS towards clients; `None` is `mode = "disable"`.
    pub tls: Option<ServerTls>,
    /// Worker threads; `None` is one for each core that the process may use.
    pub workers: Option<usize>,
    /// How the workers run.
    pub runtime: Runtime,
    /// From accept to the end of the log-in.
    #[serde(with = "humantime_text")]
    pub client_login_timeout: Duration,
    /// Clients at one time, those that are logging in included; the next gets 53300.
    pub max_clients: usize,
    /// How long SIGTERM waits for transactions in progress.
    #[serde(with = "humantime_text")]
    pub drain_timeout: Duration,
    /// Bytes of one client that are held before its statements can be routed (a pipeline without
    /// Sync, a deferred BEGIN); at the limit they go to the primary.
    #[serde(with = "size_text")]
    pub hold_limit: ByteSize,
    /// Keep-alive on client and server connections; `None` leaves it off.
    pub tcp_keepalive: Option<Keepalive>,
}

/// How the workers run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// One current-thread runtime for each worker; a session stays where it was accepted.
    PerCore,
    /// tokio's work-stealing runtime.
    MultiThread,
}

/// TLS towards clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerTls {
    /// Whether a client may stay in clear. Never says "disable": that is `None` in [`Server`].
    pub mode: ServerTlsMode,
    /// PEM chain, the server's certificate first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM authorities. If given, every TLS client must show a certificate that one of them signed.
    pub client_ca: Option<PathBuf>,
}

/// Whether a client may stay in clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerTlsMode {
    /// TLS if the client asks for it.
    Prefer,
    /// A TCP client that does not use TLS is refused; Unix sockets stay in clear.
    Require,
}

/// TCP keep-alive, as `tcp_keepalives_*` in PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Keepalive {
    /// Silence before the first probe.
    #[serde(with = "humantime_text")]
    pub idle: Duration,
    /// Between probes.
    #[serde(with = "humantime_text")]
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub count: u32,
}

/// The admin listener: metrics, health, API, dashboard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Admin {
    /// Where to listen: TCP only.
    pub listen: Address,
    /// The file that the token was read from.
    pub token_file: Option<PathBuf>,
    /// Its content without the final line break. Without one, only reading is allowed.
    pub token: Option<Secret>,
}

/// The policy folder and the bounds on policies.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Policies {
    /// The watched folder; `None` is the built-in policy alone.
    pub directory: Option<PathBuf>,
    /// What becomes of a statement whose policy trapped or overran.
    pub on_fault: OnFault,
    /// Longest run of one call into one policy.
    #[serde(with = "humantime_text")]
    pub deadline: Duration,
    /// Largest memory of one instance, tables included.
    #[serde(with = "size_text")]
    pub memory: ByteSize,
    /// Largest `.wasm` file that is read.
    #[serde(with = "size_text")]
    pub max_size: ByteSize,
    /// When a faulting generation is given up for the last good one.
    pub breaker: Breaker,
}

/// What becomes of a statement whose policy trapped or overran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// The client gets an error.
    Reject,
    /// The statement goes to the primary.
    Primary,
    /// The next link of the chain decides.
    Pass,
}

/// When a faulting generation is given up for the last good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Breaker {
    /// So many faults …
    pub faults: u32,
    /// … within this time.
    #[serde(with = "humantime_text")]
    pub window: Duration,
}

/// The gateways that pass each other's cancel requests on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Peers {
    /// This gateway's number: 1 to 1023.
    pub id: u32,
    /// Where the others listen, by number; this one's is not among them.
    pub nodes: BTreeMap<u32, Address>,
    /// TLS towards them.
    pub tls: UpstreamTls,
    /// For one request, from the connection to its end.
    #[serde(with = "humantime_text")]
    pub timeout: Duration,
}

/// One pool: the connections to one node for one (database, user).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pool {
    /// When a server connection goes back.
    pub mode: PoolMode,
    /// Most connections of the pool.
    pub size: usize,
    /// Connections that are kept open even when idle, once the pool was used.
    pub min_size: usize,
    /// Connections above `size` for those who waited long.
    pub reserve_size: usize,
    /// So long.
    #[serde(with = "humantime_text")]
    pub reserve_after: Duration,
    /// Idle connections above `min_size` are closed after this; `None` is never.
    #[serde(with = "humantime_option")]
    pub idle_timeout: Option<Duration>,
    /// A connection older than this is closed when it comes back; `None` is never.
    #[serde(with = "humantime_option")]
    pub lifetime: Option<Duration>,
    /// Longest wait for a connection; `None` waits as long as the client does.
    #[serde(with = "humantime_option")]
    pub query_wait: Option<Duration>,
    /// Most clients that wait; the next gets 53300 at once.
    pub max_queue: usize,
    /// Prepared statements kept on one server connection; the least recently used goes first.
    pub prepared_statements: usize,
    /// TCP, TLS and log-in on a server together.
    #[serde(with = "humantime_text")]
    pub connect_timeout: Duration,
}

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// When the transaction ends.
    Transaction,
    /// When the statement ends; transaction blocks are refused.
    Statement,
}

/// What a database or a user says differently from `[pool]`. The fields are [`Pool`]'s; the outer
/// `Option` is "says nothing".
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PoolOverrides {
    /// See [`Pool::mode`].
    pub mode: Option<PoolMode>,
    /// See [`Pool::size`].
    pub size: Option<usize>,
    /// See [`Pool::min_size`].
    pub min_size: Option<usize>,
    /// See [`Pool::reserve_size`].
    pub reserve_size: Option<usize>,
    /// See [`Pool::reserve_after`].
    #[serde(with = "humantime_said")]
    pub reserve_after: Option<Duration>,
    /// See [`Pool::idle_timeout`].
    #[serde(with = "humantime_override")]
    pub idle_timeout: Option<Option<Duration>>,
    /// See [`Pool::lifetime`].
    #[serde(with = "humantime_override")]
    pub lifetime: Option<Option<Duration>>,
    /// See [`Pool::query_wait`].
    #[serde(with = "humantime_override")]
    pub query_wait: Option<Option<Duration>>,
    /// See [`Pool::max_queue`].
    pub max_queue: Option<usize>,
    /// See [`Pool::prepared_statements`].
    pub prepared_statements: Option<usize>,
    /// See [`Pool::connect_timeout`].
    #[serde(with = "humantime_said")]
    pub connect_timeout: Option<Duration>,
}

impl PoolOverrides {
    /// Writes what is said here over `pool`.
    pub fn apply(&self, pool: &mut Pool) {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut pool.mode, self.mode);
        set(&mut pool.size, self.size);
        set(&mut pool.min_size, self.min_size);
        set(&mut pool.reserve_size, self.reserve_size);
        set(&mut pool.reserve_after, self.reserve_after);
        set(&mut pool.idle_timeout, self.idle_timeout);
        set(&mut pool.lifetime, self.lifetime);
        set(&mut pool.query_wait, self.query_wait);
        set(&mut pool.max_queue, self.max_queue);
        set(&mut pool.prepared_statements, self.prepared_statements);
        set(&mut pool.connect_timeout, self.connect_timeout);
    }
}

/// Logging.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Log {
    /// One line of text or one JSON object for each event.
    pub format: LogFormat,
    /// tracing's filter directives: `info`, `info,pointsman::wasm=debug`.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A cluster: one shard or several, each a primary with its replicas.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cluster {
    /// The shards in the order of the file; a plain cluster is one shard named after the cluster.
    pub shards: Vec<Shard>,
    /// TLS towards the servers.
    pub tls: UpstreamTls,
    /// How nodes are asked for their role, health and position.
    pub monitor: Monitor,
    /// Whether a session's reads wait for its own writes (DESIGN 4.2).
    pub read_your_writes: bool,
    /// A replica further behind takes no reads; `None` does not ask.
    #[serde(with = "humantime_option")]
    pub max_lag: Option<Duration>,
    /// When a node takes no more statements, and when it is tried again.
    pub ejection: Ejection,
}

/// One shard: the nodes that hold the same data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shard {
    /// Unique in the cluster.
    pub name: String,
    /// At least one; names are unique in the cluster; at most one has [`RoleSetting::Primary`].
    pub nodes: Vec<Node>,
}

/// One PostgreSQL server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Node {
    /// Unique in the cluster; the address as written if the configuration gives none.
    pub name: String,
    /// Where it listens; the port is never 0.
    pub address: Address,
    /// What the configuration says of its role.
    pub role: RoleSetting,
    /// Share of the reads among the nodes that may take them; 0 takes none while another may.
    pub weight: u32,
    /// Free labels that a policy can ask for.
    pub labels: BTreeMap<String, String>,
}

/// What the configuration says of a node's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleSetting {
    /// Ask the node (`pg_is_in_recovery`), and go on asking.
    Auto,
    /// The primary; until asked, it is believed.
    Primary,
    /// A replica; until asked, it is believed.
    Replica,
}

/// TLS towards the servers; libpq's `sslmode` without `allow`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UpstreamTls {
    /// What is asked of a server.
    pub mode: UpstreamTlsMode,
    /// PEM authorities; always there for `VerifyCa` and `VerifyFull`.
    pub ca: Option<PathBuf>,
    /// PEM client certificate and its key.
    pub client: Option<ClientCertificate>,
}

/// What is asked of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTlsMode {
    /// Never TLS.
    Disable,
    /// TLS if the server has it; the certificate is not checked.
    Prefer,
    /// TLS or no connection; the certificate is not checked unless `ca` is given.
    Require,
    /// The certificate must be signed by `ca`.
    VerifyCa,
    /// And it must bear the host's name.
    VerifyFull,
}

/// A client certificate that the gateway shows to servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClientCertificate {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// How nodes are asked for their role, health and position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Monitor {
    /// The account for it; without one, probes borrow pooled connections (DESIGN 4.16).
    pub account: Option<MonitorAccount>,
    /// Between two probes of a node.
    #[serde(with = "humantime_text")]
    pub interval: Duration,
    /// A probe that takes longer has failed.
    #[serde(with = "humantime_text")]
    pub timeout: Duration,
}

/// The account that probes use; it needs no rights beyond CONNECT.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MonitorAccount {
    /// Role name.
    pub user: String,
    /// Its password, if the servers ask for one.
    pub password: Option<Secret>,
    /// The database to connect to.
    pub database: String,
}

/// When a node takes no more statements, and when it is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Ejection {
    /// Failures in a row, of probes or connections.
    pub failures: u32,
    /// First time out; doubles with each return that fails.
    #[serde(with = "humantime_text")]
    pub back_off: Duration,
    /// Longest time out.
    #[serde(with = "humantime_text")]
    pub max_back_off: Duration,
}

/// What a client asks for by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Database {
    /// A key of [`Config::clusters`].
    pub cluster: String,
    /// Its name on the servers; `None` is the name that the client asks for.
    pub dbname: Option<String>,
    /// Its own chain, by policy name; `None` is the folder's, then the built-in one.
    pub policies: Option<Vec<String>>,
    /// What differs from `[pool]`.
    pub pool: PoolOverrides,
}

/// A user that the gateway knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct User {
    /// How the gateway checks the client and logs in on servers; `None` is trusted only from this
    /// host, and only where the servers trust as well.
    pub credential: Option<Credential>,
    /// What differs from the database's pool.
    pub pool: PoolOverrides,
}
