//! A primary and its streaming replicas, from nothing to running.
//!
//! The steps: `initdb`, start the primary, make the role and database `demo`, copy it to all replicas at once with
//! `pg_basebackup -R`, start those, wait until the primary sees every one streaming. About three seconds for two
//! replicas. Durability is off (`fsync`): these clusters are for trying and testing, never for keeping data.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::account::Account;
use super::install::Install;
use super::leftovers::{Home, NODES};
use super::node::{Node, run};
use super::{Error, Result, ports};

/// Settings that every server starts with. [`Builder::setting`] overrides them.
const SETTINGS: [(&str, &str); 21] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "300"),
    ("superuser_reserved_connections", "5"),
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_prepared_transactions", "20"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    // A replica that is down finds its WAL again through its slot, but not at the price of a full disk.
    ("max_slot_wal_keep_size", "1GB"),
    // A backup that is being taken has no slot.
    ("wal_keep_size", "128MB"),
    ("max_wal_size", "1GB"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("wal_receiver_status_interval", "1s"),
    ("synchronous_standby_names", ""),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "64MB"),
    ("password_encryption", "scram-sha-256"),
    ("jit", "off"),
    ("log_line_prefix", "%m [%p] %q%u@%d/%a "),
];
/// Who may log in, after the caller's own lines: all from loopback and the Unix socket, unasked.
const HBA: &str = "local all all trust\nlocal replication all trust\n\
    host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
/// The longest path that a Unix socket's address holds, less the socket's own name (`/.s.PGSQL.65535.lock`).
const SOCKET_DIRECTORY_MAX: usize = 107 - 21;
/// How often other ports are tried when someone took the free ones first.
const PORT_ATTEMPTS: usize = 5;
/// How long the replicas may take to stream.
const STREAMING_DEADLINE: Duration = Duration::from_secs(60);

/// What the start of a cluster has reached. Prints as a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// `initdb` runs, with the programs of this directory.
    Initializing(PathBuf),
    /// The primary takes connections on this port.
    Primary(u16),
    /// This many replicas are being copied from the primary.
    Copying(u16),
    /// The named replica takes connections on this port.
    Replica(String, u16),
    /// All replicas stream from the primary.
    Streaming,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initializing(program) => write!(out, "making a database cluster with {}", program.display()),
            Self::Primary(port) => write!(out, "primary is up on port {port}"),
            Self::Copying(1) => write!(out, "copying the primary to 1 replica"),
            Self::Copying(count) => write!(out, "copying the primary to {count} replicas"),
            Self::Replica(name, port) => write!(out, "replica {name} is up on port {port}"),
            Self::Streaming => write!(out, "replicas are streaming"),
        }
    }
}

/// What a cluster shall be like. Made by [`Cluster::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    directory: Option<PathBuf>,
    replicas: u16,
    base_port: Option<u16>,
    settings: BTreeMap<String, String>,
    hba: String,
    tls: Option<(String, String)>,
    sql: String,
}

impl Builder {
    /// Where data and logs lie, below `nodes/`. Without it, in a temporary directory. It may hold other files.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// How many replicas there are. Default 2.
    #[must_use]
    pub fn replicas(mut self, count: u16) -> Self {
        self.replicas = count;
        self
    }

    /// The primary's port; replica n has the nth after it. Without it, free ports are found.
    #[must_use]
    pub fn base_port(mut self, port: u16) -> Self {
        self.base_port = Some(port);
        self
    }

    /// A line for all nodes' `postgresql.conf`; the value is quoted here.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// A line for all nodes' `pg_hba.conf`, before those that trust loopback: `host all scram_user all scram-sha-256`.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        let _ = writeln!(self.hba, "{line}");
        self
    }

    /// A certificate and its key (PEM): the servers then offer TLS.
    #[must_use]
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// SQL for the superuser in the database `postgres`, run on the primary before it is copied.
    #[must_use]
    pub fn sql(mut self, sql: &str) -> Self {
        let _ = writeln!(self.sql, "{sql}");
        self
    }

    /// Starts the cluster and waits until it is ready; `progress` hears of each step. Blocks for seconds.
    ///
    /// # Errors
    /// Whatever [`Error`] names; what was started is stopped and removed.
    pub fn start(self, mut progress: impl FnMut(&Step)) -> Result<Cluster> {
        let install = Install::find()?;
        let account = Account::choose()?;
        let home = Home::take(self.directory.as_deref())?;
        if let Some(first) = self.base_port {
            let busy = (0..=self.replicas).map(|n| first.saturating_add(n)).find(|port| !ports::is_free(*port));
            if let Some(port) = busy {
                return Err(Error::PortBusy { port });
            }
        }
        let nodes = home.path().join(NODES);
        home.open_to_others()?;
        account.own(&nodes)?;
        account.can_reach(&nodes)?;
        let plan = Plan { spec: &self, install: &install, account: &account, nodes: &nodes };

        progress(&Step::Initializing(install.program("initdb")));
        plan.initialize()?;
        let primary = plan.launch("primary", 0)?;
        progress(&Step::Primary(primary.port()));
        primary.psql("postgres", "CREATE ROLE demo LOGIN CREATEDB")?;
        primary.psql("postgres", "CREATE DATABASE demo OWNER demo")?;
        if !self.sql.is_empty() {
            primary.psql("postgres", &self.sql)?;
        }

        let mut cluster = Cluster { nodes: vec![primary], home };
        if self.replicas > 0 {
            progress(&Step::Copying(self.replicas));
            let source = cluster.nodes[0].port();
            let started: Vec<Result<Node>> = std::thread::scope(|scope| {
                let copies: Vec<_> =
                    (1..=self.replicas).map(|n| scope.spawn(move || plan.replica(n, source))).collect();
                // A panic in a copy is a bug of ours and goes on as one.
                copies
                    .into_iter()
                    .map(|copy| copy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            });
            for node in started {
                let node = node?;
                progress(&Step::Replica(node.name().to_owned(), node.port()));
                cluster.nodes.push(node);
            }
            cluster.wait_streaming(0, usize::from(self.replicas))?;
            progress(&Step::Streaming);
        }
        Ok(cluster)
    }
}

/// A running cluster. Dropping it stops the servers and removes their data.
#[derive(Debug)]
pub struct Cluster {
    // Before `home`: the servers stop first, then their directory goes.
    nodes: Vec<Node>,
    home: Home,
}

impl Cluster {
    /// A cluster with two replicas in a temporary directory on free ports, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            directory: None,
            replicas: 2,
            base_port: None,
            settings: BTreeMap::new(),
            hba: String::new(),
            tls: None,
            sql: String::new(),
        }
    }

    /// All nodes: the first primary, then the replicas.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that began as the primary.
    #[must_use]
    pub fn primary(&self) -> &Node {
        &self.nodes[0]
    }

    /// The nodes that began as replicas.
    #[must_use]
    pub fn replicas(&self) -> &[Node] {
        &self.nodes[1..]
    }

    /// The cluster's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The directory of the servers' Unix sockets, unless its path is too long for one.
    #[must_use]
    pub fn socket_directory(&self) -> Option<PathBuf> {
        socket_directory(&self.home.path().join(NODES))
    }

    /// Makes node `index` a primary and waits until it is.
    ///
    /// # Errors
    /// When the node is not a standby or is not promoted within a minute.
    pub fn promote(&self, index: usize) -> Result<()> {
        let promoted = self.nodes[index].psql("postgres", "SELECT pg_promote(true, 60)")?;
        if promoted == "t" {
            return Ok(());
        }
        Err(Error::Deadline { what: format!("the promotion of {}", self.nodes[index].name()), seconds: 60 })
    }

    /// Lets the standby `index` stream from node `source` (after a promotion) and waits until it does.
    ///
    /// # Errors
    /// When psql fails or the standby does not stream within a minute.
    pub fn follow(&self, index: usize, source: usize) -> Result<()> {
        let (standby, source_node) = (&self.nodes[index], &self.nodes[source]);
        let conninfo =
            format!("host=127.0.0.1 port={} user=postgres application_name={}", source_node.port(), standby.name());
        standby.psql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'"))?;
        standby.psql("postgres", "ALTER SYSTEM SET primary_slot_name = ''")?;
        standby.psql("postgres", "SELECT pg_reload_conf()")?;
        let query = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '{}'",
            standby.name()
        );
        wait_for(&format!("{} to stream from {}", standby.name(), source_node.name()), || {
            Ok(source_node.psql("postgres", &query)? == "1")
        })
    }

    /// Waits until `count` standbys stream from node `source`.
    ///
    /// # Errors
    /// [`Error::Deadline`] after a minute, or psql's error.
    pub fn wait_streaming(&self, source: usize, count: usize) -> Result<()> {
        let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        wait_for("the replicas to stream", || Ok(self.nodes[source].psql("postgres", query)? == count.to_string()))
    }

    /// Waits until every running replica has replayed all that the primary has written by now.
    ///
    /// # Errors
    /// [`Error::Deadline`] after a minute, or psql's error.
    pub fn wait_replayed(&self) -> Result<()> {
        let position = self.primary().psql("postgres", "SELECT pg_current_wal_lsn()")?;
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        for replica in self.replicas().iter().filter(|replica| replica.pid().is_some()) {
            wait_for("the replicas to replay", || Ok(replica.psql("postgres", &query)? == "t"))?;
        }
        Ok(())
    }
}

/// What making a node needs.
#[derive(Clone, Copy)]
struct Plan<'a> {
    spec: &'a Builder,
    install: &'a Install,
    account: &'a Account,
    nodes: &'a Path,
}

impl Plan<'_> {
    /// Makes the primary's data directory.
    fn initialize(&self) -> Result<()> {
        let mut initdb = self.account.command(&self.install.program("initdb"), self.nodes);
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        run(initdb.arg(self.nodes.join("primary")))?;
        let data = self.nodes.join("primary");
        append(&data.join("postgresql.conf"), "\ninclude 'pointsman.conf'\n")?;
        self.write(&data.join("pg_hba.conf"), &format!("{}{HBA}", self.spec.hba), 0o600)?;
        if let Some((certificate, key)) = &self.spec.tls {
            self.write(&data.join("server.crt"), certificate, 0o600)?;
            self.write(&data.join("server.key"), key, 0o600)?;
        }
        Ok(())
    }

    /// Copies the primary on port `source` to replica `n` and starts it.
    fn replica(&self, n: u16, source: u16) -> Result<Node> {
        let name = format!("r{n}");
        let conninfo = format!("host=127.0.0.1 port={source} user=postgres application_name={name}");
        let mut backup = self.account.command(&self.install.program("pg_basebackup"), self.nodes);
        backup.args(["-R", "-C", "-S", &name, "-X", "stream", "-c", "fast", "--no-sync", "-d", &conninfo, "-D"]);
        run(backup.arg(self.nodes.join(&name)))?;
        self.launch(&name, n)
    }

    /// Starts a node whose data directory exists, on its fixed port or a free one.
    fn launch(&self, name: &str, n: u16) -> Result<Node> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = match self.spec.base_port {
                Some(first) => first.saturating_add(n),
                None => ports::free_ports(1)?,
            };
            let node = Node::new(name.into(), self.nodes, port, self.install.clone(), self.account.clone());
            self.write(&node.data.join("pointsman.conf"), &self.configuration(name, port), 0o600)?;
            match node.start() {
                Ok(()) => return Ok(node),
                Err(Error::NotReady { log, .. }) if log.contains("Address already in use") => {
                    if self.spec.base_port.is_some() || attempt == PORT_ATTEMPTS {
                        return Err(Error::PortBusy { port });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn configuration(&self, name: &str, port: u16) -> String {
        let sockets = socket_directory(self.nodes).unwrap_or_default();
        let mut settings: BTreeMap<&str, &str> = SETTINGS.into_iter().collect();
        let (port, sockets) = (port.to_string(), sockets.display().to_string());
        settings.extend([("port", port.as_str()), ("unix_socket_directories", &sockets), ("cluster_name", name)]);
        if self.spec.tls.is_some() {
            settings.insert("ssl", "on");
        }
        settings.extend(self.spec.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        settings.into_iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
            text
        })
    }

    /// Writes a file that PostgreSQL's account owns.
    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let failed = || Error::io(format!("cannot write {}", path.display()));
        std::fs::write(path, text).map_err(failed())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed())?;
        self.account.own(path)
    }
}

fn socket_directory(nodes: &Path) -> Option<PathBuf> {
    (nodes.as_os_str().len() <= SOCKET_DIRECTORY_MAX).then(|| nodes.to_owned())
}

fn append(path: &Path, text: &str) -> Result<()> {
    std::fs::File::options()
        .append(true)
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(Error::io(format!("cannot write {}", path.display())))
}

/// Asks until the answer is yes.
fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > STREAMING_DEADLINE {
            return Err(Error::Deadline { what: what.into(), seconds: STREAMING_DEADLINE.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_lives_loses_a_replica_promotes_and_leaves_nothing() {
        let mut steps = Vec::new();
        let cluster = Cluster::builder()
            .setting("work_mem", "5MB")
            .sql("CREATE TABLE public.seen (n int); INSERT INTO seen VALUES (1)")
            .start(|step| steps.push(step.clone()))
            .unwrap();
        assert_eq!(steps.last(), Some(&Step::Streaming));
        assert_eq!(cluster.primary().psql("demo", "SHOW work_mem").unwrap(), "5MB");
        assert_eq!(cluster.primary().psql("demo", "SHOW wal_level").unwrap(), "logical");

        let replica = &cluster.replicas()[1];
        assert_eq!(replica.psql("postgres", "SELECT n, pg_is_in_recovery() FROM seen").unwrap(), "1|t");
        assert_eq!(replica.psql("postgres", "SHOW cluster_name").unwrap(), "r2");

        replica.kill().unwrap();
        assert_eq!(replica.pid(), None);
        cluster.primary().psql("postgres", "INSERT INTO seen VALUES (2)").unwrap();
        replica.start().unwrap();
        cluster.wait_streaming(0, 2).unwrap();
        cluster.wait_replayed().unwrap();
        assert_eq!(replica.psql("postgres", "SELECT count(*) FROM seen").unwrap(), "2");

        cluster.primary().stop_at_once().unwrap();
        cluster.promote(1).unwrap();
        cluster.follow(2, 1).unwrap();
        cluster.nodes()[1].psql("postgres", "INSERT INTO seen VALUES (3)").unwrap();

        let directory = cluster.directory().to_owned();
        let ports: Vec<u16> = cluster.nodes().iter().map(Node::port).collect();
        drop(cluster);
        assert!(!directory.exists());
        assert!(ports.into_iter().all(ports::is_free));
    }

    #[test]
    fn a_busy_port_is_named() {
        let first = ports::free_ports(2).unwrap();
        let _taken = std::net::TcpListener::bind(("127.0.0.1", first + 1)).unwrap();
        let refused = Cluster::builder().replicas(1).base_port(first).start(|_| {}).unwrap_err();
        assert!(matches!(refused, Error::PortBusy { port } if port == first + 1), "{refused}");
    }
}
