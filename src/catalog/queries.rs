//! What to ask a server, and the rows that come back. No I/O: whoever has a connection asks.
//!
//! Invariant: both queries run on PostgreSQL 13 to 18 as any user, read catalogues only, and name every object with its
//! schema, so that the session's search path does not matter.

/// One row of [`FUNCTIONS_SQL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// `pg_namespace.nspname`.
    pub schema: String,
    /// `pg_proc.proname`.
    pub name: String,
    /// The volatilities of all overloads, each of `i`, `s`, `v` at most once, in any order.
    pub volatility: String,
}

/// One row of [`RELATIONS_SQL`]: a fact that makes a relation more than a plain table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationRow {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `pg_namespace.nspname`.
    pub schema: String,
    /// `pg_class.relname`.
    pub name: String,
    /// `f`: reading it calls the volatile function whose schema and name, with a dot between, are in `detail`;
    /// `u`: unlogged; `e`: foreign; `n`: a view of PostgreSQL's own; `v`: reading it reads the relation whose oid is in
    /// `detail` (a view's table, a parent's child). Others are ignored.
    pub fact: char,
    /// See `fact`; empty where it needs none.
    pub detail: String,
}

/// Query for [`FunctionRow`]s: three columns of text. An aggregate is as volatile as what it is made of.
pub const FUNCTIONS_SQL: &str = "\
SELECT n.nspname::text, f.proname::text, string_agg(DISTINCT f.volatility, '')
FROM (
  SELECT p.pronamespace, p.proname,
    CASE WHEN a.aggfnoid IS NULL THEN p.provolatile::text
      WHEN EXISTS (SELECT FROM pg_catalog.pg_proc s WHERE s.provolatile = 'v' AND s.oid IN (a.aggtransfn, a.aggfinalfn,
        a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)) THEN 'v'
      ELSE 's' END AS volatility
  FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid OPERATOR(pg_catalog.=) p.oid
) f JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
GROUP BY 1, 2";

/// Query for [`RelationRow`]s: five columns of text. Functions, and those behind operators and aggregates, are found in
/// the node trees of rewrite rules and of row security policies.
pub const RELATIONS_SQL: &str = "\
WITH trees AS (
  SELECT r.ev_class AS oid, r.ev_action::text AS tree FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    WHERE r.ev_type = '1' AND v.relkind = 'v' AND v.oid >= 16384
  UNION ALL
  SELECT p.polrelid, p.polqual::text FROM pg_catalog.pg_policy p WHERE p.polqual IS NOT NULL
), facts AS (
  SELECT DISTINCT t.oid, 'f' AS fact, n.nspname || '.' || p.proname AS detail
    FROM trees t
    CROSS JOIN LATERAL pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
    JOIN pg_catalog.pg_proc p ON p.oid = m[1]::pg_catalog.oid AND p.provolatile = 'v'
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  UNION ALL
  SELECT c.oid, CASE WHEN c.relkind = 'f' THEN 'e' WHEN c.relkind = 'v' THEN 'n' ELSE 'u' END, ''
    FROM pg_catalog.pg_class c
    WHERE c.relkind = 'f' OR c.relpersistence = 'u' AND c.relkind IN ('r', 'm', 'p', 'S')
      OR c.relkind = 'v' AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
  UNION ALL
  SELECT DISTINCT r.ev_class, 'v', d.refobjid::text
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND r.ev_type = '1' AND v.relkind = 'v' AND v.oid >= 16384 AND d.refobjid <> r.ev_class
  UNION ALL
  SELECT i.inhparent, 'v', i.inhrelid::text FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent WHERE p.relkind IN ('r', 'p', 'f')
)
SELECT f.oid::text, n.nspname::text, c.relname::text, f.fact, f.detail
FROM facts f JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
