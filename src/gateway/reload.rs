//! Putting a changed configuration to work.
//!
//! Invariant: a configuration that fails changes nothing; what needs a restart is named.
//! Deliberately absent: noticing that the file changed.

use std::path::Path;
use std::sync::Arc;

use super::context::Context;
use crate::config;
use crate::control::{Live, config_file};

/// Reads `origin` and swaps the live snapshot, or says why not.
pub(super) fn reload(context: &Arc<Context>, origin: &Path) {
    let checked = match config_file::load(origin) {
        Ok(checked) => checked,
        Err(error) => {
            tracing::error!("the configuration was not reloaded; the one in use stays:\n{error}");
            return;
        }
    };
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    let old = context.live.load_full();
    let changes = config::diff(&old.config, &checked.config);
    if changes.is_empty() && old.tls.is_none() {
        tracing::info!("the configuration was read again: nothing changed");
        return;
    }
    let live = match Live::build(checked.config, Some(&old), &context.budget, context.workers) {
        Ok(live) => Arc::new(live),
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded; the one in use stays");
            return;
        }
    };
    for (cluster, kept) in &live.clusters {
        if old.clusters.get(cluster).is_some_and(|before| Arc::ptr_eq(before, kept)) {
            for account in kept.accounts() {
                account.set_limits(&live.config.pool_for(&account.database, &account.user));
            }
        }
    }
    context.live.store(live);
    for change in changes {
        if change.needs_restart {
            tracing::warn!(setting = %change.path, "this change takes effect at the next start");
        } else {
            tracing::info!(setting = %change.path, "changed");
        }
    }
}
