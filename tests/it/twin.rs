//! The leak hunt: clients of the gateway beside twins on direct connections, step by step the same session
//! (`tests/twin/README.md`).
//!
//! In a test run it ends after 2,500 steps or 40 seconds, with a seed of its own, so that a failure is one of the sources and
//! not of the day. `POINTSMAN_LEAKS` holds arguments for a run of another length, with a seed or without: `make leaks` is that.

use std::process::Command;

use crate::support::{Gateway, database, direct, driver_file, run};

const SHORT: &str = "--seed 4001 --steps 2500 --seconds 40";

#[test]
fn every_client_sees_what_its_twin_sees() {
    if direct() {
        return;
    }
    let long = std::env::var("POINTSMAN_LEAKS").ok();
    let arguments: Vec<&str> = long.as_deref().unwrap_or(SHORT).split_whitespace().collect();
    let servers = arguments.iter().position(|name| *name == "--servers").and_then(|at| arguments.get(at + 1));
    let servers: u16 = servers.map_or(4, |text| text.parse().unwrap_or_else(|_| panic!("--servers {text}")));
    let (ours, theirs) = (database("twin_gateway"), database("twin_direct"));
    // One more listens for all.
    let size = servers + 1;
    let gateway = Gateway::setup().pool(&format!("size = {size}\nquery_wait = \"20s\"")).start();
    let primary = gateway.cluster.primary();
    let roles =
        "CREATE ROLE twin SUPERUSER LOGIN; CREATE ROLE twin_one; CREATE ROLE twin_two; CREATE ROLE \"Twin Three\";";
    primary.psql("postgres", roles).unwrap();
    let mut hunt = Command::new(driver_file("python/bin/python"));
    hunt.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/twin/hunt.py"))
        .args(["--gateway", &format!("127.0.0.1:{}", gateway.port)])
        .args(["--admin", &format!("127.0.0.1:{}", gateway.admin_port), "--direct", &primary.address()])
        .args(["--databases", &format!("{ours},{theirs}")])
        .args(&arguments);
    if long.is_some() {
        // It says how far it is.
        assert!(hunt.status().unwrap().success());
        return;
    }
    let output = run(&mut hunt);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`make leaks` with that seed replays it\n{text}\n{error}");
}
