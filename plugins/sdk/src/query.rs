//! What a policy can know of a query. Methods of [`Query`] that read numbers are free; those that fetch lists and text
//! from the gateway cost a fraction of a microsecond and an allocation, and need a line in the manifest.

use crate::bindings::pointsman::policy::{parameters, session, statement, topology, types};

pub use crate::bindings::pointsman::policy::parameters::Parameter;
pub use crate::bindings::pointsman::policy::statement::{Equality, Function, Hint, Table};
pub use crate::bindings::pointsman::policy::topology::Load;
pub use crate::bindings::pointsman::policy::types::Value;

/// One query that waits for a decision.
#[derive(Debug, Clone, Copy)]
pub struct Query(types::Query);

impl From<types::Query> for Query {
    fn from(query: types::Query) -> Self {
        Self(query)
    }
}

/// Facts, by the bits of `query.facts`.
mod fact {
    pub(super) const IN_TRANSACTION: u32 = 1;
    pub(super) const READ_ONLY: u32 = 1 << 1;
    pub(super) const SERIALIZABLE: u32 = 1 << 2;
    pub(super) const FIRST: u32 = 1 << 3;
    pub(super) const SESSION_WROTE: u32 = 1 << 4;
    pub(super) const SEVERAL_STATEMENTS: u32 = 1 << 5;
    pub(super) const PARSED: u32 = 1 << 6;
    pub(super) const PARAMETERS_UNKNOWN: u32 = 1 << 8;
}

impl Query {
    /// The command of the first statement.
    pub fn kind(&self) -> Kind {
        Kind::from_number(self.0.kind)
    }

    /// Whether it may change data.
    pub fn access(&self) -> Access {
        match self.0.access {
            1 => Access::Read,
            2 => Access::Write,
            _ => Access::Unknown,
        }
    }

    /// What session state it touches or may touch.
    pub fn effects(&self) -> Effects {
        Effects(self.0.effects)
    }

    /// Inside a transaction block.
    pub fn in_transaction(&self) -> bool {
        self.fact(fact::IN_TRANSACTION)
    }

    /// Inside a READ ONLY transaction block.
    pub fn is_read_only(&self) -> bool {
        self.fact(fact::READ_ONLY)
    }

    /// Inside a SERIALIZABLE transaction block, which a standby refuses.
    pub fn is_serializable(&self) -> bool {
        self.fact(fact::SERIALIZABLE)
    }

    /// The decision chooses the transaction's server.
    pub fn is_first(&self) -> bool {
        self.fact(fact::FIRST)
    }

    /// A write of the session may not be on the replicas yet.
    pub fn session_wrote(&self) -> bool {
        self.fact(fact::SESSION_WROTE)
    }

    /// The string holds several statements.
    pub fn has_several_statements(&self) -> bool {
        self.fact(fact::SEVERAL_STATEMENTS)
    }

    /// Tables and equalities are complete.
    pub fn is_parsed(&self) -> bool {
        self.fact(fact::PARSED)
    }

    /// The client prepares the statement; bound values come later, and a decision for them.
    pub fn is_parameters_unknown(&self) -> bool {
        self.fact(fact::PARAMETERS_UNKNOWN)
    }

    /// Equal for texts that differ only in literals; differs after a restart of the gateway.
    pub fn fingerprint(&self) -> u128 {
        u128::from(self.0.fingerprint_high) << 64 | u128::from(self.0.fingerprint_low)
    }

    /// Changes when shards or nodes change; never the same for two clusters.
    pub fn topology_version(&self) -> u64 {
        self.0.topology
    }

    /// How many tables are named; free, so worth asking before [`Self::tables`].
    pub fn table_count(&self) -> u32 {
        self.0.tables
    }

    /// How many bound values there are.
    pub fn parameter_count(&self) -> u32 {
        self.0.parameters
    }

    /// Whether a standby can serve it: proven to read, asks nothing about the node itself, touches no state that a server keeps,
    /// and outside a transaction or in one that is READ ONLY and not SERIALIZABLE.
    pub fn may_use_replica(&self) -> bool {
        let transaction = !self.in_transaction() || self.is_read_only() && !self.is_serializable();
        transaction && self.0.access == 1 && self.0.effects & !Effects::HARMLESS.0 == 0
    }

    /// The first `limit` bytes of the text, in the client's encoding. (Needs TEXT.)
    pub fn text(&self, limit: usize) -> Vec<u8> {
        let mut text = Vec::new();
        while text.len() < limit {
            let length = u32::try_from(limit - text.len()).unwrap_or(u32::MAX);
            let part = statement::text(text.len() as u64, length);
            if part.is_empty() {
                break;
            }
            text.extend_from_slice(&part);
        }
        text
    }

    /// Tables named anywhere, one entry for each place. (Needs SHAPE.)
    pub fn tables(&self) -> Vec<Table> {
        if self.0.tables == 0 { Vec::new() } else { statement::tables() }
    }

    /// Functions called anywhere. (Needs SHAPE.)
    pub fn functions(&self) -> Vec<Function> {
        if self.0.functions == 0 { Vec::new() } else { statement::functions() }
    }

    /// `column = constant or $n` that holds for every row. (Needs SHAPE.)
    pub fn equalities(&self) -> Vec<Equality> {
        if self.0.equalities == 0 { Vec::new() } else { statement::equalities() }
    }

    /// The value of one of [`Self::equalities`], by position. (Needs VALUES.)
    pub fn equality_value(&self, index: u32) -> Value {
        statement::equality_value(index)
    }

    /// Hints in comments: facts that the client states, never permissions. (Needs HINTS.)
    pub fn hints(&self) -> Vec<Hint> {
        if self.0.hints == 0 { Vec::new() } else { statement::hints() }
    }

    /// `$number`, counted from 1, as text. (Needs VALUES.)
    pub fn parameter(&self, number: u32) -> Value {
        parameters::decoded(number)
    }

    /// `$number` as the client sent it. (Needs VALUES.)
    pub fn raw_parameter(&self, number: u32) -> Option<Parameter> {
        parameters::raw(number)
    }

    /// Who asks. (Needs SESSION.)
    pub fn session(&self) -> Session {
        Session(())
    }

    /// Where the query could go. (Needs TOPOLOGY.)
    pub fn topology(&self) -> Topology {
        Topology(())
    }

    fn fact(&self, bit: u32) -> bool {
        self.0.facts & bit != 0
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Session(());

impl Session {
    /// Unique for the life of the gateway's process.
    pub fn id(self) -> u64 {
        session::id()
    }

    /// The authenticated user.
    pub fn user(self) -> String {
        session::user()
    }

    /// The database that the client asked for.
    pub fn database(self) -> String {
        session::database()
    }

    /// The client's address; `None` over a Unix socket.
    pub fn address(self) -> Option<String> {
        session::address()
    }

    /// The client's choice.
    pub fn application_name(self) -> String {
        session::application_name()
    }

    /// The session's setting `pointsman.NAME`: the client's choice.
    pub fn attribute(self, name: &str) -> Option<String> {
        session::attribute(name)
    }
}

/// Where a query could go.
#[derive(Debug, Clone, Copy)]
pub struct Topology(());

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is at the moment.
    pub role: NodeRole,
    /// Its share of reads.
    pub weight: u32,
    /// Whether it is offered queries at all.
    pub healthy: bool,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// What a node is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Not asked yet, or not reachable.
    Unknown,
    /// It takes writes.
    Primary,
    /// It follows.
    Replica,
}

impl Topology {
    /// How many shards.
    pub fn shards(self) -> u32 {
        topology::shards()
    }

    /// A shard's position, by its name.
    pub fn shard_named(self, name: &str) -> Option<u32> {
        topology::shard_named(name)
    }

    /// A shard's name.
    pub fn shard_name(self, shard: u32) -> Option<String> {
        topology::shard_name(shard)
    }

    /// A shard's nodes.
    pub fn nodes(self, shard: u32) -> Vec<Node> {
        let node = |node: topology::Node| Node {
            name: node.name,
            role: match node.role {
                1 => NodeRole::Primary,
                2 => NodeRole::Replica,
                _ => NodeRole::Unknown,
            },
            weight: node.weight,
            healthy: node.healthy,
            labels: node.labels,
        };
        topology::nodes(shard).into_iter().map(node).collect()
    }

    /// A node's lag and load. (Needs LOAD.)
    pub fn load(self, shard: u32, node: u32) -> Option<Load> {
        topology::node_load(shard, node)
    }
}

/// Whether a statement may change data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Not understood: treat it as a write.
    Unknown,
    /// Proven to change nothing.
    Read,
    /// May change data.
    Write,
}

/// What session state a statement touches or may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
    };
}

effects! {
    /// A setting of the session.
    SETTINGS = 0;
    /// All settings at once.
    ALL_SETTINGS = 1;
    /// Temporary objects.
    TEMPORARY = 2;
    /// Session-level advisory locks.
    ADVISORY_LOCK = 3;
    /// Cursors WITH HOLD.
    HOLD_CURSOR = 4;
    /// LISTEN.
    LISTEN = 5;
    /// LOAD.
    LOAD = 6;
    /// nextval and its like.
    SEQUENCE = 7;
    /// PREPARE and EXECUTE at SQL level.
    SQL_PREPARE = 8;
    /// Prepared statements of the server go.
    DROPS_PREPARED = 9;
    /// Cannot run inside a transaction block.
    OUTSIDE_TRANSACTION = 10;
    /// The catalogue changes.
    DDL = 11;
    /// Not understood, and may create session state.
    OPAQUE = 12;
    /// UNLISTEN.
    UNLISTEN = 13;
    /// SET LOCAL.
    LOCAL_SETTINGS = 14;
    /// DISCARD ALL.
    DISCARD_ALL = 15;
    /// Asks about the node itself.
    NODE_LOCAL = 16;
    /// Calls a function that is not known.
    CALLS_UNKNOWN = 17;
}

impl Effects {
    /// A standby may have these: settings are the same everywhere, and the gateway replays them where they are needed.
    pub const HARMLESS: Self = Self(Self::SETTINGS.0 | Self::ALL_SETTINGS.0 | Self::LOCAL_SETTINGS.0);

    /// Whether any of `other` is in the set.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Effects {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

macro_rules! kinds {
    ($($name:ident),* $(,)?) => {
        /// The command of a statement; variants stand in the order of `query.kind`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Kind { $($name),* }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn from_number(number: u32) -> Self {
                Self::ALL.get(number as usize).copied().unwrap_or(Self::Other)
            }
        }
    };
}

kinds! {
    Other, Select, Insert, Update, Delete, Merge, Values, CopyIn, CopyOut, Call, Do, Explain, Set, Reset, Show, Begin,
    Commit, Rollback, Savepoint, Release, RollbackTo, SetTransaction, PrepareTransaction, FinishPrepared,
    SetConstraints, Prepare, Execute, Deallocate, Declare, Fetch, Close, Listen, Unlisten, Notify, Lock, Discard, Load,
    Maintenance, Ddl,
}
