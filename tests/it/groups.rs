//! What one message group, query string or READ ONLY transaction may hold, byte by byte: each works as it does on PostgreSQL
//! itself, whichever node it began on.

use crate::support::{Gateway, Raw, database, direct, message, query, sqlstate, sync};

const WHERE: &str = "SELECT current_setting('cluster_name')";

fn parse(text: &str) -> Vec<u8> {
    message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat())
}

fn bind(values: &[&str]) -> Vec<u8> {
    let mut body = b"\0\0\0\0".to_vec();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

/// Parse, Bind and Execute of a statement without parameters.
fn run(text: &str) -> Vec<u8> {
    [parse(text), bind(&[]), message(b'E', b"\0\0\0\0\0")].concat()
}

fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Tags, errors as their SQLSTATE, rows as their only value.
fn brief(messages: &[(u8, Vec<u8>)]) -> String {
    let one = |(tag, body): &(u8, Vec<u8>)| match tag {
        b'E' => sqlstate(body),
        b'D' => format!("[{}]", String::from_utf8_lossy(&body[6..])),
        b'Z' => format!("Z{}", char::from(body[0])),
        tag => char::from(*tag).to_string(),
    };
    messages.iter().map(one).collect::<Vec<_>>().join(" ")
}

struct Test {
    database: String,
    gateway: Gateway<'static>,
}

impl Test {
    fn new(label: &str) -> Self {
        let database = database(label);
        let gateway = Gateway::start();
        gateway.query(&database, "CREATE TABLE t (n int)");
        gateway.replicas_serve(&database);
        Self { database, gateway }
    }

    fn client(&self) -> Raw {
        Raw::log_in(self.gateway.port, "demo", &self.database)
    }

    /// What each send brings, up to its ReadyForQuery. Thrice, for two replicas take turns.
    #[track_caller]
    fn check(&self, sends: &[Vec<u8>], expected: &[&str]) {
        for _ in 0..3 {
            let mut client = self.client();
            for (send, expected) in sends.iter().zip(expected) {
                client.send(send);
                let shown = String::from_utf8_lossy(&send[..send.len().min(120)]).into_owned();
                assert_eq!(brief(&client.until(b'Z')), *expected, "{shown:?}");
            }
        }
    }

    /// Where a client's next read is answered, or its transaction is.
    fn node(client: &mut Raw) -> String {
        client.send(&query(WHERE));
        brief(&client.until(b'Z'))
    }
}

/// A Query may stand in place of a Sync, and has its own ReadyForQuery; what stands before it is nevertheless answered.
#[test]
fn a_refused_query_at_a_groups_end_fails_alone() {
    if direct() {
        return;
    }
    let database = database("refused_end");
    let gateway = Gateway::setup().pool("mode = \"statement\"").start();
    gateway.query(&database, "CREATE TABLE t (n int)");
    for pinned in [false, true] {
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        if pinned {
            client.send(&query("CREATE TEMP TABLE mine (n int)"));
            assert_eq!(brief(&client.until(b'Z')), "C ZI");
        }
        for (group, expected) in [
            ([run("SELECT 1"), query("BEGIN")].concat(), "1 2 [1] C 0A000 ZI"),
            ([run("SELECT 1"), flush(), query("BEGIN")].concat(), "1 2 [1] C 0A000 ZI"),
            ([run("INSERT INTO t VALUES (1)"), run("SELECT 2"), query("BEGIN")].concat(), "1 2 C 1 2 [2] C 0A000 ZI"),
            ([parse("SELECT 3"), query("BEGIN")].concat(), "1 0A000 ZI"),
            // Skipped with what failed before it, up to the Sync.
            ([run("SELECT 1/0"), query("BEGIN"), sync()].concat(), "1 22012 ZI"),
            // Refused itself, what stands first, and all that stands behind it.
            ([run("BEGIN"), query("SELECT 4"), sync()].concat(), "0A000 ZI"),
            ([run("BEGIN"), query("BEGIN"), sync()].concat(), "0A000 ZI"),
            // And what is pipelined behind it.
            ([run("SELECT 5"), query("BEGIN"), query("SELECT 6")].concat(), "1 2 [5] C 0A000 ZI"),
        ] {
            client.send(&group);
            assert_eq!(brief(&client.until(b'Z')), expected, "pinned: {pinned}");
            if expected.contains("[5]") {
                assert_eq!(brief(&client.until(b'Z')), "T [6] C ZI", "pinned: {pinned}");
            }
            client.send(&query("SELECT 7"));
            assert_eq!(brief(&client.until(b'Z')), "T [7] C ZI", "pinned: {pinned}");
        }
    }
    assert_eq!(gateway.query(&database, "SELECT count(*) FROM t"), "0");
}

#[test]
fn a_transaction_may_write_wherever_its_begin_stands() {
    let test = Test::new("begins");
    let insert = "INSERT INTO t VALUES (1)";
    let both = |a: &str, b: &str| [run(a), run(b), sync()].concat();
    for (first, answer) in [
        // As pgjdbc does without autocommit.
        (both("BEGIN", "SELECT count(*) >= 0 FROM t"), "1 2 C 1 2 [t] C ZT"),
        (both("SELECT 1", "BEGIN"), "1 2 [1] C 1 2 C ZT"),
        (query("BEGIN; SELECT 1"), "C T [1] C ZT"),
        (query("SELECT 1; BEGIN"), "T [1] C C ZT"),
        (query("START TRANSACTION; SET LOCAL search_path = public; SELECT 1"), "C C T [1] C ZT"),
        (query("BEGIN READ ONLY; SELECT 1; COMMIT; BEGIN; SELECT 1"), "C T [1] C C C T [1] C ZT"),
        ([query("BEGIN READ ONLY"), query("SET LOCAL transaction_read_only = off")].concat(), "C ZT"),
    ] {
        let extra = usize::from(first.ends_with(b"off\0"));
        for _ in 0..3 {
            let mut client = test.client();
            client.send(&first);
            assert_eq!(brief(&client.until(b'Z')), answer);
            for _ in 0..extra {
                assert_eq!(brief(&client.until(b'Z')), "C ZT");
            }
            for (send, answer) in [(query(insert), "C ZT"), (query("COMMIT"), "C ZI")] {
                client.send(&send);
                assert_eq!(brief(&client.until(b'Z')), answer, "{}", String::from_utf8_lossy(&first));
            }
        }
    }
    if !direct() {
        // One that is certainly READ ONLY is a replica's.
        for unit in [query(&format!("BEGIN READ ONLY; {WHERE}")), both("BEGIN READ ONLY", WHERE)] {
            let mut client = test.client();
            client.send(&unit);
            let answer = brief(&client.until(b'Z'));
            assert!(answer.contains("[r1]") || answer.contains("[r2]"), "{answer}");
        }
    }
}

#[test]
fn a_group_that_is_cut_short_may_write_later() {
    let test = Test::new("cut");
    let insert = [run("INSERT INTO t VALUES (1)"), sync()].concat();
    let select = "SELECT length($1)";
    let padded = || [parse(select), bind(&[&"z".repeat(500)]), message(b'E', b"\0\0\0\0\0")].concat();
    for _ in 0..3 {
        // By the limit: 64 KiB and a little more.
        let mut client = test.client();
        client.send(&[(0..200).flat_map(|_| padded()).collect(), insert.clone()].concat());
        let answer = brief(&client.until(b'Z'));
        assert!(answer.ends_with("[500] C 1 2 C ZI"), "{answer}");
        // By a Flush behind two reads, and behind the Parse of two.
        // And behind one read that runs, as psycopg's pipelines do.
        let two = [[run("SELECT 1"), run("SELECT 2")].concat(), [parse("SELECT 1"), parse("SELECT 2")].concat()];
        for prefix in [&two[..], &[run("SELECT 1")]].concat() {
            let mut client = test.client();
            client.send(&[prefix, flush()].concat());
            client.until(b'1');
            client.send(&insert);
            let answer = brief(&client.until(b'Z'));
            assert!(answer.ends_with("1 2 C ZI"), "{answer}");
        }
        // A write after a Flush behind its Parse.
        let mut client = test.client();
        client.send(&[parse("INSERT INTO t VALUES (2)"), message(b'D', b"S\0"), flush()].concat());
        assert_eq!(brief(&client.until(b'n')), "1 t n");
        client.send(&[bind(&[]), message(b'E', b"\0\0\0\0\0"), sync()].concat());
        assert_eq!(brief(&client.until(b'Z')), "2 C ZI");
    }
    // What a driver does that asks for the types of a table's columns, waits, and copies into it or writes otherwise.
    for _ in 0..3 {
        for (then, answer) in [
            (vec![query("INSERT INTO t VALUES (3)")], "C ZI"),
            (vec![run("INSERT INTO t VALUES (3)"), sync()], "1 2 C ZI"),
            (
                vec![bind(&[]), message(b'E', b"\0\0\0\0\0"), flush(), run("INSERT INTO t VALUES (3)"), sync()],
                "2 [1] C 1 2 C ZI",
            ),
            (vec![query("COPY t FROM STDIN"), message(b'd', b"4\n"), message(b'c', b"")], "G C ZI"),
            (vec![query("BEGIN"), query("INSERT INTO t VALUES (5)"), query("COMMIT")], "C ZT C ZT C ZI"),
        ] {
            let mut client = test.client();
            client.send(
                &[parse("SELECT count(*) / count(*) FROM generate_series(1, 2)"), message(b'D', b"S\0"), flush()]
                    .concat(),
            );
            assert_eq!(brief(&client.until(b'T')), "1 t T");
            let syncs = answer.matches('Z').count();
            client.send(&then.concat());
            let answers: Vec<_> = (0..syncs).map(|_| brief(&client.until(b'Z'))).collect();
            assert_eq!(answers.join(" "), answer);
            // The session goes on.
            client.send(&[run("SELECT 7"), sync()].concat());
            assert_eq!(brief(&client.until(b'Z')), "1 2 [7] C ZI");
        }
    }
    // In a transaction block it stays where that is.
    let mut client = test.client();
    client.send(&query("BEGIN READ ONLY"));
    client.until(b'Z');
    client.send(&[parse("SELECT 1"), message(b'D', b"S\0"), flush()].concat());
    assert_eq!(brief(&client.until(b'T')), "1 t T");
    client.send(&[bind(&[]), message(b'E', b"\0\0\0\0\0"), flush()].concat());
    assert_eq!(brief(&client.until(b'C')), "2 [1] C");
    client.send(&[run("INSERT INTO t VALUES (6)"), sync()].concat());
    assert_eq!(brief(&client.until(b'Z')), "1 2 25006 ZE");
    if !direct() {
        // To ask what a read is like, and then to run it, is a replica's work all the same.
        let mut client = test.client();
        client.send(&[parse(WHERE), message(b'D', b"S\0"), flush()].concat());
        client.until(b'T');
        client.send(&[bind(&[]), message(b'E', b"\0\0\0\0\0"), sync()].concat());
        let answer = brief(&client.until(b'Z'));
        assert!(answer.contains("[r1]") || answer.contains("[r2]"), "{answer}");
    }
}

#[test]
fn a_flush_of_nothing_is_nothing() {
    let test = Test::new("flushes");
    let mut client = test.client();
    client.send(&[flush(), query("SELECT 1")].concat());
    assert_eq!(brief(&client.until(b'Z')), "T [1] C ZI");
    client.send(&[run("INSERT INTO t VALUES (1)"), sync(), flush()].concat());
    assert_eq!(brief(&client.until(b'Z')), "1 2 C ZI");
    client.send(&query("SELECT count(*) FROM t"));
    assert_eq!(brief(&client.until(b'Z')), "T [1] C ZI");
    if direct() {
        return;
    }
    // It holds no server.
    client.send(&[run("INSERT INTO t VALUES (1)"), sync(), flush()].concat());
    client.until(b'Z');
    let lent = |status: &serde_json::Value| {
        let pools = status["clusters"][0]["pools"].as_array().unwrap().clone();
        pools.iter().map(|pool| pool["lent"].as_u64().unwrap()).sum::<u64>()
    };
    let start = std::time::Instant::now();
    while lent(&test.gateway.status()) > 0 {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{}", test.gateway.status());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_query_ends_the_group_before_it() {
    let test = Test::new("no_sync");
    let count = query("SELECT count(*) FROM t");
    // FunctionCall of int4pl(2, 3), text in and out.
    let call = message(
        b'F',
        &[&177_u32.to_be_bytes()[..], &[0, 0, 0, 2, 0, 0, 0, 1], b"2", &[0, 0, 0, 1], b"3", &[0, 0]].concat(),
    );
    test.check(&[[run("SELECT 1"), query("SELECT 2")].concat()], &["1 2 [1] C T [2] C ZI"]);
    test.check(&[[run("SELECT 1"), call.clone()].concat()], &["1 2 [1] C V ZI"]);
    test.check(&[[run("SELECT 1"), query("BEGIN")].concat(), count.clone()], &["1 2 [1] C C ZT", "T [0] C ZT"]);
    // It is one transaction.
    test.check(
        &[[run("INSERT INTO t VALUES (1)"), query("SELECT 1/0")].concat(), count.clone()],
        &["1 2 C 22012 ZI", "T [0] C ZI"],
    );
    // After an error it is skipped, sent at once or when the error has been read.
    let fails = "1 22012 ZI";
    for skipped in [query("INSERT INTO t VALUES (1)"), call] {
        test.check(&[[run("SELECT 1/0"), skipped.clone(), sync()].concat(), count.clone()], &[fails, "T [0] C ZI"]);
        for flushed in [true, false] {
            let mut client = test.client();
            client.send(&[run("SELECT 1/0"), if flushed { flush() } else { skipped.clone() }].concat());
            assert_eq!(brief(&client.until(b'E')), "1 22012");
            client.send(&[skipped.clone(), run("SELECT 3"), skipped.clone()].concat());
            client.send(&sync());
            assert_eq!(brief(&client.until(b'Z')), "ZI");
            client.send(&count);
            assert_eq!(brief(&client.until(b'Z')), "T [0] C ZI");
        }
    }
    // Behind a Flush, and behind a group that is still in flight.
    let mut client = test.client();
    client.send(&[run("SELECT 1"), flush()].concat());
    assert_eq!(brief(&client.until(b'C')), "1 2 [1] C");
    client.send(&query("SELECT 2"));
    assert_eq!(brief(&client.until(b'Z')), "T [2] C ZI");
    client.send(&[run("SELECT pg_sleep(0.3)::text"), sync(), run("SELECT 1"), flush(), query("SELECT 2")].concat());
    assert_eq!(brief(&client.until(b'Z')), "1 2 [] C ZI");
    assert_eq!(brief(&client.until(b'Z')), "1 2 [1] C T [2] C ZI");
}

#[test]
fn a_client_that_will_send_no_more_is_answered() {
    let test = Test::new("half_close");
    let terminate = message(b'X', b"");
    let slow = query("SELECT pg_sleep(1)::text");
    for (sent, expected) in [
        (query("SELECT 1"), "T [1] C ZI"),
        ([query("SELECT 1"), terminate.clone()].concat(), "T [1] C ZI"),
        ([query("SELECT 1"), query("SELECT 2")].concat(), "T [1] C ZI T [2] C ZI"),
        ([slow.clone(), query("INSERT INTO t VALUES (7)"), query("SELECT 2")].concat(), "T [] C ZI C ZI T [2] C ZI"),
        ([slow, terminate].concat(), "T [] C ZI"),
        ([query("BEGIN; INSERT INTO t VALUES (8)")].concat(), "C C ZT"),
        ([run("SELECT 1"), flush()].concat(), "1 2 [1] C"),
        ([run("SELECT 1"), sync(), run("SELECT 2"), sync()].concat(), "1 2 [1] C ZI 1 2 [2] C ZI"),
        // The beginning of a message.
        ([query("SELECT 1"), vec![b'Q', 0, 0]].concat(), "T [1] C ZI"),
    ] {
        let mut client = test.client();
        client.send(&sent);
        client.close_writing();
        assert_eq!(brief(&client.rest()), expected, "{}", String::from_utf8_lossy(&sent));
    }
    // What was done and not committed is gone, the rest is there.
    assert_eq!(test.gateway.query(&test.database, "SELECT sum(n) FROM t"), "7");
    // A client that vanished looks like one that awaits its answer: the wait has an end, and it is told.
    if !direct() {
        for (slow, state) in [("SELECT pg_sleep(60)", "57014"), ("INSERT INTO t SELECT 0 FROM pg_sleep(9)", "08007")] {
            let mut client = test.client();
            client.send(&query(slow));
            client.close_writing();
            let answer = brief(&client.rest());
            assert!(answer.ends_with(state), "{slow}: {answer}");
        }
    }
    // An answer that takes many reads.
    let mut client = test.client();
    client.send(&[query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"), message(b'X', b"")].concat());
    client.close_writing();
    let answer = client.rest();
    assert_eq!((answer.len(), answer.last().map(|last| last.0)), (20_003, Some(b'Z')));
}

#[test]
fn a_half_closed_client_may_read_slowly() {
    let test = Test::new("half_close_slow");
    let mut client = test.client();
    client.send(&query("SELECT repeat('x', 10000) FROM generate_series(1, 3000)"));
    client.close_writing();
    // Far longer than a client that vanished is waited for, and less at a time than the system holds for it.
    let start = std::time::Instant::now();
    let mut rows = 0;
    while start.elapsed() < std::time::Duration::from_secs(8) {
        rows += usize::from(client.message().is_some_and(|(tag, _)| tag == b'D'));
        std::thread::sleep(std::time::Duration::from_millis(40));
    }
    let rest = client.rest();
    rows += rest.iter().filter(|(tag, _)| *tag == b'D').count();
    assert_eq!((rows, rest.last().map(|last| last.0)), (3000, Some(b'Z')));
}

#[test]
fn a_half_closed_client_waits_for_its_turn() {
    if direct() {
        return;
    }
    let database = database("half_close_queue");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut holds = Raw::log_in(gateway.port, "demo", &database);
    holds.send(&query("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1)"));
    assert_eq!(brief(&holds.until(b'Z')), "C C C ZT");
    let mut waits = Raw::log_in(gateway.port, "demo", &database);
    waits.send(&query("INSERT INTO t VALUES (2)"));
    waits.close_writing();
    let start = std::time::Instant::now();
    while !gateway.status()["clusters"][0]["pools"].as_array().unwrap().iter().any(|pool| pool["waiting"] == 1) {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{}", gateway.status());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    holds.send(&query("COMMIT"));
    assert_eq!(brief(&holds.until(b'Z')), "C ZI");
    assert_eq!(brief(&waits.rest()), "C ZI");
    // But not for long: one that vanished looks the same, and what it sent would be done for nobody.
    holds.send(&query("BEGIN; INSERT INTO t VALUES (3)"));
    assert_eq!(brief(&holds.until(b'Z')), "C C ZT");
    let mut waits = Raw::log_in(gateway.port, "demo", &database);
    waits.send(&query("INSERT INTO t VALUES (4)"));
    waits.close_writing();
    assert_eq!(brief(&waits.rest()), "57014");
    holds.send(&query("COMMIT"));
    assert_eq!(brief(&holds.until(b'Z')), "C ZI");
    // Of the primary: this is another session, and a replica may be behind.
    assert_eq!(gateway.cluster.primary().psql(&database, "SELECT sum(n) FROM t").unwrap(), "6");
}

#[test]
fn what_means_nothing_on_a_replica_is_not_done_there() {
    let test = Test::new("read_only");
    let lock = "SELECT pg_try_advisory_lock(4242)";
    let begin = query("BEGIN READ ONLY");
    // As the first statement it takes the transaction to the primary, and one session gets the lock.
    let (mut one, mut two) = (test.client(), test.client());
    for (client, got) in [(&mut one, "T [t] C ZT"), (&mut two, "T [f] C ZT")] {
        client.send(&begin);
        assert_eq!(brief(&client.until(b'Z')), "C ZT");
        client.send(&query(lock));
        assert_eq!(brief(&client.until(b'Z')), got);
    }
    if direct() {
        return;
    }
    let on_replica = || {
        let mut client = test.client();
        client.send(&begin);
        client.until(b'Z');
        let node = Test::node(&mut client);
        assert!(node.contains("[r1]") || node.contains("[r2]"), "{node}");
        client
    };
    for refused in [
        lock,
        "SELECT pg_advisory_xact_lock(4242)",
        "PREPARE p AS SELECT pg_advisory_lock(4242)",
        "DO $$ BEGIN PERFORM pg_advisory_lock(4242); END $$",
        "SELECT pg_export_snapshot()",
    ] {
        for unit in
            [query(refused), [run(refused), sync()].concat(), [run("SELECT 1"), flush(), run(refused), sync()].concat()]
        {
            let mut client = on_replica();
            client.send(&unit);
            let answer = brief(&client.until(b'Z'));
            assert!(answer.ends_with("0A000 ZE"), "{refused}: {answer}");
            client.send(&query("ROLLBACK"));
            assert_eq!(brief(&client.until(b'Z')), "C ZI");
        }
    }
    // There is none to be given back there, which is what a server without them says.
    for (let_through, answer) in [
        // With a warning.
        ("SELECT pg_advisory_unlock(4242)", "N [f] C"),
        ("SELECT pg_advisory_unlock_all()", "[] C"),
        ("DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$", "C"),
    ] {
        let mut client = on_replica();
        client.send(&[run(let_through), sync()].concat());
        assert_eq!(brief(&client.until(b'Z')), format!("1 2 {answer} ZT"), "{let_through}");
        let node = Test::node(&mut client);
        assert!(!node.contains("[primary]"), "{node}");
    }
    // Who holds one is where it is held.
    let mut client = test.client();
    for (text, answer) in [
        ("SELECT pg_try_advisory_lock(4243)", "T [t] C ZI"),
        ("BEGIN READ ONLY", "C ZT"),
        ("SELECT 1", "T [1] C ZT"),
        ("SELECT pg_advisory_unlock(4243)", "T [t] C ZT"),
        ("COMMIT", "C ZI"),
    ] {
        client.send(&query(text));
        assert_eq!(brief(&client.until(b'Z')), answer, "{text}");
    }
    // A group that a Flush cuts short is the primary's.
    let mut client = test.client();
    client.send(&[run(WHERE), flush()].concat());
    assert_eq!(brief(&client.until(b'C')), "1 2 [primary] C");
    client.send(&[run(lock), sync()].concat());
    assert_eq!(brief(&client.until(b'Z')), "1 2 [f] C ZI");
    // A Query that ends one is skipped where the rest failed.
    client.send(&[run("SELECT 1/0"), flush(), query(lock), sync(), query("SELECT 2")].concat());
    assert_eq!(brief(&client.until(b'Z')), "1 22012 ZI");
    assert_eq!(brief(&client.until(b'Z')), "T [2] C ZI");
}

#[test]
fn a_portal_with_a_name_outlives_a_statement_that_waits() {
    let test = Test::new("portal");
    let execute = message(b'E', b"p\0\0\0\0\0");
    let named = |text: &str| [parse(text), message(b'B', b"p\0\0\0\0\0\0\0\0"), execute.clone(), sync()].concat();
    let again = || [execute.clone(), sync()].concat();
    let describe = || [message(b'D', b"Pp\0"), sync()].concat();
    for text in ["BEGIN", "START TRANSACTION READ ONLY"] {
        test.check(&[named(text), again(), query("ROLLBACK")], &["1 2 C ZT", "55000 ZE", "C ZI"]);
    }
    for text in ["SET TRANSACTION READ ONLY", "SET LOCAL work_mem = '1MB'", "SAVEPOINT a"] {
        let begin = query("BEGIN");
        test.check(
            &[begin.clone(), named(text), describe(), again(), query("ROLLBACK")],
            &["C ZT", "1 2 C ZT", "n ZT", "55000 ZE", "C ZI"],
        );
        test.check(
            &[begin, named(text), query("SELECT 1"), again(), query("ROLLBACK")],
            &["C ZT", "1 2 C ZT", "T [1] C ZT", "55000 ZE", "C ZI"],
        );
    }
}

#[test]
fn copy_data_of_no_copy_is_ignored() {
    let test = Test::new("stray");
    let (data, done, fail) = (message(b'd', b"5\n"), message(b'c', b""), message(b'f', b"no\0"));
    for stray in [&data, &done, &fail] {
        let stray = stray.clone();
        test.check(&[[stray.clone(), sync()].concat()], &["ZI"]);
        test.check(&[[run("SELECT 1"), stray.clone(), sync()].concat()], &["1 2 [1] C ZI"]);
        test.check(&[[run("SELECT 1"), stray.clone(), query("SELECT 3")].concat()], &["1 2 [1] C T [3] C ZI"]);
        test.check(&[[run("SELECT 1"), stray.clone(), run("SELECT 2"), sync()].concat()], &["1 2 [1] C 1 2 [2] C ZI"]);
        test.check(&[[run("SELECT 1/0"), stray.clone(), sync()].concat()], &["1 22012 ZI"]);
        test.check(&[[query("SELECT 1"), stray, sync()].concat(), query("SELECT 2")], &["T [1] C ZI", "ZI"]);
    }
}

#[test]
fn a_snapshot_passes_from_session_to_session() {
    let test = Test::new("snapshot");
    for _ in 0..3 {
        let (mut exports, mut imports) = (test.client(), test.client());
        for client in [&mut exports, &mut imports] {
            client.send(&query("BEGIN"));
            client.until(b'Z');
            // As pg_dump does.
            client.send(&query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"));
            assert_eq!(brief(&client.until(b'Z')), "C ZT");
        }
        exports.send(&query("SELECT pg_catalog.pg_export_snapshot()"));
        let answer = brief(&exports.until(b'Z'));
        let snapshot = answer.split(['[', ']']).nth(1).unwrap_or_else(|| panic!("{answer}"));
        imports.send(&query(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")));
        assert_eq!(brief(&imports.until(b'Z')), "C ZT");
        imports.send(&query("SELECT count(*) FROM t"));
        assert_eq!(brief(&imports.until(b'Z')), "T [0] C ZT");
    }
}

#[test]
fn what_tells_of_the_node_tells_of_the_primary() {
    let test = Test::new("node");
    let port = test.gateway.cluster.primary().port();
    for _ in 0..3 {
        for (sql, answer) in [
            ("SELECT current_setting('port')", port.to_string()),
            ("SELECT length(pg_walfile_name('0/3000028'))", "24".to_owned()),
            ("SELECT (pg_walfile_name_offset('0/3000028')).file_offset", "40".to_owned()),
        ] {
            assert_eq!(test.gateway.query(&test.database, sql), answer, "{sql}");
        }
    }
}
