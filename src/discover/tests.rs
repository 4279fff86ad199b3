//! The monitor against real servers: a primary and two replicas, started for each test.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use crate::auth::Credentials;
use crate::control::config_file::Machine;
use crate::control::{Cluster, Live};
use crate::demo;
use crate::pool::Budget;
use crate::topology::{Conditions, Lsn, Node, Position, Requirement, Role, Standing, Topology, Writes};

/// Real servers and a monitor that watches them.
struct Rig {
    runtime: tokio::runtime::Runtime,
    live: Live,
    servers: demo::Cluster,
}

impl Rig {
    fn start(cluster: &str, more: &str) -> Self {
        let servers = demo::Cluster::builder().setting("wal_keep_size", "256MB").start(|_| {}).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = |index: usize| {
            let node = &servers.nodes()[index];
            format!("{{ name = \"{}\", address = \"{}\" }}", node.name(), node.address())
        };
        let text = format!(
            "[clusters.main]\nprimary = {}\nreplicas = [{}, {}]\n{cluster}\n\
             [clusters.main.ejection]\nfailures = 3\nback_off = \"300ms\"\nmax_back_off = \"1s\"\n{more}",
            node(0),
            node(1),
            node(2)
        );
        let config = crate::config::parse(&text, Path::new("/tests.toml"), &Machine).unwrap().config;
        let live = Live::build(config, None, &Budget::new(100), 1).unwrap();
        let rig = Self { runtime, live, servers };
        rig.cluster().watch(rig.runtime.handle(), 0);
        rig
    }

    fn monitored() -> Self {
        Self::start("", "[clusters.main.monitor]\nuser = \"postgres\"\ninterval = \"100ms\"\ntimeout = \"2s\"\n")
    }

    fn cluster(&self) -> &Arc<Cluster> {
        &self.live.clusters["main"]
    }

    fn topology(&self) -> &Topology {
        &self.cluster().topology
    }

    fn node(&self, index: usize) -> &Node {
        self.topology().nodes().nth(index).unwrap()
    }

    fn write(&self, index: usize) {
        self.servers.nodes()[index]
            .psql("demo", "CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)")
            .unwrap();
    }

    /// A session that has just written on the primary.
    fn wrote(&self, primary: usize) -> Writes {
        let mut writes = Writes::default();
        writes.sent(0);
        self.write(primary);
        writes.acknowledged(self.topology(), 0);
        writes
    }

    /// Waits until replicas are in use and their positions are known.
    fn settled(&self) {
        for index in [1, 2] {
            eventually("the replicas are watched", || {
                let node = self.node(index);
                node.role() == Role::Replica && node.position().is_some() && node.lag().is_some()
            });
        }
        eventually("the primary is watched", || {
            self.node(0).role() == Role::Primary && self.node(0).position().is_some()
        });
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn position(writes: &mut Writes, topology: &Topology) -> Option<Position> {
    match writes.required(topology, 0) {
        Requirement::Position(position) => Some(position),
        _ => None,
    }
}

#[test]
fn writes_are_followed_and_a_replica_that_stands_still_is_seen() {
    let rig = Rig::monitored();
    rig.settled();
    let topology = rig.topology();

    // The monitor's account reads catalogues as well.
    let pool = rig.live.config.pool_for("demo", "demo");
    let account = rig.cluster().new_account("demo", "demo", "demo", Credentials::None, &pool);
    rig.cluster().adopt(&account);
    eventually("the catalogue is read", || account.catalog().generation() > 1);
    assert!(account.pools().is_empty(), "nothing was borrowed");

    let mut writes = rig.wrote(0);
    eventually("all replicas have the write", || writes.required(topology, 0) == Requirement::None);
    eventually("it is not behind", || rig.node(1).lag().is_some_and(|lag| lag < Duration::from_millis(200)));

    // A new segment: the primary's next record comes behind a header that no standby is sent before that record.
    rig.servers.primary().psql("postgres", "SELECT pg_switch_wal()").unwrap();
    let mut writes = Writes::default();
    writes.sent(0);
    writes.acknowledged(topology, 0);
    eventually("all replicas have everything", || writes.required(topology, 0) == Requirement::None);

    // Replay stands still on the second replica: it holds its position, falls behind, and takes no read of the writer's.
    let second = &rig.servers.nodes()[2];
    second.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    eventually("replay is paused", || {
        second.psql("postgres", "SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
    let held = Lsn::parse(&second.psql("postgres", "SELECT pg_last_wal_replay_lsn()").unwrap()).unwrap();
    eventually("its last step is noted", || rig.node(2).position().unwrap().lsn == held);
    let mut writes = rig.wrote(0);
    let mut known = None;
    eventually("the position is known", || {
        known = position(&mut writes, topology);
        known.is_some()
    });
    eventually("the first replica has the write", || {
        rig.node(1).position().is_some_and(|at| at.has_passed(known.unwrap()))
    });
    eventually("the second falls behind", || rig.node(2).lag().is_some_and(|lag| lag > Duration::from_millis(700)));
    assert_eq!(rig.node(2).position().unwrap().lsn, held);
    eventually("the first does not", || rig.node(1).lag().is_some_and(|lag| lag < Duration::from_millis(500)));
    let read = Conditions { replica: true, replayed: known, ..Conditions::default() };
    for _ in 0..10 {
        assert_eq!(&*topology.choose(&read).unwrap().spec.name, "r1");
    }
    assert_eq!(position(&mut writes, topology), known, "not all replicas have it");

    // With the first one gone as well, the writer reads from the primary.
    rig.servers.nodes()[1].kill().unwrap();
    eventually("the first replica is out", || rig.node(1).standing() == Standing::Ejected);
    assert_eq!(&*topology.choose(&read).unwrap().spec.name, "primary");
    second.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    eventually("the second has caught up", || writes.required(topology, 0) == Requirement::None);
    eventually("it is not behind", || rig.node(2).lag().is_some_and(|lag| lag < Duration::from_millis(200)));

    // The first was away when "all replicas in use" had that write. It must not come back without it.
    let first = &rig.servers.nodes()[1];
    std::fs::write(first.data_directory().join("postgresql.auto.conf"), {
        let kept = std::fs::read_to_string(first.data_directory().join("postgresql.auto.conf")).unwrap();
        format!("{kept}\nrecovery_min_apply_delay = '1h'\n")
    })
    .unwrap();
    let mut writes = rig.wrote(0);
    eventually("the replica in use has the write", || writes.required(topology, 0) == Requirement::None);
    first.start().unwrap();
    eventually("the first replica is asked again", || rig.node(1).position().is_some());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.node(1).standing(), Standing::Ejected, "it lacks the write");
    first.psql("postgres", "ALTER SYSTEM RESET recovery_min_apply_delay").unwrap();
    first.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually("the first replica is back", || rig.node(1).standing() == Standing::Up);
}

#[test]
fn news_does_not_wait_for_the_next_ordinary_question() {
    let rig = Rig::start("", "[clusters.main.monitor]\nuser = \"postgres\"\ninterval = \"1h\"\n");
    let topology = rig.topology();
    eventually("all were asked once", || topology.nodes().all(|node| node.position().is_some()));

    // A write.
    let mut writes = rig.wrote(0);
    eventually("all replicas have the write", || writes.required(topology, 0) == Requirement::None);

    // SIGKILL: out at once, back after the start.
    rig.servers.nodes()[2].kill().unwrap();
    eventually("it is left out", || rig.node(2).standing() == Standing::Ejected);
    let read = Conditions { replica: true, ..Conditions::default() };
    for _ in 0..10 {
        assert_eq!(&*topology.choose(&read).unwrap().spec.name, "r1");
    }
    rig.servers.nodes()[2].start().unwrap();
    eventually("it is back", || rig.node(2).standing() == Standing::Up);

    // What the data path saw counts, until an answer on a new connection says otherwise.
    let node = rig.node(1);
    rig.cluster().report_failure(node, Failure::Lost);
    eventually("the false alarm is over", || node.standing() == Standing::Up && node.failures() == 0);
    rig.cluster().report_failure(node, Failure::TimedOut);
    assert_eq!(node.standing(), Standing::Up, "one of three");
    eventually("the count is back to none", || node.failures() == 0);
}

#[test]
fn a_promotion_is_believed() {
    let rig = Rig::monitored();
    rig.settled();
    let topology = rig.topology();
    let read = Conditions { replica: true, ..Conditions::default() };

    // The primary dies; the first replica is promoted; the second follows it.
    let mut before = rig.wrote(0);
    let mut written = None;
    eventually("the position is known", || {
        written = position(&mut before, topology);
        before.required(topology, 0) != Requirement::Primary
    });
    // One that was ahead of the other could not follow it.
    let has = |node: usize| written.is_none_or(|wanted| rig.node(node).has_replayed(wanted));
    eventually("both replicas have it", || has(1) && has(2));
    rig.servers.nodes()[0].stop_at_once().unwrap();
    eventually("the primary is out", || rig.node(0).standing() == Standing::Ejected);
    rig.servers.promote(1).unwrap();
    eventually("the new primary is known", || rig.node(1).role() == Role::Primary);
    assert_eq!(rig.node(0).role(), Role::Unknown);
    eventually("its timeline is known", || rig.node(1).position().is_some_and(|at| at.timeline == 2));
    let write = Conditions::default();
    assert_eq!(&*topology.choose(&write).unwrap().spec.name, "r1");
    let mut writes = rig.wrote(1);
    let mut known = None;
    eventually("the position on the new timeline is known", || {
        known = position(&mut writes, topology);
        known.is_some()
    });
    assert_eq!(known.unwrap().timeline, 2);
    // The second replica still follows nobody: it has not what was written since.
    let fresh = Conditions { replayed: known, ..read };
    assert_eq!(&*topology.choose(&fresh).unwrap().spec.name, "r1");
    rig.servers.follow(2, 1).unwrap();
    eventually("the second replica is on the new timeline", || writes.required(topology, 0) == Requirement::None);
    assert_eq!(rig.node(2).position().unwrap().timeline, 2);
    eventually("the write of before is found there", || before.required(topology, 0) == Requirement::None);

    // The old primary comes back as if nothing had happened: it is on the earlier timeline and gets nothing.
    rig.servers.nodes()[0].start().unwrap();
    eventually("the old primary answers", || rig.node(0).standing() == Standing::Up);
    assert_eq!(rig.node(0).role(), Role::Unknown);
    assert_eq!(rig.node(1).role(), Role::Primary);
    assert_eq!(&*topology.choose(&write).unwrap().spec.name, "r1");
}

#[test]
fn without_an_account_connections_are_borrowed_and_catalogues_are_read() {
    let rig = Rig::start("", "[clusters.main.monitor]\ninterval = \"100ms\"\n");
    let topology = rig.topology();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.node(1).position(), None, "nobody can ask");
    assert_eq!(rig.node(1).role(), Role::Replica, "the configuration says so");

    let cluster = rig.cluster();
    let pool = rig.live.config.pool_for("demo", "demo");
    let account = cluster.new_account("demo", "demo", "demo", Credentials::None, &pool);
    assert_eq!(account.catalog().generation(), 1);
    // A table is part of a catalogue: it is there before the first reading.
    rig.write(0);
    cluster.adopt(&account);
    rig.settled();
    let mut writes = rig.wrote(0);
    eventually("all replicas have the write", || writes.required(topology, 0) == Requirement::None);
    // Borrowed connections go back.
    for node in topology.nodes() {
        eventually("nothing is lent", || node.in_flight() == 0);
        let counts = account.pool(node).counts();
        assert!(counts.open <= 2 && counts.open == counts.idle, "{counts:?}");
    }

    eventually("the catalogue is read", || account.catalog().generation() > 1);
    let first = account.catalog().generation();
    cluster.schema_changed();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(account.catalog().generation(), first, "nothing new was found");
    let primary = rig.servers.primary();
    primary.psql("demo", "CREATE FUNCTION f() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'").unwrap();
    cluster.schema_changed();
    eventually("the change is found", || account.catalog().generation() > first);

    // What was changed past the gateway counts as DDL, once; what only its session sees does not.
    let counts = |step: &str, expected: u64| {
        let known = cluster.schema();
        primary.psql("demo", step).unwrap();
        cluster.schema_changed();
        eventually("the change is found, if it is one", || cluster.schema() >= known + expected);
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(cluster.schema(), known + expected, "{step}");
    };
    counts("CREATE TABLE changing (n int)", 2);
    counts("ALTER TABLE changing ALTER n TYPE bigint", 2);
    counts("DROP FUNCTION f(); CREATE FUNCTION f(bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'", 2);
    counts("CREATE TEMP TABLE changing (n text)", 1);
    counts("INSERT INTO changing VALUES (1)", 1);

    // A serializable client's connection can be borrowed all the same.
    primary.psql("postgres", "ALTER ROLE demo SET default_transaction_isolation = 'serializable'").unwrap();
    for pool in account.pools() {
        pool.recycle();
    }
    let mut writes = rig.wrote(0);
    eventually("all replicas have the write", || writes.required(topology, 0) == Requirement::None);
    let lent = rig
        .runtime
        .block_on(account.pool(topology.nodes().nth(1).unwrap()).checkout(0, crate::pool::Wish::ANY))
        .unwrap();
    assert!(lent.clean());
    lent.give_back();
}
