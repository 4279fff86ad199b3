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
use crate::topology::{Position, Requirement, Writes};

impl Conversation {
    /// What a replica must have replayed to serve the unit. Makes the route the primary's where that is not known.
    pub(super) fn must_be_replayed(&mut self, route: &mut Route) -> Option<Position> {
        if route.target.role == Role::Primary {
            return None;
        }
        match self.required(route) {
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

    fn required(&mut self, route: &Route) -> Requirement {
        let cluster = &self.account.cluster;
        let own = cluster.config.read_your_writes && !self.writes.none();
        if route.keys.is_empty() {
            return if own { self.writes.required(&cluster.topology, route.shard) } else { Requirement::None };
        }
        let mut writes = if own { self.writes.clone() } else { Writes::default() };
        for key in &route.keys {
            cluster.keyed.join(key, &cluster.topology, route.shard, &mut writes);
        }
        writes.required(&cluster.topology, route.shard)
    }
}

/// A unit that may write goes to its server now.
pub(super) fn sent(writes: &mut Writes, keyed: &mut Vec<KeyedWrite>, cluster: &Arc<Cluster>, route: &Route) {
    writes.sent(route.shard);
    for key in &route.keys {
        if !keyed.iter().any(|write| write.is(key)) {
            keyed.push(KeyedWrite::sent(cluster, key, route.shard));
        }
    }
}
