//! The topology as policies see it.
//!
//! Invariant: the version changes with everything that is shown, but for lag and load.
//! Deliberately absent: addresses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Node, Role, Standing, Topology};
use crate::policy::{NodeFacts, NodeRole, ShardFacts, TopologyView};

impl TopologyView for Topology {
    fn version(&self) -> u64 {
        (self.id << 32) | (self.changes.load(Ordering::Acquire) & 0xffff_ffff)
    }

    fn shards(&self) -> u32 {
        self.shards.len() as u32
    }

    fn shard(&self, shard: u32) -> Option<ShardFacts<'_>> {
        let shard = self.shards.get(shard as usize)?;
        Some(ShardFacts { name: &shard.name, nodes: shard.nodes.len() as u32 })
    }

    fn node(&self, shard: u32, node: u32) -> Option<NodeFacts<'_>> {
        self.shards.get(shard as usize)?.nodes.get(node as usize).map(|node| facts(node))
    }
}

fn facts(node: &Node) -> NodeFacts<'_> {
    let role = node.role();
    NodeFacts {
        name: &node.spec.name,
        role: match role {
            Role::Unknown => NodeRole::Unknown,
            Role::Primary => NodeRole::Primary,
            Role::Replica => NodeRole::Replica,
        },
        weight: node.spec.weight,
        healthy: node.standing() == Standing::Up,
        lag: if role == Role::Primary { Some(Duration::ZERO) } else { node.lag() },
        in_flight: node.in_flight(),
        labels: &node.spec.labels,
    }
}
