//! The real binary with a configuration made for one test.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::demo::{Cluster, free_ports};
use tempfile::TempDir;

use super::{cluster, direct, eventually, succeed, tool};

/// How long a gateway may take to become ready, or to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// The table that names the folder of [`Setup::policy`].
pub(crate) const POLICIES: &str = "[policies]\ndirectory = \"policies\"\n";

/// A gateway's configuration, by the parts that tests change.
pub(crate) struct Setup<'a> {
    cluster: &'a Cluster,
    server: String,
    socket: bool,
    pool: String,
    main: String,
    more: String,
    weights: [u32; 2],
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(String, String)>,
}

impl<'a> Setup<'a> {
    /// Lines of `[server]`.
    pub(crate) fn server(mut self, lines: &str) -> Self {
        let _ = writeln!(self.server, "{lines}");
        self
    }

    /// Listens on a Unix socket as well, in the configuration's folder.
    pub(crate) fn socket(mut self) -> Self {
        self.socket = true;
        self
    }

    /// Lines of `[pool]`.
    pub(crate) fn pool(mut self, lines: &str) -> Self {
        let _ = writeln!(self.pool, "{lines}");
        self
    }

    /// Lines of `[clusters.main]`.
    pub(crate) fn main(mut self, lines: &str) -> Self {
        let _ = writeln!(self.main, "{lines}");
        self
    }

    /// Further tables.
    pub(crate) fn more(mut self, lines: &str) -> Self {
        let _ = writeln!(self.more, "{lines}");
        self
    }

    /// The replicas' weights.
    pub(crate) fn weights(mut self, r1: u32, r2: u32) -> Self {
        self.weights = [r1, r2];
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// As [`Setup::file`], of any content.
    pub(crate) fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.files.push((name.into(), bytes.into()));
        self
    }

    /// A symbolic link beside the configuration.
    pub(crate) fn link(mut self, name: &str, target: &str) -> Self {
        self.links.push((name.into(), target.into()));
        self
    }

    /// A policy in the watched folder, which `more` must name: [`POLICIES`].
    pub(crate) fn policy(mut self, name: &str, bytes: &[u8]) -> Self {
        self.files.push((format!("policies/{name}.wasm"), bytes.into()));
        self
    }

    fn text(&self, port: u16) -> String {
        let node = |index: usize, more: &str| {
            let node = &self.cluster.nodes()[index];
            format!("{{ name = \"{}\", address = \"{}\"{more} }}", node.name(), node.address())
        };
        let replicas: Vec<String> = (1..self.cluster.nodes().len())
            .map(|index| node(index, &format!(", weight = {}", self.weights.get(index - 1).unwrap_or(&1))))
            .collect();
        format!(
            "[server]\nlisten = [\"127.0.0.1:{port}\"{}]\ndrain_timeout = \"2s\"\n{}\n\
             [admin]\nlisten = \"127.0.0.1:{}\"\n\n[pool]\n{}\n\
             [clusters.main]\nprimary = {}\nreplicas = [{}]\n{}\n\
             [clusters.main.monitor]\nuser = \"postgres\"\ninterval = \"200ms\"\n\n{}",
            if self.socket { ", \".\"" } else { "" },
            self.server,
            port + 1,
            self.pool,
            node(0, ""),
            replicas.join(", "),
            self.main,
            self.more,
        )
    }

    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway<'a> {
        self.start_until("/readyz")
    }

    /// Starts a gateway that will not find its servers: it lives, but is not ready.
    #[track_caller]
    pub(crate) fn start_without_servers(self) -> Gateway<'a> {
        self.start_until("/healthz")
    }

    #[track_caller]
    fn start_until(self, path: &str) -> Gateway<'a> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in &self.files {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().expect("it lies in the directory")).unwrap();
            std::fs::write(file, text).unwrap();
        }
        for (name, target) in &self.links {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().expect("it lies in the directory")).unwrap();
            std::os::unix::fs::symlink(target, file).unwrap();
        }
        if direct() {
            let port = self.cluster.primary().port();
            return Gateway { cluster: self.cluster, process: None, port, admin_port: 0, directory };
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = free_ports(2).unwrap();
            let file = directory.path().join("pointsman.toml");
            std::fs::write(&file, self.text(port)).unwrap();
            let log = directory.path().join("log");
            let mut process = spawn(&file, &log);
            match wait_ready(&mut process, port + 1, path, &log) {
                Ok(()) => {
                    let process = Some(process);
                    return Gateway { cluster: self.cluster, process, port, admin_port: port + 1, directory };
                }
                // Between the search for ports and the start someone else took one.
                Err(log) if attempts < 5 && log.contains("in use") => {}
                Err(log) => panic!("the gateway did not start:\n{log}\nits configuration:\n{}", self.text(port)),
            }
        }
    }
}

/// A running gateway. Dropping it kills it; a test that fails shows its log.
pub(crate) struct Gateway<'a> {
    pub(crate) cluster: &'a Cluster,
    process: Option<Child>,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) directory: TempDir,
}

impl Gateway<'static> {
    /// In front of the shared cluster.
    pub(crate) fn setup() -> Setup<'static> {
        Gateway::in_front_of(cluster())
    }

    /// In front of the shared cluster, with nothing special.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::setup().start()
    }
}

impl<'a> Gateway<'a> {
    /// In front of a cluster of the test's own.
    pub(crate) fn in_front_of(cluster: &'a Cluster) -> Setup<'a> {
        Setup {
            cluster,
            server: String::new(),
            socket: false,
            pool: String::new(),
            main: String::new(),
            more: String::new(),
            weights: [1, 1],
            files: Vec::new(),
            links: Vec::new(),
        }
    }

    /// A connection string for user `demo`.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_for("demo", database)
    }

    /// A connection string.
    pub(crate) fn url_for(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// psql that stops at the first error and prints bare rows.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = tool("psql");
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", &self.url(database)]);
        command
    }

    /// What `sql` gives, as user `demo`.
    #[track_caller]
    pub(crate) fn query(&self, database: &str, sql: &str) -> String {
        succeed(self.psql(database).args(["-c", sql]))
    }

    /// Waits until both replicas answer the reads of new sessions: they have what was defined before, and the gateway knows.
    #[track_caller]
    pub(crate) fn replicas_serve(&self, database: &str) {
        self.cluster.wait_replayed().unwrap();
        if !direct() {
            let mut seen = std::collections::BTreeSet::new();
            eventually("both replicas to serve", || {
                seen.insert(self.query(database, "SELECT current_setting('cluster_name')"));
                seen.contains("r1") && seen.contains("r2")
            });
        }
    }

    /// A tokio-postgres client. Its connection runs on the current runtime.
    pub(crate) async fn connect(&self, database: &str) -> tokio_postgres::Client {
        self.try_connect(database).await.unwrap_or_else(|error| panic!("no connection to {database}: {error:?}"))
    }

    /// As [`Gateway::connect`], but may fail.
    pub(crate) async fn try_connect(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            // The client sees the error as well.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// How many sessions of clients the primary has in `database`.
    pub(crate) fn server_sessions(&self, database: &str) -> usize {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'client backend'"
        );
        self.cluster.primary().psql("postgres", &query).unwrap().parse().unwrap()
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The most resident memory so far, in bytes. None without a gateway, or without /proc.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
    }

    /// Sends SIGTERM, waits for the end, and gives the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            if start.elapsed() > DEADLINE {
                let _ = process.kill();
                panic!("the gateway did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The body that the admin listener gives for `path`, with its status.
    pub(crate) fn admin(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.admin_port, path)
    }

    /// What the gateway logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Puts a policy in the place of another as editors and package managers do: a new file, renamed over the old.
    /// The moments are those just before and just after the rename.
    pub(crate) fn replace_policy(&self, name: &str, bytes: &[u8]) -> (Instant, Instant) {
        let new = self.path(&format!("policies/.{name}.new"));
        std::fs::write(&new, bytes).unwrap();
        let before = Instant::now();
        std::fs::rename(new, self.path(&format!("policies/{name}.wasm"))).unwrap();
        (before, Instant::now())
    }

    /// What `/api/v1/status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let (status, body) = self.admin("/api/v1/status").expect("the admin listener answers");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A file beside the configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if std::thread::panicking() {
            let ended = process.try_wait();
            eprintln!("the gateway's state is {ended:?}, its log:\n{}", self.log());
        }
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Starts the binary so that it ends with us, where the system can do that.
fn spawn(configuration: &Path, log: &Path) -> Child {
    // Another build of it, say the one that ships, can be put to the same tests.
    let binary = std::env::var("POINTSMAN_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pointsman").into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let wrapper = std::env::split_paths(&path).map(|directory| directory.join("setpriv")).find(|file| file.is_file());
    let mut command = match wrapper {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", &binary]);
            command
        }
        None => Command::new(binary),
    };
    let log = std::fs::File::create(log).unwrap();
    command
        .args(["run", "--config"])
        .arg(configuration)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Waits for the gateway's word that it is ready; its log, if it ended or took too long.
fn wait_ready(process: &mut Child, admin_port: u16, path: &str, log: &Path) -> Result<(), String> {
    let start = Instant::now();
    loop {
        if process.try_wait().unwrap().is_some() || start.elapsed() > DEADLINE {
            let _ = process.kill();
            let _ = process.wait();
            return Err(std::fs::read_to_string(log).unwrap_or_default());
        }
        match http_get(admin_port, path) {
            Some((200, _)) => return Ok(()),
            // Without an admin listener the client port must do; it is the port before the admin's.
            None if TcpStream::connect(("127.0.0.1", admin_port - 1)).is_ok() => return Ok(()),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}
