//! The text of the question about a session's state.
//!
//! Invariant: it is ASCII and names operators, types and all else with their schema: the client's own may stand ahead of
//! PostgreSQL's in the search path, under which it is asked.
//!
//! Deliberately absent: when it is asked, and what an answer means (`state`).

use std::fmt::Write as _;

use super::starts::STARTS_SQL;
use crate::upstream::literal;

/// Asks what pins, and for the settings that statements named; for `all` settings, and for what is set for sessions that begin
/// (`starts`), if need be.
pub(super) fn question(touched: &[Box<str>], all: bool, starts: bool) -> String {
    let mut sql = String::from(PINS_SQL);
    // Writing to a string does not fail.
    if !touched.is_empty() {
        let names: Vec<_> = touched.iter().map(|name| literal(&name.to_ascii_lowercase())).collect();
        let names = names.join(",");
        let _ = write!(sql, "SELECT n, {VALUE_SQL}{NAMED_SQL}{names}]::pg_catalog.text[]) AS n) AS a;");
    }
    if all {
        let _ = write!(sql, "SELECT pg_catalog.lower(name), {VALUE_SQL}{ALL_SQL}SELECT 'role', {VALUE_SQL}{ROLE_SQL}");
    }
    if starts {
        sql.push_str(STARTS_SQL);
    }
    sql
}

/// One column of letters, one for each kind of state that cannot follow, and behind a colon the channels' names, in digits as
/// [`VALUE_SQL`] gives them, unless they are very many. What is temporary, of whatever kind, depends on the
/// temporary schema: that is how PostgreSQL finds it at a session's end (`RemoveTempRelations` in `namespace.c`). That schema itself
/// stays (`s`).
const PINS_SQL: &str = "SELECT pg_catalog.concat(\
CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN CASE WHEN \
EXISTS (SELECT 1 FROM pg_catalog.pg_depend \
WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN 'ts' ELSE 's' END END,\
CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) THEN 'a' END,\
CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'h' END,\
CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_prepared_statements WHERE from_sql) THEN 'p' END,\
(SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.>) 4096 THEN 'l' \
WHEN pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 THEN \
'l:' OPERATOR(pg_catalog.||) pg_catalog.string_agg(pg_catalog.encode(pg_catalog.convert_to(c, \
CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), 'hex'), ',') END FROM pg_catalog.pg_listening_channels() AS c));";

/// The value `v` in digits, which mean the same under every client encoding: in UTF-8, or as it is where the database knows
/// no characters. The smallest first, as long as together they are no more than [`SETTINGS_LIMIT`](super::state::SETTINGS_LIMIT); a dash for the others.
const VALUE_SQL: &str = "CASE WHEN pg_catalog.sum(pg_catalog.octet_length(v)) OVER (ORDER BY pg_catalog.octet_length(v)) \
OPERATOR(pg_catalog.<=) 1048576 THEN pg_catalog.encode(pg_catalog.convert_to(v, \
CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), 'hex') WHEN v IS NOT NULL THEN '-' END, ";

/// Source of the settings that statements named.
const NAMED_SQL: &str = "CASE WHEN n OPERATOR(pg_catalog.=) 'session_authorization' THEN CASE WHEN (v OPERATOR(pg_catalog.=) \
(SELECT a.usename FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())\
::pg_catalog.text) IS NOT TRUE THEN 'changed' END \
ELSE (SELECT s.source FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) n) END \
FROM (SELECT n, pg_catalog.current_setting(n, true) AS v FROM pg_catalog.unnest(ARRAY[";

/// All that the session set and the server's catalogue of settings shows.
const ALL_SQL: &str = "source FROM (SELECT name, source, pg_catalog.current_setting(name) AS v \
FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session') AS a;";
const ROLE_SQL: &str = "NULL FROM (SELECT pg_catalog.current_setting('role') AS v) AS a;";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::qualified::assert_qualified;

    #[test]
    fn a_search_path_changes_nothing() {
        assert_qualified(&question(&["a.b".into(), "c'd".into()], true, true));
    }
}
