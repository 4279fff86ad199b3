//! What a session leaves on a server is its own: three clients on one server, and what one has set no other sees.

use crate::support::{Gateway, Raw, cluster, database, direct, message, sqlstate};

/// A gateway on which all sessions meet on one server of the primary's.
fn one_server() -> Gateway<'static> {
    Gateway::setup().pool("size = 1\nquery_wait = \"1s\"").start()
}

/// As many servers as there are clients, for tests in which one is pinned.
fn two_servers() -> Gateway<'static> {
    Gateway::setup().pool("size = 2\nquery_wait = \"1s\"").start()
}

/// A first cell, asked of the primary.
async fn cell(client: &tokio_postgres::Client, expression: &str) -> Option<String> {
    let sql = format!("SELECT ({expression})::pg_catalog.text, pg_current_xact_id()");
    let messages = client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{expression}: {error:?}"));
    messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    })?
}

/// Runs `steps` as one client; it must see `expected` of `expression` afterwards, again and again, and no other client may.
#[track_caller]
fn keeps_to_itself(label: &str, setup: &str, steps: &[&str], expression: &str, expected: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = database(label);
    let gateway = two_servers();
    runtime.block_on(async {
        let one = gateway.connect(&database).await;
        one.batch_execute(setup).await.unwrap();
        let others = [gateway.connect(&database).await, gateway.connect(&database).await];
        for step in steps {
            one.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error:?}"));
        }
        for _ in 0..3 {
            for other in &others {
                let seen = cell(other, expression).await.unwrap_or_default();
                assert_ne!(seen, expected, "{label}: another client sees it");
            }
            assert_eq!(cell(&one, expression).await.as_deref(), Some(expected), "{label}: its own client lost it");
        }
        // Nor does anybody once it has gone.
        drop(one);
        for _ in 0..3 {
            for other in &others {
                assert_ne!(cell(other, expression).await.unwrap_or_default(), expected, "{label}: afterwards");
            }
        }
    });
}

#[test]
fn settings_under_names_that_no_text_shows() {
    let read = "current_setting('app.dyn', true)";
    let case = |label: &str, steps: &[&str]| keeps_to_itself(label, "", steps, read, "SECRET");
    case("dyn_values", &["SELECT set_config(k, v, false) FROM (VALUES ('app.dyn', 'SECRET')) t(k, v)"]);
    case("dyn_concat", &["SELECT set_config('app' || '.dyn', 'SECRET', false)"]);
    case("dyn_unicode", &["SELECT set_config(U&'app.\\0064yn', 'SECRET', false)"]);
    case("dyn_ident", &["SET U&\"\\0061pp\".dyn = 'SECRET'"]);
    case(
        "dyn_cursor",
        &["BEGIN; DECLARE c CURSOR FOR SELECT set_config('app' || '.dyn', 'SECRET', false)", "FETCH c; COMMIT"],
    );
    case("dyn_do", &["DO $$ BEGIN PERFORM set_config('app' || '.dyn', 'SECRET', false); END $$"]);
    case("dyn_prepare", &["PREPARE p AS SELECT set_config($1, $2, false)", "EXECUTE p('app.dyn', 'SECRET')"]);
}

#[test]
fn settings_that_an_update_of_their_view_makes() {
    let case = |label: &str, setup: &str, steps: &[&str]| {
        keeps_to_itself(label, setup, steps, "current_setting('work_mem')", "7777kB");
    };
    let update = "UPDATE pg_settings SET setting = '7777' WHERE name = 'work_mem'";
    case("upd_bare", "", &[update]);
    case("upd_with", "", &[&format!("WITH a AS (SELECT 1) {update}")]);
    case("upd_explain", "", &[&format!("EXPLAIN ANALYZE {update}")]);
    case("upd_prepared", "", &[&format!("PREPARE p AS {update}"), "EXECUTE p", "DEALLOCATE p"]);
    let view = "CREATE VIEW mine AS SELECT * FROM pg_settings";
    case("upd_view", view, &["UPDATE mine SET setting = '7777' WHERE name = 'work_mem'"]);
    case("exec_call", "", &["PREPARE p AS SELECT set_config('work_mem', '7777', false)", "EXECUTE p", "DEALLOCATE p"]);
}

#[tokio::test]
async fn settings_named_by_parameters() {
    let database = database("dyn_bound");
    let gateway = two_servers();
    let one = gateway.connect(&database).await;
    let others = [gateway.connect(&database).await, gateway.connect(&database).await];
    let seventeen: String = (1..=16).map(|n| format!("${n}::text, ")).collect();
    let sql = format!("SELECT {seventeen} set_config($17, $18, false)");
    let values: Vec<String> = (1..=16).map(|n| format!("v{n}")).chain(["app.dyn".into(), "SECRET".into()]).collect();
    let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    one.query(&sql, &values).await.unwrap();
    let read = "current_setting('app.dyn', true)";
    for other in &others {
        assert_ne!(cell(other, read).await.as_deref(), Some("SECRET"));
    }
    assert_eq!(cell(&one, read).await.as_deref(), Some("SECRET"));
    // A name that a value shows follows its client: no server is kept for it.
    if !direct() {
        let pinned = gateway.admin("/metrics").unwrap().1;
        assert!(!pinned.contains("computed name\"} 1"), "{pinned}");
    }
    // One taken out of a value pins.
    let json = r#"{"app.more": "SECRET"}"#;
    one.query("SELECT set_config(key, value, false) FROM json_each_text(($1::text)::json)", &[&json]).await.unwrap();
    for other in &others {
        assert_ne!(cell(other, "current_setting('app.more', true)").await.as_deref(), Some("SECRET"));
    }
    assert_eq!(cell(&one, "current_setting('app.more', true)").await.as_deref(), Some("SECRET"));
    assert_eq!(cell(&one, read).await.as_deref(), Some("SECRET"));
}

/// `session_replication_role` is a superuser's to set and to reset; the clients meet on a server as somebody who is none.
#[test]
fn settings_above_the_rights_of_the_role_at_hand_change_hands() {
    let database = database("same_role");
    let gateway = one_server();
    let run = |raw: &mut Raw, sql: &str| {
        raw.send(&message(b'Q', format!("{sql}\0").as_bytes()));
        let answer = raw.until(b'Z');
        assert!(answer.iter().all(|(tag, _)| *tag != b'E'), "{sql}: {answer:?}");
        answer.into_iter().filter(|(tag, _)| *tag == b'D').map(|(_, row)| row).collect::<Vec<_>>()
    };
    let roles = "CREATE ROLE same_owner SUPERUSER LOGIN; CREATE ROLE same_one; CREATE ROLE same_two";
    gateway.cluster.primary().psql("postgres", roles).unwrap();
    let user = "SET SESSION AUTHORIZATION same_one";
    for (first, second) in [
        (user.to_owned(), user.to_owned()),
        ("SET ROLE same_two".to_owned(), "SET ROLE same_two".to_owned()),
        (user.to_owned(), format!("{user}; SET ROLE same_one")),
        (format!("{user}; SET ROLE same_one"), user.to_owned()),
    ] {
        let mut one = Raw::log_in(gateway.port, "same_owner", &database);
        let mut two = Raw::log_in(gateway.port, "same_owner", &database);
        // An id of a transaction: on the primary, where they share the one server.
        let read = "SELECT current_setting('session_replication_role'), current_user, session_user, pg_current_xact_id() > '0'";
        run(&mut one, "SET session_replication_role = replica");
        run(&mut one, &first);
        run(&mut two, &second);
        for _ in 0..2 {
            for (raw, expected) in [(&mut one, "replica"), (&mut two, "origin")] {
                let rows = run(raw, read);
                let row = String::from_utf8_lossy(&rows[0]);
                assert!(row.contains(expected) && row.contains("same_"), "{first} / {second}: {row}");
            }
        }
    }
}

#[test]
fn a_bind_without_the_value_that_names_a_setting_keeps_no_server() {
    let database = database("dyn_short");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"1s\"").start();
    let mut one = Raw::log_in(gateway.port, "demo", &database);
    let parse = message(b'P', b"s\0SELECT set_config($1, $2, false)\0\0\0");
    for values in [&b"\0\0"[..], &b"\0\x01\xff\xff\xff\xff"[..]] {
        let bind = message(b'B', &[b"\0s\0\0\0", values, b"\0\0"].concat());
        let close = message(b'C', b"Ss\0");
        let run = message(b'E', b"\0\0\0\0\0");
        one.send(&[close, parse.clone(), bind, run, message(b'S', b"")].concat());
        let answer = one.until(b'Z');
        let error = answer.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body));
        assert_eq!(error.as_deref(), Some("08P01"), "{answer:?}");
        // The one server is free for another.
        let mut other = Raw::log_in(gateway.port, "demo", &database);
        other.send(&message(b'Q', b"SELECT pg_current_xact_id()\0"));
        let answer = other.until(b'Z');
        assert!(answer.iter().any(|(tag, _)| *tag == b'D'), "{answer:?}");
    }
}

#[test]
fn a_word_pair_that_is_no_body_hides_nothing() {
    let memory = "current_setting('work_mem')";
    let case = |label: &str, setup: &str, text: &str| keeps_to_itself(label, setup, &[text], memory, "77MB");
    case(
        "atomic_argument",
        "CREATE DOMAIN atomic AS int",
        "CREATE OR REPLACE FUNCTION fa(begin atomic) RETURNS int LANGUAGE sql AS 'SELECT 1'; SET work_mem = '77MB'",
    );
    case(
        "atomic_label",
        "CREATE TABLE b (begin int)",
        "CREATE VIEW function AS SELECT begin atomic FROM b; SET work_mem = '77MB'",
    );
    case(
        "atomic_case",
        "",
        "CREATE FUNCTION fc() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 case; END; SET work_mem = '77MB'",
    );
}

#[test]
fn temporary_objects_of_every_kind() {
    let seen = |table: &str, column: &str| {
        format!("SELECT count(*) FROM {table} WHERE {column} = pg_my_temp_schema() AND pg_my_temp_schema() <> 0")
    };
    let function = "CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1'";
    keeps_to_itself(
        "temp_operator",
        function,
        &["CREATE OPERATOR pg_temp.<~> (leftarg = int, rightarg = int, function = plus)"],
        &seen("pg_operator", "oprnamespace"),
        "1",
    );
    keeps_to_itself(
        "temp_collation",
        "",
        &["CREATE COLLATION pg_temp.c FROM \"C\""],
        &seen("pg_collation", "collnamespace"),
        "1",
    );
    // The name of the schema stands in an earlier statement.
    keeps_to_itself(
        "temp_path",
        "",
        &["SET search_path = pg_temp, public", "CREATE TABLE t (n int)", "RESET search_path"],
        &seen("pg_class", "relnamespace"),
        "1",
    );
}

#[tokio::test]
async fn a_seed_stays_on_its_server() {
    let database = database("seed");
    let gateway = two_servers();
    let one = gateway.connect(&database).await;
    let others = [gateway.connect(&database).await, gateway.connect(&database).await];
    let draw = "ARRAY[random(), random()]";
    let steps = ["SELECT setseed(0.42)", "SET seed = 0.42", "BEGIN; SET LOCAL seed = 0.42; COMMIT"];
    one.batch_execute(steps[0]).await.unwrap();
    let expected = cell(&one, draw).await.unwrap();
    for step in steps {
        one.batch_execute(step).await.unwrap();
        for other in &others {
            assert_ne!(cell(other, draw).await.unwrap(), expected, "{step}");
        }
        assert_eq!(cell(&one, draw).await.unwrap(), expected, "{step}");
    }
    one.batch_execute("RESET ALL").await.unwrap();
    one.batch_execute("DISCARD ALL").await.unwrap();
    one.batch_execute("SET seed = 0.42").await.unwrap();
    drop(one);
    // Two clients and two servers: one is the seeded one, if it was kept.
    for other in &others {
        other.batch_execute("BEGIN").await.unwrap();
        assert_ne!(cell(other, draw).await.unwrap(), expected, "a stranger draws what was seeded");
    }
}

/// A Query in bytes.
fn query(text: &[u8]) -> Vec<u8> {
    message(b'Q', &[text, b"\0"].concat())
}

/// The first cell of the answer to a query.
fn first(raw: &mut Raw, text: &[u8]) -> Vec<u8> {
    raw.send(&query(text));
    let answer = raw.until(b'Z');
    let row = answer.iter().find(|(tag, _)| *tag == b'D');
    row.map_or_else(|| panic!("no row: {answer:?}"), |(_, body)| body[6..].to_vec())
}

#[test]
fn values_in_other_encodings() {
    let database = database("encodings");
    let gateway = one_server();
    let log_in = || Raw::log_in(gateway.port, "demo", &database);
    let mut clients = [log_in(), log_in(), log_in(), log_in(), log_in()];
    // é, €, and 表, which ends in a backslash in SJIS; the last one is UTF-8.
    let values: [(&str, &[u8]); 5] = [
        ("LATIN1", b"caf\xe9"),
        ("WIN1252", b"5 \x80"),
        ("EUC_JP", b"\xc9\xbd"),
        ("SJIS", b"\x95\x5c"),
        ("UTF8", "tschüß".as_bytes()),
    ];
    for (client, (encoding, value)) in clients.iter_mut().zip(values) {
        client.send(&query(format!("SET client_encoding = '{encoding}'").as_bytes()));
        client.until(b'Z');
        let set = if encoding == "SJIS" {
            // Past what ends in a backslash, a quote.
            b"SELECT set_config('app.v', convert_from('\\x955c', 'SJIS'), false)".to_vec()
        } else {
            [b"SET app.v = '", value, b"'"].concat()
        };
        client.send(&query(&set));
        client.until(b'Z');
    }
    let read = b"SELECT current_setting('app.v'), pg_current_xact_id()";
    for _ in 0..3 {
        for (client, (encoding, value)) in clients.iter_mut().zip(values) {
            assert_eq!(first(client, read)[..value.len()], *value, "{encoding}");
            assert_eq!(first(client, b"SHOW client_encoding"), encoding.as_bytes());
        }
    }
    // What waits for a transaction's first statement goes as it came.
    let latin = &mut clients[0];
    latin.send(&query(b"BEGIN"));
    latin.until(b'Z');
    latin.send(&query(b"SET LOCAL app.v = 'th\xe9'"));
    latin.until(b'Z');
    assert_eq!(first(latin, read)[..3], *b"th\xe9");
}

#[test]
fn settings_too_large_to_follow() {
    let label = "large_setting";
    let set = "SELECT set_config('app.small', 'x', false), set_config('app.big', repeat('x', 20000000), false)";
    let read = "current_setting('app.small', true) || length(current_setting('app.big', true))";
    keeps_to_itself(label, "", &[set], read, "x20000000");
}

#[test]
fn prepared_statements_are_bounded() {
    if direct() {
        return;
    }
    let database = database("prepared_bytes");
    let gateway = two_servers();
    let mut raw = Raw::log_in(gateway.port, "demo", &database);
    let parse = |name: &str, text: &str| message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let sync = || message(b'S', b"");
    let long = |n: usize| format!("SELECT {n} /* {} */", "x".repeat(1_000_000));
    let memory = gateway.peak_memory().unwrap();
    let mut refused = 0;
    for round in 0..3 {
        for n in 0..100 {
            raw.send(&[parse(&format!("s{round}_{n}"), &long(n)), sync()].concat());
            let answer = raw.until(b'Z');
            if answer[0].0 == b'1' {
                continue;
            }
            assert_eq!(sqlstate(&answer[0].1), "53400", "after {n}: {:?}", String::from_utf8_lossy(&answer[0].1));
            assert!(n >= 10, "refused after {n}");
            refused += 1;
        }
        // The session goes on, within a pipeline as well: what is refused is not there.
        let bind = message(b'B', b"\0no\0\0\0\0\0\0\0");
        raw.send(&[parse("no", &long(0)), bind, message(b'E', b"\0\0\0\0\0"), sync()].concat());
        let tags: Vec<u8> = raw.until(b'Z').iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, b"EZ");
        raw.send(&query(b"DEALLOCATE ALL"));
        assert_eq!(raw.until(b'Z')[0].0, b'C');
    }
    assert!(refused >= 3 * 80, "{refused}");
    let grown = (gateway.peak_memory().unwrap() - memory) >> 20;
    println!("figure: 300 statements of 1 MB, {grown} MiB");
    assert!(grown < 100, "memory grew by {grown} MiB");
    // A message that is none costs the statement, not the session.
    raw.send(&message(b'Q', b"SELECT 1\0, 2\0"));
    let answer = raw.until(b'Z');
    assert_eq!(sqlstate(&answer[0].1), "08P01", "{answer:?}");
    assert_eq!(first(&mut raw, b"SELECT 1"), b"1");
}

#[test]
fn what_waits_for_a_transaction_is_bounded() {
    let database = database("deferred_bytes");
    let gateway = two_servers();
    let mut raw = Raw::log_in(gateway.port, "demo", &database);
    raw.send(&query(b"BEGIN"));
    raw.until(b'Z');
    let memory = gateway.peak_memory();
    let long = |n: usize| format!("SET LOCAL app.v{n} = '{}'", "x".repeat(900_000));
    for n in 0..60 {
        raw.send(&query(long(n).as_bytes()));
        assert_eq!(raw.until(b'Z')[0].0, b'C');
    }
    assert_eq!(first(&mut raw, b"SELECT length(current_setting('app.v59'))"), b"900000");
    if let (Some(before), Some(after)) = (memory, gateway.peak_memory()) {
        let grown = (after - before) >> 20;
        println!("figure: 60 statements of 0.9 MB that could wait, {grown} MiB");
        assert!(grown < 25, "memory grew by {grown} MiB");
    }
    raw.send(&query(b"COMMIT"));
    assert_eq!(raw.until(b'Z')[0].0, b'C');
    assert_eq!(first(&mut raw, b"SELECT 1"), b"1");
}

/// Operators of the client's own, ahead of PostgreSQL's in its search path, by which nothing is what it is.
const OWN_OPERATORS: &str = "
    CREATE SCHEMA mine;
    CREATE FUNCTION mine.no(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE FUNCTION mine.no(name, name) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE FUNCTION mine.no(oid, oid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE FUNCTION mine.no(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE FUNCTION mine.no(bigint, bigint) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE FUNCTION mine.nothing(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
    CREATE OPERATOR mine.= (leftarg = text, rightarg = text, function = mine.no);
    CREATE OPERATOR mine.= (leftarg = name, rightarg = name, function = mine.no);
    CREATE OPERATOR mine.= (leftarg = oid, rightarg = oid, function = mine.no);
    CREATE OPERATOR mine.= (leftarg = int, rightarg = int, function = mine.no);
    CREATE OPERATOR mine.<> (leftarg = oid, rightarg = oid, function = mine.no);
    CREATE OPERATOR mine.> (leftarg = bigint, rightarg = bigint, function = mine.no);
    CREATE OPERATOR mine.<= (leftarg = bigint, rightarg = bigint, function = mine.no);
    CREATE OPERATOR mine.|| (leftarg = text, rightarg = text, function = mine.nothing);
    CREATE DOMAIN mine.text AS pg_catalog.text CHECK (false);";

/// The question about a session's state is asked under the session's own search path. Its operators were looked up there, and a
/// client that had put others ahead of PostgreSQL's left what it had locked, made and set to whoever came next.
#[test]
fn operators_of_the_clients_own() {
    let case = |label: &str, step: &str, expression: &str, expected: &str| {
        let path = "SET search_path = mine, pg_catalog, public";
        keeps_to_itself(label, OWN_OPERATORS, &[path, step], expression, expected);
    };
    case(
        "own_lock",
        "SELECT pg_advisory_lock(14)",
        "SELECT max(objid::oid::bigint) FROM pg_locks \
         WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_backend_pid()",
        "14",
    );
    case("own_temp", "CREATE TEMP TABLE secret (a int)", "to_regclass('pg_temp.secret')", "secret");
    case("own_setting", "SET work_mem = '7777kB'", "current_setting('work_mem')", "7777kB");
    let hidden = "DO $$ BEGIN PERFORM set_config('work_mem', '7777kB', false); END $$";
    case("own_hidden", hidden, "current_setting('work_mem')", "7777kB");
}

/// The same of who the session is.
#[test]
fn a_session_authorization_behind_operators_of_its_own() {
    let database = database("own_authorization");
    // Those that it finds after it has become another; made past the gateway, or all of its settings would be put back for a second.
    cluster().primary().psql(&database, &format!("SET ROLE demo; {OWN_OPERATORS}")).unwrap();
    let gateway = one_server();
    let mut one = Raw::log_in(gateway.port, "postgres", &database);
    let mut other = Raw::log_in(gateway.port, "postgres", &database);
    assert_eq!(one.ask("SET search_path = mine, pg_catalog, public"), "");
    assert_eq!(one.ask("SET SESSION AUTHORIZATION demo"), "");
    for _ in 0..3 {
        // Of which everything is asked.
        assert_eq!(one.ask("DO $$ BEGIN END $$"), "");
        assert_eq!(other.ask("SELECT session_user"), "postgres");
        assert_eq!(one.ask("SELECT session_user"), "demo");
    }
}
