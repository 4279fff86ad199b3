//! Consistency keys: under a policy that names one, a read sees what any session wrote under it.

use crate::support::{Gateway, Raw, direct, eventually, message, sync};

const POLICY: &[u8] = include_bytes!("../../plugins/artifacts/tenant-router.wasm");

#[test]
fn a_tenants_reads_see_what_any_session_wrote_for_it() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    primary.psql("demo", "SET ROLE demo; CREATE TABLE t AS SELECT 'none' AS tenant_id").unwrap();
    cluster.wait_replayed().unwrap();
    let settings = |keys: bool| format!("columns = [\"tenant_id\"]\ndefault = \"main\"\nconsistency = {keys}\n");
    let folder = Gateway::in_front_of(&cluster).more(crate::support::POLICIES);
    let gateway = folder
        .bytes("policies/tenant-router.wasm", POLICY)
        .bytes("policies/tenant-router.toml", settings(true).as_bytes())
        .start();
    let mut clients = [(); 2].map(|()| Raw::log_in(gateway.port, "demo", "demo"));
    let node = "SELECT current_setting('cluster_name')";
    let reads =
        |client: &mut Raw, tenant: &str| client.ask(&format!("{node} || count(*) FROM t WHERE tenant_id = '{tenant}'"));
    let [writer, reader] = &mut clients;
    for tenant in ["acme", "globex"] {
        eventually("the replica answers", || reads(reader, tenant) == "r10");
    }
    replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    // Another session's write is seen, whoever asks; other tenants' reads stay on the replica.
    assert_eq!(writer.ask("INSERT INTO t (tenant_id) VALUES ('acme')"), "");
    assert_eq!(reads(reader, "acme"), "primary1");
    assert_eq!(reads(&mut Raw::log_in(gateway.port, "demo", "demo"), "acme"), "primary1");
    assert_eq!(reads(reader, "globex"), "r10");
    // So is one whose session is gone, and what a transaction wrote for several.
    assert_eq!(writer.ask("BEGIN"), "");
    assert_eq!(writer.ask("INSERT INTO t (tenant_id) VALUES ('acme')"), "");
    assert_eq!(writer.ask("INSERT INTO t (tenant_id) VALUES ('hooli')"), "");
    assert_eq!(reads(reader, "hooli"), "primary0", "a write on its way");
    assert_eq!(writer.ask("COMMIT"), "");
    *writer = Raw::log_in(gateway.port, "demo", "demo");
    assert_eq!(reads(reader, "hooli"), "primary1");
    assert_eq!(reads(writer, "acme"), "primary2");
    assert_eq!(reads(writer, "globex"), "r10");
    // A pipeline of reads under two keys sees both.
    let run = |text: &str| {
        let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
        [parse, message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat()
    };
    let of = |tenant: &str| run(&format!("{node} || count(*) FROM t WHERE tenant_id = '{tenant}'"));
    for (pipeline, told) in [([of("globex"), of("initech")], "r10"), ([of("globex"), of("hooli")], "primary0")] {
        reader.send(&[pipeline.concat(), sync()].concat());
        assert_eq!(reader.first(), told);
    }
    replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    eventually("the replica has it", || reads(reader, "acme") == "r12" && reads(reader, "hooli") == "r11");
    // Without keys each session sees its own.
    std::fs::write(gateway.path("policies/tenant-router.toml"), settings(false)).unwrap();
    replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    eventually("the new settings are in use", || {
        assert_eq!(writer.ask("INSERT INTO t (tenant_id) VALUES ('initech')"), "");
        reads(reader, "initech") == "r10"
    });
    assert!(reads(writer, "initech").starts_with("primary"));
    replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
}
