//! What the analysis of a statement costs: exact hit, hit but for the literals, miss, and the grammar alone.
//! `cargo bench --bench analysis`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::catalog::{Catalog, Trust};
use pointsman::sql::{Analyzer, TextContext};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
const JOIN: &str = "SELECT o.id, o.created_at, o.total, o.status, c.id, c.name, c.email, p.sku, p.title, i.quantity \
    FROM orders o JOIN customers c ON c.id = o.customer_id JOIN items i ON i.order_id = o.id \
    JOIN products p ON p.id = i.product_id WHERE o.tenant_id = 42 AND c.tenant_id = 42 AND o.status = 'open' \
    ORDER BY o.created_at DESC LIMIT 20";
const LIMIT: u64 = 64 << 20;

fn analysis(c: &mut Criterion) {
    for (name, text) in [("pgbench", PGBENCH), ("join", JOIN)] {
        let context = TextContext::default();
        let mut group = c.benchmark_group(name);

        let warm = Analyzer::new(LIMIT);
        for _ in 0..3 {
            let _ = warm.analyze(text.as_bytes(), context);
        }
        group.bench_function("exact", |b| b.iter(|| warm.analyze(black_box(text.as_bytes()), context)));

        // Every text is new, as long as the run does not pass 10^5 of them in a row of the exact level's memory.
        let texts: Vec<String> =
            (10_000..99_999).map(|n| text.replace("12345", &n.to_string()).replace("42", &n.to_string())).collect();
        let literal = Analyzer::new(LIMIT);
        let mut next = texts.iter().cycle();
        group.bench_function("literals differ", |b| {
            b.iter(|| literal.analyze(black_box(next.next().map_or(&[][..], |t| t.as_bytes())), context));
        });

        // A cache too small for anything: every text is a miss at both levels.
        let cold = Analyzer::new(1);
        group.bench_function("uncached", |b| b.iter(|| cold.analyze(black_box(text.as_bytes()), context)));

        group.bench_function("sqlparser alone", |b| {
            b.iter(|| Parser::parse_sql(&PostgreSqlDialect {}, black_box(text)).map(|s| s.len()));
        });

        let catalog = Catalog::builtin(1);
        let shape = warm.analyze(text.as_bytes(), context).shape;
        group.bench_function("verdict", |b| {
            b.iter(|| catalog.judge(black_box(&shape), text.as_bytes(), Trust::Current));
        });
        group.finish();
    }
}

criterion_group!(benches, analysis);
criterion_main!(benches);
