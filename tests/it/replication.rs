//! Replication connections through the gateway, in transaction mode: each of PostgreSQL's own clients does its work.

use std::process::Command;
use std::time::{Duration, Instant};

use pointsman::demo::Cluster;

use crate::support::{Gateway, Raw, direct, eventually, fail, startup, succeed, tool};

const PASSWORD: &str = "copies";

/// A cluster that decodes logically, with a role that may replicate and must give a password.
fn cluster() -> Cluster {
    Cluster::builder()
        .replicas(1)
        .setting("wal_level", "logical")
        .hba("host replication copier all scram-sha-256\nhost all copier all scram-sha-256")
        .sql(&format!("CREATE ROLE copier LOGIN REPLICATION PASSWORD '{PASSWORD}'"))
        .start(|_| {})
        .unwrap()
}

/// One of PostgreSQL's replication clients, as a user that the servers trust.
fn client(name: &str, gateway: &Gateway<'_>, user: &str) -> Command {
    let mut command = tool(name);
    command.args(["-h", "127.0.0.1", "-p", &gateway.port.to_string(), "-U", user, "-w"]);
    command
}

/// How many processes send WAL to whatever calls itself `name`.
fn senders(cluster: &Cluster, name: &str) -> String {
    let query = format!("SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}'");
    cluster.primary().psql("postgres", &query).unwrap()
}

#[test]
fn backups_standbys_and_subscriptions_go_through() {
    let cluster = cluster();
    let primary = cluster.primary();
    let mut gateway = Gateway::in_front_of(&cluster).start();
    primary.psql("demo", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();

    // A base backup, its WAL by a second connection, by a user that the servers trust and by one with a password.
    for (user, password) in [("postgres", ""), ("copier", PASSWORD)] {
        let target = gateway.path(&format!("backup_{user}"));
        let mut backup = client("pg_basebackup", &gateway, user);
        succeed(backup.env("PGPASSWORD", password).args(["-X", "stream", "-c", "fast", "-D"]).arg(&target));
        succeed(tool("pg_verifybackup").arg(&target));
    }
    let refused = fail(
        client("pg_basebackup", &gateway, "copier").env("PGPASSWORD", "wrong").args(["-D"]).arg(gateway.path("no")),
    );
    assert!(refused.contains("password authentication failed for user \"copier\""), "{refused}");
    let refused = fail(client("pg_basebackup", &gateway, "demo").args(["-D"]).arg(gateway.path("no")));
    assert!(refused.contains("must be superuser or replication role"), "{refused}");

    // WAL, as it is written.
    let wal = gateway.path("wal");
    std::fs::create_dir(&wal).unwrap();
    let mut receive = client("pg_receivewal", &gateway, "postgres").arg("-D").arg(&wal).spawn().unwrap();
    eventually("WAL is sent", || senders(&cluster, "pg_receivewal") == "1");
    primary.psql("demo", "INSERT INTO t VALUES (2); SELECT pg_switch_wal(); INSERT INTO t VALUES (3)").unwrap();
    let whole = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let files = || std::fs::read_dir(&wal).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    eventually("a segment is complete", || files().any(|name| whole(&name)));
    receive.kill().unwrap();
    receive.wait().unwrap();

    // Logical decoding, and SQL on such a connection.
    let logical = || {
        let mut command = client("pg_recvlogical", &gateway, "postgres");
        command.args(["-d", "demo", "--slot", "l"]);
        command
    };
    succeed(logical().args(["--create-slot", "-P", "test_decoding"]));
    primary.psql("demo", "INSERT INTO t SELECT generate_series(4, 20000)").unwrap();
    let end = primary.psql("demo", "SELECT pg_current_wal_insert_lsn()").unwrap();
    let decoded = succeed(logical().args(["--start", "--no-loop", "--endpos", &end, "-f", "-"]));
    assert!(decoded.contains("table public.t: INSERT: n[integer]:20000"), "{}", decoded.len());
    let url = format!("host=127.0.0.1 port={} user=postgres dbname=demo replication=database", gateway.port);
    let rows = succeed(tool("psql").args(["-XqAt", "-c", "IDENTIFY_SYSTEM", "-c", "SELECT count(*) FROM t", &url]));
    assert!(rows.ends_with("\n20000") && rows.contains("|demo\n"), "{rows}");

    // A subscription.
    primary.psql("postgres", "CREATE DATABASE copy").unwrap();
    primary.psql("copy", "CREATE TABLE t (n int)").unwrap();
    primary.psql("demo", "CREATE PUBLICATION p FOR TABLE t").unwrap();
    primary.psql("demo", "SELECT pg_create_logical_replication_slot('sub', 'pgoutput')").unwrap();
    let connection = format!("host=127.0.0.1 port={} user=postgres dbname=demo", gateway.port);
    let subscribe =
        format!("CREATE SUBSCRIPTION sub CONNECTION '{connection}' PUBLICATION p WITH (create_slot = false)");
    primary.psql("copy", &subscribe).unwrap();
    eventually("the subscription has copied the table", || {
        primary.psql("copy", "SELECT count(*) FROM t").unwrap() == "20000"
    });
    primary.psql("demo", "INSERT INTO t VALUES (0)").unwrap();
    eventually("and follows it", || primary.psql("copy", "SELECT count(*) FROM t WHERE n = 0").unwrap() == "1");

    // A standby that streams through the gateway.
    let standby = &cluster.replicas()[0];
    let name = if direct() { "straight" } else { "detour" };
    let info = format!("host=127.0.0.1 port={} user=postgres application_name={name}", gateway.port);
    standby.psql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{info}'")).unwrap();
    standby.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually("the standby streams through the gateway", || senders(&cluster, name) == "1");
    primary.psql("demo", "INSERT INTO t VALUES (-1)").unwrap();
    eventually("it follows", || standby.psql("demo", "SELECT count(*) FROM t WHERE n = -1").unwrap() == "1");

    // A gateway that stops does not wait for them: they connect again.
    if !direct() {
        let start = Instant::now();
        assert_eq!(gateway.terminate(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        eventually("the server connections are gone", || senders(&cluster, name) == "0");
    }
    primary
        .psql(
            "copy",
            "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
        )
        .unwrap();
}

#[test]
fn a_configured_user_replicates_and_takes_a_place_in_the_budget() {
    if direct() {
        return;
    }
    let cluster = cluster();
    let users = format!("[users.copier]\npassword = \"{PASSWORD}\"\n[users.demo]\n");
    // The monitor's own connections do not count.
    let gateway = Gateway::in_front_of(&cluster).server("max_server_connections = 1").more(&users).start();
    assert_eq!(gateway.query("demo", "SELECT 1"), "1");
    let target = gateway.path("backup");
    let backup = |method: &str| {
        let mut command = client("pg_basebackup", &gateway, "copier");
        command.env("PGPASSWORD", PASSWORD).args(["-c", "fast", "-X", method, "-D"]).arg(&target);
        command
    };
    // The pool's idle connection makes room for one, and there is none for the second.
    let refused = fail(&mut backup("stream"));
    assert!(refused.contains("all of the gateway's server connections are in use"), "{refused}");
    let _ = std::fs::remove_dir_all(&target);
    succeed(&mut backup("fetch"));
    succeed(tool("pg_verifybackup").arg(&target));
    // Its place is free again.
    assert_eq!(gateway.query("demo", "SELECT 2"), "2");
    let refused =
        fail(client("pg_basebackup", &gateway, "copier").env("PGPASSWORD", "wrong").arg("-D").arg(gateway.path("no")));
    assert!(refused.contains("password authentication failed for user \"copier\""), "{refused}");
}

#[test]
fn what_cannot_be_replicated_is_said() {
    if direct() {
        return;
    }
    let cluster = cluster();
    let (node, other) = (cluster.primary().address(), cluster.replicas()[0].address());
    let shards =
        format!("shards = [{{ name = \"a\", primary = \"{node}\" }}, {{ name = \"b\", primary = \"{other}\" }}]");
    let more = format!(
        "[clusters.sharded]\n{shards}\n[databases.demo]\ncluster = \"main\"\n[databases.many]\ncluster = \"sharded\"\ndbname = \"demo\"\n"
    );
    let gateway = Gateway::in_front_of(&cluster).more(&more).start();
    let refusal = |database: &str, replication: &str| {
        let url =
            format!("host=127.0.0.1 port={} user=postgres dbname={database} replication={replication}", gateway.port);
        fail(tool("psql").args(["-XqAt", "-c", "IDENTIFY_SYSTEM", &url]))
    };
    let refused = refusal("demo", "true");
    assert!(
        refused.contains("database \"replication\" does not exist") && refused.contains("[databases.replication]"),
        "{refused}"
    );
    let refused = refusal("many", "database");
    assert!(refused.contains("several shards"), "{refused}");
    let mut raw = Raw::connect(gateway.port);
    raw.send(&startup(196_608, &[("user", "demo"), ("database", "demo"), ("replication", "maybe")]));
    let (tag, body) = raw.message().unwrap();
    assert_eq!((tag, crate::support::sqlstate(&body).as_str()), (b'E', "22023"));
}
