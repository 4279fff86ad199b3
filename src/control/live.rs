//! The live snapshot: the checked configuration and what was built from it, swapped as a whole.
//!
//! Invariant: whoever loads the snapshot sees one configuration. What a new configuration does not change is carried over,
//! connections included.
//!
//! Deliberately absent: where configurations come from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::auth::StoredPassword;
use crate::config::{Config, Credential};
use crate::net::{NetError, ServerTls, ServerTlsFiles, ServerTlsMode};
use crate::pool::Budget;

use super::cluster::Cluster;
use super::reach::Peers;

/// Why a configuration that was read cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Certificates or keys.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A user's password.
    #[error("{table}.{user}.password: {source}")]
    Password {
        /// The table of the configuration that names the user.
        table: &'static str,
        /// The user.
        user: String,
        /// What is wrong.
        source: crate::auth::VerifierError,
    },
}

/// What sessions work from.
#[derive(Debug)]
pub struct Live {
    /// The checked configuration.
    pub config: Config,
    /// By name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// What is kept of the configured users.
    pub users: HashMap<String, StoredPassword>,
    /// The console's.
    pub console_users: HashMap<String, StoredPassword>,
    /// TLS towards clients.
    pub tls: Option<ServerTls>,
    /// The gateways that pass each other's cancel requests on.
    pub peers: Option<Arc<Peers>>,
    /// Grows with every swap.
    pub serial: u32,
    /// Numbers the catalogues of all clusters.
    catalogs: Arc<AtomicU64>,
}

impl Live {
    /// Builds what `config` says, keeping what `old` has of it already.
    ///
    /// # Errors
    /// A certificate or password that cannot be used; nothing was changed then.
    pub fn build(config: Config, old: Option<&Self>, budget: &Arc<Budget>, workers: usize) -> Result<Self, LiveError> {
        let mut users = HashMap::new();
        let stored = |table: &'static str, name: &String, credential: &Credential| {
            let stored = StoredPassword::parse(credential.secret().expose());
            stored.map_err(|source| LiveError::Password { table, user: name.clone(), source })
        };
        for (name, user) in &config.users {
            if let Some(credential) = &user.credential {
                users.insert(name.clone(), stored("users", name, credential)?);
            }
        }
        let mut console_users = HashMap::new();
        for (name, credential) in &config.console_users {
            console_users.insert(name.clone(), stored("console.users", name, credential)?);
        }
        let tls = match &config.server.tls {
            None => None,
            Some(tls) => {
                let mode = match tls.mode {
                    // Whoever uses TLS must show a certificate; whether all must use it is asked when they greet.
                    _ if tls.client_ca.is_some() => ServerTlsMode::Verify,
                    crate::config::ServerTlsMode::Prefer => ServerTlsMode::Prefer,
                    crate::config::ServerTlsMode::Require => ServerTlsMode::Require,
                };
                let files =
                    ServerTlsFiles { cert: tls.cert.clone(), key: tls.key.clone(), client_ca: tls.client_ca.clone() };
                ServerTls::load(mode, &files)?
            }
        };
        let peers = config.peers.as_ref().map(Peers::new).transpose()?.map(Arc::new);
        let serial = old.map_or(1, |old| old.serial + 1);
        let catalogs = old.map_or_else(Arc::default, |old| Arc::clone(&old.catalogs));
        let mut clusters = BTreeMap::new();
        for (number, (name, cluster)) in (0_u32..).zip(&config.clusters) {
            let kept = old.and_then(|old| old.clusters.get(name)).filter(|kept| kept.config == *cluster);
            let built = match kept {
                Some(kept) => Arc::clone(kept),
                None => {
                    let (budget, catalogs) = (Arc::clone(budget), Arc::clone(&catalogs));
                    let mut built = Cluster::new((serial << 12) + number, name, cluster, budget, catalogs, workers)?;
                    if let Some(old) = old.and_then(|old| old.clusters.get(name)) {
                        built.published.inherit(&old.published, &built.topology);
                        built.keyed = Arc::clone(&old.keyed);
                    }
                    Arc::new(built)
                }
            };
            clusters.insert(name.clone(), built);
        }
        budget.set_limit(config.max_server_connections);
        Ok(Self { config, clusters, users, console_users, tls, peers, serial, catalogs })
    }

    /// Whether only configured users are let in.
    #[must_use]
    pub fn knows_users(&self) -> bool {
        !self.config.users.is_empty()
    }

    /// The cluster of the database that a client asks for, and the database's name on the servers.
    #[must_use]
    pub fn database<'a>(&'a self, name: &'a str) -> Option<(&'a Arc<Cluster>, &'a str)> {
        let database = self.config.database(name)?;
        let cluster = self.clusters.get(&database.cluster)?;
        Some((cluster, database.dbname.as_deref().unwrap_or(name)))
    }
}
