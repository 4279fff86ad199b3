//! Which statements a server must be asked for before a unit uses them.
//!
//! Invariant: none within a group, which a question would end. Deliberately absent: the question (`gateway::private`).

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Session, What};
use crate::upstream::{Prepared, Upstream};
use crate::wire::TransactionStatus;

impl Session {
    /// Whether the unit does something before it uses the first of some statements.
    #[must_use]
    pub fn comes_after_others(&self, statements: &[Arc<Prepared>]) -> bool {
        let first = self.unit.ops.first();
        !first.is_some_and(|op| statements.iter().any(|statement| self.fails_with(&op.what, statement.id)))
    }

    /// `up` is asked about the unit's statements, and holds all that it uses at once from here on: none of them goes for the next.
    pub fn asks_about(&mut self, doubtful: &[Arc<Prepared>], up: &mut Upstream) {
        self.unit.asked = true;
        let used = self.unit.ops.iter().filter_map(|op| match &op.what {
            What::Parse { statement, .. }
            | What::Bind { statement: Some(statement), .. }
            | What::DescribeStatement { statement: Some(statement) } => Some(statement.id),
            _ => None,
        });
        let mut used: SmallVec<[_; 4]> = used.chain(doubtful.iter().map(|statement| statement.id)).collect();
        used.sort_unstable();
        used.dedup();
        up.prepared.hold_together(&used);
    }

    /// The named statements that the unit is about to use and that `up` may see otherwise than clients know them: they must be
    /// asked for first. Not those that the client itself parses or is told of anew, and none within a group, which a
    /// question would end.
    #[must_use]
    pub fn doubtful(&self, up: &Upstream) -> SmallVec<[Arc<Prepared>; 2]> {
        let mut doubtful: SmallVec<[Arc<Prepared>; 2]> = SmallVec::new();
        if !self.unit.opens || self.unit.foreseen.is_some() || up.status() == TransactionStatus::Failed {
            return doubtful;
        }
        let within = self.within();
        let ops = &self.unit.ops;
        for (at, op) in ops.iter().enumerate() {
            if !self.statements.is_empty()
                && let Some(statement) = self.lacks_for(op, &up.prepared)
            {
                doubtful.push(Arc::clone(statement));
            }
            let begins = || self.shapes().flat_map(|shape| &shape.statements).any(|one| one.transaction.is_some());
            let told = || ops.get(at + 1).is_some_and(|next| matches!(next.what, What::DescribePortal));
            let statement = match &op.what {
                What::Bind { statement: Some(statement), .. }
                    if up.prepared.misreads(statement, &self.settings, within)
                        || up.prepared.doubts(statement, &self.settings, within)
                            && !(told() && !self.sets_path() && statement.finds_the_same(&self.settings)) =>
                {
                    statement
                }
                What::Bind { statement: Some(statement), .. }
                | What::DescribeStatement { statement: Some(statement) }
                    if up.prepared.replans(statement.id) && begins() =>
                {
                    statement
                }
                What::DescribeStatement { statement: Some(statement) }
                    if up.prepared.doubts(statement, &self.settings, within) =>
                {
                    statement
                }
                _ => continue,
            };
            let parsed = ops[..at]
                .iter()
                .any(|op| matches!(&op.what, What::Parse { statement: one, .. } if one.id == statement.id));
            if !parsed && doubtful.iter().all(|one| one.id != statement.id) {
                doubtful.push(Arc::clone(statement));
            }
        }
        doubtful
    }
}
