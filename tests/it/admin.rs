//! The admin listener and trace notices of a real gateway.

use std::time::{Duration, Instant};

use crate::support::{Gateway, database, direct, succeed};

/// The value of the metric whose line begins with `name`, its labels included.
fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[track_caller]
fn metrics(gateway: &Gateway<'_>) -> String {
    let (status, text) = gateway.admin("/metrics").expect("the admin listener answers");
    assert_eq!(status, 200, "{text}");
    text
}

/// Waits until `holds` of what `/metrics` says.
#[track_caller]
fn wait_for(gateway: &Gateway<'_>, what: &str, holds: impl Fn(&str) -> bool) {
    let start = Instant::now();
    loop {
        let text = metrics(gateway);
        if holds(&text) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{what}:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn metrics_count_what_sessions_do() {
    if direct() {
        return;
    }
    let database = database("counted");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    client.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    for n in 0..20 {
        client.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
    }
    // What was defined keeps every session's reads from replicas that lack it.
    gateway.replicas_serve(&database);
    let reader = gateway.connect(&database).await;
    for n in 0..30 {
        reader.batch_execute(&format!("SELECT {n}")).await.unwrap();
    }
    reader.batch_execute("SET work_mem = '5MB'").await.unwrap();
    reader.batch_execute("BEGIN").await.unwrap();
    reader.batch_execute("ROLLBACK").await.unwrap();

    // A session is idle a moment after its last answer.
    wait_for(&gateway, "idle sessions", |text| {
        metric(text, r#"pointsman_sessions{state="idle"}"#).is_some_and(|idle| idle >= 2.0)
    });
    let text = metrics(&gateway);
    let value = |name: &str| metric(&text, name).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    let sent = |node: &str, target: &str| {
        let name = format!(
            "pointsman_statements_total{{cluster=\"main\",shard=\"main\",node=\"{node}\",target=\"{target}\"}}"
        );
        metric(&text, &name).unwrap_or(0.0)
    };
    assert!(sent("primary", "primary") >= 21.0, "{text}");
    assert!(sent("r1", "replica") + sent("r2", "replica") >= 20.0, "{text}");
    assert!(sent("r1", "primary") + sent("r2", "primary") == 0.0, "{text}");
    assert!(value("pointsman_local_answers_total") >= 2.0);
    assert!(value("pointsman_session_audits_total") >= 1.0);
    assert!(value("pointsman_client_received_bytes_total") > 1000.0);
    assert!(value("pointsman_client_sent_bytes_total") > 1000.0);
    assert!(value("pointsman_clients_accepted_total") >= 2.0);
    assert!(value(r#"pointsman_analyses_total{result="miss"}"#) >= 1.0);
    assert!(value(r#"pointsman_node_up{cluster="main",shard="main",node="primary"}"#) >= 1.0);
    assert!(value(r#"pointsman_node_role{cluster="main",shard="main",node="r1",role="replica"}"#) >= 1.0);

    // A temporary table keeps the session on its server; the end of it lets it go.
    client.batch_execute("CREATE TEMP TABLE s (n int)").await.unwrap();
    wait_for(&gateway, "a pinned session", |text| {
        metric(text, r#"pointsman_sessions_pinned{cause="temporary objects"}"#) == Some(1.0)
            && metric(text, r#"pointsman_sessions{state="pinned"}"#) == Some(1.0)
    });
    assert!(metric(&metrics(&gateway), "pointsman_statements_pinned_total") == Some(0.0), "none ran there so far");
    client.batch_execute("INSERT INTO s VALUES (1)").await.unwrap();
    client.batch_execute("DROP TABLE s").await.unwrap();
    wait_for(&gateway, "no pinned session", |text| metric(text, r#"pointsman_sessions{state="pinned"}"#) == Some(0.0));
    let text = metrics(&gateway);
    assert_eq!(metric(&text, "pointsman_statements_pinned_total"), Some(2.0), "{text}");
    let cause = r#"pointsman_statements_pinned_causes_total{cause="temporary objects"}"#;
    assert_eq!(metric(&text, cause), Some(2.0), "{text}");

    // One in a transaction is active.
    client.batch_execute("BEGIN; INSERT INTO t VALUES (0)").await.unwrap();
    wait_for(&gateway, "an active session", |text| metric(text, r#"pointsman_sessions{state="active"}"#) == Some(1.0));
    client.batch_execute("ROLLBACK").await.unwrap();

    // Clients that are not let in, by reason.
    assert!(gateway.try_connect("nowhere_at_all").await.is_err());
    wait_for(&gateway, "a refused client", |text| {
        metric(text, r#"pointsman_clients_refused_total{reason="database"}"#).unwrap_or(0.0)
            + metric(text, r#"pointsman_clients_refused_total{reason="server"}"#).unwrap_or(0.0)
            >= 1.0
    });
}

#[test]
fn the_status_and_the_page_show_the_cluster() {
    if direct() {
        return;
    }
    let database = database("status");
    let gateway = Gateway::start();
    gateway.query(&database, "SELECT 1");
    let (status, json) = gateway.admin("/api/v1/status").unwrap();
    assert_eq!(status, 200);
    for part in [r#""name":"main""#, r#""role":"primary""#, r#""role":"replica""#, r#""unready":[]"#, &database] {
        assert!(json.contains(part), "{part} is not in\n{json}");
    }
    let (status, page) = gateway.admin("/").unwrap();
    assert_eq!(status, 200);
    for part in ["Cluster main", "<td>r1", "ready", &database] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert_eq!(gateway.admin("/nothing").unwrap().0, 404);
}

#[test]
fn a_session_that_traces_is_told_where_its_statements_go() {
    if direct() {
        return;
    }
    let database = database("traced");
    let gateway = Gateway::start();
    gateway.query(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (424242)");
    gateway.cluster.wait_replayed().unwrap();
    let script = "\
        SELECT 1;\n\
        SET pointsman.trace = on;\n\
        SELECT n FROM t WHERE n = 424242;\n\
        BEGIN;\n\
        SELECT 2;\n\
        COMMIT;\n\
        CREATE TEMP TABLE kept (n int);\n\
        SELECT 3;\n\
        SET pointsman.trace = off;\n\
        SELECT 4;\n";
    let output = gateway
        .psql(&database)
        .args(["-c", "\\set VERBOSITY verbose"])
        .args(script.lines().flat_map(|line| ["-c", line]))
        .output()
        .unwrap();
    let notices = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notices}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n424242\n2\n3\n4\n");
    let told: Vec<&str> = notices.lines().filter(|line| line.starts_with("NOTICE:")).collect();
    for (index, parts) in [
        (0, &["00000: pointsman: replica \"r", " us"][..]),
        (1, &["answered by the gateway"]),
        (2, &["primary \"primary\""]),
        (3, &["in transaction"]),
        (4, &["primary \"primary\""]),
        (5, &["pinned, temporary objects"]),
        (6, &["pinned, temporary objects"]),
    ] {
        let line = told.get(index).unwrap_or_else(|| panic!("no notice {index} in\n{notices}"));
        assert!(parts.iter().all(|part| line.contains(part)), "notice {index} lacks {parts:?}:\n{notices}");
    }
    assert_eq!(told.len(), 7, "{notices}");
    assert!(notices.contains("select of t, reads: policy read-write-split"), "{notices}");
    assert!(notices.contains("decided replica"), "{notices}");
    // What was traced names no value.
    assert!(!notices.contains("424242"), "{notices}");
}

#[test]
fn the_log_says_what_runs_and_whose_log_in_failed() {
    if direct() {
        return;
    }
    let database = database("logged");
    let mut gateway = Gateway::setup()
        .more("[log]\nformat = \"json\"\nlevel = \"info\"\n[users.demo]\npassword = \"Sesame-42\"\n")
        .start();
    let wrong = gateway
        .psql(&database)
        .env("PGPASSWORD", "wrong-secret")
        .args(["-c", "SELECT 'literal-text'"])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    succeed(gateway.psql(&database).env("PGPASSWORD", "Sesame-42").args(["-c", "SELECT 'literal-text'"]));
    gateway.terminate();
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    let started = lines.iter().filter(|line| line.contains(r#""message":"started""#)).count();
    assert_eq!(started, 1, "{log}");
    let failed = lines.iter().find(|line| line.contains("failed to log in")).unwrap_or_else(|| panic!("{log}"));
    assert!(failed.contains(r#""session":"#) && failed.contains(r#""user":"demo""#), "{failed}");
    // No key stands twice in a line: what reads it would keep one of them.
    for line in &lines {
        assert_eq!(line.matches(r#""message":"#).count(), 1, "{line}");
    }
    for secret in ["literal-text", "wrong-secret", "Sesame-42"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}
