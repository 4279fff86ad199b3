//! `pointsman demo` as a person runs it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pointsman::demo::{free_ports, is_free};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{direct, eventually, succeed, tool};

/// Starts the demo and waits until it says that it is ready; its connection string.
fn start(port: u16, directory: &Path) -> (Child, String) {
    let mut child = command(port, directory).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if url.is_none() && line.trim().starts_with("postgres://") {
            url = Some(line.trim().to_owned());
        }
        if line.contains("Ctrl-C") {
            return (child, url.expect("a connection string before the end of the greeting"));
        }
    }
    panic!("the demo ended: {:?}", child.wait());
}

fn command(port: u16, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("demo").arg("--directory").arg(directory).args(["--replicas", "1"]);
    command.args(["--port", &port.to_string(), "--admin-port", &(port + 1).to_string()]);
    command.args(["--node-port", &(port + 2).to_string()]).stdin(Stdio::null());
    command
}

fn query(url: &str, sql: &str) -> String {
    succeed(tool("psql").args(["-XqAt", "-c", sql, url]))
}

#[test]
fn it_runs_is_killed_runs_again_and_leaves_nothing() {
    if direct() {
        return;
    }
    let root =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let directory = root.path().join("demo");
    let port = free_ports(4).unwrap();

    let (mut killed, url) = start(port, &directory);
    assert_eq!(query(&url, "SELECT current_setting('cluster_name')"), "r1");
    assert_eq!(query(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (7); TABLE t"), "7");
    // The console, as the greeting shows it.
    let url = format!("host={} port={port} dbname=pointsman", directory.display());
    assert!(query(&url, "SHOW POOLS").starts_with("demo|demo|"));
    // A second one on the same ports says which, and how to choose another.
    let refused = command(port, &root.path().join("other")).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    killed.kill().unwrap();
    killed.wait().unwrap();

    // What it left is taken down, by its watchdog or by the next.
    eventually("the ports to be free", || (port..port + 4).all(is_free));
    let (mut child, url) = start(port, &directory);
    assert_eq!(query(&url, "SELECT count(*) FROM pg_tables WHERE tablename = 't'"), "0");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!((port..port + 4).all(is_free));
    // The folder itself was there when this one began, so it may stay; nothing in it may.
    assert_eq!(std::fs::read_dir(&directory).map_or(0, Iterator::count), 0);
}
