//! A cluster at work: its nodes' addresses, the accounts in use on it, what its sessions share.
//!
//! Invariant: a node's place in the configuration is its number in every list here.
//! Deliberately absent: the choice of a node (`topology`), probing (`discover`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::keyed::Keyed;
use super::published::Published;
use super::reach::{client_tls, server_address};
use super::refused::Refused;
use super::starts::{Beginning, Family};
use crate::auth::{Credentials, Secret};
use crate::catalog::{Catalog, Definitions};
use crate::config::{self, Pool as PoolConfig, PoolMode, RoleSetting};
use crate::discover::{self, Failure, MonitorHandle, Vacated};
use crate::net::{ClientTls, NetError, ServerAddress};
use crate::pool::{Budget, Connector, Pool, PoolCounts, PoolLimits};
use crate::topology::{Node, NodeSpec, Role, Topology};
use crate::upstream::{Interner, Notifiers, Parameters, Settings};

/// Database and user.
type AccountKey = (Box<str>, Box<str>);

/// A cluster of the configuration, at work.
#[derive(Debug)]
pub struct Cluster {
    id: u32,
    next_account: AtomicU64,
    /// Its name.
    pub name: Box<str>,
    /// What it was built from.
    pub config: config::Cluster,
    /// Nodes, roles, health.
    pub topology: Topology,
    tls: ClientTls,
    addresses: HashMap<Box<str>, ServerAddress>,
    accounts: Mutex<HashMap<AccountKey, Arc<Account>>>,
    budget: Arc<Budget>,
    workers: usize,
    schema: AtomicU64,
    /// See [`Definitions::redefined`].
    redefined: AtomicU64,
    /// DDL that others can see.
    pub published: Published,
    /// What was written under policies' consistency keys.
    pub keyed: Arc<Keyed>,
    /// By the databases' names on the servers.
    catalogs: Mutex<HashMap<Box<str>, Arc<ArcSwap<Catalog>>>>,
    /// The last number given to a catalogue, in the whole process.
    catalog_numbers: Arc<AtomicU64>,
    monitor: OnceLock<MonitorHandle>,
    /// Who notifies, by the nodes' numbers.
    notifiers: Box<[Arc<Notifiers>]>,
    /// Databases whose catalogues are not read just now.
    pub vacated: Vacated,
}

impl Cluster {
    /// Builds it; no connection is opened. `id` differs from that of every other cluster of the process, which all share
    /// `catalog_numbers`.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(
        id: u32,
        name: &str,
        config: &config::Cluster,
        budget: Arc<Budget>,
        catalog_numbers: Arc<AtomicU64>,
        workers: usize,
    ) -> Result<Self, NetError> {
        let tls = client_tls(&config.tls)?;
        let mut addresses = HashMap::new();
        let mut shards = Vec::new();
        for shard in &config.shards {
            let mut specs = Vec::new();
            for node in &shard.nodes {
                let role = match node.role {
                    RoleSetting::Auto => Role::Unknown,
                    RoleSetting::Primary => Role::Primary,
                    RoleSetting::Replica => Role::Replica,
                };
                addresses.insert(node.name.as_str().into(), server_address(&node.address));
                specs.push(NodeSpec {
                    name: node.name.as_str().into(),
                    role,
                    weight: node.weight,
                    labels: node.labels.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect(),
                });
            }
            shards.push((shard.name.as_str().into(), specs));
        }
        let notifiers = config.shards.iter().flat_map(|shard| &shard.nodes).map(|_| Arc::default()).collect();
        Ok(Self {
            id,
            next_account: AtomicU64::new(1),
            name: name.into(),
            config: config.clone(),
            topology: Topology::new(id, shards),
            tls,
            addresses,
            accounts: Mutex::default(),
            budget,
            workers,
            schema: AtomicU64::new(0),
            redefined: AtomicU64::new(0),
            published: Published::default(),
            keyed: Arc::default(),
            catalogs: Mutex::default(),
            catalog_numbers,
            monitor: OnceLock::new(),
            notifiers,
            vacated: Vacated::default(),
        })
    }

    /// The account that is in use for a database and a user.
    #[must_use]
    pub fn account(&self, database: &str, user: &str) -> Option<Arc<Account>> {
        self.accounts.lock().get(&(database.into(), user.into())).cloned()
    }

    /// An account that nobody else uses yet; [`Cluster::adopt`] makes it the one in use.
    pub fn new_account(
        self: &Arc<Self>,
        database: &str,
        dbname: &str,
        user: &str,
        credentials: Credentials,
        pool: &PoolConfig,
    ) -> Arc<Account> {
        let number = self.next_account.fetch_add(1, Ordering::Relaxed);
        Arc::new(Account {
            id: (u64::from(self.id) << 32) | number,
            cluster: Arc::clone(self),
            database: database.into(),
            dbname: dbname.into(),
            user: user.into(),
            credentials,
            mode: pool.mode,
            pool: ArcSwap::from_pointee(pool.clone()),
            pools: self.topology.nodes().map(|_| OnceLock::new()).collect(),
            greetings: Mutex::default(),
            beginning: Beginning::new(self.topology.shards().len()),
            family: Family::new(self.topology.nodes().count()),
            refused: Refused::default(),
            catalog: self.catalog(dbname),
        })
    }

    /// The account in use with the same credentials, else `account`, which is adopted. Of many clients that log in at once as
    /// a user who was not there before, all but one find that another's account came first.
    pub fn join(&self, account: Arc<Account>) -> Arc<Account> {
        let key = (account.database.clone(), account.user.clone());
        {
            let mut accounts = self.accounts.lock();
            if let Some(held) = accounts.get(&key)
                && held.credentials == account.credentials
                && held.mode == account.mode
                && held.dbname == account.dbname
            {
                // Its pools and their idle connections hold each other.
                account.pools().iter().for_each(Pool::close);
                return Arc::clone(held);
            }
            accounts.insert(key, Arc::clone(&account));
        }
        if let Some(monitor) = self.monitor.get() {
            monitor.account_adopted();
        }
        account
    }

    /// Makes `account` the one in use for its database and user. One that was in use before ends with its sessions.
    pub fn adopt(&self, account: &Arc<Account>) {
        let key = (account.database.clone(), account.user.clone());
        self.accounts.lock().insert(key, Arc::clone(account));
        if let Some(monitor) = self.monitor.get() {
            monitor.account_adopted();
        }
    }

    /// Starts watching the nodes on `runtime`, whose number towards pools is `worker`. Does nothing if that was done.
    pub fn watch(self: &Arc<Self>, runtime: &Handle, worker: usize) {
        self.monitor.get_or_init(|| discover::spawn(self, runtime, worker));
    }

    /// The cluster is no longer in the configuration: watching ends, idle connections close, those at work as they come
    /// back. Its accounts go as well, each with its last session.
    pub fn retire(&self) {
        if let Some(monitor) = self.monitor.get() {
            monitor.stop();
        }
        let accounts = std::mem::take(&mut *self.accounts.lock());
        accounts.values().flat_map(|account| account.pools()).for_each(|pool| pool.recycle());
    }

    /// A connection to `node` or a statement on it failed in a way that the node is to blame for.
    pub fn report_failure(&self, node: &Node, failure: Failure) {
        match self.monitor.get() {
            Some(monitor) => monitor.report_failure(node, failure),
            None => {
                node.failed();
            }
        }
    }

    /// A connection to `node` was opened. Costs one load.
    pub fn report_success(&self, node: &Node) {
        node.answered();
    }

    /// What is known of a database's functions and relations; shared by its accounts.
    pub fn catalog(&self, dbname: &str) -> Arc<ArcSwap<Catalog>> {
        let mut catalogs = self.catalogs.lock();
        if !catalogs.contains_key(dbname) {
            // What nobody uses any more, and what log-ins that failed have asked for.
            catalogs.retain(|_, catalog| Arc::strong_count(catalog) > 1);
        }
        let catalog =
            catalogs.entry(dbname.into()).or_insert_with(|| Arc::new(ArcSwap::from_pointee(Catalog::builtin(1))));
        Arc::clone(catalog)
    }

    /// Sessions that begin from now on get servers of their own, which start with what is set by now: `account`'s are left to the
    /// sessions that it has, and what it opens for them starts with `values` on `shard`. `set` as in [`Beginning::note`]. Returns the
    /// account that is in use from now on; `None`: `account` was not any more.
    pub fn renew(
        &self,
        account: &Arc<Account>,
        shard: usize,
        set: Box<str>,
        values: &Settings,
    ) -> Option<Arc<Account>> {
        let mut accounts = self.accounts.lock();
        let held = accounts.get_mut(&(account.database.clone(), account.user.clone()))?;
        if !Arc::ptr_eq(held, account) {
            return None;
        }
        account.pin(shard, values);
        let number = self.next_account.fetch_add(1, Ordering::Relaxed);
        *held = Arc::new(Account {
            id: (u64::from(self.id) << 32) | number,
            cluster: Arc::clone(&account.cluster),
            database: account.database.clone(),
            dbname: account.dbname.clone(),
            user: account.user.clone(),
            credentials: account.credentials.clone(),
            mode: account.mode,
            pool: ArcSwap::new(account.pool_config()),
            pools: account.pools.iter().map(|_| OnceLock::new()).collect(),
            greetings: Mutex::default(),
            beginning: account.beginning.next(shard, set),
            family: Arc::clone(&account.family),
            refused: Refused::default(),
            catalog: Arc::clone(&account.catalog),
        });
        Some(Arc::clone(held))
    }

    /// All accounts in use.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.lock().values().cloned().collect()
    }

    /// Closes the connections to a database that no session uses now: a statement wants it to itself.
    pub fn vacate(&self, dbname: &str) {
        self.vacated.add(dbname);
        let accounts = self.accounts();
        let pools = accounts.iter().filter(|account| *account.dbname == *dbname).flat_map(|account| account.pools());
        pools.for_each(|pool| pool.recycle());
    }

    /// The servers have no such database: its accounts go, each with its last session.
    pub(super) fn forget(&self, dbname: &str) {
        let gone: Vec<_> = self.accounts.lock().extract_if(|_, account| *account.dbname == *dbname).collect();
        gone.iter().flat_map(|(_, account)| account.pools()).for_each(|pool| pool.recycle());
    }

    /// A DDL statement completed: what was prepared or described before may be stale.
    pub fn schema_changed(&self) {
        self.schema.fetch_add(1, Ordering::Relaxed);
    }

    /// Grows with every DDL statement known.
    #[must_use]
    pub fn schema(&self) -> u64 {
        self.schema.load(Ordering::Relaxed)
    }

    /// A statement is sent or completed that may redefine what others run.
    pub fn redefined(&self) {
        self.redefined.fetch_add(1, Ordering::Relaxed);
        self.schema_changed();
    }

    /// What was defined so far.
    #[must_use]
    pub fn definitions(&self) -> Definitions {
        Definitions { all: self.schema(), redefined: self.redefined.load(Ordering::Relaxed) }
    }

    /// A number for a catalogue that no other of the process has.
    pub(super) fn catalog_number(&self) -> u64 {
        // 1 is the built-in catalogue's.
        self.catalog_numbers.fetch_add(1, Ordering::Relaxed) + 2
    }

    /// Opens connections of the monitor's account, if there is one, in its own database or in `dbname`.
    pub(super) fn monitor_connector(&self, node: &Node, dbname: Option<&str>) -> Option<Connector> {
        let account = self.config.monitor.account.as_ref()?;
        let credentials = match &account.password {
            Some(password) => Credentials::Password(Secret::new(password.expose())),
            None => Credentials::None,
        };
        Some(Connector::new(
            &node.spec.name,
            self.addresses.get(&node.spec.name)?.clone(),
            self.tls.clone(),
            &account.user,
            dbname.unwrap_or(&account.database),
            credentials,
            self.config.monitor.timeout,
            1,
        ))
    }

    /// Opens connections to `node`.
    #[must_use]
    pub fn connector(
        &self,
        node: &Node,
        user: &str,
        dbname: &str,
        credentials: Credentials,
        pool: &PoolConfig,
    ) -> Connector {
        // Every node of the topology was given its address in `new`.
        let address = self.addresses.get(&node.spec.name).cloned().unwrap_or_else(|| ServerAddress::tcp("", 0));
        Connector::new(
            &node.spec.name,
            address,
            self.tls.clone(),
            user,
            dbname,
            credentials,
            pool.connect_timeout,
            pool.prepared_statements,
        )
        .with_notifiers(Arc::clone(&self.notifiers[node.number]))
    }
}

/// One user in one database: the credentials that log in on the servers, and a pool a node.
#[derive(Debug)]
pub struct Account {
    /// Unique for the life of the process, never 0.
    pub id: u64,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The database as clients name it.
    pub database: Box<str>,
    /// The database as the servers name it.
    pub dbname: Box<str>,
    /// The user.
    pub user: Box<str>,
    /// What logs it in.
    pub credentials: Credentials,
    /// When a server connection goes back.
    pub mode: PoolMode,
    /// Its pools' configuration now.
    pool: ArcSwap<PoolConfig>,
    /// By the nodes' numbers.
    pools: Box<[OnceLock<Arc<Pool>>]>,
    /// What servers report to a client that starts with these settings.
    greetings: Mutex<HashMap<Arc<Settings>, Arc<Parameters>>>,
    /// What its sessions begin with.
    pub beginning: Beginning,
    family: Arc<Family>,
    /// What its replicas refused to run.
    pub refused: Refused,
    catalog: Arc<ArcSwap<Catalog>>,
}

/// Most start-up settings remembered for one account; past it, a log-in asks a server.
const GREETINGS: usize = 1024;

impl Account {
    /// The pool of connections to `node`.
    pub fn pool(&self, node: &Arc<Node>) -> &Arc<Pool> {
        // A node's number is its place in the list that the pools were made from.
        self.pools[node.number].get_or_init(|| {
            let cluster = &self.cluster;
            let config = self.pool.load();
            let connector = cluster.connector(node, &self.user, &self.dbname, self.credentials.clone(), &config);
            let limits = pool_limits(&config, &self.dbname);
            let pool = Pool::new(Arc::clone(node), connector, Arc::clone(&cluster.budget), limits, cluster.workers);
            cluster.budget.register(&pool);
            self.family.add(&pool);
            if let Some(values) = self.beginning.pinned(node.shard) {
                pool.start_with(values);
            }
            pool
        })
    }

    /// Its own pools on a shard, that on the primary first.
    #[must_use]
    pub fn own_pools(&self, shard: usize) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.iter().filter_map(OnceLock::get).cloned().collect();
        pools.retain(|pool| pool.node.shard == shard);
        pools.sort_by_key(|pool| pool.node.role() != Role::Primary);
        pools
    }

    fn pin(&self, shard: usize, values: &Settings) {
        let pinned = self.beginning.pin(shard, values);
        self.own_pools(shard).iter().for_each(|pool| pool.start_with(pinned));
    }

    /// Whether both differ only in what sessions begin with.
    #[must_use]
    pub fn is_kin(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.family, &other.family)
    }

    /// What is known of its database's functions and relations now.
    #[must_use]
    pub fn catalog(&self) -> Guard<Arc<Catalog>> {
        self.catalog.load()
    }

    /// All pools opened so far, also those that only sessions still use that began when something else was set for them.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.family.pools()
    }

    /// Numbers of [`Account::pools`], a node each.
    #[must_use]
    pub fn counts(&self) -> Vec<(Arc<Node>, PoolCounts)> {
        let mut counts: Vec<(Arc<Node>, PoolCounts)> = Vec::new();
        for pool in self.pools() {
            match counts.last_mut().filter(|(node, _)| node.number == pool.node.number) {
                Some((_, sum)) => *sum = *sum + pool.counts(),
                None => counts.push((Arc::clone(&pool.node), pool.counts())),
            }
        }
        counts
    }

    /// The configuration of its pools.
    #[must_use]
    pub fn pool_config(&self) -> Arc<PoolConfig> {
        self.pool.load_full()
    }

    /// Changes the configuration of its pools: the bounds at once, the rest for those that are not open yet.
    pub fn set_limits(&self, pool: &PoolConfig) {
        self.pool.store(Arc::new(pool.clone()));
        for open in self.pools() {
            open.set_limits(pool_limits(pool, &self.dbname));
        }
    }

    /// What servers report to a client with these start-up settings, if it is known.
    #[must_use]
    pub fn greeting(&self, baseline: &Arc<Settings>) -> Option<Arc<Parameters>> {
        self.greetings.lock().get(baseline).cloned()
    }

    /// Remembers what a server reported.
    pub fn remember_greeting(&self, baseline: Arc<Settings>, parameters: Arc<Parameters>) {
        let mut greetings = self.greetings.lock();
        if greetings.len() >= GREETINGS {
            greetings.clear();
        }
        greetings.insert(baseline, parameters);
    }
}

/// What all clusters share for comparing settings by pointer.
pub type SettingsInterner = Interner<Settings>;

fn pool_limits(pool: &PoolConfig, dbname: &str) -> PoolLimits {
    // As long as anybody is connected to one of these, nobody can create a database.
    let template = matches!(dbname, "template0" | "template1");
    PoolLimits {
        size: pool.size,
        min_size: if template { 0 } else { pool.min_size },
        reserve: pool.reserve_size,
        reserve_after: pool.reserve_after,
        idle_timeout: if template { Some(Duration::ZERO) } else { pool.idle_timeout },
        lifetime: pool.lifetime,
        query_wait: pool.query_wait,
        max_queue: pool.max_queue,
    }
}
