//! SQL's EXECUTE of what was prepared through the protocol, which is one name space for both.

use crate::support::{Gateway, Raw, database, direct, message, query, sqlstate, sync};

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())
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

/// A Parse of the same text under another name that was skipped leaves in doubt what the server holds: it is asked.
#[test]
fn what_is_in_doubt_is_executed() {
    let database = database("executed_doubt");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let failing = [message(b'E', b"none\0\0\0\0\0"), parse("n1", "SELECT 40 + $1::int"), sync()].concat();
    for begin in ["", "BEGIN; "] {
        let prepared = [parse("n2", "SELECT 40 + $1::int"), sync(), failing.clone()].concat();
        assert_eq!(told(&mut client, &prepared, 2), ["34000 portal \"none\" does not exist"]);
        told(&mut client, &query(&format!("{begin}SELECT 1")), 1);
        assert_eq!(told(&mut client, &query("EXECUTE n2(2)"), 1), ["42", "SELECT 1"], "{begin}");
        told(&mut client, &query("ROLLBACK; DEALLOCATE n2"), 1);
    }
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

/// DEALLOCATE of what was prepared through the protocol, in a string with others.
#[test]
fn a_string_deallocates_what_was_prepared_through_the_protocol() {
    let database = database("deallocated_together");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let gone = |name: &str| format!("26000 prepared statement \"{name}\" does not exist");
    for (text, expected, left) in [
        ("DEALLOCATE a; DEALLOCATE b", vec!["DEALLOCATE", "DEALLOCATE"], [false, false]),
        ("BEGIN; DEALLOCATE a; COMMIT", vec!["BEGIN", "DEALLOCATE", "COMMIT"], [false, true]),
        ("begin;;deallocate prepare \"b\" /* so */ ; rollback", vec!["BEGIN", "DEALLOCATE", "ROLLBACK"], [true, false]),
        ("SELECT 'x'; DEALLOCATE a; SELECT 'y'", vec!["x", "SELECT 1", "DEALLOCATE", "y", "SELECT 1"], [false, true]),
        ("SELECT 'longer'; DEALLOCATE a; SELECT 1/0", vec!["longer", "SELECT 1", "DEALLOCATE", "22012"], [false, true]),
        ("SELECT 1/0; DEALLOCATE a", vec!["22012"], [true, true]),
        ("DEALLOCATE a; DEALLOCATE a", vec!["DEALLOCATE", "26000"], [false, true]),
        ("DEALLOCATE nosuch; DEALLOCATE a", vec!["26000"], [true, true]),
        (
            "PREPARE c AS SELECT 1; DEALLOCATE a; DEALLOCATE c",
            vec!["PREPARE", "DEALLOCATE", "DEALLOCATE"],
            [false, true],
        ),
        ("DEALLOCATE a; DEALLOCATE ALL", vec!["DEALLOCATE", "DEALLOCATE ALL"], [false, false]),
        ("BEGIN; SELECT 1/0; DEALLOCATE a", vec!["BEGIN", "22012"], [true, true]),
        ("DEALLOCATE a; ROLLBACK", vec!["25P02"], [true, true]),
        ("ROLLBACK; DEALLOCATE a", vec!["ROLLBACK", "DEALLOCATE"], [false, true]),
    ] {
        let failed = text.starts_with("DEALLOCATE a; ROLLBACK") || text.starts_with("ROLLBACK");
        if !failed {
            told(&mut client, &[parse("a", "SELECT 'a'"), sync()].concat(), 1);
            told(&mut client, &[parse("b", "SELECT 'b'"), sync()].concat(), 1);
        }
        let answer: Vec<_> = told(&mut client, &query(text), 1)
            .iter()
            .map(|said| {
                said.split_once(' ').filter(|(code, _)| code.len() == 5).map_or(&**said, |(code, _)| code).to_owned()
            })
            .collect();
        assert_eq!(answer, expected, "{text}");
        if text.starts_with("BEGIN; SELECT 1/0") || text.starts_with("DEALLOCATE a; ROLLBACK") {
            continue;
        }
        for (name, left) in ["a", "b"].into_iter().zip(left) {
            let answer = told(&mut client, &[run(name), sync()].concat(), 1);
            let expected = if left { vec![name.to_owned(), "SELECT 1".to_owned()] } else { vec![gone(name)] };
            assert_eq!(answer, expected, "{text}");
        }
        told(&mut client, &query("DEALLOCATE a"), 1);
        told(&mut client, &query("DEALLOCATE b"), 1);
    }
    // What stands behind it is where the client wrote it.
    for text in ["DEALLOCATE a; SELECT nosuch", "DEALLOCATE  /* a long way to say so */ a; SELECT nosuch"] {
        told(&mut client, &[parse("a", "SELECT 'a'"), sync()].concat(), 1);
        client.send(&query(text));
        let answer = client.until(b'Z');
        let (_, error) = answer.iter().find(|(tag, _)| *tag == b'E').unwrap();
        let position = error.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"P")).unwrap();
        let at = text.find("nosuch").unwrap() + 1;
        assert_eq!(String::from_utf8_lossy(position), at.to_string(), "{text}");
        told(&mut client, &query("DEALLOCATE a"), 1);
    }
}

/// What a DO deallocates is not noticed; whoever misses it on that server is told so once, and then it is prepared there again.
#[test]
fn what_was_deallocated_unseen_is_missed_once() {
    let database = database("deallocated_unseen");
    let gateway = Gateway::setup().pool("size = 1").start();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let (mut one, mut other) = (log_in(), log_in());
    let text = "SELECT 'a' FROM pg_current_xact_id()";
    for client in [&mut one, &mut other] {
        told(client, &[parse("a", text), sync()].concat(), 1);
    }
    let answer = told(&mut one, &query("DO 'BEGIN PERFORM pg_current_xact_id(); EXECUTE ''DEALLOCATE ALL''; END'"), 1);
    assert_eq!(answer, ["DO"]);
    if direct() {
        return;
    }
    let missed = "26000 prepared statement \"a\" does not exist";
    assert_eq!(told(&mut other, &[run("a"), sync()].concat(), 1), [missed]);
    for client in [&mut other, &mut one] {
        assert_eq!(told(client, &[run("a"), sync()].concat(), 1), ["a", "SELECT 1"]);
        assert_eq!(told(client, &query("EXECUTE a"), 1), ["a", "SELECT 1"]);
    }
}

/// All that a client is told up to `ready` times ReadyForQuery, values and words where they matter.
#[track_caller]
fn heard(client: &mut Raw, bytes: &[u8], ready: usize) -> Vec<String> {
    client.send(bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let answer = (0..ready).flat_map(|_| client.until(b'Z'));
    answer
        .map(|(tag, body)| match tag {
            b'D' => format!("D {}", text(&body[6..])),
            b'E' => format!("E {}", sqlstate(&body)),
            _ => {
                format!("{} {}", char::from(tag), if matches!(tag, b'C' | b'Z') { text(&body) } else { String::new() })
            }
        })
        .collect()
}

/// DEALLOCATE through the extended protocol, with others in a group or in a transaction, is answered as it is without a gateway.
#[test]
fn a_group_deallocates_what_was_prepared_through_the_protocol() {
    let database = database("deallocated_in_groups");
    let gateway = Gateway::setup().pool("size = 2").start();
    let log_in = |port| Raw::log_in(port, "demo", &database);
    let (mut client, mut other) = (log_in(gateway.port), log_in(gateway.port));
    let mut plain = log_in(gateway.cluster.primary().port());
    let bind = |name: &str, portal: &str| {
        message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
    };
    let execute = |portal: &str| message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat());
    let say = |text: &str| [parse("", text), bind("", ""), execute("")].concat();
    let (a, b, one, zero) = (say("deallocate a"), say("DEALLOCATE PREPARE \"b\""), say("select 1"), say("select 1/0"));
    let (end, flush, portal) = (sync(), message(b'H', b""), bind("", "p"));
    let named = parse("d", "deallocate a");
    let cases: Vec<(&str, Vec<Vec<&[u8]>>)> = vec![
        ("alone", vec![vec![&a, &end], vec![&a, &end]]),
        ("first", vec![vec![&a, &one, &end]]),
        ("last", vec![vec![&one, &a, &end]]),
        ("two", vec![vec![&a, &b, &end]]),
        ("the same twice", vec![vec![&a, &a, &b, &end]]),
        ("an error before", vec![vec![&zero, &a, &end]]),
        ("an error behind", vec![vec![&a, &zero, &end]]),
    ];
    let nosuch = say("deallocate nosuch");
    let all = say("deallocate all");
    let (run_a, again) = ([bind("a", ""), execute("")].concat(), parse("a", "select 'new'"));
    let described =
        [parse("", "deallocate a"), message(b'D', b"S\0"), bind("", ""), message(b'D', b"P\0"), execute("")];
    let described = described.concat();
    let to_portal = [parse("", "deallocate a"), portal.clone()].concat();
    let to_both = [parse("", "deallocate b"), bind("", ""), named.clone(), bind("d", "p")].concat();
    let (named_one, named_run) = (named.clone(), [bind("d", ""), execute("")].concat());
    let (begin, commit, fail) = (query("BEGIN; SELECT 1"), query("COMMIT"), query("BEGIN; SELECT 1/0"));
    let (waiting, selects) = (query("BEGIN"), query("select 1"));
    let (of_p, of_none) = (execute("p"), execute(""));
    let parse_and_a = [parse("c", "select 1"), say("deallocate c"), bind("c", ""), execute("")].concat();
    let more: Vec<(&str, Vec<Vec<&[u8]>>)> = vec![
        ("none of that name before", vec![vec![&nosuch, &a, &end]]),
        ("none of that name behind", vec![vec![&a, &nosuch, &end]]),
        ("all", vec![vec![&one, &all, &one, &end]]),
        ("all, then one", vec![vec![&all, &a, &end]]),
        ("one, then all", vec![vec![&a, &all, &end]]),
        ("bound behind", vec![vec![&a, &run_a, &end]]),
        ("bound ahead", vec![vec![&run_a, &a, &end]]),
        ("parsed behind", vec![vec![&a, &again, &run_a, &end]]),
        ("parsed behind, and an error", vec![vec![&zero, &a, &again, &run_a, &end]]),
        ("parsed and gone", vec![vec![&parse_and_a, &end]]),
        ("described", vec![vec![&described, &one, &end]]),
        ("a named one twice", vec![vec![&named_one, &end], vec![&named_run, &end], vec![&named_run, &end]]),
        ("a named one twice in a group", vec![vec![&named_one, &named_run, &named_run, &end]]),
        ("in a block", vec![vec![&begin], vec![&a, &end], vec![&a, &end], vec![&commit]]),
        ("in a block at once", vec![vec![&begin, &a, &end, &a, &end, &commit]]),
        ("in a block that waits", vec![vec![&waiting], vec![&a, &end], vec![&selects], vec![&commit]]),
        ("in a block that waits, with others", vec![vec![&waiting], vec![&a, &one, &end], vec![&commit]]),
        ("in a failed block", vec![vec![&fail], vec![&a, &end], vec![&commit]]),
        ("pipelined", vec![vec![&a, &one, &end, &run_a, &end, &b, &one, &end]]),
        ("pipelined with an error", vec![vec![&zero, &a, &end, &run_a, &end, &a, &one, &end, &a, &one, &end]]),
        ("a Query behind", vec![vec![&one, &a, &end, &selects]]),
        ("with a Flush", vec![vec![&one, &flush, &a, &flush, &run_a, &end]]),
        ("a portal", vec![vec![&begin], vec![&to_portal, &end], vec![&of_p, &of_p, &end], vec![&commit]]),
        ("two portals", vec![vec![&to_both, &of_p, &of_none, &end]]),
        ("no portal", vec![vec![&to_portal, &of_none, &end]]),
        ("a portal of before", vec![vec![&to_portal, &of_p, &end], vec![&again, &end], vec![&of_p, &end]]),
    ];
    let select = |name: &str| parse(name, &format!("select '{name}', pg_current_xact_id() is null"));
    for (what, writes) in cases.iter().chain(&more) {
        let prepared = [select("a"), select("b"), end.clone()].concat();
        for client in [&mut client, &mut plain] {
            assert_eq!(heard(client, &prepared, 1), ["1 ", "1 ", "Z I"], "{what}");
        }
        // Another server may be the next.
        heard(&mut other, &query("BEGIN; SELECT pg_current_xact_id()"), 1);
        for (at, write) in writes.iter().enumerate() {
            let ready = write.iter().filter(|part| matches!(part[0], b'S' | b'Q')).count();
            let bytes = write.concat();
            assert_eq!(heard(&mut client, &bytes, ready), heard(&mut plain, &bytes, ready), "{what}, {at}");
        }
        heard(&mut other, &query("COMMIT"), 1);
        for text in ["a", "b", "c", "d"] {
            let bytes = [bind(text, ""), execute(""), end.clone()].concat();
            assert_eq!(heard(&mut client, &bytes, 1), heard(&mut plain, &bytes, 1), "{what}: {text}");
        }
        for client in [&mut client, &mut plain] {
            heard(client, &query("DEALLOCATE ALL"), 1);
        }
        // Nothing is left on the servers that PREPARE would meet.
        let text = "PREPARE a AS SELECT 1; DEALLOCATE a; PREPARE b AS SELECT 1; DEALLOCATE b";
        assert_eq!(heard(&mut client, &query(text), 1), heard(&mut plain, &query(text), 1), "{what}");
    }
}

/// What drops all statements within a group: behind it in the group their names are free, on the server that has them and elsewhere.
#[test]
fn a_group_drops_all_that_was_prepared_through_the_protocol() {
    let database = database("dropped_in_groups");
    let gateway = Gateway::setup().pool("size = 2").weights(0, 0).start();
    let log_in = |port| Raw::log_in(port, "demo", &database);
    let mut client = log_in(gateway.port);
    let mut others = [log_in(gateway.port), log_in(gateway.port)];
    let mut plain = log_in(gateway.cluster.primary().port());
    let bind = |name: &str, portal: &str| {
        message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
    };
    let execute = |portal: &str| message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat());
    let run = |name: &str| [bind(name, ""), execute("")].concat();
    let say = |text: &str| [parse("", text), run("")].concat();
    let (all, discard, zero, one) = (say("deallocate all"), say("DISCARD ALL"), say("select 1/0"), say("select 1"));
    let (named, run_named) = (parse("d", "DEALLOCATE PREPARE ALL"), run("d"));
    let (again, run_a, run_b) = (parse("a", "select 'new'"), run("a"), run("b"));
    let same = parse("a", "select 'a', pg_current_xact_id() is null");
    let (describe, close) = (message(b'D', b"Sa\0"), message(b'C', b"Sa\0"));
    let (end, flush) = (sync(), message(b'H', b""));
    let (begin, commit, rollback, fail) = (query("BEGIN"), query("COMMIT"), query("ROLLBACK"), query("SELECT 1/0"));
    let (selects, sql) = (query("select 1"), query("EXECUTE a"));
    let (portal, of_p) = ([parse("", "deallocate all"), bind("", "p")].concat(), execute("p"));
    let (of_a, of_q, one_a) = (bind("a", "q"), execute("q"), say("deallocate a"));
    let executes = [parse("e", "execute a"), run("e")].concat();
    let cases: Vec<(&str, Vec<Vec<&[u8]>>)> = vec![
        ("a name is bound", vec![vec![&all, &run_a, &end]]),
        ("a name is bound behind another", vec![vec![&all, &one, &run_a, &end]]),
        ("a name is described", vec![vec![&all, &describe, &end]]),
        ("a name is closed", vec![vec![&all, &close, &end]]),
        ("a name is executed by SQL", vec![vec![&all, &executes, &end]]),
        ("a name is deallocated", vec![vec![&all, &one_a, &end]]),
        ("a name is parsed", vec![vec![&all, &again, &end]]),
        ("a name is parsed and run", vec![vec![&all, &again, &describe, &run_a, &end]]),
        ("a name is parsed as before", vec![vec![&all, &same, &run_a, &end]]),
        ("a name is parsed twice", vec![vec![&all, &again, &again, &end]]),
        ("a name is parsed and dropped", vec![vec![&all, &again, &one_a, &again, &run_a, &end]]),
        ("parsed ahead", vec![vec![&named, &run_named, &run_named, &end]]),
        ("parsed ahead, and run twice", vec![vec![&named, &end], vec![&run_named, &end], vec![&run_named, &end]]),
        ("twice", vec![vec![&all, &again, &all, &again, &run_a, &end]]),
        ("discarded, and bound", vec![vec![&discard, &run_a, &end]]),
        ("discarded, and parsed", vec![vec![&discard, &again, &run_a, &end]]),
        ("discarded behind another", vec![vec![&one, &discard, &again, &run_a, &end]]),
        ("an error before", vec![vec![&zero, &all, &again, &run_a, &end]]),
        ("an error behind", vec![vec![&all, &again, &zero, &run_a, &end]]),
        ("an error at once behind", vec![vec![&all, &zero, &again, &run_a, &end]]),
        ("in a block", vec![vec![&begin], vec![&all, &again, &run_a, &end], vec![&rollback]]),
        ("in a block, bound", vec![vec![&begin], vec![&selects], vec![&all, &run_a, &end], vec![&commit]]),
        ("in a block, discarded", vec![vec![&begin], vec![&discard, &again, &end], vec![&run_a, &end], vec![&commit]]),
        ("in a failed block", vec![vec![&begin], vec![&fail], vec![&all, &again, &end], vec![&rollback]]),
        ("in a block at once", vec![vec![&begin, &all, &again, &end, &run_a, &end, &run_b, &end, &rollback]]),
        ("pipelined", vec![vec![&all, &end, &run_a, &end, &again, &run_a, &end]]),
        ("pipelined behind a Parse", vec![vec![&all, &again, &end, &run_a, &end, &run_b, &end]]),
        ("pipelined behind an error", vec![vec![&zero, &all, &again, &end, &run_a, &end, &run_b, &end]]),
        ("a Query behind", vec![vec![&all, &again, &sql, &run_a, &end]]),
        ("with a Flush", vec![vec![&all, &flush, &run_a, &end]]),
        ("with a Flush, and a Parse", vec![vec![&all, &flush, &again, &flush, &run_a, &end]]),
        ("with a Flush, and a Parse at once", vec![vec![&all, &again, &flush, &run_a, &end, &run_b, &end]]),
        ("a portal", vec![vec![&portal, &run_a, &of_p, &run_b, &end]]),
        ("a portal of one", vec![vec![&of_a, &all, &of_q, &end]]),
        ("a portal run twice", vec![vec![&portal, &of_p, &again, &of_p, &end]]),
        ("a portal later", vec![vec![&begin], vec![&portal, &end], vec![&of_p, &again, &run_a, &end], vec![&commit]]),
    ];
    let select = |name: &str| parse(name, &format!("select '{name}', pg_current_xact_id() is null"));
    for (what, writes) in &cases {
        for elsewhere in [false, true] {
            let what = format!("{what}, elsewhere: {elsewhere}");
            let prepared = [select("a"), select("b"), run_a.clone(), end.clone()].concat();
            assert_eq!(heard(&mut client, &prepared, 1), heard(&mut plain, &prepared, 1), "{what}");
            if elsewhere {
                client.leaves_server_to(&mut others);
            }
            for (at, write) in writes.iter().enumerate() {
                let ready = write.iter().filter(|part| matches!(part[0], b'S' | b'Q')).count();
                let bytes = write.concat();
                assert_eq!(heard(&mut client, &bytes, ready), heard(&mut plain, &bytes, ready), "{what}, {at}");
            }
            for text in ["a", "b", "d", "e"] {
                let bytes = [run(text), end.clone()].concat();
                assert_eq!(heard(&mut client, &bytes, 1), heard(&mut plain, &bytes, 1), "{what}: {text}");
            }
            for other in &mut others {
                other.ask("COMMIT");
            }
            for client in [&mut client, &mut plain] {
                heard(client, &query("DEALLOCATE ALL"), 1);
            }
        }
    }
}
