//! What PostgreSQL keeps in a server process alone: what `currval` and `lastval` tell is a session's own, in transactions of their
//! own too, never another's; temporary schemas and libraries that another has made or loaded are not noticed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Gateway, Raw, database, eventually, message, query, sqlstate, startup, sync};

fn prepared(label: &str) -> String {
    let database = database(label);
    let gateway = Gateway::start();
    let mut owner = Raw::log_in(gateway.port, "demo", &database);
    for step in [
        "CREATE SEQUENCE a",
        "CREATE SEQUENCE b START 100",
        "CREATE TABLE t (id serial, x int)",
        "CREATE FUNCTION quiet() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
        "CREATE FUNCTION told() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN currval(''a''); END'",
    ] {
        assert_eq!(owner.ask(step), "");
    }
    database
}

#[test]
fn a_session_is_told_its_own_values() {
    let database = prepared("own_values");
    let gateway = Gateway::setup().pool("size = 4").start();
    let mut clients = [0, 1, 2, 3].map(|_| Raw::log_in(gateway.port, "demo", &database));
    for client in &mut clients {
        assert_eq!(client.ask("SELECT 1"), "1");
    }
    // The pool learns with the first one that asks.
    for client in &mut clients {
        let one = client.ask("SELECT nextval('a')");
        assert_eq!(client.ask("SELECT currval('a')"), one);
        assert_eq!(client.ask("DISCARD ALL"), "");
        assert_eq!(client.ask("SELECT currval('a')"), "55000");
        assert_eq!(client.ask("DISCARD ALL"), "");
    }
    let mut last = Vec::new();
    for client in &mut clients {
        last.push(client.ask("INSERT INTO t (x) VALUES (1) RETURNING id"));
        client.ask("INSERT INTO t (id, x) VALUES (0, 1)");
        assert_eq!(client.ask("SELECT 1"), "1");
    }
    for (client, last) in clients.iter_mut().zip(&last) {
        assert_eq!(&client.ask("SELECT lastval()"), last);
        assert_eq!(&client.ask("SELECT currval('t_id_seq')"), last);
        assert_eq!(client.ask("SELECT currval('b')"), "55000");
    }
}

/// What comes behind a Flush may write, but nothing can be asked there.
#[test]
fn behind_a_flush_no_values_are_forgotten() {
    let database = prepared("flushed_values");
    let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"5s\"").start();
    // The first has asked, and keeps one server.
    let mut clients = [0, 1].map(|_| Raw::log_in(gateway.port, "demo", &database));
    let (bind, execute) = (message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"));
    let group = |first: &[u8], second: &[u8]| {
        let parse = |text: &[u8]| message(b'P', &[b"\0", text, b"\0\0\0"].concat());
        let one = [parse(first), bind.clone(), execute.clone()].concat();
        let two = [parse(second), bind.clone(), execute.clone()].concat();
        (one, [message(b'H', b""), two, message(b'S', b"")].concat())
    };
    // The pool learns that values are asked for.
    let own = clients[0].ask("SELECT nextval('a')");
    assert_eq!(clients[0].ask("SELECT currval('a')"), own);
    for (first, second, expected) in [
        (&b"SELECT 1"[..], &b"SELECT nextval('b')"[..], "12DC12DCZ"),
        (b"SELEC", b"SELECT nextval('b')", "EZ"),
        (b"SELECT 1", b"SELECT currval('a')", "12DC12EZ"),
    ] {
        for together in [true, false] {
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            eventually("the other server", || {
                clients[1].ask("SELECT nextval('a')").parse::<u32>().is_ok_and(|value| value < 50_000)
            });
            let (one, two) = group(first, second);
            let mut answer = Vec::new();
            if together {
                client.send(&[one, two].concat());
            } else {
                client.send(&[one, message(b'H', b"")].concat());
                answer = client.until(if expected.starts_with('E') { b'E' } else { b'C' });
                client.send(&two);
            }
            answer.extend(client.until(b'Z'));
            let tags: String = answer.iter().map(|(tag, _)| char::from(*tag)).collect();
            let errors: Vec<_> =
                answer.iter().filter(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).collect();
            assert_eq!(tags, expected, "{} {together} {errors:?}", String::from_utf8_lossy(second));
        }
    }
}

#[test]
fn nobody_is_told_anothers_values() {
    let database = prepared("others_values");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    let mut clients = [0, 1].map(|_| Raw::log_in(gateway.port, "demo", &database));
    for round in 0..3 {
        for at in [0, 1] {
            assert_ne!(clients[1 - at].ask("SELECT nextval('a')"), "");
            let told = clients[at].ask("SELECT nextval('b')");
            // One server: the other's value of `a` was there a moment ago.
            assert_eq!(clients[at].ask("SELECT currval('a')"), "55000", "round {round}");
            assert_eq!(clients[at].ask("DISCARD ALL"), "");
            assert_eq!(clients[at].ask("SELECT told()"), "55000", "round {round}: within a function");
            assert_eq!(clients[at].ask("DISCARD ALL"), "");
            assert_eq!(clients[at].ask("SELECT lastval()"), "55000", "round {round}: {told}");
            assert_eq!(clients[at].ask("DISCARD ALL"), "");
        }
    }
    // And one that never advanced anything.
    let mut third = Raw::log_in(gateway.port, "demo", &database);
    assert_ne!(clients[0].ask("SELECT nextval('a')"), "");
    assert_eq!(third.ask("SELECT told()"), "55000");
}

/// The pool is at its limit, and another session waits for the server at once.
#[test]
fn who_asks_next_is_told_though_others_wait() {
    let database = prepared("asks_next");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"10s\"").start();
    // The pool learns that values are asked for.
    let mut first = Raw::log_in(gateway.port, "demo", &database);
    let value = first.ask("SELECT nextval('a')");
    assert_eq!(first.ask("SELECT lastval()"), value);
    drop(first);
    asks_while_others_wait(&gateway, &database, 10);
}

/// What it sets before it asks may want another server, and mostly does not.
#[test]
fn who_sets_something_first_is_told_as_well() {
    let database = prepared("asks_behind_set");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"10s\"").weights(0, 0).start();
    let mut first = Raw::log_in(gateway.port, "demo", &database);
    let value = first.ask("SELECT nextval('a')");
    assert_eq!(first.ask("SELECT lastval()"), value);
    drop(first);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    for set in ["SET app.x = '1'", "SET temp_buffers = '16MB'", "SELECT set_config('app.x', '2', false)"] {
        let in_time = (0..20).any(|_| {
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            let begun = Instant::now();
            let value = client.ask("SELECT nextval('a')");
            other.send(&query("SELECT nextval('a')"));
            client.ask(set);
            let told = client.ask("SELECT lastval()");
            let in_time = begun.elapsed() < Duration::from_millis(150);
            assert!(!in_time || told == value, "{set}: {told}");
            drop(client);
            other.first();
            in_time
        });
        assert!(in_time, "{set}");
    }
}

/// The very first as well.
#[test]
fn who_asks_first_is_told_though_others_wait() {
    let database = prepared("asks_first");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"10s\"").start();
    let mut reader = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(reader.ask("SET pointsman.trace = on"), "");
    eventually("the catalogue is read", || {
        reader.send(&query("SELECT quiet()"));
        let told = |(tag, body): &(u8, Vec<u8>)| *tag == b'N' && String::from_utf8_lossy(body).contains(", reads:");
        reader.until(b'Z').iter().any(told)
    });
    drop(reader);
    asks_while_others_wait(&gateway, &database, 5);
}

fn asks_while_others_wait(gateway: &Gateway<'_>, database: &str, times: usize) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut other = Raw::log_in(gateway.port, "demo", database);
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(other.ask("INSERT INTO t (x) VALUES (7)"), "");
                    served += 1;
                }
                served
            })
        });
        let told: Vec<_> = (0..times)
            .map(|_| {
                let mut client = Raw::log_in(gateway.port, "demo", database);
                let value = client.ask("INSERT INTO t (x) VALUES (1) RETURNING id");
                (value, client.ask("SELECT lastval()"))
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        for other in others {
            assert!(other.join().unwrap() > 3, "the others were served, too");
        }
        assert!(told.iter().all(|(value, told)| value == told), "{told:?}");
    });
}

/// A default that asks is the client's own question.
#[test]
fn a_default_that_asks_keeps_the_server() {
    let database = prepared("asking_default");
    let gateway = Gateway::setup().pool("size = 2").start();
    let primary = gateway.cluster.primary();
    let table =
        "CREATE TABLE d (x bigint DEFAULT nextval('a'), z bigint DEFAULT currval('a')); ALTER TABLE d OWNER TO demo";
    primary.psql(&database, table).unwrap();
    let mut one = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    eventually("the catalogue knows the table", || {
        one.ask("INSERT INTO d DEFAULT VALUES");
        let (_, metrics) = gateway.admin("/metrics").unwrap();
        metrics.contains("pointsman_sessions_pinned{cause=\"currval or lastval\"} 1")
    });
    let last = one.ask("SELECT nextval('a')");
    assert_eq!(other.ask("BEGIN"), "");
    assert_ne!(other.ask("SELECT nextval('a')"), "");
    assert_eq!(one.ask("INSERT INTO d (x) VALUES (0) RETURNING z"), last);
}

/// Who never asks does not keep others waiting for long.
#[test]
fn who_never_asks_is_soon_not_waited_for() {
    let database = prepared("never_asks");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"10s\"").start();
    let mut first = Raw::log_in(gateway.port, "demo", &database);
    let value = first.ask("SELECT nextval('a')");
    assert_eq!(first.ask("SELECT lastval()"), value);
    drop(first);
    let mut clients = [0, 1].map(|_| Raw::log_in(gateway.port, "demo", &database));
    let started = Instant::now();
    for _ in 0..50 {
        for client in &mut clients {
            assert_eq!(client.ask("INSERT INTO t (x) VALUES (7)"), "");
        }
    }
    // Each waiting for the other all the time, it would be 10.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn in_a_transaction_block_as_well() {
    let database = prepared("in_a_block");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    let mut one = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    assert_ne!(one.ask("SELECT nextval('a')"), "");
    for asks in ["SELECT currval('a')", "SELECT lastval()", "SELECT told()"] {
        assert_eq!(other.ask("BEGIN"), "");
        assert_eq!(other.ask("SELECT 1 WHERE pg_backend_pid() > 0"), "1");
        assert_eq!(other.ask(asks), "55000", "{asks}");
        assert_eq!(other.ask("ROLLBACK"), "");
        assert_eq!(other.ask("DISCARD ALL"), "");
        assert_ne!(one.ask("SELECT nextval('a')"), "");
        assert_eq!(other.ask("BEGIN"), "");
        let told = other.ask("SELECT nextval('a')");
        assert_eq!(other.ask(asks), told, "{asks}");
        assert_eq!(other.ask("SELECT currval('b')"), "55000", "{asks}");
        assert_eq!(other.ask("ROLLBACK"), "");
        assert_eq!(other.ask("DISCARD ALL"), "");
        assert_ne!(one.ask("SELECT nextval('a')"), "");
        assert_ne!(one.ask("SELECT nextval('b')"), "");
    }
}

#[test]
fn a_function_that_asks_is_told_the_callers_value() {
    let database = prepared("within_a_function");
    let gateway = Gateway::setup().pool("size = 2").start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let told = client.ask("SELECT nextval('a')");
    assert_eq!(other.ask("SELECT 1"), "1");
    assert_eq!(client.ask("SELECT told()"), told);
}

#[test]
fn a_temporary_schema_is_made_where_there_is_none() {
    let database = database("temporary_schema");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut before = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(before.ask("CREATE TEMP TABLE t ()"), "");
    assert_eq!(before.ask("DISCARD ALL"), "");
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    for step in ["SET search_path TO 'pg_temp'", "BEGIN"] {
        assert_eq!(client.ask(step), "");
    }
    assert_eq!(client.ask("SELECT current_schema() ~ 'pg_temp'"), "t");
    assert_eq!(client.ask("PREPARE TRANSACTION 'schema'"), "0A000", "it has made the schema");
}

#[test]
fn also_if_that_had_to_be_waited_for() {
    let database = database("temporary_schema_waited");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"10s\"").start();
    let mut before = Raw::log_in(gateway.port, "demo", &database);
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SET search_path TO 'pg_temp'"), "");
    assert_eq!(before.ask("CREATE TEMP TABLE t ()"), "");
    assert_eq!(client.ask("BEGIN"), "");
    client.send(&query("SELECT current_schema() ~ 'pg_temp'"));
    eventually("it waits", || waiting(&gateway) == 1);
    assert_eq!(before.ask("DISCARD ALL"), "");
    assert!(client.until(b'Z').iter().any(|(tag, row)| *tag == b'D' && row.ends_with(b"t")));
    assert_eq!(client.ask("PREPARE TRANSACTION 'schema'"), "0A000", "it has made the schema");
}

/// Sessions that wait for a server.
fn waiting(gateway: &Gateway<'_>) -> usize {
    let (_, metrics) = gateway.admin("/metrics").unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("pointsman_sessions{state=\"waiting\"} "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

#[test]
fn a_name_that_a_library_has_reserved_elsewhere_is_free() {
    let database = database("reserved_name");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut before = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(before.ask("DO $$ BEGIN END $$"), "", "this server has loaded plpgsql");
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SET plpgsql.no_such = on"), "");
    assert_eq!(client.ask("SHOW plpgsql.no_such"), "on");
    // Where the library is loaded behind its back it goes as it does where the session loads it.
    assert_eq!(before.ask("DO $$ BEGIN END $$"), "");
    client.send(&query("SELECT 1"));
    let answer = client.until(b'Z');
    let tags: Vec<_> = answer.iter().map(|(tag, _)| char::from(*tag)).collect();
    assert_eq!(tags, ['N', 'T', 'D', 'C', 'Z']);
    assert_eq!(sqlstate(&answer[0].1), "42602");
    assert_eq!(client.ask("SHOW plpgsql.no_such"), "42704");
    // Also right behind a statement for whose sake it may be left the server.
    let mut another = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(before.ask("DO $$ BEGIN END $$"), "");
    assert_eq!(another.ask("CREATE SEQUENCE s"), "");
    assert_eq!(another.ask("SELECT nextval('s')"), "1");
    assert_eq!(another.ask("SET plpgsql.neither = on"), "");
    assert_eq!(another.ask("RESET plpgsql.neither"), "");
    drop(another);
    // Wherever it runs, the name is wrong.
    assert_eq!(client.ask("SET plpgsql.no-such = on"), "42601");
    assert_eq!(client.ask("SET \"plpgsql.no-such\" = on"), "42602");
    assert_eq!(client.ask("SELECT 1"), "1");
}

/// A name under a prefix that PL/pgSQL reserves stays in a process which has not loaded that yet, and whoever does would be told.
#[test]
fn nobody_is_told_of_a_name_that_another_has_set() {
    let database = database("left_names");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let set = "SELECT set_config('plpgsql.no_such', 'on', false)";
    let bound = [
        message(b'P', b"\0SELECT set_config($1, 'on', false)\0\0\0"),
        message(b'B', b"\0\0\0\0\0\x01\0\0\0\x0fplpgsql.no_such\0\0"),
        message(b'E', &[0; 5]),
        sync(),
    ];
    for (steps, goes) in [
        (vec![query("SET plpgsql.no_such = on"), query("RESET plpgsql.no_such")], false),
        (vec![query("SET plpgsql.no_such = on")], true),
        (vec![query(set), query("SELECT 1"), query("DISCARD ALL")], false),
        (vec![bound.concat()], true),
        (["BEGIN", "SET LOCAL plpgsql.no_such = on", "SELECT 1", "ROLLBACK"].map(query).into(), false),
        (["BEGIN", "SET plpgsql.no_such = on", "SELECT 1"].map(query).into(), true),
    ] {
        let mut client = log_in();
        for step in &steps {
            client.send(step);
            let answer = client.until(b'Z');
            assert!(answer.iter().all(|(tag, _)| !matches!(tag, b'E' | b'N')), "{answer:?}");
        }
        let kept = (!goes).then_some(client);
        let mut other = log_in();
        other.send(&query("DO $$ BEGIN END $$"));
        let answer = other.until(b'Z');
        assert_eq!(answer.iter().map(|(tag, _)| char::from(*tag)).collect::<String>(), "CZ", "{steps:?}: {answer:?}");
        // The next one begins on a server that has not loaded it.
        assert_eq!(other.ask("SET plpgsql.another = on"), "");
        drop((kept, other));
    }
}

/// What a session leaves in its server's process and no statement takes away: it finds it there, nobody else does, also once it
/// has gone.
#[test]
fn state_in_the_process_stays_with_its_session() {
    let database = database("process_state");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let primary = gateway.cluster.primary();
    // LOAD, origins and slots are for superusers.
    primary.psql("postgres", "CREATE ROLE process_super SUPERUSER LOGIN").unwrap();
    let log_in = || Raw::log_in(gateway.port, "process_super", &database);
    let link = format!("host=127.0.0.1 port={} dbname={database} user=process_super", primary.port());
    primary
        .psql(
            &database,
            "CREATE EXTENSION dblink; SELECT pg_replication_origin_create('pointsman_test');
             CREATE FUNCTION homemade() RETURNS real LANGUAGE c AS '$libdir/pg_trgm', 'show_limit';
             CREATE FUNCTION calls_homemade() RETURNS real LANGUAGE plpgsql AS 'BEGIN RETURN homemade(); END'",
        )
        .unwrap();
    let loaded = "SELECT count(*) FROM pg_settings WHERE name LIKE 'pg_trgm.%'";
    let explains = "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_format'";
    let connect = format!("SELECT dblink_connect('mine', '{link}')");
    // What is done, what tells of it, what the session is told, and what others are.
    for (step, seen, own, strange) in [
        ("SELECT calls_homemade()", loaded, "3", "0"),
        ("LOAD 'auto_explain'", explains, "1", "0"),
        (&*connect, "SELECT dblink_get_connections()::text", "{mine}", ""),
        (
            "SELECT pg_replication_origin_session_setup('pointsman_test')",
            "SELECT pg_replication_origin_session_is_setup()",
            "t",
            "f",
        ),
        (
            "SELECT pg_create_physical_replication_slot('pointsman_test', true, true)",
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'pointsman_test' AND active_pid = pg_backend_pid()",
            "1",
            "0",
        ),
    ] {
        eventually("the server is gone", || pinned(&gateway) == 0);
        // The catalogue is read soon after the functions were made.
        let mut one = log_in();
        eventually("the catalogue knows the function", || {
            one.ask(step);
            // The server is kept by the time of another answer.
            one.ask("SELECT 1");
            pinned(&gateway) == 1
        });
        let mut others = [0, 1].map(|_| log_in());
        // It takes the server that was used last, if it may.
        assert_eq!(others[0].ask("BEGIN"), "");
        assert_eq!(others[0].ask(seen), strange, "{step}");
        assert_eq!(one.ask(seen), own, "{step}");
        assert_eq!(one.ask("DISCARD ALL"), "");
        assert_eq!(one.ask(seen), own, "{step}, behind DISCARD ALL");
        assert_eq!(pinned(&gateway), 1, "{step}");
        drop(one);
        // Both servers at once: one of them is new.
        for other in &mut others {
            other.ask("BEGIN");
            assert_eq!(other.ask(seen), strange, "{step}, when its session had gone");
        }
    }
    let mut one = log_in();
    let mut other = log_in();
    assert_ne!(one.ask("SELECT pg_backup_start('pointsman', true)"), "");
    assert_eq!(other.ask("BEGIN"), "");
    assert_eq!(other.ask("SELECT 1 FROM pg_current_xact_id()"), "1");
    let stopped = one.ask("SELECT count(*) FROM pg_backup_stop(false)");
    assert_eq!(stopped, "1", "a backup is stopped by the session that has begun it");
}

/// Sessions that keep a server for what is in its process.
fn pinned(gateway: &Gateway<'_>) -> usize {
    let (_, metrics) = gateway.admin("/metrics").unwrap();
    let line = |line: &str| line.strip_prefix("pointsman_sessions_pinned{cause=\"").map(str::to_owned);
    let told = metrics.lines().filter_map(line);
    told.filter_map(|line| match line.split_once("\"} ")? {
        ("state in the server process" | "LOAD", count) => count.parse::<usize>().ok(),
        _ => None,
    })
    .sum()
}

#[test]
fn temp_buffers_are_set_where_none_were_used() {
    let database = database("temp_buffers");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let mut uses = || {
        for step in ["CREATE TEMP TABLE t (n int)", "INSERT INTO t VALUES (1)", "DISCARD TEMP"] {
            assert_eq!(other.ask(step), "", "{step}");
        }
        assert_eq!(other.ask("SHOW temp_buffers"), "8MB");
    };
    // When it runs, in a transaction as well, by whatever statement.
    for (at, set) in
        ["SET temp_buffers = '16MB'", "SELECT set_config('temp_buffers', '16MB', false)"].into_iter().enumerate()
    {
        uses();
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        assert_eq!(client.ask(set), ["", "16MB"][at]);
        // When it is applied.
        uses();
        assert_eq!(client.ask("SHOW temp_buffers"), "16MB");
        uses();
        assert_eq!(client.ask("BEGIN"), "");
        assert_eq!(client.ask("SHOW temp_buffers"), "16MB");
        assert_eq!(client.ask("COMMIT"), "");
        uses();
        assert_eq!(client.ask("RESET ALL"), "");
    }
    for set in ["SET LOCAL temp_buffers = '16MB'", "SET temp_buffers = '16MB'"] {
        uses();
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        for (step, told) in [("BEGIN", ""), (set, ""), ("SHOW temp_buffers", "16MB"), ("ROLLBACK", "")] {
            assert_eq!(client.ask(step), told, "{set}: {step}");
        }
    }
    // At the log-in.
    for buffers in ["32MB", "24MB"] {
        uses();
        let mut client = Raw::connect(gateway.port);
        let options = format!("-c temp_buffers={buffers}");
        client.send(&startup(196_608, &[("user", "demo"), ("database", &database), ("options", &options)]));
        assert!(client.until(b'Z').iter().all(|(tag, _)| *tag != b'E'));
        assert_eq!(client.ask("SHOW temp_buffers"), buffers);
    }
    // Wherever it is set, the value is wrong, or too late.
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(client.ask("SET temp_buffers = 'nonsense'"), "22023");
    assert_eq!(client.ask("SET temp_buffers = 1"), "22023");
    for step in ["CREATE TEMP TABLE t (n int)", "INSERT INTO t VALUES (1)"] {
        client.ask(step);
    }
    assert_eq!(client.ask("SET temp_buffers = '64MB'"), "22023");
}
