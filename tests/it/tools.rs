//! PostgreSQL's own tools, as people run them: what they dump, restore, copy, create and maintain through the gateway is what
//! they do to PostgreSQL itself. Reads go to replicas, and the pool is as small as the tool's own connections allow.
//!
//! Those that speak the replication protocol are in `replication`.

use std::process::{Command, Stdio};

use crate::support::{Gateway, database, direct, fail, run_with, succeed, tool};

/// Connections of a tool with `-j 4`: each worker's transaction has one, and so has the leader's.
const POOL: &str = "size = 5";

/// Two rows of everything that a dump treats in a way of its own.
const CONTENT: &str = "\
CREATE SCHEMA shop;\
CREATE TYPE shop.state AS ENUM ('new', 'paid');\
CREATE DOMAIN shop.amount AS numeric(10,2) CHECK (VALUE >= 0);\
CREATE SEQUENCE shop.numbers START 100 INCREMENT 5;\
CREATE TABLE shop.customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, photo bytea, tags text[]);\
CREATE TABLE shop.orders (id bigint PRIMARY KEY DEFAULT nextval('shop.numbers'), customer int NOT NULL REFERENCES shop.customers,\
 state shop.state DEFAULT 'new', total shop.amount, twice numeric GENERATED ALWAYS AS (total * 2) STORED, at timestamptz, more jsonb);\
CREATE INDEX ON shop.orders (lower(more->>'note')) WHERE state = 'new';\
CREATE TABLE shop.log (at date NOT NULL, line text) PARTITION BY RANGE (at);\
CREATE TABLE shop.log_1 PARTITION OF shop.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');\
CREATE TABLE shop.log_2 PARTITION OF shop.log FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');\
CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.at := coalesce(new.at, '2020-02-02'); RETURN new; END$$;\
CREATE TRIGGER stamp BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.stamp();\
CREATE VIEW shop.paid AS SELECT * FROM shop.orders WHERE state = 'paid';\
CREATE STATISTICS shop.both ON customer, state FROM shop.orders;\
INSERT INTO shop.customers (name, photo, tags)\
 SELECT 'name ' || i, decode(md5(i::text), 'hex'), ARRAY['a', 'tab\t', NULL] FROM generate_series(1, 500) i;\
INSERT INTO shop.orders (customer, state, total, more)\
 SELECT 1 + i % 500, CASE WHEN i % 3 = 0 THEN 'paid' ELSE 'new' END::shop.state, i, jsonb_build_object('note', repeat('é', i % 50))\
 FROM generate_series(1, 5000) i;\
INSERT INTO shop.log SELECT date '2020-01-01' + i, 'line \\ ' || i FROM generate_series(0, 700) i;\
CREATE MATERIALIZED VIEW shop.sums AS SELECT customer, sum(total) FROM shop.orders GROUP BY 1 ORDER BY 1;\
COMMENT ON TABLE shop.orders IS 'what was bought';\
GRANT SELECT ON shop.paid TO PUBLIC;\
ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY;\
CREATE POLICY all_of_them ON shop.customers USING (true);\
SELECT lo_from_bytea(4711, decode(repeat('00ff10', 20000), 'hex'));\
COMMENT ON LARGE OBJECT 4711 IS 'large';";

/// A tool that connects through the gateway to `database`, or to none if that is empty.
fn through(gateway: &Gateway<'_>, name: &str, user: &str, database: &str) -> Command {
    let mut command = tool(name);
    command.args(["-h", "127.0.0.1", "-p", &gateway.port.to_string(), "-U", user]);
    if !database.is_empty() {
        command.args(["-d", database]);
    }
    command
}

/// All that is in `database`, as pg_dump shows it on the primary itself, line by line.
fn content(gateway: &Gateway<'_>, database: &str) -> String {
    let port = gateway.cluster.primary().port().to_string();
    let dump = succeed(tool("pg_dump").args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", database]));
    // Each dump has a key of its own in its \restrict line.
    let mut lines: Vec<_> = dump.lines().filter(|line| !line.contains("restrict ")).collect();
    // Where in its table a row lies is not compared.
    lines.sort_unstable();
    lines.join("\n")
}

#[track_caller]
fn same(what: &str, expected: &str, actual: &str) {
    let differs = expected.lines().zip(actual.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(expected == actual, "{what}: {differs:?}, {} and {} bytes", expected.len(), actual.len());
}

/// On the primary, by the superuser.
fn ask(gateway: &Gateway<'_>, database: &str, sql: &str) -> String {
    gateway.cluster.primary().psql(database, sql).unwrap()
}

#[test]
fn dumps_restore_into_another_database() {
    let gateway = Gateway::setup().pool(POOL).start();
    let source = database("dumped");
    gateway.query(&source, CONTENT);
    let expected = content(&gateway, &source);
    assert!(expected.contains("COPY shop.orders"), "{expected}");
    let check = |what: &str, target: &str| same(what, &expected, &content(&gateway, target));

    let file = gateway.path("plain.sql");
    succeed(through(&gateway, "pg_dump", "demo", &source).arg("-f").arg(&file));
    let target = database("plain");
    succeed(gateway.psql(&target).args(["-f"]).arg(&file));
    check("plain", &target);

    let target = database("one_transaction");
    succeed(gateway.psql(&target).args(["-1", "-f"]).arg(&file));
    check("plain, in one transaction", &target);

    let file = gateway.path("inserts.sql");
    succeed(through(&gateway, "pg_dump", "demo", &source).args(["--column-inserts", "-f"]).arg(&file));
    let target = database("inserts");
    succeed(gateway.psql(&target).args(["-f"]).arg(&file));
    check("inserts", &target);

    let file = gateway.path("custom");
    succeed(through(&gateway, "pg_dump", "demo", &source).args(["-F", "custom", "-f"]).arg(&file));
    let target = database("custom");
    succeed(through(&gateway, "pg_restore", "demo", &target).args(["-e", "-j", "4"]).arg(&file));
    check("custom, by four", &target);

    // Four workers and their leader see one snapshot.
    let folder = gateway.path("directory");
    succeed(through(&gateway, "pg_dump", "demo", &source).args(["-F", "directory", "-j", "4", "-f"]).arg(&folder));
    let target = database("directory");
    succeed(through(&gateway, "pg_restore", "demo", &target).args(["-e", "-j", "4"]).arg(&folder));
    check("directory, by four", &target);
    // What is there is dropped and made again.
    let again = ["-e", "-j", "4", "--clean", "--if-exists"];
    succeed(through(&gateway, "pg_restore", "demo", &target).args(again).arg(&folder));
    check("directory, a second time", &target);
}

#[test]
fn a_parallel_dump_under_load_is_of_one_moment() {
    let gateway = Gateway::setup().pool("size = 8").start();
    let source = database("dumped_under_load");
    let tables: String = (0..6).map(|n| format!("CREATE TABLE t{n} (n int);")).collect();
    gateway.query(&source, &tables);
    let inserts: String = (0..6).map(|n| format!("INSERT INTO t{n} VALUES (1);")).collect();
    let script = gateway.path("load.sql");
    std::fs::write(&script, format!("BEGIN;\n{}\nEND;\n", inserts.replace(';', ";\n"))).unwrap();
    let mut pgbench = through(&gateway, "pgbench", "demo", "");
    pgbench.args(["-n", "-c", "2", "-T", "30", "-f"]).arg(&script).arg(&source);
    let mut load = pgbench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for round in 0..3 {
        let folder = gateway.path(&format!("dump{round}"));
        succeed(through(&gateway, "pg_dump", "demo", &source).args(["-F", "directory", "-j", "4", "-f"]).arg(&folder));
        let target = database("dumped_then");
        succeed(through(&gateway, "pg_restore", "demo", &target).args(["-e", "-j", "4"]).arg(&folder));
        let counts: Vec<String> = (0..6).map(|n| format!("(SELECT count(*) FROM t{n})")).collect();
        let distinct = format!("SELECT count(DISTINCT n) FROM unnest(ARRAY[{}]) n", counts.join(","));
        assert_eq!(ask(&gateway, &target, &distinct), "1", "each transaction wrote to all tables");
    }
    let _ = load.kill();
    let _ = load.wait();
}

#[test]
fn a_dump_of_everything() {
    let gateway = Gateway::setup().pool(POOL).start();
    // No other test has a database that begins with this letter.
    let name = database("xeverything");
    gateway.query(&name, "CREATE TABLE everything (n int); INSERT INTO everything VALUES (42)");
    let all = succeed(through(&gateway, "pg_dumpall", "postgres", "").args(["--exclude-database", "[^x]*"]));
    for line in
        ["CREATE ROLE demo;", &format!("CREATE DATABASE {name} "), "COPY public.everything (n) FROM stdin;\n42\n"]
    {
        assert!(all.contains(line), "{line} is not in\n{all}");
    }
}

#[test]
fn psql_copies_watches_and_describes() {
    let gateway = Gateway::setup().pool("size = 2").start();
    let name = database("psql_features");
    let file = gateway.path("rows.csv");
    let file = file.display();
    let script = format!(
        "CREATE TABLE t (n int, s text);\n\
         INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) i;\n\
         \\copy (SELECT * FROM t ORDER BY n) TO '{file}' WITH (FORMAT csv, HEADER)\n\
         CREATE TABLE u (LIKE t);\n\
         \\copy u FROM '{file}' WITH (FORMAT csv, HEADER)\n\
         SELECT count(*), sum(n), count(DISTINCT s) FROM u;\n\
         SELECT format('CREATE TABLE g%s (n int)', i), format('INSERT INTO g%s VALUES (%s)', i, i) FROM generate_series(1, 3) i \\gexec\n\
         SELECT sum(n) FROM (SELECT * FROM g1 UNION SELECT * FROM g2 UNION SELECT * FROM g3) a;\n\
         SELECT 1 AS one, 'x'::text AS two, now() AS three \\gdesc\n\
         SELECT max(n) AS most FROM u \\gset\n\
         SELECT :most + 1;\n\
         \\set FETCH_COUNT 100\n\
         SELECT n FROM u WHERE n > 998 OR n < 3 ORDER BY n;\n\
         \\unset FETCH_COUNT\n\
         SELECT n % 2 AS r, n % 3 AS c, count(*) FROM t WHERE n <= 12 GROUP BY 1, 2 ORDER BY 1, 2 \\crosstabview\n\
         \\lo_import '{file}'\n\
         \\lo_export :LASTOID '{file}.back'\n\
         \\! cmp '{file}' '{file}.back' && echo same\n\
         \\set AUTOCOMMIT off\n\
         \\set ON_ERROR_ROLLBACK on\n\
         \\set ON_ERROR_STOP off\n\
         INSERT INTO u VALUES (2000);\n\
         SELECT 1/0;\n\
         COMMIT;\n\
         \\set AUTOCOMMIT on\n\
         SELECT max(n) FROM u;\n\
         \\dt\n"
    );
    let output = run_with(&mut gateway.psql(&name), &script);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected = "1000|500500|1000\n6\n\
         one|integer\ntwo|text\nthree|timestamp with time zone\n1001\n1\n2\n999\n1000\n0|2|2|2\n1|2|2|2\n";
    let rest = out.strip_prefix(expected).unwrap_or_else(|| panic!("{out}\n{err}"));
    assert!(rest.starts_with("same\n2000\npublic|g1|table|demo\npublic|g2|table|demo\n"), "{out}\n{err}");
    assert!(err.contains("division by zero") && err.matches("ERROR").count() == 1, "{err}");

    // \watch goes on until something fails.
    let rounds = "CREATE SEQUENCE rounds;\nSELECT 12 / (4 - nextval('rounds')) AS round \\watch 0.1\n";
    let output = run_with(&mut gateway.psql(&name), rounds);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let rounds: Vec<&str> =
        out.lines().filter(|line| line.chars().all(|c| c.is_ascii_digit()) && !line.is_empty()).collect();
    assert_eq!(rounds, ["4", "6", "12"], "{out}\n{err}");
    assert!(err.contains("division by zero"), "{err}");
    // Reads of a replica's, round after round.
    let reads = "SELECT count(*) FROM t \\watch 0.05\n";
    let mut psql = gateway.psql(&name);
    psql.env("PGOPTIONS", "-c statement_timeout=1000");
    let output = run_with(Command::new("timeout").arg("2").arg(psql.get_program()).args(psql.get_args()), reads);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.lines().filter(|line| *line == "1000").count() >= 5, "{out}");

    // With parameters, where this psql can do that.
    let bound = run_with(&mut gateway.psql(&name), "SELECT $1::int + $2 \\bind 40 2 \\g\n");
    let err = String::from_utf8_lossy(&bound.stderr);
    assert!(bound.stdout == b"42\n" || err.contains("invalid command \\bind"), "{err}");
}

#[test]
fn every_list_of_psql() {
    let gateway = Gateway::setup().pool("size = 2").start();
    let name = database("psql_lists");
    gateway.query(&name, CONTENT);
    let lists: String = [
        "d",
        "d+ shop.*",
        "da",
        "dA",
        "db",
        "dc",
        "dC",
        "dconfig",
        "dd",
        "dD shop.*",
        "ddp",
        "dE",
        "det",
        "dew",
        "des",
        "deu",
        "df+ shop.*",
        "dF",
        "dg",
        "di shop.*",
        "dl",
        "dL",
        "dm shop.*",
        "dn+",
        "do",
        "dO",
        "dp shop.*",
        "dP shop.*",
        "drds",
        "dRp",
        "dRs",
        "ds shop.*",
        "dt+ shop.*",
        "dT shop.*",
        "du",
        "dv shop.*",
        "dx",
        "dX shop.*",
        "dy",
        "sf shop.stamp",
        "sv shop.paid",
    ]
    .map(|list| format!("\\echo --- {list}\n\\{list}\n"))
    .concat();
    let through_gateway = run_with(&mut gateway.psql(&name), &lists);
    let port = gateway.cluster.primary().port();
    let mut psql = tool("psql");
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", &format!("postgres://demo@127.0.0.1:{port}/{name}")]);
    let of_server = run_with(&mut psql, &lists);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&through_gateway.stderr), text(&of_server.stderr));
    assert_eq!(text(&through_gateway.stdout), text(&of_server.stdout));
    assert!(text(&of_server.stdout).contains("what was bought"));
}

#[test]
fn maintenance() {
    let gateway = Gateway::setup().pool(POOL).start();
    let name = database("maintained");
    gateway.query(&name, CONTENT);
    let before = content(&gateway, &name);
    let user = "postgres";
    succeed(through(&gateway, "vacuumdb", user, &name).args(["-j", "4", "--analyze", "--quiet"]));
    succeed(through(&gateway, "vacuumdb", user, &name).args(["--analyze-in-stages", "--quiet"]));
    succeed(through(&gateway, "vacuumdb", user, &name).args(["--full", "-t", "shop.orders", "--quiet"]));
    let visited =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' AND reltuples <= 0";
    assert_eq!(ask(&gateway, &name, visited), "0", "all were analyzed");
    let file = ask(&gateway, &name, "SELECT pg_relation_filenode('shop.orders_pkey')");
    succeed(through(&gateway, "reindexdb", user, &name).args(["-j", "4", "--quiet", "-S", "shop"]));
    succeed(through(&gateway, "reindexdb", user, &name).args(["--concurrently", "--quiet", "-t", "shop.orders"]));
    succeed(through(&gateway, "reindexdb", user, &name).args(["--system", "--quiet"]));
    assert_ne!(ask(&gateway, &name, "SELECT pg_relation_filenode('shop.orders_pkey')"), file);
    gateway.query(&name, "CLUSTER shop.orders USING orders_pkey");
    let heap = ask(&gateway, &name, "SELECT pg_relation_filenode('shop.orders')");
    succeed(through(&gateway, "clusterdb", user, &name).arg("--quiet"));
    assert_ne!(ask(&gateway, &name, "SELECT pg_relation_filenode('shop.orders')"), heap);
    ask(&gateway, &name, "ALTER TABLE shop.orders SET WITHOUT CLUSTER");
    same("maintained", &before, &content(&gateway, &name));
    succeed(through(&gateway, "pg_amcheck", user, &name).args(["-j", "4", "--install-missing", "--heapallindexed"]));
    let mut vacuumlo = through(&gateway, "vacuumlo", user, "");
    succeed(vacuumlo.args(["-n", &name]));
    succeed(&mut through(&gateway, "pg_isready", "demo", &name));
    let mut nobody = tool("pg_isready");
    nobody.args(["-h", "127.0.0.1", "-p", "1"]);
    assert_eq!(crate::support::run(&mut nobody).status.code(), Some(2));
}

#[test]
fn databases_and_users_come_and_go() {
    let gateway = Gateway::setup().pool("size = 2").start();
    let user = "postgres";
    for round in 0..2 {
        succeed(through(&gateway, "createuser", user, "").args(["--no-createdb", "tool_made_user"]));
        succeed(through(&gateway, "createdb", user, "").args(["-O", "tool_made_user", "tool_made", "a comment"]));
        let connected = succeed(through(&gateway, "psql", "tool_made_user", "tool_made").args([
            "-XqAtc",
            "CREATE TABLE t AS SELECT 42 AS n",
            "-c",
            "SELECT n, current_user FROM t",
        ]));
        assert_eq!(connected, "42|tool_made_user", "round {round}");
        // A database in use by this very gateway's pools.
        let copy = succeed(through(&gateway, "createdb", user, "").args(["-T", "tool_made", "tool_copied"]));
        assert_eq!(copy, "");
        let copied =
            through(&gateway, "psql", "tool_made_user", "tool_copied").args(["-XqAtc", "TABLE t"]).output().unwrap();
        assert_eq!(copied.stdout, b"42\n", "{}", String::from_utf8_lossy(&copied.stderr));
        succeed(through(&gateway, "dropdb", user, "").arg("tool_copied"));
        succeed(through(&gateway, "dropdb", user, "").args(["--force", "tool_made"]));
        succeed(through(&gateway, "dropuser", user, "").arg("tool_made_user"));
    }
    let gone = fail(through(&gateway, "dropdb", user, "").arg("tool_made"));
    assert!(gone.contains("does not exist"), "{gone}");
}

#[test]
fn pgbench_makes_its_tables() {
    let gateway = Gateway::setup().pool("size = 2").start();
    let name = database("pgbench_init");
    for options in
        [&["-I", "dtgvpf"][..], &["-I", "dtGvp"], &["--partitions", "3", "--unlogged-tables"], &["--fillfactor", "90"]]
    {
        let mut pgbench = through(&gateway, "pgbench", "demo", "");
        succeed(pgbench.args(["-i", "-q", "-s", "2"]).args(options).arg(&name));
        let counts = "SELECT (SELECT count(*) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_tellers), (SELECT count(*) FROM pgbench_branches)";
        assert_eq!(ask(&gateway, &name, counts), "200000|20|2", "{options:?}");
    }
    if !direct() {
        succeed(through(&gateway, "pgbench", "demo", "").args(["-n", "-c", "8", "-t", "50", "-M", "prepared", &name]));
        assert_eq!(ask(&gateway, &name, "SELECT count(*) FROM pgbench_history"), "400");
    }
}
