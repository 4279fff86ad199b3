//! Writes that a policy has put under a consistency key: whoever reads under that key sees them, whichever session made them.
//!
//! Invariant: from before a write is sent under a key until every replica in use has it, [`Keyed::join`] lets no replica serve
//! that key's reads that may lack it. A write for which nobody could name the key counts for each.
//!
//! Deliberately absent: which statement has which key (the policy says), who waits for what (`topology`), writes through
//! another gateway.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Cluster;
use crate::topology::{Topology, Writes};

/// Keys of which something is known, of at most 256 bytes each: about 5 MiB. Past it those are forgotten whose writes all
/// replicas have; if that makes no room, all of which none is in flight become one: every key waits for the latest of them.
const KEYS: usize = 16_384;

/// What was written on a cluster, by key. Outlives a reload that builds the cluster anew.
#[derive(Debug, Default)]
pub struct Keyed(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The topology that the tickets are of; 0 before the first key.
    topology: u64,
    keys: HashMap<Arc<str>, Written>,
    /// What counts for every key: what was written before any was named, what nobody could name one for, and what there was no
    /// room for.
    rest: Written,
}

/// What was written under one key.
#[derive(Debug, Default)]
struct Written {
    /// Sent, and neither acknowledged nor given up.
    in_flight: u32,
    /// Something may have been written of which no ticket tells. Until the next write that is acknowledged.
    unsure: bool,
    writes: Writes,
}

impl Written {
    /// Adds what a read on `shard` must see to `into`.
    fn join(&mut self, topology: &Topology, shard: usize, into: &mut Writes) {
        self.writes.forget_passed(topology);
        into.join(&self.writes);
        if self.in_flight > 0 || self.unsure {
            into.sent(shard);
        }
    }

    fn acknowledged(&mut self, topology: &Topology, shard: usize) {
        self.unsure = false;
        self.writes.sent(shard);
        self.writes.acknowledged(topology, shard);
    }

    fn forgettable(&self) -> bool {
        self.in_flight == 0 && !self.unsure && self.writes.none()
    }
}

impl Table {
    /// Whether its tickets are of `topology`. It moves to a later one: all that was written counts for every key there.
    fn follows(&mut self, topology: &Topology) -> bool {
        if topology.id() > self.topology {
            self.topology = topology.id();
            self.keys.values_mut().for_each(|written| written.writes = Writes::default());
            self.rest.writes = Writes::everywhere(topology);
        }
        topology.id() == self.topology
    }

    /// No key was ever named: nobody asks for positions, and what is in flight is counted all the same.
    fn unused(&self) -> bool {
        self.topology == 0
    }

    fn make_room(&mut self, topology: &Topology) {
        self.keys.retain(|_, written| {
            written.writes.forget_passed(topology);
            !written.forgettable()
        });
        if self.keys.len() < KEYS {
            return;
        }
        let rest = &mut self.rest;
        self.keys.retain(|_, written| {
            let stays = written.in_flight > 0;
            if !stays {
                rest.writes.join(&written.writes);
                rest.unsure |= written.unsure;
            }
            stays
        });
    }
}

impl Keyed {
    /// Makes what was written under `key` what a session wrote that reads under it on `shard`.
    pub fn join(&self, key: &str, topology: &Topology, shard: usize, session: &mut Writes) {
        let mut table = self.0.lock();
        if !table.follows(topology) {
            session.sent(shard);
            return;
        }
        table.rest.join(topology, shard, session);
        if let Some(written) = table.keys.get_mut(key) {
            written.join(topology, shard, session);
            if written.forgettable() {
                table.keys.remove(key);
            }
        }
    }

    fn sent(&self, key: Option<&Arc<str>>, topology: &Topology) {
        let mut table = self.0.lock();
        let Some(key) = key else {
            table.rest.in_flight += 1;
            return;
        };
        let current = table.follows(topology);
        if let Some(written) = table.keys.get_mut(key) {
            written.in_flight += 1;
            return;
        }
        if table.keys.len() >= KEYS && current {
            table.make_room(topology);
        }
        table.keys.insert(Arc::clone(key), Written { in_flight: 1, ..Written::default() });
    }

    /// What was sent under `key` is over: acknowledged, or nobody knows whether it happened.
    fn over(&self, key: Option<&str>, topology: &Topology, shard: usize, acknowledged: bool) {
        let mut table = self.0.lock();
        if key.is_none() && table.unused() {
            table.rest.in_flight = table.rest.in_flight.saturating_sub(1);
            table.rest.unsure = !acknowledged;
            return;
        }
        let current = table.follows(topology);
        let Table { keys, rest, .. } = &mut *table;
        let Some(written) = key.map_or(Some(rest), |key| keys.get_mut(key)) else { return };
        written.in_flight = written.in_flight.saturating_sub(1);
        if acknowledged && current {
            written.acknowledged(topology, shard);
            if table.rest.unsure {
                table.rest.acknowledged(topology, shard);
            }
        } else {
            written.unsure = true;
        }
    }
}

/// A write that was sent under a key, or that may belong to any. Dropped without a word, it is one of which nobody knows
/// whether it happened.
#[derive(Debug)]
#[must_use]
pub struct KeyedWrite {
    cluster: Arc<Cluster>,
    /// `None`: no policy was asked about it, and it counts for every key.
    key: Option<Arc<str>>,
    shard: usize,
    acknowledged: bool,
}

impl KeyedWrite {
    /// A write goes to `shard` under `key` now; under every key where none is given.
    pub fn sent(cluster: &Arc<Cluster>, key: Option<&Arc<str>>, shard: usize) -> Self {
        cluster.keyed.sent(key, &cluster.topology);
        Self { cluster: Arc::clone(cluster), key: key.map(Arc::clone), shard, acknowledged: false }
    }

    /// Whether it is this one's.
    #[must_use]
    pub fn is(&self, key: Option<&str>) -> bool {
        self.key.as_deref() == key
    }

    /// The transaction that it belongs to has ended, whether it was committed or not.
    pub fn acknowledged(mut self) {
        self.acknowledged = true;
    }
}

impl Drop for KeyedWrite {
    fn drop(&mut self) {
        self.cluster.keyed.over(self.key.as_deref(), &self.cluster.topology, self.shard, self.acknowledged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Lsn, NodeSpec, Position, Requirement, Role};

    fn topology(id: u32) -> Topology {
        let role = |n| if n == 0 { Role::Primary } else { Role::Replica };
        let spec = |n| NodeSpec { name: format!("n{n}").into(), role: role(n), weight: 1, labels: Box::default() };
        Topology::new(id, vec![("s".into(), (0..2).map(spec).collect())])
    }

    /// The primary tells where its log ends, and the replica has replayed up to `replayed`.
    fn told(topology: &Topology, end: u64, replayed: u64) {
        let mark = &topology.shards()[0].watermark;
        mark.answer(mark.question(), Position { timeline: 1, lsn: Lsn(end) });
        mark.replayed([Some(Position { timeline: 1, lsn: Lsn(replayed) })].into_iter());
    }

    fn required(keyed: &Keyed, key: &str, topology: &Topology) -> Requirement {
        let mut writes = Writes::default();
        keyed.join(key, topology, 0, &mut writes);
        writes.required(topology, 0)
    }

    fn held(keyed: &Keyed) -> usize {
        keyed.0.lock().keys.len()
    }

    #[test]
    fn a_key_sees_its_writes_and_no_other_waits() {
        let (keyed, topology, key) = (Keyed::default(), topology(1), Arc::from("a"));
        let at = |lsn| Requirement::Position(Position { timeline: 1, lsn: Lsn(lsn) });
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary, "what was written before any key was named");
        told(&topology, 10, 10);
        assert_eq!(required(&keyed, "a", &topology), Requirement::None);
        keyed.sent(Some(&key), &topology);
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary, "on its way");
        assert_eq!(required(&keyed, "b", &topology), Requirement::None);
        keyed.sent(Some(&key), &topology);
        keyed.over(Some("a"), &topology, 0, true);
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary, "one of two");
        keyed.over(Some("a"), &topology, 0, true);
        told(&topology, 20, 10);
        assert_eq!(required(&keyed, "a", &topology), at(20));
        assert_eq!(required(&keyed, "b", &topology), Requirement::None);
        told(&topology, 20, 20);
        assert_eq!(required(&keyed, "a", &topology), Requirement::None);
        assert_eq!(held(&keyed), 0);
    }

    #[test]
    fn what_may_have_happened_needs_the_primary_until_the_next_write() {
        let (keyed, topology, key) = (Keyed::default(), topology(1), Arc::from("a"));
        keyed.sent(Some(&key), &topology);
        keyed.over(Some("a"), &topology, 0, false);
        told(&topology, 10, 10);
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary);
        keyed.sent(Some(&key), &topology);
        keyed.over(Some("a"), &topology, 0, true);
        told(&topology, 20, 20);
        assert_eq!(required(&keyed, "a", &topology), Requirement::None);
    }

    #[test]
    fn what_nobody_could_name_a_key_for_counts_for_all() {
        let (keyed, topology) = (Keyed::default(), topology(1));
        keyed.sent(None, &topology);
        keyed.over(None, &topology, 0, true);
        keyed.sent(None, &topology);
        assert!(!topology.shards()[0].watermark.unanswered(), "no key is in use");
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary);
        told(&topology, 10, 10);
        assert_eq!(required(&keyed, "a", &topology), Requirement::Primary, "on its way since before a key was named");
        keyed.over(None, &topology, 0, true);
        told(&topology, 20, 10);
        let expected = Requirement::Position(Position { timeline: 1, lsn: Lsn(20) });
        assert_eq!(required(&keyed, "a", &topology), expected);
        assert_eq!(required(&keyed, "b", &topology), expected);
        told(&topology, 20, 20);
        assert_eq!(required(&keyed, "a", &topology), Requirement::None);
        assert_eq!(held(&keyed), 0);
    }

    #[test]
    fn keys_are_bounded_and_none_is_forgotten_too_early() {
        let (keyed, topology) = (Keyed::default(), topology(1));
        let key = |number: usize| Arc::<str>::from(format!("k{number}"));
        for number in 0..KEYS {
            keyed.sent(Some(&key(number)), &topology);
            keyed.over(Some(&key(number)), &topology, 0, true);
        }
        assert_eq!(held(&keyed), KEYS);
        told(&topology, 10, 5);
        keyed.sent(Some(&key(KEYS)), &topology);
        assert_eq!(held(&keyed), 1, "those at rest became one");
        let expected = Requirement::Position(Position { timeline: 1, lsn: Lsn(10) });
        assert_eq!(required(&keyed, "k7", &topology), expected);
        assert_eq!(required(&keyed, "another", &topology), expected);
        told(&topology, 10, 10);
        assert_eq!(required(&keyed, "k7", &topology), Requirement::None);
        assert_eq!(required(&keyed, &key(KEYS), &topology), Requirement::Primary, "still on its way");
    }

    #[test]
    fn a_reload_that_numbers_shards_anew_loses_nothing() {
        let (keyed, old, new, key) = (Keyed::default(), topology(1), topology(2), Arc::from("a"));
        keyed.sent(Some(&key), &old);
        assert_eq!(required(&keyed, "b", &new), Requirement::Primary, "what was written before");
        told(&new, 10, 10);
        assert_eq!(required(&keyed, "b", &new), Requirement::None);
        assert_eq!(required(&keyed, "a", &new), Requirement::Primary);
        assert_eq!(required(&keyed, "b", &old), Requirement::Primary, "its tickets are gone");
        keyed.over(Some("a"), &old, 0, true);
        assert_eq!(required(&keyed, "a", &new), Requirement::Primary, "of the other topology");
        keyed.sent(Some(&key), &new);
        keyed.over(Some("a"), &new, 0, true);
        told(&new, 20, 20);
        assert_eq!(required(&keyed, "a", &new), Requirement::None);
    }
}
