//! What the cache holds, shares and forgets.

use std::sync::Arc;

use super::super::*;

fn ask(analyzer: &Analyzer, text: &str) -> Analysis {
    analyzer.analyze(text.as_bytes(), TextContext::default())
}

#[test]
fn texts_that_differ_in_literals_share_a_shape() {
    let analyzer = Analyzer::new(1 << 20);
    let share = |a: &str, b: &str| Arc::ptr_eq(&ask(&analyzer, a).shape, &ask(&analyzer, b).shape);
    assert!(share("SELECT 1 FROM t WHERE k = 5", "SELECT 2 FROM t WHERE k = 77777"));
    assert!(share("INSERT INTO t VALUES ('a')", "INSERT INTO t VALUES ('it''s')"));
    assert!(share("SELECT $$a$$", "SELECT $b$c$b$"));
    assert!(share("WITH a AS (SELECT 1) SELECT 2", "WITH a AS (SELECT 3) SELECT 4"));
    // A literal of another class may parse otherwise; a literal that names something means something else.
    assert!(!share("SELECT 1", "SELECT '1'"));
    assert!(!share("SELECT 1", "SELECT 1.0"));
    assert!(!share("SELECT set_config('a.b', 'x', true)", "SELECT set_config('a.c', 'x', true)"));
    assert!(!share("SELECT nextval('a')", "SELECT nextval('b')"));
    assert!(!share("SELECT \"nextval\"('a')", "SELECT \"nextval\"('b')"));
    assert!(!share("SELECT dblink('a')", "SELECT dblink('b')"));
    assert!(!share("SET a.b = 1", "SET a.b = 2"));
    assert!(!share("SELECT \"a\"", "SELECT \"b\""));
    assert!(!share("SELECT 1 /*a='b'*/", "SELECT 1 /*a='c'*/"));
    assert!(share("SELECT 1 /*a='b',traceparent='1'*/", "SELECT 1 /*a='b',traceparent='2'*/"));
    assert!(!share("SELECT a/**/b", "SELECT ab"));
    assert!(!share("SELECT 1 -- \u{1}\n, 2", "SELECT 1 -- 2\n, 2"));
    assert!(share("SELECT 1 /* anything */", "SELECT 1 /* else */"));
    assert!(!share("EXPLAIN SELECT 1", "EXPLAIN SELECT 2"));
    // Fingerprints follow shapes, and are other ones in another analyser.
    let (a, b) = (ask(&analyzer, "SELECT 1"), ask(&Analyzer::new(1 << 20), "SELECT 1"));
    assert_ne!(a.shape.fingerprint, b.shape.fingerprint);
}

#[test]
fn a_stream_of_literals_leaves_the_exact_level_alone() {
    let analyzer = Analyzer::new(256 << 10);
    let hot = "SELECT name FROM users WHERE active";
    for _ in 0..5 {
        let _ = ask(&analyzer, hot);
    }
    let before = analyzer.stats();
    assert!(before.exact_hits >= 2, "{before:?}");
    for n in 0..50_000 {
        let _ = ask(&analyzer, &format!("SELECT x FROM t WHERE k = {n}"));
    }
    let _ = ask(&analyzer, hot);
    let after = analyzer.stats();
    assert_eq!(after.exact_hits, before.exact_hits + 1);
    assert_eq!(after.misses, before.misses + 1);
}

#[test]
fn memory_is_bounded_in_bytes() {
    let limit = 1 << 20;
    let analyzer = Analyzer::new(limit);
    for n in 0..20_000 {
        let text = format!("SELECT a{n}, b{n}, c{n} FROM t{n} WHERE k{n} = 1");
        let _ = ask(&analyzer, &text);
        let _ = ask(&analyzer, &text);
    }
    let stats = analyzer.stats();
    assert!(stats.bytes <= limit, "{stats:?}");
    assert!(stats.bytes > limit / 4, "{stats:?}");
}

#[test]
fn workers_share_it() {
    let analyzer = Analyzer::new(1 << 20);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let analyzer = &analyzer;
            scope.spawn(move || {
                for n in 0..2_000 {
                    let text = format!("SELECT {n} FROM t{} WHERE k = {worker}", n % 50);
                    let analysis = ask(analyzer, &text);
                    assert_eq!(&*analysis.shape.statements[0].tables[0].name, format!("t{}", n % 50));
                    let expected = worker.to_string();
                    assert_eq!(analysis.literal(text.as_bytes(), 1), Some(Literal::Number(&expected)));
                }
            });
        }
    });
    assert!(analyzer.stats().misses < 250);
}

#[test]
fn long_texts_are_read_by_the_lexer_alone() {
    let analyzer = Analyzer::new(1 << 20);
    let text = format!("INSERT INTO t (a) VALUES {}(1); SET ROLE x", "(1), ".repeat(20_000));
    let shape = ask(&analyzer, &text).shape;
    let kinds: Vec<Kind> = shape.statements.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Kind::Insert, Kind::Set]);
    assert_eq!((shape.access, shape.effects), (Access::Write, Effects::SETTINGS));
    assert_ne!(shape.fingerprint, 0);
}
