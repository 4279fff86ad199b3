//! Texts that want to exhaust a stack, the time or the memory.

use std::time::Duration;

use super::super::*;

/// CPU time of this thread, which other processes do not lengthen. Zero where Linux does not tell.
fn cpu() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(spent.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Analyses on a stack of this many bytes; at most so long in a release build, twenty times that in a debug one.
#[track_caller]
fn survives(text: String, stack: usize, limit: Duration) -> Access {
    let shown: String = text.chars().take(40).collect();
    let length = text.len();
    // A debug build's frames are several times as large; what ships is a release build.
    let stack = if cfg!(debug_assertions) { stack * 8 } else { stack };
    let thread = std::thread::Builder::new().stack_size(stack).spawn(move || {
        let begin = cpu();
        let analysis = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default());
        (analysis.shape.access, cpu().saturating_sub(begin))
    });
    let (access, took) = thread.expect("a thread starts").join().expect("no panic");
    if std::env::var_os("POINTSMAN_HOSTILE_TIMES").is_some() {
        eprintln!("{:>9} us {stack} {length} {shown}", took.as_micros());
    }
    let limit = if cfg!(debug_assertions) { limit * 20 } else { limit };
    assert!(took <= limit, "{shown}…: {took:?}");
    access
}

fn texts() -> Vec<String> {
    let mut texts = Vec::new();
    // Around each bound, just under 64 KiB, and far above.
    for n in [30, 31, 32, 33, 60, 100, 119, 200, 201, 499, 900, 990, 1001, 5_000, 15_000, 100_000] {
        texts.extend([
            format!("SELECT {}1", "1+".repeat(n)),
            format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
            format!("SELECT {}", "(".repeat(n)),
            format!("SELECT * FROM {}t{}", "(".repeat(n), ")".repeat(n)),
            format!("SELECT * FROM {}", "(".repeat(n)),
            format!("SELECT * FROM {}SELECT 1{}", "(".repeat(n), ") a".repeat(n)),
            format!("{}SELECT 1{}", "(".repeat(n), ")".repeat(n)),
            format!("SELECT {}1", "- ".repeat(n)),
            format!("SELECT {}true", "NOT ".repeat(n)),
            format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(n), " END".repeat(n)),
            format!("SELECT {}1", "CASE WHEN ".repeat(n)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(n)),
            format!("SELECT 1{}", " UNION ALL (SELECT 1".repeat(n)),
            format!("SELECT 1 WHERE {}true", "a = 1 AND ".repeat(n)),
            format!("SELECT 1 WHERE {}true", "a = 1 OR ".repeat(n)),
            format!("SELECT 1 WHERE {}true", "(a = 1) OR ".repeat(n)),
            format!("SELECT 1{}", "::int".repeat(n)),
            format!("SELECT a{}", "[1]".repeat(n)),
            format!("SELECT a{}", ".a".repeat(n)),
            format!("SELECT f({}", "f(".repeat(n)),
            format!("SELECT {}1{}", "f(".repeat(n), ")".repeat(n)),
            format!("SELECT {}1{}", "ARRAY[".repeat(n), "]".repeat(n)),
            format!("SELECT 1::{}", "int[]".repeat(n)),
            format!("SELECT 1 {}", "IS NULL ".repeat(n)),
            format!("SELECT 1 {}", "COLLATE \"C\" ".repeat(n)),
            format!("SELECT 1 {}", "AT TIME ZONE 'x' ".repeat(n)),
            format!("SELECT 1 {}", "BETWEEN 1 AND 2 ".repeat(n)),
            format!("SELECT 1 FROM a{}", " JOIN a ON true".repeat(n)),
            format!("SELECT 1 FROM {}a{}", "a JOIN ".repeat(n), " ON true".repeat(n)),
            format!("{}SELECT 1", "WITH a AS (".repeat(n)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(n)),
            format!("{}SELECT 1", "PREPARE a AS ".repeat(n)),
            format!("COPY {}", "(".repeat(n)),
            format!("SELECT EXISTS {}", "(SELECT EXISTS ".repeat(n)),
            format!("SELECT 1 IN {}", "(SELECT 1 IN ".repeat(n)),
            format!("SELECT {}'a'", "'a' || ".repeat(n)),
            format!("SELECT {}1", "a.b(".repeat(n)),
            format!("SELECT {}1", "INTERVAL ".repeat(n)),
            format!("SELECT {}1", "DATE ".repeat(n)),
            format!("SELECT {}", "a ".repeat(n)),
            format!("SELECT {}", "'a' ".repeat(n)),
            format!("SELECT {}1", "@ ".repeat(n)),
            format!("SELECT {}", "+".repeat(n)),
            format!("SELECT {}", "-*".repeat(n)),
            format!("SELECT /*{}", "/*".repeat(n)),
            format!("SELECT {}", "$a".repeat(n)),
            format!("SELECT ${}$ x", "a".repeat(n)),
            format!("SELECT {}", "'".repeat(n)),
            format!("SELECT {}", "\"".repeat(n)),
            format!("SELECT {}1", "'a'\n".repeat(n)),
            ";".repeat(n),
            "SELECT 1;".repeat(n),
            "a;".repeat(n),
            format!("INSERT INTO t (a, b) VALUES {}(1, 2)", "(1, 2), ".repeat(n)),
            format!("SELECT 1 WHERE a IN ({}1)", "1, ".repeat(n)),
            format!("UPDATE t SET {}a = 1", "a = 1, ".repeat(n)),
            format!("SELECT {}1", "set_config('a', ".repeat(n)),
            format!("CREATE TABLE t (a int {}", "DEFAULT (1 ".repeat(n)),
            format!("SELECT * FROM t{}", " TABLESAMPLE system (1)".repeat(n)),
            format!("SELECT {}1", "ROW(".repeat(n)),
            format!("SELECT a FROM t GROUP BY {}a", "CUBE (".repeat(n)),
            format!("SELECT ({}1", "a, (".repeat(n)),
            format!("SELECT * FROM t WHERE {}1", "a LIKE ".repeat(n)),
            format!("SELECT {}1", "a <> ALL (".repeat(n)),
            format!("SELECT {}1", "CAST(".repeat(n)),
            format!("SELECT {}1", "EXTRACT(".repeat(n)),
            format!("SELECT {}1", "x -> ".repeat(n)),
            format!("SELECT a{}", ":b".repeat(n)),
            format!("SELECT {}1", "OPERATOR(+) ".repeat(n)),
            format!("SELECT 1 {}", "+ OPERATOR(".repeat(n)),
            format!("MERGE INTO t USING s ON true {}", "WHEN MATCHED THEN DELETE ".repeat(n)),
            format!("SELECT * FROM {}", "LATERAL (".repeat(n)),
            format!("SELECT * FROM {}", "ROWS FROM (".repeat(n)),
            format!("SELECT x{}", " OVER (PARTITION BY x".repeat(n)),
        ]);
    }
    texts
}

#[test]
fn no_text_exhausts_an_8_mib_stack() {
    for text in texts() {
        survives(text, 8 << 20, Duration::from_millis(60));
    }
}

#[test]
fn nor_one_of_2_mib() {
    for text in texts() {
        survives(text, 2 << 20, Duration::from_millis(60));
    }
}

#[test]
fn deep_texts_keep_their_kind() {
    let check = |text: String, access| assert_eq!(survives(text, 2 << 20, Duration::from_millis(60)), access);
    check(format!("SELECT {}1", "1+".repeat(40_000)), Access::Unknown);
    check(format!("DELETE FROM t WHERE {}1", "1+".repeat(40_000)), Access::Write);
    check(format!("SELECT {}1", "1+".repeat(400)), Access::Read);
    check(format!("SELECT 1 WHERE {}true", "a = 1 OR ".repeat(400)), Access::Read);
    check(format!("SELECT {}1{}", "(".repeat(20), ")".repeat(20)), Access::Read);
    check(format!("SELECT 1{}", " UNION SELECT 1".repeat(150)), Access::Read);
    check(format!("INSERT INTO t VALUES {}(1)", "(1), ".repeat(10_000)), Access::Write);
}

#[test]
fn many_statements_are_summed_up() {
    let shape = Analyzer::new(1 << 20).analyze("SELECT 1;".repeat(5_000).as_bytes(), TextContext::default()).shape;
    assert_eq!(shape.statements.len(), 257);
    assert_eq!(shape.access, Access::Unknown);
    let text = "SELECT 1;".repeat(5_000) + "SET ROLE x; LISTEN a; DELETE FROM t";
    let shape = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default()).shape;
    assert_eq!(shape.access, Access::Write);
    assert!(shape.effects.any(Effects::LISTEN) && shape.effects.any(Effects::ALL_SETTINGS));
}
