//! From the raw configuration to the checked one: defaults, references, and what keys mean together.
//!
//! Invariant: every function here returns a usable value even after it has recorded an error, so
//! that one pass finds all errors; [`super::parse`] throws the result away if there was one.
//!
//! Deliberately absent: types of single values (`leaves.rs`), unknown keys (`decode.rs`).

mod cluster;
mod filter;
mod peers;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Sources;
use super::address::Address;
use super::decode::{At, Field};
use super::leaves::{RawSecret, Text};
use super::problem::{Problems, Span, nearest};
use super::raw::{
    RawAdmin, RawConfig, RawDatabase, RawKeepalive, RawLog, RawPolicies, RawPool, RawServer, RawServerTls,
};
use super::secret::Secret;
use super::shape::listed;
use super::types::{
    Admin, Breaker, Cluster, Config, Database, Keepalive, Log, Policies, Pool, PoolOverrides, Server, ServerTls,
};

/// Where clients connect to if nothing is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:6432";
/// The port of an address to listen on that names none.
const DEFAULT_LISTEN_PORT: u16 = 6432;
/// Policies that need no file.
const BUILT_IN_POLICIES: &[&str] = &["read-write-split"];

/// Checks one configuration.
pub(super) struct Checker<'c, 't> {
    pub(super) problems: &'c mut Problems<'t>,
    /// The configuration file's directory; relative paths begin there.
    pub(super) base: &'c Path,
    pub(super) sources: &'c dyn Sources,
}

impl Checker<'_, '_> {
    pub(super) fn config(&mut self, raw: &RawConfig) -> Config {
        let raw_server = part(&raw.server);
        let server = self.server(&raw_server);
        let raw_pool = part(&raw.pool);
        let pool = self.pool(&raw.pool, &raw_pool);
        let max_server_connections = raw_server.max_server_connections.get().size();
        let clusters = self.clusters(raw);
        let policies = self.policies(&part(&raw.policies));
        let databases = self.databases(raw, &clusters, &policies, &pool);
        let users = self.users(raw, &pool);
        if raw.users.is_absent() {
            self.warn_of_passwords_in_clear(&raw_server, &server);
        }
        Config {
            admin: raw.admin.given().map(|admin| self.admin(&admin.value)),
            console_users: self.console_users(raw),
            log: self.log(&part(&raw.log)),
            peers: raw.peers.given().and_then(|peers| self.peers(peers)),
            server,
            policies,
            pool,
            max_server_connections,
            clusters,
            databases,
            users,
        }
    }

    fn server(&mut self, raw: &RawServer) -> Server {
        let keepalive: RawKeepalive = part(&raw.tcp_keepalive);
        Server {
            listen: self.listen(raw),
            unix_socket_mode: raw.unix_socket_mode.get().0,
            tls: raw.tls.given().and_then(|tls| self.server_tls(tls)),
            workers: raw.workers.value().map(|workers| workers.size()),
            runtime: raw.runtime.get(),
            client_login_timeout: raw.client_login_timeout.get().0,
            max_clients: raw.max_clients.get().size(),
            drain_timeout: raw.drain_timeout.get().0,
            hold_limit: raw.hold_limit.get().0,
            tcp_keepalive: keepalive.idle.get().0.map(|idle| Keepalive {
                idle,
                interval: keepalive.interval.get().0,
                count: keepalive.count.get().0,
            }),
        }
    }

    fn listen(&mut self, raw: &RawServer) -> Vec<Address> {
        let default = || Address::parse(DEFAULT_LISTEN, DEFAULT_LISTEN_PORT).into_iter().collect();
        let Some(given) = raw.listen.given() else { return default() };
        if given.value.0.is_empty() {
            let help = format!("write {DEFAULT_LISTEN:?}, or leave `listen` out");
            self.problems.error(&given.span, &given.path, "has no address", help);
            return default();
        }
        // A Unix socket's file is named by a port, and clients expect the one they would use over TCP.
        let tcp = given.value.0.iter().find_map(|text| match Address::parse(&text.value.0, DEFAULT_LISTEN_PORT) {
            Ok(Address::Tcp { port, .. }) => Some(port),
            _ => None,
        });
        let port = tcp.unwrap_or(DEFAULT_LISTEN_PORT);
        let mut listen = Vec::new();
        for text in &given.value.0 {
            let default_port = if text.value.0.starts_with(['/', '.']) { port } else { DEFAULT_LISTEN_PORT };
            let Some(address) = self.address(text, default_port) else { continue };
            if listen.contains(&address) {
                self.problems.error(&text.span, &text.path, format!("{address} is listed twice"), None);
            }
            listen.push(address);
        }
        listen
    }

    fn server_tls(&mut self, raw: &At<RawServerTls>) -> Option<ServerTls> {
        let mode = raw.value.mode.get().0?;
        let missing = |field: &Field<Text>| field.is_absent();
        if missing(&raw.value.cert) || missing(&raw.value.key) {
            let help = r#"write cert = "server.crt" and key = "server.key", or mode = "disable""#.to_owned();
            self.problems.error(&raw.span, &raw.path, "needs `cert` and `key`", help);
        }
        let cert = self.file(&raw.value.cert)?;
        let key = self.file(&raw.value.key)?;
        Some(ServerTls { mode, cert, key, client_ca: self.file(&raw.value.client_ca) })
    }

    fn admin(&mut self, raw: &RawAdmin) -> Admin {
        let default = Address::Tcp { host: "127.0.0.1".to_owned(), port: 9632 };
        let listen = match raw.listen.given() {
            Some(text) => match self.address(text, default.port()) {
                Some(Address::Unix { .. }) => {
                    let help = format!("write {:?}", default.to_string());
                    self.problems.error(&text.span, &text.path, "cannot be a Unix socket", help);
                    default
                }
                address => address.unwrap_or(default),
            },
            None => default,
        };
        let token = raw.token_file.given().and_then(|file| self.secret_file(&file.value.0, &file.span, &file.path));
        let token_file = raw.token_file.value().map(|file| self.base.join(&file.0));
        Admin { listen, token_file, token }
    }

    fn policies(&mut self, raw: &RawPolicies) -> Policies {
        let breaker = part(&raw.breaker);
        let directory = raw.directory.given().map(|text| {
            let path = self.base.join(&text.value.0);
            if let Err(reason) = self.sources.check_directory(&path) {
                let message = format!("{}: {reason}", path.display());
                let help = "create the folder, or leave `directory` out to use the built-in policy alone".to_owned();
                self.problems.error(&text.span, &text.path, message, help);
            }
            path
        });
        Policies {
            directory,
            on_fault: raw.on_fault.get(),
            deadline: raw.deadline.get().0,
            memory: raw.memory.get().0,
            max_size: raw.max_size.get().0,
            breaker: Breaker { faults: breaker.faults.get().0, window: breaker.window.get().0 },
        }
    }

    fn log(&mut self, raw: &RawLog) -> Log {
        if let Some(level) = raw.level.given()
            && let Err(message) = filter::check(&level.value.0)
        {
            let help = r#"write a level such as "info", or "info,pointsman::wasm=debug""#.to_owned();
            self.problems.error(&level.span, &level.path, message, help);
        }
        Log { format: raw.format.get(), level: raw.level.get().0 }
    }

    fn clusters(&mut self, raw: &RawConfig) -> BTreeMap<String, Cluster> {
        let empty = BTreeMap::new();
        let given = raw.clusters.value().map_or(&empty, |map| &map.0);
        if given.is_empty() && (raw.clusters.is_absent() || raw.clusters.given().is_some()) {
            let help = "write [clusters.main] and under it primary = \"HOST:5432\"".to_owned();
            self.problems.error(&(0..0), "clusters", "there is none", help);
        }
        given.iter().map(|(name, cluster)| (name.clone(), self.cluster(name, cluster))).collect()
    }

    fn databases(
        &mut self,
        raw: &RawConfig,
        clusters: &BTreeMap<String, Cluster>,
        policies: &Policies,
        pool: &Pool,
    ) -> BTreeMap<String, Database> {
        let only = clusters.keys().next().filter(|_| clusters.len() == 1);
        if let Some(given) = raw.databases.value().filter(|databases| !databases.0.is_empty()) {
            let each = given.0.iter().filter_map(|(name, at)| {
                let database = self.database(at, clusters, only, policies, pool)?;
                Some((name.clone(), database))
            });
            return each.collect();
        }
        if let Some(only) = only {
            let (dbname, policies, pool) = (None, None, PoolOverrides::default());
            let database = Database { cluster: only.clone(), dbname, policies, pool };
            return BTreeMap::from([("*".to_owned(), database)]);
        }
        if let Some(first) = raw.clusters.value().and_then(|clusters| clusters.0.first_key_value()) {
            let message = "with several clusters the databases must be named";
            let help = format!("write [databases.\"*\"] and under it cluster = {:?}", first.0);
            self.problems.error(&first.1.span, "databases", message, help);
        }
        BTreeMap::new()
    }

    fn database(
        &mut self,
        raw: &At<RawDatabase>,
        clusters: &BTreeMap<String, Cluster>,
        only: Option<&String>,
        policies: &Policies,
        pool: &Pool,
    ) -> Option<Database> {
        let overrides = self.overrides(&raw.value.pool, pool);
        let chain = raw.value.policies.given().map(|list| {
            if list.value.0.is_empty() {
                let help = "leave `policies` out, or write [\"read-write-split\"]".to_owned();
                self.problems.error(&list.span, &list.path, "names no policy", help);
            }
            for name in &list.value.0 {
                self.policy_name(name, policies);
            }
            list.value.0.iter().map(|name| name.value.0.clone()).collect()
        });
        let cluster = self.cluster_of(raw, clusters, only)?;
        let dbname = raw.value.dbname.value().map(|name| name.0.clone());
        Some(Database { cluster, dbname, policies: chain, pool: overrides })
    }

    /// The cluster that a database names, or the only one.
    fn cluster_of(
        &mut self,
        raw: &At<RawDatabase>,
        clusters: &BTreeMap<String, Cluster>,
        only: Option<&String>,
    ) -> Option<String> {
        let known: Vec<String> = clusters.keys().map(|key| format!("{key:?}")).collect();
        let Some(name) = raw.value.cluster.given() else {
            if only.is_none() && raw.value.cluster.is_absent() {
                let message = "does not say which cluster it lives on";
                let help = format!("write cluster = {}", listed(&known, "or"));
                self.problems.error(&raw.span, &raw.path, message, help);
            }
            return only.cloned();
        };
        if !clusters.contains_key(&name.value.0) {
            let near = nearest(&name.value.0, clusters.keys().map(String::as_str));
            let help = match near {
                Some(near) => Some(format!("did you mean {near:?}?")),
                None if known.is_empty() => None,
                None => Some(format!("the clusters are {}", listed(&known, "and"))),
            };
            let message = format!("there is no cluster {:?}", name.value.0);
            self.problems.error(&name.span, &name.path, message, help);
        }
        Some(name.value.0.clone())
    }

    fn policy_name(&mut self, name: &At<Text>, policies: &Policies) {
        let text = &name.value.0;
        if let Some(stem) = text.strip_suffix(".wasm") {
            let help = format!("write {stem:?}");
            self.problems.error(&name.span, &name.path, "a policy is named without `.wasm`", help);
        } else if text.contains(['/', '\\']) {
            let help = "write the file's name without `.wasm`; the folder is `directory` under [policies]".to_owned();
            self.problems.error(&name.span, &name.path, "is a path, not a policy's name", help);
        } else if !BUILT_IN_POLICIES.contains(&text.as_str()) {
            let Some(directory) = &policies.directory else {
                let message = format!("{text:?} is not built in, and there is no policy folder");
                let help = "write [policies] and under it directory = \"policies\"".to_owned();
                return self.problems.error(&name.span, &name.path, message, help);
            };
            // No error: a reload must not fail because a file is being replaced.
            let file = directory.join(format!("{text}.wasm"));
            if let Err(reason) = self.sources.check_file(&file) {
                let message = format!("{}: {reason}", file.display());
                self.problems.warning(&name.span, &name.path, message, None);
            }
        }
    }

    fn pool(&mut self, field: &Field<RawPool>, raw: &RawPool) -> Pool {
        let pool = Pool {
            mode: raw.mode.get(),
            size: raw.size.get().size(),
            min_size: raw.min_size.get().size(),
            reserve_size: raw.reserve_size.get().size(),
            reserve_after: raw.reserve_after.get().0,
            idle_timeout: raw.idle_timeout.get().0,
            lifetime: raw.lifetime.get().0,
            query_wait: raw.query_wait.get().0,
            max_queue: raw.max_queue.get().size(),
            prepared_statements: raw.prepared_statements.get().size(),
            connect_timeout: raw.connect_timeout.get().0,
        };
        if let Some(at) = field.given() {
            self.min_within_size(at, &pool);
        }
        pool
    }

    /// What differs from `below`, checked together with it.
    fn overrides(&mut self, field: &Field<RawPool>, below: &Pool) -> PoolOverrides {
        let Some(at) = field.given() else { return PoolOverrides::default() };
        let raw = &at.value;
        let overrides = PoolOverrides {
            mode: raw.mode.value().copied(),
            size: raw.size.value().map(|count| count.size()),
            min_size: raw.min_size.value().map(|count| count.size()),
            reserve_size: raw.reserve_size.value().map(|count| count.size()),
            reserve_after: raw.reserve_after.value().map(|time| time.0),
            idle_timeout: raw.idle_timeout.value().map(|time| time.0),
            lifetime: raw.lifetime.value().map(|time| time.0),
            query_wait: raw.query_wait.value().map(|time| time.0),
            max_queue: raw.max_queue.value().map(|count| count.size()),
            prepared_statements: raw.prepared_statements.value().map(|count| count.size()),
            connect_timeout: raw.connect_timeout.value().map(|time| time.0),
        };
        let mut effective = below.clone();
        overrides.apply(&mut effective);
        self.min_within_size(at, &effective);
        overrides
    }

    fn min_within_size(&mut self, at: &At<RawPool>, pool: &Pool) {
        if pool.min_size > pool.size {
            let message = format!("`min_size` {} is above `size` {}", pool.min_size, pool.size);
            let (span, path) = match at.value.min_size.given().map(|at| (&at.span, &at.path)) {
                Some(place) => place,
                None => (&at.span, &at.path),
            };
            self.problems.error(span, path, message, None);
        }
    }

    /// Without users the password travels in clear; over TCP from elsewhere that needs TLS.
    fn warn_of_passwords_in_clear(&mut self, raw: &RawServer, server: &Server) {
        let Some(listen) = raw.listen.given() else { return };
        // A `tls` table that is incomplete was complained of; it is not clear text that was meant.
        let in_clear = raw.tls.is_absent() || raw.tls.value().is_some_and(|tls| tls.mode.get().0.is_none());
        if !in_clear || server.listen.iter().all(Address::is_local) {
            return;
        }
        let message = "clients of other hosts cannot log in: without [users] the gateway asks for passwords in clear, and it does so only over TLS";
        let help =
            "write tls = { cert = \"…\", key = \"…\" } under [server], or name the users under [users]".to_owned();
        self.problems.warning(&listen.span, &listen.path, message, help);
    }

    /// An address, or an error where it stands.
    fn address(&mut self, text: &At<Text>, default_port: u16) -> Option<Address> {
        match Address::parse(&text.value.0, default_port) {
            Ok(address) => Some(address.resolved(self.base)),
            Err(reason) => {
                let message = format!("{:?} {reason}", text.value.0);
                let help = "write \"HOST:PORT\", or a directory for a Unix socket".to_owned();
                self.problems.error(&text.span, &text.path, message, help);
                None
            }
        }
    }

    /// A file that must be readable.
    fn file(&mut self, field: &Field<Text>) -> Option<PathBuf> {
        let at = field.given()?;
        let path = self.base.join(&at.value.0);
        if let Err(reason) = self.sources.check_file(&path) {
            let message = format!("{}: {reason}", path.display());
            self.problems.error(&at.span, &at.path, message, None);
        }
        Some(path)
    }

    /// The secret that `field` holds or points to; never empty.
    fn secret(&mut self, field: &Field<RawSecret>) -> Option<Secret> {
        let at = field.given()?;
        let secret = match &at.value {
            RawSecret::Literal(secret) => secret.clone(),
            RawSecret::Env(name) => {
                let Some(text) = self.sources.env(&name.value.0) else {
                    let message = format!("the environment variable {} is not set", name.value.0);
                    self.problems.error(&name.span, &name.path, message, None);
                    return None;
                };
                Secret::new(&text)
            }
            RawSecret::File(file) => return self.secret_file(&file.value.0, &file.span, &file.path),
        };
        self.not_empty(secret, &at.span, &at.path)
    }

    /// A file's content without one line break at its end; never empty.
    fn secret_file(&mut self, file: &str, span: &Span, path: &str) -> Option<Secret> {
        let full = self.base.join(file);
        match self.sources.read(&full) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                self.not_empty(Secret::new(text.strip_suffix('\r').unwrap_or(text)), span, path)
            }
            Err(reason) => {
                self.problems.error(span, path, format!("{}: {reason}", full.display()), None);
                None
            }
        }
    }

    fn not_empty(&mut self, secret: Secret, span: &Span, path: &str) -> Option<Secret> {
        if secret.expose().is_empty() {
            self.problems.error(span, path, "is empty", None);
            return None;
        }
        Some(secret)
    }
}

/// A table that may be absent: then all of it is defaults.
fn part<T: Default + Clone>(field: &Field<T>) -> T {
    field.value().cloned().unwrap_or_default()
}
