//! Statements and what is expected of them.

use super::super::*;
use super::{analyze, line};

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, expected)| {
            let got = line(text);
            (got != *expected).then(|| format!("{text}\n    expected {expected}\n         got {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn queries() {
    check(&[
        ("", ""),
        (" ; ;; ", ""),
        ("SELECT FROM t", "Select Read | of t"),
        ("SELECT 1", "Select Read"),
        ("select abalance from pgbench_accounts where aid = 1;", "Select Read | of pgbench_accounts | where 0.aid=1"),
        ("SELECT * FROM Foo", "Select Read | of foo"),
        ("SELECT * FROM \"Foo\"", "Select Read | of Foo"),
        ("SELECT * FROM s.t", "Select Read | of s.t"),
        ("SELECT * FROM \"S\".t, \"a\"\"b\"", "Select Read | of S.t a\"b"),
        ("SELECT * FROM db.s.t", "Select Read | of s.t"),
        ("(SELECT 1)", "Select Read"),
        ("((SELECT a FROM t))", "Select Read | of t"),
        ("VALUES (1), (2)", "Values Read"),
        ("SELECT * FROM a UNION SELECT * FROM b", "Select Read | of a b"),
        ("SELECT f(x), count(*), pg_catalog.lower('A') FROM t", "Select Read | of t | calls f count pg_catalog.lower"),
        ("SELECT * FROM generate_series(1, 10) g", "Select Read | calls generate_series"),
        ("SELECT * FROM s.f(1) AS x(a int, b text)", "Select Read | calls s.f"),
        ("SELECT coalesce(a, b), nullif(a, 1), greatest(a, 2) FROM t", "Select Read | of t"),
        ("SELECT \"coalesce\"(a) FROM t", "Select Read | of t | calls coalesce"),
        ("SELECT current_user, current_timestamp(3), session_user", "Select Read"),
        ("SELECT sum(a) OVER (PARTITION BY b ORDER BY f(c)) FROM t", "Select Read | of t | calls sum f"),
        ("SELECT sum(a) FILTER (WHERE g(b)) FROM t", "Select Read | of t | calls sum g"),
        ("SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE h(b.x))", "Select Read | of a b | calls h"),
        ("SELECT (SELECT max(x) FROM b) FROM a", "Select Read | of b a | calls max"),
        ("SELECT 1 FROM a ORDER BY f(x) LIMIT g(1)", "Select Read | of a | calls f g"),
        ("SELECT 1 FROM a GROUP BY f(x) HAVING g(y) > 1", "Select Read | of a | calls f g"),
        ("SELECT 1 FROM a JOIN b ON f(a.x, b.x)", "Select Read | of a b | calls f"),
        ("SELECT CASE WHEN f(1) THEN g(2) ELSE h(3) END", "Select Read | calls f g h"),
        ("SELECT ARRAY[f(1)], ROW(g(2)), (h(3)).x", "Select Read | calls f g h"),
        ("SELECT a FROM t1, LATERAL (SELECT * FROM t2 WHERE t2.x = t1.x) s", "Select Read | of t1 t2"),
        ("SELECT 'a' LIKE f(1), g(1)::text, CAST(h(1) AS int)", "Select Read | calls f g h"),
        ("SELECT a->'b'->>'c', d @> '{}', e ?| array['x'], f #>> '{a}' FROM t", "Select Read | of t"),
        ("SELECT \"update\" FROM t", "Select Read | of t"),
        ("SELECT t.update, t.into FROM t", "Select Write | of t"),
        ("SELECT $1::int, $2", "Select Read"),
        ("SELECT * FROM ONLY t, ONLY u FETCH FIRST 5 ROWS ONLY", "Select Read | of t u"),
    ]);
}

#[test]
fn common_table_expressions() {
    check(&[
        ("WITH x AS (SELECT * FROM a) SELECT * FROM x", "Select Read | of a"),
        // Not RECURSIVE: x inside x is a table.
        ("WITH x AS (SELECT * FROM x) SELECT * FROM x", "Select Read | of x"),
        ("WITH RECURSIVE x AS (SELECT 1 UNION SELECT * FROM x) SELECT * FROM x", "Select Read"),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a, b", "Select Read | of b"),
        // A qualified name is never a common table expression.
        ("WITH x AS (SELECT 1) SELECT * FROM public.x", "Select Read | of public.x"),
        ("WITH x AS (SELECT 1) SELECT * FROM (SELECT * FROM x) y", "Select Read"),
        ("SELECT * FROM x, (WITH x AS (SELECT 1) SELECT * FROM x) y", "Select Read | of x"),
        ("WITH \"X\" AS (SELECT 1) SELECT * FROM x", "Select Read | of x"),
        ("WITH X AS (SELECT 1) SELECT * FROM x", "Select Read"),
        // A target is a table whatever is in WITH.
        ("WITH t AS (SELECT 1) INSERT INTO t SELECT * FROM t", "Insert Write | of t!"),
        ("WITH t AS (SELECT 1) DELETE FROM u USING t WHERE u.k = 5", "Delete Write | of u! | where 0.k=5"),
        ("WITH d AS (DELETE FROM t WHERE k = 1 RETURNING *) SELECT * FROM d", "Select Write | of t! | where 0.k=1"),
        ("WITH i AS (INSERT INTO t (k) VALUES (1) RETURNING *) SELECT * FROM i", "Select Write | of t! | where 0.k=1"),
        ("WITH u AS (UPDATE t SET a = 1 RETURNING *) SELECT 1", "Select Write | of t!"),
        ("WITH a AS NOT MATERIALIZED (DELETE FROM t) SELECT 1", "Select Write | of t!"),
        ("WITH a AS (WITH b AS (SELECT 1) INSERT INTO t SELECT * FROM b RETURNING 1) TABLE a", "Select Write Lexed"),
        ("WITH x AS (SELECT 1) UPDATE t SET a = x.b FROM x", "Update Write | of t!"),
        ("WITH insert AS (SELECT 1) SELECT * FROM insert", "Select Read"),
        ("WITH x (a, b) AS (SELECT 1, 2) SELECT f(a) FROM x", "Select Read | calls f"),
        ("WITH x AS (SELECT 1) (SELECT * FROM x)", "Select Read"),
        ("EXPLAIN WITH x AS (SELECT 1) DELETE FROM t", "Explain Read | of t!"),
    ]);
}

#[test]
fn writes() {
    check(&[
        ("INSERT INTO t VALUES (1)", "Insert Write | of t!"),
        ("INSERT INTO t DEFAULT VALUES", "Insert Write | of t!"),
        ("INSERT INTO t (a, b) SELECT x, f(y) FROM u WHERE k = 3", "Insert Write | of t! u | calls f | where 1.k=3"),
        ("UPDATE t SET a = nextval('s')", "Update Write | of t! | calls nextval | effects sequence"),
        ("UPDATE ONLY s.t AS x SET a = 1 WHERE x.k = 2", "Update Write | of s.t! | where 0.k=2"),
        ("DELETE FROM t", "Delete Write | of t!"),
        ("DELETE FROM t USING u WHERE t.a = u.a AND u.k = 1", "Delete Write | of t! u | where 1.k=1"),
        (
            "MERGE INTO t USING s ON t.id = s.id AND t.k = 5 WHEN MATCHED THEN UPDATE SET v = s.v \
             WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            "Merge Write | of t! s",
        ),
        ("SELECT * FROM t FOR UPDATE", "Select Write | of t!"),
        ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", "Select Write | of t!"),
        ("SELECT * FROM t FOR SHARE", "Select Write | of t!"),
        ("SELECT * FROM t FOR KEY SHARE NOWAIT", "Select Write | of t!"),
        ("SELECT * FROM a, (SELECT * FROM b FOR UPDATE) x", "Select Write | of a b!"),
        ("SELECT * INTO n FROM t", "Select Write | of n! t | effects ddl"),
        ("SELECT 1 INTO TEMP n", "Select Write | of n! | effects temporary ddl"),
        ("SELECT a INTO pg_temp.n FROM t", "Select Write | of pg_temp.n! t | effects temporary ddl"),
        ("EXPLAIN SELECT * FROM t WHERE k = 1", "Explain Read | of t | where 0.k=<1>"),
        ("EXPLAIN DELETE FROM t", "Explain Read | of t!"),
        ("EXPLAIN ANALYZE SELECT * FROM t", "Explain Read | of t"),
        ("EXPLAIN ANALYZE VERBOSE DELETE FROM t", "Explain Write | of t!"),
        ("EXPLAIN (ANALYZE) UPDATE t SET a = 1", "Explain Write | of t!"),
        ("EXPLAIN (BUFFERS, ANALYZE true) INSERT INTO t VALUES (1)", "Explain Write | of t!"),
        ("EXPLAIN (ANALYZE off) INSERT INTO t VALUES (1)", "Explain Read | of t!"),
        ("EXPLAIN (ANALYZE false, ANALYZE) INSERT INTO t VALUES (1)", "Explain Write | of t!"),
        ("EXPLAIN (FORMAT JSON) SELECT f(1)", "Explain Read | calls f"),
        ("EXPLAIN (SELECT 1)", "Explain Read"),
        ("EXPLAIN ANALYZE SELECT * FROM t FOR UPDATE", "Explain Write | of t!"),
        ("EXPLAIN ANALYZE EXECUTE p(1)", "Explain Unknown Lexed | calls p | effects prepare unknown-calls"),
        ("EXPLAIN ANALYZE CREATE TABLE n AS SELECT 1", "Explain Write | of n! | effects ddl"),
        ("CALL p(1)", "Call Write | calls p | effects outside unknown-calls | object p"),
        ("DO $$BEGIN DELETE FROM t; END$$", "Do Write | effects outside unknown-calls"),
        ("COPY t FROM STDIN", "CopyIn Write | of t!"),
        ("COPY s.t (a, b) FROM STDIN WITH (FORMAT csv)", "CopyIn Write | of s.t!"),
        ("COPY t TO STDOUT", "CopyOut Read | of t"),
        ("COPY t TO '/tmp/x'", "CopyOut Write | of t!"),
        ("COPY t TO PROGRAM 'cat'", "CopyOut Write | of t!"),
        ("COPY (SELECT f(a) FROM t WHERE k = 1) TO STDOUT", "CopyOut Read | of t | calls f | where 0.k=<1>"),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "CopyOut Write | of t!"),
        ("COPY (SELECT 1) TO '/tmp/x'", "CopyOut Write"),
        ("NOTIFY c, 'x'", "Notify Write | object c"),
        ("LOCK TABLE t, ONLY s.u IN SHARE MODE", "Lock Write | of t! s.u!"),
        ("TRUNCATE TABLE a, b CASCADE", "Ddl Write | of a! b!"),
        ("VACUUM t", "Maintenance Write | effects outside"),
        ("ANALYZE", "Maintenance Write"),
        ("REFRESH MATERIALIZED VIEW v", "Maintenance Write | effects unknown-calls"),
        ("CREATE TABLE n (a int)", "Ddl Write | of n! | effects ddl"),
        ("CREATE TEMP TABLE n (a int)", "Ddl Write | of n! | effects temporary ddl"),
        ("CREATE TABLE n AS SELECT f(a) FROM t", "Ddl Write | of n! t | calls f | effects ddl"),
        ("CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1", "Ddl Write | of v! | effects temporary ddl"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "Ddl Write | of t! | effects outside ddl"),
        ("CREATE DATABASE d", "Ddl Write | effects outside ddl"),
        ("DROP TABLE t", "Ddl Write | effects ddl"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "Ddl Write Lexed | effects outside ddl"),
        ("GRANT SELECT ON t TO u", "Ddl Write | effects ddl"),
        ("frobnicate the table", "Other Unknown Lexed | effects opaque unknown-calls"),
    ]);
}

#[test]
fn several_statements() {
    check(&[
        ("SELECT 1; DELETE FROM t; SELECT 2", "Select Read ;; Delete Write | of t! ;; Select Read"),
        ("BEGIN; SELECT 1; COMMIT", "Begin Read | transaction whole ;; Select Read ;; Commit Read | transaction whole"),
        ("SELECT ';'; SELECT \";\" FROM t -- ; DELETE FROM t\n;/* ; */", "Select Read ;; Select Read | of t"),
        ("SELECT $$;$$; SELECT $a$ ; $$ ; $a$", "Select Read ;; Select Read"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END; SELECT 2",
            "Ddl Write Lexed | effects ddl opaque ;; Select Read",
        ),
        (
            "CREATE OR REPLACE FUNCTION f(begin atomic) RETURNS int AS 'SELECT 1'; SET a = 1",
            "Ddl Write | effects ddl ;; Set Read | effects settings | settings a",
        ),
        (
            "CREATE VIEW function AS SELECT begin atomic FROM t; SET a = 1",
            "Ddl Write | of function! t | effects ddl ;; Set Read | effects settings | settings a",
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case, t.end FROM t; END; SET a = 1",
            "Ddl Write Lexed | effects ddl opaque ;; Set Read | effects settings | settings a",
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v); SELECT 1",
            "Ddl Write Lexed | effects ddl ;; Select Read",
        ),
        (
            "SELECT 1; frob; SELECT 2",
            "Select Read ;; Other Unknown Lexed | effects opaque unknown-calls ;; Select Read",
        ),
    ]);
    assert_eq!(analyze("SELECT 1; DELETE FROM t").shape.access, Access::Write);
    assert_eq!(analyze("SELECT 1; frob").shape.access, Access::Unknown);
    assert_eq!(analyze("").shape.access, Access::Read);
}

#[test]
fn equalities() {
    check(&[
        ("SELECT 1 FROM t WHERE k = 5 AND (j = 'x' AND (i = $2))", "Select Read | of t | where 0.k=5 0.j='x' 0.i=$2"),
        ("SELECT 1 FROM t WHERE 5 = k", "Select Read | of t | where 0.k=5"),
        ("SELECT 1 FROM t WHERE K = 5 AND \"K\" = 6", "Select Read | of t | where 0.k=5 0.K=6"),
        ("SELECT 1 FROM t WHERE k = 5 OR j = 6", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE NOT k = 5", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE NOT (k = 5 AND j = 6)", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE (k = 5) IS NOT TRUE", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 5 IS NULL", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k IN (5)", "Select Read | of t | where 0.k=5"),
        ("SELECT 1 FROM t WHERE k IN (5, 6)", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k NOT IN (5)", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE (k, j) = (5, 6)", "Select Read | of t | where 0.k=5 0.j=6"),
        ("SELECT 1 FROM t WHERE k = -5", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = - 5 AND j = +5", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 5 + 1", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 5 || 'x'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = '5'::int", "Select Read | of t | where 0.k='5'"),
        ("SELECT 1 FROM t WHERE k = 5::bigint", "Select Read | of t | where 0.k=5"),
        ("SELECT 1 FROM t WHERE k = CAST($1 AS uuid)", "Select Read | of t | where 0.k=$1"),
        ("SELECT 1 FROM t WHERE k = 5.7::int", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 'abc'::varchar(2)", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 'abc'::char", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = DATE '2020-01-01'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = INTERVAL '1 day'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k::text = '5'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE lower(k) = 'x'", "Select Read | of t | calls lower"),
        ("SELECT 1 FROM t WHERE k = TRUE AND j = NULL", "Select Read | of t | where 0.k=<true> 0.j=<null>"),
        ("SELECT 1 FROM t WHERE current_user = 'x'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = E'a\\'b' AND j = $q$x'y$q$", "Select Read | of t | where 0.k='a'b' 0.j='x'y'"),
        ("SELECT 1 FROM t WHERE k = 'a'\n  'b'", "Select Read | of t | where 0.k='ab'"),
        ("SELECT 1 FROM t WHERE k = U&'\\0041' AND j = B'01' AND i = X'1F' AND h = N'x'", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 0x1F AND j = 1_000", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = 1.5e3", "Select Read | of t | where 0.k=1.5e3"),
        ("SELECT 1 FROM t WHERE k = ANY('{5}')", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE k = (SELECT 5)", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE CASE WHEN k = 5 THEN true END", "Select Read | of t"),
        ("SELECT 1 FROM t WHERE coalesce(k = 5, true)", "Select Read | of t"),
        ("SELECT 1 FROM t HAVING k = 5", "Select Read | of t"),
        ("SELECT k = 5 FROM t", "Select Read | of t"),
        // Whose column it is.
        ("SELECT 1 FROM a, b WHERE k = 5", "Select Read | of a b | where ?.k=5"),
        ("SELECT 1 FROM a x, b AS y WHERE y.k = 5 AND x.k = 6", "Select Read | of a b | where 1.k=5 0.k=6"),
        ("SELECT 1 FROM a x WHERE a.k = 5", "Select Read | of a"),
        ("SELECT 1 FROM s.a WHERE a.k = 5 AND s.a.j = 6", "Select Read | of s.a | where 0.k=5 0.j=6"),
        ("SELECT 1 FROM s.a, u.a WHERE a.k = 5", "Select Read | of s.a u.a"),
        ("SELECT 1 FROM a AS x (p, q) WHERE p = 5 AND x.q = 6", "Select Read | of a"),
        ("SELECT 1 FROM (SELECT 5 AS k FROM t) d WHERE k = 5", "Select Read | of t"),
        ("SELECT 1 FROM (SELECT * FROM t WHERE k = 5) d", "Select Read | of t | where 0.k=5"),
        ("SELECT 1 FROM a, f() WHERE k = 5", "Select Read | of a | calls f"),
        // Joins.
        ("SELECT 1 FROM a JOIN b ON a.i = b.i AND b.k = 5", "Select Read | of a b | where 1.k=5"),
        ("SELECT 1 FROM a INNER JOIN b ON a.k = 5 WHERE b.k = 5", "Select Read | of a b | where 0.k=5 1.k=5"),
        ("SELECT 1 FROM a LEFT JOIN b ON a.k = 5", "Select Read | of a b"),
        ("SELECT 1 FROM a RIGHT JOIN b ON b.k = 5", "Select Read | of a b"),
        ("SELECT 1 FROM a FULL JOIN b ON a.k = 5 AND b.k = 5", "Select Read | of a b"),
        ("SELECT 1 FROM a LEFT JOIN b ON a.i = b.i WHERE a.k = 5", "Select Read | of a b | where 0.k=5"),
        ("SELECT 1 FROM a CROSS JOIN b WHERE b.k = 5", "Select Read | of a b | where 1.k=5"),
        ("SELECT 1 FROM a JOIN (b JOIN c ON c.k = 5) ON a.i = b.i", "Select Read | of a b c | where 2.k=5"),
        // Set operations and subqueries.
        ("SELECT 1 FROM a WHERE k = 5 UNION SELECT 1 FROM b", "Select Read | of a b"),
        ("SELECT 1 FROM a WHERE k = 5 UNION ALL SELECT 1 FROM a WHERE k = 5", "Select Read | of a a"),
        ("(SELECT 1 FROM a WHERE k = 5) EXCEPT SELECT 1 FROM b", "Select Read | of a b"),
        ("SELECT 1 FROM a WHERE k = 5 AND EXISTS (SELECT 1 FROM b WHERE k = 6)", "Select Read | of a b | where 0.k=5"),
        (
            "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = 6 AND a.k = 5)",
            "Select Read | of a b | where 1.k=6",
        ),
        ("WITH x AS (SELECT * FROM a WHERE k = 5) SELECT * FROM x WHERE j = 6", "Select Read | of a | where 0.k=5"),
        // Writes.
        ("INSERT INTO t (k, v) VALUES (5, 'x')", "Insert Write | of t! | where 0.k=5 0.v='x'"),
        ("INSERT INTO t (k, v) VALUES (5, f()), (6, 'x')", "Insert Write | of t! | calls f | where 0.k=5 0.k=6"),
        ("INSERT INTO t (k) VALUES (DEFAULT), (5)", "Insert Write | of t!"),
        ("INSERT INTO t (k) VALUES ($1), ($2)", "Insert Write | of t! | where 0.k=$1 0.k=$2"),
        ("INSERT INTO t VALUES (5)", "Insert Write | of t!"),
        ("INSERT INTO t (k) VALUES (-5)", "Insert Write | of t!"),
        (
            "INSERT INTO t (k, v) VALUES (5, 1) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
            "Insert Write | of t! | where 0.k=5 0.v=1",
        ),
        (
            "INSERT INTO t (k, v) VALUES (5, 1) ON CONFLICT (v) DO UPDATE SET k = t.k + 1",
            "Insert Write | of t! | where 0.v=1",
        ),
        ("UPDATE t SET a = 1 WHERE k = 5", "Update Write | of t! | where 0.k=5"),
        ("UPDATE t SET k = 6 WHERE k = 5", "Update Write | of t! | where 0.k=5 0.k=6"),
        ("UPDATE t SET k = k + 1 WHERE k = 5", "Update Write | of t!"),
        ("UPDATE t SET (k, a) = (SELECT 1, 2) WHERE k = 5", "Update Write | of t!"),
        ("UPDATE t SET a = 1 FROM u WHERE u.k = 5 AND t.k = u.k", "Update Write | of t! u | where 1.k=5"),
        ("DELETE FROM t WHERE k = 5", "Delete Write | of t! | where 0.k=5"),
        ("DELETE FROM t AS x WHERE x.k = 5", "Delete Write | of t! | where 0.k=5"),
    ]);
}

#[test]
fn session_state() {
    check(&[
        ("SET work_mem = '1MB'", "Set Read | effects settings | settings work_mem"),
        ("SET SESSION work_mem TO 4096", "Set Read | effects settings | settings work_mem"),
        ("SET LOCAL work_mem TO 4096", "Set Read | effects local | settings work_mem"),
        ("SET \"Work_Mem\" = 1", "Set Read | effects settings | settings work_mem"),
        ("SET app.Tenant = 'x'", "Set Read | effects settings | settings app.tenant"),
        ("SET TIME ZONE 'UTC'", "Set Read | effects settings | settings timezone"),
        ("SET LOCAL TIME ZONE LOCAL", "Set Read | effects local | settings timezone"),
        ("SET ROLE r", "Set Read | effects settings | settings role"),
        ("SET SESSION AUTHORIZATION r", "Set Read | effects settings | settings session_authorization"),
        ("SET LOCAL SESSION AUTHORIZATION r", "Set Read | effects local | settings session_authorization"),
        ("SET NAMES 'UTF8'", "Set Read | effects settings | settings client_encoding"),
        ("SET SCHEMA 'x'", "Set Read | effects settings | settings search_path"),
        ("SET search_path = a, pg_temp", "Set Read | effects settings temporary | settings search_path"),
        ("RESET ALL", "Reset Read | effects settings all-settings"),
        ("RESET ROLE", "Reset Read | effects settings | settings role"),
        ("RESET SESSION AUTHORIZATION", "Reset Read | effects settings | settings session_authorization"),
        ("SHOW search_path", "Show Read | effects node | object search_path"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "Show Read | effects node | object transaction_isolation"),
        ("SELECT set_config('a.b', 'x', false)", "Select Read | calls set_config | effects settings | settings a.b"),
        ("SELECT set_config('role', $1, TRUE)", "Select Read | calls set_config | effects local | settings role"),
        (
            "SELECT set_config($1, 'x', false), set_config($2::text, 'x', true)",
            "Select Read | calls set_config | effects settings all-settings local | named by $1 $2",
        ),
        (
            "SELECT set_config('a' || 'b', 'x', false)",
            "Select Read | calls set_config | effects settings all-settings computed-setting",
        ),
        (
            "SELECT set_config($1 || 'b', 'x', false)",
            "Select Read | calls set_config | effects settings all-settings computed-setting",
        ),
        (
            "SELECT set_config(U&'a.b', 'x', false)",
            "Select Read | calls set_config | effects settings all-settings computed-setting",
        ),
        (
            "SELECT set_config(k, 'x', true) FROM t",
            "Select Read | of t | calls set_config | effects all-settings local",
        ),
        ("SELECT setseed(0.5)", "Select Read | calls setseed | effects settings | settings seed"),
        ("SELECT set_config('a.b', 'x', $1)", "Select Read | calls set_config | effects settings local | settings a.b"),
        (
            "SELECT \"set_config\"('a.b', 'x', false)",
            "Select Read | calls set_config | effects settings | settings a.b",
        ),
        (
            "SELECT set_config/**/('a.b', f(1, 2), false)",
            "Select Read | calls set_config f | effects settings | settings a.b",
        ),
        ("SELECT current_setting('app.tenant')", "Select Read | calls current_setting"),
        ("SELECT current_setting('transaction_read_only')", "Select Read | calls current_setting | effects node"),
        ("SELECT current_setting($1)", "Select Read | calls current_setting | effects node"),
        (
            "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
            "Update Write | of pg_settings! | where 0.name='y' | effects settings all-settings node",
        ),
        (
            "WITH a AS (SELECT 1) UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
            "Update Write | of pg_settings! | where 0.name='y' | effects settings all-settings node",
        ),
        ("SELECT nextval('s'), currval('s')", "Select Read | calls nextval currval | effects sequence"),
        ("SELECT lastval()", "Select Read | calls lastval | effects sequence"),
        ("SELECT pg_advisory_lock(1)", "Select Read | calls pg_advisory_lock | effects advisory node"),
        (
            "SELECT pg_catalog.pg_try_advisory_lock(1)",
            "Select Read | calls pg_catalog.pg_try_advisory_lock | effects advisory node",
        ),
        ("SELECT pg_advisory_xact_lock(1)", "Select Read | calls pg_advisory_xact_lock | effects node"),
        ("SELECT * FROM pg_stat_activity", "Select Read | of pg_stat_activity | effects node"),
        ("SELECT * FROM pg_catalog.pg_locks", "Select Read | of pg_catalog.pg_locks | effects node"),
        ("SELECT pg_is_in_recovery()", "Select Read | calls pg_is_in_recovery | effects node"),
        ("SELECT * FROM pg_temp.t", "Select Read | of pg_temp.t | effects temporary"),
        ("SELECT pg_temp.f()", "Select Read | calls pg_temp.f | effects temporary"),
        ("LISTEN \"Chan\"", "Listen Write | effects listen | object Chan"),
        ("UNLISTEN *", "Unlisten Read | effects unlisten | object *"),
        ("UNLISTEN c", "Unlisten Read | effects unlisten | object c"),
        ("LOAD 'auto_explain'", "Load Read | effects load"),
        (
            "PREPARE p AS SELECT * FROM t WHERE k = $1",
            "Prepare Read | of t | where 0.k=$1 | effects prepare | object p",
        ),
        ("PREPARE p (int, text) AS INSERT INTO t VALUES ($1)", "Prepare Write | of t! | effects prepare | object p"),
        ("EXECUTE p(1)", "Execute Unknown Lexed | calls p | effects prepare unknown-calls | object p"),
        ("DEALLOCATE p", "Deallocate Read | effects prepare | object p"),
        ("DEALLOCATE PREPARE ALL", "Deallocate Read | effects prepare drops-prepared | object all"),
        ("DEALLOCATE \"all\"", "Deallocate Read | effects prepare | object all"),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "Declare Read | of t | object c"),
        ("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1", "Declare Read | effects hold | object c"),
        ("DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE", "Declare Write | of t! | object c"),
        ("FETCH 10 FROM c", "Fetch Read | object c"),
        ("MOVE FORWARD ALL IN c", "Fetch Read | object c"),
        ("CLOSE ALL", "Close Read | object all"),
        (
            "DISCARD ALL",
            "Discard Read | effects settings all-settings drops-prepared outside unlisten discard-all | object all",
        ),
        ("DISCARD PLANS", "Discard Read | object plans"),
        ("DISCARD TEMP", "Discard Read | effects temporary | object temp"),
    ]);
}

#[test]
fn transactions() {
    check(&[
        ("BEGIN", "Begin Read | transaction whole"),
        ("begin work", "Begin Read | transaction whole"),
        ("START TRANSACTION READ ONLY", "Begin Read | transaction read-only whole"),
        ("START READ ONLY", "Begin Read | transaction read-only part"),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE, NOT DEFERRABLE",
            "Begin Read | transaction read-write serializable whole",
        ),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "Begin Read | transaction read-only weaker whole"),
        ("BEGIN READ ONLY,", "Begin Read | transaction read-only part"),
        ("BEGIN READ", "Begin Read | transaction part"),
        ("BEGIN FROB", "Begin Read | transaction part"),
        ("COMMIT", "Commit Read | transaction whole"),
        ("END TRANSACTION", "Commit Read | transaction whole"),
        ("COMMIT AND CHAIN", "Commit Read | transaction chain whole"),
        ("ROLLBACK WORK AND NO CHAIN", "Rollback Read | transaction whole"),
        ("ABORT", "Rollback Read | transaction whole"),
        ("ROLLBACK TO SAVEPOINT s", "RollbackTo Read | object s | transaction whole"),
        ("ROLLBACK TRANSACTION TO \"S\"", "RollbackTo Read | object S | transaction whole"),
        ("SAVEPOINT s", "Savepoint Read | object s | transaction whole"),
        ("RELEASE SAVEPOINT s", "Release Read | object s | transaction whole"),
        ("RELEASE s", "Release Read | object s | transaction whole"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SetTransaction Read | transaction serializable whole"),
        ("SET TRANSACTION SNAPSHOT '000'", "SetTransaction Read | transaction part"),
        ("SET CONSTRAINTS ALL DEFERRED", "SetConstraints Read"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "Set Read | effects settings | settings default_transaction_isolation default_transaction_read_only \
             default_transaction_deferrable | transaction read-only whole",
        ),
        ("PREPARE TRANSACTION 'x'", "PrepareTransaction Write"),
        ("COMMIT PREPARED 'x'", "FinishPrepared Write | effects outside"),
        ("BEGIN /* pointsman: shard=3 */", "Begin Read | hints shard=3 | transaction whole"),
    ]);
}

#[test]
fn what_the_grammar_does_not_take_is_never_a_read() {
    check(&[
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", "Update Write Lexed"),
        ("UPDATE t SET a[1] = 2 WHERE k = 5", "Update Write Lexed"),
        ("SELECT * FROM person*", "Select Unknown Lexed"),
        ("SELECT * FROM frob frob frob (frob)", "Select Unknown Lexed | calls frob"),
        ("TABLE t", "Select Unknown Lexed"),
        ("SELECT U&\"d\\0061t\" FROM t", "Select Unknown Lexed | effects unknown-calls"),
        ("SELECT 'unterminated", "Select Unknown Nothing | effects opaque unknown-calls"),
        ("SELECT \"unterminated", "Select Unknown Nothing | effects opaque unknown-calls"),
        ("SELECT $a$ unterminated $b$", "Select Unknown Nothing | effects opaque unknown-calls"),
        ("SELECT 1 /* unterminated /* */", "Select Unknown Nothing | effects opaque unknown-calls"),
        ("SELECT 1 {", "Select Unknown Nothing | effects opaque unknown-calls"),
        // PostgreSQL 14 reads 1 AS into … as SELECT 1 INTO n.
        ("SELECT 1into n", "Select Write | of n! | effects ddl"),
    ]);
}

#[test]
fn hints_are_facts() {
    check(&[
        ("/* pointsman: node=a */ SELECT 1", "Select Read | hints node=a"),
        ("SELECT 1 /*action='x%2Fy',traceparent='00-1'*/", "Select Read | hints action=x/y"),
        ("SELECT 1; /*a='b'*/", "Select Read | hints a=b"),
        ("SELECT 1; /*a='b'*/ SELECT 2", "Select Read ;; Select Read | hints a=b"),
        ("SELECT 1 -- pointsman: node=a", "Select Read"),
    ]);
}

#[test]
fn backslashes_and_encodings() {
    let analyzer = Analyzer::new(1 << 20);
    let legacy = TextContext { standard_conforming_strings: false, ..TextContext::default() };
    let text = br"SELECT 1 FROM t WHERE k = 'a\' OR 1=1; DELETE FROM t --'";
    assert_eq!(analyzer.analyze(text, TextContext::default()).shape.statements.len(), 2);
    let read = analyzer.analyze(text, legacy);
    assert_eq!(read.shape.statements.len(), 1);
    assert_eq!(read.literal(text, 1), Some(Literal::String("a' OR 1=1; DELETE FROM t --".into())));

    let opaque = Effects::OPAQUE | Effects::CALLS_UNKNOWN | Effects::RUNS_TEXT;
    for (text, context) in [
        (&b"SELECT '\xff'"[..], TextContext::default()),
        (&b"SELECT 1"[..], TextContext::new(true, "SJIS")),
        (&b"SELECT 1"[..], TextContext::new(true, "gb18030")),
        (&b"SELECT 1"[..], TextContext::new(true, "Shift_JIS_2004")),
    ] {
        let shape = analyzer.analyze(text, context).shape;
        assert_eq!((shape.access, shape.effects), (Access::Unknown, opaque));
        assert_eq!(shape.statements[0].understood, Understood::Nothing);
    }
    // A bad byte in a dropped literal must not spoil the form for others.
    assert_eq!(analyzer.analyze(b"SELECT 'x'", TextContext::default()).shape.access, Access::Read);
    for name in ["UTF8", "utf-8", "LATIN1", "EUC_JP", "SQL_ASCII"] {
        assert!(TextContext::new(true, name).safe_encoding, "{name}");
    }
}
