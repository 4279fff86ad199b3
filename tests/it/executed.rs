//! SQL's EXECUTE of what was prepared through the protocol, which is one name space for both.

use crate::support::{Gateway, Raw, database, message, sqlstate};

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// Bind, Describe and Execute of a statement without parameters.
fn run(name: &str) -> Vec<u8> {
    let bind = message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat());
    [bind, message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0")].concat()
}

/// What a client is told up to `ready` times ReadyForQuery: first columns, SQLSTATEs with messages, tags.
#[track_caller]
fn told(client: &mut Raw, bytes: &[u8], ready: usize) -> Vec<String> {
    client.send(bytes);
    let answer = (0..ready).flat_map(|_| client.until(b'Z'));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    answer
        .filter_map(|(tag, body)| match tag {
            b'D' => {
                let len = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
                Some(text(&body[6..6 + len]))
            }
            b'C' => Some(text(&body[..body.len() - 1])),
            b'E' => {
                let words = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M")).unwrap();
                Some(format!("{} {}", sqlstate(&body), text(words)))
            }
            _ => None,
        })
        .collect()
}

/// Two clients with the same names for different statements, on two servers that change hands.
#[test]
fn what_was_prepared_through_the_protocol_is_executed() {
    let database = database("executed");
    let gateway = Gateway::setup().pool("size = 2").start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut one, mut two, mut other) = (log_in(), log_in(), log_in());
    for (client, text) in [(&mut one, "SELECT 40 + $1::int"), (&mut two, "SELECT 'two', $1::int")] {
        assert!(told(client, &[parse("My q", text), sync()].concat(), 1).is_empty());
    }
    let mut execute = |other: &mut Raw, begin: &str| {
        // Whatever server is left for the two.
        told(other, &query(&format!("{begin} SELECT pg_current_xact_id() IS NULL")), 1);
        for (client, expected) in [(&mut one, ["42", "SELECT 1"]), (&mut two, ["two", "SELECT 1"])] {
            let text = "EXECUTE /* not */ \"My q\"(2)";
            for bytes in [
                query(text),
                [parse("", text), run(""), sync()].concat(),
                [parse("named", text), message(b'D', b"Snamed\0"), sync(), run("named"), sync()].concat(),
            ] {
                let ready = bytes.windows(5).filter(|part| *part == [b'S', 0, 0, 0, 4]).count().max(1);
                assert_eq!(told(client, &bytes, ready), expected);
            }
            // In a block, and as the group behind another one.
            let block = [query("BEGIN"), query(text), query("END")].concat();
            assert_eq!(told(client, &block, 3), ["BEGIN", expected[0], expected[1], "COMMIT"]);
            let group = [message(b'C', b"Snamed\0"), sync(), query("execute \"My q\" (1 + 1);")].concat();
            assert_eq!(told(client, &group, 2), expected);
        }
    };
    execute(&mut other, "BEGIN;");
    execute(&mut other, "COMMIT;");
    let mut another = log_in();
    told(&mut another, &query("BEGIN; SELECT pg_current_xact_id() IS NULL"), 1);
    execute(&mut other, "");
}

#[test]
fn what_fails_is_said_in_the_clients_words() {
    let database = database("executed_errors");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    told(&mut client, &[parse("q", "SELECT $1::int"), sync()].concat(), 1);
    for (text, expected) in [
        ("EXECUTE q", "42601 wrong number of parameters for prepared statement \"q\""),
        ("EXECUTE q(1, 2)", "42601 wrong number of parameters for prepared statement \"q\""),
        ("EXECUTE nosuch(1)", "26000 prepared statement \"nosuch\" does not exist"),
        ("EXECUTE q('a')", "22P02 invalid input syntax for type integer: \"a\""),
    ] {
        assert_eq!(told(&mut client, &query(text), 1), [expected], "{text}");
        assert_eq!(told(&mut client, &[parse("", text), run(""), sync()].concat(), 1), [expected], "{text}");
    }
    // What a name stands for changes.
    assert_eq!(told(&mut client, &query("DEALLOCATE q"), 1), ["DEALLOCATE"]);
    let gone = "26000 prepared statement \"q\" does not exist";
    assert_eq!(told(&mut client, &query("EXECUTE q(1)"), 1), [gone]);
    assert_eq!(told(&mut client, &query("PREPARE q AS SELECT 'sql'; EXECUTE q"), 1), ["PREPARE", "sql", "SELECT 1"]);
    assert_eq!(told(&mut client, &query("DEALLOCATE ALL"), 1), ["DEALLOCATE ALL"]);
    told(&mut client, &[parse("q", "SELECT 'again'"), sync()].concat(), 1);
    assert_eq!(told(&mut client, &query("EXECUTE q"), 1), ["again", "SELECT 1"]);
}
