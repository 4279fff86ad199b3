//! What the constants of a prepared statement mean is settled when it is prepared: neither what another client has set, nor
//! what its own client sets later, nor a change of servers gives them another meaning.

use crate::support::{Gateway, Raw, database, direct, message, query, sqlstate};

/// A setting, two of its values, a text with constants, and what it returns under each of them.
type Case = (&'static str, [&'static str; 2], &'static [u8], [&'static str; 2]);

const CASES: [Case; 7] = [
    ("DateStyle", ["ISO, MDY", "ISO, DMY"], b"SELECT to_char(date '03/04/2020', 'DD.MM.')", ["04.03.", "03.04."]),
    (
        "TimeZone",
        ["UTC", "Asia/Tokyo"],
        b"SELECT extract(epoch FROM timestamptz '1970-01-01 00:00')::int",
        ["0", "-32400"],
    ),
    ("IntervalStyle", ["postgres", "sql_standard"], b"SELECT extract(hour FROM interval '-1 2:00')::int", ["2", "-2"]),
    ("standard_conforming_strings", ["on", "off"], b"SELECT length('\\x41')", ["4", "1"]),
    ("client_encoding", ["UTF8", "LATIN1"], "SELECT length('\u{fc}')".as_bytes(), ["1", "2"]),
    ("array_nulls", ["on", "off"], b"SELECT ('{null}'::text[])[1] IS NULL", ["t", "f"]),
    ("transform_null_equals", ["off", "on"], b"SELECT (pg_backend_pid() = NULL) IS NULL", ["t", "f"]),
];

fn prepare(text: &[u8]) -> Vec<u8> {
    [message(b'P', &[b"s\0", text, b"\0\0\0"].concat()), message(b'S', b"")].concat()
}

/// Bind and Execute, with a Describe of the portal between them as libpq sends it, or without.
fn run(described: bool) -> Vec<u8> {
    let describe = if described { message(b'D', b"P\0") } else { Vec::new() };
    let bind = message(b'B', b"\0s\0\0\0\0\0\0\0");
    [bind, describe, message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat()
}

/// The first column of the first row.
#[track_caller]
fn say(client: &mut Raw, bytes: &[u8]) -> String {
    client.send(bytes);
    let answer = client.until(b'Z');
    let errors: Vec<_> = answer.iter().filter(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(answer.iter().all(|(tag, _)| *tag != b'N'), "a notice: {answer:?}");
    let row = answer.iter().find(|(tag, _)| *tag == b'D');
    row.map_or_else(String::new, |(_, body)| {
        let len = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
        String::from_utf8_lossy(&body[6..6 + len]).into_owned()
    })
}

/// Sees to it that the next statements of `client` run on another server than its last ones, as long as the value lives.
fn elsewhere(client: &mut Raw, mut another: impl FnMut() -> Raw) -> Raw {
    let server = |client: &mut Raw, begin: &str| {
        say(client, &query(&format!("{begin}SELECT pg_backend_pid(), pg_current_xact_id()")))
    };
    let was = server(client, "");
    let (mut one, mut two) = (another(), another());
    if server(&mut one, "BEGIN; ") != was {
        assert!(direct() || server(&mut two, "BEGIN; ") == was, "there are two servers");
        say(&mut one, &query("COMMIT"));
        std::mem::swap(&mut one, &mut two);
    }
    assert_ne!(server(client, ""), if direct() { String::new() } else { was });
    one
}

/// Two clients prepare the same text on one server, each under settings of its own.
#[test]
fn what_another_client_has_set_changes_no_constant() {
    let database = database("constants_two");
    for (setting, values, text, expected) in CASES {
        // Who turns standard_conforming_strings off keeps its server.
        let size = if setting == "standard_conforming_strings" { 2 } else { 1 };
        let gateway = Gateway::setup().pool(&format!("size = {size}\nquery_wait = \"2s\"")).start();
        let mut clients: Vec<Raw> = (0..2).map(|_| Raw::log_in(gateway.port, "demo", &database)).collect();
        for (client, value) in clients.iter_mut().zip(values) {
            say(client, &query(&format!("SET escape_string_warning = off; SET {setting} = '{value}'")));
            say(client, &prepare(text));
        }
        for described in [false, true] {
            for (client, expected) in clients.iter_mut().zip(expected) {
                assert_eq!(say(client, &run(described)), expected, "{setting}, described: {described}");
            }
        }
    }
}

/// A client prepares a text, sets something else, and meets a server that has never seen the text.
#[test]
fn what_its_own_client_sets_later_changes_no_constant() {
    let database = database("constants_later");
    // Who turns standard_conforming_strings off keeps its server.
    let cases = CASES.into_iter().filter(|(setting, ..)| direct() || *setting != "standard_conforming_strings");
    for (setting, [before, after], text, [expected, _]) in cases {
        for (described, block) in [(false, false), (true, false), (false, true), (true, true)] {
            let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"2s\"").start();
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            // The primary's, where all that matters here runs.
            say(&mut client, &query(&format!("SET {setting} = '{before}'; SELECT pg_current_xact_id()")));
            say(&mut client, &prepare(text));
            say(&mut client, &query(&format!("SET {setting} = '{after}'")));
            let _others = elsewhere(&mut client, || Raw::log_in(gateway.port, "demo", &database));
            if block {
                say(&mut client, &query("BEGIN; SET LOCAL work_mem = '3MB'; SELECT pg_current_xact_id()"));
            }
            let label = format!("{setting}, described: {described}, in a block: {block}");
            assert_eq!(say(&mut client, &run(described)), expected, "{label}");
            let shown = say(&mut client, &query(&format!("SHOW {setting}")));
            assert_eq!(shown, after, "{label}");
            if block {
                assert_eq!(say(&mut client, &query("SHOW work_mem")), "3MB", "{label}");
                say(&mut client, &query("COMMIT"));
            }
            assert_eq!(say(&mut client, &query("SHOW work_mem")), "4MB", "{label}");
        }
    }
}

/// One client knows a column's name in UTF-8, the other in LATIN1: both know the same column.
#[test]
fn a_column_has_a_name_in_each_encoding() {
    let database = database("constants_names");
    let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"2s\"").start();
    gateway
        .cluster
        .primary()
        .psql(
            &database,
            "CREATE TABLE named (\"\u{fc}\u{f6} a\" int); INSERT INTO named VALUES (7); GRANT ALL ON named TO demo",
        )
        .unwrap();
    let mut clients: Vec<Raw> = (0..2).map(|_| Raw::log_in(gateway.port, "demo", &database)).collect();
    say(&mut clients[1], &query("SET client_encoding = 'LATIN1'"));
    let describe = [message(b'D', b"Ss\0"), message(b'S', b"")].concat();
    for client in &mut clients {
        say(client, &prepare(b"SELECT * FROM named, pg_current_xact_id()"));
        say(client, &describe);
    }
    for described in [false, true] {
        for client in &mut clients {
            assert_eq!(say(client, &run(described)), "7", "described: {described}");
        }
    }
    // And on a server where nobody has prepared it, the other way round.
    let _others = elsewhere(&mut clients[0], || Raw::log_in(gateway.port, "demo", &database));
    for client in clients.iter_mut().rev() {
        assert_eq!(say(client, &run(false)), "7");
    }
    // And when the client is the same one.
    say(&mut clients[0], &query("SET client_encoding = 'LATIN1'"));
    say(&mut clients[0], &describe);
    assert_eq!(say(&mut clients[0], &run(false)), "7");
}

/// What a text's names mean is asked of the server only after the group that changes it: a statement that is parsed in between
/// is nobody else's, and no other client's is taken for it.
#[test]
fn names_are_looked_up_where_the_parse_stands() {
    let database = database("names_within");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"2s\"").start();
    let schema = "CREATE TABLE t (n text); INSERT INTO t VALUES ('public'); CREATE SCHEMA other; \
        CREATE TABLE other.t (n text, m int); INSERT INTO other.t VALUES ('other', 1)";
    gateway.query(&database, schema);
    let client = || Raw::log_in(gateway.port, "demo", &database);
    let set = |text: &str| {
        let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
        [parse, message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat()
    };
    let path = set("SET search_path = other");
    // In a schema that other clients know the text under, and in one that they do not.
    for (known, text) in [(true, "SELECT * FROM t"), (false, "SELECT * FROM t /* again */")] {
        let (mut first, mut within, mut last) = (client(), client(), client());
        if known {
            assert_eq!(say(&mut first, &[prepare(text.as_bytes()), run(false)].concat()), "");
            assert_eq!(first_value(first.until(b'Z')), "public");
        }
        for _ in 0..2 {
            within.send(&[&path[..], &prepare(text.as_bytes())[..]].concat());
            assert!(within.until(b'Z').iter().all(|(tag, _)| *tag != b'E'));
            assert_eq!(say(&mut within, &run(false)), "other");
            assert_eq!(say(&mut within, &run(true)), "other");
            within.send(&query("DEALLOCATE s"));
            within.until(b'Z');
            within.send(&query("RESET search_path"));
            within.until(b'Z');
        }
        last.send(&prepare(text.as_bytes()));
        assert!(last.until(b'Z').iter().all(|(tag, _)| *tag != b'E'));
        assert_eq!(say(&mut last, &run(false)), "public");
        assert_eq!(say(&mut last, &run(true)), "public");
    }
}

fn first_value(answer: Vec<(u8, Vec<u8>)>) -> String {
    let row = answer.into_iter().find(|(tag, _)| *tag == b'D').expect("a row").1;
    let len = u32::from_be_bytes([row[2], row[3], row[4], row[5]]) as usize;
    String::from_utf8_lossy(&row[6..6 + len]).into_owned()
}

/// PostgreSQL folds `'now'` into a statement when it is parsed: each Parse is the client's own, and no client is told of a moment
/// before it came.
#[test]
fn a_moment_is_that_of_the_clients_own_parse() {
    let database = database("constants_moment");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"2s\"").start();
    let client = || Raw::log_in(gateway.port, "demo", &database);
    let clock =
        |client: &mut Raw| say(client, &query("SELECT extract(epoch FROM clock_timestamp())")).parse::<f64>().unwrap();
    for text in [
        "SELECT extract(epoch FROM 'now'::timestamptz)",
        "SELECT extract(epoch FROM timestamptz E'NOW')",
        "SELECT extract(epoch FROM $$ now $$::timestamptz)",
        "SELECT extract(epoch FROM ('{2020-01-01,now}'::timestamptz[])[2])",
    ] {
        // On the primary, where all have the one server.
        let text = &format!("{text} FROM pg_current_xact_id()");
        let (mut first, mut second) = (client(), client());
        say(&mut first, &prepare(text.as_bytes()));
        let moment = say(&mut first, &run(true));
        let before = clock(&mut second);
        assert!(moment.parse::<f64>().unwrap() < before, "{text}");
        say(&mut second, &prepare(text.as_bytes()));
        let another = say(&mut second, &run(true));
        assert!(another.parse::<f64>().unwrap() > before, "{text}");
        // Each keeps its own, and a new Parse by the same client is another, with its Close in the same group or before.
        for described in [false, true] {
            assert_eq!(say(&mut first, &run(described)), moment, "{text}");
            assert_eq!(say(&mut second, &run(described)), another, "{text}");
        }
        let close = message(b'C', b"Ss\0");
        for close in [close.clone(), [close, message(b'S', b"")].concat()] {
            let before = clock(&mut first);
            first.send(&[&close[..], &prepare(text.as_bytes())].concat());
            let ready = 1 + usize::from(close.ends_with(&message(b'S', b"")));
            assert!((0..ready).all(|_| first.until(b'Z').iter().all(|(tag, _)| *tag != b'E')));
            assert!(say(&mut first, &run(false)).parse::<f64>().unwrap() > before, "{text}");
        }
        // A Close that is skipped behind an error has not happened; the server that would have closed it may prepare it anew.
        let bad = message(b'P', b"bad\0SELEC\0\0\0");
        second.send(&[bad, message(b'C', b"Ss\0"), message(b'S', b"")].concat());
        assert!(second.until(b'Z').iter().any(|(tag, _)| *tag == b'E'));
        assert!(say(&mut second, &run(false)) >= another, "{text}");
    }
    if direct() {
        return;
    }
    // What is evaluated when it runs is shared as ever.
    let (mut first, mut second) = (client(), client());
    for client in [&mut first, &mut second] {
        say(client, &prepare(b"SELECT now() > '2020-01-01' FROM pg_current_xact_id()"));
        assert_eq!(say(client, &run(true)), "t");
    }
    let held = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT now() >%'";
    assert_eq!(say(&mut first, &query(held)), "1");
}

/// A Parse that comes right behind a SET of an earlier transaction is read under what that has set.
#[test]
fn what_is_set_ahead_in_the_same_pipeline_counts() {
    let database = database("constants_pipelined");
    let gateway = Gateway::setup().pool("size = 3").weights(0, 0).start();
    let mut plain = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    for (setting, values, text, _) in CASES {
        let sets = |value: &str| query(&format!("SET {setting} = '{value}'"));
        let by_group = |value: &str| {
            let text = format!("\0SET {setting} = '{value}'\0\0\0");
            [message(b'P', text.as_bytes()), message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat()
        };
        for set in [sets(values[1]), [by_group(values[1]), message(b'S', b"")].concat()] {
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            for client in [&mut client, &mut plain] {
                assert_eq!(client.ask("SET escape_string_warning = off"), "");
                client.send(&[set.clone(), prepare(text), run(false)].concat());
                client.until(b'Z');
                client.until(b'Z');
            }
            let expected = plain.first();
            assert_eq!(client.first(), expected, "{setting}");
            for value in values {
                assert_eq!(client.ask(&format!("SET {setting} = '{value}'")), "");
                // Two more take its server, and another setting to it.
                let mut others = [0, 1].map(|_| Raw::log_in(gateway.port, "demo", &database));
                for other in &mut others {
                    other.send(&query(&format!("BEGIN; SET LOCAL {setting} = '{}'; SELECT pg_sleep(0.01)", values[0])));
                }
                for other in &mut others {
                    other.until(b'Z');
                    assert_eq!(other.ask("COMMIT"), "");
                }
                assert_eq!(say(&mut client, &run(false)), expected, "{setting}, then {value}");
            }
            for step in ["DEALLOCATE ALL", &format!("RESET {setting}")] {
                assert_eq!(plain.ask(step), "");
            }
        }
    }
}

/// What was set where a statement was parsed may hold no longer when its transaction ends.
#[test]
fn what_a_transaction_has_set_is_kept_behind_it() {
    if direct() {
        return;
    }
    let database = database("constants_undone");
    let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"2s\"").weights(0, 0).start();
    let mut plain = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let (sync, execute) = (message(b'S', b""), [message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat());
    let unnamed = |text: &str| [message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat()), execute.clone()].concat();
    for (setting, [before, within], text, _) in CASES {
        let (local, set) = (format!("SET LOCAL {setting} = '{within}'"), format!("SET {setting} = '{within}'"));
        let steps: [&[Vec<u8>]; 4] = [
            &[query("BEGIN"), query(&local), prepare(text), query("COMMIT")],
            &[query("BEGIN"), query(&set), prepare(text), query("ROLLBACK")],
            &[query(&format!("BEGIN; {local}; SELECT 1")), prepare(text), query("COMMIT")],
            &[[unnamed(&set), prepare(text)[..prepare(text).len() - 5].to_vec(), unnamed("SELECT 1/0"), sync.clone()]
                .concat()],
        ];
        for (number, steps) in steps.into_iter().enumerate() {
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            let told: Vec<String> = [&mut client, &mut plain]
                .into_iter()
                .enumerate()
                .map(|(which, client)| {
                    client.ask("SET escape_string_warning = off");
                    client.ask(&format!("SET {setting} = '{before}'"));
                    client.ask("SELECT pg_current_xact_id()");
                    for step in steps {
                        client.send(step);
                        client.until(b'Z');
                    }
                    let _others =
                        (which == 0).then(|| elsewhere(client, || Raw::log_in(gateway.port, "demo", &database)));
                    client.send(&run(false));
                    let told = client.first();
                    client.ask("DEALLOCATE ALL");
                    client.ask(&format!("RESET {setting}"));
                    told
                })
                .collect();
            assert_eq!(told[0], told[1], "{setting}, {number}");
        }
    }
}
