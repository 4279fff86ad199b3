//! Tables of configurations, good and bad, and what is said of them.

mod secrets;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A machine that exists only in these tests; everything lies under `/etc/pointsman`.
struct Machine;

impl Sources for Machine {
    fn env(&self, name: &str) -> Option<String> {
        (name == "APP_PASSWORD").then(|| "hunter2".to_owned())
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("/etc/pointsman/admin.token") => Ok("t0ken\n".to_owned()),
            Some("/etc/pointsman/empty") => Ok("\n".to_owned()),
            _ => Err("there is no such file or directory".to_owned()),
        }
    }

    fn check_file(&self, path: &Path) -> Result<(), String> {
        let known = ["server.crt", "server.key", "ca.crt", "policies/tenant-router.wasm"];
        let name = path.strip_prefix("/etc/pointsman").ok().and_then(Path::to_str);
        if name.is_some_and(|name| known.contains(&name)) {
            Ok(())
        } else {
            Err("there is no such file or directory".to_owned())
        }
    }

    fn check_directory(&self, path: &Path) -> Result<(), String> {
        if path == Path::new("/etc/pointsman/policies") {
            Ok(())
        } else {
            Err("there is no such file or directory".to_owned())
        }
    }
}

fn parsed(text: &str) -> Result<Checked, Vec<Problem>> {
    parse(text, Path::new("/etc/pointsman/p.toml"), &Machine)
}

fn good(text: &str) -> Config {
    match parsed(text) {
        Ok(checked) => checked.config,
        Err(problems) => panic!("{text}\nis refused:\n{}", shown(&problems)),
    }
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Asserts what is said of `text`, without the directory and the final line break.
#[track_caller]
fn check(text: &str, expected: &str) {
    let problems = match parsed(text) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    };
    let said = shown(&problems).replace("/etc/pointsman/p.toml:", "p.toml:");
    assert_eq!(said.trim_end(), expected, "\nof:\n{text}");
}

/// The nodes of a cluster as `shard/name=address role weight`.
fn nodes(cluster: &Cluster) -> Vec<String> {
    let mut all = Vec::new();
    for shard in &cluster.shards {
        for node in &shard.nodes {
            let role = format!("{:?}", node.role).to_lowercase();
            all.push(format!("{}/{}={} {role} {}", shard.name, node.name, node.address, node.weight));
        }
    }
    all
}

/// Everything that DESIGN shows, in one file.
const FULL: &str = r#"
[server]
listen = ["0.0.0.0:6433", "/run/pointsman"]
tls = { mode = "prefer", cert = "server.crt", key = "server.key", client_ca = "ca.crt" }

[admin]
listen = "127.0.0.1:9632"
token_file = "admin.token"

[policies]
directory = "policies"
on_fault  = "reject"
deadline  = "2ms"
memory    = "16MiB"

[clusters.main]
primary = "db-0:5432"
[clusters.main.replicas]
count   = 5
address = "db-replica-{n}:5432"
weight  = 2

[[clusters.orders.shards]]
name = "s0"
primary = "orders-0"
replicas = ["orders-0r", { address = "orders-0s", weight = 3, name = "far", labels = { zone = "b" } }]
[[clusters.orders.shards]]
name = "s1"
nodes = [
    { name = "a", address = "orders-1a:5433", role = "auto", weight = 0, labels = { zone = "a" } },
    { name = "b", address = "/run/postgresql:5434", role = "primary" },
    "[::1]:5435",
]

[databases.app]
cluster  = "main"
dbname   = "app_live"
policies = ["tenant-router", "read-write-split"]
pool     = { mode = "session", size = 7, idle_timeout = "off" }

[databases."*"]
cluster = "orders"

[users.app]
password = { env = "APP_PASSWORD" }
pool = { size = 9 }
[users.verified]
password = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
[users.old]
password = "md5a3556571e93b0d20722ba62be61e8c2d"
[users.local]
"#;

#[test]
fn the_smallest_configuration_is_enough() {
    let config = good(
        "[clusters.main]\nprimary = \"db-0.internal:5432\"\nreplicas = [\"db-1.internal:5432\", \"db-2.internal:5432\"]\n",
    );
    assert_eq!(config.server.listen, [Address::parse("127.0.0.1:6432", 0).unwrap()]);
    assert_eq!(config.database("anything").unwrap().cluster, "main");
    assert_eq!(config.pool.mode, PoolMode::Transaction);
    assert!(config.users.is_empty() && config.admin.is_none());
    assert!(config.clusters["main"].read_your_writes);
    assert_eq!(config.policies.deadline, Duration::from_millis(2));
    assert_eq!(config.server.hold_limit.as_u64(), 64 * 1024);
    assert_eq!(
        nodes(&config.clusters["main"]),
        [
            "main/db-0.internal:5432=db-0.internal:5432 primary 1",
            "main/db-1.internal:5432=db-1.internal:5432 replica 1",
            "main/db-2.internal:5432=db-2.internal:5432 replica 1",
        ]
    );
}

#[test]
fn every_short_form_is_taken() {
    let config = good(FULL);
    let listen: Vec<String> = config.server.listen.iter().map(ToString::to_string).collect();
    // The socket file takes the TCP port, so that a client names one port for both.
    assert_eq!(listen, ["0.0.0.0:6433", "/run/pointsman:6433"]);
    assert_eq!(config.server.listen[1].socket_file().unwrap(), Path::new("/run/pointsman/.s.PGSQL.6433"));
    let tls = config.server.tls.as_ref().unwrap();
    assert_eq!(tls.cert, Path::new("/etc/pointsman/server.crt"));
    assert_eq!(config.policies.directory.as_deref(), Some(Path::new("/etc/pointsman/policies")));
    assert_eq!(config.admin.as_ref().unwrap().token.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(
        nodes(&config.clusters["main"]),
        [
            "main/db-0:5432=db-0:5432 primary 1",
            "main/db-replica-1:5432=db-replica-1:5432 replica 2",
            "main/db-replica-2:5432=db-replica-2:5432 replica 2",
            "main/db-replica-3:5432=db-replica-3:5432 replica 2",
            "main/db-replica-4:5432=db-replica-4:5432 replica 2",
            "main/db-replica-5:5432=db-replica-5:5432 replica 2",
        ]
    );
    assert_eq!(
        nodes(&config.clusters["orders"]),
        [
            "s0/orders-0:5432=orders-0:5432 primary 1",
            "s0/orders-0r:5432=orders-0r:5432 replica 1",
            "s0/far=orders-0s:5432 replica 3",
            "s1/a=orders-1a:5433 auto 0",
            "s1/b=/run/postgresql:5434 primary 1",
            "s1/[::1]:5435=[::1]:5435 auto 1",
        ]
    );
    let far = &config.clusters["orders"].shards[0].nodes[2];
    assert_eq!(far.labels, BTreeMap::from([("zone".to_owned(), "b".to_owned())]));
    let database = config.database("app").unwrap();
    assert_eq!(database.dbname.as_deref(), Some("app_live"));
    assert_eq!(database.policies.as_deref().unwrap(), ["tenant-router", "read-write-split"]);
    let credential = |user: &str| config.users[user].credential.clone();
    assert_eq!(credential("app"), Some(Credential::Password(Secret::new("hunter2"))));
    assert!(matches!(credential("verified"), Some(Credential::ScramVerifier(_))));
    assert!(matches!(credential("old"), Some(Credential::Md5Hash(_))));
    assert_eq!(credential("local"), None);
}

#[test]
fn the_users_word_goes_before_the_databases_before_the_pools() {
    let config = good(FULL);
    let both = config.pool_for("app", "app");
    assert_eq!((both.mode, both.size, both.idle_timeout), (PoolMode::Session, 9, None));
    assert_eq!(config.pool_for("app", "old").size, 7);
    assert_eq!(config.pool_for("other", "old"), config.pool);
}

#[test]
fn syntax_is_told_alone() {
    check("[clusters.main\nprimary = \"a\"\n", "p.toml:1:15: error: unclosed table, expected `]`");
    check("[clusters.main]\nprimary = \"a\"\nprimary = \"b\"\n", "p.toml:3:1: error: duplicate key");
}

#[test]
fn unknown_keys_are_told_with_the_nearest() {
    check(
        "[clusters.main]\nprimry = \"a\"\nprimary = \"b\"\nwieght = 3\n[serv]\n[clusters.main.monitor]\nzzz = 1\n",
        "p.toml:2:1: error: clusters.main.primry: is no key of this table
    did you mean `primary`?
p.toml:4:1: error: clusters.main.wieght: is no key of this table
    its keys are `primary`, `replicas`, `nodes`, `shards`, `tls`, `monitor`, `read_your_writes`, `max_lag` and `ejection`
p.toml:5:2: error: serv: is no key of this table
    its keys are `server`, `admin`, `console`, `policies`, `pool`, `log`, `clusters`, `databases`, `peers` and `users`
p.toml:7:1: error: clusters.main.monitor.zzz: is no key of this table
    its keys are `user`, `password`, `database`, `interval` and `timeout`",
    );
}

#[test]
fn what_is_not_there_yet_is_told_with_what_to_write() {
    check(
        "auth_query = 1\n[clusters.main]\ndiscovery = { aurora = true }\nprimary = \"a\"\n",
        "p.toml:1:1: error: auth_query: is not in this version yet
    list the users under [users], or leave [users] out: passwords are then tried on the server
p.toml:3:1: error: clusters.main.discovery: is not in this version yet
    list the servers with `primary` and `replicas`, or with `nodes`",
    );
}

#[test]
fn single_values_are_told_with_what_was_expected() {
    check(
        r#"[server]
listen = ["a:b", "b:1:2", ":1", "[::1", "h:1", "h:1"]
workers = 0
max_clients = 1.5
hold_limit = "64 potatoes"
drain_timeout = 30
client_login_timeout = "0s"
unix_socket_mode = "rw"
runtime = "percore"
[log]
level = "loud"
[clusters.main]
primary = 5
read_your_writes = "yes"
max_lag = "soon"
"#,
        r#"p.toml:2:10: warning: server.listen: clients of other hosts cannot log in: without [users] the gateway asks for passwords in clear, and it does so only over TLS
    write tls = { cert = "…", key = "…" } under [server], or name the users under [users]
p.toml:2:11: error: server.listen[0]: "a:b" has "b" for a port; a port is a number from 0 to 65535
    write "HOST:PORT", or a directory for a Unix socket
p.toml:2:18: error: server.listen[1]: "b:1:2" has more than one colon; write an IPv6 address in brackets
    write "HOST:PORT", or a directory for a Unix socket
p.toml:2:27: error: server.listen[2]: ":1" has no host before the port
    write "HOST:PORT", or a directory for a Unix socket
p.toml:2:33: error: server.listen[3]: "[::1" has no closing bracket
    write "HOST:PORT", or a directory for a Unix socket
p.toml:2:48: error: server.listen[5]: h:1 is listed twice
p.toml:3:11: error: server.workers: expected an integer from 1 to 1024
p.toml:4:15: error: server.max_clients: expected an integer from 1 to 1000000, found a number with a fraction
p.toml:5:14: error: server.hold_limit: expected a size such as "64KiB" or "16MiB"
p.toml:6:17: error: server.drain_timeout: expected a duration such as "30s" or "250ms", found an integer
p.toml:7:24: error: server.client_login_timeout: expected a duration such as "30s" or "250ms"
p.toml:8:20: error: server.unix_socket_mode: expected octal permissions such as "0770"
p.toml:9:11: error: server.runtime: expected "per-core" or "multi-thread"
p.toml:11:9: error: log.level: "loud" is no filter directive
    write a level such as "info", or "info,pointsman::wasm=debug"
p.toml:13:11: error: clusters.main.primary: expected a text in quotes, or a table, found an integer
p.toml:14:20: error: clusters.main.read_your_writes: expected true or false, found a text
p.toml:15:11: error: clusters.main.max_lag: expected a duration such as "30s", or "off""#,
    );
}

#[test]
fn clusters_need_servers_that_fit_together() {
    check(
        "",
        "p.toml:1:1: error: clusters: there is none\n    write [clusters.main] and under it primary = \"HOST:5432\"",
    );
    let help = r#"write primary = "HOST:PORT"; or nodes = ["HOST:PORT", …], and the gateway finds the primary"#;
    check("[clusters.main]\n", &format!("p.toml:1:11: error: clusters.main: has no servers\n    {help}"));
    check(
        "[clusters.main]\nreplicas = [\"a\"]\n",
        &format!("p.toml:2:12: error: clusters.main.replicas: has no `primary` beside it\n    {help}"),
    );
    check(
        "[clusters.main]\nprimary = \"a\"\nnodes = [\"b\"]\n",
        "p.toml:3:9: error: clusters.main.nodes: cannot stand beside `primary` or `replicas`
    put all servers under `nodes`, or use `primary` and `replicas` alone",
    );
    check(
        "[clusters.main]\nnodes = [{ address = \"a\", role = \"primary\" }, { address = \"b\", role = \"primary\" }]\n",
        "p.toml:2:9: error: clusters.main.nodes: 2 servers have role = \"primary\"
    leave `role` out and the gateway finds the primary; servers with data of their own are shards",
    );
    check(
        "[clusters.main]\nnodes = [{ address = \"a\", role = \"replica\" }, { weight = 2 }]\n",
        "p.toml:2:9: error: clusters.main.nodes: every server has role = \"replica\"
    leave `role` out and the gateway finds the primary
p.toml:2:47: error: clusters.main.nodes[1]: needs an `address`
    write address = \"HOST:PORT\"",
    );
    check(
        "[clusters.main]\nprimary = { address = \"a\", role = \"primary\" }\nreplicas = [\"b\", \"a:5432\", { address = \"c\", name = \"b:5432\" }, \"d:0\"]\n",
        "p.toml:2:35: error: clusters.main.primary.role: is for servers under `nodes`; here the role is known
    leave it out
p.toml:3:18: error: clusters.main.replicas[1]: a:5432 is already at clusters.main.primary.address
p.toml:3:52: error: clusters.main.replicas[2].name: \"b:5432\" is already the name of clusters.main.replicas[0]
p.toml:3:64: error: clusters.main.replicas[3]: port 0 is no server's",
    );
}

#[test]
fn templates_and_shards_are_checked() {
    check(
        "[clusters.main]\nprimary = \"a\"\nreplicas = { count = 2, address = \"b:5432\" }\n",
        "p.toml:3:35: error: clusters.main.replicas.address: needs {n}, or all replicas are the same
    write for example \"db-replica-{n}:5432\"; {n} is 1, 2, …",
    );
    check(
        "[clusters.main]\nprimary = \"a\"\nreplicas = { address = \"b\" }\n",
        "p.toml:3:12: error: clusters.main.replicas: needs `count` and `address`
    write count = 2 and address = \"db-replica-{n}:5432\"",
    );
    check(
        "[clusters.o]\nprimary = \"z\"\n[[clusters.o.shards]]\nname = \"s\"\nprimary = \"a\"\n[[clusters.o.shards]]\nname = \"s\"\nprimary = \"b\"\n[[clusters.o.shards]]\nprimary = \"c\"\n",
        "p.toml:3:1: error: clusters.o.shards: cannot stand beside `primary`, `replicas` or `nodes`
    move those servers into a shard, or leave `shards` out
p.toml:7:8: error: clusters.o.shards[1].name: another shard is named \"s\"
p.toml:9:1: error: clusters.o.shards[2]: needs a `name`
    write name = \"s2\"",
    );
}

#[test]
fn tls_monitor_and_ejection_are_checked() {
    check(
        "[server]\ntls = { cert = \"server.crt\" }\n[clusters.m]\nprimary = \"a\"\ntls = { mode = \"verify-full\", key = \"nosuch.key\" }\nmonitor = { password = \"hunter2\" }\nejection = { back_off = \"2m\" }\n",
        "p.toml:2:7: error: server.tls: needs `cert` and `key`
    write cert = \"server.crt\" and key = \"server.key\", or mode = \"disable\"
p.toml:5:7: error: clusters.m.tls: needs `ca` to verify against
    write ca = \"ca.crt\"
p.toml:5:7: error: clusters.m.tls: needs `cert` and `key` together
p.toml:5:37: error: clusters.m.tls.key: /etc/pointsman/nosuch.key: there is no such file or directory
p.toml:6:24: error: clusters.m.monitor.password: needs a `user`
    write user = \"…\" beside it
p.toml:7:12: error: clusters.m.ejection: `back_off` is above `max_back_off`",
    );
}

#[test]
fn peers_have_numbers_and_addresses() {
    let main = "[clusters.main]\nprimary = \"a\"\n";
    let config = good(&format!("{main}[peers]\nid = 1\nnodes = {{ 1 = \"me\", 2 = \"b\", 1023 = \"/run/pm:7\" }}\n"));
    let peers = config.peers.unwrap();
    let listed: Vec<_> = peers.nodes.iter().map(|(id, address)| format!("{id}={address}")).collect();
    assert_eq!((peers.id, listed), (1, vec!["2=b:6432".to_owned(), "1023=/run/pm:7".to_owned()]));
    assert_eq!((peers.timeout, peers.tls.mode), (Duration::from_secs(5), UpstreamTlsMode::Prefer));
    check(
        &format!(
            "{main}[peers]\nnodes = {{ 0 = \"a\", 1024 = \"a\", 02 = \"b\", 2 = \"b\", 3 = \"h:0\", x = \"a b\" }}\n"
        ),
        "p.toml:3:1: error: peers: needs an `id`
    write id = 1, and another number for each of the others
p.toml:4:11: error: peers.nodes.0: \"0\" is not a number from 1 to 1023
    write 2 = \"HOST:PORT\" with that gateway's `id`
p.toml:4:20: error: peers.nodes.1024: \"1024\" is not a number from 1 to 1023
    write 2 = \"HOST:PORT\" with that gateway's `id`
p.toml:4:42: error: peers.nodes.2: another entry stands for 2
p.toml:4:51: error: peers.nodes.3: port 0 is no gateway's
p.toml:4:62: error: peers.nodes.x: \"x\" is not a number from 1 to 1023
    write 2 = \"HOST:PORT\" with that gateway's `id`",
    );
    check(
        &format!("{main}[peers]\nid = 7\n"),
        "p.toml:3:1: warning: peers: names no other gateway
    write under [peers.nodes] the others' addresses: 2 = \"HOST:PORT\"",
    );
}

#[test]
fn console_users_need_passwords() {
    let main = "[clusters.main]\nprimary = \"a\"\n";
    let config = good(&format!("{main}[console.users.ops]\npassword = {{ env = \"APP_PASSWORD\" }}\n"));
    assert_eq!(config.console_users["ops"], Credential::Password(Secret::new("hunter2")));
    assert!(config.users.is_empty() && good(main).console_users.is_empty());
    check(
        &format!("{main}[console.users.ops]\n"),
        "p.toml:3:16: error: console.users.ops: needs a `password`\n    write password = { file = \"PATH\" }",
    );
    let other = good(&format!("{main}[console.users.ops]\npassword = \"x\"\n"));
    let changes: Vec<_> = diff(&config, &other).into_iter().map(|change| change.path).collect();
    assert_eq!(changes, ["console.users.ops.password"]);
    let changes: Vec<_> = diff(&good(main), &config).into_iter().map(|change| change.path).collect();
    assert_eq!(changes, ["console.users.ops.password"]);
}

#[test]
fn databases_name_clusters_and_policies_that_exist() {
    let two = "[clusters.main]\nprimary = \"a\"\n[clusters.other]\nprimary = \"b\"\n";
    check(
        two,
        "p.toml:1:11: error: databases: with several clusters the databases must be named
    write [databases.\"*\"] and under it cluster = \"main\"",
    );
    check(
        &format!(
            "{two}[databases.a]\ncluster = \"mian\"\n[databases.\"*\"]\n[databases.b]\ncluster = \"main\"\npolicies = [\"x.wasm\", \"../x\", \"x\"]\npool = {{ min_size = 21 }}\n"
        ),
        "p.toml:6:11: error: databases.a.cluster: there is no cluster \"mian\"
    the clusters are \"main\" and \"other\"
p.toml:7:12: error: databases.\"*\": does not say which cluster it lives on
    write cluster = \"main\" or \"other\"
p.toml:10:13: error: databases.b.policies[0]: a policy is named without `.wasm`
    write \"x\"
p.toml:10:23: error: databases.b.policies[1]: is a path, not a policy's name
    write the file's name without `.wasm`; the folder is `directory` under [policies]
p.toml:10:31: error: databases.b.policies[2]: \"x\" is not built in, and there is no policy folder
    write [policies] and under it directory = \"policies\"
p.toml:11:21: error: databases.b.pool.min_size: `min_size` 21 is above `size` 20",
    );
    check(
        "[policies]\ndirectory = \"nosuch\"\n[clusters.main]\nprimary = \"a\"\n",
        "p.toml:2:13: error: policies.directory: /etc/pointsman/nosuch: there is no such file or directory
    create the folder, or leave `directory` out to use the built-in policy alone",
    );
}

#[test]
fn doubts_are_warnings() {
    check(
        "[policies]\ndirectory = \"policies\"\n[clusters.main]\nprimary = \"a\"\n[databases.a]\npolicies = [\"tenant-router\", \"gone\"]\n",
        "p.toml:6:30: warning: databases.a.policies[1]: /etc/pointsman/policies/gone.wasm: there is no such file or directory",
    );
    check(
        "[server]\nlisten = \"0.0.0.0\"\n[clusters.main]\nprimary = \"a\"\n",
        "p.toml:2:10: warning: server.listen: clients of other hosts cannot log in: without [users] the gateway asks for passwords in clear, and it does so only over TLS
    write tls = { cert = \"…\", key = \"…\" } under [server], or name the users under [users]",
    );
}

#[test]
fn addresses_are_read_as_libpq_writes_them() {
    for (text, expected) in [
        ("db", "db:5432"),
        ("db:1", "db:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("::1", "[::1]:5432"),
        ("[::1]", "[::1]:5432"),
        ("[::1]:7", "[::1]:7"),
        ("/run/pg", "/run/pg:5432"),
        ("/run/pg:7", "/run/pg:7"),
        ("/run/pg/.s.PGSQL.7", "/run/pg:7"),
    ] {
        let address = Address::parse(text, 5432).unwrap();
        assert_eq!(address.to_string(), expected);
        assert_eq!(Address::parse(expected, 1).unwrap(), address, "{expected} reads back");
    }
    for text in ["", "db:", "db:65536", "a b", "a/b", "[x]:1", "[::1]x", "user@db"] {
        assert!(Address::parse(text, 5432).is_err(), "{text}");
    }
    assert!(Address::parse("127.0.0.1", 1).unwrap().is_local());
    assert!(Address::parse("/run", 1).unwrap().is_local());
    assert!(!Address::parse("0.0.0.0", 1).unwrap().is_local());
}

/// The checked-in copies, found from the crate's own directory.
#[test]
fn the_checked_in_reference_and_schema_are_current() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for (file, command, current) in
        [("configuration.md", "reference", reference()), ("configuration.schema.json", "schema", schema())]
    {
        let checked_in = std::fs::read_to_string(docs.join(file)).unwrap_or_default();
        assert!(checked_in == current, "docs/{file} is stale; renew it: cargo run -- config {command} > docs/{file}");
    }
}

#[test]
fn every_key_is_documented_and_every_default_is_valid() {
    use super::decode::Raw as _;
    use super::shape::Shape;

    fn walk(path: &str, shape: &Shape) {
        match shape {
            Shape::Table(table) => {
                assert!(!table.doc.is_empty(), "{path}");
                for field in &table.fields {
                    let path = format!("{path}.{}", field.key);
                    assert!(field.doc.ends_with(['.', '…']), "{path}: {:?}", field.doc);
                    walk(&path, &field.shape);
                }
            }
            Shape::Map { of, .. } | Shape::List(of) => walk(path, of),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| walk(path, shape)),
            Shape::Leaf { .. } | Shape::Choice(_) => {}
        }
    }
    walk("", &RawConfig::shape());
    // Each table once, empty, so that every default is read.
    good(
        "[server.tcp_keepalive]\n[admin]\n[policies.breaker]\n[pool]\n[log]\n[clusters.m]\nprimary = \"a\"\nreplicas = { count = 1, address = \"b\" }\n[clusters.m.tls]\n[clusters.m.monitor]\nuser = \"m\"\n[clusters.m.ejection]\n",
    );
}
