//! The choice of a node: conditions first, then weights in turn.
//!
//! Invariant: over any run of choices among the same nodes, each node's share differs from its weight's by less than one
//! choice (smooth weighted round-robin, as in nginx's upstream module).
//!
//! Deliberately absent: who asks, and waiting.

use std::sync::Arc;
use std::time::Duration;

use super::{Node, Position, Role, Shard, Standing, Topology};

/// What a node must meet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Position of the shard.
    pub shard: usize,
    /// Whether a replica will do.
    pub replica: bool,
    /// Whether the primary takes part in the turns of the replicas, by its weight.
    pub any: bool,
    /// Labels that it must carry.
    pub labels: &'a [(Box<str>, Box<str>)],
    /// A replica further behind, or of unknown lag, is not fit.
    pub max_lag: Option<Duration>,
    /// A replica must have replayed this.
    pub replayed: Option<Position>,
    /// Nothing is executed: the next choice finds the same turn. So statements are prepared where they will run next, and a
    /// driver that prepares and executes in two messages does not always meet the same one of two nodes with each.
    pub keeps_turn: bool,
}

/// Why no node can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The cluster has no such shard.
    #[error("there is no shard number {0} in this cluster")]
    NoShard(usize),
    /// No node of the shard is known to take writes.
    #[error("no primary is known in shard \"{0}\"")]
    NoPrimary(Box<str>),
    /// No node of the shard carries the labels.
    #[error("no node in shard \"{0}\" carries the labels that the policy asks for")]
    NoLabel(Box<str>),
}

impl Topology {
    /// Chooses a node.
    ///
    /// # Errors
    /// No node can do what is asked, healthy or not.
    pub fn choose(&self, conditions: &Conditions<'_>) -> Result<&Arc<Node>, Unavailable> {
        let shard = self.shards.get(conditions.shard).ok_or(Unavailable::NoShard(conditions.shard))?;
        if (conditions.replica || conditions.any)
            && let Some(node) = shard.take_turn(conditions.keeps_turn, |node| fit(node, conditions))
        {
            return Ok(node);
        }
        let labelled = |node: &&Arc<Node>| carries(node, conditions.labels);
        let primary = shard.nodes.iter().filter(|node| node.role() == Role::Primary);
        let found = primary.clone().find(|node| node.standing() == Standing::Up).or_else(|| {
            // An ejected primary is still the only one that could take the statement; its error says more than ours.
            primary.clone().next().or_else(|| shard.nodes.iter().find(|node| node.role() == Role::Unknown))
        });
        match found {
            // Labels choose among replicas; the primary serves reads that no fit replica takes, whatever its labels.
            Some(node) if conditions.replica || conditions.any || labelled(&node) => Ok(node),
            Some(_) => Err(Unavailable::NoLabel(shard.name.clone())),
            None => Err(Unavailable::NoPrimary(shard.name.clone())),
        }
    }
}

fn fit(node: &Node, conditions: &Conditions<'_>) -> bool {
    let role = match node.role() {
        Role::Replica => true,
        Role::Primary => conditions.any,
        Role::Unknown => false,
    };
    let lag = node.role() == Role::Primary
        || conditions.max_lag.is_none_or(|bound| node.lag().is_some_and(|lag| lag <= bound));
    let replayed = node.role() == Role::Primary || conditions.replayed.is_none_or(|wanted| node.has_replayed(wanted));
    role && node.standing() == Standing::Up
        && node.spec.weight > 0
        && carries(node, conditions.labels)
        && lag
        && replayed
}

fn carries(node: &Node, labels: &[(Box<str>, Box<str>)]) -> bool {
    labels.iter().all(|wanted| node.spec.labels.contains(wanted))
}

impl Shard {
    /// The next node in turn among those that `fit`; with `keep` it stays the next.
    fn take_turn(&self, keep: bool, fit: impl Fn(&Node) -> bool) -> Option<&Arc<Node>> {
        let mut candidates = self.nodes.iter().enumerate().filter(|(_, node)| fit(node));
        let first = candidates.next()?;
        let Some(second) = candidates.next() else { return Some(first.1) };
        let mut turns = self.turns.lock();
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, node) in [first, second].into_iter().chain(candidates) {
            let weight = i64::from(node.spec.weight);
            total += weight;
            let turn = turns[index] + weight;
            if !keep {
                turns[index] = turn;
            }
            if best.is_none_or(|(_, most)| turn > most) {
                best = Some((index, turn));
            }
        }
        let (index, _) = best?;
        if !keep {
            turns[index] -= total;
        }
        Some(&self.nodes[index])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{Lsn, NodeSpec};
    use super::*;

    fn cluster(nodes: &[(&str, Role, u32)]) -> Topology {
        let specs = nodes
            .iter()
            .map(|&(name, role, weight)| NodeSpec { name: name.into(), role, weight, labels: Box::default() })
            .collect();
        Topology::new(1, vec![("s".into(), specs)])
    }

    const READ: Conditions<'static> = Conditions {
        shard: 0,
        replica: true,
        any: false,
        labels: &[],
        max_lag: None,
        replayed: None,
        keeps_turn: false,
    };

    fn node<'a>(topology: &'a Topology, name: &str) -> &'a Arc<Node> {
        topology.nodes().find(|node| &*node.spec.name == name).unwrap()
    }

    #[test]
    fn shares_follow_the_weights_exactly() {
        let topology = cluster(&[("p", Role::Primary, 1), ("a", Role::Replica, 1), ("b", Role::Replica, 2)]);
        let mut counts = HashMap::new();
        for _ in 0..3000 {
            *counts.entry(topology.choose(&READ).unwrap().spec.name.clone()).or_insert(0) += 1;
        }
        assert_eq!(counts[&Box::from("a")], 1000);
        assert_eq!(counts[&Box::from("b")], 2000);
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn a_turn_that_is_kept_is_the_next_one() {
        let topology = cluster(&[("p", Role::Primary, 1), ("a", Role::Replica, 1), ("b", Role::Replica, 2)]);
        let name = |conditions: &Conditions<'_>| topology.choose(conditions).unwrap().spec.name.clone();
        let mut counts = HashMap::new();
        for _ in 0..300 {
            let prepared = name(&Conditions { keeps_turn: true, ..READ });
            assert_eq!(prepared, name(&Conditions { keeps_turn: true, ..READ }));
            assert_eq!(prepared, name(&READ));
            *counts.entry(prepared).or_insert(0) += 1;
        }
        assert_eq!((counts[&Box::from("a")], counts[&Box::from("b")]), (100, 200));
    }

    #[test]
    fn reads_fall_back_to_the_primary_and_writes_never_to_a_replica() {
        let topology = cluster(&[("p", Role::Primary, 1), ("a", Role::Replica, 1)]);
        node(&topology, "a").set_standing(Standing::Ejected);
        assert_eq!(&*topology.choose(&READ).unwrap().spec.name, "p");
        node(&topology, "a").set_standing(Standing::Up);
        node(&topology, "p").set_standing(Standing::Ejected);
        let write = Conditions { replica: false, ..READ };
        assert_eq!(&*topology.choose(&write).unwrap().spec.name, "p");
        node(&topology, "p").set_role(Role::Replica);
        assert_eq!(topology.choose(&write).unwrap_err(), Unavailable::NoPrimary("s".into()));
    }

    #[test]
    fn lag_and_position_must_be_known_to_count() {
        let topology = cluster(&[("p", Role::Primary, 1), ("a", Role::Replica, 1)]);
        let name = |conditions: &Conditions<'_>| topology.choose(conditions).unwrap().spec.name.clone();
        let lag = Conditions { max_lag: Some(Duration::from_secs(1)), ..READ };
        assert_eq!(&*name(&lag), "p");
        node(&topology, "a").set_lag(Some(Duration::from_secs(2)));
        assert_eq!(&*name(&lag), "p");
        node(&topology, "a").set_lag(Some(Duration::from_millis(500)));
        assert_eq!(&*name(&lag), "a");
        let at = |timeline, lsn| Conditions { replayed: Some(Position { timeline, lsn: Lsn(lsn) }), ..READ };
        assert_eq!(&*name(&at(1, 5)), "p");
        node(&topology, "a").set_position(Some(Position { timeline: 1, lsn: Lsn(5) }));
        assert_eq!(&*name(&at(1, 5)), "a");
        assert_eq!(&*name(&at(1, 6)), "p");
        assert_eq!(&*name(&at(2, 1)), "p");
    }
}
