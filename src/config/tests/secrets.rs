//! What changed between two configurations, and that no secret is quoted, dumped or told.

use super::*;

#[test]
fn no_problem_quotes_a_secret() {
    let text = r#"
[admin]
token_file = "empty"
[clusters.main]
primary = "a"
[users.a]
password = "SCRAM-SHA-256$hunter2"
[users.b]
password = { env = "APP_PASSWORD", file = "admin.token" }
[users.c]
password = { env = "NOSUCH" }
[users.d]
password = ""
[users.e]
password = 1234567
[users.f]
password = ["hunter2"]
"#;
    check(
        text,
        r#"p.toml:3:14: error: admin.token_file: is empty
p.toml:7:12: error: users.a.password: begins like a SCRAM verifier and is none
    copy rolpassword from pg_authid whole: SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY
p.toml:9:12: error: users.b.password: needs exactly one of `env` and `file`
    write { env = "NAME" } or { file = "PATH" }
p.toml:11:20: error: users.c.password.env: the environment variable NOSUCH is not set
p.toml:13:12: error: users.d.password: is empty
p.toml:15:12: error: users.e.password: expected a text in quotes, or { env = "NAME" } or { file = "PATH" }, found an integer
p.toml:17:12: error: users.f.password: expected a text in quotes, or { env = "NAME" } or { file = "PATH" }, found an array"#,
    );
}

#[test]
fn no_dump_shows_a_secret() {
    let config = good(FULL);
    for dump in [format!("{config:?}"), serde_json::to_string(&config).unwrap()] {
        for secret in ["hunter2", "t0ken", "QUFB", "a3556571"] {
            assert!(!dump.contains(secret), "{secret} in {dump}");
        }
    }
}

#[test]
fn a_difference_names_paths_and_restarts_but_no_secret() {
    let old = good(FULL);
    assert_eq!(diff(&old, &old), []);
    let text = FULL
        .replace("0.0.0.0:6433", "0.0.0.0:6434")
        .replace("weight  = 2", "weight  = 3")
        .replace("count   = 5", "count   = 1")
        .replace("md5a3556571", "md5b3556571")
        .replace(r#"memory    = "16MiB""#, "memory    = 16777217")
        .replace("[users.local]", "[users.\"new one\"]");
    let new = good(&text);
    let changes = diff(&old, &new);
    let shown: Vec<String> = changes
        .iter()
        .filter(|change| !change.path.contains("main.shards["))
        .map(|change| format!("{change}{}", if change.needs_restart { " (restart)" } else { "" }))
        .collect();
    assert_eq!(
        shown,
        [
            r#"policies.memory: "16MiB" -> "16777217B""#,
            r#"server.listen[0]: "0.0.0.0:6433" -> "0.0.0.0:6434" (restart)"#,
            r#"server.listen[1]: "/run/pointsman:6433" -> "/run/pointsman:6434" (restart)"#,
            r#"users."new one": nothing -> {}"#,
            "users.local: {} -> nothing",
            r#"users.old.credential.md5-hash: "(secret)" -> "(secret)""#,
        ]
    );
    // Entries of lists go by their names, and one that comes or goes is one change.
    let nodes: Vec<String> =
        changes.iter().map(ToString::to_string).filter(|change| change.contains("main.shards[")).collect();
    let node = |n: u8| format!("clusters.main.shards[main].nodes[\"db-replica-{n}:5432\"]");
    let gone = (2..=5).map(|n| format!("{}: {{…}} -> nothing", node(n)));
    let expected: Vec<String> = [format!("{}.weight: 2 -> 3", node(1))].into_iter().chain(gone).collect();
    assert_eq!(nodes, expected);
}

#[test]
fn each_secret_that_changes_is_a_difference() {
    let full = format!("{FULL}\n[clusters.main.monitor]\nuser = \"m\"\npassword = \"one\"\n");
    let old = good(&full);
    let mut new = old.clone();
    new.admin.as_mut().unwrap().token = Some(Secret::new("other"));
    new.users.get_mut("app").unwrap().credential = Some(Credential::Password(Secret::new("other")));
    let main = new.clusters.get_mut("main").unwrap();
    main.monitor.account.as_mut().unwrap().password = Some(Secret::new("other"));
    let paths: Vec<String> = diff(&old, &new).into_iter().map(|change| change.path).collect();
    assert_eq!(paths, ["admin.token", "clusters.main.monitor.account.password", "users.app.credential.password"]);
    // A secret that `diff` does not know would change unseen: all that are shown must be listed.
    let dump = serde_json::to_string(&old).unwrap();
    assert_eq!(dump.matches(HIDDEN).count(), 5, "a new kind of secret? then list it in diff.rs: {dump}");
}
