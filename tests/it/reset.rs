//! What a client began with, and what it sets in ways that are easy to overlook: behind a DISCARD ALL, by a FunctionCall.

use crate::support::{Gateway, Raw, database, direct, message, query, startup};

const READ: &str = "SELECT concat(current_setting('app.began', true), ' ', current_setting('app.set', true))";

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

/// What the client of the next test begins with.
const BEGAN: [(&str, &str); 3] = [
    ("DateStyle", "German"),
    ("app.began", "it's \\ \"so\""),
    ("options", "-c work_mem=3MB -c search_path=other,public -c statement_timeout=9min -c application_name=na\u{ef}ve"),
];

/// Shows all of that.
const SHOW: &str = "SELECT concat_ws('|', current_setting('work_mem'), current_setting('search_path'), \
    current_setting('statement_timeout'), current_setting('DateStyle'), current_setting('app.began', true), \
    current_setting('application_name'), '01.02.2003'::date)";

#[test]
fn what_stands_behind_a_reset_finds_what_the_client_began_with() {
    if direct() {
        return;
    }
    let database = database("behind_reset");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    let sync = || message(b'S', b"");
    let flush = || message(b'H', b"");
    let set = "SET work_mem = '7MB'; SET search_path = pg_catalog; SET DateStyle = ISO; SET app.began = 'else'";
    let resets = [
        "RESET ALL",
        "RESET work_mem",
        "RESET search_path",
        "RESET DateStyle",
        "RESET app.began",
        "RESET application_name",
        "SET work_mem TO DEFAULT",
        "SET SESSION search_path = DEFAULT",
        "SET LOCAL work_mem TO DEFAULT",
        "SET LOCAL search_path TO DEFAULT",
        "RESET nothing_of_that_name",
        "RESET lock_timeout",
        "RESET ROLE",
    ];
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for reset in resets {
        let mut case = |label: &str, bytes: Vec<u8>| cases.push((format!("{reset}, {label}"), bytes));
        case("in a group", [run(reset), run(SHOW), sync()].concat());
        case("behind a Flush", [run(reset), flush(), run(SHOW), sync()].concat());
        case("in a group that fails", [run(reset), run(SHOW), run("SELECT 1/0"), run(SHOW), sync()].concat());
        case("in groups", [run(reset), sync(), run(SHOW), sync()].concat());
        case("in queries", [query(reset), query(SHOW)].concat());
        case("in a string", query(&format!("{reset} -- so\n; {SHOW} ;; {reset}; /* ; */ {SHOW}")));
        case("in a string that fails", query(&format!("SELECT '\u{e9}'; {reset}; {SHOW}; SELECT nowhere; {SHOW}")));
        case("in a string that does not parse", query(&format!("SELECT 1; {reset}; SELEC")));
        case("with a COPY", query(&format!("{reset}; COPY (SELECT 1) TO STDOUT; {SHOW}")));
        case(
            "in a block, of which SET TRANSACTION comes late",
            [query("BEGIN"), query(reset), query("SHOW work_mem"), query(SHOW), query("COMMIT")].concat(),
        );
        case(
            "rolled back",
            [query("BEGIN"), query("SAVEPOINT a"), query(reset), query(SHOW), query("ROLLBACK TO a"), query(SHOW)]
                .concat(),
        );
        case("in a block of one string", query(&format!("BEGIN; {reset}; {SHOW}; COMMIT; {SHOW}")));
        case(
            "in a portal that waits",
            [
                query("BEGIN"),
                message(b'P', &[b"r\0", reset.as_bytes(), b"\0\0\0"].concat()),
                message(b'B', b"p\0r\0\0\0\0\0\0\0"),
                sync(),
                run(SHOW),
                message(b'E', b"p\0\0\0\0\0"),
                run(SHOW),
                message(b'E', b"p\0\0\0\0\0"),
                sync(),
            ]
            .concat(),
        );
    }
    cases.push(("DISCARD ALL in a group".into(), [run("DISCARD ALL"), run(SHOW), sync()].concat()));
    cases.push(("DISCARD ALL in queries".into(), [query("DISCARD ALL"), query(SHOW)].concat()));
    cases.push(("DISCARD ALL in a string".into(), query(&format!("DISCARD ALL; {SHOW}"))));
    for reset in ["RESET work_mem", "SET LOCAL work_mem TO DEFAULT", "RESET DateStyle"] {
        let late = query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
        let block = [query("BEGIN"), query(reset), late, query("SHOW transaction_isolation"), query(SHOW)].concat();
        cases.push((format!("SET TRANSACTION behind {reset}"), block));
    }
    let user = [("user", "demo"), ("database", &*database)];
    let greeting = startup(196_608, &[&user[..], &BEGAN].concat());
    let answers = |port: u16, bytes: &[u8]| {
        let mut client = Raw::connect(port);
        client.send(&greeting);
        client.until(b'Z');
        let mut answers = Vec::new();
        // What follows tells what is left.
        for bytes in
            [&query(set), bytes, &query(SHOW), &query("ROLLBACK"), &query(SHOW), &query("DISCARD ALL"), &query(SHOW)]
        {
            client.send(bytes);
            let readies = bytes.iter().enumerate().filter(|(at, _)| ends(bytes, *at)).count();
            for _ in 0..readies {
                // When a parameter is reported is not promised.
                answers.push(client.until(b'Z').into_iter().filter(|(tag, _)| *tag != b'S').collect::<Vec<_>>());
            }
        }
        answers
    };
    for (label, bytes) in cases {
        let theirs = answers(gateway.cluster.primary().port(), &bytes);
        assert_eq!(shown(&answers(gateway.port, &bytes)), shown(&theirs), "{label}");
    }
    assert_eq!(
        gateway.query(&database, "SELECT concat(current_setting('work_mem'), current_setting('app.began', true))"),
        "4MB"
    );
}

/// Whether a message begins at a place that a ReadyForQuery answers.
fn ends(bytes: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start < at {
        let len: [u8; 4] = bytes[start + 1..start + 5].try_into().unwrap();
        start += 1 + u32::from_be_bytes(len) as usize;
    }
    start == at && matches!(bytes[at], b'Q' | b'S')
}

fn shown(answers: &[Vec<(u8, Vec<u8>)>]) -> Vec<String> {
    let one = |(tag, body): &(u8, Vec<u8>)| {
        format!("{}{}", char::from(*tag), String::from_utf8_lossy(body).replace('\0', "."))
    };
    answers.iter().map(|answer| answer.iter().map(one).collect::<Vec<_>>().join(" ")).collect()
}
