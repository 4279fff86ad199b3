//! Where statements go while pgbench runs as people run it: exact counts.

use std::collections::BTreeMap;

use super::{Load, either, figure, fill};
use crate::support::{Gateway, database, direct, eventually};

const CLIENTS: usize = 32;

/// Statements that the gateway says it sent, by the node and the role that was decided.
fn sent(gateway: &Gateway<'_>) -> BTreeMap<(String, String), u64> {
    let (_, text) = gateway.admin("/metrics").expect("the admin listener answers");
    let label = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let count = |line: &str| {
        let rest = line.strip_prefix("pointsman_statements_total{")?;
        let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
        Some(((label(rest, "node")?, label(rest, "target")?), value as u64))
    };
    text.lines().filter_map(count).collect()
}

/// Transactions that the nodes themselves counted in `database`: committed and rolled back.
fn transactions(gateway: &Gateway<'_>, database: &str) -> Vec<(u64, u64)> {
    let query = format!("SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = '{database}'");
    let counted = |text: String| {
        let (committed, rolled_back) = text.split_once('|').unwrap();
        (committed.parse().unwrap(), rolled_back.parse().unwrap())
    };
    gateway.cluster.nodes().iter().map(|node| counted(node.psql("postgres", &query).unwrap())).collect()
}

#[test]
fn reads_follow_the_weights_and_no_write_meets_a_replica() {
    if direct() {
        return;
    }
    let database = database("shares");
    let gateway = Gateway::setup().weights(1, 2).start();
    fill(&gateway, &database);
    gateway.replicas_serve(&database);
    // What pgbench asks before it starts goes to the primary until the gateway has read the catalogue behind the DDL again.
    eventually("the catalogue to be read", || {
        let on_primary =
            || sent(&gateway).iter().filter(|((node, _), _)| node == "primary").map(|(_, n)| n).sum::<u64>();
        let before = on_primary();
        Load::start(&gateway, &database, 1, &["-b", "select-only", "-t", "1"]).finish();
        on_primary() == before
    });
    // 3,000 reads, or 9,600.
    let reads_each = either("94", "300");
    for mode in ["simple", "extended", "prepared"] {
        let (sent_before, counted_before) = (sent(&gateway), transactions(&gateway, &database));
        let loads = [("tpcb-like", either("20", "100")), ("select-only", reads_each)].map(|(script, each)| {
            (script, each, Load::start(&gateway, &database, CLIENTS, &["-b", script, "-M", mode, "-t", each]))
        });
        for (script, each, load) in loads {
            let done = load.finish().latencies.len();
            assert_eq!(done, CLIENTS * each.parse::<usize>().unwrap(), "{mode} {script}");
        }
        let now = sent(&gateway);
        let more = |node: &str, target: &str| {
            let key = (node.to_owned(), target.to_owned());
            now.get(&key).unwrap_or(&0) - sent_before.get(&key).unwrap_or(&0)
        };
        let (one, two, primary) = (more("r1", "replica"), more("r2", "replica"), more("primary", "primary"));
        let total = one + two;
        let share = one as f64 / total as f64 * 3.0;
        figure(format!(
            "shares, {mode}: {total} reads: r1 {one}, r2 {two}: r1 has {share:.4} of its share; {primary} statements on the primary, \
             no error"
        ));
        assert!(total >= 3000, "{total} reads");
        assert!((0.99..=1.01).contains(&share), "{mode}: r1 {one}, r2 {two}");
        for replica in ["r1", "r2"] {
            assert_eq!(more(replica, "primary"), 0, "{mode}: {replica} was sent what is for the primary");
        }
        assert_eq!(more("primary", "replica"), 0, "{mode}: both replicas were fit at all times");
        // What the nodes say. A write on a replica would have been rolled back with 25006.
        eventually("the servers to publish their counts", || {
            let counted = transactions(&gateway, &database);
            let committed = |node: usize| counted[node].0 - counted_before[node].0;
            committed(1) >= one && committed(2) >= two
        });
        let counted = transactions(&gateway, &database);
        for (node, (of_gateway, before)) in [one, two].into_iter().zip(&counted_before[1..]).enumerate() {
            let (committed, rolled_back) = (counted[node + 1].0 - before.0, counted[node + 1].1 - before.1);
            figure(format!("shares, {mode}: r{} committed {committed}, rolled back {rolled_back}", node + 1));
            assert_eq!(rolled_back, 0, "{mode}: r{}", node + 1);
            // The gateway's own questions come on top.
            assert!(committed <= of_gateway + 200, "{mode}: r{}: {committed}, {of_gateway} sent", node + 1);
        }
    }
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
                count(*) FROM pgbench_history";
    let expected = format!("t|{}", CLIENTS * either(20, 100) * 3);
    assert_eq!(gateway.cluster.primary().psql(&database, sums).unwrap(), expected);
}
