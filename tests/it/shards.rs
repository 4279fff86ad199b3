//! examples/two-shards as its README tells: two servers, each with a part of the tenants, and a policy that finds a
//! statement's shard.

use std::fs;

use pointsman::demo::Cluster;

use crate::support::{Gateway, direct, fail, run_with, succeed};

const POLICY: &[u8] = include_bytes!("../../examples/two-shards/policies/tenant-router.wasm");
const SETTINGS: &str = include_str!("../../examples/two-shards/policies/tenant-router.toml");

/// What `up.sh` makes on each server.
const SCHEMA: &str =
    "create table orders (tenant_id text, id int generated always as identity, item text, primary key (tenant_id, id));
    grant all on orders to demo";

fn shard() -> Cluster {
    let cluster = Cluster::builder().replicas(0).start(|_| {}).unwrap();
    cluster.primary().psql("demo", SCHEMA).unwrap();
    cluster
}

/// In front of two shards, with files in the policy folder.
fn gateway<'a>(s0: &'a Cluster, s1: &Cluster, files: &[(&str, &[u8])]) -> Gateway<'a> {
    let shard = |name: &str, cluster: &Cluster| {
        format!("[[clusters.orders.shards]]\nname = \"{name}\"\nprimary = \"{}\"\n", cluster.primary().address())
    };
    let more = format!(
        "{}{}[databases.demo]\ncluster = \"orders\"\n{}",
        shard("s0", s0),
        shard("s1", s1),
        crate::support::POLICIES
    );
    let setup = Gateway::in_front_of(s0).more(&more);
    files.iter().fold(setup, |setup, (name, bytes)| setup.bytes(&format!("policies/{name}"), bytes)).start()
}

/// What psql prints for a script that it runs to its end, errors included.
fn script(gateway: &Gateway<'_>, text: &str) -> String {
    let mut psql = crate::support::tool("psql");
    let output = run_with(psql.args(["-XqAt", "-v", "VERBOSITY=terse", &gateway.url("demo")]), text);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "{text}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn tenants_find_their_shards() {
    if direct() {
        return;
    }
    let (s0, s1) = (shard(), shard());
    let gateway = gateway(&s0, &s1, &[("tenant-router.wasm", POLICY), ("tenant-router.toml", SETTINGS.as_bytes())]);
    let items = |cluster: &Cluster| {
        cluster
            .primary()
            .psql("demo", "select string_agg(tenant_id || ' ' || item, ', ' order by id) from orders")
            .unwrap()
    };
    // The README's tour, from the first statement on: nothing was asked of any server yet.
    gateway.query("demo", "insert into orders (tenant_id, item) values ('acme', 'points'), ('acme', 'levers')");
    gateway.query("demo", "insert into orders (tenant_id, item) values ('globex', 'signals')");
    assert_eq!((items(&s0).as_str(), items(&s1).as_str()), ("acme points, acme levers", "globex signals"));
    assert_eq!(gateway.query("demo", "select item from orders where tenant_id = 'acme' order by id"), "points\nlevers");
    assert_eq!(gateway.query("demo", "select item from orders where tenant_id = 'globex'"), "signals");
    let refused = fail(gateway.psql("demo").args(["-c", "select item from orders"]));
    assert!(refused.contains("does not say which tenant's rows of \"orders\" it means"), "{refused}");
    assert_eq!(script(&gateway, "set pointsman.tenant = 'globex'; select item from orders;"), "signals");

    // Transactions on each shard, with statements that name none in between.
    for (tenant, cluster) in [("acme", &s0), ("globex", &s1)] {
        let text = format!(
            "begin;
             insert into orders (tenant_id, item) values ('{tenant}', 'kept');
             savepoint a;
             insert into orders (tenant_id, item) values ('{tenant}', 'undone');
             select 1;
             rollback to a;
             set local work_mem = '5MB';
             show work_mem;
             commit;
             begin; delete from orders where tenant_id = '{tenant}'; rollback;
             select count(*) from orders where tenant_id = '{tenant}';"
        );
        let count = if tenant == "acme" { 3 } else { 2 };
        assert_eq!(script(&gateway, &text), format!("1\n5MB\n{count}"));
        assert!(items(cluster).ends_with(&format!("{tenant} kept")), "{}", items(cluster));
    }
    // One pipeline, or one string, may name its shard late.
    let text = "set work_mem = '6MB'\\; select item, current_setting('work_mem') from orders where tenant_id = 'globex' order by id limit 1;";
    assert_eq!(script(&gateway, text), "signals|6MB");
    let refused = fail(gateway.psql("demo").args([
        "-c",
        "begin",
        "-c",
        "select from orders where tenant_id = 'globex'",
        "-c",
        "select from orders where tenant_id = 'acme'",
    ]));
    assert!(refused.contains("another shard"), "{refused}");
    // A temporary table is on the shard of the session's tenant.
    let text = "set pointsman.tenant = 'globex'; create temp table mine as select item from orders; select count(*) from mine, orders; drop table mine;";
    assert_eq!(script(&gateway, text), "4");

    // What names no table begins a transaction on that shard, and a tenant who is not there is told at the first row.
    let text = "set pointsman.tenant = 'globex';
        begin; select 1; savepoint a; insert into orders (tenant_id, item) values ('globex', 'pinged'); commit;
        listen news; select count(*) from orders;
        set pointsman.tenant = 'nobody'; select 1; set pointsman.tenant = ''; select 2;";
    assert_eq!(script(&gateway, text), "1\n3\n1\n2");

    // The settings change under it.
    let moved = SETTINGS.replace("globex = \"s1\"", "globex = \"s0\"");
    assert_ne!(moved, SETTINGS);
    fs::write(gateway.path("policies/tenant-router.toml"), moved).unwrap();
    crate::support::eventually("the next statement follows", || {
        succeed(gateway.psql("demo").args(["-c", "select count(*) from orders where tenant_id = 'globex'"])) == "0"
    });
}

#[test]
fn without_a_policy_that_names_shards_no_rows_are_touched() {
    if direct() {
        return;
    }
    let (s0, s1) = (shard(), shard());
    // The settings were copied, the policy was not.
    let gateway = gateway(&s0, &s1, &[("tenant-router.toml", SETTINGS.as_bytes())]);
    let log = gateway.log();
    assert!(log.contains("there is no tenant-router.wasm beside it"), "{log}");
    assert!(log.contains("statements on tables will be refused"), "{log}");
    for statement in [
        "insert into orders (tenant_id, item) values ('globex', 'x')",
        "select count(*) from orders",
        "create table t (n int)",
        "do $$ begin delete from orders; end $$",
        "begin; select 1; delete from orders; commit",
    ] {
        let refused = fail(gateway.psql("demo").args(["-c", statement]));
        assert!(refused.contains("no policy says which of them"), "{statement}: {refused}");
    }
    // Nor does what is too long to be looked into.
    let long = format!("insert into orders (tenant_id, item) values ('globex', '{}')", "x".repeat(2 << 20));
    let output = run_with(crate::support::tool("psql").args(["-Xq", &gateway.url("demo")]), &long);
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(refused.contains("it cannot be seen which of them"), "{refused}");
    assert_eq!(gateway.query("demo", "select current_user, count(*) > 0 from pg_class"), "demo|t");
    assert_eq!(gateway.query("demo", "set work_mem = '5MB'; show work_mem"), "5MB");
    for cluster in [&s0, &s1] {
        assert_eq!(cluster.primary().psql("demo", "select count(*) from orders").unwrap(), "0");
    }
    // The policy arrives: what was refused works.
    fs::write(gateway.path("policies/tenant-router.wasm"), POLICY).unwrap();
    crate::support::eventually("the policy is taken up", || gateway.log().contains("policy \"tenant-router\" loaded"));
    gateway.query("demo", "insert into orders (tenant_id, item) values ('globex', 'x')");
    assert_eq!(s1.primary().psql("demo", "select item from orders").unwrap(), "x");
    // In a transaction that has found its shard, a long one goes there as well.
    let text = format!("begin; select 1 from orders where tenant_id = 'globex';\n{long};\ncommit;");
    script(&gateway, &text);
    assert_eq!(s1.primary().psql("demo", "select count(*) from orders").unwrap(), "2");
}

#[test]
fn a_policy_that_is_a_link_to_nowhere_is_not_passed_over() {
    if direct() {
        return;
    }
    let cluster = Cluster::builder().replicas(0).start(|_| {}).unwrap();
    let gateway = Gateway::in_front_of(&cluster)
        .more(crate::support::POLICIES)
        .link("policies/tenant-router.wasm", "../no/such/file.wasm")
        .start();
    let log = gateway.log();
    assert!(log.contains("tenant-router.wasm: No such file or directory"), "{log}");
    let refused = fail(gateway.psql("demo").args(["-c", "select 1"]));
    assert!(refused.contains("tenant-router"), "{refused}");
}
