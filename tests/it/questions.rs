//! The question about a session's state comes between a statement and its answer: what the statement itself would not meet must not
//! show in it.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Gateway, Raw, cluster, database, direct, eventually, query, startup};

/// Locks a catalogue of `database` that no SET touches, past the gateway, until it ends.
fn lock_catalogues(database: &str) -> Raw {
    let mut admin = Raw::log_in(cluster().primary().port(), "postgres", database);
    assert_eq!(admin.ask("BEGIN; LOCK pg_cursors, pg_depend IN ACCESS EXCLUSIVE MODE"), "");
    admin
}

/// Its `lock_timeout` ended the session (08006): only that of `statement_timeout` and a cancel were taken for what they are.
#[test]
fn a_lock_timeout_of_the_clients_own_is_not_the_questions() {
    let database = database("question_lock_timeout");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SET lock_timeout = '50ms'"), "");
    let mut admin = lock_catalogues(&database);
    for (set, show, expected) in [
        ("SET work_mem = '5MB'", "SHOW work_mem", "5MB"),
        ("DO $$ BEGIN PERFORM set_config('work_mem', '6MB', false); END $$", "SHOW work_mem", "6MB"),
        ("SET lock_timeout = '60ms'", "SHOW lock_timeout", "60ms"),
    ] {
        assert_eq!(client.ask(set), "", "{set}\n{}", gateway.log());
        assert_eq!(client.ask(show), expected);
    }
    // What is not known is nobody else's.
    assert_eq!(other.ask("SHOW work_mem"), "4MB");
    admin.ask("ROLLBACK");
    assert_eq!(client.ask("SET lock_timeout = '70ms'"), "");
    assert_eq!(client.ask("SHOW lock_timeout"), "70ms");
    assert_eq!(client.ask("SHOW work_mem"), "6MB");
}

/// Without one the client waited for ever: its cancel requests were kept away, and its server stayed lent after it had gone.
#[test]
fn what_others_have_locked_is_not_waited_for() {
    let database = database("question_locked");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"20s\"").weights(0, 0).start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut admin = lock_catalogues(&database);
    let begun = Instant::now();
    assert_eq!(client.ask("SET work_mem = '5MB'"), "");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Asked again later, not with each statement.
    let begun = Instant::now();
    for n in 0..20 {
        assert_eq!(client.ask(&format!("SET work_mem = '{}MB'", 10 + n)), "");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(client.ask("SHOW work_mem"), "29MB");
    // One that has gone leaves its place, though not its server.
    drop(client);
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SHOW work_mem"), "4MB");
    assert_eq!(client.ask("SET work_mem = '5MB'"), "");
    let pinned = |cause: &str| gateway.status().to_string().contains(cause);
    eventually("the server to be kept", || pinned("a question that waits"));
    admin.ask("ROLLBACK");
    // Without a word of the client's.
    eventually("the question to be asked again", || !pinned("a question that waits"));
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(other.ask("SHOW work_mem"), "4MB");
    assert_eq!(client.ask("SHOW work_mem"), "5MB");
}

/// The question waited for the end of a transaction of somebody else's, as a statement that reads would.
#[test]
fn deferrable_by_default() {
    let database = database("question_deferrable");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut writer = Raw::log_in(cluster().primary().port(), "demo", &database);
    assert_eq!(writer.ask("CREATE TABLE t (a int)"), "");
    assert_eq!(writer.ask("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (1)"), "");
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let begun = Instant::now();
    for (set, show, expected) in [
        ("SET default_transaction_isolation = 'serializable'", "SHOW default_transaction_isolation", "serializable"),
        ("SET default_transaction_read_only = on", "SHOW default_transaction_read_only", "on"),
        ("SET default_transaction_deferrable = on", "SHOW default_transaction_deferrable", "on"),
        ("SET TimeZone = 'Asia/Tokyo'", "SHOW TimeZone", "Asia/Tokyo"),
    ] {
        assert_eq!(client.ask(set), "", "{set}\n{}", gateway.log());
        // Whoever comes next is not in its way, and is not in that of others.
        assert_eq!(other.ask("SELECT 1"), "1");
        assert_eq!(client.ask(show), expected);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// It kept the session on a replica, on which what came next was run, whatever it was: a write failed (25006).
#[test]
fn what_a_replica_cannot_do_waits_for_its_question() {
    if direct() {
        return;
    }
    let database = database("question_replica");
    let gateway = Gateway::setup().pool("size = 2").weights(1, 0).start();
    let mut client = Raw::connect(gateway.port);
    client.send(&startup(196_608, &[("user", "demo"), ("database", &database)]));
    let (_, key) = client.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap();
    assert_eq!(client.ask("CREATE TABLE t (a int)"), "");
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let kept = || gateway.status().to_string().contains("a question that waits");
    let keep = |client: &mut Raw| {
        let admin = lock_catalogues(&database);
        // A replica locks them as well once something was committed behind that.
        let flush = "SELECT pg_logical_emit_message(true, '', '')";
        cluster().primary().psql("postgres", flush).unwrap();
        cluster().wait_replayed().unwrap();
        eventually("the server to be kept", || {
            assert_eq!(client.ask("SET work_mem = '5MB'"), "");
            kept()
        });
        // Reads that it may answer go on.
        assert_eq!(client.ask("SHOW work_mem"), "5MB");
        admin
    };
    for (step, told) in [
        ("CREATE TEMP TABLE mine (a int)", ""),
        ("INSERT INTO t VALUES (1) RETURNING a", "1"),
        ("BEGIN", ""),
        ("SELECT pg_advisory_lock(1)", ""),
    ] {
        let mut admin = keep(&mut client);
        let releases = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2500));
            admin.ask("ROLLBACK")
        });
        assert_eq!(client.ask(step), told, "{step}\n{}", gateway.log());
        assert_eq!(releases.join().unwrap(), "");
        assert_eq!(client.ask("SELECT pg_is_in_recovery()"), "f", "{step}");
        assert_eq!(client.ask("SHOW work_mem"), "5MB");
        for step in ["ROLLBACK", "DISCARD TEMP", "SELECT pg_advisory_unlock_all()"] {
            assert_eq!(client.ask(step), "", "{step}");
        }
        assert_eq!(other.ask("SHOW work_mem"), "4MB");
    }
    // What waits can be cancelled.
    let mut admin = keep(&mut client);
    client.send(&query("INSERT INTO t VALUES (2)"));
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(200));
    Raw::connect(gateway.port).send(&[&[0, 0, 0, 16], &80_877_102_u32.to_be_bytes(), &*key].concat());
    assert_eq!(client.first(), "57014");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(admin.ask("ROLLBACK"), "");
    assert_eq!(client.ask("SELECT sum(a) FROM t"), "1");
}
