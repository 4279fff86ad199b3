//! What happens around those who listen: databases dropped, configurations changed, rights taken, primaries lost.

use pointsman::demo::Cluster;

use super::*;
use crate::support::database_on;

#[track_caller]
fn ends_with_57p01(mut raw: Raw, words: &str) {
    let (tag, body) = raw.rest().pop().unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!((tag, sqlstate(&body).as_str()), (b'E', "57P01"), "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_database_can_be_dropped_once_nobody_listens_in_it() {
    let database = database("listen_dropping");
    let gateway = Gateway::start();
    let (mut admin, _) = raw(&gateway, &database);
    let (one, two) = (format!("{database}_1"), format!("{database}_2"));
    let code = |raw: &mut Raw, sql: &str| {
        let answer = query(raw, sql);
        answer.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).unwrap_or_default()
    };
    assert_eq!(code(&mut admin, &format!("CREATE DATABASE {one}")), "");
    // One that listens is in the way, as it is on a server, and hears on.
    let (mut listener, own) = raw(&gateway, &one);
    query(&mut listener, "LISTEN a");
    assert_eq!(code(&mut admin, &format!("DROP DATABASE {one}")), "55006");
    let answer = query(&mut listener, "NOTIFY a, 'still there'");
    assert_eq!(told(&answer, &mut listener), (own, b"a\0still there\0".to_vec()));
    // One that just has ended listening, or its session, is not.
    query(&mut listener, "UNLISTEN *");
    if direct() {
        drop(listener);
    }
    let start = Instant::now();
    assert_eq!(code(&mut admin, &format!("ALTER DATABASE {one} RENAME TO {two}")), "");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    for name in ["b", "c"] {
        let (mut listener, _) = raw(&gateway, &two);
        query(&mut listener, &format!("LISTEN {name}"));
        drop(listener);
        assert_eq!(code(&mut admin, &format!("CREATE DATABASE {one} TEMPLATE {two}")), "");
        assert_eq!(code(&mut admin, &format!("DROP DATABASE {one}")), "");
    }
    // By force all end, and learn why.
    let (mut listener, _) = raw(&gateway, &two);
    query(&mut listener, "LISTEN a");
    assert_eq!(code(&mut admin, &format!("DROP DATABASE {two} WITH (FORCE)")), "");
    ends_with_57p01(listener, "terminating connection due to administrator command");
}

#[test]
fn a_reload_spares_listeners_whose_database_it_does_not_concern() {
    if direct() {
        return;
    }
    let database = database("listen_reload");
    let gateway = Gateway::start();
    let file = gateway.path("pointsman.toml");
    let original = std::fs::read_to_string(&file).unwrap();
    let put = |text: &str| {
        let new = gateway.path("pointsman.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let logged = |word: &str| eventually(word, || gateway.log().contains(word));
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "LISTEN a");
    put(&original.replace("drain_timeout = \"2s\"", "drain_timeout = \"3s\""));
    logged("drain_timeout");
    let answer = query(&mut one, "NOTIFY a, 'as before'");
    assert_eq!(told(&answer, &mut one).1, b"a\0as before\0");
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, CONNECTIONS)), (1, 1));

    put(&original.replace("[pool]", "[pool]\nsize = 7"));
    logged("pool.size");
    let answer = query(&mut one, "NOTIFY a, 'still'");
    assert_eq!(told(&answer, &mut one).1, b"a\0still\0");

    let at = original.find(", { name = \"r2\"").unwrap();
    let end = at + original[at..].find('}').unwrap() + 1;
    put(&[&original[..at], &original[end..]].concat());
    logged("nodes[r2]");
    // Who waits hears on; who speaks would speak through servers of which the shared connection knows nothing.
    notify(&gateway, &database, "a", "heard on");
    assert_eq!(told(&[], &mut one).1, b"a\0heard on\0");
    let (mut two, _) = raw(&gateway, &database);
    query(&mut two, "LISTEN a");
    one.send(&message(b'Q', b"SELECT 1\0"));
    ends_with_57p01(one, "configuration");
    eventually("its shared connection closes", || metric(&gateway, CONNECTIONS) == 1);
    let answer = query(&mut two, "NOTIFY a, 'new'");
    assert_eq!(told(&answer, &mut two).1, b"a\0new\0");
}

#[test]
fn listeners_of_a_lost_primary_end_and_listen_again_on_the_next() {
    if direct() {
        return;
    }
    let cluster = Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let database = database_on(&cluster, "listen_failover");
    let gateway = Gateway::in_front_of(&cluster).start();
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "LISTEN a");
    let (mut other, _) = raw(&gateway, &database);
    query(&mut other, "SELECT 1");
    cluster.primary().stop_at_once().unwrap();
    ends_with_57p01(one, "was lost");
    cluster.promote(1).unwrap();
    // A session that did not listen goes on, and listens there.
    eventually("the new primary takes writes", || {
        !query(&mut other, "SELECT pg_current_xact_id()").iter().any(|(tag, _)| *tag == b'E')
    });
    query(&mut other, "LISTEN a");
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (1, 0));
    cluster.nodes()[1].psql(&database, "SELECT pg_notify('a', 'from there')").unwrap();
    assert_eq!(told(&[], &mut other).1, b"a\0from there\0");
}

#[test]
fn a_role_with_limits_hears_for_as_long_as_it_likes() {
    let database = database("listen_role");
    let role = format!("{database}_role");
    let gateway = Gateway::setup().pool("size = 2").start();
    let primary = gateway.cluster.primary();
    let sql = format!(
        "CREATE ROLE {role} LOGIN; CREATE ROLE {role}_other; GRANT {role}_other TO {role}; \
         ALTER ROLE {role} SET statement_timeout = '300ms'; ALTER ROLE {role} SET lock_timeout = '200ms'; \
         ALTER ROLE {role} SET search_path = ''; ALTER ROLE {role} SET default_transaction_read_only = on; \
         ALTER ROLE {role} SET client_encoding = 'LATIN1'"
    );
    primary.psql(&database, &sql).unwrap();
    if !direct() {
        primary.psql(&database, &format!("ALTER ROLE {role} SET idle_session_timeout = '700ms'")).unwrap();
    }
    let mut one = Raw::log_in(gateway.port, &role, &database);
    for sql in [
        &format!("SET ROLE {role}_other"),
        "SET search_path = pg_temp",
        "SET default_transaction_isolation = 'serializable'",
        "LISTEN a",
        "LISTEN b",
        "BEGIN; UNLISTEN b; COMMIT",
    ] {
        let answer = query(&mut one, sql);
        assert!(!answer.iter().any(|(tag, _)| *tag == b'E'), "{sql}: {answer:?}");
    }
    if !direct() {
        assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (1, 0));
    }
    // Longer than a shared connection may be quiet before it is asked for a sign of life.
    std::thread::sleep(Duration::from_secs(12));
    notify(&gateway, &database, "b", "no");
    notify(&gateway, &database, "a", "größer");
    assert_eq!(told(&[], &mut one).1, b"a\0gr\xf6\xdfer\0");
}

#[test]
fn one_whose_right_to_connect_is_taken_hears_on() {
    let database = database("listen_revoked");
    let gateway = Gateway::setup().pool("size = 2").start();
    let role = format!("{database}_role");
    let primary = gateway.cluster.primary();
    primary
        .psql(&database, &format!("CREATE ROLE {role} LOGIN; GRANT CONNECT ON DATABASE {database} TO {role}"))
        .unwrap();
    primary.psql(&database, &format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")).unwrap();
    let mut one = Raw::log_in(gateway.port, &role, &database);
    let mut two = Raw::log_in(gateway.port, &role, &database);
    query(&mut one, "LISTEN a");
    query(&mut two, "SELECT pg_current_xact_id()");
    primary.psql(&database, &format!("REVOKE CONNECT ON DATABASE {database} FROM {role}")).unwrap();
    notify(&gateway, &database, "a", "x");
    assert_eq!(told(&[], &mut one).1, b"a\0x\0");
    // The shared connection is there, also for the next.
    for raw in [&mut one, &mut two] {
        query(raw, "LISTEN b");
    }
    notify(&gateway, &database, "b", "y");
    for raw in [&mut one, &mut two] {
        assert_eq!(told(&[], raw).1, b"b\0y\0");
    }
    if direct() {
        return;
    }
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (2, 0));
    // Without it, they listen on the servers that they have.
    for raw in [&mut one, &mut two] {
        query(raw, "UNLISTEN *");
    }
    eventually("the shared connection closes", || metric(&gateway, CONNECTIONS) == 0);
    query(&mut one, "LISTEN c");
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (0, 1));
    let answer = query(&mut one, "NOTIFY c, 'z'");
    assert_eq!(told(&answer, &mut one).1, b"c\0z\0");
}

#[test]
fn databases_and_users_are_apart() {
    let (here, there) = (database("listen_here"), database("listen_there"));
    let gateway = Gateway::start();
    let (mut one, _) = raw(&gateway, &here);
    let (mut two, _) = raw(&gateway, &there);
    let mut three = Raw::log_in(gateway.port, "postgres", &here);
    for raw in [&mut one, &mut two, &mut three] {
        query(raw, "LISTEN a");
    }
    if !direct() {
        assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, CONNECTIONS)), (3, 3));
    }
    notify(&gateway, &here, "a", "here");
    notify(&gateway, &there, "a", "there");
    for (raw, payload) in [(&mut one, "here"), (&mut two, "there"), (&mut three, "here")] {
        assert_eq!(told(&[], raw).1, format!("a\0{payload}\0").as_bytes());
    }
    for raw in [&mut one, &mut two, &mut three] {
        let answer = query(raw, "SELECT 1");
        assert!(!answer.iter().any(|(tag, _)| *tag == b'A'), "{answer:?}");
    }
}

/// The client has read that it listens, and the server went before it was asked to what.
#[test]
fn what_was_answered_and_pipelined_on_is_not_lost_in_silence() {
    let database = database("listen_pipelined");
    let gateway = Gateway::start();
    for first in ["LISTEN a", "SET work_mem = '7MB'"] {
        let (mut one, _) = raw(&gateway, &database);
        // So slowly that the second goes behind it.
        let first_text = format!("SELECT pg_sleep(0.3), pg_current_xact_id(); {first}\0");
        let second = b"SELECT pg_sleep(600), pg_current_xact_id()\0";
        one.send(&[message(b'Q', first_text.as_bytes()), message(b'Q', second)].concat());
        one.until(b'Z');
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{database}' AND state = 'active' AND query = 'SELECT pg_sleep(600), pg_current_xact_id()'"
        );
        eventually("the server at work is ended", || gateway.cluster.primary().psql("postgres", &sql).unwrap() == "1");
        let (tag, body) = one.rest().pop().unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(tag == b'E' && text.contains("FATAL"), "{first}: {text}");
    }
}
