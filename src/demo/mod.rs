//! A real PostgreSQL cluster on this machine: a primary and streaming replicas, for `pointsman demo` and for the
//! integration tests.
//!
//! Invariants: nothing outlives the process that started it, however that process ends ([`leftovers`]); no
//! PostgreSQL process runs as root ([`account`]); no process is signalled before it is known to be ours.
//! Readiness is a condition that is asked for, never a pause.
//!
//! Deliberately absent: any knowledge of the gateway. Tests and the demo put the two together.

mod account;
mod cluster;
mod install;
mod leftovers;
mod node;
mod ports;

pub use cluster::{Builder, Cluster, Step};
pub use install::{Install, install_hint};
pub use node::Node;
pub use ports::{free_ports, is_free};

use std::path::PathBuf;

/// What can go wrong while a cluster starts, runs or stops. Each message says what to do next where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No directory holds `initdb`, `postgres` and `pg_basebackup`.
    #[error(
        "PostgreSQL's server programs were not found: {hint}, or set POINTSMAN_PG_BIN to the directory that holds initdb"
    )]
    NotInstalled {
        /// The command that installs them on this system.
        hint: String,
    },
    /// Started as root, and no account to drop to exists.
    #[error(
        "PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` exists: start this as an ordinary user"
    )]
    NoAccount,
    /// The account that PostgreSQL runs under cannot reach the directory.
    #[error("user {user} cannot enter {}, so PostgreSQL cannot keep its data below it: choose another directory", path.display())]
    Unreachable {
        /// The account's name.
        user: String,
        /// The first directory on the way that is closed to it.
        path: PathBuf,
    },
    /// The directory belongs to a cluster that is still running.
    #[error("another cluster is running in {}: stop it, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// The directory holds something that is not ours to remove.
    #[error("{}/nodes exists and was not made by pointsman: choose another directory", .0.display())]
    Foreign(PathBuf),
    /// A fixed port is taken.
    #[error("port {port} on 127.0.0.1 is in use")]
    PortBusy {
        /// The port.
        port: u16,
    },
    /// No run of free ports was found.
    #[error("no {0} free ports in a row were found on 127.0.0.1")]
    NoPorts(usize),
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The program's name.
        program: String,
        /// How it ended.
        status: String,
        /// What it last wrote.
        output: String,
    },
    /// A server ended, or did not become ready in time.
    #[error("PostgreSQL node {node} {what}; the end of its log:\n{log}")]
    NotReady {
        /// The node's name.
        node: String,
        /// What happened.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// A condition on the cluster did not come true in time.
    #[error("waited {seconds} s in vain for {what}")]
    Deadline {
        /// The condition.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// Adapts an I/O error by what was attempted: `.map_err(Error::io("cannot read X"))`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// This layer's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
