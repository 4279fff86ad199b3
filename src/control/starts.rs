//! What the sessions of an account begin with, as the servers have set it for roles and databases.
//!
//! Invariant: all connections of an account started with the same; when something else is set, another account takes its place,
//! and the sessions that exist keep theirs, with its connections. Replicas have it once they have replayed it.
//!
//! Deliberately absent: asking servers (`gateway/starts`).

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::{Account, Cluster};
use crate::pool::{Kin, Pool};
use crate::session::Starts;
use crate::upstream::Settings;

/// Settings by name, as a start-up message has them.
type Pairs = Box<[(Box<str>, Box<str>)]>;

/// What is known of it.
#[derive(Debug)]
pub struct Beginning {
    /// By shard: what was set, in a form that can only be compared.
    set: Mutex<Box<[Option<Box<str>>]>>,
    /// The values, as a server had them that a client was greeted with.
    values: OnceLock<Settings>,
    /// By shard: what connections start with that are opened now that something else is set.
    pinned: Box<[OnceLock<Pairs>]>,
}

impl Beginning {
    pub(super) fn new(shards: usize) -> Self {
        let pinned = (0..shards).map(|_| OnceLock::new()).collect();
        Self { set: Mutex::new(vec![None; shards].into()), values: OnceLock::new(), pinned }
    }

    /// That of the account that takes the place.
    pub(super) fn next(&self, shard: usize, set: Box<str>) -> Self {
        let next = Self::new(self.pinned.len());
        {
            let mut all = next.set.lock();
            all.clone_from(&self.set.lock());
            if let Some(known) = all.get_mut(shard) {
                *known = Some(set);
            }
        }
        next
    }

    /// Whether the values are known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.values.get().is_some()
    }

    /// The values, if they are known.
    #[must_use]
    pub fn values(&self) -> Option<&Settings> {
        self.values.get()
    }

    /// A server says what it started with, and what is set for those that start now (`Starts::of`).
    pub fn note(&self, shard: usize, set: Box<str>, values: Settings) {
        if let Some(known) = self.set.lock().get_mut(shard) {
            known.get_or_insert(set);
        }
        // Whoever was greeted first has said it.
        let _ = self.values.set(values);
    }

    /// Whether `set` is something else than what was known. What was not known is noted, and is something else if that is `likely`.
    fn differs(&self, shard: usize, set: &str, likely: bool) -> bool {
        let mut all = self.set.lock();
        match all.get_mut(shard) {
            Some(Some(known)) => **known != *set,
            Some(unknown) => {
                *unknown = Some(set.into());
                likely
            }
            None => false,
        }
    }

    pub(super) fn pin(&self, shard: usize, values: &Settings) -> &[(Box<str>, Box<str>)] {
        let pair = |(name, value): (&str, &[u8])| Some((name.into(), std::str::from_utf8(value).ok()?.into()));
        self.pinned.get(shard).map_or(&[], |pinned| pinned.get_or_init(|| values.iter().filter_map(pair).collect()))
    }

    pub(super) fn pinned(&self, shard: usize) -> Option<&[(Box<str>, Box<str>)]> {
        self.pinned.get(shard)?.get().map(|pairs| &**pairs)
    }
}

/// The pools of accounts that took each other's place, by the nodes' numbers.
#[derive(Debug)]
pub(super) struct Family(Box<[Arc<Kin>]>);

impl Family {
    pub(super) fn new(nodes: usize) -> Arc<Self> {
        Arc::new(Self((0..nodes).map(|_| Arc::default()).collect()))
    }

    pub(super) fn add(&self, pool: &Arc<Pool>) {
        self.0[pool.node.number].add(pool);
    }

    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        self.0.iter().flat_map(|kin| kin.pools()).collect()
    }
}

impl Cluster {
    /// The accounts for which a shard's primary has set something else than was known, and what. `likely`: something was changed
    /// just now.
    #[must_use]
    pub fn begin_otherwise(&self, shard: usize, starts: &Starts, likely: bool) -> Vec<(Arc<Account>, Box<str>)> {
        let set = |account: Arc<Account>| {
            let set = starts.of(&account.dbname, &account.user);
            account.beginning.differs(shard, &set, likely).then_some((account, set))
        };
        self.accounts().into_iter().filter_map(set).collect()
    }
}
