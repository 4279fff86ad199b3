//! What to ask a server, and the rows that come back. No I/O: whoever has a connection asks.
//!
//! Invariant: the queries run on PostgreSQL 13 to 18 as any user, read catalogues only, and are asked where
//! nothing stands ahead of `pg_catalog` in the search path. An object is PostgreSQL's own below oid 16384
//! (`FirstNormalObjectId` in `transam.h`).

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

/// One row of [`RELATIONS_SQL`]: a fact about a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationRow {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `pg_namespace.nspname`.
    pub schema: String,
    /// `pg_class.relname`.
    pub name: String,
    /// `f`: reading it calls the function in `detail`; `t`: writing it does; `u`: unlogged, or a sequence, of which a
    /// standby has what was logged ahead (`SEQ_LOG_VALS` in `sequence.c`); `e`: foreign; `n`: a view of PostgreSQL's own; `m`: reading it locks rows; `v`: reading it reads the relation whose oid is in `detail` (a view's
    /// table, a parent's child); `w`: writing it reads or writes that relation; `p`: nothing to say, it is there. Others
    /// are ignored.
    pub fact: char,
    /// See `fact`; empty where it needs none. A function is the oid of a user's or the name of one of PostgreSQL's.
    pub detail: String,
}

/// One row of [`DEFINITIONS_SQL`]: a function of a user's, or a way to call one without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRow {
    /// `f`: a function; `o`: an operator; `c`: an explicit cast to a type; `y`: a value becoming of a type (a domain's
    /// checks); `i`: an implicit cast; `a`: a cast on assignment; `e`: an event trigger. Others are ignored.
    pub kind: char,
    /// `pg_proc.oid` for `f`, 0 otherwise.
    pub oid: u32,
    /// `pg_namespace.nspname` for `f`, empty otherwise.
    pub schema: String,
    /// `pg_proc.proname`; the operator's or the type's name; empty where there is none.
    pub name: String,
    /// For `f`, letters: the volatility (`i`, `s`, `v`); `c` where it is written in C; `x` where its source tells nothing
    /// (other languages, too much source); `p` where it may keep state in the process: in C and of no extension, or in a
    /// language whose dictionary for a session's functions it names; `a` where it has the name of a function that takes an advisory
    /// lock, in a string or not; `g` where it has SET clauses; `r` where it takes one row, and so may be called as that
    /// row's attribute. Otherwise the function that is called, as in [`RelationRow::detail`].
    pub detail: String,
    /// For `f`, with neither `c` nor `x`: its arguments, its result, a SET LOCAL for each SET clause (the value is not told) and its body, with
    /// semicolons between.
    pub source: String,
}

/// Query for [`FunctionRow`]s: three columns of text. PostgreSQL's own only. An aggregate is as volatile as what it is
/// made of.
pub const FUNCTIONS_SQL: &str = "\
SELECT n.nspname::text, f.proname::text, string_agg(DISTINCT f.volatility, '')
FROM (
  SELECT p.pronamespace, p.proname,
    CASE WHEN a.aggfnoid IS NULL THEN p.provolatile::text
      WHEN EXISTS (SELECT FROM pg_catalog.pg_proc s WHERE s.provolatile = 'v' AND s.oid IN (a.aggtransfn, a.aggfinalfn,
        a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)) THEN 'v'
      ELSE 's' END AS volatility
  FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid OPERATOR(pg_catalog.=) p.oid
  WHERE p.oid OPERATOR(pg_catalog.<) 16384
) f JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
GROUP BY 1, 2";

/// Common table expressions: `matters(func, callee)` has the functions whose call can be more than nothing and how a row
/// names them, `edges(parent, child)` what types are made of, `typed(typ, func)` the functions that run when a value
/// becomes of a type.
macro_rules! types {
    () => {
        "\
WITH RECURSIVE matters AS (
  SELECT p.oid AS func, CASE WHEN p.oid < 16384 THEN p.proname::text ELSE p.oid::text END AS callee
    FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 OR p.provolatile = 'v'
      OR p.proname ~ '^((query|cursor|table|schema|database)_to_xml|ts_stat|ts_rewrite|txid_current|pg_current_xact_id)'
), edges AS (
  SELECT t.oid AS parent, t.typbasetype AS child FROM pg_catalog.pg_type t WHERE t.typbasetype <> 0
  UNION ALL
  SELECT t.oid, t.typelem FROM pg_catalog.pg_type t WHERE t.typelem >= 16384
  UNION ALL
  SELECT c.reltype, a.atttypid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE a.atttypid >= 16384 AND a.attnum > 0 AND c.reltype <> 0
  UNION ALL
  SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngsubtype >= 16384
), typed AS (
  SELECT d.typ, f.func FROM (
      SELECT c.contypid AS typ, c.conbin::text AS tree FROM pg_catalog.pg_constraint c WHERE c.contypid <> 0
      UNION ALL
      SELECT t.oid, t.typdefaultbin::text FROM pg_catalog.pg_type t WHERE t.typdefaultbin IS NOT NULL
    ) d CROSS JOIN LATERAL pg_catalog.regexp_matches(d.tree, ':(?:funcid|opfuncid) (\\d+)', 'g') m
    JOIN matters f ON f.func = m[1]::pg_catalog.oid
  UNION
  SELECT e.parent, t.func FROM typed t JOIN edges e ON e.child = t.typ
)"
    };
}

/// Query for [`RelationRow`]s: five columns of text. Functions, and those behind operators, casts and aggregates, are found
/// in the node trees of rewrite rules, row security policies, defaults, constraints and indexes. Foreign keys cascade.
pub const RELATIONS_SQL: &str = concat!(
    types!(),
    ", trees AS (
  SELECT r.ev_class AS oid, CASE WHEN r.ev_type = '1' THEN 'f' ELSE 't' END AS fact,
      pg_catalog.concat(r.ev_qual::text, r.ev_action::text) AS tree
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    WHERE (v.relkind = 'v' OR r.ev_type <> '1') AND v.oid >= 16384
  UNION ALL
  SELECT p.polrelid, 'f', p.polqual::text FROM pg_catalog.pg_policy p WHERE p.polqual IS NOT NULL
  UNION ALL
  SELECT p.polrelid, 't', p.polwithcheck::text FROM pg_catalog.pg_policy p WHERE p.polwithcheck IS NOT NULL
  UNION ALL
  SELECT d.adrelid, 't', d.adbin::text FROM pg_catalog.pg_attrdef d
  UNION ALL
  SELECT c.conrelid, 't', c.conbin::text FROM pg_catalog.pg_constraint c WHERE c.conrelid <> 0 AND c.conbin IS NOT NULL
  UNION ALL
  SELECT i.indrelid, 't', pg_catalog.concat(i.indexprs::text, i.indpred::text) FROM pg_catalog.pg_index i
    WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
  UNION ALL
  SELECT p.partrelid, 't', p.partexprs::text FROM pg_catalog.pg_partitioned_table p WHERE p.partexprs IS NOT NULL
  UNION ALL
  SELECT t.tgrelid, 't', t.tgqual::text FROM pg_catalog.pg_trigger t WHERE t.tgqual IS NOT NULL
), called AS (
  SELECT t.oid, t.fact, m[1]::pg_catalog.oid AS func
    FROM trees t CROSS JOIN LATERAL pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
  UNION
  SELECT t.oid, t.fact, y.func
    FROM trees t CROSS JOIN LATERAL pg_catalog.regexp_matches(t.tree, ':resulttype (\\d+)', 'g') m
    JOIN typed y ON y.typ = m[1]::pg_catalog.oid
  UNION
  SELECT t.tgrelid, 't', t.tgfoid FROM pg_catalog.pg_trigger t WHERE t.tgenabled <> 'D'
  UNION
  SELECT a.attrelid, 't', y.func FROM pg_catalog.pg_attribute a JOIN typed y ON y.typ = a.atttypid WHERE a.attnum > 0
), facts AS (
  SELECT c.oid, c.fact, f.callee AS detail FROM called c JOIN matters f ON f.func = c.func
    WHERE c.fact = 'f' OR f.callee NOT LIKE 'RI\\_FKey\\_%'
  UNION ALL
  SELECT DISTINCT a.attrelid, 't', 'nextval' FROM pg_catalog.pg_attribute a WHERE a.attidentity IN ('a', 'd')
  UNION ALL
  SELECT t.oid, 'm', '' FROM trees t WHERE t.fact = 'f' AND t.tree LIKE '%:hasForUpdate true%'
  UNION ALL
  SELECT c.oid, CASE WHEN c.relkind = 'f' THEN 'e' WHEN c.relkind = 'v' THEN 'n' ELSE 'u' END, ''
    FROM pg_catalog.pg_class c
    WHERE c.relkind IN ('f', 'S') OR c.relpersistence = 'u' AND c.relkind IN ('r', 'm', 'p')
      OR c.relkind = 'v' AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
  UNION ALL
  SELECT DISTINCT r.ev_class, k.fact, d.refobjid::text
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
    CROSS JOIN (VALUES ('v'), ('w')) k (fact)
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND (k.fact = 'w' OR r.ev_type = '1') AND (v.relkind = 'v' OR r.ev_type <> '1')
      AND v.oid >= 16384 AND d.refobjid <> r.ev_class
  UNION ALL
  SELECT DISTINCT p.polrelid, 'v', d.refobjid::text
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> p.polrelid
  UNION ALL
  SELECT i.inhparent, k.fact, i.inhrelid::text FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent CROSS JOIN (VALUES ('v'), ('w')) k (fact)
    WHERE p.relkind IN ('r', 'p', 'f')
  UNION ALL
  SELECT DISTINCT c.confrelid, 'w', c.conrelid::text FROM pg_catalog.pg_constraint c
    WHERE c.contype = 'f' AND (c.confdeltype IN ('c', 'n', 'd') OR c.confupdtype IN ('c', 'n', 'd'))
  UNION ALL
  (SELECT c.oid, 'p', '' FROM pg_catalog.pg_class c
    WHERE c.relkind IN ('r', 'p', 'm') AND c.oid >= 16384 AND c.relpersistence = 'p' ORDER BY c.oid LIMIT 10000)
)
SELECT f.oid::text, n.nspname::text, c.relname::text, f.fact, f.detail
FROM facts f JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
);

/// Query for [`DefinitionRow`]s: six columns of text. At most 2 MiB of sources are told, the oldest functions' first.
pub const DEFINITIONS_SQL: &str = concat!(
    types!(),
    ", sized AS (
  SELECT p.*, a.*, l.lanname,
    l.lanname IN ('sql', 'plpgsql') AND pg_catalog.octet_length(p.prosrc) < 65536 AND
      pg_catalog.sum(CASE WHEN l.lanname IN ('sql', 'plpgsql') AND pg_catalog.octet_length(p.prosrc) < 65536
        THEN pg_catalog.octet_length(p.prosrc) + 256 ELSE 0 END) OVER (ORDER BY p.oid) < 2097152 AS told
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
  WHERE p.oid >= 16384
)
SELECT 'f', p.oid::text, n.nspname::text, p.proname::text,
  pg_catalog.concat(p.provolatile,
    CASE WHEN p.prokind = 'a' THEN '' WHEN p.lanname IN ('internal', 'c') THEN 'c'
      WHEN NOT p.told OR p.proconfig::text ~* 'search_path=[\"\\\\ ]*pg_temp' THEN 'x' END,
    CASE WHEN p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1 AND t.typtype NOT IN ('b', 'e', 'r', 'm') THEN 'r' END,
    CASE WHEN p.lanname = 'c' THEN CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e') THEN 'p' END
      WHEN p.lanname NOT IN ('internal', 'sql', 'plpgsql') AND p.prosrc ~ '\\m(_SHARED|[GS]D|globalThis|global|upvar)\\M' THEN 'p' END,
    CASE WHEN p.lanname NOT IN ('internal', 'c') AND p.prosrc ~* 'pg_(try_)?advisory_(xact_)?lock' THEN 'a' END,
    CASE WHEN p.proconfig IS NOT NULL THEN 'g' END),
  CASE WHEN p.prokind = 'a' THEN pg_catalog.concat_ws(' ', p.aggtransfn, p.aggfinalfn, p.aggcombinefn, p.aggserialfn,
      p.aggdeserialfn, p.aggmtransfn, p.aggminvtransfn, p.aggmfinalfn)
    WHEN p.told THEN pg_catalog.concat(pg_catalog.pg_get_function_arguments(p.oid), ';',
      pg_catalog.pg_get_function_result(p.oid), ';',
      (SELECT pg_catalog.string_agg(pg_catalog.concat('SET LOCAL ', pg_catalog.split_part(c, '=', 1), ' = 1;'), '')
        FROM pg_catalog.unnest(p.proconfig) c),
      CASE WHEN p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END)
    ELSE '' END
FROM sized p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
UNION ALL
SELECT 'o', '0', '', o.oprname::text, f.callee, '' FROM pg_catalog.pg_operator o JOIN matters f ON f.func = o.oprcode
  WHERE o.oid >= 16384
UNION ALL
SELECT CASE c.castcontext WHEN 'e' THEN 'c' ELSE c.castcontext::text END, '0', '', t.typname::text, f.callee, ''
  FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.casttarget JOIN matters f ON f.func = c.castfunc
  WHERE c.oid >= 16384
UNION ALL
SELECT DISTINCT 'y', '0', '', t.typname::text, f.callee, ''
  FROM typed y JOIN pg_catalog.pg_type t ON t.oid = y.typ JOIN matters f ON f.func = y.func
UNION ALL
SELECT 'e', '0', '', '', f.callee, '' FROM pg_catalog.pg_event_trigger e JOIN matters f ON f.func = e.evtfoid
  WHERE e.evtenabled <> 'D'"
);

/// Query for one row of one text, or none: a number made of what chooses the types of a statement's parameters, the types of all
/// columns and which functions there are (a function's arguments never change). Temporary relations do not count.
pub const TYPES_SQL: &str = "\
SELECT pg_catalog.sum(t.hash)::text FROM (
  SELECT pg_catalog.hashint8extended((a.attrelid::bigint << 16) + a.attnum, a.atttypid::bigint) AS hash
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND a.attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
  UNION ALL
  SELECT pg_catalog.hashint8extended(p.oid::bigint, 0) FROM pg_catalog.pg_proc p WHERE p.oid >= 16384
) t";
