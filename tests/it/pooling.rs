//! Few server connections for many clients, and nothing of one client seen by another.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Gateway, Raw, database, direct, eventually, message};

#[tokio::test]
async fn many_clients_share_few_servers() {
    let database = database("share");
    let gateway = Gateway::setup().pool("size = 2").start();
    let clients = join_all((0..40).map(|_| gateway.connect(&database))).await;
    for round in 0..3_i32 {
        let answers = join_all(clients.iter().map(async |client| {
            let row = client.query_one("SELECT $1::int", &[&round]).await.unwrap();
            row.get::<_, i32>(0)
        }))
        .await;
        assert!(answers.into_iter().all(|answer| answer == round));
    }
    if !direct() {
        // Reads may be on the replicas; writes are here.
        join_all(clients.iter().map(|client| client.batch_execute("BEGIN; SELECT pg_current_xact_id(); COMMIT"))).await;
        // Those of first log-ins at once are being closed.
        eventually("two server connections or fewer", || (1..=2).contains(&gateway.server_sessions(&database)));
    }
}

#[tokio::test]
async fn a_waiting_client_gets_the_server_when_the_transaction_ends() {
    let database = database("wait");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"2s\"").start();
    let (first, second) = (gateway.connect(&database).await, gateway.connect(&database).await);
    // Two strings: what stands before a BEGIN in one string is part of its transaction.
    first.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    first.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let waiting = second.batch_execute("INSERT INTO t VALUES (2)");
    let done = async {
        first.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
        first.batch_execute("COMMIT").await.unwrap();
    };
    let (inserted, ()) = tokio::join!(waiting, done);
    inserted.unwrap();
    if direct() {
        return;
    }
    // Longer than `query_wait`: an error that says so, and the session lives on.
    first.batch_execute("BEGIN; INSERT INTO t VALUES (4)").await.unwrap();
    let error = second.batch_execute("INSERT INTO t VALUES (5)").await.unwrap_err();
    assert!(error.as_db_error().is_some(), "{error:?}");
    first.batch_execute("COMMIT").await.unwrap();
    second.batch_execute("INSERT INTO t VALUES (6)").await.unwrap();
}

#[tokio::test]
async fn session_mode_keeps_the_server() {
    let database = database("session_mode");
    let gateway = Gateway::setup().pool("mode = \"session\"\nsize = 2").start();
    let client = gateway.connect(&database).await;
    let pid = || async { client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0) };
    client.batch_execute("CREATE TEMP TABLE mine (n int)").await.unwrap();
    let before = pid().await;
    for _ in 0..5 {
        client.batch_execute("BEGIN; INSERT INTO mine VALUES (1); COMMIT").await.unwrap();
        assert_eq!(pid().await, before);
    }
    assert_eq!(client.query_one("SELECT count(*) FROM mine", &[]).await.unwrap().get::<_, i64>(0), 5);
    drop(client);
    // The next session, perhaps on the same server, finds it clean.
    let next = gateway.connect(&database).await;
    assert_eq!(next.query("SELECT * FROM mine", &[]).await.unwrap_err().code().unwrap().code(), "42P01");
}

#[tokio::test]
async fn settings_follow_their_client() {
    let database = database("settings");
    let gateway = Gateway::setup().pool("size = 1").start();
    let clients = join_all((0..4).map(|_| gateway.connect(&database))).await;
    clients[0].batch_execute("CREATE SCHEMA s0; CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE SCHEMA s3").await.unwrap();
    for (n, client) in clients.iter().enumerate() {
        client.batch_execute(&format!("CREATE TABLE s{n}.t AS SELECT {n} AS n")).await.unwrap();
        client.batch_execute(&format!("SET search_path = s{n}; SET work_mem = '{}MB'", n + 10)).await.unwrap();
        client.execute("SELECT set_config('app.tenant', $1, false)", &[&format!("tenant {n}")]).await.unwrap();
    }
    gateway.cluster.wait_replayed().unwrap();
    let sql =
        "SELECT (SELECT n FROM t)::text || ' ' || current_setting('work_mem') || ' ' || current_setting('app.tenant')";
    for _ in 0..10 {
        for (n, client) in clients.iter().enumerate() {
            let expected = format!("{n} {}MB tenant {n}", n + 10);
            assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, String>(0), expected);
        }
    }
    // What a transaction that fails has set is gone; what SET LOCAL set as well.
    let client = &clients[0];
    client.batch_execute("BEGIN; SET work_mem = '99MB'; SET LOCAL search_path = s3; ROLLBACK").await.unwrap();
    client.batch_execute("BEGIN; SET LOCAL work_mem = '98MB'; COMMIT").await.unwrap();
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "0 10MB tenant 0");
    client.batch_execute("RESET ALL").await.unwrap();
    let path = client.query_one("SHOW search_path", &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(path, "\"$user\", public");
}

#[tokio::test]
async fn a_role_that_was_dropped_can_be_laid_down() {
    if direct() {
        // A server keeps the number of a role that is gone; a gateway has its name.
        return;
    }
    let database = database("dropped_role");
    let gateway = Gateway::setup().pool("size = 1").start();
    let primary = gateway.cluster.primary();
    primary.psql("postgres", "CREATE ROLE doomed; GRANT doomed TO demo").unwrap();
    let client = gateway.connect(&database).await;
    client.batch_execute("BEGIN; SELECT pg_current_xact_id(); SET ROLE doomed; COMMIT").await.unwrap();
    primary.psql("postgres", "DROP ROLE doomed").unwrap();
    gateway.cluster.wait_replayed().unwrap();
    let user = || async { client.query_one("SELECT current_user::text", &[]).await.map(|row| row.get::<_, String>(0)) };
    let error = user().await.unwrap_err();
    assert!(error.to_string().contains("db error"), "never as the pooled role: {error:?}");
    // The replica that the read comes to first cannot take the role on (22023); the server of the primary's that has it still
    // finds that it is no more (42704).
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    assert!(matches!(code, Some("22023" | "42704")), "{error:?}");
    // The one server that took the role on lays it down for another client.
    gateway.connect(&database).await.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    // What does more than lay the role down is refused as well.
    client.batch_execute("RESET ROLE; SELECT 1").await.unwrap_err();
    client.batch_execute("RESET ROLE").await.unwrap();
    assert_ne!(user().await.unwrap(), "doomed");
}

#[tokio::test]
async fn a_temporary_table_pins_its_session() {
    let database = database("temporary");
    let gateway = Gateway::setup().pool("size = 2").start();
    let (one, two) = (gateway.connect(&database).await, gateway.connect(&database).await);
    one.batch_execute("CREATE TEMP TABLE mine AS SELECT 1 AS n").await.unwrap();
    for _ in 0..5 {
        two.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(one.query_one("SELECT n FROM mine", &[]).await.unwrap().get::<_, i32>(0), 1);
        assert_eq!(two.query("SELECT n FROM mine", &[]).await.unwrap_err().code().unwrap().code(), "42P01");
    }
    // It goes with its session, and the server comes back.
    drop(one);
    let three = gateway.connect(&database).await;
    assert!(three.query("SELECT n FROM mine", &[]).await.is_err());
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_transaction_leaves_nothing() {
    let database = database("vanish");
    let gateway = Gateway::setup().pool("size = 1").start();
    let setup = gateway.connect(&database).await;
    setup.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    let lost = gateway.connect(&database).await;
    lost.batch_execute("BEGIN; INSERT INTO t VALUES (1); LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    drop(lost);
    let count = tokio::time::timeout(Duration::from_secs(20), setup.query_one("SELECT count(*) FROM t", &[])).await;
    assert_eq!(count.expect("the lock is released").unwrap().get::<_, i64>(0), 0);
}

#[test]
fn termination_drains() {
    if direct() {
        return;
    }
    let database = database("drain");
    let mut gateway = Gateway::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(gateway.connect(&database));
    runtime.block_on(client.batch_execute("CREATE TABLE t (n int)")).unwrap();
    runtime.block_on(client.batch_execute("BEGIN; INSERT INTO t VALUES (1)")).unwrap();
    let pid = rustix::process::Pid::from_raw(gateway.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The transaction in progress may end; new clients are refused.
    eventually("new clients to be refused", || runtime.block_on(gateway.try_connect(&database)).is_err());
    runtime.block_on(client.batch_execute("INSERT INTO t VALUES (2); COMMIT")).unwrap();
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    assert_eq!(gateway.cluster.primary().psql(&database, "SELECT count(*) FROM t").unwrap(), "2");
}

/// Nobody waits for a read any more; a write is finished, as it is when a server's own client vanishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vanished_client_left_running_does_not_hold_its_server_for_long() {
    if direct() {
        return;
    }
    let database = database("left_running");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"20s\"").start();
    let client = gateway.connect(&database).await;
    client.batch_execute("CREATE TABLE done (n int)").await.unwrap();
    let running = |text: &str| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{text}' AND state = 'active'");
        gateway.cluster.primary().psql(&database, &sql).unwrap()
    };
    let leave = |text: &str| {
        let mut raw = Raw::log_in(gateway.port, "demo", &database);
        raw.send(&message(b'Q', format!("{text}\0").as_bytes()));
        eventually("the statement to run", || running(text) == "1");
    };
    // One that only the primary is asked.
    let read = "SELECT 1 FROM pg_locks, pg_sleep(100) LIMIT 1";
    tokio::task::block_in_place(|| leave(read));
    let start = Instant::now();
    client.batch_execute("INSERT INTO done VALUES (1)").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(running(read), "0");
    let write = "INSERT INTO done SELECT 2 FROM pg_sleep(9)";
    tokio::task::block_in_place(|| leave(write));
    let start = Instant::now();
    client.batch_execute("INSERT INTO done VALUES (3)").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let count = || gateway.cluster.primary().psql(&database, "SELECT count(*) FROM done WHERE n = 2").unwrap();
    assert_eq!(count(), "0");
    eventually("what was left to be done", || count() == "1");
}

#[tokio::test]
async fn a_session_lives_with_whatever_time_limit_it_sets() {
    let database = database("time_limit");
    let gateway = Gateway::setup().pool("size = 1").start();
    for limit in ["1ms", "3ms", "20ms"] {
        let (limited, other) = (gateway.connect(&database).await, gateway.connect(&database).await);
        limited.batch_execute(&format!("SET statement_timeout = '{limit}'")).await.unwrap();
        for n in 0..10 {
            // Whether a statement of its own takes too long is the client's business.
            let set = limited.batch_execute(&format!("SET work_mem = '{}kB'", 1000 + n)).await;
            if let Err(error) = set {
                assert_eq!(
                    error.code().map(tokio_postgres::error::SqlState::code),
                    Some("57014"),
                    "{limit}: {error:?}"
                );
            }
            let _ = limited.batch_execute("DO $$ BEGIN PERFORM set_config('app.x', 'y', false); END $$").await;
            // On the same server, without the other's limit.
            let shown = other
                .query_one("SELECT current_setting('statement_timeout'), pg_sleep(0.03)::text", &[])
                .await
                .unwrap();
            assert_eq!(shown.get::<_, &str>(0), "0", "{limit}");
            assert!(!limited.is_closed(), "{limit}: the session was ended\n{}", gateway.log());
        }
        let shown = async {
            loop {
                if let Ok(row) = limited.query_one("SHOW statement_timeout", &[]).await {
                    return row.get::<_, String>(0);
                }
            }
        };
        assert_eq!(shown.await, limit);
    }
}

#[tokio::test]
async fn a_database_that_only_idle_connections_use_can_be_dropped() {
    let database = database("dropping");
    let gateway = Gateway::start();
    let admin = gateway.connect(&database).await;
    let visit = async |database: &str| {
        let client = gateway.connect(database).await;
        client.batch_execute("CREATE TABLE IF NOT EXISTS visited ()").await.unwrap();
    };
    let (one, two) = (format!("{database}_1"), format!("{database}_2"));
    admin.batch_execute(&format!("CREATE DATABASE {one}")).await.unwrap();
    visit(&one).await;
    admin.batch_execute(&format!("ALTER DATABASE {one} RENAME TO {two}")).await.unwrap();
    visit(&two).await;
    admin.batch_execute(&format!("CREATE DATABASE {one} TEMPLATE {two}")).await.unwrap();
    for database in [&one, &two] {
        let _ = gateway.connect(database).await.batch_execute("SELECT 1").await;
        admin.batch_execute(&format!("DROP DATABASE {database}")).await.unwrap();
    }
    // New ones are there for a read at once, replicas or no replicas, and go although their catalogue may be being read.
    for _ in 0..12 {
        admin.batch_execute(&format!("CREATE DATABASE {one}")).await.unwrap();
        let read = gateway.connect(&one).await.query_one("SELECT 1", &[]).await;
        read.unwrap_or_else(|error| panic!("{error:?}\n{}", gateway.log()));
        let drop = format!("DROP DATABASE {one} WITH (FORCE)");
        let mut attempts = 0;
        while let Err(error) = admin.batch_execute(&drop).await {
            // A worker of autovacuum's has no role that a user could be a member of (`TerminateOtherDBBackends` in
            // `procarray.c`): PostgreSQL refuses while there is one.
            attempts += 1;
            let refused = error.code().is_some_and(|code| code.code() == "42501");
            assert!(refused && attempts < 20, "{error:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    if direct() {
        return;
    }
    // One that looked at the template does not keep others from creating databases, also past the gateway.
    let url = gateway.url_for("postgres", "template1");
    crate::support::succeed(crate::support::tool("psql").args(["-XqAtc", "SELECT count(*) FROM pg_class", &url]));
    gateway.cluster.primary().psql("postgres", &format!("CREATE DATABASE {one}")).unwrap();
    gateway.cluster.primary().psql("postgres", &format!("DROP DATABASE {one}")).unwrap();
}

#[tokio::test]
async fn statement_mode_lends_for_one_statement_and_allows_no_block() {
    if direct() {
        return;
    }
    let database = database("statement_mode");
    let gateway = Gateway::setup().pool("mode = \"statement\"\nsize = 1").start();
    let (one, two) = (gateway.connect(&database).await, gateway.connect(&database).await);
    one.batch_execute("CREATE TABLE t (n int); SET work_mem = '5MB'").await.unwrap();
    // What a session has set and prepared follows it all the same.
    let insert = one.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    for n in 0..20 {
        one.execute(&insert, &[&n]).await.unwrap();
        assert_eq!(two.query_one("SHOW work_mem", &[]).await.unwrap().get::<_, &str>(0), "4MB");
        assert_eq!(one.query_one("SHOW work_mem", &[]).await.unwrap().get::<_, &str>(0), "5MB");
    }
    for begin in ["BEGIN", "START TRANSACTION READ ONLY", "INSERT INTO t VALUES (100); BEGIN"] {
        let refused = one.batch_execute(begin).await.unwrap_err();
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("0A000"), "{begin}: {refused:?}");
    }
    // A string of several statements is one transaction, as everywhere.
    one.batch_execute("INSERT INTO t VALUES (101); SELECT 1/0").await.unwrap_err();
    // Its reads go to replicas.
    gateway.cluster.wait_replayed().unwrap();
    let count: i64 = two.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 20);
    // Too long to be looked into: nothing of it stays, and the server is not kept.
    let long = format!("BEGIN; INSERT INTO t VALUES (102) /* {} */", "x".repeat(2 << 20));
    let ended = async {
        one.batch_execute(&long).await?;
        one.batch_execute("COMMIT").await
    };
    assert_eq!(ended.await.unwrap_err().code().map(tokio_postgres::error::SqlState::code), Some("0A000"));
    let count: i64 = two.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 20);
}

#[tokio::test]
async fn who_left_the_queue_keeps_no_place_in_it() {
    if direct() {
        return;
    }
    let database = database("queue_left");
    let gateway = Gateway::setup().pool("size = 1\nmax_queue = 5").start();
    let holder = gateway.connect(&database).await;
    holder.batch_execute("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let waiting = || {
        let status = gateway.status();
        let pools = status["clusters"][0]["pools"].as_array().unwrap().clone();
        pools.iter().map(|pool| pool["waiting"].as_u64().unwrap()).sum::<u64>()
    };
    // Cancelled, one after the other: more than there are places.
    for n in 0..8 {
        let impatient = gateway.connect(&database).await;
        let token = impatient.cancel_token();
        let mut insert = std::pin::pin!(impatient.batch_execute("INSERT INTO t VALUES (2)"));
        let refused = loop {
            tokio::select! {
                done = &mut insert => break done.unwrap_err(),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
                }
            }
        };
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("57014"), "{n}: {refused:?}");
        assert_eq!(waiting(), 0, "{n}");
    }
    // The bound itself holds.
    let late = join_all((0..8).map(|_| gateway.connect(&database))).await;
    let mut inserts: Vec<_> =
        late.iter().map(|client| Box::pin(client.batch_execute("INSERT INTO t VALUES (3)"))).collect();
    let mut full = 0;
    while full < 3 {
        let (done, _, rest) = futures_util::future::select_all(inserts).await;
        let code = done.unwrap_err().code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("53300"));
        full += 1;
        inserts = rest;
    }
    eventually("five wait", || waiting() == 5);
    holder.batch_execute("COMMIT").await.unwrap();
    for done in join_all(inserts).await {
        done.unwrap();
    }
}

/// A server that died while it was idle costs nothing that was not sent to it: neither with the session's settings nor with the
/// beginning of its transaction, which are sent ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_before_the_statement_is_sent_costs_nothing() {
    if direct() {
        return;
    }
    let database = database("died_idle");
    let gateway = Gateway::setup().pool("size = 1").start();
    let (one, other) = (gateway.connect(&database).await, gateway.connect(&database).await);
    let number = |row: tokio_postgres::Row| row.get::<_, i32>(0);
    let pid = async |client: &tokio_postgres::Client| {
        number(client.query_one("SELECT pg_backend_pid(), pg_current_xact_id()::text", &[]).await.unwrap())
    };
    one.batch_execute("SET work_mem = '7MB'").await.unwrap();
    for (round, begin) in
        ["", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN; SET LOCAL work_mem = '7MB'"].iter().enumerate()
    {
        // The second time on, all that is sent ahead is the beginning.
        let server = if round == 0 { pid(&other).await } else { pid(&one).await };
        let signal =
            |signal| rustix::process::kill_process(rustix::process::Pid::from_raw(server).unwrap(), signal).unwrap();
        signal(rustix::process::Signal::STOP);
        gateway.cluster.primary().psql("postgres", &format!("SELECT pg_terminate_backend({server})")).unwrap();
        for statement in begin.split_terminator(';') {
            one.batch_execute(statement).await.unwrap();
        }
        let lent = || {
            let status = gateway.status();
            let nodes = status["clusters"][0]["shards"][0]["nodes"].as_array().unwrap();
            nodes.iter().any(|node| node["in_flight"].as_u64().unwrap() > 0)
        };
        let sql = "SELECT pg_backend_pid(), current_setting('work_mem'), current_setting('transaction_isolation'), \
                   pg_current_xact_id()::text";
        let (row, ()) = tokio::join!(one.query_one(sql, &[]), async {
            tokio::task::block_in_place(|| eventually("the server to be lent", lent));
            tokio::time::sleep(Duration::from_millis(100)).await;
            signal(rustix::process::Signal::CONT);
        });
        let row = row.unwrap_or_else(|error| panic!("{begin}: {error:?}"));
        assert_ne!(row.get::<_, i32>(0), server);
        assert_eq!(row.get::<_, String>(1), "7MB", "{begin}");
        let isolation = if begin.contains("SERIALIZABLE") { "serializable" } else { "read committed" };
        assert_eq!(row.get::<_, String>(2), isolation);
        if !begin.is_empty() {
            one.batch_execute("COMMIT").await.unwrap();
        }
    }
}
