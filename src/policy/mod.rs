//! Policies: what one is given ([`Query`]), what it answers ([`Decision`]), and the [`Chain`] that asks them in order.
//!
//! Invariant: a chain always answers. A policy that passes hands on to the next, one that faults is replaced by what
//! its link says of faults, and behind the last stands a rule compiled into the gateway. A chain is an immutable
//! snapshot: whoever holds it sees one set of generations, from the begin of a transaction to its end.
//!
//! Deliberately absent: WebAssembly. `wasm/` is one implementation of [`Policy`]; [`ReadWriteSplit`] is another.

mod cache;
mod chain;
mod decision;
mod facts;
pub mod hash;
mod query;
mod split;
pub mod value;

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

pub use cache::DecisionCache;
pub use chain::{Answer, Chain, Link, OnFault};
pub use decision::{Decision, Labels, Rejection, Role, ShardId, Shards, SqlState, Target};
pub use facts::Facts;
pub use query::{
    Attributes, Bound, Format, NoAttributes, NoParameters, NodeFacts, NodeRole, Parameter, Parameters, Phase, Query,
    SessionFacts, ShardFacts, TopologyView, Transaction,
};
pub use split::{ReadWriteSplit, SplitSettings};

/// Something that decides where queries go. Called on the data path, from any worker thread, and must be quick.
pub trait Policy: Send + Sync {
    /// The decision for one query.
    ///
    /// # Errors
    /// A [`Fault`] when the policy broke: it trapped, overran its bounds or answered nonsense. It made no decision then.
    fn route(&self, query: &Query<'_>) -> Result<Decision, Fault>;

    /// The policy's name: its file's, without the ending.
    fn name(&self) -> &str;

    /// What is loaded under that name.
    fn generation(&self) -> &Generation;

    /// What it needs and what its decisions depend on.
    fn manifest(&self) -> Manifest;

    /// Told that a kept decision of this policy served again, so that its counters stay true.
    fn served_from_cache(&self) {}
}

/// One loaded policy: what traces, logs and metrics say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Unique for the life of the process; larger is later.
    pub id: u64,
    /// What was loaded.
    pub digest: Digest,
    /// What the policy calls itself, such as `1.4.0`; may be empty.
    pub version: Box<str>,
}

/// SHA-256 over a policy's code and settings; all zeroes for rules compiled into the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of rules compiled into the gateway.
    pub const NATIVE: Self = Self([0; 32]);
}

impl fmt::Display for Digest {
    /// The first twelve hexadecimal digits; with `{:#}` all of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { 32 } else { 6 };
        self.0[..shown].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a policy promises and asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Which facts it may ask about; the gateway need not compute the rest.
    pub needs: Needs,
    /// What its decisions depend on.
    pub depends: Depends,
}

/// A set of groups of facts, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Needs(pub u32);

impl Needs {
    /// No getter is called: the scalars suffice.
    pub const NONE: Self = Self(0);
    /// The statement's text.
    pub const TEXT: Self = Self(1);
    /// Tables, functions and which columns equal a constant: what all texts of one shape share.
    pub const SHAPE: Self = Self(1 << 1);
    /// Literals and bound values.
    pub const VALUES: Self = Self(1 << 2);
    /// User, database, address, application name, attributes.
    pub const SESSION: Self = Self(1 << 3);
    /// Shards, nodes, roles, labels, weights, health.
    pub const TOPOLOGY: Self = Self(1 << 4);
    /// Lag and load of nodes, which change all the time.
    pub const LOAD: Self = Self(1 << 5);
    /// The coarse clock.
    pub const CLOCK: Self = Self(1 << 6);
    /// Hints and sqlcommenter keys.
    pub const HINTS: Self = Self(1 << 7);
    /// Everything that has a number so far.
    pub const ALL: Self = Self((1 << 8) - 1);

    /// Whether all of `other` are in the set.
    #[must_use]
    pub const fn all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a decision depends on, beside the scalars of the query; the later variants include the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Depends {
    /// The statement's shape and the topology's version alone.
    Statement = 0,
    /// Also who asks: [`SessionFacts::key`].
    Session = 1,
    /// Also literals and bound values.
    Values = 2,
    /// Nothing is promised: state of its own, the clock, lag, counters.
    #[default]
    Anything = 3,
}

/// A policy broke while it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Fault {
    /// What happened, for counters.
    pub kind: FaultKind,
    /// What happened, for people.
    pub message: Box<str>,
}

impl Fault {
    /// A fault of a kind.
    pub fn new(kind: FaultKind, message: impl Into<Box<str>>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It trapped: unreachable code, division by zero, an access out of bounds.
    Trap,
    /// It used more time than its deadline allows.
    Deadline,
    /// It asked for more memory than its bound allows.
    Memory,
    /// It recursed too deeply.
    Stack,
    /// Its answer is not one: too long, a number out of range, a shard that does not exist.
    Answer,
    /// It asked for what its manifest does not name.
    Breach,
    /// It said itself that it failed.
    Declared,
    /// It is not there to be asked: missing, or its breaker is open.
    Unavailable,
    /// The host itself failed.
    Host,
}

impl FaultKind {
    /// Every kind, for counters.
    pub const ALL: [Self; 9] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Stack,
        Self::Answer,
        Self::Breach,
        Self::Declared,
        Self::Unavailable,
        Self::Host,
    ];

    /// A word, as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Answer => "answer",
            Self::Breach => "breach",
            Self::Declared => "declared",
            Self::Unavailable => "unavailable",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
