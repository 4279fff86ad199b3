//! What differs between two configurations, and what of it a reload cannot do.
//!
//! Invariant: no secret in it, old or new: of a secret only the fact that it changed. Deliberately
//! absent: applying anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::decode::segment;
use super::secret::Secret;
use super::types::Config;

/// Key paths, themselves and all below them, that take effect only at the next start: they are
/// bound (sockets) or built (threads) once.
const RESTART: &[&str] =
    &["admin.listen", "log.format", "server.listen", "server.runtime", "server.unix_socket_mode", "server.workers"];

/// One difference. Displays as `PATH: OLD -> NEW`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// `clusters.main.shards[0].nodes[r1].weight`, in the checked configuration's terms: an entry of a list by its name, if it
    /// has one. A named entry that comes or goes is one change.
    pub path: String,
    /// As JSON; `None` if the key is new.
    pub before: Option<String>,
    /// As JSON; `None` if the key is gone.
    pub after: Option<String>,
    /// Whether it takes effect only at the next start.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} -> {}", self.path, side(&self.before), side(&self.after))
    }
}

/// Whether a change of this key path takes effect only at the next start.
#[must_use]
pub fn needs_restart(path: &str) -> bool {
    RESTART.iter().any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            // A whole table that comes or goes takes its keys with it.
            || prefix.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The differences, by key path.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let (Flat { leaves: before, entries: had }, Flat { leaves: after, entries: has }) = (flat(old), flat(new));
    let (old_secrets, new_secrets) = (secrets(old), secrets(new));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    // Shown without what is in them.
    let entry = |path: &String, before: bool| Change {
        path: path.clone(),
        before: before.then(|| "{…}".to_owned()),
        after: (!before).then(|| "{…}".to_owned()),
        needs_restart: needs_restart(path),
    };
    let other: Vec<&String> = had.symmetric_difference(&has).collect();
    changes.extend(other.iter().map(|path| entry(path, had.contains(*path))));
    for path in paths {
        if other.iter().any(|entry| path.strip_prefix(entry.as_str()).is_some_and(|rest| rest.starts_with('.'))) {
            continue;
        }
        let (before, after) = (before.get(path), after.get(path));
        let same_secret = old_secrets.get(path) == new_secrets.get(path);
        if before != after || !same_secret {
            changes.push(Change {
                path: path.clone(),
                before: before.cloned(),
                after: after.cloned(),
                needs_restart: needs_restart(path),
            });
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

/// A configuration by its paths.
#[derive(Default)]
struct Flat {
    /// Each leaf as JSON text.
    leaves: BTreeMap<String, String>,
    /// Lists' entries that have names.
    entries: BTreeSet<String>,
}

fn flat(config: &Config) -> Flat {
    let mut flat = Flat::default();
    let value = serde_json::to_value(config).expect("the configuration's maps have text keys");
    flatten(String::new(), &value, &mut flat);
    // A user may have nothing but a name, and then no leaf.
    for name in config.users.keys() {
        flat.leaves.insert(format!("users.{}", segment(name)), "{}".to_owned());
    }
    flat
}

fn flatten(path: String, value: &Value, flat: &mut Flat) {
    match value {
        // Absent and null are the same: a key that was not written.
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{dot}{}", segment(key)), value, flat);
            }
        }
        Value::Array(entries) if !entries.is_empty() => {
            for (index, value) in entries.iter().enumerate() {
                match value.get("name").and_then(Value::as_str) {
                    Some(name) => {
                        let path = format!("{path}[{}]", segment(name));
                        flat.entries.insert(path.clone());
                        flatten(path, value, flat);
                    }
                    None => flatten(format!("{path}[{index}]"), value, flat),
                }
            }
        }
        leaf => {
            flat.leaves.insert(path, leaf.to_string());
        }
    }
}

/// The secrets by the paths under which [`flat`] shows a stand-in for them.
fn secrets(config: &Config) -> BTreeMap<String, &Secret> {
    let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
    let monitors = config.clusters.iter().filter_map(|(name, cluster)| {
        let secret = cluster.monitor.account.as_ref()?.password.as_ref()?;
        Some((format!("clusters.{}.monitor.account.password", segment(name)), secret))
    });
    let users = config.users.iter().filter_map(|(name, user)| {
        let credential = user.credential.as_ref()?;
        Some((format!("users.{}.credential.{}", segment(name), kind(credential)), credential.secret()))
    });
    let console = config.console_users.iter().map(|(name, credential)| {
        (format!("console.users.{}.{}", segment(name), kind(credential)), credential.secret())
    });
    let token = token.map(|secret| ("admin.token".to_owned(), secret));
    token.into_iter().chain(monitors).chain(users).chain(console).collect()
}

/// The word under which serde shows a credential.
fn kind(credential: &super::Credential) -> &'static str {
    match credential {
        super::Credential::Password(_) => "password",
        super::Credential::ScramVerifier(_) => "scram-verifier",
        super::Credential::Md5Hash(_) => "md5-hash",
    }
}
