//! What is promised, measured: the real binary, real PostgreSQL, real load, and figures.
//!
//! `make test` runs the short form, whose bounds in time are loose enough for a busy machine. `make acceptance` sets
//! `POINTSMAN_ACCEPTANCE=1` for the full one: the promised bounds, one test after the other, and the figures printed.
//!
//! Deliberately absent: what the promise about bulk data needs, see `bulk`, and about hostile clients, see `hostile`.

mod faults;
mod nodes;
mod shares;
mod swaps;

#[allow(clippy::needless_raw_string_hashes, reason = "shared with the policy host's own tests")]
#[path = "../../hostile/mod.rs"]
mod components;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Gateway, Raw, message, sqlstate, succeed, tool};

/// Whether this is the full form.
fn full() -> bool {
    std::env::var_os("POINTSMAN_ACCEPTANCE").is_some()
}

/// A size or a bound of the short form, or of the full.
fn either<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// Prints what was measured; seen with `--nocapture`.
fn figure(text: impl std::fmt::Display) {
    println!("figure: {text}");
}

/// The value below which this share of the sorted values lies.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Makes pgbench's tables in `database`, on all nodes.
fn fill(gateway: &Gateway<'_>, database: &str) {
    succeed(tool("pgbench").args(["-i", "-q", "-s", "2"]).arg(gateway.url(database)));
    gateway.cluster.wait_replayed().unwrap();
}

/// pgbench at work.
struct Load {
    process: Option<Child>,
    logs: TempDir,
}

/// What became of it.
struct Loaded {
    /// Of each transaction, the shortest first.
    latencies: Vec<Duration>,
}

impl Load {
    /// Starts `clients` clients with the arguments that say what they do and for how long.
    fn start(gateway: &Gateway<'_>, database: &str, clients: usize, arguments: &[&str]) -> Self {
        let logs = tempfile::tempdir().unwrap();
        let mut command = tool("pgbench");
        command.args(["-n", "-j", "2", "-c", &clients.to_string(), "-l", "--log-prefix"]).arg(logs.path().join("log"));
        command.args(arguments).arg(gateway.url(database)).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { process: Some(command.spawn().unwrap()), logs }
    }

    /// Waits for its end. No transaction may have failed.
    #[track_caller]
    fn finish(mut self) -> Loaded {
        let process = self.process.take().expect("it is taken here alone");
        let output = process.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !err.contains("aborted"), "{out}\n{err}");
        assert!(out.contains("number of failed transactions: 0 ("), "{out}\n{err}");
        let files = std::fs::read_dir(self.logs.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut latencies: Vec<Duration> = files.flat_map(|file| latencies(&file)).collect();
        latencies.sort_unstable();
        Loaded { latencies }
    }
}

/// A test that failed leaves no load behind.
impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Loaded {
    fn p99(&self) -> Duration {
        percentile(&self.latencies, 0.99)
    }
}

/// The third field of each line is the transaction's time in microseconds.
fn latencies(file: &PathBuf) -> Vec<Duration> {
    let text = std::fs::read_to_string(file).unwrap();
    let time = |line: &str| Duration::from_micros(line.split(' ').nth(2).unwrap().parse().unwrap());
    text.lines().map(time).collect()
}

/// Which node answers.
const WHERE: &str = "SELECT current_setting('cluster_name')";

/// One transaction of a client that asks which node it is on.
struct Probe {
    begun: Instant,
    ended: Instant,
    /// The node's name, or the error's SQLSTATE.
    node: Result<String, String>,
}

/// Asks, transaction after transaction, until told to stop. A lost connection fails the test.
fn probe(port: u16, database: &str, pause: Duration, stop: &AtomicBool) -> Vec<Probe> {
    let mut raw = Raw::log_in(port, "demo", database);
    let mut probes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let node = ask(&mut raw, WHERE);
        probes.push(Probe { begun, ended: Instant::now(), node });
        std::thread::sleep(pause);
    }
    probes
}

/// The first column of the first row, or the error's SQLSTATE.
fn ask(raw: &mut Raw, sql: &str) -> Result<String, String> {
    raw.send(&message(b'Q', format!("{sql}\0").as_bytes()));
    let answer = raw.until(b'Z');
    if let Some((_, error)) = answer.iter().find(|(tag, _)| *tag == b'E') {
        return Err(sqlstate(error));
    }
    // DataRow: the number of columns, then each with its length.
    let row = answer.iter().find(|(tag, _)| *tag == b'D').map(|(_, body)| body.get(6..).unwrap_or_default());
    Ok(String::from_utf8_lossy(row.unwrap_or_default()).into_owned())
}

/// Whether a policy that sends reads to this role has served, by the node that answered.
fn role_of(node: &str) -> u32 {
    u32::from(node != "primary")
}
