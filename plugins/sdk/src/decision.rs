//! What a policy answers.

use std::time::Duration;

use crate::bindings::exports::pointsman::policy::routing as wit;

/// What a policy says about one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No opinion: the next policy of the chain decides.
    Pass,
    /// Send it there.
    Route(Target),
    /// Refuse it.
    Reject(Rejection),
}

/// What the server must be. The gateway draws one by weight among those that are healthy and match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    role: Role,
    shards: Shards,
    labels: Vec<(String, String)>,
    max_lag: Option<u32>,
    consistency: Option<String>,
}

impl Target {
    /// The primary of the default shard.
    pub fn primary() -> Self {
        Self::role(Role::Primary)
    }

    /// A replica of the default shard; the primary if none is fit.
    pub fn replica() -> Self {
        Self::role(Role::Replica)
    }

    /// A node of that role.
    pub fn role(role: Role) -> Self {
        Self { role, ..Self::default() }
    }

    /// On this shard, by its position.
    #[must_use]
    pub fn shard(self, shard: u32) -> Self {
        Self { shards: Shards::One(shard), ..self }
    }

    /// On these shards.
    #[must_use]
    pub fn shards(self, shards: Shards) -> Self {
        Self { shards, ..self }
    }

    /// Only nodes with this label; may be called several times.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Only replicas whose lag is at most this.
    #[must_use]
    pub fn max_lag(self, lag: Duration) -> Self {
        Self { max_lag: Some(u32::try_from(lag.as_millis()).unwrap_or(u32::MAX)), ..self }
    }

    /// Reads with this key see the writes that were made with it through this gateway, whichever session made them. In a
    /// transaction the key of its first statement chooses the node.
    #[must_use]
    pub fn consistency(self, key: impl Into<String>) -> Self {
        Self { consistency: Some(key.into()), ..self }
    }
}

impl From<Target> for Decision {
    fn from(target: Target) -> Self {
        Self::Route(target)
    }
}

/// Which kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Role {
    /// The node that takes writes.
    #[default]
    Primary = 0,
    /// A standby; the primary if none is fit.
    Replica = 1,
    /// Any node.
    Any = 2,
}

/// Which shards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Shards {
    /// The cluster's default shard.
    #[default]
    Default,
    /// One, by its position.
    One(u32),
    /// Several; at most 1024.
    Many(Vec<u32>),
    /// Every one.
    All,
}

/// An error for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    sqlstate: String,
    message: String,
    hint: Option<String>,
}

impl Rejection {
    /// Five digits or upper case letters, and one line that says what is wrong.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self { sqlstate: sqlstate.into(), message: message.into(), hint: None }
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<Rejection> for Decision {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

impl From<Decision> for wit::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Pass => Self::Pass,
            Decision::Route(target) => Self::Route(wit::Target {
                role: target.role as u32,
                shards: match target.shards {
                    Shards::Default => wit::Shards::Default,
                    Shards::One(shard) => wit::Shards::One(shard),
                    Shards::Many(shards) => wit::Shards::Many(shards),
                    Shards::All => wit::Shards::All,
                },
                labels: target.labels,
                max_lag: target.max_lag,
                consistency: target.consistency,
            }),
            Decision::Reject(rejection) => Self::Reject(wit::Rejection {
                sqlstate: rejection.sqlstate,
                message: rejection.message,
                hint: rejection.hint,
            }),
        }
    }
}
