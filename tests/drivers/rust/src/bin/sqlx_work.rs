//! sqlx doing real work: it prepares all it runs, keeps the row descriptions, and pings pooled connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use pointsman_driver_tests::{Error, Run, Traffic, migration, others, settled, together, url};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

fn state(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code());
    code.map_or_else(|| format!("{error}"), |code| code.into_owned())
}

async fn pool(size: u32) -> Result<PgPool, Error> {
    Ok(PgPoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(30)).connect(&url()).await?)
}

async fn types() -> Result<(), Error> {
    let mut connection = PgConnection::connect(&url()).await?;
    let row = sqlx::query(
        "SELECT $1::int4, $2::int8, $3::float8, $4::text, $5::bytea, $6::int4[], $7::jsonb, $8::uuid, $9::text",
    )
    .bind(-7_i32)
    .bind(i64::MAX)
    .bind(0.1_f64)
    .bind("naïve 'quote' \u{1f682}")
    .bind(vec![0_u8, 255])
    .bind(vec![Some(1_i32), None])
    .bind(serde_json::json!({"a": [1, null]}))
    .bind(uuid::Uuid::nil())
    .bind(None::<String>)
    .fetch_one(&mut connection)
    .await?;
    assert_eq!((row.get::<i32, _>(0), row.get::<i64, _>(1), row.get::<f64, _>(2)), (-7, i64::MAX, 0.1));
    assert_eq!((row.get::<&str, _>(3), row.get::<&[u8], _>(4)), ("naïve 'quote' \u{1f682}", &[0, 255][..]));
    assert_eq!(row.get::<Vec<Option<i32>>, _>(5), [Some(1), None]);
    assert_eq!(row.get::<serde_json::Value, _>(6), serde_json::json!({"a": [1, null]}));
    assert_eq!((row.get::<uuid::Uuid, _>(7), row.get::<Option<String>, _>(8)), (uuid::Uuid::nil(), None));
    // Types of the database's own are looked up in the catalogue.
    connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')").await?;
    let row = sqlx::query("SELECT 'happy'::mood, ARRAY['sad']::mood[]").fetch_one(&mut connection).await?;
    assert_eq!(row.columns_count(), 2);
    Ok(())
}

trait Columns {
    fn columns_count(&self) -> usize;
}

impl Columns for PgRow {
    fn columns_count(&self) -> usize {
        sqlx::Row::columns(self).len()
    }
}

async fn statement_caches() -> Result<(), Error> {
    others("CREATE TABLE s (n int PRIMARY KEY, v int)").await?;
    others("INSERT INTO s SELECT n, 0 FROM generate_series(1, 50) n").await?;
    settled().await?;
    together(12, |session| async move {
        // A small cache: the driver closes statements as it goes on. Its names are the same in every session.
        let options = url().parse::<PgConnectOptions>()?.statement_cache_capacity(4);
        let mut connection = PgConnection::connect_with(&options).await?;
        for n in 1..=25_i32 {
            let text = format!("SELECT n * 100 + {session} FROM s WHERE n = $1");
            assert_eq!(
                sqlx::query_scalar::<_, i32>(AssertSqlSafe(text.clone())).bind(n).fetch_one(&mut connection).await?,
                n * 100 + session
            );
            let other = format!("SELECT {session} + {} + $1::int", n % 7);
            assert_eq!(
                sqlx::query_scalar::<_, i32>(AssertSqlSafe(other)).bind(n).fetch_one(&mut connection).await?,
                session + n % 7 + n
            );
            let mut transaction = connection.begin().await?;
            sqlx::query("UPDATE s SET v = v + 1 WHERE n = $1").bind(n).execute(&mut *transaction).await?;
            assert_eq!(
                sqlx::query_scalar::<_, i32>(AssertSqlSafe(text)).bind(n).fetch_one(&mut *transaction).await?,
                n * 100 + session
            );
            if n % 5 == 0 { transaction.rollback().await? } else { transaction.commit().await? }
        }
        Ok(())
    })
    .await?;
    settled().await?;
    assert_eq!(sqlx::query_scalar::<_, i64>("SELECT sum(v) FROM s").fetch_one(&pool(1).await?).await?, 12 * 20);
    Ok(())
}

async fn pools_and_transactions() -> Result<(), Error> {
    let pool = pool(12).await?;
    pool.execute("CREATE TABLE t (n int UNIQUE)").await?;
    together(20, |n| {
        let pool = pool.clone();
        async move {
            let mut outer = pool.begin().await?;
            sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut *outer).await?;
            let mut inner = outer.begin().await?;
            let error = sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut *inner).await.unwrap_err();
            assert_eq!(state(&error), "23505");
            inner.rollback().await?;
            sqlx::query("INSERT INTO t VALUES ($1)").bind(n + 1000).execute(&mut *outer).await?;
            // Dropped without a word: the driver rolls back before the connection's next use.
            if n % 2 == 0 {
                outer.commit().await?
            } else {
                drop(outer)
            }
            let mut own = pool.acquire().await?;
            assert_eq!(sqlx::query_scalar::<_, i32>("SELECT 7").fetch_one(&mut *own).await?, 7);
            Ok(())
        }
    })
    .await?;
    settled().await?;
    assert_eq!(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM t").fetch_one(&pool).await?, 20);
    // A task that is given up in the middle of an answer.
    for _ in 0..5 {
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), sqlx::query("SELECT pg_sleep(0.2)").execute(&pool)).await;
        assert!(given_up.is_err());
    }
    let numbers: Vec<i32> =
        sqlx::query_scalar::<_, i32>("SELECT generate_series(1, 2000)").fetch(&pool).try_collect().await?;
    assert_eq!(numbers.len(), 2000);
    let mut rows = sqlx::query("SELECT generate_series(1, 100000)").fetch(&pool);
    assert!(rows.try_next().await?.is_some());
    drop(rows);
    let several = sqlx::raw_sql("SELECT 1 AS a; SELECT 2 AS a").fetch_all(&pool).await?;
    assert_eq!(several.len(), 2);
    pool.close().await;
    Ok(())
}

async fn another_ones_ddl() -> Result<(), Error> {
    others("CREATE TABLE d (id int PRIMARY KEY, v int, label text)").await?;
    others("INSERT INTO d VALUES (1, 10, 'one')").await?;
    settled().await?;
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(PgConnection::connect(&url()).await?);
    }
    // What is asked for keeps its columns, whatever becomes of the table.
    for step in [
        "SELECT 1",
        "ALTER TABLE d ALTER COLUMN v TYPE bigint",
        "ALTER TABLE d ADD COLUMN more int DEFAULT 5",
        "ALTER TABLE d ALTER COLUMN v TYPE text",
        "ALTER TABLE d DROP COLUMN more",
        "ALTER TABLE d ALTER COLUMN v TYPE int USING v::int",
    ] {
        others(step).await?;
        settled().await?;
        for _ in 0..4 {
            for connection in &mut crowd {
                let query = sqlx::query("SELECT id, v::text AS v, label FROM d WHERE id = $1").bind(1_i32);
                let row = query.fetch_one(&mut *connection).await?;
                assert_eq!(
                    (row.try_get::<&str, _>("v")?, row.try_get::<&str, _>("label")?),
                    ("10", "one"),
                    "after {step}"
                );
            }
        }
    }
    Ok(())
}

async fn copies() -> Result<(), Error> {
    let mut connection = PgConnection::connect(&url()).await?;
    connection.execute("CREATE TABLE c (n int, s text)").await?;
    let mut sink = connection.copy_in_raw("COPY c FROM STDIN").await?;
    for n in 0..2000 {
        sink.send(format!("{n}\trow {n}\n").as_bytes()).await?;
    }
    assert_eq!(sink.finish().await?, 2000);
    let chunks: Vec<_> = connection.copy_out_raw("COPY (TABLE c) TO STDOUT").await?.try_collect().await?;
    assert_eq!(chunks.iter().map(|chunk| chunk.iter().filter(|byte| **byte == b'\n').count()).sum::<usize>(), 2000);
    let mut sink = connection.copy_in_raw("COPY c FROM STDIN").await?;
    sink.send(&b"1\tx\n"[..]).await?;
    sink.abort("given up").await?;
    assert_eq!(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM c").fetch_one(&mut connection).await?, 2000);
    Ok(())
}

async fn notifications() -> Result<(), Error> {
    let mut listener = PgListener::connect(&url()).await?;
    listener.listen_all(["sqlx_news", "sqlx_other"]).await?;
    let pool = pool(2).await?;
    sqlx::query("SELECT pg_notify('sqlx_news', $1)").bind("arrived").execute(&pool).await?;
    let heard = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await??;
    assert_eq!((heard.channel(), heard.payload()), ("sqlx_news", "arrived"));
    listener.unlisten_all().await?;
    Ok(())
}

async fn settings_and_errors() -> Result<(), Error> {
    others("CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.here (n text); CREATE TABLE two.here (n int)")
        .await?;
    others("INSERT INTO one.here VALUES ('a'); INSERT INTO two.here VALUES (2)").await?;
    settled().await?;
    together(10, |number| async move {
        let schema = if number % 2 == 0 { "one" } else { "two" };
        let options = url().parse::<PgConnectOptions>()?.options([("search_path", schema)]).application_name(schema);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute("SET work_mem = '7MB'").await.map(drop) })
            })
            .connect_with(options)
            .await?;
        for _ in 0..10 {
            let row =
                sqlx::query("SELECT n, current_setting('application_name'), current_setting('work_mem') FROM here")
                    .fetch_one(&pool)
                    .await?;
            assert_eq!((row.get::<&str, _>(1), row.get::<&str, _>(2)), (schema, "7MB"));
            if number % 2 == 0 { assert_eq!(row.get::<&str, _>(0), "a") } else { assert_eq!(row.get::<i32, _>(0), 2) }
        }
        let error = sqlx::query("SELECT 1 / $1").bind(0_i32).execute(&pool).await.unwrap_err();
        assert_eq!(state(&error), "22012");
        let error = sqlx::query("SELECT * FROM nowhere").execute(&pool).await.unwrap_err();
        assert_eq!(state(&error), "42P01");
        Ok(())
    })
    .await
}

async fn own_migrations() -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("pointsman-sqlx-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("1_make.sql"), "CREATE TABLE m (n int); INSERT INTO m VALUES (1);")?;
    std::fs::write(folder.join("2_grow.sql"), "ALTER TABLE m ADD COLUMN s text DEFAULT 'x';")?;
    // Each takes an advisory lock of the session; two at once wait for each other, and run each step once.
    together(2, |_| {
        let folder = folder.clone();
        async move { Ok(sqlx::migrate::Migrator::new(folder.as_path()).await?.run(&pool(2).await?).await?) }
    })
    .await?;
    // Alone: who waits for the lock would keep CREATE INDEX CONCURRENTLY waiting, which is a deadlock on any server.
    std::fs::write(folder.join("3_index.sql"), "-- no-transaction\nCREATE INDEX CONCURRENTLY m_n ON m (n);")?;
    let migrator = sqlx::migrate::Migrator::new(folder.as_path()).await?;
    migrator.run(&pool(1).await?).await?;
    migrator.run(&pool(1).await?).await?;
    std::fs::remove_dir_all(&folder)?;
    settled().await?;
    assert_eq!(sqlx::query_scalar::<_, String>("SELECT s FROM m").fetch_one(&pool(1).await?).await?, "x");
    Ok(())
}

async fn traffic(traffic: Arc<Traffic>, number: i32) -> Result<(), Error> {
    let mut connection = PgConnection::connect(&traffic.url).await?;
    let read = format!("SELECT id, label, v::bigint AS v, n FROM {} WHERE id = $1", traffic.table);
    let all = format!("SELECT label, n, id, v::bigint AS v FROM {} WHERE id = $1", traffic.table);
    let write = format!("UPDATE {} SET n = n + 1 WHERE id = $1", traffic.table);
    let mut turn = 0;
    while !traffic.over() {
        turn += 1;
        let id = (turn * 7 + number) % 50 + 1;
        if let Err(error) = once(&traffic, &mut connection, &read, &all, &write, id).await {
            traffic.failure(&state(&error));
            connection.clear_cached_statements().await?;
        }
    }
    Ok(())
}

async fn once(
    traffic: &Traffic,
    connection: &mut PgConnection,
    read: &str,
    all: &str,
    write: &str,
    id: i32,
) -> Result<(), sqlx::Error> {
    let (read, all, write) = (AssertSqlSafe(read.to_owned()), AssertSqlSafe(all.to_owned()), write.to_owned());
    let row = sqlx::query(read).bind(id).fetch_one(&mut *connection).await?;
    traffic.check(row.try_get("id")?, row.try_get("label")?, row.try_get("v")?);
    sqlx::query(AssertSqlSafe(write.clone())).bind(id).execute(&mut *connection).await?;
    traffic.wrote();
    let mut transaction = connection.begin().await?;
    let row = sqlx::query(all).bind(id).fetch_one(&mut *transaction).await?;
    traffic.check(row.try_get("id")?, row.try_get("label")?, row.try_get("v")?);
    sqlx::query(AssertSqlSafe(write)).bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    traffic.wrote();
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut run = Run::new("sqlx 0.9.0");
    run.test("types", types()).await;
    run.test("statement_caches", statement_caches()).await;
    run.test("pools_and_transactions", pools_and_transactions()).await;
    run.test("another_ones_ddl", another_ones_ddl()).await;
    run.test("copies", copies()).await;
    run.test("notifications", notifications()).await;
    run.test("settings_and_errors", settings_and_errors()).await;
    run.test("own_migrations", own_migrations()).await;
    run.test("migration_under_traffic", migration(traffic, &[])).await;
    run.end()
}
