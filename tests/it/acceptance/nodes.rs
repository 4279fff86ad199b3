//! Replicas that die under load: what fails, how soon others take over, how soon they are used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pointsman::demo::{Cluster, Node};

use super::{either, figure, milliseconds, percentile};
use crate::support::{Gateway, database_on, direct, eventually};

/// Clients whose statements take a while, so that what is in flight stands still while it is counted; and quick ones.
const SLOW: usize = 16;
const QUICK: usize = 8;
const SLOW_READ: &str = "SELECT current_setting('cluster_name') FROM pg_sleep(0.1)";
const QUICK_READ: &str = "SELECT current_setting('cluster_name')";

/// One read.
struct Read {
    begun: Instant,
    ended: Instant,
    /// The node that answered, or the error.
    answer: Result<String, String>,
}

/// Reads on, with another connection where one was lost.
async fn read_on(gateway: &Gateway<'_>, database: &str, sql: &str, stop: &AtomicBool) -> Vec<Read> {
    let mut client = gateway.connect(database).await;
    let mut reads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answer = match client.query_one(sql, &[]).await {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(format!("{error:?}")),
        };
        if client.is_closed() {
            client = gateway.connect(database).await;
        }
        reads.push(Read { begun, ended: Instant::now(), answer });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads
}

/// All reads that were made while `script` ran.
fn under_load<T>(gateway: &Gateway<'_>, database: &str, script: impl FnOnce() -> T) -> (T, Vec<Read>) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sqls = std::iter::repeat_n(SLOW_READ, SLOW).chain(std::iter::repeat_n(QUICK_READ, QUICK));
            let reads = sqls.map(|sql| read_on(gateway, database, sql, &stop));
            runtime.block_on(futures_util::future::join_all(reads))
        });
        let result = script();
        stop.store(true, Ordering::Relaxed);
        (result, readers.join().unwrap().into_iter().flatten().collect())
    })
}

/// Connections of the gateway that are lent at this node.
fn in_flight(gateway: &Gateway<'_>, name: &str) -> u64 {
    let status = gateway.status();
    let nodes = status["clusters"][0]["shards"][0]["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap()["in_flight"].as_u64().unwrap()
}

/// Kills a node with all its processes; the moments before and after.
fn kill(node: &Node) -> (Instant, Instant) {
    let before = Instant::now();
    node.kill().unwrap();
    (before, Instant::now())
}

/// Starts a node; the moment when it takes connections.
fn start(node: &Node) -> Instant {
    node.start().unwrap();
    Instant::now()
}

/// When a read that `node` answered first began after this moment.
fn first_use(reads: &[Read], node: &str, after: Instant) -> Duration {
    let of_node = reads.iter().filter(|read| read.begun > after && read.answer.as_deref() == Ok(node));
    of_node.map(|read| read.ended - after).min().unwrap_or_else(|| panic!("no read came to {node}"))
}

#[test]
fn a_killed_replica_takes_down_only_what_it_was_doing() {
    if direct() {
        return;
    }
    let cluster = Cluster::builder().start(|_| {}).unwrap_or_else(|error| panic!("{error}"));
    let database = database_on(&cluster, "killed");
    let gateway = Gateway::in_front_of(&cluster).start();
    let victim = &cluster.replicas()[0];
    for round in 0..either(1, 5) {
        let ((lent, (before, after), ready), reads) = under_load(&gateway, &database, || {
            thread::sleep(Duration::from_secs(1));
            let lent = in_flight(&gateway, "r1");
            let killed = kill(victim);
            thread::sleep(Duration::from_secs(2));
            let ready = start(victim);
            // Used again: lent at some moment.
            eventually("the replica to be used again", || in_flight(&gateway, "r1") > 0);
            thread::sleep(Duration::from_secs(1));
            (lent, killed, ready)
        });
        let failed: Vec<&Read> = reads.iter().filter(|read| read.answer.is_err()).collect();
        let errors: Vec<_> = failed.iter().map(|read| &read.answer).collect();
        let in_time = failed.iter().filter(|read| read.begun <= before).count();
        let met = reads.iter().filter(|read| read.begun < after && read.ended > before);
        let longest = met.filter(|read| read.answer.is_ok()).map(|read| read.ended - read.begun).max();
        let elsewhere = reads.iter().filter(|read| read.begun > after && read.answer.is_ok());
        let elsewhere = elsewhere.map(|read| read.ended - after).min().unwrap_or_default();
        let mut later: Vec<_> =
            reads.iter().filter(|read| read.begun > after).map(|read| read.ended - read.begun).collect();
        later.sort_unstable();
        figure(format!(
            "killed, round {round}: {} reads, {lent} connections in flight on r1, {} reads failed, of which {in_time} began before \
             the kill; the kill took {}; the first read after it was answered {} later, the longest that met it took {}, of those after it the longest {}; used again {} \
             after it took connections",
            reads.len(),
            failed.len(),
            milliseconds(after - before),
            milliseconds(elsewhere),
            milliseconds(longest.unwrap_or_default()),
            milliseconds(percentile(&later, 1.0)),
            milliseconds(first_use(&reads, "r1", ready)),
        ));
        // The count was taken a moment before the kill: quick reads come and go. The server's processes die one after the
        // other, and what comes to those that still live fails as well.
        let allowed = usize::try_from(lent).unwrap() + either(8, 2);
        assert!(in_time <= allowed, "{lent} in flight, {in_time} of those failed: {errors:?}");
        assert!(failed.len() <= SLOW + QUICK, "{} failed: {errors:?}", failed.len());
        assert!(failed.iter().all(|read| read.begun <= after), "a read failed that began after the kill: {errors:?}");
        assert!(elsewhere <= Duration::from_millis(either(2000, 250)), "{elsewhere:?}");
        assert!(first_use(&reads, "r1", ready) <= Duration::from_millis(either(20_000, 2000)));
        let dead = |read: &&Read| read.begun > after && read.ended < ready && read.answer.as_deref() == Ok("r1");
        assert_eq!(reads.iter().filter(dead).count(), 0);
    }
}

#[test]
fn the_primary_serves_reads_when_no_replica_can() {
    if direct() {
        return;
    }
    let cluster = Cluster::builder().start(|_| {}).unwrap_or_else(|error| panic!("{error}"));
    let database = database_on(&cluster, "alone");
    let gateway = Gateway::in_front_of(&cluster).start();
    let ((before, after, ready), reads) = under_load(&gateway, &database, || {
        thread::sleep(Duration::from_secs(1));
        let kills: Vec<_> = cluster.replicas().iter().map(kill).collect();
        thread::sleep(Duration::from_secs(2));
        let ready = start(&cluster.replicas()[1]);
        eventually("a replica to be used again", || in_flight(&gateway, "r2") > 0);
        thread::sleep(Duration::from_secs(1));
        (kills[0].0, kills[1].1, ready)
    });
    let failed: Vec<&Read> = reads.iter().filter(|read| read.answer.is_err()).collect();
    let errors: Vec<_> = failed.iter().map(|read| &read.answer).collect();
    let on_primary = first_use(&reads, "primary", after);
    figure(format!(
        "all replicas killed: {} reads, {} failed ({} clients; the kills took {}); the first read after it that the primary \
         answered ended {} later; a returned replica answered {} after it took connections",
        reads.len(),
        failed.len(),
        SLOW + QUICK,
        milliseconds(after - before),
        milliseconds(on_primary),
        milliseconds(first_use(&reads, "r2", ready)),
    ));
    // A client may meet the end of one replica and then that of the other.
    assert!(failed.len() <= 2 * (SLOW + QUICK), "{} reads failed: {errors:?}", failed.len());
    assert!(failed.iter().all(|read| read.begun <= after), "a read failed that began after the kills: {errors:?}");
    assert!(on_primary <= Duration::from_millis(either(2000, 250)), "{on_primary:?}");
    assert!(first_use(&reads, "r2", ready) <= Duration::from_millis(either(20_000, 2000)));
}
