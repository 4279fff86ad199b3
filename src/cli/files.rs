//! The limit of open files: each client and each server connection is one.
//!
//! Invariant: the soft limit, which is made for programs that use `select`, does not bound the gateway where the hard one is
//! higher. Deliberately absent: raising the hard limit, which is the administrator's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Listeners, policies, logs, runtimes, what is opened for a moment.
const OTHERS: u64 = 100;

/// Raises the soft limit to the hard one, and warns if that is too little for what the configuration allows.
pub(super) fn raise_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    // None is no limit.
    let Some(files) = getrlimit(Resource::Nofile).current else { return };
    let (clients, servers) = (config.server.max_clients as u64, config.max_server_connections as u64);
    let wanted = clients + servers + OTHERS;
    if files < wanted {
        tracing::warn!(
            files,
            wanted,
            "the limit of open files is below max_clients + max_server_connections: clients beyond it will be refused; \
             raise it (LimitNOFILE= of systemd, ulimit -Hn) or lower those"
        );
    }
}
