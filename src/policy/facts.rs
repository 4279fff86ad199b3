//! The yes-or-no facts of a query in one word: what travels to a component, and part of the key of kept decisions.
//!
//! Invariant: the numbers are part of the policy interface (`wit/`, `query.facts`); a bit never changes its meaning.

use super::query::{Phase, Query, Transaction};
use crate::sql::Understood;

/// A set of facts, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facts(pub u32);

impl Facts {
    /// Inside a transaction block.
    pub const IN_TRANSACTION: Self = Self(1);
    /// The block is READ ONLY.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// The block is SERIALIZABLE.
    pub const SERIALIZABLE: Self = Self(1 << 2);
    /// The block has no server yet: this decision chooses it.
    pub const FIRST: Self = Self(1 << 3);
    /// A possible write of the session may not be on the replicas yet.
    pub const SESSION_WROTE: Self = Self(1 << 4);
    /// The string holds more than one statement.
    pub const SEVERAL_STATEMENTS: Self = Self(1 << 5);
    /// The grammar understood every statement: tables and equalities are complete.
    pub const PARSED: Self = Self(1 << 6);
    /// Neither grammar nor lexer understood some of it.
    pub const NOT_UNDERSTOOD: Self = Self(1 << 7);
    /// Parse or Describe: bound values are not known yet.
    pub const PARAMETERS_UNKNOWN: Self = Self(1 << 8);
    /// Bind: bound values are known.
    pub const BOUND: Self = Self(1 << 9);

    /// The facts of a query.
    pub(super) fn of(query: &Query<'_>) -> Self {
        let mut facts = match query.transaction {
            Transaction::Idle => Self(0),
            Transaction::Block { read_only, serializable, first } => {
                Self::IN_TRANSACTION
                    | Self::READ_ONLY.when(read_only)
                    | Self::SERIALIZABLE.when(serializable)
                    | Self::FIRST.when(first)
            }
        };
        facts = facts | Self::SESSION_WROTE.when(query.session.wrote);
        facts = facts | Self::SEVERAL_STATEMENTS.when(query.analysis.shape.statements.len() > 1);
        facts = facts
            | match query.understood() {
                Understood::Parsed => Self::PARSED,
                Understood::Lexed => Self(0),
                Understood::Nothing => Self::NOT_UNDERSTOOD,
            };
        facts
            | match query.phase {
                Phase::Simple => Self(0),
                Phase::Parse => Self::PARAMETERS_UNKNOWN,
                Phase::Bind => Self::BOUND,
            }
    }

    /// Whether all of `other` hold.
    #[must_use]
    pub const fn all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn when(self, holds: bool) -> Self {
        if holds { self } else { Self(0) }
    }
}

impl std::ops::BitOr for Facts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
