//! One PostgreSQL server of a cluster: its files, its process, its readiness.
//!
//! The process is our direct child, so its end is seen and its number is not recycled before we have seen it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::account::Account;
use super::install::Install;
use super::{Error, Result, leftovers};

/// How long a server may take to become ready, or to stop.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(10);
/// How much of a log an error shows.
const LOG_LINES: usize = 15;

/// A server of the cluster. Its methods may be called from any thread.
#[derive(Debug)]
pub struct Node {
    pub(super) name: String,
    pub(super) data: PathBuf,
    pub(super) port: u16,
    pub(super) install: Install,
    pub(super) account: Account,
    process: Mutex<Option<Child>>,
}

impl Node {
    pub(super) fn new(name: String, nodes: &Path, port: u16, install: Install, account: Account) -> Self {
        Self { data: nodes.join(&name), name, port, install, account, process: Mutex::new(None) }
    }

    /// `primary`, `r1`, `r2`, … : the name it was given at the start, which a promotion does not change. It is also
    /// the server's `cluster_name` and a replica's `application_name` on its primary.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's data directory.
    #[must_use]
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// The file that holds the server's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The postmaster's process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let child = process.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id()),
            _ => None,
        }
    }

    /// Starts the server and waits until it takes connections. A server that runs already is left alone.
    ///
    /// # Errors
    /// [`Error::NotReady`] with the end of the log when the server ends, or is not ready within a minute.
    pub fn start(&self) -> Result<()> {
        let start = Instant::now();
        if self.pid().is_some() {
            return self.wait_ready(start);
        }
        loop {
            self.spawn()?;
            match self.wait_ready(start) {
                // After a kill the shared memory lives until the last child has noticed.
                Err(Error::NotReady { log, .. }) if log.contains("still in use") && start.elapsed() < DEADLINE => {
                    std::thread::sleep(POLL);
                }
                other => return other,
            }
        }
    }

    fn spawn(&self) -> Result<()> {
        let log = std::fs::File::create(self.log_file())
            .map_err(Error::io(format!("cannot write {}", self.log_file().display())))?;
        let errors = log.try_clone().map_err(Error::io("cannot share the log"))?;
        let child = {
            use std::os::unix::process::CommandExt as _;
            self.account
                .command(&self.install.program("postgres"), &self.data)
                .arg("-D")
                .arg(&self.data)
                .stdout(Stdio::from(log))
                .stderr(Stdio::from(errors))
                // Ctrl-C in a terminal is for us; we stop the servers in order.
                .process_group(0)
                .spawn()
                .map_err(Error::io(format!("cannot start {}", self.install.program("postgres").display())))?
        };
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    /// Waits until the server says in its process file that it takes connections (line 8, as `pg_ctl` does).
    fn wait_ready(&self, start: Instant) -> Result<()> {
        loop {
            let Some(pid) = self.pid() else { return Err(self.not_ready("ended")) };
            let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
            let mut lines = text.lines();
            let current = lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid);
            if current && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby")) {
                return Ok(());
            }
            if start.elapsed() > DEADLINE {
                return Err(self.not_ready("was not ready within a minute"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn not_ready(&self, what: &str) -> Error {
        Error::NotReady { node: self.name.clone(), what: what.into(), log: self.log_tail() }
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), LOG_LINES)
    }

    /// Stops the server in order, ending its sessions (PostgreSQL's "fast" mode), and waits for its end.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it does not end within a minute.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::INT)
    }

    /// Stops the server at once, without a checkpoint ("immediate" mode), and waits for its end.
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub fn stop_at_once(&self) -> Result<()> {
        self.end(Signal::QUIT)
    }

    /// Kills all processes of the server with SIGKILL, as a power cut would, and waits for their end.
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid().and_then(raw) else { return Ok(()) };
        // A stopped process takes no signal but the last.
        self.signal_all(Signal::CONT);
        if signal == Signal::KILL {
            leftovers::kill_tree(pid);
        } else {
            let _ = rustix::process::kill_process(pid, signal);
        }
        let start = Instant::now();
        while self.pid().is_some() {
            if start.elapsed() > DEADLINE {
                return Err(self.not_ready("did not stop within a minute"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// As [`Node::stop`] and [`Node::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Freezes all processes of the server (SIGSTOP): connections stay open and nothing answers. Linux only.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let Some(pid) = self.pid().and_then(raw) else { return };
        let _ = rustix::process::kill_process(pid, signal);
        for child in leftovers::children(pid) {
            let _ = rustix::process::kill_process(child, signal);
        }
    }

    /// Runs SQL with psql as the superuser `postgres` and gives what it prints: one line a row, columns parted by `|`.
    ///
    /// # Errors
    /// [`Error::Program`] with psql's message.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.account.command(&self.install.program("psql"), Path::new("/"));
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]).args([
            "-p",
            &self.port.to_string(),
            "-d",
            database,
            "-c",
            sql,
        ]);
        Ok(run(&mut command)?.trim_end().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.stop_at_once();
        if self.pid().is_some() {
            let _ = self.kill();
        }
    }
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Runs a program to its end and gives its standard output.
pub(super) fn run(command: &mut std::process::Command) -> Result<String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.output().map_err(Error::io(format!("cannot start {program}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = tail(&(text + &String::from_utf8_lossy(&output.stderr)), LOG_LINES);
    Err(Error::Program { program, status: output.status.to_string(), output: said })
}

fn tail(text: &str, lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).fold(String::new(), |mut tail, line| {
        let _ = writeln!(tail, "  {line}");
        tail
    })
}
