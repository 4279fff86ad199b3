//! psql and pgbench, as people use them.

use crate::support::{Gateway, Raw, database, message, query, run, run_with, sqlstate, startup, succeed, tool};

#[test]
fn psql_runs_statements_scripts_and_copies() {
    let database = database("psql");
    let gateway = Gateway::start();
    assert_eq!(gateway.query(&database, "SELECT 40 + 2, NULL, 'a|b'"), "42||a|b");
    // One string, several statements: one implicit transaction, the last result shown.
    assert_eq!(
        gateway.query(&database, "CREATE TABLE t (n int, s text); INSERT INTO t VALUES (1, 'one'); TABLE t"),
        "1|one"
    );

    let script = "\\set ON_ERROR_STOP off\n\
        BEGIN; INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t; ROLLBACK;\n\
        SELECT no_such_column FROM t;\n\
        SELECT 'after the error';\n\
        \\copy t FROM PROGRAM 'printf \"3\\\\tthree\\\\n4\\\\t\\\\\\\\N\\\\n\"'\n\
        SELECT string_agg(n || coalesce(s, '-'), ',' ORDER BY n) FROM t;\n\
        \\copy (SELECT n FROM t ORDER BY n) TO STDOUT\n\
        SELECT n AS first FROM t ORDER BY n LIMIT 1 \\gset\n\
        \\echo :first\n\
        \\d t\n";
    let output = run_with(&mut gateway.psql(&database), script);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(err.contains("column \"no_such_column\" does not exist"), "{err}");
    for expected in ["2\nafter the error\n1one,3three,4-\n1\n3\n4\n1\n", "n|integer|"] {
        assert!(out.contains(expected), "no {expected:?} in {out}\n{err}");
    }
}

#[test]
fn psql_sees_errors_as_postgresql_tells_them() {
    let database = database("psql_errors");
    let gateway = Gateway::start();
    for (sql, sqlstate) in [
        ("SELEC 1", "42601"),
        ("SELECT 1/0", "22012"),
        ("SELECT * FROM nowhere", "42P01"),
        ("DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'ZX123', HINT = 'look here'; END $$", "ZX123"),
    ] {
        let output = run(gateway.psql(&database).args(["-v", "VERBOSITY=verbose", "-c", sql]));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(sqlstate), "{sql}: {error}");
        assert!(sqlstate != "ZX123" || error.contains("HINT:  look here"), "{error}");
    }
    // After an error inside a transaction everything is refused until its end.
    let error = run_with(
        gateway.psql(&database).args(["-v", "ON_ERROR_STOP=0"]),
        "BEGIN;\nSELECT 1/0;\nSELECT 1;\nCOMMIT;\nSELECT 7;\n",
    );
    assert!(String::from_utf8_lossy(&error.stderr).contains("current transaction is aborted"));
    assert!(String::from_utf8_lossy(&error.stdout).ends_with("7\n"));
}

/// pgbench with 32 clients; every transaction must succeed.
fn pgbench(mode: &str) {
    let database = database(&format!("pgbench_{mode}"));
    let gateway = Gateway::start();
    let url = gateway.url(&database);
    succeed(tool("pgbench").args(["-i", "-s", "2", "-q", &url]));
    // Reads right after the load must see it: read-your-writes is per session, and this is another session.
    gateway.cluster.wait_replayed().unwrap();
    for script in ["select-only", "tpcb-like"] {
        let mut command = tool("pgbench");
        command.args(["-n", "-c", "32", "-j", "2", "-t", "40", "-M", mode, "-b", script, &url]);
        let output = run(&mut command);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !err.contains("aborted"), "{mode} {script}:\n{out}\n{err}");
        assert!(out.contains("number of transactions actually processed: 1280/1280"), "{mode} {script}:\n{out}\n{err}");
    }
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), count(*) FROM pgbench_history";
    assert_eq!(gateway.cluster.primary().psql(&database, sums).unwrap(), "t|1280");
}

#[test]
fn pgbench_simple() {
    pgbench("simple");
}

#[test]
fn pgbench_extended() {
    pgbench("extended");
}

#[test]
fn pgbench_prepared() {
    pgbench("prepared");
}

#[test]
fn pgbench_pipelines() {
    let database = database("pgbench_pipelines");
    let gateway = Gateway::start();
    let url = gateway.url(&database);
    succeed(tool("pgbench").args(["-i", "-q", &url]));
    gateway.cluster.wait_replayed().unwrap();
    let script = gateway.directory.path().join("pipeline.sql");
    std::fs::write(
        &script,
        "\\set a random(1, 100000)\n\\startpipeline\nBEGIN;\n\
         UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :a;\n\
         SELECT abalance FROM pgbench_accounts WHERE aid = :a;\nCOMMIT;\n\\endpipeline\n\
         \\startpipeline\nSELECT 1;\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\\endpipeline\n",
    )
    .unwrap();
    for mode in ["extended", "prepared"] {
        let mut command = tool("pgbench");
        command.args(["-n", "-c", "16", "-j", "2", "-t", "50", "-M", mode, "-f"]).arg(&script).arg(&url);
        let out = succeed(&mut command);
        assert!(out.contains("processed: 800/800"), "{mode}:\n{out}");
    }
    assert_eq!(
        gateway.cluster.primary().psql(&database, "SELECT sum(abalance) FROM pgbench_accounts").unwrap(),
        "1600"
    );
}

#[test]
fn a_name_too_long_is_cut_and_said_at_log_in() {
    let database = database("long_name");
    let gateway = Gateway::start();
    // 62 bytes, then a character of two: PostgreSQL cuts before it.
    for (name, left) in [("x".repeat(65), "x".repeat(63)), (format!("{}éé", "x".repeat(62)), "x".repeat(62))] {
        let settings = [("user", "demo"), ("database", &database), ("application_name", &name)];
        // The second client is told from what the gateway remembers.
        for _ in 0..2 {
            let mut raw = Raw::connect(gateway.port);
            raw.send(&startup(196_608, &settings));
            let answer = raw.until(b'Z');
            let at = |tag| answer.iter().position(|(found, _)| *found == tag);
            let (_, notice) = &answer[at(b'N').expect("a notice")];
            assert!(at(b'R') < at(b'N'), "{answer:?}");
            assert_eq!(sqlstate(notice), "42622");
            let said = format!("Midentifier \"{name}\" will be truncated to \"{left}\"\0");
            assert!(notice.windows(said.len()).any(|part| part == said.as_bytes()), "{notice:?}");
            raw.send(&query("SHOW application_name"));
            let shown = raw.until(b'Z').into_iter().find(|(tag, _)| *tag == b'D').expect("a row").1;
            assert!(shown.ends_with(left.as_bytes()), "{shown:?}");
        }
    }
}

#[test]
fn errors_name_statements_as_the_client_does() {
    let database = database("statement_names");
    let gateway = Gateway::start();
    let mut raw = Raw::log_in(gateway.port, "demo", &database);
    let sync = message(b'S', b"");
    raw.send(&[message(b'P', b"mine\0SELECT $1::int + $2::int\0\0\0"), sync.clone()].concat());
    raw.until(b'Z');
    // One value for two parameters.
    raw.send(&[message(b'B', b"\0mine\0\0\0\0\x01\0\0\0\x011\0\0"), sync].concat());
    let error = raw.until(b'Z').into_iter().find(|(tag, _)| *tag == b'E').expect("an error").1;
    assert_eq!(sqlstate(&error), "08P01");
    let said = b"Mbind message supplies 1 parameters, but prepared statement \"mine\" requires 2\0";
    assert!(error.windows(said.len()).any(|part| part == said), "{}", String::from_utf8_lossy(&error));
}
