//! What a policy may know of a query: borrowed values, nothing computed that nobody asks for.
//!
//! Invariant: a `Query` is a view. It owns nothing, and building one allocates nothing, whatever the statement's size.
//! The values behind the traits belong to the session, the message in hand and the topology's snapshot.
//!
//! Deliberately absent: the decision and whoever makes it.

use std::net::IpAddr;
use std::time::Duration;

use super::facts::Facts;
use crate::sql::{Access, Analysis, Effects, Kind, Understood};

/// One statement string that waits for a decision.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The text as the client sent it, in the client's encoding; without the terminating zero.
    pub text: &'a [u8],
    /// What the text alone tells.
    pub analysis: &'a Analysis,
    /// Access after the catalogue was asked about the functions: `Read` is proven here.
    pub access: Access,
    /// Effects after the catalogue was asked about the functions.
    pub effects: Effects,
    /// The message that wants the decision.
    pub phase: Phase,
    /// The transaction that it runs in.
    pub transaction: Transaction,
    /// Bound values; [`NoParameters`] but for [`Phase::Bind`].
    pub parameters: &'a dyn Parameters,
    /// Who asks.
    pub session: &'a SessionFacts<'a>,
    /// Where it could go.
    pub topology: &'a dyn TopologyView,
}

impl Query<'_> {
    /// The first statement's kind; `Other` for an empty string.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.analysis.shape.statements.first().map_or(Kind::Other, |statement| statement.kind)
    }

    /// How far the text was understood: the least of its statements; an empty string is wholly understood.
    #[must_use]
    pub fn understood(&self) -> Understood {
        let statements = &self.analysis.shape.statements;
        let least = statements.iter().map(|statement| statement.understood).min_by_key(|level| *level as u8);
        least.unwrap_or(Understood::Parsed)
    }

    /// The yes-or-no facts in one word.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts::of(self)
    }
}

impl std::fmt::Debug for Query<'_> {
    /// Neither text nor values: they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("fingerprint", &self.analysis.shape.fingerprint)
            .field("kind", &self.kind())
            .field("access", &self.access)
            .field("phase", &self.phase)
            .field("transaction", &self.transaction)
            .finish_non_exhaustive()
    }
}

/// The message that wants a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// A Query message: the text is whole, its values are literals.
    Simple = 0,
    /// Parse or Describe without a Bind: parameters are not known yet. A decision that needs them may name any shard.
    Parse = 1,
    /// Bind: parameters are known.
    Bind = 2,
}

/// The transaction block that a query runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transaction {
    /// None: the query is its own transaction.
    #[default]
    Idle,
    /// A block that BEGIN opened.
    Block {
        /// READ ONLY, by BEGIN, SET TRANSACTION or the session's default.
        read_only: bool,
        /// ISOLATION LEVEL SERIALIZABLE, likewise; a standby refuses it.
        serializable: bool,
        /// No statement has reached a server yet: the decision chooses the transaction's server.
        first: bool,
    },
}

/// Bound values, in the order of `$n`.
pub trait Parameters {
    /// How many the Bind carries.
    fn count(&self) -> u32;

    /// `$number`, counted from 1; `None` beyond the count.
    fn parameter(&self, number: u32) -> Option<Parameter<'_>>;
}

/// A query without bound values.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoParameters;

impl Parameters for NoParameters {
    fn count(&self) -> u32 {
        0
    }

    fn parameter(&self, _number: u32) -> Option<Parameter<'_>> {
        None
    }
}

/// One bound value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// How the value is written.
    pub format: Format,
    /// The type's oid as Parse declared it or the server described it; 0 where neither is known.
    pub type_oid: u32,
    /// The value.
    pub value: Bound<'a>,
}

/// How a value is written (the protocol's format code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    /// The type's input syntax.
    Text = 0,
    /// The type's send and receive format.
    Binary = 1,
}

/// The value of a parameter, as far as the gateway holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound<'a> {
    /// NULL.
    Null,
    /// The whole value.
    Bytes(&'a [u8]),
    /// Too long to be held: it streams to the server after the decision.
    Streamed,
}

/// Who asks. What a client may choose for itself (application name, attributes) is no credential.
#[derive(Clone, Copy)]
pub struct SessionFacts<'a> {
    /// Unique for the life of the process.
    pub id: u64,
    /// The authenticated user.
    pub user: &'a str,
    /// The database that the client asked for.
    pub database: &'a str,
    /// The client's address; `None` over a Unix socket.
    pub client: Option<IpAddr>,
    /// The session's `application_name`.
    pub application_name: &'a str,
    /// Settings of the `pointsman.` namespace, names without the prefix: `pointsman.tenant` is `tenant`.
    pub attributes: &'a dyn Attributes,
    /// Equal for equal user, database, client address, application name and attributes, and for nothing else in practice:
    /// the key of decisions kept per session. 0 forbids keeping them.
    pub key: u64,
    /// A possible write was sent and no replica is known to have replayed it yet.
    pub wrote: bool,
}

/// A session's own settings, by name.
pub trait Attributes {
    /// The value of one; names are lower case, without the `pointsman.` prefix.
    fn attribute(&self, name: &str) -> Option<&str>;

    /// All of them, in any order.
    fn each(&self, visit: &mut dyn FnMut(&str, &str));
}

/// A session without attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAttributes;

impl Attributes for NoAttributes {
    fn attribute(&self, _name: &str) -> Option<&str> {
        None
    }

    fn each(&self, _visit: &mut dyn FnMut(&str, &str)) {}
}

impl<K: AsRef<str>, V: AsRef<str>> Attributes for Vec<(K, V)> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value.as_ref())
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self {
            visit(key.as_ref(), value.as_ref());
        }
    }
}

/// The cluster that the session's database lives on, as plain values.
pub trait TopologyView {
    /// Changes whenever names, roles, labels, weights or health change, and is never shared by two clusters:
    /// what a policy worked out under one version holds while the version stays. Lag and load do not change it.
    fn version(&self) -> u64;

    /// How many shards; a plain cluster has one.
    fn shards(&self) -> u32;

    /// A shard by position, counted from 0.
    fn shard(&self, shard: u32) -> Option<ShardFacts<'_>>;

    /// A shard's position by name.
    fn shard_named(&self, name: &str) -> Option<u32> {
        (0..self.shards()).find(|index| self.shard(*index).is_some_and(|shard| shard.name == name))
    }

    /// A shard's node by position, counted from 0.
    fn node(&self, shard: u32, node: u32) -> Option<NodeFacts<'_>>;
}

/// One shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardFacts<'a> {
    /// As configured; a plain cluster's only shard has the cluster's name.
    pub name: &'a str,
    /// How many nodes it has.
    pub nodes: u32,
}

/// One node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeFacts<'a> {
    /// As configured.
    pub name: &'a str,
    /// Found by asking the node, not by configuration.
    pub role: NodeRole,
    /// Its share of reads.
    pub weight: u32,
    /// Whether it is offered queries at all.
    pub healthy: bool,
    /// Replay lag as last measured; `None` where unknown, zero for a primary.
    pub lag: Option<Duration>,
    /// Queries that this gateway has sent and not seen the end of.
    pub in_flight: u32,
    /// As configured.
    pub labels: &'a [(Box<str>, Box<str>)],
}

/// What a node is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum NodeRole {
    /// Not asked yet, or not reachable.
    #[default]
    Unknown = 0,
    /// It takes writes.
    Primary = 1,
    /// It follows.
    Replica = 2,
}
