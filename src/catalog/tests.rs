//! Verdicts, with PostgreSQL's own functions and with rows as a server gives them.

use super::*;
use crate::sql::{Analyzer, TextContext};

fn function(schema: &str, name: &str, volatility: &str) -> FunctionRow {
    FunctionRow { schema: schema.into(), name: name.into(), volatility: volatility.into() }
}

fn defined(kind: char, oid: u32, name: &str, detail: &str, source: &str) -> DefinitionRow {
    let (schema, name) = name.split_once('.').unwrap_or(("", name));
    DefinitionRow { kind, oid, schema: schema.into(), name: name.into(), detail: detail.into(), source: source.into() }
}

fn relation(oid: u32, schema: &str, name: &str, fact: char, detail: &str) -> RelationRow {
    RelationRow { oid, schema: schema.into(), name: name.into(), fact, detail: detail.into() }
}

/// PostgreSQL's own functions that the tests name.
fn own() -> Vec<FunctionRow> {
    vec![
        function("pg_catalog", "lower", "i"),
        function("pg_catalog", "now", "s"),
        function("pg_catalog", "random", "v"),
        function("pg_catalog", "nextval", "v"),
        function("pg_catalog", "set_config", "v"),
        function("pg_catalog", "pg_notify", "v"),
        function("pg_catalog", "pg_advisory_lock", "v"),
        function("pg_catalog", "pg_advisory_unlock", "v"),
        function("pg_catalog", "pg_advisory_xact_lock", "v"),
        function("pg_catalog", "pg_try_advisory_xact_lock", "v"),
        function("pg_catalog", "any_value", "i"),
    ]
}

fn catalog(generation: u64) -> Catalog {
    let definitions = [
        defined('f', 101, "public.pure", "i", "select $1"),
        defined('f', 102, "public.log_it", "vx", ""),
        defined('f', 103, "a.mixed", "i", ""),
        defined('f', 104, "b.mixed", "vx", ""),
    ];
    let relations = [
        relation(1, "public", "logging", 'f', "102"),
        relation(2, "public", "over", 'v', "1"),
        relation(3, "public", "over_over", 'v', "2"),
        relation(4, "public", "dice", 'f', "random"),
        relation(5, "public", "counting", 'f', "nextval"),
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
    Catalog::from_rows(generation, own(), &definitions, &relations)
}

#[track_caller]
fn check(catalog: &Catalog, cases: &[(&str, Access, Effects)]) {
    for (text, access, effects) in cases {
        let shape = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default()).shape;
        let verdict = Verdict { access: *access, effects: *effects };
        for remembered in [false, true] {
            let mut judged = catalog.judge(&shape, text.as_bytes(), Trust::Current);
            // What it brings counts here.
            judged.effects.0 &= !Effects::RUNS_TEXT.0;
            assert_eq!(judged, verdict, "{text}, remembered: {remembered}");
        }
    }
}

const NONE: Effects = Effects::NONE;
const CALLS: Effects = Effects::CALLS_UNKNOWN;
const DO: Effects = Effects::CALLS_UNKNOWN.with(Effects::OUTSIDE_TRANSACTION);
const RUNS: Effects = Effects::RUNS_UNKNOWN;
const NODE: Effects = Effects::NODE_LOCAL;
const ADVISORY: Effects = Effects::TAKES_ADVISORY;

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
            ("SELECT pg_advisory_lock(1)", Access::Write, Effects::ADVISORY_LOCK.with(ADVISORY).with(NODE)),
            ("SELECT pg_advisory_unlock(1)", Access::Write, Effects::ADVISORY_LOCK.with(NODE)),
            ("SELECT pg_try_advisory_xact_lock(1)", Access::Write, ADVISORY.with(NODE)),
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
            ("SELECT * FROM logging", Access::Write, RUNS),
            ("SELECT * FROM over_over", Access::Write, RUNS),
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
    let text = b"SELECT pure(1)";
    let shape = Analyzer::new(1 << 20).analyze(text, TextContext::default()).shape;
    let access = |catalog: Catalog| catalog.judge(&shape, text, Trust::Current).access;
    assert_eq!(access(Catalog::builtin(1)), Access::Write);
    assert_eq!(access(catalog(2)), Access::Read);
    assert_eq!(access(Catalog::builtin(3)), Access::Write);
    // Generation 0 and those past the limit are not remembered, and so cannot be mistaken.
    assert_eq!(access(catalog(0)), Access::Read);
    assert_eq!(access(Catalog::builtin(GENERATION_LIMIT)), Access::Write);
    assert_eq!(access(catalog(4)), Access::Read);
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

/// Functions, triggers and what else runs without being named: an application's, and a dishonest one's.
fn application() -> Catalog {
    let definitions = [
        defined('f', 101, "public.touch", "v", ";trigger;begin new.updated_at = now(); return new; end"),
        defined('f', 102, "public.audit", "v", ";trigger;begin insert into log values (new.id); return new; end"),
        defined('f', 103, "public.tell", "v", ";trigger;begin perform pg_notify('a', 'b'); return new; end"),
        defined('f', 104, "public.sets", "s", "k text;text;select set_config(k, 'x', false)"),
        defined('f', 105, "public.calls_sets", "i", ";text;select sets('a.b')"),
        defined('f', 106, "public.deep", "s", ";text;begin return calls_sets(); end"),
        defined('f', 107, "public.counts", "s", ";bigint;begin return nextval('s'); end"),
        defined('f', 108, "public.reads", "v", ";bigint;select count(*) from plain"),
        defined('f', 109, "public.listens", "v", ";trigger;begin listen c; return new; end"),
        defined('f', 110, "public.dynamic", "s", ";int;begin execute 'x'; end"),
        defined('f', 111, "public.wr", "vr", "rt;int;update plain set a = 1"),
        defined('f', 112, "public.quiet_attribute", "sr", "plain;int;select 1"),
        defined('f', 113, "public.uuid_generate_v4", "vc", ""),
        defined('f', 114, "public.native", "vc", ""),
        defined('f', 115, "public.native_stable", "sc", ""),
        defined('f', 116, "public.python", "ix", ""),
        defined('f', 117, "public.ping", "s", ";int;select pong()"),
        defined('f', 118, "public.pong", "s", ";int;select ping()"),
        defined('f', 119, "public.reads_view", "s", ";int;select x from setting_view"),
        defined('f', 120, "public.writes_armed", "v", ";int;insert into armed values (1) returning 1"),
        defined('f', 121, "public.row_of", "v", "text;rt;select row(1)::rt"),
        defined('f', 122, "public.uses_operator", "s", ";bool;select 1 === 2"),
        defined('f', 123, "public.attribute", "s", "r rt;int;select r.wr"),
        defined('f', 124, "public.homemade", "vcp", ""),
        defined('f', 125, "public.homemade_stable", "scp", ""),
        defined('f', 127, "public.shares_in_perl", "vxp", ""),
        defined('f', 128, "public.dblink_connect", "vc", ""),
        defined('f', 126, "public.calls_homemade", "v", ";int;select homemade()"),
        defined('f', 129, "public.locks", "s", "int;bool;select pg_try_advisory_xact_lock($1)"),
        defined('f', 130, "public.makes", "v", ";bool;begin execute 'select locks(1)' into x; return x; end"),
        defined(
            'f',
            131,
            "public.makes_all",
            "v",
            ";bool;begin execute format('select %I(1)', 'pg_advisory_lock'); end",
        ),
        defined('f', 132, "public.talks", "v", ";int;begin raise notice 'pg_advisory_lock'; -- locks(1)\n end"),
        defined('f', 133, "public.python_locks", "vxa", ""),
        defined('f', 134, "public.unlocks", "v", ";bool;select pg_advisory_unlock(1)"),
        defined('o', 0, "<#>", "129", ""),
        defined('o', 0, "===", "104", ""),
        defined('o', 0, "<->", "112", ""),
        defined('c', 0, "rt", "121", ""),
        defined('y', 0, "checked", "107", ""),
    ];
    let relations = [
        relation(1, "public", "plain", 'p', ""),
        relation(2, "public", "log", 'p', ""),
        relation(3, "public", "stamped", 't', "101"),
        relation(4, "public", "audited", 't', "102"),
        relation(5, "public", "telling", 't', "103"),
        relation(6, "public", "armed", 't', "109"),
        relation(106, "public", "crafted", 't', "124"),
        relation(7, "public", "setting_view", 'f', "set_config"),
        relation(8, "public", "locking", 'm', ""),
        relation(9, "public", "setting_default", 't', "set_config"),
        relation(10, "public", "partitioned", 'w', "6"),
        relation(10, "public", "partitioned", 'v', "6"),
        relation(11, "public", "keyed", 't', "113"),
        relation(12, "public", "vanished", 't', "999"),
        relation(13, "public", "rt", 'p', ""),
        relation(14, "public", "reader", 'f', "108"),
        relation(15, "public", "locked", 'f', "129"),
        relation(16, "public", "locked_too", 'f', "pg_advisory_xact_lock"),
    ];
    Catalog::from_rows(7, own(), &definitions, &relations)
}

#[test]
fn what_runs_unnamed_is_seen() {
    check(
        &application(),
        &[
            ("INSERT INTO stamped VALUES (1)", Access::Write, NONE),
            ("UPDATE audited SET a = 1", Access::Write, NONE),
            ("DELETE FROM telling", Access::Write, NONE),
            ("INSERT INTO keyed VALUES (1)", Access::Write, NONE),
            ("INSERT INTO plain VALUES (now(), nextval('s'))", Access::Write, Effects::SEQUENCE),
            ("INSERT INTO armed VALUES (1)", Access::Write, RUNS),
            ("COPY armed FROM stdin", Access::Write, RUNS),
            ("SELECT * FROM armed", Access::Read, NONE),
            ("INSERT INTO partitioned VALUES (1)", Access::Write, RUNS),
            ("SELECT * FROM partitioned", Access::Read, NONE),
            ("INSERT INTO setting_default VALUES (1)", Access::Write, RUNS),
            ("INSERT INTO vanished VALUES (1)", Access::Write, RUNS),
            ("SELECT * FROM setting_view", Access::Write, RUNS),
            ("SELECT * FROM locking", Access::Write, NONE),
            ("SELECT * FROM reader", Access::Write, NONE),
            // The grammar does not take it: any of its words may be the table.
            ("UPDATE armed SET a[1] = 2 WHERE CURRENT OF c", Access::Write, RUNS),
            ("UPDATE plain SET a[1] = 2 WHERE CURRENT OF c", Access::Write, NONE),
        ],
    );
}

#[test]
fn functions_are_judged_by_their_sources() {
    check(
        &application(),
        &[
            ("SELECT sets('a.b')", Access::Write, CALLS),
            ("SELECT deep()", Access::Write, CALLS),
            ("SELECT counts()", Access::Write, Effects::SEQUENCE),
            ("SELECT reads()", Access::Write, NONE),
            ("SELECT dynamic()", Access::Write, CALLS),
            ("SELECT python()", Access::Write, CALLS),
            ("SELECT native()", Access::Write, CALLS),
            ("SELECT native_stable()", Access::Read, NONE),
            ("SELECT homemade()", Access::Write, CALLS.with(Effects::PROCESS)),
            ("SELECT homemade_stable()", Access::Read, NONE),
            ("DO 'BEGIN PERFORM Homemade(); END'", Access::Write, DO.with(Effects::PROCESS)),
            ("DO $$ BEGIN PERFORM pg_backup_start('a'); END $$", Access::Write, DO.with(Effects::PROCESS)),
            ("DO $$ BEGIN PERFORM currval('a'); END $$", Access::Write, DO.with(Effects::CURRVAL)),
            ("DO $$ BEGIN PERFORM pure(); END $$", Access::Write, DO),
            ("SELECT shares_in_perl()", Access::Write, CALLS.with(Effects::PROCESS)),
            ("SELECT dblink_connect('a', '')", Access::Write, CALLS.with(Effects::PROCESS).with(NODE)),
            ("SELECT calls_homemade()", Access::Write, CALLS.with(Effects::PROCESS)),
            ("INSERT INTO crafted VALUES (1)", Access::Write, RUNS.with(Effects::PROCESS)),
            ("SELECT * FROM crafted", Access::Read, NONE),
            ("SELECT uuid_generate_v4()", Access::Read, NONE),
            ("SELECT ping()", Access::Read, NONE),
            ("SELECT reads_view()", Access::Write, CALLS),
            ("SELECT writes_armed()", Access::Write, CALLS),
            ("SELECT uses_operator()", Access::Write, CALLS),
            ("SELECT attribute(rt) FROM rt", Access::Write, NONE),
        ],
    );
}

#[test]
fn who_takes_advisory_locks_is_known() {
    let all = ADVISORY.with(NODE);
    check(
        &application(),
        &[
            ("SELECT locks(1)", Access::Write, all),
            ("SELECT makes()", Access::Write, CALLS.with(ADVISORY)),
            ("SELECT makes_all()", Access::Write, CALLS.with(ADVISORY)),
            ("SELECT talks()", Access::Write, NONE),
            ("SELECT python_locks()", Access::Write, CALLS.with(ADVISORY)),
            ("SELECT unlocks()", Access::Write, CALLS.with(NODE)),
            ("SELECT * FROM locked", Access::Write, all),
            ("SELECT * FROM locked_too", Access::Write, all),
            ("SELECT 1 <#> 2", Access::Write, ADVISORY),
            ("DO 'BEGIN PERFORM Locks(1); END'", Access::Write, DO.with(ADVISORY)),
            ("DO 'BEGIN PERFORM pg_advisory_unlock(1); END'", Access::Write, DO),
            ("SELECT dynamic('LOCKS(1)')", Access::Write, CALLS.with(ADVISORY)),
            ("SELECT python() || 'homemade'", Access::Write, CALLS.with(Effects::PROCESS)),
            ("SELECT talks(), 'locks'", Access::Write, NONE),
            ("SELECT U&\"l\\006fcks\"(1)", Access::Write, CALLS.with(RUNS).with(all)),
            ("EXECUTE p('locks')", Access::Write, CALLS.with(Effects::SQL_PREPARE).with(ADVISORY)),
            ("SELECT schema_to_xml('public', true, true, '')", Access::Write, CALLS.with(ADVISORY)),
        ],
    );
}

#[test]
fn operators_casts_and_attributes_are_found_in_the_text() {
    check(
        &application(),
        &[
            ("SELECT 1 === 2", Access::Write, RUNS),
            ("SELECT 1 OPERATOR(public.===) 2", Access::Write, RUNS),
            ("SELECT 1 <-> 2, 1 = 2", Access::Read, NONE),
            ("SELECT rt.wr FROM rt", Access::Write, NONE),
            ("SELECT (rt).wr FROM rt", Access::Write, NONE),
            ("SELECT wr FROM rt", Access::Read, NONE),
            ("SELECT rt.quiet_attribute FROM rt", Access::Read, NONE),
            ("SELECT 'a'::text::public.rt", Access::Write, NONE),
            ("SELECT CAST(a AS rt) FROM plain", Access::Write, NONE),
            ("SELECT * FROM rt", Access::Read, NONE),
            ("SELECT '1'::checked", Access::Write, NONE),
            ("SELECT checked '1'", Access::Write, NONE),
            ("SELECT 1", Access::Read, NONE),
        ],
    );
    let everywhere = |kind, name: &str| {
        let definitions =
            [defined('f', 104, "public.sets", "s", ";;select set_config()"), defined(kind, 0, name, "104", "")];
        Catalog::from_rows(8, own(), &definitions, &[])
    };
    let both = [("SELECT 1", Access::Write, RUNS), ("INSERT INTO t VALUES (1)", Access::Write, RUNS)];
    check(&everywhere('i', "t"), &both);
    check(&everywhere('o', "="), &both);
    check(&everywhere('a', "t"), &[("SELECT 1", Access::Read, NONE), both[1]]);
    let event = everywhere('e', "");
    check(&event, &[("SELECT 1", Access::Read, NONE), ("CREATE TABLE t ()", Access::Write, RUNS.with(Effects::DDL))]);
}

#[test]
fn what_was_defined_since_is_not_trusted() {
    let catalog = application();
    let at = |all, redefined| Definitions { all, redefined };
    assert_eq!(catalog.trust(at(0, 0)), Trust::Unread);
    catalog.confirm(at(3, 1));
    assert_eq!(catalog.trust(at(3, 1)), Trust::Current);
    assert_eq!(catalog.trust(at(4, 1)), Trust::Grown);
    assert_eq!(catalog.trust(at(4, 2)), Trust::Stale);
    let analyzer = Analyzer::new(1 << 20);
    let check = |text: &str, trust, access, effects| {
        let shape = analyzer.analyze(text.as_bytes(), TextContext::default()).shape;
        for _ in 0..2 {
            assert_eq!(catalog.judge(&shape, text.as_bytes(), trust), Verdict { access, effects }, "{text} {trust:?}");
        }
    };
    for trust in [Trust::Current, Trust::Grown, Trust::Stale, Trust::Unread] {
        check("SELECT lower('A') FROM plain JOIN pg_class ON true", trust, Access::Read, NONE);
        check("SELECT 1", trust, Access::Read, NONE);
        check("BEGIN", trust, Access::Read, NONE);
    }
    check("SELECT ping()", Trust::Grown, Access::Read, NONE);
    check("SELECT ping()", Trust::Stale, Access::Write, RUNS);
    check("SELECT * FROM partitioned", Trust::Grown, Access::Read, NONE);
    check("SELECT * FROM partitioned", Trust::Stale, Access::Write, RUNS);
    check("SELECT * FROM made_since", Trust::Grown, Access::Read, NONE);
    check("SELECT * FROM made_since", Trust::Stale, Access::Write, RUNS);
    check("SELECT * FROM not_heard_of", Trust::Unread, Access::Read, RUNS);
    check("INSERT INTO stamped VALUES (1)", Trust::Grown, Access::Write, NONE);
    check("INSERT INTO made_since VALUES (1)", Trust::Grown, Access::Write, RUNS);
    check("INSERT INTO stamped VALUES (1)", Trust::Stale, Access::Write, RUNS);
    // What was concluded for the while is not remembered.
    check("SELECT ping()", Trust::Current, Access::Read, NONE);
}
