//! Plans stay in a server's process from session to session, those of PL/pgSQL's functions among them: none is used that was made
//! under another session's settings, or before a session's first temporary table.

use crate::support::{Gateway, Raw, database, eventually, message, query};

/// Setting, two of its values, the body of a function, and what it returns under each of them.
const CASES: [(&str, [&str; 2], &str, [&str; 2]); 4] = [
    (
        "TimeZone",
        ["UTC", "Asia/Tokyo"],
        "extract(epoch FROM '1970-01-01 00:00'::timestamptz)::int::text",
        ["0", "-32400"],
    ),
    ("DateStyle", ["ISO, MDY", "ISO, DMY"], "to_char('03/04/2020'::date, 'DD.MM.')", ["04.03.", "03.04."]),
    ("transform_null_equals", ["off", "on"], "coalesce((1 = NULL)::text, 'null')", ["null", "false"]),
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
