//! diesel-async doing real work: tokio-postgres below, a cache of statements by query, its own look-up of types.

use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, TextExpressionMethods as _};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::{StreamExt as _, TryStreamExt as _};
use pointsman_driver_tests::{Error, Run, Traffic, connect, migration, others, settled, together, url};

diesel::table! {
    authors (id) {
        id -> Integer,
        name -> Text,
        mood -> crate::MoodType,
        facts -> Jsonb,
        tags -> Array<Text>,
        key -> Uuid,
    }
}

diesel::table! {
    books (id) {
        id -> Integer,
        author -> Integer,
        title -> Text,
    }
}

diesel::joinable!(books -> authors (author));
diesel::allow_tables_to_appear_in_same_query!(authors, books);

/// An enum of the database's own: the driver looks its number up in the catalogue.
#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"))]
pub struct MoodType;

#[derive(Debug, Clone, PartialEq, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
#[diesel(sql_type = MoodType)]
enum Mood {
    Sad,
    Happy,
}

impl diesel::serialize::ToSql<MoodType, diesel::pg::Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
        std::io::Write::write_all(out, if *self == Self::Sad { b"sad" } else { b"happy" })?;
        Ok(diesel::serialize::IsNull::No)
    }
}

impl diesel::deserialize::FromSql<MoodType, diesel::pg::Pg> for Mood {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
        match bytes.as_bytes() {
            b"sad" => Ok(Self::Sad),
            b"happy" => Ok(Self::Happy),
            other => Err(format!("{other:?} is no mood").into()),
        }
    }
}

type Author = (i32, String, Mood, serde_json::Value, Vec<String>, uuid::Uuid);

fn pool(url: &str, size: usize) -> Result<Pool<AsyncPgConnection>, Error> {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    Ok(Pool::builder(manager).max_size(size).build()?)
}

async fn own_types() -> Result<(), Error> {
    others(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE authors (id serial PRIMARY KEY, name text UNIQUE NOT NULL, mood mood NOT NULL, facts jsonb NOT NULL,
             tags text[] NOT NULL, key uuid NOT NULL);
         CREATE TABLE books (id serial PRIMARY KEY, author int NOT NULL REFERENCES authors ON DELETE CASCADE, title text NOT NULL)",
    )
    .await?;
    settled().await?;
    let mut connection = AsyncPgConnection::establish(&url()).await?;
    let key = uuid::Uuid::new_v4();
    let made: Author = diesel::insert_into(authors::table)
        .values((
            authors::name.eq("the first"),
            authors::mood.eq(Mood::Sad),
            authors::facts.eq(serde_json::json!({"a": [1, null]})),
            authors::tags.eq(vec!["x", "naïve \u{1f682}"]),
            authors::key.eq(key),
        ))
        .get_result(&mut connection)
        .await?;
    let read: Author = authors::table.find(made.0).first(&mut connection).await?;
    assert_eq!(read, made);
    assert_eq!((read.2, read.5), (Mood::Sad, key));
    settled().await?;
    // Fresh connections look the type up on a replica.
    for _ in 0..4 {
        let mut fresh = AsyncPgConnection::establish(&url()).await?;
        let found: Option<String> = authors::table
            .filter(authors::mood.eq(Mood::Sad))
            .select(authors::name)
            .first(&mut fresh)
            .await
            .optional()?;
        assert_eq!(found.as_deref(), Some("the first"));
    }
    Ok(())
}

async fn unit_of_work() -> Result<(), Error> {
    let pool = pool(&url(), 12)?;
    together(20, |number| {
        let pool = pool.clone();
        async move {
            for turn in 0..5 {
                let mut connection = pool.get().await?;
                let name = format!("author {number}/{turn}");
                let insert = |name: &str| {
                    let facts = authors::facts.eq(serde_json::json!({"n": number}));
                    let (tags, key) = (authors::tags.eq(Vec::<String>::new()), authors::key.eq(uuid::Uuid::nil()));
                    diesel::insert_into(authors::table).values((
                        authors::name.eq(name.to_owned()),
                        authors::mood.eq(Mood::Happy),
                        facts,
                        tags,
                        key,
                    ))
                };
                let id = connection
                    .transaction::<i32, DieselError, _>(async |outer| {
                        let id = insert(&name).returning(authors::id).get_result::<i32>(outer).await?;
                        let twice = outer
                            .transaction::<(), DieselError, _>(async |inner| {
                                insert(&name).execute(inner).await.map(drop)
                            })
                            .await;
                        assert!(
                            matches!(twice, Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _))),
                            "{twice:?}"
                        );
                        let titles: Vec<_> =
                            (0..5).map(|n| (books::author.eq(id), books::title.eq(format!("{name}, {n}")))).collect();
                        assert_eq!(diesel::insert_into(books::table).values(titles).execute(outer).await?, 5);
                        Ok(id)
                    })
                    .await?;
                let rolled_back = connection
                    .transaction::<(), DieselError, _>(async |inner| {
                        diesel::delete(authors::table.find(id)).execute(inner).await?;
                        Err(DieselError::RollbackTransaction)
                    })
                    .await;
                assert!(matches!(rolled_back, Err(DieselError::RollbackTransaction)));
                let joined: Vec<(String, String)> = books::table
                    .inner_join(authors::table)
                    .filter(authors::id.eq(id))
                    .order(books::title)
                    .select((authors::name, books::title))
                    .load(&mut connection)
                    .await?;
                assert_eq!((joined.len(), joined[4].1.clone()), (5, format!("{name}, 4")));
                diesel::update(authors::table.find(id))
                    .set(authors::tags.eq(vec!["changed"]))
                    .execute(&mut connection)
                    .await?;
                let count: i64 = connection
                    .build_transaction()
                    .read_only()
                    .repeatable_read()
                    .run::<_, DieselError, _>(async |inside| {
                        let tags: Vec<String> = authors::table.find(id).select(authors::tags).first(inside).await?;
                        assert_eq!(tags, ["changed"]);
                        books::table.filter(books::author.eq(id)).count().get_result(inside).await
                    })
                    .await?;
                assert_eq!(count, 5);
            }
            Ok(())
        }
    })
    .await?;
    settled().await?;
    let mut connection = pool.get().await?;
    let count: i64 = authors::table.filter(authors::name.like("author %")).count().get_result(&mut connection).await?;
    assert_eq!(count, 100);
    let streamed: Vec<(i32, i32, String)> = books::table.load_stream(&mut connection).await?.try_collect().await?;
    assert_eq!(streamed.len(), 500);
    Ok(())
}

async fn pipelines() -> Result<(), Error> {
    let connection = AsyncPgConnection::establish(&url()).await?;
    let reads = (0..100_i32).map(|n| {
        let connection = &connection;
        async move {
            let query = diesel::select((diesel::dsl::sql::<Integer>(&format!("{} + ", n % 5)).bind::<Integer, _>(n),));
            query.get_result::<(i32,)>(&mut &*connection).await.map(|(found,)| assert_eq!(found, n + n % 5))
        }
    });
    futures_util::future::try_join_all(reads).await?;
    let writes = (0..100_i32).map(|n| {
        let connection = &connection;
        async move {
            // Every fifth names an author that is not there.
            let author = if n % 5 == 4 { 1_000_000 } else { 1 };
            let row = (books::author.eq(author), books::title.eq(format!("in a pipeline {n}")));
            (n, diesel::insert_into(books::table).values(row).execute(&mut &*connection).await)
        }
    });
    for (n, result) in futures_util::future::join_all(writes).await {
        match result {
            Ok(1) if n % 5 != 4 => {}
            Err(DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) if n % 5 == 4 => {}
            other => return Err(format!("{n}: {other:?}").into()),
        }
    }
    let count: i64 =
        books::table.filter(books::title.like("in a pipeline %")).count().get_result(&mut &connection).await?;
    assert_eq!(count, 80);
    Ok(())
}

async fn another_ones_ddl() -> Result<(), Error> {
    others("CREATE TABLE d (id int PRIMARY KEY, v int, label text); INSERT INTO d VALUES (1, 10, 'one')").await?;
    settled().await?;
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(AsyncPgConnection::establish(&url()).await?);
    }
    #[derive(diesel::QueryableByName)]
    struct Wide {
        #[diesel(sql_type = BigInt)]
        v: i64,
        #[diesel(sql_type = Text)]
        label: String,
    }
    // Every column is named with its type, as diesel's queries do: these keep their types whatever is added beside them.
    for step in [
        "SELECT 1",
        "ALTER TABLE d ADD COLUMN more int DEFAULT 5",
        "CREATE INDEX ON d (label)",
        "ALTER TABLE d DROP COLUMN more",
        "ALTER TABLE d ALTER COLUMN v TYPE bigint",
    ] {
        others(step).await?;
        settled().await?;
        for _ in 0..4 {
            for connection in &mut crowd {
                let query =
                    diesel::sql_query("SELECT v::bigint AS v, label FROM d WHERE id = $1").bind::<Integer, _>(1);
                let row: Wide = query.get_result(connection).await?;
                assert_eq!((row.v, row.label.as_str()), (10, "one"), "after {step}");
            }
        }
    }
    Ok(())
}

async fn notifications_and_cancellation() -> Result<(), Error> {
    let mut listener = AsyncPgConnection::establish(&url()).await?;
    listener.batch_execute("LISTEN diesel_news").await?;
    others("NOTIFY diesel_news, 'arrived'").await?;
    let heard = tokio::time::timeout(Duration::from_secs(20), Box::pin(listener.notifications_stream()).next()).await?;
    let heard = heard.ok_or("the stream ended")??;
    assert_eq!((heard.channel.as_str(), heard.payload.as_str()), ("diesel_news", "arrived"));
    for _ in 0..3 {
        let mut connection = AsyncPgConnection::establish(&url()).await?;
        let cancel = connection.cancel_token();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await
        });
        let cancelled = diesel::sql_query("SELECT pg_sleep(60)").execute(&mut connection).await;
        assert!(cancelled.unwrap_err().to_string().contains("user request"));
        assert_eq!(diesel::select(diesel::dsl::sql::<Integer>("7")).get_result::<i32>(&mut connection).await?, 7);
    }
    Ok(())
}

async fn settings_stay() -> Result<(), Error> {
    connect(&url())
        .await?
        .batch_execute(
            "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.here (n int); CREATE TABLE two.here (n int);
        INSERT INTO one.here VALUES (1); INSERT INTO two.here VALUES (2)",
        )
        .await?;
    settled().await?;
    together(10, |number| async move {
        let own = number % 2 + 1;
        let mut connection = AsyncPgConnection::establish(&url()).await?;
        connection.batch_execute(&format!("SET search_path = {}", if own == 1 { "one" } else { "two" })).await?;
        for _ in 0..10 {
            let found: i32 =
                diesel::select(diesel::dsl::sql::<Integer>("(SELECT n FROM here)")).get_result(&mut connection).await?;
            assert_eq!(found, own);
        }
        Ok(())
    })
    .await
}

#[derive(diesel::QueryableByName)]
struct Seen {
    #[diesel(sql_type = Integer)]
    id: i32,
    #[diesel(sql_type = Text)]
    label: String,
    #[diesel(sql_type = BigInt)]
    v: i64,
}

async fn traffic(traffic: Arc<Traffic>, number: i32) -> Result<(), Error> {
    let mut connection = AsyncPgConnection::establish(&traffic.url).await?;
    let table = &traffic.table;
    let read = format!("SELECT id, label, v::bigint AS v FROM {table} WHERE id = $1");
    let write = format!("UPDATE {table} SET n = n + 1 WHERE id = $1");
    let mut turn = 0;
    while !traffic.over() {
        turn += 1;
        let id = (turn * 7 + number) % 50 + 1;
        let mut work = async || -> Result<(), DieselError> {
            let row: Seen = diesel::sql_query(&read).bind::<Integer, _>(id).get_result(&mut connection).await?;
            traffic.check(row.id, &row.label, row.v);
            diesel::sql_query(&write).bind::<Integer, _>(id).execute(&mut connection).await?;
            traffic.wrote();
            let row = connection
                .transaction::<Seen, DieselError, _>(async |inside| {
                    let row = diesel::sql_query(&read).bind::<Integer, _>(id).get_result(inside).await?;
                    diesel::sql_query(&write).bind::<Integer, _>(id).execute(inside).await?;
                    Ok(row)
                })
                .await?;
            traffic.wrote();
            traffic.check(row.id, &row.label, row.v);
            Ok(())
        };
        if let Err(error) = work().await {
            traffic.failure(&error.to_string());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut run = Run::new("diesel-async 0.9.2");
    run.test("own_types", own_types()).await;
    run.test("unit_of_work", unit_of_work()).await;
    run.test("pipelines", pipelines()).await;
    run.test("another_ones_ddl", another_ones_ddl()).await;
    run.test("notifications_and_cancellation", notifications_and_cancellation()).await;
    run.test("settings_stay", settings_stay()).await;
    run.test("migration_under_traffic", migration(traffic, &[])).await;
    run.end()
}
