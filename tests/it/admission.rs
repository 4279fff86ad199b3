//! Who gets a server connection where they are scarce: the budget between users, the reserve, connections opened ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::support::{Gateway, database, direct, eventually};

async fn connect(gateway: &Gateway<'_>, user: &str, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&gateway.url_for(user, database), NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// Clients of one user that write without a pause.
struct Flood {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    async fn start(gateway: &Gateway<'_>, user: &str, database: &str, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let client = connect(gateway, user, database).await;
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute(WORK).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { stop, done, tasks }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// None of them met an error.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// A write, so that the primary alone is asked, that takes some time.
const WORK: &str = "SELECT pg_sleep(0.02), pg_current_xact_id()";

/// Connections of a user's pool on the primary, idle and lent.
fn pool(gateway: &Gateway<'_>, user: &str) -> (u64, u64) {
    let status = gateway.status();
    let pools = status["clusters"][0]["pools"].as_array().unwrap().clone();
    let of_user = pools.iter().filter(|pool| pool["user"] == user && pool["node"] == "primary");
    of_user.fold((0, 0), |(idle, lent), pool| {
        (idle + pool["idle"].as_u64().unwrap(), lent + pool["lent"].as_u64().unwrap())
    })
}

fn open(gateway: &Gateway<'_>, user: &str) -> u64 {
    let (idle, lent) = pool(gateway, user);
    idle + lent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_floods_leaves_room_for_another() {
    if direct() {
        return;
    }
    let database = database("fair");
    let gateway = Gateway::setup().pool("size = 50").server("max_server_connections = 6").start();
    let flood = Flood::start(&gateway, "demo", &database, 50).await;
    eventually("the flood to have everything", || open(&gateway, "demo") == 6);
    let start = Instant::now();
    let quiet = connect(&gateway, "postgres", &database).await;
    let mut waits = vec![start.elapsed()];
    // For some seconds: idle connections are looked through once in each.
    for _ in 0..130 {
        let start = Instant::now();
        quiet.batch_execute(WORK).await.unwrap();
        waits.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // Its one connection stays: nobody at work has fewer.
    assert_eq!((open(&gateway, "postgres"), open(&gateway, "demo")), (1, 5), "{waits:?}");
    let (_, page) = gateway.admin("/metrics").unwrap();
    let opened: u64 = page
        .lines()
        .find_map(|line| {
            line.strip_prefix(
                "pointsman_server_connect_seconds_count{cluster=\"main\",shard=\"main\",node=\"primary\"} ",
            )
        })
        .unwrap()
        .parse()
        .unwrap();
    let before = flood.done();
    assert!(flood.end().await >= before);
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(200), "{waits:?}");
    assert!(*waits.last().unwrap() < Duration::from_secs(3), "{waits:?}");
    // None changed hands but the quiet one's: what is idle for a moment was used lately, also where a tick comes just then.
    assert!(opened <= 8, "{opened} connections were opened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_at_work_have_equally_many() {
    if direct() {
        return;
    }
    let database = database("equal");
    let gateway = Gateway::setup().pool("size = 50").server("max_server_connections = 6").start();
    let first = Flood::start(&gateway, "demo", &database, 20).await;
    let second = Flood::start(&gateway, "postgres", &database, 20).await;
    eventually("equal shares", || (open(&gateway, "demo"), open(&gateway, "postgres")) == (3, 3));
    let before = (first.done(), second.done());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (one, two) = (first.done() - before.0, second.done() - before.1);
    assert!(one * 2 > two && two * 2 > one, "{one} and {two}");
    // One of them ends: the other has it all within a few seconds.
    first.end().await;
    eventually("the other to have all", || open(&gateway, "postgres") == 6);
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_place_is_had_in_turn() {
    if direct() {
        return;
    }
    let database = database("turns");
    let gateway = Gateway::setup().pool("size = 5").server("max_server_connections = 1").start();
    let floods =
        [Flood::start(&gateway, "demo", &database, 3).await, Flood::start(&gateway, "postgres", &database, 3).await];
    let before = floods.each_ref().map(Flood::done);
    let progress = || [0, 1].map(|index| floods[index].done() - before[index]);
    eventually("both to get ahead", || progress().iter().all(|done| *done >= 15));
    for flood in floods {
        flood.end().await;
    }
}

#[tokio::test]
async fn the_reserve_is_for_those_who_waited() {
    if direct() {
        return;
    }
    let database = database("reserve");
    let gateway =
        Gateway::setup().pool("size = 1\nreserve_size = 1\nreserve_after = \"300ms\"\nquery_wait = \"1500ms\"").start();
    let clients =
        [gateway.connect(&database).await, gateway.connect(&database).await, gateway.connect(&database).await];
    let write = "BEGIN; SELECT pg_current_xact_id()";
    clients[0].batch_execute(write).await.unwrap();
    let start = Instant::now();
    clients[1].batch_execute(write).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    // It is used up.
    let error = clients[2].batch_execute("SELECT pg_current_xact_id()").await.unwrap_err();
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("53300"), "{error:?}");
    assert_eq!(open(&gateway, "demo"), 2);
    for client in &clients[..2] {
        client.batch_execute("COMMIT").await.unwrap();
    }
    // Nobody waits: it is closed, and opened again for the next who does.
    eventually("the size", || open(&gateway, "demo") == 1);
    clients[0].batch_execute(write).await.unwrap();
    clients[1].batch_execute(write).await.unwrap();
    let (_, page) = gateway.admin("/metrics").unwrap();
    let name = "pointsman_checkout_reserve_total{cluster=\"main\",shard=\"main\",node=\"primary\"} ";
    let count = page.lines().find_map(|line| line.strip_prefix(name)).and_then(|count| count.parse::<u32>().ok());
    // The gateway itself may have waited as well, to read the catalogue.
    assert!(count.is_some_and(|count| (2..5).contains(&count)), "{count:?}");
}

#[tokio::test]
async fn missing_connections_are_opened_ahead() {
    if direct() {
        return;
    }
    let database = database("ahead");
    let role = format!("{database}_role");
    let gateway = Gateway::setup().pool("min_size = 5\nidle_timeout = \"1s\"").start();
    let primary = gateway.cluster.primary();
    primary.psql("postgres", &format!("CREATE ROLE {role} LOGIN")).unwrap();
    let client = connect(&gateway, &role, &database).await;
    eventually("five connections", || pool(&gateway, &role) == (5, 0));
    // They outlive idle_timeout, and what is lost comes back.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(pool(&gateway, &role), (5, 0));
    let sessions = || {
        let query = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
        primary.psql("postgres", &query).unwrap()
    };
    let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'");
    let limit = |limit: i32| primary.psql("postgres", &format!("ALTER ROLE {role} CONNECTION LIMIT {limit}")).unwrap();
    assert_eq!((primary.psql("postgres", &end).unwrap().as_str(), sessions().as_str() != "5"), ("5", true));
    eventually("five others", || sessions() == "5");
    // A server that refuses is not asked all the time.
    limit(1);
    primary.psql("postgres", &end).unwrap();
    eventually("the refusal to be said", || gateway.log().contains("could not be opened ahead"));
    let failures = || {
        let (_, page) = gateway.admin("/metrics").unwrap();
        let name = "pointsman_server_connect_failures_total{cluster=\"main\",shard=\"main\",node=\"primary\"} ";
        page.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse::<u32>().unwrap())
    };
    let before = failures();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Four at a time, after 1, 2 and 4 seconds.
    assert!(failures() - before <= 12, "{before}, then {}\n{}", failures(), gateway.log());
    limit(-1);
    // The next attempt may be as far away as the failures went on.
    let start = Instant::now();
    while sessions() != "5" {
        assert!(start.elapsed() < Duration::from_secs(120), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_server_gives_no_more_what_there_is_must_do() {
    if direct() {
        return;
    }
    let database = database("enough");
    let role = format!("{database}_role");
    let gateway = Gateway::setup().server("workers = 2").start();
    let psql = |text: &str| gateway.cluster.primary().psql("postgres", text).unwrap();
    psql(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1"));
    // One after the other, on either worker: the connection may be idle on the other, or on its way back.
    for _ in 0..6 {
        let client = connect(&gateway, &role, &database).await;
        client.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    }
    assert_eq!(open(&gateway, &role), 1);
    // All at once: they wait for each other.
    psql(&format!("ALTER ROLE {role} CONNECTION LIMIT 2"));
    let flood = Flood::start(&gateway, &role, &database, 12).await;
    eventually("all of them to get ahead", || flood.done() >= 100);
    assert!(open(&gateway, &role) <= 2);
    // When the server gives more again they have it.
    psql(&format!("ALTER ROLE {role} CONNECTION LIMIT -1"));
    eventually("more connections", || open(&gateway, &role) > 2);
    let last = connect(&gateway, &role, &database).await;
    flood.end().await;
    // A client that wants a server which has run nothing yet gets one in another's place.
    psql(&format!("ALTER ROLE {role} CONNECTION LIMIT 1"));
    psql(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"));
    for _ in 0..3 {
        let client = connect(&gateway, &role, &database).await;
        client.batch_execute("SET search_path = pg_temp, public").await.unwrap();
        client.batch_execute("CREATE TEMP TABLE t (a int)").await.unwrap();
    }
    eventually("the last of them to be gone", || open(&gateway, &role) <= 1);
    // Where there is none to wait for, the server's word is passed on.
    psql(&format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    psql(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"));
    let error = last.batch_execute("SELECT pg_current_xact_id()").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "53300", "{error}");
    assert!(error.message().contains("too many connections for role"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_refuses_one_user_costs_no_other_a_connection() {
    if direct() {
        return;
    }
    let database = database("apart");
    let role = format!("{database}_role");
    let gateway = Gateway::setup().start();
    let primary = gateway.cluster.primary();
    primary.psql("postgres", &format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 2")).unwrap();
    let other = Flood::start(&gateway, "demo", &database, 10).await;
    eventually("the other's connections", || other.done() >= 100);
    let pids = || {
        let query = format!(
            "SELECT coalesce(string_agg(pid::text, ',' ORDER BY pid), '') FROM pg_stat_activity
             WHERE usename = 'demo' AND datname = '{database}' AND backend_type = 'client backend'"
        );
        primary.psql("postgres", &query).unwrap()
    };
    let before = pids();
    let limited = Flood::start(&gateway, &role, &database, 8).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let kept = before.split(',').filter(|pid| pids().split(',').any(|now| now == *pid)).count();
    assert_eq!(kept, before.split(',').count(), "of {before} there are {}", pids());
    limited.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_lowered_hold_soon() {
    if direct() {
        return;
    }
    let database = database("lowered");
    let gateway = Gateway::setup().pool("size = 12").server("max_server_connections = 100").start();
    let flood = Flood::start(&gateway, "demo", &database, 12).await;
    eventually("as many as there are clients", || open(&gateway, "demo") == 12);
    let change = |from: &str, to: &str| {
        let text = std::fs::read_to_string(gateway.path("pointsman.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(gateway.path("pointsman.toml"), text.replace(from, to)).unwrap();
    };
    change("max_server_connections = 100", "max_server_connections = 3");
    eventually("the budget", || open(&gateway, "demo") <= 3);
    change("max_server_connections = 3", "max_server_connections = 100");
    eventually("the old budget", || open(&gateway, "demo") == 12);
    let before = flood.done();
    eventually("work to go on", || flood.done() >= before + 50);
    flood.end().await;
    // Also where they are idle.
    change("size = 12", "size = 4");
    eventually("the size", || open(&gateway, "demo") <= 4);
    change("max_server_connections = 100", "max_server_connections = 2");
    eventually("the budget of idle ones", || open(&gateway, "demo") <= 2);
}

#[tokio::test]
async fn connections_kept_open_are_not_in_the_way_of_drop_database() {
    if direct() {
        return;
    }
    let database = database("ahead_drop");
    let gateway = Gateway::setup().pool("min_size = 3").start();
    let admin = gateway.connect(&database).await;
    let other = format!("{database}_other");
    for _ in 0..2 {
        admin.batch_execute(&format!("CREATE DATABASE {other}")).await.unwrap();
        drop(gateway.connect(&other).await);
        eventually("connections ahead", || gateway.server_sessions(&other) >= 3);
        admin.batch_execute(&format!("DROP DATABASE {other}")).await.unwrap();
    }
}
