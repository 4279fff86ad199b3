//! What is called where no call shows it: in texts that a function is given to run, under names written as `U&"…"` or with
//! capitals, in texts too long to be held. What it leaves in its server's process is nobody else's, and a lock that it takes
//! is not taken on a replica.

use crate::support::{Gateway, Raw, database, direct, eventually, message, query, sync};

const FUNCTIONS: [&str; 12] = [
    "CREATE TABLE tt (n int); INSERT INTO tt VALUES (1)",
    "CREATE FUNCTION exs(text) RETURNS text LANGUAGE plpgsql AS $f$ DECLARE r text; BEGIN EXECUTE $1 INTO r; RETURN r; END $f$",
    "CREATE FUNCTION by_exs(text) RETURNS text LANGUAGE sql AS 'SELECT exs($1)'",
    "CREATE FUNCTION seeds() RETURNS text LANGUAGE sql AS 'SELECT setseed(0.5)::text'",
    "CREATE FUNCTION \"Seeds\"() RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM setseed(0.5); RETURN ''''; END'",
    "CREATE FUNCTION sets_seed() RETURNS text LANGUAGE plpgsql AS 'BEGIN SET seed = 0.5; RETURN ''''; END'",
    "CREATE FUNCTION configures() RETURNS text LANGUAGE sql AS $$ SELECT set_config('seed', '0.5', false) $$",
    "CREATE FUNCTION hides() RETURNS text LANGUAGE sql AS $$ SELECT U&\"sets\\0065ed\"(0.5)::text $$",
    "CREATE FUNCTION makes() RETURNS text LANGUAGE plpgsql AS $f$ BEGIN EXECUTE 'SELECT setseed(0.5)'; RETURN ''; END $f$",
    "CREATE FUNCTION adv(bigint) RETURNS text LANGUAGE sql AS 'SELECT pg_try_advisory_lock($1)::text'",
    "CREATE FUNCTION \"LockIt\"() RETURNS text LANGUAGE sql AS 'SELECT adv(42)'",
    "CREATE VIEW vadv AS SELECT adv(42)",
];

/// A Parse, a Bind with one value, an Execute and a Sync.
fn bound(text: &str, value: &str) -> Vec<u8> {
    let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let bind = message(b'B', &[b"\0\0\0\0\0\x01", &length[..], value.as_bytes(), b"\0\0"].concat());
    [parse, bind, message(b'E', &[0; 5]), sync()].concat()
}

/// Does `step`, and says what the session that comes to the same pool next is told by `seen`.
#[track_caller]
fn next_is_told(gateway: &Gateway<'_>, database: &str, step: &[u8], seen: &str) -> String {
    let mut one = Raw::log_in(gateway.port, "demo", database);
    one.send(step);
    let answer = one.until(b'Z');
    assert!(answer.iter().all(|(tag, _)| *tag != b'E'), "{answer:?}");
    drop(one);
    Raw::log_in(gateway.port, "demo", database).ask(seen)
}

#[test]
fn random_numbers_that_another_has_seeded_are_not_told() {
    if direct() {
        return;
    }
    let database = database("said_seed");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let mut owner = Raw::log_in(gateway.port, "demo", &database);
    for step in FUNCTIONS {
        assert_eq!(owner.ask(step), "");
    }
    drop(owner);
    let primary = gateway.cluster.primary();
    let mut straight = Raw::log_in(primary.port(), "demo", &database);
    straight.ask("SELECT setseed(0.5)");
    let seeded = straight.ask("SELECT random()");
    let told = |step: &[u8]| next_is_told(&gateway, &database, step, "SELECT random()");
    eventually("the catalogue knows the functions", || told(&query("SELECT makes()")) != seeded);
    let long = |text: &str| format!("{text} /* {} */", "x".repeat(1_100_000));
    for text in [
        "SELECT seeds()",
        "SELECT \"Seeds\"()",
        "SELECT sets_seed()",
        "SELECT configures()",
        "SELECT hides()",
        "SELECT makes()",
        "SELECT exs('SELECT setseed(0.5)')",
        "SELECT by_exs('SELECT setseed(0.5)')",
        "SELECT by_exs('SET seed = 0.5; SELECT 1')",
        "SELECT exs('SELECT \"Seeds\"()')",
        "DO 'BEGIN PERFORM setseed(0.5); END'",
        "DO 'BEGIN PERFORM \"Seeds\"(); END'",
        "DO $$BEGIN SET SESSION seed TO 0.5; END$$",
        "SELECT query_to_xml('SELECT setseed(0.5)', true, true, '')",
        "SELECT U&\"sets\\0065ed\"(0.5)",
        "SELECT U&\"sets!0065ed\" UESCAPE '!' (0.5)",
        "SELECT U&\"!0053eeds\" UESCAPE '!' ()",
        &long("SELECT setseed(0.5)"),
        &long("SELECT \"Seeds\"()"),
        &format!("SELECT '{}', setseed(0.5)", "x".repeat(2_000_000)),
    ] {
        assert_ne!(told(&query(text)), seeded, "{text:.80}");
    }
    // The same form as what was seen to be harmless before.
    assert_ne!(told(&query("SELECT exs('SELECT 1')")), seeded);
    assert_ne!(told(&query("SELECT exs('SELECT setseed(0.5)')")), seeded);
    for (text, value) in
        [("SELECT exs($1)", "SELECT setseed(0.5)"), ("SELECT query_to_xml($1, true, true, '')", "SELECT seeds()")]
    {
        assert_ne!(told(&bound(text, value)), seeded, "{text}");
    }
    // Whoever seeds keeps what comes of it.
    let mut one = Raw::log_in(gateway.port, "demo", &database);
    one.ask("SELECT exs('SELECT setseed(0.5)')");
    assert_eq!(one.ask("SELECT random()"), seeded);
}

#[test]
fn connections_that_a_text_makes_are_their_sessions_own() {
    if direct() {
        return;
    }
    let database = database("said_dblink");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let primary = gateway.cluster.primary();
    primary.psql("postgres", "CREATE ROLE said_super SUPERUSER LOGIN").unwrap();
    let connect =
        format!("dblink_connect('mine', 'host=127.0.0.1 port={} dbname={database} user=said_super')", primary.port());
    let quoted = connect.replace('\'', "''");
    primary
        .psql(
            &database,
            &format!(
                "CREATE EXTENSION dblink;
                 CREATE FUNCTION exs(text) RETURNS text LANGUAGE plpgsql AS
                   $f$ DECLARE r text; BEGIN EXECUTE $1 INTO r; RETURN r; END $f$;
                 CREATE FUNCTION \"DbL\"() RETURNS text LANGUAGE plpgsql AS
                   $f$ BEGIN EXECUTE 'SELECT {quoted}'; RETURN ''; END $f$;
                 CREATE FUNCTION loads() RETURNS text LANGUAGE plpgsql AS
                   $f$ BEGIN LOAD 'auto_explain'; RETURN ''; END $f$"
            ),
        )
        .unwrap();
    let connections = "SELECT dblink_get_connections()::text";
    let loaded = "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_format'";
    let told = |text: &str, seen: &str| {
        let mut one = Raw::log_in(gateway.port, "said_super", &database);
        let answer = one.ask(text);
        assert!(answer.len() != 5 || answer == "42710", "{text:.80}: {answer}");
        drop(one);
        Raw::log_in(gateway.port, "said_super", &database).ask(seen)
    };
    eventually("the catalogue knows the functions", || told("SELECT \"DbL\"()", connections).is_empty());
    for text in [
        &*format!("SELECT {connect}"),
        "SELECT \"DbL\"()",
        "DO 'BEGIN PERFORM \"DbL\"(); END'",
        &format!("SELECT exs('SELECT {quoted}')"),
        &format!("SELECT query_to_xml('SELECT {quoted}', true, true, '')"),
        &format!("SELECT U&\"dblink_conn\\0065ct\"{}", connect.trim_start_matches("dblink_connect")),
        &format!("SELECT {connect} /* {} */", "x".repeat(1_100_000)),
    ] {
        assert_eq!(told(text, connections), "", "{text:.80}");
    }
    for text in [
        "SELECT loads()",
        "DO $$BEGIN LOAD 'auto_explain'; END$$",
        "SELECT exs('LOAD ''auto_explain''; SELECT 1')",
        &format!("LOAD 'auto_explain' /* {} */", "x".repeat(2_000_000)),
    ] {
        assert_eq!(told(text, loaded), "0", "{text:.80}");
    }
}

/// What takes one in a transaction on a replica is refused; on the primary it is taken.
#[test]
fn no_lock_is_taken_on_a_replica_by_what_is_said() {
    let database = database("said_locks");
    let gateway = Gateway::start();
    let mut owner = Raw::log_in(gateway.port, "demo", &database);
    for step in FUNCTIONS {
        assert_eq!(owner.ask(step), "");
    }
    let begin = |step: &[u8]| {
        // Its own: on the primary it would keep its lock, and with it the server.
        let mut other = Raw::log_in(gateway.port, "demo", &database);
        assert_eq!(other.ask("BEGIN READ ONLY"), "");
        assert_eq!(other.ask("SELECT count(*) FROM tt"), "1");
        let recovers = other.ask("SELECT pg_is_in_recovery()");
        other.send(step);
        let answer = other.first();
        (recovers, answer)
    };
    if !direct() {
        eventually("a transaction is on a replica and the last of them is known", || {
            begin(&query("SELECT adv FROM vadv")) == ("t".to_owned(), "0A000".to_owned())
        });
    }
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut straight = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let sql = |text: &str| query(text);
    for (step, shown) in [
        "SELECT query_to_xml('SELECT pg_advisory_lock(7)', true, true, '')",
        "SELECT word FROM ts_stat('SELECT to_tsvector(adv(8))')",
        "SELECT ts_rewrite('a', 'SELECT ''a''::tsquery, ''b''::tsquery WHERE adv(24) = ''true''')",
        "SELECT table_to_xml('vadv', true, true, '')",
        "SELECT schema_to_xml('public', true, true, '')",
        "SELECT database_to_xml(true, true, '')",
        "SELECT U&\"pg_advisory_loc\\006b\"(19)",
        "SELECT exs('SELECT pg_advisory_lock(14)')",
        "SELECT exs('SELECT \"LockIt\"()')",
        "DO 'BEGIN PERFORM \"LockIt\"(); END'",
    ]
    .map(|text| (sql(text), text))
    .into_iter()
    .chain([(bound("SELECT exs($1)", "SELECT adv(3)"), "bound")])
    {
        let mut answer = String::new();
        // What is run from a text may have defined something: others read on the primary then until replicas have it.
        eventually("a transaction on a replica", || {
            let (recovers, first) = begin(&step);
            answer = first;
            direct() || recovers == "t"
        });
        assert_eq!(answer == "0A000", !direct(), "{shown}: {answer}");
        owner.ask("BEGIN READ ONLY");
        owner.send(&step);
        let answer = owner.first();
        assert!(answer.len() != 5 || answer == "false", "{shown}: {answer}");
        assert_ne!(straight.ask(locks), "0", "{shown}: it is taken on the primary");
        owner.ask("ROLLBACK");
        owner.ask("SELECT pg_advisory_unlock_all()");
    }
    // What takes none runs where it is.
    for (text, expected) in [
        ("SELECT exs('SELECT count(*) FROM tt')", "1"),
        ("SELECT U&\"n\" FROM tt", "1"),
        ("SELECT query_to_xml('SELECT n FROM tt WHERE false', true, true, '') IS NULL", "f"),
    ] {
        assert_eq!(begin(&query(text)).1, expected, "{text}");
    }
}
