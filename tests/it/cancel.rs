//! A cancel request reaches the statement it was meant for, and no other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::support::{Gateway, Raw, cluster, database, direct, eventually, query, sqlstate, startup};

#[tokio::test]
async fn only_the_right_statement_is_cancelled() {
    let database = database("cancel");
    let gateway = Gateway::setup().pool("size = 4").start();
    let (one, two) = (gateway.connect(&database).await, gateway.connect(&database).await);
    let token = one.cancel_token();
    let start = Instant::now();
    let sleeping = one.batch_execute("SELECT pg_sleep(60)");
    let other = two.batch_execute("SELECT pg_sleep(2)");
    let cancel = async {
        // The statement must have arrived before it can be cancelled; a cancel that comes too early is lost by design.
        loop {
            token.cancel_query(NoTls).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            if start.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
    };
    let (cancelled, spared, ()) = tokio::join!(sleeping, other, cancel);
    assert_eq!(cancelled.unwrap_err().code().unwrap().code(), "57014");
    spared.unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    // Nothing of it strikes what comes later, on whichever server.
    for client in [&one, &two] {
        for _ in 0..20 {
            client.batch_execute("SELECT pg_sleep(0.005)").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_statement_that_waits_for_a_server_is_cancelled_too() {
    if direct() {
        return;
    }
    let database = database("cancel_wait");
    let gateway = Gateway::setup().pool("size = 1").start();
    let (holder, waiter) = (gateway.connect(&database).await, gateway.connect(&database).await);
    holder.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    holder.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let token = waiter.cancel_token();
    let mut waiting = std::pin::pin!(waiter.batch_execute("INSERT INTO t VALUES (2)"));
    let cancelled = loop {
        token.cancel_query(NoTls).await.unwrap();
        if let Ok(result) = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await {
            break result;
        }
    };
    assert_eq!(cancelled.unwrap_err().code().unwrap().code(), "57014");
    holder.batch_execute("COMMIT").await.unwrap();
    waiter.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
}

#[tokio::test]
async fn a_forged_key_cancels_nothing() {
    let database = database("cancel_forged");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    let sleeping = client.batch_execute("SELECT pg_sleep(1)");
    let port = gateway.port;
    let forge = async {
        for pid in 1..200_u32 {
            let mut raw = Raw::connect(port);
            raw.send(
                &[&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &pid.to_be_bytes(), &[1, 2, 3, 4]].concat(),
            );
        }
    };
    let (slept, ()) = tokio::join!(sleeping, forge);
    slept.unwrap();
}

#[tokio::test]
async fn a_cancel_that_comes_after_the_answer_strikes_nothing() {
    let database = database("cancel_late");
    let gateway = Gateway::setup().pool("size = 2").start();
    let client = gateway.connect(&database).await;
    let token = client.cancel_token();
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    for n in 0..200 {
        // Each brings a question about the session's state, asked when the client has its answer.
        let statement = match n % 3 {
            0 => "SET work_mem = '5MB'",
            1 => "DO $$ BEGIN END $$",
            _ => "SELECT set_config('work_mem', '6MB', false)",
        };
        // The driver does not wait until its request was taken: what comes next may be struck, as on a server itself.
        for sql in [statement, "SELECT 1"] {
            if let Err(error) = client.batch_execute(sql).await {
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                assert_eq!(code, Some("57014"), "{n}, {sql}: {error:?}\n{}", gateway.log());
            }
            if sql == statement {
                token.cancel_query(NoTls).await.unwrap();
            }
        }
    }
    assert!(!client.is_closed());
}

/// A session hears of nothing but 57014, whatever of the gateway's own stands behind its answers when they come: settings that
/// are brought back, plans that are discarded.
#[test]
fn late_cancels_and_short_time_outs_end_no_session() {
    let database = database("cancel_behind");
    let log = "[log]\nlevel = \"info,pointsman::gateway::private=debug\"";
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).more(log).start();
    let hits = || gateway.log().matches("a question was hit").count();
    let cases: [&[&str]; 4] = [
        &["SET TimeZone = 'Asia/Tokyo'", "SET TimeZone = 'UTC'"],
        &["SELECT 1", "BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", "SELECT 2", "COMMIT"],
        &["SET application_name = 'other'", "RESET ALL"],
        &["CREATE TEMP TABLE q (a int)", "DROP TABLE q", "DISCARD ALL"],
    ];
    for case in cases {
        let stop = AtomicBool::new(false);
        let mut client = Raw::connect(gateway.port);
        let options = [("user", "demo"), ("database", &*database), ("options", "-c DateStyle=German")];
        client.send(&startup(196_608, &options));
        let key = client.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
        let cancel = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &key].concat();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut raw = Raw::connect(gateway.port);
                    raw.send(&cancel);
                    raw.rest();
                }
            });
            let begun = Instant::now();
            let failed = 'all: loop {
                for text in case {
                    client.send(&query(text));
                    loop {
                        match client.message() {
                            Some((b'E', error)) if sqlstate(&error) == "57014" || sqlstate(&error) == "25P02" => {}
                            // What was cancelled is missed.
                            Some((b'E', error)) if ["42P01", "42P07"].contains(&&*sqlstate(&error)) => {}
                            Some((b'E', error)) => {
                                break 'all Some((*text, String::from_utf8_lossy(&error).into_owned()));
                            }
                            Some((b'Z', _)) => break,
                            Some(_) => {}
                            None => break 'all Some((*text, "closed".to_owned())),
                        }
                    }
                }
                if begun.elapsed() > Duration::from_secs(2) {
                    break None;
                }
            };
            stop.store(true, Ordering::Relaxed);
            assert_eq!(failed, None, "{case:?}\n{}", gateway.log());
        });
    }
    assert_ne!(hits(), 0, "no cancel request came between a statement and its answer");
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SET statement_timeout = 1"), "");
    // A millisecond may be too short for any statement.
    let ask = |client: &mut Raw, text: &str| {
        let mut told = (0..1000).map(|_| client.ask(text));
        told.find(|told| told != "57014").unwrap_or_default()
    };
    for n in 0..1000 {
        let zone = if n % 2 == 0 { "Asia/Tokyo" } else { "UTC" };
        let answer = client.ask(&format!("SET TimeZone = '{zone}'"));
        assert!(["", "57014"].contains(&&*answer), "{n}: {answer}");
        if answer.is_empty() {
            assert_eq!(ask(&mut client, "SHOW TimeZone"), zone);
        }
    }
    assert_eq!(ask(&mut client, "SHOW statement_timeout"), "1ms");
    // What the question waits for is locked until it was hit: by the time-out, by a cancel request.
    let mut watcher = Raw::log_in(cluster().primary().port(), "postgres", &database);
    let mut hit_once = |client: &mut Raw, cancel: &[u8]| {
        let mut admin = Raw::log_in(cluster().primary().port(), "postgres", &database);
        assert_eq!(admin.ask("BEGIN; LOCK pg_cursors IN ACCESS EXCLUSIVE MODE"), "");
        let before = hits();
        client.send(&query("SET TimeZone = 'Europe/Berlin'"));
        if !cancel.is_empty() {
            let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'pg_cursors'::regclass AND NOT granted";
            eventually("a question to wait", || watcher.ask(waits) == "1");
            let mut raw = Raw::connect(gateway.port);
            raw.send(cancel);
            raw.rest();
        }
        eventually("a question to be hit", || hits() > before);
        admin.ask("ROLLBACK");
        assert_eq!(client.first(), "", "{}", gateway.log());
        assert_eq!(client.ask("SHOW TimeZone"), "Europe/Berlin");
    };
    // Enough for the statement itself.
    assert_eq!(ask(&mut client, "SET statement_timeout = '300ms'"), "");
    hit_once(&mut client, b"");
    assert_eq!(client.ask("SHOW statement_timeout"), "300ms");
    let mut client = Raw::connect(gateway.port);
    client.send(&startup(196_608, &[("user", "demo"), ("database", &*database)]));
    let key = client.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
    hit_once(&mut client, &[&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &key].concat());
}

/// A request that the gateway had sent and given up lay in the postmaster's queue, and struck who had the server by then.
#[test]
fn a_cancel_that_arrives_late_strikes_nobody_else() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(0).start(|_| {}).unwrap();
    let gateway = Gateway::in_front_of(&cluster)
        .pool("size = 1\nconnect_timeout = \"1s\"")
        .main("tls = { mode = \"disable\" }")
        .start();
    let mut one = Raw::connect(gateway.port);
    one.send(&startup(196_608, &[("user", "demo"), ("database", "demo")]));
    let key = one.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
    let mut two = Raw::log_in(gateway.port, "demo", "demo");
    let mut watcher = Raw::log_in(cluster.primary().port(), "postgres", "demo");
    let mut runs = |what: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()";
        watcher.ask(&format!("{sql} AND query LIKE '%{what}%'")) == "1"
    };
    one.send(&query("SELECT pg_sleep(0.7) /* first */"));
    eventually("the statement runs", || runs("/* first */"));
    // The postmaster alone: its backends work on.
    let postmaster = rustix::process::Pid::from_raw(i32::try_from(cluster.primary().pid().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(postmaster, rustix::process::Signal::STOP).unwrap();
    let mut cancel = Raw::connect(gateway.port);
    cancel.send(&[&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &key].concat());
    assert_eq!(one.first(), "");
    two.send(&query("SELECT 'two' FROM pg_sleep(1) /* second */"));
    eventually("the request to be given up", || gateway.log().contains("could not be passed on"));
    // On the server that the first had, were it lent to it; otherwise it waits for another.
    let begun = Instant::now();
    eventually("the second runs or waits", || runs("/* second */") || begun.elapsed() > Duration::from_millis(300));
    rustix::process::kill_process(postmaster, rustix::process::Signal::CONT).unwrap();
    assert_eq!(two.first(), "two", "{}", gateway.log());
}
