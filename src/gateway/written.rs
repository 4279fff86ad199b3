//! What was written before a unit, by its session or under its consistency keys, and must be seen by it.
//!
//! Invariant: a write counts from before it is sent.
//! Deliberately absent: what replicas have (`topology`), what others wrote (`control::Keyed`), the moment when a write is
//! acknowledged (`settle`).

use std::sync::Arc;

use super::drive::Conversation;
use super::route::Route;
use crate::control::{Cluster, KeyedWrite};
use crate::policy::Role;
use crate::topology::{self, Position, Requirement, Writes};

impl Conversation {
    /// What a replica must have replayed to serve the unit. Makes the route the primary's where that is not known.
    pub(super) fn must_be_replayed(&mut self, route: &mut Route) -> Option<Position> {
        if route.target.role == Role::Primary {
            return None;
        }
        let cluster = &self.account.cluster;
        match required(&mut self.writes, cluster, route) {
            Requirement::None => None,
            Requirement::Primary => {
                route.target.role = Role::Primary;
                self.trace_reason(if route.keys.is_empty() {
                    "the session wrote"
                } else {
                    "the session or its key wrote"
                });
                None
            }
            Requirement::Position(position) => {
                self.trace_reason(if route.keys.is_empty() {
                    "the session wrote: a replica must have replayed that"
                } else {
                    "the session or its key wrote: a replica must have replayed that"
                });
                Some(position)
            }
        }
    }

    /// Whether the server held is a replica's that may lack what the unit must see.
    #[inline]
    pub(super) fn is_behind(&mut self, route: &Route) -> bool {
        let Some(lent) = &self.held else { return false };
        let node = &lent.pool().node;
        if node.role() == topology::Role::Primary {
            return false;
        }
        match required(&mut self.writes, &self.account.cluster, route) {
            Requirement::None => false,
            Requirement::Primary => true,
            Requirement::Position(position) => !node.has_replayed(position),
        }
    }
}

fn required(writes: &mut Writes, cluster: &Cluster, route: &Route) -> Requirement {
    let own = cluster.config.read_your_writes && !writes.none();
    if route.keys.is_empty() {
        return if own { writes.required(&cluster.topology, route.shard) } else { Requirement::None };
    }
    let mut writes = if own { writes.clone() } else { Writes::default() };
    for key in &route.keys {
        cluster.keyed.join(key, &cluster.topology, route.shard, &mut writes);
    }
    writes.required(&cluster.topology, route.shard)
}

/// A unit that may write goes to its server now.
pub(super) fn sent(writes: &mut Writes, keyed: &mut Vec<KeyedWrite>, cluster: &Arc<Cluster>, route: &Route) {
    writes.sent(route.shard);
    let keys = route.keys.iter().map(Some).chain(route.unseen.then_some(None));
    for key in keys {
        if !keyed.iter().any(|write| write.is(key.map(|key| &**key))) {
            keyed.push(KeyedWrite::sent(cluster, key, route.shard));
        }
    }
}
