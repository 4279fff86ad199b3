//! What a client began with, and what it sets in ways that are easy to overlook: behind a DISCARD ALL, by a FunctionCall.

use crate::support::{Gateway, Raw, database, message, startup};

const READ: &str = "SELECT concat(current_setting('app.began', true), ' ', current_setting('app.set', true))";

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

/// Parse, Bind and Execute.
fn run(text: &str) -> Vec<u8> {
    let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    [parse, message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat()
}

/// The first value of an answer.
fn value(client: &mut Raw, text: &str) -> String {
    client.send(&query(text));
    let answer = client.until(b'Z');
    let row = answer.iter().find(|(tag, _)| *tag == b'D').unwrap_or_else(|| panic!("{text}: {answer:?}"));
    String::from_utf8_lossy(&row.1[6..]).into_owned()
}

/// Three clients on one server; one of them does `step`, and sees `expected` from then on. The others see nothing of it.
#[track_caller]
fn check(label: &str, step: &[u8], readies: usize, expected: &str) {
    let database = database(label);
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    let mut one = Raw::connect(gateway.port);
    let user = [("user", "demo"), ("database", &database)];
    one.send(&startup(196_608, &[&user[..], &[("options", "-c app.began=so")]].concat()));
    one.until(b'Z');
    let mut others = [0, 1].map(|_| Raw::log_in(gateway.port, "demo", &database));
    assert_eq!(value(&mut one, READ), "so ");
    one.send(step);
    for _ in 0..readies {
        let answer = one.until(b'Z');
        assert!(!answer.iter().any(|(tag, _)| *tag == b'E'), "{answer:?}");
    }
    for _ in 0..3 {
        assert_eq!(value(&mut one, READ), expected, "{label}: its own client");
        for other in &mut others {
            assert_eq!(value(other, READ), " ", "{label}: another client");
        }
    }
}

#[test]
fn discard_all_brings_back_what_the_client_began_with() {
    check("began", &query("DISCARD ALL"), 1, "so ");
    check("began_else", &[query("SET app.began = 'else'"), query("DISCARD ALL")].concat(), 2, "so ");
}

#[test]
fn what_a_pipeline_sets_behind_discard_all_is_known() {
    let set = "SELECT set_config('app.set', 'SECRET', false)";
    check("behind_queries", &[query("DISCARD ALL"), query(set)].concat(), 2, "so SECRET");
    check("behind_group", &[run("DISCARD ALL"), run(set), message(b'S', b"")].concat(), 1, "so SECRET");
}

#[test]
fn a_function_call_may_set_something() {
    // set_config(text, text, boolean), all in text.
    const SET_CONFIG: u32 = 2078;
    let mut body = SET_CONFIG.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 3]);
    for argument in ["app.set", "SECRET", "f"] {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    check("function_call", &message(b'F', &body), 1, "so SECRET");
}

#[test]
fn a_closed_cursor_keeps_no_server() {
    let database = database("closed_cursor");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"2s\"").start();
    let mut one = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    for close in ["CLOSE c", "CLOSE ALL"] {
        one.send(&query("DECLARE c CURSOR WITH HOLD FOR VALUES (1)"));
        one.until(b'Z');
        assert_eq!(value(&mut one, "FETCH c"), "1");
        one.send(&query(close));
        one.until(b'Z');
        assert_eq!(value(&mut other, "SELECT pg_current_xact_id() IS NOT NULL"), "t", "{close}");
    }
}

/// What asyncpg's pool sends whenever a connection comes back, and what Npgsql's does.
const RESETS: [&str; 2] = ["SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "DISCARD ALL"];

#[test]
fn resetting_what_was_never_set_asks_no_server() {
    let database = database("reset_nothing");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    let mut server = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let mut client = Raw::connect(gateway.port);
    let settings = [("user", "demo"), ("database", &*database), ("options", "-c app.began=so")];
    client.send(&startup(196_608, &settings));
    client.until(b'Z');
    assert_eq!(value(&mut client, READ), "so ");
    // The only server is taken by another's transaction: who needs it waits.
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    other.send(&[query("BEGIN"), query("SELECT pg_current_xact_id()")].concat());
    other.until(b'Z');
    other.until(b'Z');
    server.send(&query(RESETS[0]));
    let of_server = server.until(b'Z');
    for _ in 0..3 {
        client.send(&query(RESETS[0]));
        assert_eq!(client.until(b'Z'), of_server);
    }
    other.send(&query("ROLLBACK"));
    other.until(b'Z');
    assert_eq!(value(&mut client, READ), "so ");
}

#[test]
fn resetting_what_was_set_reaches_the_server() {
    let database = database("reset_something");
    let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"5s\"").start();
    for text in RESETS {
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        let mut other = Raw::log_in(gateway.port, "demo", &database);
        for set in [
            "SET app.set = 'x'",
            "SELECT pg_advisory_lock(17)",
            "DECLARE c CURSOR WITH HOLD FOR VALUES (1)",
            "LISTEN heard",
        ] {
            client.send(&query(set));
            assert!(!client.until(b'Z').iter().any(|(tag, _)| *tag == b'E'), "{set}");
            if set.contains("lock") {
                assert_eq!(value(&mut other, "SELECT pg_try_advisory_lock(17)"), "f");
            }
            client.send(&query(text));
            assert!(!client.until(b'Z').iter().any(|(tag, _)| *tag == b'E'), "{set}");
            assert_eq!(value(&mut client, READ), " ", "{text} behind {set}");
            assert_eq!(value(&mut other, "SELECT pg_try_advisory_lock(17) AND pg_advisory_unlock(17)"), "t");
            assert_eq!(value(&mut client, "SELECT count(*) FROM pg_cursors"), "0");
            assert_eq!(value(&mut client, "SELECT count(*) FROM pg_listening_channels()"), "0");
        }
        // Nor is it answered here in a transaction.
        client.send(&[query("BEGIN"), query(text)].concat());
        client.until(b'Z');
        let refused = client.until(b'Z').iter().any(|(tag, _)| *tag == b'E');
        assert_eq!(refused, text == "DISCARD ALL", "{text}");
    }
}
