//! The configuration as it is written. The doc comments here are the reference that users read.
//!
//! Invariant: every key that exists is declared here and nowhere else. Deliberately absent: what
//! keys mean together (`check/`), and keys that are planned; those are named under `later`, so that
//! whoever writes one is told what to write instead.

use toml::Spanned;
use toml::de::DeValue;

use super::decode::{Field, List, Map, OneOrMany, Raw, Reader, table};
use super::leaves::{ClientTlsMode, Count, Permissions, RawSecret, Size, Text, Time, TimeOrOff};
use super::shape::{FieldShape, Shape, TableShape, doc};
use super::types::{LogFormat, OnFault, PoolMode, RoleSetting, Runtime, UpstreamTlsMode};

table! {
    /// Pointsman's configuration. The smallest one is a cluster with a primary.
    RawConfig {
        /// What clients connect to.
        server: RawServer,
        /// The admin listener: metrics, health, API. Without this table there is none.
        admin: RawAdmin,
        /// The console: a database named `pointsman`, or `pgbouncer`, that shows what goes on, unless `[databases]` lists one of that
        /// name. `psql -h SOCKET_DIRECTORY -p 6432 pointsman -c "SHOW HELP"`. Without this table only processes of the gateway's
        /// own system user, or root's, come in, through its Unix socket.
        console: RawConsole,
        /// Routing policies and the bounds on them.
        policies: RawPolicies,
        /// Defaults of every pool. A pool is the set of connections to one server for one database
        /// and one user. `[databases.NAME]` and `[users.NAME]` may say otherwise under `pool`.
        pool: RawPool,
        /// The log, written to standard error.
        log: RawLog,
        /// The PostgreSQL clusters, by names that you choose; at least one.
        clusters: Map<RawCluster>,
        /// What clients may ask for by database name; `"*"` stands for the names that are not listed, and `replication` for
        /// physical replication, which names none.
        /// With one cluster and no databases, every name leads to that cluster.
        databases: Map<RawDatabase>,
        /// Gateways behind one load balancer, which pass each other's cancel requests on.
        peers: RawPeers,
        /// The users that the gateway lets in. Without any, the gateway tries the password that a client gives
        /// on the server, and asks for it only over TLS or from the same host.
        users: Map<RawUser>,
    }
    later {
        "auth_query" => "list the users under [users], or leave [users] out: passwords are then tried on the server",
    }
}

table! {
    /// What clients connect to.
    RawServer {
        /// Where to listen: `HOST:PORT`, or a directory for a Unix socket, where the file is
        /// `.s.PGSQL.PORT` with the first TCP port. One or a list.
        listen: OneOrMany<Text>,
        /// Permissions of the Unix socket files.
        unix_socket_mode: Permissions = "0777",
        /// TLS towards clients.
        tls: RawServerTls,
        /// Worker threads. Default: one for each core that the process may use.
        workers: Count<1, 1024>,
        /// How the workers run.
        runtime: Runtime = "per-core",
        /// Longest time from the connection to the end of the log-in.
        client_login_timeout: Time = "60s",
        /// Most clients at one time; the next is refused with SQLSTATE 53300.
        max_clients: Count<1, 1_000_000> = "10000",
        /// Most server connections of the whole gateway, over all pools and servers. Where they do not suffice, users at work come to
        /// have equally many, as their connections come back; a user without any gets one in turn.
        max_server_connections: Count<1, 1_000_000> = "1000",
        /// How long SIGTERM waits for transactions in progress before it cuts them.
        drain_timeout: Time = "30s",
        /// Bytes of one client that are held while its statements cannot be routed yet (a pipeline without its Sync);
        /// past it they go to the primary.
        hold_limit: Size = "64KiB",
        /// TCP keep-alive towards clients and servers.
        tcp_keepalive: RawKeepalive,
    }
    later {
        "proxy_protocol" => "leave it out; clients behind a TCP load balancer appear with its address",
    }
}

table! {
    /// TLS towards clients. The files are PEM.
    RawServerTls {
        /// Whether clients must use it.
        mode: ClientTlsMode = "prefer",
        /// The certificate chain, the server's own first.
        cert: Text,
        /// The private key.
        key: Text,
        /// Authorities for client certificates. If given, a TLS client without a certificate from one of them is refused.
        client_ca: Text,
    }
}

table! {
    /// TCP keep-alive.
    RawKeepalive {
        /// Silence before the first probe; `"off"` for none.
        idle: TimeOrOff = "60s",
        /// Time between probes.
        interval: Time = "10s",
        /// Unanswered probes before the connection is given up.
        count: Count<1, 127> = "6",
    }
}

table! {
    /// The admin listener.
    RawAdmin {
        /// `HOST:PORT`.
        listen: Text = "127.0.0.1:9632",
        /// A file that holds the token which commands must bring. Without one, only reading is allowed.
        token_file: Text,
    }
}

table! {
    /// The console.
    RawConsole {
        /// Who may use it from anywhere, with a password. They need not be users of the servers.
        users: Map<RawConsoleUser>,
    }
}

table! {
    /// A user of the console.
    RawConsoleUser {
        /// The password, a SCRAM verifier (`SCRAM-SHA-256$…`) or an md5 hash (`md5…`); as a text, `{ env = "NAME" }` or `{ file = "PATH" }`.
        password: RawSecret,
    }
}

table! {
    /// Routing policies.
    RawPolicies {
        /// The watched folder: each `*.wasm` in it is a link of the chain, in the order of the file names.
        /// Default: none, and the built-in `read-write-split` alone.
        directory: Text,
        /// What becomes of a statement whose policy trapped or overran.
        on_fault: OnFault = "reject",
        /// Longest run of one policy for one statement.
        deadline: Time = "2ms",
        /// Most memory of one instance of a policy.
        memory: Size = "16MiB",
        /// Largest `.wasm` file that is taken.
        max_size: Size = "32MiB",
        /// When a faulting policy is given up for its last good version.
        breaker: RawBreaker,
    }
}

table! {
    /// When a faulting policy is given up for its last good version.
    RawBreaker {
        /// So many faults …
        faults: Count<1, 1_000_000> = "3",
        /// … within this time.
        window: Time = "60s",
    }
}

table! {
    /// One pool: the connections to one server for one database and one user.
    RawPool {
        /// When a server connection goes back to the pool.
        mode: PoolMode = "transaction",
        /// Most connections of one pool.
        size: Count<1, 100_000> = "20",
        /// Connections kept open even when idle, once the pool was used; those that are missing are opened ahead, within about a
        /// second, and more and more rarely where the server refuses them.
        min_size: Count<0, 100_000> = "0",
        /// Connections above `size`, opened one by one for those who have waited for `reserve_after`, and closed when nobody waits.
        reserve_size: Count<0, 100_000> = "0",
        /// See `reserve_size`.
        reserve_after: Time = "5s",
        /// An idle connection is closed after this; one to `template0` or `template1` within two seconds, and one to a
        /// database before a statement drops, renames or copies it.
        idle_timeout: TimeOrOff = "10m",
        /// A connection older than this is closed when it comes back.
        lifetime: TimeOrOff = "1h",
        /// Longest wait for a server connection.
        query_wait: TimeOrOff = "120s",
        /// Most clients that wait for one pool; the next gets SQLSTATE 53300 at once.
        max_queue: Count<0, 1_000_000> = "10000",
        /// Prepared statements kept on one server connection; the least recently used is closed first.
        prepared_statements: Count<1, 100_000> = "200",
        /// Longest time to connect to a server and log in.
        connect_timeout: Time = "15s",
    }
}

table! {
    /// Several gateways behind one TCP load balancer, or one name: a client's cancel request may reach another gateway than the
    /// one that runs its statement. With this table each key that a client is given names its gateway, and a request for
    /// another's session is passed on there, once. At most 64 are on their way at a time; further ones wait.
    RawPeers {
        /// This gateway's number among its peers.
        id: Count<1, 1023>,
        /// The others' addresses by their numbers: `2 = "10.0.0.2:6432"`. This gateway's own may stand among them.
        nodes: Map<Text>,
        /// TLS towards them.
        tls: RawUpstreamTls,
        /// Longest time for passing one request on; after it the request is given up.
        timeout: Time = "5s",
    }
}

table! {
    /// The log.
    RawLog {
        /// Its form.
        format: LogFormat = "text",
        /// A level (error, warn, info, debug, trace, off), also by module: `"info,pointsman::wasm=debug"`.
        /// The environment variable `POINTSMAN_LOG` goes before it.
        level: Text = "info",
    }
}

table! {
    /// A cluster: a primary and its replicas, written in one of three ways: `primary` and `replicas`, or `nodes`, or `shards`.
    RawCluster {
        /// The primary: an address, or a table.
        primary: NodeSpec,
        /// The replicas: a list of addresses or tables, or a template for several.
        replicas: Replicas,
        /// All servers in one list, where the gateway finds out who is the primary.
        nodes: List<NodeSpec>,
        /// The shards, each with its own `primary` and `replicas`, or `nodes`.
        shards: List<RawShard>,
        /// TLS towards the servers.
        tls: RawUpstreamTls,
        /// How the servers are asked for their role, health and position.
        monitor: RawMonitor,
        /// After a session has written, its reads go to the primary until a replica has caught up with the write.
        read_your_writes: bool = "true",
        /// A replica that is further behind takes no reads. Default: none is refused for lag.
        max_lag: TimeOrOff = "off",
        /// When a failing server is left out, and for how long.
        ejection: RawEjection,
    }
    later {
        "discovery" => "list the servers with `primary` and `replicas`, or with `nodes`",
        "auth_query" => "list the users under [users], or leave [users] out: passwords are then tried on the server",
    }
}

table! {
    /// One shard of a cluster.
    RawShard {
        /// Its name, for policies.
        name: Text,
        /// The primary: an address, or a table.
        primary: NodeSpec,
        /// The replicas: a list of addresses or tables, or a template for several.
        replicas: Replicas,
        /// All servers of the shard in one list, where the gateway finds out who is the primary.
        nodes: List<NodeSpec>,
    }
    later {
        "discovery" => "list the servers with `primary` and `replicas`, or with `nodes`",
    }
}

table! {
    /// One server.
    RawNode {
        /// `HOST:PORT`, `HOST` (port 5432), or the directory of a Unix socket, with `:PORT` if it is not 5432.
        address: Text,
        /// Its name in logs, metrics and policies. Default: the address.
        name: Text,
        /// Its role, under `nodes` only. Default there: `"auto"`.
        role: RoleSetting,
        /// Its share of the reads among the servers that may take them; 0 takes none while another may.
        weight: Count<0, 10_000> = "1",
        /// Labels that a policy can ask for, such as `{ zone = "a" }`.
        labels: Map<Text>,
    }
}

table! {
    /// Several replicas alike.
    RawTemplate {
        /// How many.
        count: Count<0, 1000>,
        /// Their addresses, where `{n}` is 1, 2, … `count`.
        address: Text,
        /// Their names, with `{n}`. Default: the addresses.
        name: Text,
        /// The share of the reads of each.
        weight: Count<0, 10_000> = "1",
        /// Labels of each.
        labels: Map<Text>,
    }
}

table! {
    /// TLS towards the servers, as libpq's `sslmode`. The files are PEM.
    RawUpstreamTls {
        /// What is asked of a server.
        mode: UpstreamTlsMode = "prefer",
        /// The authorities that may have signed its certificate.
        ca: Text,
        /// A certificate that the gateway shows; needs `key`.
        cert: Text,
        /// Its private key.
        key: Text,
    }
}

table! {
    /// How the servers are asked for their role, health and position.
    RawMonitor {
        /// The account for it; it needs no rights but CONNECT. Default: probes borrow the clients' connections.
        user: Text,
        /// Its password.
        password: RawSecret,
        /// The database to connect to.
        database: Text = "postgres",
        /// Time between two questions to one server.
        interval: Time = "1s",
        /// An answer that takes longer counts as a failure.
        timeout: Time = "5s",
    }
}

table! {
    /// When a failing server is left out, and for how long.
    RawEjection {
        /// Failures in a row.
        failures: Count<1, 1000> = "3",
        /// The first time out; it doubles with each return that fails.
        back_off: Time = "1s",
        /// The longest time out.
        max_back_off: Time = "60s",
    }
}

table! {
    /// A database as clients name it.
    RawDatabase {
        /// The cluster it lives on. May be left out if there is only one.
        cluster: Text,
        /// Its name on the servers. Default: the name that the client asks for.
        dbname: Text,
        /// Its own chain of policies, by name. Default: the folder's in the order of their names, then `read-write-split`.
        policies: List<Text>,
        /// What differs from `[pool]`.
        pool: RawPool,
    }
}

table! {
    /// A user that the gateway lets in.
    RawUser {
        /// The password, a SCRAM verifier (`SCRAM-SHA-256$…`) or an md5 hash (`md5…`); as a text, `{ env = "NAME" }` or `{ file = "PATH" }`.
        /// Without one the user gets in only from this host, and only where the servers trust it.
        password: RawSecret,
        /// What differs from the database's pool.
        pool: RawPool,
    }
}

/// A node as an address or as a table.
#[derive(Clone, Debug)]
pub(super) enum NodeSpec {
    Address(Text),
    Table(Box<RawNode>),
}

impl Raw for NodeSpec {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(_) => Text::read(value, reader).map(Self::Address),
            DeValue::Table(_) => RawNode::read(value, reader).map(|node| Self::Table(Box::new(node))),
            _ => {
                reader.unexpected(value, &Self::shape());
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Either(vec![Text::shape(), RawNode::shape()])
    }
}

/// Replicas as a list or as a template.
#[derive(Clone, Debug)]
pub(super) enum Replicas {
    Listed(List<NodeSpec>),
    Template(Box<RawTemplate>),
}

impl Raw for Replicas {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => List::read(value, reader).map(Self::Listed),
            DeValue::Table(_) => RawTemplate::read(value, reader).map(|template| Self::Template(Box::new(template))),
            _ => {
                reader.unexpected(value, &Self::shape());
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Either(vec![List::<NodeSpec>::shape(), RawTemplate::shape()])
    }
}
