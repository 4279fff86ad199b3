//! A cluster as values: shards, nodes, what is known of each, and the choice of one.
//!
//! Invariant: a node is chosen only if what is known of it meets every condition asked; where nothing is known, the
//! configuration's word stands. Reads fall back to the primary, writes never to a replica.
//!
//! Deliberately absent: probing (`discover`), connections (`pool`), clocks: whoever learns something stores it here.

mod choice;
mod node;

pub use choice::{Conditions, Unavailable};
pub use node::{Lsn, Node, NodeSpec, Position, Role, Standing};

use std::sync::Arc;

use parking_lot::Mutex;

/// A cluster: the shards in the order of its configuration.
#[derive(Debug)]
pub struct Topology {
    shards: Vec<Shard>,
}

/// The nodes that hold the same data.
#[derive(Debug)]
pub struct Shard {
    /// Unique in the cluster.
    pub name: Box<str>,
    /// In the order of the configuration.
    pub nodes: Vec<Arc<Node>>,
    /// Smooth weighted round-robin's current weights, one a node.
    turns: Mutex<Vec<i64>>,
}

impl Topology {
    /// From the shards' names and their nodes.
    #[must_use]
    pub fn new(shards: Vec<(Box<str>, Vec<NodeSpec>)>) -> Self {
        let shards = shards
            .into_iter()
            .enumerate()
            .map(|(number, (name, nodes))| {
                let nodes: Vec<_> = nodes.into_iter().map(|spec| Arc::new(Node::new(spec, number))).collect();
                Shard { name, turns: Mutex::new(vec![0; nodes.len()]), nodes }
            })
            .collect();
        Self { shards }
    }

    /// All shards.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// All nodes of all shards.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shards.iter().flat_map(|shard| &shard.nodes)
    }
}
