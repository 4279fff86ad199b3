//! Consistency keys: under a policy that names one, a read sees what any session wrote under it.

use crate::support::{Gateway, Raw, direct, eventually, message, query, sync};

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

/// A read that tells where it ran and what it saw of a tenant.
fn of(tenant: &str) -> String {
    format!("SELECT current_setting('cluster_name') || count(*) FROM t WHERE tenant_id = '{tenant}'")
}

fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Parse under a name and Describe.
fn declare(name: &str, text: &str) -> Vec<u8> {
    let parse = message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    [parse, message(b'D', &[b"S", name.as_bytes(), b"\0"].concat())].concat()
}

/// Bind of what has a name, to values, and Execute.
fn run(name: &str, values: &[&str]) -> Vec<u8> {
    let count = (values.len() as u16).to_be_bytes();
    let values: Vec<u8> =
        values.iter().flat_map(|value| [&(value.len() as u32).to_be_bytes(), value.as_bytes()].concat()).collect();
    let bind = message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0", &count, &values, &[0, 0]].concat());
    [bind, message(b'E', &[0; 5])].concat()
}

/// A primary and a replica that have a table of tenants.
fn with_tenants() -> pointsman::demo::Cluster {
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let table = "SET ROLE demo; CREATE TABLE t AS SELECT 'none' AS tenant_id";
    cluster.primary().psql("demo", table).unwrap();
    cluster.wait_replayed().unwrap();
    cluster
}

/// A gateway whose policy makes the tenant a consistency key.
fn routed_by_tenant(cluster: &pointsman::demo::Cluster) -> Gateway<'_> {
    Gateway::in_front_of(cluster)
        .more(crate::support::POLICIES)
        .bytes("policies/tenant-router.wasm", POLICY)
        .bytes("policies/tenant-router.toml", b"columns = [\"tenant_id\"]\ndefault = \"main\"\nconsistency = true\n")
        .start()
}

/// A server that a session has already is left for one that will do, as soon as nothing holds the session there.
#[test]
fn a_read_leaves_the_replica_that_lacks_what_it_must_see() {
    if direct() {
        return;
    }
    let cluster = with_tenants();
    let replica = &cluster.replicas()[0];
    let gateway = routed_by_tenant(&cluster);
    let log_in = || Raw::log_in(gateway.port, "demo", "demo");
    let [mut writer, mut block, mut kept] = [(); 3].map(|()| log_in());
    for tenant in ["acme", "globex"] {
        eventually("the replica answers", || writer.ask(&of(tenant)) == "r10");
    }
    // Before the write: a transaction there, and a session that is kept there.
    assert_eq!(block.ask("BEGIN READ ONLY"), "");
    assert_eq!(block.ask(&of("globex")), "r10");
    for (step, answer) in
        [("BEGIN READ ONLY", ""), (&*of("globex"), "r10"), ("PREPARE z AS SELECT 7", ""), ("COMMIT", "")]
    {
        assert_eq!(kept.ask(step), answer, "{step}");
    }
    replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    assert_eq!(writer.ask("INSERT INTO t (tenant_id) VALUES ('acme')"), "");
    let bound = of("").replace("''", "$1");
    let group = |tenant: &str| [declare("", &of(tenant)), run("", &[])].concat();
    let cases = [
        // Behind a Query or a group in flight.
        (vec![query(&of("globex")), query(&of("acme"))], "r10 primary1"),
        (vec![group("globex"), sync(), group("acme"), sync()], "r10 primary1"),
        // Of a statement that was parsed there, whether its description has come or not.
        (vec![declare("s", &bound), flush(), run("s", &["acme"]), sync()], "primary1"),
        (vec![declare("", &bound), flush(), run("", &["acme"]), sync()], "primary1"),
        (vec![declare("s", &bound), flush(), run("s", &["acme"]), flush(), sync()], "primary1"),
        (vec![group("globex"), sync(), declare("s", &bound), flush(), run("s", &["acme"]), sync()], "r10 primary1"),
        // What the server is asked about once it has answered is not forgotten.
        (
            vec![
                query("SET pointsman.x = 'y'"),
                declare("s", &bound),
                flush(),
                run("s", &["acme"]),
                sync(),
                query("SHOW pointsman.x"),
            ],
            " primary1 y",
        ),
        // And what may stay does.
        (vec![declare("s", &bound), flush(), run("s", &["globex"]), sync()], "r10"),
    ];
    for (messages, expected) in cases {
        let answers = expected.split(' ').count();
        for waits in [false, true] {
            let mut client = log_in();
            // Until the server that it is to begin on is there.
            assert_eq!(client.ask(&of("globex")), "r10");
            if waits && let Some(at) = messages.iter().position(|message| *message == flush()) {
                client.send(&messages[..=at].concat());
                let mut told: Vec<_> =
                    (0..messages[..at].iter().filter(|message| message[0] == b'S' || message[0] == b'Q').count())
                        .map(|_| client.first())
                        .collect();
                client.until(b'T');
                client.send(&messages[at + 1..].concat());
                told.extend((told.len()..answers).map(|_| client.first()));
                assert_eq!(told.join(" "), expected, "one after the other");
            } else {
                client.send(&messages.concat());
                let told: Vec<_> = (0..answers).map(|_| client.first()).collect();
                assert_eq!(told.join(" "), expected, "in one write");
            }
        }
    }
    // A transaction on the replica stays there; what comes behind it does not.
    assert_eq!(block.ask(&of("acme")), "r10");
    block.send(&[query("COMMIT"), query(&of("acme"))].concat());
    assert_eq!([block.first(), block.first()].join(" "), " primary1");
    // So does a session that is kept there, with what it is kept for, until that is gone.
    assert_eq!(kept.ask(&of("acme")), "r10");
    kept.send(&[declare("s", &bound), flush()].concat());
    kept.until(b'T');
    kept.send(&[run("s", &["globex"]), flush()].concat());
    kept.until(b'C');
    kept.send(&sync());
    kept.until(b'Z');
    assert_eq!(kept.ask("SELECT count(*) FROM pg_prepared_statements WHERE name = 'z'"), "1");
    assert_eq!(kept.ask("DEALLOCATE z"), "");
    assert_eq!(kept.ask(&of("acme")), "primary1");
    replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
}

/// What is too long to be looked into no policy is asked about: it may have written for any tenant.
#[test]
fn what_is_too_long_to_be_understood_counts_for_every_key() {
    if direct() {
        return;
    }
    let cluster = with_tenants();
    let replica = &cluster.replicas()[0];
    let gateway = routed_by_tenant(&cluster);
    let [mut writer, mut reader] = [(); 2].map(|()| Raw::log_in(gateway.port, "demo", "demo"));
    assert_eq!(writer.ask("SET pointsman.tenant = 'umb'"), "");
    let long = format!("INSERT INTO t VALUES ('umb'), ('{}')", "y".repeat(1_200_000));
    let parsed = || [message(b'P', &[b"\0", long.as_bytes(), b"\0\0\0"].concat()), run("", &[]), sync()].concat();
    let sends = [
        vec![query(&long)],
        vec![parsed()],
        vec![query("BEGIN"), query(&long), query("COMMIT")],
        vec![query("BEGIN"), parsed(), query("COMMIT")],
    ];
    for (n, send) in sends.iter().enumerate() {
        for tenant in ["umb", "globex"] {
            eventually("the replica answers", || reader.ask(&of(tenant)).starts_with('r'));
        }
        replica.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
        for (at, message) in send.iter().enumerate() {
            writer.send(message);
            assert_eq!(writer.first(), "", "{n}");
            if at + 1 < send.len() && at > 0 {
                assert_eq!(reader.ask(&of("umb")), format!("primary{n}"), "{n}: on its way");
            }
        }
        assert_eq!(reader.ask(&of("umb")), format!("primary{}", n + 1), "{n}");
        assert_eq!(reader.ask(&of("globex")), "primary0", "{n}: it may be of any");
        replica.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();
    }
    eventually("the replica has it", || reader.ask(&of("umb")) == "r14");
}
