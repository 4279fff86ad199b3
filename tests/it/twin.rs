//! The twin test: clients of the gateway beside twins on direct connections, step by step the same session.
//!
//! `TWIN_SEED` and `TWIN_STEPS` replay a run or lengthen it; without a seed the time of day is one.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Gateway, database, direct, driver_file, run};

/// Clients, each with a twin. Every one of them may pin a server, so the pool has as many.
const CLIENTS: usize = 4;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
fn every_client_sees_what_its_twin_sees() {
    if direct() {
        return;
    }
    let (ours, theirs) = (database("twin_gateway"), database("twin_direct"));
    let gateway = Gateway::setup().pool(&format!("size = {CLIENTS}")).start();
    let primary = gateway.cluster.primary();
    let roles =
        "CREATE ROLE twin SUPERUSER LOGIN; CREATE ROLE twin_one; CREATE ROLE twin_two; CREATE ROLE \"Twin Three\";";
    primary.psql("postgres", roles).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let (seed, steps) = (number("TWIN_SEED", now), number("TWIN_STEPS", 1000));
    let output = run(Command::new(driver_file("python/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/twin/twin.py"))
        .args([&gateway.url_for("twin", &ours), &format!("postgres://twin@{}/{theirs}", primary.address())])
        .args([seed.to_string(), steps.to_string(), CLIENTS.to_string()]));
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "replay with TWIN_SEED={seed} TWIN_STEPS={steps}\n{text}\n{error}");
}
