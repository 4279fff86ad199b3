//! Drivers and ORMs of four languages doing real work in transaction mode, also while a migration runs under traffic.
//!
//! Their scripts lie in `tests/drivers`; tokio-postgres works here. Each script compares its migration with the same run
//! on the primary itself.
//!
//! The pool is smaller than the number of connections, so that what they prepare and set meets servers that have not
//! seen it.

use std::pin::pin;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::support::{Gateway, database, direct, driver_file, succeed};

fn gateway() -> Gateway<'static> {
    Gateway::setup().pool("size = 3").start()
}

/// Runs the work of a driver: with what it is to speak to, and with the servers' own addresses, the primary's first.
fn work(label: &str, command: &mut Command) {
    let database = database(label);
    let gateway = gateway();
    let nodes = gateway.cluster.nodes().iter();
    let nodes: Vec<String> = nodes.map(|node| format!("postgres://demo@{}/{database}", node.address())).collect();
    command.env("POINTSMAN_TEST_URL", gateway.url(&database)).env("POINTSMAN_TEST_NODES", nodes.join(" "));
    // Kept by cargo unless the test fails or `--nocapture` is given.
    println!("{}", succeed(command));
}

fn script(name: &str) -> String {
    format!("{}/tests/drivers/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn python(label: &str, name: &str) {
    let program = driver_file("python/bin/python");
    work(label, Command::new(program).env("PYTHONDONTWRITEBYTECODE", "1").arg(script(name)));
}

fn node(label: &str, name: &str) {
    work(label, Command::new("node").env("NODE_PATH", driver_file("node/node_modules")).arg(script(name)));
}

#[test]
fn psycopg() {
    python("psycopg", "psycopg_work.py");
}

#[test]
fn asyncpg() {
    python("asyncpg", "asyncpg_work.py");
}

#[test]
fn sqlalchemy() {
    python("sqlalchemy", "sqlalchemy_work.py");
}

#[test]
fn django() {
    python("django", "django_work.py");
}

#[test]
fn node_postgres() {
    node("node_pg", "node-pg.js");
}

#[test]
fn postgres_js() {
    node("postgres_js", "postgres-js.js");
}

#[test]
fn typeorm() {
    node("typeorm", "typeorm.js");
}

#[test]
#[ignore = "`make drivers` runs it: it needs a JDK"]
fn pgjdbc() {
    let path = "/usr/share/java/postgresql.jar".to_owned();
    let path = std::env::var("POINTSMAN_TEST_PGJDBC").unwrap_or(path);
    work("pgjdbc", Command::new("java").args(["-cp", &path]).arg(script("java/PgjdbcWork.java")));
}

#[test]
#[ignore = "`make drivers` runs it: it needs crates of its own"]
fn sqlx() {
    work("sqlx", &mut Command::new(driver_file("rust/release/sqlx_work")));
}

#[test]
#[ignore = "`make drivers` runs it: it needs crates of its own"]
fn diesel_async() {
    work("diesel", &mut Command::new(driver_file("rust/release/diesel_work")));
}

#[tokio::test]
async fn tokio_postgres_values_go_there_and_back() {
    let database = database("tokio_values");
    let gateway = gateway();
    let client = gateway.connect(&database).await;
    async fn check<T>(client: &tokio_postgres::Client, kind: Type, value: T)
    where
        T: ToSql + Sync + PartialEq + std::fmt::Debug + for<'a> FromSql<'a>,
    {
        let statement = client.prepare_typed("SELECT $1", std::slice::from_ref(&kind)).await.unwrap();
        let row = client.query_one(&statement, &[&value]).await.unwrap();
        assert_eq!(row.get::<_, T>(0), value, "{kind}");
    }
    check(&client, Type::BOOL, true).await;
    check(&client, Type::INT2, -7_i16).await;
    check(&client, Type::INT4, i32::MIN).await;
    check(&client, Type::INT8, i64::MAX).await;
    check(&client, Type::FLOAT8, 0.1_f64).await;
    check(&client, Type::TEXT, "naïve 'quote' \u{1f682}".to_owned()).await;
    check(&client, Type::BYTEA, (0..=255).collect::<Vec<u8>>()).await;
    check(&client, Type::INT4_ARRAY, vec![Some(1), None, Some(3)]).await;
    check(&client, Type::TEXT, None::<String>).await;
}

#[tokio::test]
async fn tokio_postgres_prepared_statements_meet_every_server() {
    let database = database("tokio_prepared");
    let gateway = gateway();
    let setup = gateway.connect(&database).await;
    setup.batch_execute("CREATE TABLE t (n int PRIMARY KEY, s text); INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 100) n").await.unwrap();
    gateway.cluster.wait_replayed().unwrap();
    // Twelve sessions over three servers a node: each statement is prepared once and must be known wherever it runs.
    let sessions = (0..12).map(|session: i32| {
        let gateway = &gateway;
        let database = &database;
        async move {
            let mut client = gateway.connect(database).await;
            // The same name means another statement in each session.
            let read = client.prepare(&format!("SELECT s, $2::int + {session} FROM t WHERE n = $1")).await.unwrap();
            let write = client.prepare("UPDATE t SET s = s WHERE n = $1 RETURNING n").await.unwrap();
            for n in 1..=25_i32 {
                let row = client.query_one(&read, &[&n, &n]).await.unwrap();
                assert_eq!((row.get::<_, String>(0), row.get::<_, i32>(1)), (format!("v{n}"), n + session));
                let transaction = client.transaction().await.unwrap();
                assert_eq!(transaction.query_one(&write, &[&n]).await.unwrap().get::<_, i32>(0), n);
                assert_eq!(transaction.query_one(&read, &[&n, &0_i32]).await.unwrap().get::<_, i32>(1), session);
                transaction.commit().await.unwrap();
            }
        }
    });
    futures_util::future::join_all(sessions).await;
}

#[tokio::test]
async fn tokio_postgres_statements_mean_what_their_search_path_says() {
    let database = database("tokio_paths");
    let gateway = Gateway::setup().pool("size = 1").start();
    let setup = gateway.connect(&database).await;
    let tables = "CREATE SCHEMA one CREATE TABLE here (n text); CREATE SCHEMA two CREATE TABLE here (n int);
                  INSERT INTO one.here VALUES ('a'); INSERT INTO two.here VALUES (2)";
    setup.batch_execute(tables).await.unwrap();
    gateway.cluster.wait_replayed().unwrap();
    // One server, one text, two tables whose columns differ: PostgreSQL would say that the "cached plan must not change
    // result type" if the second session were given what was prepared for the first.
    let (one, two) = (gateway.connect(&database).await, gateway.connect(&database).await);
    one.batch_execute("SET search_path = one").await.unwrap();
    two.batch_execute("SET search_path = two").await.unwrap();
    let (read_one, read_two) =
        (one.prepare("SELECT n FROM here").await.unwrap(), two.prepare("SELECT n FROM here").await.unwrap());
    for _ in 0..5 {
        assert_eq!(one.query_one(&read_one, &[]).await.unwrap().get::<_, String>(0), "a");
        assert_eq!(two.query_one(&read_two, &[]).await.unwrap().get::<_, i32>(0), 2);
    }
}

#[tokio::test]
async fn tokio_postgres_statements_are_prepared_anew_after_ddl() {
    let database = database("tokio_ddl");
    let gateway = Gateway::setup().pool("size = 2").start();
    let other = gateway.connect(&database).await;
    other.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.unwrap();
    let clients =
        [gateway.connect(&database).await, gateway.connect(&database).await, gateway.connect(&database).await];
    let text = "UPDATE t SET n = n RETURNING *";
    for kind in ["bigint", "int", "bigint"] {
        // All servers hold the statement as it was.
        let held = futures_util::future::join_all(clients.iter().map(|client| client.prepare(text))).await;
        for _ in 0..3 {
            let runs = clients.iter().zip(&held).map(|(client, held)| client.query_one(held.as_ref().unwrap(), &[]));
            assert!(futures_util::future::join_all(runs).await.iter().all(Result::is_ok));
        }
        other.batch_execute(&format!("ALTER TABLE t ALTER COLUMN n TYPE {kind}")).await.unwrap();
        // What a driver does that is told so: it prepares once more, and that must do, whatever server comes next.
        for client in &clients {
            let _told = client.query_one("SELECT 1", &[]).await.unwrap();
            let again = client.prepare(text).await.unwrap();
            for _ in 0..4 {
                let row = client.query_one(&again, &[]).await.unwrap();
                assert_eq!(row.columns()[0].type_().name(), if kind == "int" { "int4" } else { "int8" });
            }
        }
    }
}

#[tokio::test]
async fn tokio_postgres_pipelines_and_errors_in_them() {
    let database = database("tokio_pipeline");
    let gateway = gateway();
    let client = gateway.connect(&database).await;
    client.batch_execute("CREATE TABLE t (n int PRIMARY KEY)").await.unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    // All are sent before the first answer is read; every fifth violates the key.
    let values: Vec<i32> = (0..100).map(|n| if n % 5 == 4 { 0 } else { n }).collect();
    let results = futures_util::future::join_all(values.iter().map(|n| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[n]).await }
    }))
    .await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(1) if n % 5 != 4 => {}
            Err(error) if n % 5 == 4 => assert_eq!(error.code().unwrap().code(), "23505"),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 80);
}

#[tokio::test]
async fn tokio_postgres_transactions_and_savepoints() {
    let database = database("tokio_transactions");
    let gateway = gateway();
    let mut client = gateway.connect(&database).await;
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    let mut outer = client.transaction().await.unwrap();
    outer.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let inner = outer.savepoint("s").await.unwrap();
    inner.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    assert!(inner.execute("INSERT INTO t VALUES ('x'::text::int)", &[]).await.is_err());
    inner.rollback().await.unwrap();
    outer.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    outer.commit().await.unwrap();
    let dropped = client.transaction().await.unwrap();
    dropped.execute("INSERT INTO t VALUES (4)", &[]).await.unwrap();
    drop(dropped);
    let rows = client.query("SELECT n FROM t ORDER BY n", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn tokio_postgres_copies_both_ways() {
    let database = database("tokio_copy");
    let gateway = gateway();
    let client = gateway.connect(&database).await;
    client.batch_execute("CREATE TABLE t (n int, s text)").await.unwrap();
    let mut sink = pin!(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
    for n in 0..1000 {
        sink.send(Bytes::from(format!("{n}\trow {n}\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let stream = client.copy_out("COPY (SELECT * FROM t ORDER BY n) TO STDOUT").await.unwrap();
    let all: BytesMut = stream.map_ok(|piece| BytesMut::from(&piece[..])).try_concat().await.unwrap();
    assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 1000);
    assert!(all.starts_with(b"0\trow 0\n") && all.ends_with(b"999\trow 999\n"));

    // A COPY that the client gives up, and one that the server refuses midway.
    let mut sink = pin!(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
    sink.send(Bytes::from_static(b"1\tx\nnot a number\ty\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap_err().code().unwrap().code(), "22P02");
    {
        let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
        sink.send(Bytes::from_static(b"5000\tgiven up\n")).await.unwrap();
    }
    assert_eq!(client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 1000);
}

#[tokio::test]
async fn tokio_postgres_portals_in_pieces() {
    let database = database("tokio_portal");
    let gateway = gateway();
    let mut client = gateway.connect(&database).await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT generate_series(1, 10)", &[]).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        sizes.push(rows.len());
        if rows.len() < 4 {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
    transaction.batch_execute("DECLARE c CURSOR FOR SELECT generate_series(1, 5)").await.unwrap();
    assert_eq!(transaction.query("FETCH 3 FROM c", &[]).await.unwrap().len(), 3);
    assert_eq!(transaction.query("FETCH ALL FROM c", &[]).await.unwrap().len(), 2);
    transaction.commit().await.unwrap();
    let mut rows = pin!(client.query_raw("SELECT generate_series(1, 3000)", Vec::<i32>::new()).await.unwrap());
    let mut count = 0;
    while let Some(row) = rows.next().await {
        count += 1;
        assert_eq!(row.unwrap().get::<_, i32>(0), count);
    }
    assert_eq!(count, 3000);
}

#[tokio::test]
async fn tokio_postgres_listens() {
    let database = database("tokio_listen");
    let gateway = gateway();
    let (listener, mut connection) =
        tokio_postgres::connect(&gateway.url(&database), tokio_postgres::NoTls).await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = pin!(futures_util::stream::poll_fn(move |context| connection.poll_message(context)));
        while let Some(Ok(message)) = messages.next().await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = sender.send((notification.channel().to_owned(), notification.payload().to_owned()));
            }
        }
    });
    listener.batch_execute("LISTEN news").await.unwrap();
    gateway.connect(&database).await.batch_execute("SELECT pg_notify('news', 'arrived')").await.unwrap();
    let received = tokio::time::timeout(std::time::Duration::from_secs(20), heard.recv()).await;
    assert_eq!(received.expect("a notification").unwrap(), ("news".to_owned(), "arrived".to_owned()));
    assert!(direct() || gateway.log().is_empty() || !gateway.log().contains("panicked"), "{}", gateway.log());
}
