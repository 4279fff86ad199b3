//! What tests stand on: the shared cluster, a gateway, a database, and tools that say how to install them.

mod certificates;
mod gateway;
mod raw;

pub(crate) use certificates::Certificates;
pub(crate) use gateway::{Gateway, POLICIES, Setup};
pub(crate) use raw::{Raw, message, query, sqlstate, startup, sync};

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman::demo::{Cluster, Install};

/// Whether the tests speak to PostgreSQL itself.
pub(crate) fn direct() -> bool {
    std::env::var_os("POINTSMAN_TEST_DIRECT").is_some()
}

/// Users that the shared cluster asks for a password, by method, and that password.
pub(crate) const PASSWORD_USERS: [&str; 3] = ["scram_user", "md5_user", "clear_user"];
pub(crate) const PASSWORD: &str = "it's \"ö\" $ecret";

/// The cluster that all tests share: a primary and two replicas, with TLS, and with users of each authentication method.
///
/// It is never dropped: its watchdog takes it down when this process ends.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let certificates = Certificates::shared();
        let quoted = PASSWORD.replace('\'', "''");
        let mut builder = Cluster::builder().tls(&certificates.server, &certificates.server_key);
        for (user, method) in PASSWORD_USERS.iter().zip(["scram-sha-256", "md5", "password"]) {
            let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
            builder = builder
                .hba(&format!("host all {user} all {method}"))
                .sql(&format!("SET password_encryption = '{stored}'; CREATE ROLE {user} LOGIN PASSWORD '{quoted}';"));
        }
        let cluster = builder.start(|_| {}).unwrap_or_else(|error| panic!("{error}"));
        if let Some(lag) = std::env::var_os("POINTSMAN_TEST_LAG") {
            for replica in cluster.replicas() {
                let lag = lag.to_str().unwrap();
                replica.psql("postgres", &format!("ALTER SYSTEM SET recovery_min_apply_delay = '{lag}'")).unwrap();
                replica.psql("postgres", "SELECT pg_reload_conf()").unwrap();
            }
        }
        cluster
    })
}

/// A database of the shared cluster for one test, there on all nodes. Owned by `demo`.
pub(crate) fn database(label: &str) -> String {
    database_on(cluster(), label)
}

/// As [`database`], on a cluster of the test's own.
pub(crate) fn database_on(cluster: &Cluster, label: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{label}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    cluster.primary().psql("postgres", &format!("CREATE DATABASE {name} OWNER demo")).unwrap();
    cluster.wait_replayed().unwrap();
    name
}

/// A program of PostgreSQL's, ready to run without what the environment says to it.
pub(crate) fn tool(name: &str) -> Command {
    let install = Install::find().unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(install.program(name));
    for (variable, _) in std::env::vars_os().filter(|(variable, _)| variable.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(variable);
    }
    command.env("PGCONNECT_TIMEOUT", "20").stdin(Stdio::null());
    command
}

/// Below the target directory: private copies of the drivers, made by `scripts/install-missing.sh drivers`.
pub(crate) fn driver_file(path: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_pointsman"));
    let target = binary.ancestors().nth(2).expect("the binary lies in TARGET/PROFILE/");
    let file = target.join("drivers").join(path);
    assert!(file.exists(), "{} is missing: run scripts/install-missing.sh drivers", file.display());
    file
}

/// What a program wrote and how it ended.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}; scripts/install-missing.sh postgresql drivers installs it")
    })
}

/// As [`run`], with something to read.
pub(crate) fn run_with(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output of a program that must succeed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.trim_end().to_owned()
}

/// Standard error of a program that must fail.
pub(crate) fn fail(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{command:?} did not fail:\n{out}\n{err}");
    err.trim_end().to_owned()
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
