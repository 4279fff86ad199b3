//! `pointsman check`: what is wrong with a configuration, or what it would run.
//!
//! Invariant: the answer goes to standard output in both forms, so that it can be piped; secrets
//! are not in it. Policies are loaded and tried as the gateway would. Deliberately absent: connecting to anything.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::args::{CheckArgs, CheckFormat};
use super::{WRONG_INPUT, print};
use crate::config::{Checked, Cluster, Config, Database, PoolMode, Problem, RoleSetting, ServerTlsMode, User};
use crate::control::config_file::{self, ConfigError};
use crate::control::policies::store_config;
use crate::wasm::{self, PolicyStatus, PolicyStore};

/// The policy that stands at the end of every folder's chain.
const LAST_LINK: &str = "read-write-split";

/// Checks the file and prints the answer.
pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = match config_file::load(&args.config) {
        Err(error @ ConfigError::Unreadable { .. }) => return Err(error.into()),
        Err(ConfigError::Problems(problems)) => Err(problems),
        Ok(checked) => Ok(checked),
    };
    let found = match &loaded {
        Ok(checked) => Policies::load(&checked.config),
        Err(_) => Policies::default(),
    };
    print(&match args.format {
        CheckFormat::Text => text(&args.config, &loaded, &found),
        CheckFormat::Json => machine(&loaded, &found)?,
    })?;
    let right = loaded.is_ok() && found.errors.is_empty();
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::from(WRONG_INPUT) })
}

/// What the policies that the configuration names have come to.
#[derive(Debug, Default)]
struct Policies {
    /// Of the folder, those that can be loaded, in the order of the chain.
    names: Vec<String>,
    /// `FILE: what is wrong`.
    errors: Vec<String>,
    /// Files that look like policies and are not taken.
    warnings: Vec<String>,
}

impl Policies {
    /// Compiles and tries them, which takes a moment for each.
    fn load(config: &Config) -> Self {
        let mut found = Self::default();
        let directory = config.policies.directory.as_deref();
        match directory.map(wasm::ignored).transpose() {
            Ok(ignored) => found.warnings.extend(ignored.into_iter().flatten().map(|(file, reason)| {
                format!("{}: not taken: {reason}", directory.unwrap_or(Path::new("")).join(file).display())
            })),
            Err(error) => {
                found.errors.push(format!("{}: {error}", directory.unwrap_or(Path::new("")).display()));
                return found;
            }
        }
        match PolicyStore::start(store_config(config, 1), Arc::new(|_| {})) {
            Ok(store) => found.take(directory, store.status()),
            Err(error) => found.errors.push(error.to_string()),
        }
        found
    }

    fn take(&mut self, directory: Option<&Path>, status: Vec<PolicyStatus>) {
        for PolicyStatus { name, error, .. } in status {
            if let Some(error) = error {
                let mut error = &*error;
                let place = place(directory, &name, &mut error);
                self.errors.push(format!("{place}: {error}"));
            } else if *name != *LAST_LINK {
                self.names.push(name.into());
            }
        }
        self.names.sort_unstable();
    }
}

/// The file that an error of a policy is about. What is wrong with its settings' syntax begins with their line.
fn place(directory: Option<&Path>, name: &str, error: &mut &str) -> String {
    let of_settings = error.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    let (file, line) = match of_settings {
        Some((line, rest)) => {
            *error = rest;
            (format!("{name}.toml"), format!(":{line}"))
        }
        None => (format!("{name}.wasm"), String::new()),
    };
    format!("{}{line}", directory.unwrap_or(Path::new("")).join(file).display())
}

fn machine(loaded: &Result<Checked, Vec<Problem>>, found: &Policies) -> anyhow::Result<String> {
    let answer = match loaded {
        Ok(checked) => json!({
            "ok": found.errors.is_empty(),
            "problems": checked.warnings,
            "policies": { "names": found.names, "errors": found.errors, "warnings": found.warnings },
            "config": checked.config,
        }),
        Err(problems) => json!({ "ok": false, "problems": problems, "policies": null, "config": null }),
    };
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

fn text(path: &Path, loaded: &Result<Checked, Vec<Problem>>, found: &Policies) -> String {
    match loaded {
        Err(problems) => format!("{}\n", ConfigError::Problems(problems.clone())),
        Ok(checked) => {
            let mut out = String::new();
            for warning in &checked.warnings {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(out, "{warning}");
            }
            for warning in &found.warnings {
                let _ = writeln!(out, "{warning}");
            }
            for error in &found.errors {
                let _ = writeln!(out, "{error}");
            }
            if found.errors.is_empty() {
                let _ = write!(out, "{} is right. It would run:\n\n", path.display());
            } else {
                let _ = write!(out, "{} is right, but not every policy is. It would run:\n\n", path.display());
            }
            out + &summary(&checked.config, &found.names)
        }
    }
}

/// What would run. `folder` names the policies found in the policy folder.
fn summary(config: &Config, folder: &[String]) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: String| {
        let _ = writeln!(out, "  {label:<10} {text}");
    };
    let listen: Vec<String> = config.server.listen.iter().map(ToString::to_string).collect();
    let tls = match config.server.tls.as_ref().map(|tls| tls.mode) {
        None => "without TLS",
        Some(ServerTlsMode::Prefer) => "TLS for clients that ask for it",
        Some(ServerTlsMode::Require) => "TLS required",
    };
    line("listens on", format!("{} ({tls})", listen.join(", ")));
    if let Some(admin) = &config.admin {
        line("admin", admin.listen.to_string());
    }
    line(
        "users",
        match config.users.len() {
            0 => "any; the servers check the passwords".to_owned(),
            _ => config.users.iter().map(|(name, user)| describe_user(name, user)).collect::<Vec<_>>().join(", "),
        },
    );
    if !config.console_users.is_empty() {
        line("console", config.console_users.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    if let Some(peers) = &config.peers {
        let others: Vec<_> = peers.nodes.iter().map(|(id, address)| format!("{id} ({address})")).collect();
        line("peers", format!("{}, with {}", peers.id, others.join(", ")));
    }
    for (name, database) in &config.databases {
        line("database", describe_database(name, database, config, folder));
    }
    for (name, cluster) in &config.clusters {
        line("cluster", describe_cluster(name, cluster));
    }
    out
}

/// With the pool's mode and size where they are the user's own.
fn describe_user(name: &str, user: &User) -> String {
    let mode = user.pool.mode.map(|own| format!("{} pools", mode(own)));
    match (mode, user.pool.size) {
        (None, None) => name.to_owned(),
        (Some(mode), None) => format!("{name} ({mode})"),
        (mode, Some(size)) => format!("{name} ({} of {size})", mode.unwrap_or_else(|| "pools".to_owned())),
    }
}

const fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

fn describe_database(name: &str, database: &Database, config: &Config, folder: &[String]) -> String {
    let name = if name == "*" { "any" } else { name };
    let mut pool = config.pool.clone();
    database.pool.apply(&mut pool);
    let mode = mode(pool.mode);
    let chain = match &database.policies {
        Some(own) => own.join(", then "),
        None => folder.iter().map(String::as_str).chain([LAST_LINK]).collect::<Vec<_>>().join(", then "),
    };
    let on_servers = database.dbname.as_deref().map(|dbname| format!(" ({dbname} there)")).unwrap_or_default();
    format!("{name} on {}{on_servers}, {mode} pools of {}, routed by {chain}", database.cluster, pool.size)
}

fn describe_cluster(name: &str, cluster: &Cluster) -> String {
    let mut out = name.to_owned();
    for shard in &cluster.shards {
        if cluster.shards.len() > 1 {
            let _ = write!(out, "\n    shard {}", shard.name);
        }
        for node in &shard.nodes {
            let role = match node.role {
                RoleSetting::Auto => "auto",
                RoleSetting::Primary => "primary",
                RoleSetting::Replica => "replica",
            };
            let address = node.address.to_string();
            let named = if node.name == address { String::new() } else { format!(" ({})", node.name) };
            let weight = if node.weight == 1 { String::new() } else { format!(", weight {}", node.weight) };
            let _ = write!(out, "\n    {role:<8} {address}{named}{weight}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, folder: &[&str], expected: &str) {
        let checked = crate::config::parse(text, Path::new("pointsman.toml"), &config_file::Machine).unwrap();
        let folder: Vec<String> = folder.iter().map(ToString::to_string).collect();
        assert_eq!(summary(&checked.config, &folder), expected);
    }

    #[test]
    fn the_smallest_configuration() {
        check(
            "[clusters.main]\nprimary = \"db-0\"\nreplicas = [\"db-1\", { address = \"db-2\", weight = 3 }]\n",
            &[],
            "  listens on 127.0.0.1:6432 (without TLS)
  users      any; the servers check the passwords
  database   any on main, transaction pools of 20, routed by read-write-split
  cluster    main
    primary  db-0:5432
    replica  db-1:5432
    replica  db-2:5432, weight 3
",
        );
    }

    #[test]
    fn shards_users_and_a_chain() {
        check(
            r#"
            [admin]
            [databases.app]
            dbname = "app_live"
            pool = { mode = "session", size = 5 }
            [users.app]
            password = "hunter2"
            [users.batch.pool]
            mode = "session"
            size = 3
            [users.odd.pool]
            mode = "statement"
            [users.web.pool]
            size = 50
            [console.users.ops]
            password = "x"
            [peers]
            id = 1
            nodes = { 2 = "b:6432", 3 = "c:6432" }
            [[clusters.orders.shards]]
            name = "s0"
            primary = { address = "a", name = "first" }
            [[clusters.orders.shards]]
            name = "s1"
            nodes = ["b", "c"]
            "#,
            &["audit", "tenants"],
            "  listens on 127.0.0.1:6432 (without TLS)
  admin      127.0.0.1:9632
  users      app, batch (session pools of 3), odd (statement pools), web (pools of 50)
  console    ops
  peers      1, with 2 (b:6432), 3 (c:6432)
  database   app on orders (app_live there), session pools of 5, routed by audit, then tenants, then read-write-split
  cluster    orders
    shard s0
    primary  a:5432 (first)
    shard s1
    auto     b:5432
    auto     c:5432
",
        );
    }

    #[test]
    fn machines_are_told_the_problems_and_no_secret() {
        let text = "[clusters.main]\nprimary = \"db-0\"\nmonitor = { user = \"m\", password = \"hunter2\" }\n";
        let parse = |text| crate::config::parse(text, Path::new("p.toml"), &config_file::Machine);
        let good = machine(&parse(text), &Policies::default()).unwrap();
        assert!(good.contains("\"ok\": true") && good.contains("(secret)") && !good.contains("hunter2"), "{good}");
        let bad = machine(&parse("[clusters.main]\nprimry = \"x\"\n"), &Policies::default()).unwrap();
        let bad: serde_json::Value = serde_json::from_str(&bad).unwrap();
        assert_eq!(bad["ok"], false);
        assert_eq!(bad["problems"][1]["path"], "clusters.main.primry");
        assert_eq!(bad["problems"][1]["line"], 2);
    }
    #[test]
    fn policies_are_loaded_and_tried() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: &[u8]| std::fs::write(directory.path().join(file), bytes).unwrap();
        write("10-good.wasm", wasm::builtin::READ_WRITE_SPLIT);
        write("20-bad.wasm", b"no component");
        write("30-mute.wasm", wasm::builtin::READ_WRITE_SPLIT);
        write("30-mute.toml", b"no = [");
        write("a name.wasm", wasm::builtin::READ_WRITE_SPLIT);
        let text = format!("[policies]\ndirectory = {:?}\n[clusters.main]\nprimary = \"db\"\n", directory.path());
        let checked = crate::config::parse(&text, Path::new("p.toml"), &config_file::Machine).unwrap();
        let found = Policies::load(&checked.config);
        assert_eq!(found.names, ["10-good"]);
        let [bad, mute] = found.errors.as_slice() else { panic!("{found:?}") };
        assert!(bad.contains("20-bad.wasm: it is not WebAssembly"), "{bad}");
        assert!(mute.contains("30-mute.toml:1: unclosed array"), "{mute}");
        assert!(found.warnings[0].contains("a name.wasm: not taken"), "{found:?}");
    }
}
