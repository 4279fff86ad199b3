//! What a policy answers: a target, a refusal, or nothing.
//!
//! Invariant: the common answers (`Target::PRIMARY`, `Target::REPLICA`, `Pass`) are made and cloned without an
//! allocation; whatever needs one is behind an `Arc`, so that a clone is never more than a few counters.
//!
//! Deliberately absent: the choice of a node. The host draws it among those that meet the target.

use std::sync::Arc;
use std::time::Duration;

/// What a policy says about one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send it there.
    Route(Target),
    /// Answer the client with an error; nothing is sent to any server.
    Reject(Arc<Rejection>),
    /// No opinion: the next link of the chain decides.
    Pass,
}

impl Decision {
    /// A refusal; see [`Rejection::new`].
    pub fn reject(sqlstate: SqlState, message: impl Into<Box<str>>, hint: Option<Box<str>>) -> Self {
        Self::Reject(Arc::new(Rejection { sqlstate, message: message.into(), hint }))
    }
}

/// The conditions that a server must meet. The host draws one by weight among those healthy and matching.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Primary, replica or either.
    pub role: Role,
    /// Which shards; `Default` in a cluster without shards.
    pub shards: Shards,
    /// Labels that the node must carry, all of them; `None` for no condition.
    pub labels: Option<Labels>,
    /// A replica whose measured lag is above this, or unknown, does not qualify; `None` leaves it to the configuration.
    pub max_lag: Option<Duration>,
    /// Reads with this key see the writes that were made with it, whichever session made them, and the session's own.
    /// `None` stands for those alone. In a transaction the key of its first statement counts.
    pub consistency: Option<Arc<str>>,
}

/// Pairs of label and value, shared.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

impl Target {
    /// The primary of the default shard.
    pub const PRIMARY: Self = Self::of(Role::Primary);
    /// A replica of the default shard; the primary serves when none is fit.
    pub const REPLICA: Self = Self::of(Role::Replica);

    /// A node of that role in the default shard, without further conditions.
    #[must_use]
    pub const fn of(role: Role) -> Self {
        Self { role, shards: Shards::Default, labels: None, max_lag: None, consistency: None }
    }
}

/// Which kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Role {
    /// The node that takes writes.
    #[default]
    Primary = 0,
    /// A standby; when none is fit, the primary.
    Replica = 1,
    /// Any node, the primary among them by its weight.
    Any = 2,
}

/// A shard, by its position in the cluster's configuration, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

/// Which shards a query concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Shards {
    /// The cluster's default shard: the only one of a plain cluster.
    #[default]
    Default,
    /// One shard.
    One(ShardId),
    /// Several: sorted, each once, at least two.
    Many(Arc<[ShardId]>),
    /// Every shard of the cluster.
    All,
}

/// The error that a client gets in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The error's class.
    pub sqlstate: SqlState,
    /// The primary message: one line, no full stop, as PostgreSQL writes them.
    pub message: Box<str>,
    /// What the user can do.
    pub hint: Option<Box<str>>,
}

/// Five characters, digits and upper-case ASCII letters (PostgreSQL's documentation, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `42501` `insufficient_privilege`: the class of a refusal whose policy names none.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// `58000` `system_error`: a policy failed, the client did nothing wrong.
    pub const SYSTEM_ERROR: Self = Self(*b"58000");

    /// `None` unless it is five digits or upper-case letters, and of no class that means success or a warning (00, 01, 02).
    #[must_use]
    pub fn parse(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        let valid = code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        let error = !(code[0] == b'0' && matches!(code[1], b'0' | b'1' | b'2'));
        (valid && error).then_some(Self(code))
    }

    /// The five bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 5] {
        self.0
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor admits ASCII only.
        std::str::from_utf8(&self.0).unwrap_or("58000")
    }
}

impl std::fmt::Display for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates() {
        for (text, valid) in [
            ("42501", true),
            ("PM001", true),
            ("00000", false),
            ("01000", false),
            ("02000", false),
            ("4250", false),
            ("425010", false),
            ("4250a", false),
            ("4250\n", false),
        ] {
            assert_eq!(SqlState::parse(text.as_bytes()).is_some(), valid, "{text:?}");
        }
    }

    #[test]
    fn common_decisions_are_small() {
        assert!(size_of::<Decision>() <= 80, "{}", size_of::<Decision>());
    }
}
