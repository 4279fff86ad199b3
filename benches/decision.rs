//! What a decision costs: the embedded policy asked through WebAssembly, a kept decision, the same rule in native code,
//! a policy that reads tables and values, and the whole way from a text that was seen before.
//! `cargo bench --bench decision`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::catalog::{Catalog, Trust};
use pointsman::policy::{
    Decision, DecisionCache, NoAttributes, NoParameters, NodeFacts, Phase, Query, ReadWriteSplit, SessionFacts,
    ShardFacts, TopologyView, Transaction,
};
use pointsman::sql::{Analysis, Analyzer, TextContext};
use pointsman::wasm::{Chains, PolicyStore, StoreConfig};

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
const TENANT: &str = "SELECT id, total FROM orders WHERE tenant_id = 42 AND status = 'open'";
const TENANT_ROUTER: &[u8] = include_bytes!("../plugins/artifacts/tenant-router.wasm");
const TENANT_SETTINGS: &str = "columns = [\"tenant_id\"]\ntype = \"int\"\n[tenants]\n42 = \"s0\"\n";

struct OneShard;

impl TopologyView for OneShard {
    fn version(&self) -> u64 {
        1
    }
    fn shards(&self) -> u32 {
        1
    }
    fn shard(&self, shard: u32) -> Option<ShardFacts<'_>> {
        (shard == 0).then_some(ShardFacts { name: "s0", nodes: 0 })
    }
    fn node(&self, _shard: u32, _node: u32) -> Option<NodeFacts<'_>> {
        None
    }
}

fn session() -> SessionFacts<'static> {
    SessionFacts {
        id: 1,
        user: "app",
        database: "app",
        client: None,
        application_name: "bench",
        attributes: &NoAttributes,
        key: 1,
        wrote: false,
    }
}

/// What the gateway does once it has the analysis.
fn query<'a>(text: &'a str, analysis: &'a Analysis, catalog: &Catalog, session: &'a SessionFacts<'a>) -> Query<'a> {
    let verdict = catalog.judge(&analysis.shape, text.as_bytes(), Trust::Current);
    Query {
        text: text.as_bytes(),
        analysis,
        access: verdict.access,
        effects: verdict.effects,
        phase: Phase::Simple,
        transaction: Transaction::Idle,
        parameters: &NoParameters,
        session,
        topology: &OneShard,
    }
}

fn decision(c: &mut Criterion) {
    let analyzer = Analyzer::new(64 << 20);
    let context = TextContext::default();
    let catalog = Catalog::builtin(1);
    let session = session();
    let store = PolicyStore::start(StoreConfig::default(), Arc::new(|_| {})).expect("the engine starts");
    let chains = store.chains();
    let chain = |chains: &Arc<Chains>| Arc::clone(chains.of("app"));

    let analysis = analyzer.analyze(PGBENCH.as_bytes(), context);
    let asked = query(PGBENCH, &analysis, &catalog, &session);
    let held = chain(&chains.load());
    let mut cache = DecisionCache::new();
    let answer = held.route(&asked);
    assert!(answer.link == Some(0) && matches!(answer.decision, Decision::Route(_)), "{answer:?}");

    let mut group = c.benchmark_group("decision");
    group.bench_function("WebAssembly", |b| b.iter(|| held.route(black_box(&asked))));
    group.bench_function("kept", |b| b.iter(|| held.route_cached(black_box(&asked), &mut cache)));
    let native = ReadWriteSplit::default();
    group.bench_function("native", |b| b.iter(|| native.decide(black_box(&asked))));

    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("tenant-router.wasm"), TENANT_ROUTER).expect("the folder is writable");
    std::fs::write(folder.path().join("tenant-router.toml"), TENANT_SETTINGS).expect("the folder is writable");
    let config = StoreConfig { directory: Some(folder.path().into()), ..StoreConfig::default() };
    let tenants = PolicyStore::start(config, Arc::new(|_| {})).expect("the engine starts");
    let by_tenant = analyzer.analyze(TENANT.as_bytes(), context);
    let of_tenant = query(TENANT, &by_tenant, &catalog, &session);
    let routed = chain(&tenants.chains().load());
    let answer = routed.route(&of_tenant);
    assert!(answer.link == Some(0) && matches!(answer.decision, Decision::Route(_)), "{answer:?}");
    group.bench_function("tenant-router", |b| b.iter(|| routed.route(black_box(&of_tenant))));
    group.finish();

    // From a text seen before to the decision, the chain taken from the store as at the start of a transaction.
    let mut group = c.benchmark_group("text to decision");
    group.bench_function("asked every time", |b| {
        b.iter(|| {
            let analysis = analyzer.analyze(black_box(PGBENCH.as_bytes()), context);
            let chains = chains.load();
            chains.of("app").route(&query(PGBENCH, &analysis, &catalog, &session)).decision
        });
    });
    group.bench_function("kept", |b| {
        b.iter(|| {
            let analysis = analyzer.analyze(black_box(PGBENCH.as_bytes()), context);
            let chains = chains.load();
            chains.of("app").route_cached(&query(PGBENCH, &analysis, &catalog, &session), &mut cache).decision
        });
    });
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
