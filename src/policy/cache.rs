//! Decisions kept per statement, for chains whose policies promise what their decisions depend on.
//!
//! Invariant: a kept decision serves only a query that is equal in everything the chain's policies may look at:
//! shape, access, effects, facts, the topology's version, and the session where they look at it. Literals, bound
//! values, lag and the clock are not in the key, so chains that look at those keep nothing.
//!
//! Bound: [`DecisionCache::SLOTS`] entries in pairs. A full pair forgets its older entry.

use super::chain::{Answer, Chain};
use super::{Decision, Depends, Query};

/// The kept decisions of one worker.
pub struct DecisionCache {
    slots: Box<[Slot]>,
}

/// Two entries, the younger first.
#[derive(Default)]
struct Slot([Option<Entry>; 2]);

struct Entry {
    key: Key,
    decision: Decision,
    link: Option<u16>,
}

/// Everything that a kept decision depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    fingerprint: u128,
    chain: u64,
    topology: u64,
    session: u64,
    effects: u32,
    facts: u32,
    parameters: u32,
    access: u8,
}

impl Key {
    /// The key of a query under a chain; `None` if its decision may not be kept.
    pub(super) fn of(chain: &Chain, query: &Query<'_>) -> Option<Self> {
        let session = match chain.manifest().depends {
            Depends::Statement => 0,
            Depends::Session if query.session.key != 0 => query.session.key,
            Depends::Session | Depends::Values | Depends::Anything => return None,
        };
        Some(Self {
            fingerprint: query.analysis.shape.fingerprint,
            chain: chain.id(),
            topology: query.topology.version(),
            session,
            effects: query.effects.0,
            facts: query.facts().0,
            parameters: query.parameters.count(),
            access: query.access as u8,
        })
    }
}

impl DecisionCache {
    /// How many decisions are kept at most, of about 170 bytes each.
    pub const SLOTS: usize = 4096;

    /// An empty cache; allocates all of its room at once.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS / 2).map(|_| Slot::default()).collect() }
    }

    /// The answer kept under a key.
    pub(super) fn find(&self, key: &Key) -> Option<Answer> {
        let slot = &self.slots[self.position(key)];
        let entry = slot.0.iter().flatten().find(|entry| entry.key == *key)?;
        Some(Answer { decision: entry.decision.clone(), link: entry.link, fault: None, cached: true })
    }

    /// Keeps an answer.
    pub(super) fn keep(&mut self, key: Key, answer: &Answer) {
        let position = self.position(&key);
        let slot = &mut self.slots[position];
        slot.0[1] = slot.0[0].take();
        slot.0[0] = Some(Entry { key, decision: answer.decision.clone(), link: answer.link });
    }

    /// The fingerprint is a keyed hash already; the rest is folded in by odd multipliers.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn position(&self, key: &Key) -> usize {
        let small = u64::from(key.facts) << 32 | u64::from(key.effects);
        let mixed = (key.fingerprint as u64)
            ^ small.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ key.session.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ (mixed >> 32)) as usize % self.slots.len()
    }
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{Case, Fixed};
    use super::super::{Chain, Link, Manifest, Needs, OnFault, Target};
    use super::*;
    use crate::sql::{Access, Effects};

    fn chain(id: u64, depends: Depends) -> Chain {
        let policy =
            Fixed::new(Ok(Decision::Route(Target::REPLICA))).promising(Manifest { needs: Needs::NONE, depends });
        Chain::new(id, vec![Link { policy: Arc::new(policy), on_fault: OnFault::Reject }])
    }

    #[test]
    fn kept_only_for_equals() {
        let first = Case::of(Access::Read).fingerprint(7).session_key(1);
        for (depends, other, cached) in [
            (Depends::Statement, first.clone(), true),
            (Depends::Statement, first.clone().session_key(2), true),
            (Depends::Statement, first.clone().fingerprint(8), false),
            (Depends::Statement, first.clone().effects(Effects::SETTINGS), false),
            (Depends::Statement, first.clone().topology_version(9), false),
            (Depends::Statement, first.clone().wrote(), false),
            (Depends::Session, first.clone(), true),
            (Depends::Session, first.clone().session_key(2), false),
            (Depends::Session, first.clone().session_key(0), false),
            (Depends::Values, first.clone(), false),
            (Depends::Anything, first.clone(), false),
        ] {
            let mut cache = DecisionCache::new();
            let chain = chain(1, depends);
            let before = first.ask(|query| chain.route_cached(query, &mut cache));
            assert!(!before.cached);
            let after = other.ask(|query| chain.route_cached(query, &mut cache));
            assert_eq!(after.cached, cached, "{depends:?} {other:?}");
            assert_eq!(after.link, Some(0));
            assert_eq!(after.decision, before.decision);
        }
    }

    #[test]
    fn another_chain_starts_anew() {
        let mut cache = DecisionCache::new();
        let case = Case::of(Access::Read);
        for id in [1, 2] {
            let chain = chain(id, Depends::Statement);
            assert!(!case.ask(|query| chain.route_cached(query, &mut cache)).cached);
            assert!(case.ask(|query| chain.route_cached(query, &mut cache)).cached);
        }
    }
}
