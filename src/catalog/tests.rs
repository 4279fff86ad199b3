//! Verdicts, with PostgreSQL's own functions and with rows as a server gives them.

use super::*;
use crate::sql::{Analyzer, TextContext};

fn rows() -> (Vec<FunctionRow>, Vec<RelationRow>) {
    let function = |schema: &str, name: &str, volatility: &str| FunctionRow {
        schema: schema.into(),
        name: name.into(),
        volatility: volatility.into(),
    };
    let relation = |oid, schema: &str, name: &str, fact, detail: &str| RelationRow {
        oid,
        schema: schema.into(),
        name: name.into(),
        fact,
        detail: detail.into(),
    };
    let functions = vec![
        function("pg_catalog", "lower", "i"),
        function("pg_catalog", "random", "v"),
        function("pg_catalog", "nextval", "v"),
        function("pg_catalog", "any_value", "i"),
        function("public", "pure", "i"),
        function("public", "log_it", "v"),
        function("a", "mixed", "i"),
        function("b", "mixed", "sv"),
    ];
    let relations = vec![
        relation(1, "public", "logging", 'f', "public.log_it"),
        relation(2, "public", "over", 'v', "1"),
        relation(3, "public", "over_over", 'v', "2"),
        relation(4, "public", "dice", 'f', "pg_catalog.random"),
        relation(5, "public", "counting", 'f', "pg_catalog.nextval"),
        relation(6, "public", "scratch", 'u', ""),
        relation(7, "public", "remote", 'e', ""),
        relation(8, "pg_catalog", "pg_stat_activity", 'n', ""),
        relation(9, "pg_catalog", "pg_tables", 'n', ""),
        relation(10, "public", "who", 'v', "8"),
        relation(11, "public", "parent", 'v', "6"),
        // Round and round must end.
        relation(12, "public", "loop_a", 'v', "13"),
        relation(13, "public", "loop_b", 'v', "12"),
        relation(13, "public", "loop_b", 'u', ""),
    ];
    (functions, relations)
}

fn catalog(generation: u64) -> Catalog {
    let (functions, relations) = rows();
    Catalog::from_rows(generation, functions, relations)
}

#[track_caller]
fn check(catalog: &Catalog, cases: &[(&str, Access, Effects)]) {
    for (text, access, effects) in cases {
        let shape = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default()).shape;
        let verdict = Verdict { access: *access, effects: *effects };
        assert_eq!(catalog.judge(&shape), verdict, "{text}");
        assert_eq!(catalog.judge(&shape), verdict, "{text}, remembered");
    }
}

const NONE: Effects = Effects::NONE;
const CALLS: Effects = Effects::CALLS_UNKNOWN;
const NODE: Effects = Effects::NODE_LOCAL;

#[test]
fn before_a_server_was_asked() {
    check(
        &Catalog::builtin(1),
        &[
            ("SELECT count(*), lower('A'), now() FROM t", Access::Read, NONE),
            ("SELECT random(), gen_random_uuid(), clock_timestamp(), pg_sleep(1)", Access::Read, NONE),
            ("SELECT coalesce(a, 1) FROM generate_series(1, 2) a", Access::Read, NONE),
            ("SELECT pg_catalog.upper('x')", Access::Read, NONE),
            ("SELECT public.upper('x')", Access::Write, CALLS),
            ("SELECT mine()", Access::Write, CALLS),
            ("SELECT nextval('s')", Access::Write, Effects::SEQUENCE),
            ("SELECT setval('s', 1)", Access::Write, Effects::SEQUENCE),
            ("SELECT set_config('a.b', 'c', true)", Access::Write, Effects::LOCAL_SETTINGS),
            ("SELECT setseed(0.5)", Access::Write, Effects::SETTINGS),
            ("SELECT txid_current()", Access::Write, NONE),
            ("SELECT pg_notify('a', 'b')", Access::Write, NONE),
            ("SELECT lo_create(0)", Access::Write, NONE),
            ("SELECT query_to_xml('DELETE FROM t', true, true, '')", Access::Write, CALLS),
            ("SELECT * FROM table_to_xml('t', true, true, '')", Access::Write, CALLS),
            ("SELECT pg_advisory_lock(1)", Access::Write, Effects::ADVISORY_LOCK.with(NODE)),
            ("SELECT pg_is_in_recovery()", Access::Read, NODE),
            ("SELECT * FROM pg_stat_activity", Access::Read, NODE),
            ("SELECT * FROM pg_class", Access::Read, NONE),
            ("SELECT * FROM dblink('DELETE FROM t')", Access::Write, CALLS),
            ("INSERT INTO t VALUES (mine())", Access::Write, CALLS),
            ("SELECT 1; SELECT mine()", Access::Write, CALLS),
            ("SELECT json_arrayagg(1)", Access::Write, CALLS),
            ("", Access::Read, NONE),
        ],
    );
}

#[test]
fn with_a_servers_rows() {
    check(
        &catalog(2),
        &[
            ("SELECT pure(1), lower('x')", Access::Read, NONE),
            ("SELECT log_it(1)", Access::Write, CALLS),
            ("SELECT public.log_it(1)", Access::Write, CALLS),
            ("SELECT mixed(1)", Access::Write, CALLS),
            ("SELECT a.mixed(1)", Access::Read, NONE),
            ("SELECT b.mixed(1)", Access::Write, CALLS),
            ("SELECT nowhere.pure(1)", Access::Write, CALLS),
            ("SELECT json_arrayagg(1)", Access::Read, NONE),
            ("SELECT * FROM plain", Access::Read, NONE),
            ("SELECT * FROM logging", Access::Write, CALLS),
            ("SELECT * FROM over_over", Access::Write, CALLS),
            ("SELECT * FROM elsewhere.logging", Access::Read, NONE),
            ("SELECT * FROM dice", Access::Read, NONE),
            ("SELECT * FROM counting", Access::Write, Effects::SEQUENCE),
            ("SELECT * FROM scratch", Access::Read, NODE),
            ("SELECT * FROM parent", Access::Read, NODE),
            ("SELECT * FROM remote", Access::Read, NODE),
            ("SELECT * FROM who", Access::Read, NODE),
            ("SELECT * FROM pg_tables", Access::Read, NONE),
            ("SELECT * FROM loop_a", Access::Read, NODE),
            ("WITH logging AS (SELECT 1) SELECT * FROM logging", Access::Read, NONE),
        ],
    );
}

#[test]
fn a_new_generation_judges_anew() {
    let shape = Analyzer::new(1 << 20).analyze(b"SELECT pure(1)", TextContext::default()).shape;
    assert_eq!(Catalog::builtin(1).access(&shape), Access::Write);
    assert_eq!(catalog(2).access(&shape), Access::Read);
    assert_eq!(Catalog::builtin(3).access(&shape), Access::Write);
    // Generation 0 and those past the limit are not remembered, and so cannot be mistaken.
    assert_eq!(catalog(0).access(&shape), Access::Read);
    assert_eq!(Catalog::builtin(GENERATION_LIMIT).access(&shape), Access::Write);
    assert_eq!(catalog(4).access(&shape), Access::Read);
}

#[test]
fn a_verdict_survives_packing() {
    for access in [Access::Read, Access::Write, Access::Unknown] {
        for effects in [NONE, CALLS, Effects(u32::MAX >> 6)] {
            let verdict = Verdict { access, effects };
            assert_eq!(unpack(pack(verdict, GENERATION_LIMIT - 1)), verdict);
        }
    }
}
