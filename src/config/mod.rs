//! The configuration: raw -> checked, once; difference; reference and schema.
//!
//! Invariant: the rest of the gateway sees only checked values ([`Config`]), and every problem is
//! told with file, line, column, key path, what was expected and what to write.
//!
//! Deliberately absent: the file system and the environment. [`parse`] takes the text, and what
//! the text refers to (files, environment variables) comes through [`Sources`].

mod address;
mod secret;
mod types;

pub use address::Address;
pub use secret::{Credential, HIDDEN, Secret};
pub use types::{
    Admin, Breaker, ClientCertificate, Cluster, Config, Database, Ejection, Keepalive, Log,
    LogFormat, Monitor, MonitorAccount, Node, OnFault, Policies, Pool, PoolMode, PoolOverrides,
    RoleSetting, Runtime, Server, ServerTls, ServerTlsMode, Shard, UpstreamTls, UpstreamTlsMode,
    User,
};
