//! A cluster as values: shards, nodes, what is known of each, and the choice of one.
//!
//! Invariant: a node is chosen only if what is known of it meets every condition asked; where nothing is known, the
//! configuration's word stands. Reads fall back to the primary, writes never to a replica.
//!
//! Deliberately absent: probing (`discover`), connections (`pool`), clocks: whoever learns something stores it here.

mod choice;
mod node;
mod view;
mod watermark;

pub use choice::{Conditions, Unavailable};
pub use node::{Lsn, Node, NodeSpec, Position, Role, Standing};
pub use watermark::{Question, Requirement, Ticket, Watermark, Writes, Written};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

/// A cluster: the shards in the order of its configuration.
#[derive(Debug)]
pub struct Topology {
    shards: Vec<Shard>,
    id: u64,
    changes: Arc<AtomicU64>,
}

/// The nodes that hold the same data.
#[derive(Debug)]
pub struct Shard {
    /// Unique in the cluster.
    pub name: Box<str>,
    /// In the order of the configuration.
    pub nodes: Vec<Arc<Node>>,
    /// How far its acknowledged writes have come.
    pub watermark: Watermark,
    /// Smooth weighted round-robin's current weights, one a node.
    turns: Mutex<Vec<i64>>,
}

impl Topology {
    /// From the shards' names and their nodes. `id` is larger than that of every topology of the process which was built before.
    #[must_use]
    pub fn new(id: u32, shards: Vec<(Box<str>, Vec<NodeSpec>)>) -> Self {
        let changes: Arc<AtomicU64> = Arc::default();
        let mut numbers = 0..;
        let shards = shards
            .into_iter()
            .enumerate()
            .map(|(shard, (name, nodes))| {
                let numbered = nodes.into_iter().zip(&mut numbers);
                let node = |(spec, number)| Arc::new(Node::new(spec, shard, number, Arc::clone(&changes)));
                let nodes: Vec<_> = numbered.map(node).collect();
                let turns = Mutex::new(vec![0; nodes.len()]);
                Shard { name, watermark: Watermark::new(), turns, nodes }
            })
            .collect();
        Self { shards, id: u64::from(id), changes }
    }

    /// Larger than that of every topology which was built before.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// In the order of the configuration.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// All nodes of all shards.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shards.iter().flat_map(|shard| &shard.nodes)
    }
}
