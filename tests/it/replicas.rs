//! Where statements go.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage::Row;

use crate::support::{Gateway, Raw, database, direct, eventually, query, startup, succeed, tool};

const WHERE: &str = "SELECT current_setting('cluster_name')";

#[tokio::test]
async fn reads_go_to_replicas_by_weight_and_writes_to_the_primary() {
    if direct() {
        return;
    }
    let database = database("weights");
    let gateway = Gateway::setup().weights(1, 2).start();
    let client = gateway.connect(&database).await;
    let statement = client.prepare(WHERE).await.unwrap();
    let mut seen: HashMap<String, u32> = HashMap::new();
    for _ in 0..3000 {
        *seen.entry(client.query_one(&statement, &[]).await.unwrap().get(0)).or_default() += 1;
    }
    assert_eq!(seen.values().sum::<u32>(), 3000);
    assert!(seen.get("r1").copied().unwrap_or(0).abs_diff(1000) <= 30, "{seen:?}");
    assert!(seen.get("r2").copied().unwrap_or(0).abs_diff(2000) <= 30, "{seen:?}");

    client.batch_execute("CREATE TABLE t (n int, wrote text)").await.unwrap();
    let insert = "INSERT INTO t SELECT $1::int, current_setting('cluster_name')";
    for n in 0..100 {
        client.execute(insert, &[&n]).await.unwrap();
        // Read your writes, on by default.
        assert_eq!(client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), i64::from(n) + 1);
    }
    let nodes = "SELECT string_agg(DISTINCT wrote, ',') FROM t";
    assert_eq!(gateway.cluster.primary().psql(&database, nodes).unwrap(), "primary");
    // Everything that writes, in any guise, would fail on a replica with 25006.
    for sql in [
        "WITH w AS (INSERT INTO t VALUES (1, 'x') RETURNING n) SELECT * FROM w",
        "SELECT * FROM t FOR UPDATE",
        "SELECT 1 AS n INTO copied",
        "EXPLAIN ANALYZE DELETE FROM t WHERE n = -1",
        "CREATE SEQUENCE s; SELECT nextval('s')",
        "SELECT nextval('s')",
        "DO $$ BEGIN INSERT INTO t VALUES (2, 'x'); END $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (3, ''x'') RETURNING n'",
        "SELECT f()",
        "SELECT pg_current_xact_id()",
        "BEGIN; SELECT 1; INSERT INTO t VALUES (4, 'x'); COMMIT",
        "SELECT 1; INSERT INTO t VALUES (5, 'x')",
        "COPY t FROM PROGRAM 'true'",
        "LOCK TABLE t",
        "ANALYZE t",
        "VACUUM t",
    ] {
        if let Err(error) = client.batch_execute(sql).await {
            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            // Some are refused by the primary itself, in its own words.
            assert!(matches!(code.as_str(), "42501" | "25P01"), "{sql}: {error:?}");
        }
    }
}

/// A standby has what the primary has logged ahead: 33 where three values were taken.
#[tokio::test]
async fn how_far_a_sequence_has_come_the_primary_tells() {
    let database = database("counters");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    let made = "CREATE SCHEMA x; CREATE SEQUENCE s; CREATE TABLE x.t (id serial, i int GENERATED ALWAYS AS IDENTITY); \
                CREATE VIEW v AS SELECT last_value FROM x.t_id_seq; \
                CREATE FUNCTION came() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT last_value FROM s'; \
                CREATE FUNCTION came(regclass) RETURNS bigint LANGUAGE plpgsql STABLE AS \
                'BEGIN RETURN pg_sequence_last_value($1); END'; INSERT INTO x.t DEFAULT VALUES; INSERT INTO x.t DEFAULT VALUES; \
                INSERT INTO x.t DEFAULT VALUES; SELECT nextval('s'), nextval('s'), nextval('s')";
    client.batch_execute(made).await.unwrap();
    gateway.replicas_serve(&database);
    // Until the catalogue has them, what is read of them goes to the primary in any case.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for sql in [
        "SELECT last_value FROM s",
        "SELECT last_value FROM public.s WHERE is_called",
        "SELECT (r.*).last_value FROM (SELECT * FROM s) r",
        "SELECT last_value FROM x.t_id_seq",
        "SELECT last_value FROM x.t_i_seq",
        "SELECT last_value FROM v",
        "SELECT came()",
        "SELECT came('s')",
        "SELECT pg_sequence_last_value('s')",
        "SELECT last_value FROM pg_sequences WHERE sequencename = 's'",
    ] {
        for _ in 0..2 {
            assert_eq!(gateway.query(&database, sql), "3", "{sql}");
            assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 3, "{sql}");
        }
    }
    // What is fixed by their definition is a replica's as well.
    let fixed = "SELECT current_setting('cluster_name') FROM information_schema.sequences WHERE sequence_name = 's'";
    if !direct() {
        assert_ne!(gateway.query(&database, fixed), "primary");
    }
}

/// This driver prepares with one message and executes with another: both must not take a turn.
#[tokio::test]
async fn what_only_prepares_takes_no_turn() {
    if direct() {
        return;
    }
    let database = database("turns");
    let gateway = Gateway::start();
    uses(&gateway, &database, "r1").await;
    uses(&gateway, &database, "r2").await;
    let client = gateway.connect(&database).await;
    let mut counts = HashMap::new();
    for _ in 0..30 {
        let node: String = client.query_one(WHERE, &[]).await.unwrap().get(0);
        *counts.entry(node).or_insert(0) += 1;
    }
    // It is near: a probe that comes late takes a replica out for a moment.
    assert!(["r1", "r2"].iter().all(|node| counts.get(*node).copied().unwrap_or(0) >= 10), "{counts:?}");
}

/// Waits until a read is answered by `node`.
async fn uses(gateway: &Gateway<'_>, database: &str, node: &str) {
    let start = Instant::now();
    loop {
        // One message a read: were it two, as with Parse and Bind apart, two replicas in turn would each always get the same one.
        if let Ok(client) = gateway.try_connect(database).await
            && let Ok(answer) = client.simple_query(WHERE).await
            && answer.iter().any(|message| matches!(message, Row(row) if row.get(0) == Some(node)))
        {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no read came to {node}:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn the_admin_listener_tells_health_and_metrics() {
    if direct() {
        return;
    }
    let database = database("admin");
    let gateway = Gateway::start();
    gateway.query(&database, "SELECT 1");
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (status, body) = gateway.admin(path).unwrap_or_else(|| panic!("no answer to {path}"));
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (_, metrics) = gateway.admin("/metrics").unwrap();
    assert!(metrics.contains("# TYPE pointsman_"), "{metrics}");
}

#[tokio::test]
async fn what_one_session_defines_all_find_at_once() {
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let gateway = Gateway::in_front_of(&cluster).start();
    let (definer, other) = (gateway.connect("demo").await, gateway.connect("demo").await);
    other.batch_execute("SELECT 1").await.unwrap();
    let replay =
        |what: &str| cluster.replicas()[0].psql("postgres", &format!("SELECT pg_wal_replay_{what}()")).unwrap();
    // A replica that is far behind, with applications of several connections before it.
    replay("pause");
    for n in 0..3 {
        definer.batch_execute(&format!("CREATE TABLE t{n} (n int)")).await.unwrap();
        if n == 2 {
            // Until the catalogue has it, what is read of it goes to the primary in any case.
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
        other.query(&format!("SELECT n FROM t{n}"), &[]).await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
        definer.batch_execute(&format!("ALTER TABLE t{n} ADD COLUMN m int")).await.unwrap();
        // Also a session that was not there.
        let new = gateway.connect("demo").await;
        new.query(&format!("SELECT m FROM t{n}"), &[]).await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
    }
    replay("resume");
    if direct() {
        return;
    }
    // And then the replica serves again, those sessions as well.
    eventually("the replica answers", || gateway.query("demo", WHERE) == "r1");
    for client in [&definer, &other] {
        let start = Instant::now();
        while client.query_one(WHERE, &[]).await.unwrap().get::<_, &str>(0) != "r1" {
            assert!(start.elapsed() < Duration::from_secs(30));
        }
    }
}

/// Also behind a read that is still at work on a replica.
#[test]
fn what_was_defined_is_found_behind_a_read_in_flight() {
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    cluster.primary().psql("demo", "SET ROLE demo; CREATE TABLE t AS SELECT 5 AS n").unwrap();
    cluster.wait_replayed().unwrap();
    let gateway = Gateway::in_front_of(&cluster).start();
    let (mut definer, mut other) =
        (Raw::log_in(gateway.port, "demo", "demo"), Raw::log_in(gateway.port, "demo", "demo"));
    if !direct() {
        eventually("the replica answers", || other.ask("SELECT current_setting('cluster_name') FROM t") == "r1");
    }
    let replica = &cluster.replicas()[0];
    replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    other.send(&query("SELECT current_setting('cluster_name') /* at work */ FROM pg_sleep(3)"));
    let works = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* at work */%' \
                 AND pid <> pg_backend_pid()";
    eventually("it is at work", || {
        [replica, cluster.primary()].iter().any(|node| node.psql("postgres", works).unwrap().trim() == "1")
    });
    assert_eq!(definer.ask("ALTER TABLE t ADD COLUMN late int DEFAULT 6"), "");
    other.send(&query("SELECT late FROM t"));
    let first = other.first();
    assert!(direct() || first == "r1", "{first}");
    assert_eq!(other.first(), "6");
    replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
}

/// What a counter of the gateway's says.
fn counted(gateway: &Gateway<'_>, name: &str) -> u64 {
    let (_, page) = gateway.admin("/metrics").unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_read_that_a_replica_cannot_answer_runs_on_the_primary() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let tables = "SET ROLE demo; CREATE TABLE u AS SELECT 1 AS n; CREATE TABLE t AS SELECT 2 AS n";
    primary.psql("demo", tables).unwrap();
    cluster.wait_replayed().unwrap();
    let gateway = Gateway::in_front_of(&cluster).start();
    let reruns = || counted(&gateway, "pointsman_reads_run_again_total");
    let client = gateway.connect("demo").await;
    let from = |table: &str| gateway.query("demo", &format!("SELECT current_setting('cluster_name') FROM {table}"));
    eventually("the replica answers", || from("u") == "r1" && from("t") == "r1");
    let before = reruns();
    // A standby has no unlogged tables: 0A000. In both protocols, also prepared.
    primary.psql("demo", "ALTER TABLE u SET UNLOGGED").unwrap();
    cluster.wait_replayed().unwrap();
    assert_eq!(gateway.query("demo", "SELECT n FROM u"), "1");
    assert_eq!(client.query_one("SELECT n FROM u", &[]).await.unwrap().get::<_, i32>(0), 1);
    let statement = client.prepare("SELECT n + $1 FROM u").await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.query_one(&statement, &[&5]).await.unwrap().get::<_, i32>(0), 6);
    }
    // And the session's next read is the replica's again.
    let node = || async { client.query_one(WHERE, &[]).await.unwrap().get::<_, String>(0) };
    assert_eq!(node().await, "r1");
    assert!(reruns() >= before + 3, "{}", reruns());
    // What the replica has not replayed yet, and nobody here has seen being made: 42P01, 42703, 42883.
    replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    let late = "SET ROLE demo; CREATE TABLE late AS SELECT 3 AS n; ALTER TABLE t ADD COLUMN late int DEFAULT 4; \
                CREATE FUNCTION late(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1'";
    primary.psql("demo", late).unwrap();
    let before = reruns();
    for (sql, value) in [("SELECT n FROM late", 3), ("SELECT late FROM t", 4), ("SELECT late(5)", 5)] {
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i32>(0), value, "{sql}");
        assert_eq!(gateway.query("demo", sql), value.to_string(), "{sql}");
    }
    assert!(reruns() > before);
    replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    cluster.wait_replayed().unwrap();
    // An error of the statement's own is told as it is, and so is one in a transaction, which is the replica's.
    let before = reruns();
    let failed = |sql: &'static str| {
        let client = &client;
        async move { client.simple_query(sql).await.unwrap_err().code().unwrap().code().to_owned() }
    };
    assert_eq!(failed("SELECT 1 / (n - 2) FROM t").await, "22012");
    // A function that is not known yet may have advanced a sequence: its session was left the primary for a moment.
    while node().await != "r1" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.batch_execute("BEGIN READ ONLY; SELECT n FROM t").await.unwrap();
    assert_eq!(failed("SELECT n FROM u").await, "0A000");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(reruns(), before);
    // What writes although it is declared to read is refused with 25006, once: then it is known.
    primary
        .psql("demo", "CREATE ROLE chief SUPERUSER LOGIN; CREATE SEQUENCE seq; GRANT ALL ON SEQUENCE seq TO demo")
        .unwrap();
    let hidden = "CREATE FUNCTION hidden(regclass) RETURNS bigint STABLE STRICT LANGUAGE internal AS 'nextval_oid'";
    succeed(tool("psql").args([&*gateway.url_for("chief", "demo"), "-c", hidden]));
    cluster.wait_replayed().unwrap();
    eventually("the function is known", || {
        let before = reruns();
        gateway.query("demo", "SELECT hidden('seq')");
        reruns() > before
    });
    let before = reruns();
    for value in 1..=3 {
        let sql = format!("SELECT hidden('seq') - {value} > 0");
        assert_eq!(gateway.query("demo", &sql), "t", "{sql}");
    }
    assert_eq!(reruns(), before + 1, "the first of them teaches");
    assert_eq!(node().await, "r1");
    let before = reruns();
    // It fails on the primary as well, once.
    assert_eq!(failed("SELECT n FROM nowhere").await, "42P01");
    assert_eq!(reruns(), before + 1);
    assert_eq!(node().await, "r1");
}

#[tokio::test]
async fn a_read_outlives_the_replica_that_it_runs_on() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    primary.psql("demo", "SET ROLE demo; CREATE TABLE t AS SELECT 1 AS n").unwrap();
    replica.psql("postgres", "ALTER SYSTEM SET max_standby_streaming_delay = 0").unwrap();
    replica.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    cluster.wait_replayed().unwrap();
    let gateway = Gateway::in_front_of(&cluster).start();
    let of_t = "SELECT current_setting('cluster_name') FROM t";
    eventually("the replica answers", || gateway.query("demo", of_t) == "r1");
    let runs = |label: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{label}%' AND pid <> pg_backend_pid()"
        );
        move |node: &pointsman::demo::Node| node.psql("postgres", &sql).unwrap().trim() == "1"
    };
    let slow = |label: &str| format!("SELECT n, current_setting('cluster_name') /* {label} */ FROM t, pg_sleep(2)");
    // It stands in the way of what is replayed, and is cancelled: 40001. The gateway's own DDL would send it to the primary.
    let (client, other) = (gateway.connect("demo").await, gateway.connect("demo").await);
    let sql = slow("conflict");
    let conflict = runs("conflict");
    let (row, ()) = tokio::join!(client.query_one(&sql, &[]), async {
        while !conflict(replica) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        primary.psql("demo", "SET ROLE demo; ALTER TABLE t ADD COLUMN m int").unwrap();
    });
    assert_eq!(row.unwrap().get::<_, String>(1), "primary");
    eventually("the replica answers", || gateway.query("demo", of_t) == "r1");
    // Its server dies.
    let sql = slow("killed");
    let killed = runs("killed");
    let (row, simple, ()) = tokio::join!(
        client.query_one(&sql, &[]),
        other.simple_query("SELECT current_setting('cluster_name') FROM pg_sleep(3)"),
        async {
            while !killed(replica) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            replica.kill().unwrap();
        }
    );
    assert_eq!(row.unwrap().get::<_, String>(1), "primary");
    let simple = simple.unwrap();
    assert!(simple.iter().any(|message| matches!(message, Row(row) if row.get(0) == Some("primary"))));
    assert!(counted(&gateway, "pointsman_reads_run_again_total") >= 3);
}

/// An advisory lock on a replica keeps nobody out: what takes one in a transaction there is refused, however it is called, and
/// so is nothing else.
#[test]
fn no_lock_is_taken_where_it_excludes_nobody() {
    let database = database("replica_locks");
    let gateway = Gateway::start();
    let mut owner = Raw::log_in(gateway.port, "demo", &database);
    for step in [
        "CREATE TABLE tt (n int); INSERT INTO tt VALUES (1)",
        "CREATE FUNCTION wl_sql(bigint) RETURNS bool LANGUAGE sql AS 'SELECT pg_try_advisory_xact_lock($1)'",
        "CREATE FUNCTION wl_stable(bigint) RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_try_advisory_xact_lock($1)'",
        "CREATE FUNCTION wl_deep(bigint) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN wl_sql($1); END'",
        "CREATE FUNCTION wl_text(bigint) RETURNS bool LANGUAGE plpgsql AS $f$ DECLARE r bool; \
         BEGIN EXECUTE 'SELECT wl_sql($1)' INTO r USING $1; RETURN r; END $f$",
        "CREATE VIEW wl_view AS SELECT pg_try_advisory_xact_lock(42) AS r",
        "CREATE FUNCTION wl_two(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT wl_sql($1)'",
        "CREATE FUNCTION counted(text) RETURNS bigint LANGUAGE plpgsql AS $f$ DECLARE r bigint; \
         BEGIN EXECUTE 'SELECT count(*) FROM ' || $1 INTO r; RETURN r; END $f$",
        "CREATE FUNCTION unlocked() RETURNS bool LANGUAGE sql AS 'SELECT pg_advisory_unlock(42)'",
        "CREATE OPERATOR <#> (leftarg = bigint, rightarg = bigint, function = wl_two)",
    ] {
        assert_eq!(owner.ask(step), "");
    }
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let mut begin = |text: &str| {
        assert_eq!(other.ask("BEGIN READ ONLY"), "");
        assert_eq!(other.ask("SELECT count(*) FROM tt"), "1");
        let answers = (other.ask("SELECT pg_is_in_recovery()"), other.ask(text));
        other.ask("ROLLBACK");
        answers
    };
    if !direct() {
        eventually("a transaction is on a replica and the last of them is known", || {
            begin("SELECT 42::bigint <#> 1::bigint") == ("t".to_owned(), "0A000".to_owned())
        });
    }
    assert_eq!(owner.ask("SELECT pg_advisory_lock(42)"), "");
    for text in [
        "SELECT wl_sql(42)",
        "SELECT wl_stable(42)",
        "SELECT wl_deep(42)",
        "SELECT wl_text(42)",
        "SELECT r FROM wl_view",
        "SELECT 42::bigint <#> 1::bigint",
        "SELECT pg_try_advisory_xact_lock(42)",
        "DO $$BEGIN PERFORM wl_sql(42); END$$",
    ] {
        let (_, answer) = begin(text);
        let expected = match text {
            _ if !direct() => "0A000",
            text if text.starts_with("DO") => "",
            _ => "f",
        };
        assert_eq!(answer, expected, "{text}");
        // On the primary it is the same lock.
        let answer = owner.ask(&format!("BEGIN READ ONLY; {text}; ROLLBACK"));
        assert_eq!(answer, if text.starts_with("DO") { "" } else { "t" }, "{text}");
    }
    // What takes none runs where it is.
    for (text, expected) in [("SELECT counted('tt')", "1"), ("SELECT unlocked()", "f")] {
        assert_eq!(begin(text).1, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_does_not_wait_for_a_replica_that_stands_still() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let replica = &cluster.replicas()[0];
    let gateway = Gateway::in_front_of(&cluster).pool("size = 3").more("timeout = \"300ms\"").start();
    let mut clients = Vec::new();
    for n in 0..6 {
        let client = gateway.connect("demo").await;
        client.batch_execute(&format!("SET work_mem = '{}MB'", n + 5)).await.unwrap();
        clients.push(client);
    }
    uses(&gateway, "demo", "r1").await;
    // One is at work, of some the settings are being brought, some connect or wait for a connection.
    let busy = gateway.connect("demo").await;
    let slow = "SELECT current_setting('cluster_name') /* frozen */ FROM pg_sleep(1)";
    let mut begun = Instant::now();
    let (row, rows) = tokio::join!(busy.query_one(slow, &[]), async {
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* frozen */%' \
                    AND pid <> pg_backend_pid()";
        while replica.psql("postgres", runs).unwrap().trim() != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.freeze();
        begun = Instant::now();
        futures_util::future::join_all(clients.iter().map(|client| client.simple_query(WHERE))).await
    });
    let took = begun.elapsed();
    replica.thaw();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(row.unwrap().get::<_, &str>(0), "primary");
    for rows in rows {
        let rows = rows.unwrap();
        assert!(rows.iter().any(|row| matches!(row, Row(row) if row.get(0) == Some("primary"))), "{rows:?}");
    }
    uses(&gateway, "demo", "r1").await;
}

/// The request hangs as the replica does, which was answered by running the statement on the primary all the same.
#[tokio::test]
async fn a_read_that_was_cancelled_does_not_run_again() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let replica = &cluster.replicas()[0];
    let gateway = Gateway::in_front_of(&cluster).more("timeout = \"300ms\"").start();
    uses(&gateway, "demo", "r1").await;
    let mut client = Raw::connect(gateway.port);
    client.send(&startup(196_608, &[("user", "demo"), ("database", "demo")]));
    let key = client.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
    for cancels in [true, false] {
        client.send(&query("SELECT current_setting('cluster_name') /* hangs */ FROM pg_sleep(1)"));
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* hangs */%' \
                    AND pid <> pg_backend_pid()";
        eventually("it runs", || replica.psql("postgres", runs).unwrap().trim() == "1");
        replica.freeze();
        let mut cancel = Raw::connect(gateway.port);
        if cancels {
            cancel.send(&[&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &key].concat());
        }
        let answer = client.first();
        replica.thaw();
        assert_eq!(answer, if cancels { "57014" } else { "primary" }, "{}", gateway.log());
        // Nor is what comes next struck.
        assert_ne!(client.ask(WHERE), "57014");
        uses(&gateway, "demo", "r1").await;
    }
}

/// One that is out still when it has answered again: what the gateway asks of it behind the COMMIT costs no session.
#[tokio::test]
async fn a_session_outlives_a_replica_that_stood_still() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let replica = &cluster.replicas()[0];
    let gateway = Gateway::in_front_of(&cluster).more("timeout = \"300ms\"").start();
    uses(&gateway, "demo", "r1").await;
    let mut client = Raw::log_in(gateway.port, "demo", "demo");
    let steps = [("BEGIN READ ONLY", ""), (WHERE, "r1"), ("SET LOCAL TimeZone = 'Asia/Tokyo'", "")];
    for (step, expected) in steps {
        assert_eq!(client.ask(step), expected, "{step}");
    }
    replica.freeze();
    // Out, for several probes in a row.
    eventually("the primary answers", || gateway.query("demo", WHERE) == "primary");
    tokio::time::sleep(Duration::from_secs(6)).await;
    replica.thaw();
    assert_eq!(client.ask("COMMIT"), "");
    let zone = client.ask("SHOW TimeZone");
    assert_ne!(zone, "Asia/Tokyo");
    assert_eq!(client.ask("SELECT 1"), "1", "{}", gateway.log());
    uses(&gateway, "demo", "r1").await;
}

#[tokio::test]
async fn a_replica_that_lags_more_than_it_may_takes_no_reads() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let gateway = Gateway::in_front_of(&cluster).main("max_lag = \"1s\"").start();
    uses(&gateway, "demo", "r1").await;
    let replay =
        |what: &str| cluster.replicas()[0].psql("postgres", &format!("SELECT pg_wal_replay_{what}()")).unwrap();
    replay("pause");
    cluster.primary().psql("demo", "CREATE TABLE t (n int)").unwrap();
    eventually("the primary answers", || gateway.query("demo", WHERE) == "primary");
    for _ in 0..5 {
        assert_eq!(gateway.query("demo", WHERE), "primary");
    }
    replay("resume");
    uses(&gateway, "demo", "r1").await;
}
