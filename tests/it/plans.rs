//! Plans stay in a server's process from session to session, those of PL/pgSQL's functions among them: none is used that was made
//! under another session's settings, or before a session's first temporary table.

use crate::support::{Gateway, Raw, database, direct, eventually, message, query, sync};

/// Setting, two of its values, the body of a function, and what it returns under each of them.
const CASES: [(&str, [&str; 2], &str, [&str; 2]); 7] = [
    (
        "TimeZone",
        ["UTC", "Asia/Tokyo"],
        "extract(epoch FROM '1970-01-01 00:00'::timestamptz)::int::text",
        ["0", "-32400"],
    ),
    ("DateStyle", ["ISO, MDY", "ISO, DMY"], "to_char('03/04/2020'::date, 'DD.MM.')", ["04.03.", "03.04."]),
    ("transform_null_equals", ["off", "on"], "coalesce((1 = NULL)::text, 'null')", ["null", "false"]),
    ("bytea_output", ["hex", "escape"], "'\\x41'::bytea::text", ["\\x41", "A"]),
    ("extra_float_digits", ["1", "0"], "(0.1::float8 + 0.2::float8)::text", ["0.30000000000000004", "0.3"]),
    ("quote_all_identifiers", ["off", "on"], "quote_ident('abc')", ["abc", "\"abc\""]),
    ("standard_conforming_strings", ["on", "off"], "length('\\x41')::text", ["4", "1"]),
];

/// Calls of one function by sessions that share a server, each with a value of its own.
#[test]
fn what_another_has_set_makes_no_constant_in_a_function() {
    let database = database("plans_constants");
    for (setting, values, body, expected) in CASES {
        // Who sets the last one keeps its server.
        let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"5s\"").weights(0, 0).start();
        let log_in = || Raw::log_in(gateway.port, "demo", &database);
        let mut owner = log_in();
        let function = "RETURNS text LANGUAGE plpgsql AS";
        for name in ["set", "begun", "local"] {
            let text = format!("CREATE OR REPLACE FUNCTION {name}() {function} $f$ BEGIN RETURN {body}; END $f$");
            assert_eq!(owner.ask(&text), "");
        }
        drop(owner);
        let mut clients = [log_in(), log_in()];
        for round in 0..2 {
            for at in [0, 1] {
                if round == 0 {
                    let set = format!("SET escape_string_warning = off; SET {setting} = '{}'", values[at]);
                    assert_eq!(clients[at].ask(&set), "");
                }
                assert_eq!(clients[at].ask("SELECT set()"), expected[at], "{setting} {round} {at}");
            }
        }
        drop(clients);
        if setting == "standard_conforming_strings" {
            continue;
        }
        // For the length of a transaction.
        let mut clients = [log_in(), log_in()];
        for (client, at) in clients.iter_mut().zip([1, 0]) {
            let set = format!("BEGIN; SET LOCAL {setting} = '{}'; SELECT local()", values[at]);
            assert_eq!(client.ask(&set), expected[at], "{setting}");
            assert_eq!(client.ask("COMMIT"), "");
        }
        let set = format!("SET {setting} = '{}'", values[0]);
        assert_eq!(clients[0].ask(&set), "");
        assert_eq!(clients[0].ask("SELECT local()"), expected[0], "{setting}");
    }
}

/// A statement that was prepared under other settings keeps its constants although the plans around it go.
#[test]
fn a_prepared_statement_keeps_its_constants() {
    let database = database("plans_prepared");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut one, mut other) = (log_in(), log_in());
    let text = b"s\0SELECT extract(epoch FROM '1970-01-01 00:00'::timestamptz)::int\0\0\0";
    let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    assert_eq!(one.ask("SET TimeZone = 'Asia/Tokyo'"), "");
    one.send(&[message(b'P', text), message(b'S', b"")].concat());
    one.until(b'Z');
    for zone in ["UTC", "Asia/Tokyo", "America/New_York"] {
        assert_eq!(one.ask(&format!("SET TimeZone = '{zone}'")), "");
        for _ in 0..2 {
            one.send(&run);
            assert_eq!(one.first(), "-32400", "{zone}");
            assert_eq!(other.ask("SET TimeZone = 'Europe/Berlin'"), "");
        }
        let begin = format!("BEGIN; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'German'; SELECT '{zone}'");
        assert_eq!(one.ask(&begin), zone);
        one.send(&run);
        assert_eq!(one.first(), "-32400", "{zone}, within a transaction");
        assert_eq!(one.ask("COMMIT"), "");
    }
}

/// A server discards its plans for a session before it refuses what that has set.
#[test]
fn a_refusal_takes_no_prepared_constant_along() {
    let database = database("plans_refused");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let owner = |text: &str| gateway.cluster.primary().psql("postgres", text).unwrap();
    owner("DROP ROLE IF EXISTS plans_refused; CREATE ROLE plans_refused; GRANT plans_refused TO demo");
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut one, mut other) = (log_in(), log_in());
    let text = b"s\0SELECT ('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text\0\0\0";
    let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    assert_eq!(one.ask("SET TimeZone = 'UTC'"), "");
    one.send(&[message(b'P', text), message(b'S', b"")].concat());
    one.until(b'Z');
    let told = |one: &mut Raw, what: &str| {
        one.send(&run);
        assert_eq!(one.first(), "2024-01-01 00:00:00", "{what}");
    };
    told(&mut one, "under its own settings");
    assert_eq!(one.ask("SET TimeZone = 'Asia/Tokyo'"), "");
    told(&mut one, "under others");
    assert_eq!(other.ask("SET TimeZone = 'America/New_York'"), "");
    assert_eq!(other.ask("SET ROLE plans_refused"), "");
    told(&mut one, "behind another session");
    told(&mut one, "once more");
    owner("REVOKE plans_refused FROM demo");
    assert_eq!(other.ask("SELECT 1"), if direct() { "1" } else { "42501" });
    told(&mut one, "behind a refusal");
    drop(other);
    owner("DROP ROLE plans_refused");
}

/// As in a session of one's own, the first temporary table is met by what was prepared before, and by functions.
#[test]
fn a_temporary_table_takes_the_name_of_another() {
    let database = database("plans_temporary");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let mut owner = log_in();
    for step in [
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t VALUES (1, 'kept')",
        "CREATE FUNCTION told() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT b FROM t); END'",
    ] {
        assert_eq!(owner.ask(step), "");
    }
    drop(owner);
    let execute = [message(b'B', b"\0u\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    for round in 0..3 {
        let mut client = log_in();
        client.send(&[message(b'P', b"u\0UPDATE t SET b = 'changed' WHERE a = 1\0\0\0"), message(b'S', b"")].concat());
        client.until(b'Z');
        assert_eq!(client.ask("SELECT told()"), "kept", "{round}");
        for step in ["BEGIN", "CREATE TEMP TABLE t (a int, b text) ON COMMIT DROP", "INSERT INTO t VALUES (1, 'mine')"]
        {
            assert_eq!(client.ask(step), "", "{round}");
        }
        assert_eq!(client.ask("SELECT told()"), "mine", "{round}");
        client.send(&execute);
        assert_eq!(client.first(), "", "{round}");
        assert_eq!(client.ask("SELECT told()"), "changed", "{round}");
        assert_eq!(client.ask("COMMIT"), "");
        assert_eq!(client.ask("SELECT b FROM t"), "kept", "{round}: the other table was written");
    }
}

/// Bind and Execute of a named statement, and a Sync.
fn run(name: &str) -> Vec<u8> {
    let bind = message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat());
    [bind, message(b'E', &[0; 5]), sync()].concat()
}

/// Parse under a name, and a Sync.
fn parse(name: &str, text: &str) -> Vec<u8> {
    [message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat()), sync()].concat()
}

/// What a session sets for a transaction, in whatever way: it meets no plan that others have made, and others meet none of its.
#[test]
fn what_is_set_for_a_transaction_makes_constants_there_alone() {
    let database = database("plans_within");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut one, mut other) = (log_in(), log_in());
    let constant = "('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text";
    let set = "PERFORM set_config('TimeZone', 'Asia/Tokyo', true);";
    for step in [
        &format!("CREATE FUNCTION tz() RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN {constant}; END $f$"),
        &format!("CREATE FUNCTION settz() RETURNS text LANGUAGE plpgsql AS $f$ BEGIN {set} RETURN 'set'; END $f$"),
    ] {
        assert_eq!(one.ask(step), "");
    }
    // Until the gateway has read what they do.
    let (here, there) = ("2024-01-01 00:00:00", "2023-12-31 15:00:00");
    eventually("the functions are known", || {
        one.ask("BEGIN; SELECT settz(); SELECT tz(); COMMIT");
        one.ask("SELECT tz()") == here
    });
    one.send(&parse("s", &format!("SELECT {constant}")));
    assert_eq!(one.first(), "");
    let local = "SET LOCAL TimeZone = 'Asia/Tokyo'";
    let within = "DO $$ BEGIN SET LOCAL TimeZone = 'Asia/Tokyo'; PERFORM tz(); END $$";
    let view = "UPDATE pg_settings SET setting = 'Asia/Tokyo' WHERE name = 'TimeZone'";
    for (steps, expected) in [
        (&["BEGIN", local, "SELECT tz()", "COMMIT"][..], &["", "", there, ""][..]),
        (&["BEGIN", "SELECT 1", "SET TimeZone = 'Asia/Tokyo'", "SELECT tz()", "ROLLBACK"], &["", "1", "", there, ""]),
        (&["BEGIN", "SELECT settz()", "SELECT tz()", "COMMIT"], &["", "set", there, ""]),
        (&["BEGIN; SELECT settz()", "SELECT tz()", "COMMIT"], &["set", there, ""]),
        (&["BEGIN", within, "SELECT tz()", "COMMIT"], &["", "", there, ""]),
        (&[within], &[""]),
        (&["BEGIN", view, "SELECT tz()", "ROLLBACK"], &["", "Asia/Tokyo", there, ""]),
        (&["SET TimeZone = 'Asia/Tokyo'; SELECT tz()", "RESET TimeZone"], &[there, ""]),
    ] {
        assert_eq!(other.ask("SELECT tz()"), here, "{steps:?}");
        for (step, expected) in steps.iter().zip(expected.iter().copied()) {
            assert_eq!(one.ask(step), expected, "{steps:?}: {step}");
        }
        assert_eq!(other.ask("SELECT tz()"), here, "{steps:?}");
        // Nor does a statement that clients share become another's.
        one.send(&run("s"));
        assert_eq!(one.first(), here, "{steps:?}");
        let mut third = log_in();
        third.send(&[parse("t", &format!("SELECT {constant}")), run("t")].concat());
        assert_eq!((third.first(), third.first()), (String::new(), here.to_owned()), "{steps:?}");
    }
    // With its plan discarded, it is read as at first although the transaction has set something else.
    for step in ["SET TimeZone = 'America/New_York'", "SELECT 1"] {
        other.ask(step);
    }
    for step in ["SELECT 1", "BEGIN", "SELECT settz()"] {
        one.ask(step);
    }
    one.send(&run("s"));
    assert_eq!(one.first(), here);
    assert_eq!(one.ask("ROLLBACK"), "");
    one.send(&run("s"));
    assert_eq!(one.first(), here);
}

/// A session with a server of its own keeps what it has prepared there, whatever it sets afterwards.
#[test]
fn sql_prepare_keeps_its_constants() {
    let database = database("plans_sql");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let constant = "('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text";
    let mut before = Raw::log_in(gateway.port, "demo", &database);
    let function =
        format!("CREATE FUNCTION tz() RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN {constant}; END $f$");
    assert_eq!(before.ask(&function), "");
    assert_eq!(before.ask("SELECT tz()"), "2024-01-01 00:00:00");
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    for (step, expected) in [
        (&*format!("PREPARE q AS SELECT {constant}"), ""),
        ("EXECUTE q", "2024-01-01 00:00:00"),
        ("SET TimeZone = 'Asia/Tokyo'", ""),
        ("EXECUTE q", "2024-01-01 00:00:00"),
        ("SELECT tz()", "2023-12-31 15:00:00"),
        ("BEGIN", ""),
        ("SET LOCAL TimeZone = 'UTC'", ""),
        ("SELECT 1", "1"),
        ("COMMIT", ""),
        ("EXECUTE q", "2024-01-01 00:00:00"),
        ("DEALLOCATE q", ""),
    ] {
        assert_eq!(client.ask(step), expected, "{step}");
    }
    assert_eq!(before.ask("SELECT tz()"), "2024-01-01 00:00:00");
    assert_eq!(client.ask("SELECT tz()"), "2023-12-31 15:00:00");
}

/// Functions are read once for all: a process that has read one otherwise, if only in a transaction, is nobody else's.
#[test]
fn nobody_meets_a_function_that_was_read_otherwise() {
    let database = database("plans_sources");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let mut owner = log_in();
    for step in [
        "CREATE FUNCTION backslash() RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN length('a\\\\b'); END $f$",
        "CREATE TABLE t (w int)",
        "CREATE FUNCTION strict(w int) RETURNS int LANGUAGE plpgsql AS
         $f$ DECLARE x int; BEGIN SELECT t.w INTO STRICT x FROM t WHERE t.w = strict.w; RETURN x; END $f$",
    ] {
        assert_eq!(owner.ask(step), "");
    }
    drop(owner);
    let off = "SET LOCAL standard_conforming_strings = off";
    for steps in [
        &["BEGIN", off, "SELECT backslash()", "COMMIT"][..],
        &["BEGIN", "SET standard_conforming_strings = off", "SELECT backslash()", "ROLLBACK"],
        &["SET standard_conforming_strings = off; SELECT backslash(); SET standard_conforming_strings = on"],
        &["SET plpgsql.print_strict_params = on", "SELECT strict(77)", "RESET plpgsql.print_strict_params"],
        &["BEGIN; SET LOCAL plpgsql.print_strict_params = on", "SELECT strict(77)", "ROLLBACK"],
    ] {
        let mut client = log_in();
        for step in steps {
            client.ask(step);
        }
        let mut other = log_in();
        assert_eq!(other.ask("SELECT backslash()"), "4", "{steps:?}");
        other.send(&query("SELECT strict(77)"));
        let answer = other.until(b'Z');
        let error = &answer.iter().find(|(tag, _)| *tag == b'E').expect("no row").1;
        assert!(!String::from_utf8_lossy(error).contains("parameters:"), "{steps:?}: {answer:?}");
        drop(client);
    }
}

/// The same where a function or a text that is run sets it, which its caller does not see.
#[test]
fn nobody_meets_a_function_that_was_read_otherwise_inside_of_another() {
    let database = database("plans_inside");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let mut owner = log_in();
    let backslash = "RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN length('a\\\\b'); END $f$";
    let calls = "BEGIN RETURN backslash(); END";
    let plpgsql = "RETURNS text LANGUAGE plpgsql";
    for step in [
        format!("CREATE FUNCTION backslash() {backslash}"),
        format!("CREATE FUNCTION clause() {plpgsql} SET standard_conforming_strings = off AS '{calls}'"),
        format!(
            "CREATE FUNCTION body() {plpgsql} AS 'BEGIN SET LOCAL standard_conforming_strings = off; RETURN backslash(); END'"
        ),
        format!(
            "CREATE FUNCTION by_name() {plpgsql} AS $f$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', true); RETURN backslash(); END $f$"
        ),
        format!("CREATE FUNCTION runs(t text) {plpgsql} AS 'DECLARE r text; BEGIN EXECUTE t; RETURN backslash(); END'"),
        "CREATE TABLE t (w text); CREATE TABLE watched (w text)".to_owned(),
        "CREATE FUNCTION trigger() RETURNS trigger LANGUAGE plpgsql SET standard_conforming_strings = off AS
           'BEGIN PERFORM backslash(); RETURN NEW; END'"
            .to_owned(),
        "CREATE TRIGGER t BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION trigger()".to_owned(),
    ] {
        assert_eq!(owner.ask(&step), "", "{step}");
    }
    drop(owner);
    let ends = format!(
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    // A process that has read nothing yet, or what it was left with.
    let told = |text: &str| {
        gateway.cluster.primary().psql("postgres", &ends).unwrap();
        let told = log_in().ask(text);
        assert!(told != "4", "{text} has read it as all do");
        (told, log_in().ask("SELECT backslash()"))
    };
    eventually("the catalogue knows the functions", || told("SELECT body()") == ("3".to_owned(), "4".to_owned()));
    for text in [
        "SELECT clause()",
        "SELECT body()",
        "SELECT by_name()",
        "SELECT runs('SET LOCAL standard_conforming_strings = off')",
        "SELECT runs('SET/* */LOCAL standard_conforming_strings = off')",
        "INSERT INTO watched VALUES ('x')",
        "DO $$ BEGIN SET LOCAL standard_conforming_strings = off; PERFORM backslash(); END $$",
        "SELECT query_to_xml('SELECT set_config(''standard_conforming_strings'', ''off'', true), backslash()', true, true, '')",
    ] {
        let (told, others) = told(text);
        assert!(told.len() != 5, "{text}: {told}");
        assert_eq!(others, "4", "{text}");
    }
}

/// What a function sets while it runs makes constants of what it calls alone.
#[test]
fn what_a_function_sets_makes_constants_there_alone() {
    let database = database("plans_zones");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let mut owner = log_in();
    let text = "RETURNS text LANGUAGE plpgsql";
    let constant = "BEGIN RETURN '2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC'; END";
    for step in [
        format!("CREATE FUNCTION h() {text} AS $f$ {constant} $f$"),
        format!("CREATE FUNCTION clause() {text} SET TimeZone = 'Asia/Tokyo' AS 'BEGIN RETURN h(); END'"),
        "CREATE FUNCTION in_sql() RETURNS text LANGUAGE sql STABLE SET TimeZone = 'Asia/Tokyo' AS 'SELECT h()'"
            .to_owned(),
        format!("CREATE FUNCTION body() {text} AS $f$ BEGIN SET LOCAL TimeZone = 'Asia/Tokyo'; RETURN h(); END $f$"),
        format!(
            "CREATE FUNCTION spaced() {text} AS $f$ BEGIN set/**/local timezone = 'Asia/Tokyo'; RETURN h(); END $f$"
        ),
        format!("CREATE FUNCTION calls() {text} AS 'BEGIN RETURN clause(); END'"),
        "CREATE VIEW v AS SELECT calls() AS w; CREATE TABLE watched (w text)".to_owned(),
        "CREATE FUNCTION trigger() RETURNS trigger LANGUAGE plpgsql AS
           $f$ BEGIN SET LOCAL TimeZone = 'Asia/Tokyo'; NEW.w = h(); RETURN NEW; END $f$"
            .to_owned(),
        "CREATE TRIGGER t BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION trigger()".to_owned(),
    ] {
        assert_eq!(owner.ask(&step), "", "{step}");
    }
    drop(owner);
    let tokyo = "2023-12-31 15:00:00";
    let here = Raw::log_in(gateway.cluster.primary().port(), "demo", &database).ask("SELECT h()");
    assert_ne!(here, tokyo, "the server's own TimeZone is another");
    // Under the same settings as the others: nothing but what a function set tells their plans apart.
    let plain = || log_in().ask("SELECT h()");
    eventually("the catalogue knows the functions", || {
        log_in().ask("SELECT clause()");
        plain() == here
    });
    for call in ["SELECT clause()", "SELECT in_sql()", "SELECT body()", "SELECT spaced()", "SELECT w FROM v"] {
        for _ in 0..2 {
            assert_eq!(log_in().ask(call), tokyo, "{call}");
            assert_eq!(plain(), here, "{call}");
        }
    }
    assert_eq!(log_in().ask("INSERT INTO watched VALUES ('x') RETURNING w"), tokyo);
    assert_eq!(plain(), here);
}

/// What the gateway must ask in a transaction takes a snapshot: never ahead of what takes none, which waits for a lock or sets the
/// isolation level.
#[test]
fn no_snapshot_is_taken_ahead_of_a_lock() {
    let database = database("plans_snapshot");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut client, mut other) = (log_in(), log_in());
    let mut direct = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    for step in [
        "CREATE TABLE tt (n int)",
        "CREATE SEQUENCE q",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    ] {
        assert_eq!(direct.ask(step), "");
    }
    let locked = |direct: &mut Raw| {
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'tt'::regclass AND NOT granted";
        direct.ask(waits) == "1"
    };
    for round in 0..3 {
        for step in [
            "SELECT nextval('q')",
            "SELECT lastval()",
            "CREATE TEMP TABLE mine ()",
            "DISCARD ALL",
            "SELECT nextval('q')",
        ] {
            other.ask(step);
        }
        assert_eq!(client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ"), "");
        assert_eq!(client.ask("SET LOCAL TimeZone = 'Asia/Tokyo'"), "");
        for step in ["BEGIN", "LOCK TABLE tt", "INSERT INTO tt VALUES (7)"] {
            assert_eq!(direct.ask(step), "");
        }
        client.send(&query("LOCK TABLE tt"));
        let mut watch = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
        eventually("it waits", || locked(&mut watch));
        assert_eq!(direct.ask("COMMIT"), "");
        assert_eq!(client.first(), "");
        assert_eq!(client.ask("SELECT count(*) FROM tt"), (round + 1).to_string());
        assert_eq!(client.ask("COMMIT"), "");
    }
    for text in [
        "INSERT INTO tt VALUES (1)",
        "UPDATE tt SET n = n",
        "DO 'BEGIN END'",
        "SELECT f()",
        "CREATE TEMP TABLE mine ()",
    ] {
        for step in ["SELECT nextval('q')", "CREATE TEMP TABLE mine ()", "DISCARD ALL", "SELECT nextval('q')"] {
            other.ask(step);
        }
        for step in ["BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'"] {
            assert_eq!(client.ask(step), "");
        }
        let told = client.ask(&format!("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; {text}"));
        assert!(told.is_empty() || told == "1", "{text}: {told}");
        assert_eq!(client.ask("ROLLBACK"), "");
    }
    // To prepare a utility statement takes none.
    for text in ["DO 'BEGIN END'", "CREATE TEMP TABLE mine ()", "COPY tt TO STDOUT", "SHOW work_mem"] {
        for step in ["SELECT nextval('q')", "CREATE TEMP TABLE mine ()", "DISCARD ALL", "SELECT nextval('q')"] {
            assert!(other.ask(step).len() < 5, "{step}");
        }
        let steps = [query("BEGIN"), query("SET LOCAL TimeZone = 'Asia/Tokyo'"), parse("u", text)];
        let rest = [query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), query("ROLLBACK"), query("DEALLOCATE u")];
        for step in steps.into_iter().chain(rest) {
            client.send(&step);
            assert_eq!(client.first(), "", "{text}");
        }
    }
}

/// A statement that cannot be prepared where a group begins fails in its place, or does not: what stands ahead of it comes first.
#[test]
fn a_group_comes_to_the_error_that_comes_first() {
    let database = database("plans_order");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut direct = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    assert_eq!(direct.ask("CREATE TABLE t AS SELECT 1 AS n"), "");
    let execute = |portal: &str| message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat());
    let reset = [message(b'P', b"\0RESET search_path\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5])];
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut told = Vec::new();
    for side in [&mut direct, &mut client] {
        side.send(&[parse("n2", "TABLE t"), query("SET search_path = ''")].concat());
        assert_eq!((side.first(), side.first()), (String::new(), String::new()));
        let mut answers = Vec::new();
        for group in [[execute("p1"), run("n2")].concat(), [reset.concat(), run("n2")].concat(), run("n2")] {
            side.send(&group);
            let answer = side.until(b'Z');
            let error = answer.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| crate::support::sqlstate(body));
            answers.push((answer.iter().map(|(tag, _)| char::from(*tag)).collect::<String>(), error));
        }
        told.push(answers);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][0].1.as_deref(), Some("34000"));
}

/// Nor is one that was made before if what others had made temporary is gone already, or if the session goes back to before its
/// first one.
#[test]
fn a_temporary_schema_is_known_when_nothing_is_left_in_it() {
    let database = database("plans_temporary_schema");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
    let mut owner = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    for step in [
        "CREATE TABLE t (a int)",
        "INSERT INTO t VALUES (1), (2)",
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END'",
        "CREATE FUNCTION made(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END'",
        "CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END'",
    ] {
        assert_eq!(owner.ask(step), "");
    }
    let log_in = |port| Raw::log_in(port, "demo", &database);
    let temporary = "CREATE TEMP TABLE t (a int) ON COMMIT DROP";
    for made in [
        format!("SELECT made('{temporary}')"),
        format!("DO 'BEGIN EXECUTE ''{temporary}''; END'"),
        "BEGIN; CREATE TEMP TABLE other () ON COMMIT DROP; COMMIT".to_owned(),
        format!("BEGIN; SELECT made('{temporary}'); COMMIT"),
    ] {
        // A server of its own for each, which has had no other temporary table.
        let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").weights(0, 0).start();
        let mut one = log_in(gateway.port);
        assert_eq!(one.ask("SET pointsman.trace = on"), "");
        eventually("the catalogue is read", || {
            one.send(&query("SELECT quiet()"));
            let told = |(tag, body): &(u8, Vec<u8>)| *tag == b'N' && String::from_utf8_lossy(body).contains(", reads:");
            one.until(b'Z').iter().any(told)
        });
        assert_eq!(one.ask(&made), "");
        drop(one);
        for steps in [
            &[
                "SELECT counted()",
                "CREATE TEMP TABLE t (a int)",
                "SELECT counted()",
                "DROP TABLE t",
                "SELECT counted()",
            ][..],
            &[
                "BEGIN",
                "SELECT counted()",
                "SAVEPOINT a",
                "CREATE TEMP TABLE t (a int)",
                "SELECT counted()",
                "ROLLBACK TO a",
                "SELECT counted()",
                "CREATE TEMP TABLE t (a int)",
                "SELECT counted()",
                "ROLLBACK TO a; CREATE TEMP TABLE t (a int); SELECT counted()",
                "ROLLBACK",
                "SELECT counted()",
            ],
        ] {
            let (mut client, mut plain) = (log_in(gateway.port), log_in(gateway.cluster.primary().port()));
            for (at, step) in steps.iter().enumerate() {
                assert_eq!(client.ask(step), plain.ask(step), "{made}: {at} of {}: {step}", steps.len());
            }
        }
    }
}
