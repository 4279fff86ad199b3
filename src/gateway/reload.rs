//! Putting a changed configuration to work.
//!
//! Invariant: a configuration that fails changes nothing; what needs a restart is named.
//! Deliberately absent: the policies' files (`wasm`), which are watched by themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::Watcher as _;
use notify::event::{AccessKind, AccessMode, EventKind};
use tokio::sync::mpsc;

use super::context::Context;
use super::shards;
use crate::config;
use crate::control::policies::store_config;
use crate::control::{Live, config_file};

/// Reads `origin` and swaps the live snapshot, or says why not.
pub(super) fn reload(context: &Arc<Context>, origin: &Path) {
    let checked = match config_file::load(origin) {
        Ok(checked) => checked,
        Err(error) => {
            context.metrics.reload_failures.one();
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
            context.metrics.reload_failures.one();
            tracing::error!(%error, "the configuration was not reloaded; the one in use stays");
            return;
        }
    };
    for (name, before) in &old.clusters {
        if live.clusters.get(name).is_none_or(|now| !Arc::ptr_eq(before, now)) {
            // Sessions go over to the new cluster with their next transaction.
            before.retire();
        }
    }
    for (cluster, kept) in &live.clusters {
        if old.clusters.get(cluster).is_some_and(|before| Arc::ptr_eq(before, kept)) {
            for account in kept.accounts() {
                let pool = live.config.pool_for(&account.database, &account.user);
                if pool.mode == account.mode {
                    account.set_limits(&pool);
                } else {
                    kept.adopt(&kept.new_account(
                        &account.database,
                        &account.dbname,
                        &account.user,
                        account.credentials.clone(),
                        &pool,
                    ));
                }
            }
        }
    }
    context.policies.reconfigure(store_config(&live.config, context.threads));
    shards::warn_of_blind_chains(&live, &context.policies.chains().load());
    context.live.store(live);
    context.metrics.reloads.one();
    context.watch_clusters();
    // What is bound or built once is compared with what it was then.
    for change in
        config::diff(&context.started, &context.live.load().config).iter().filter(|change| change.needs_restart)
    {
        tracing::warn!(setting = %change.path, "this change takes effect at the next start");
    }
    for change in changes.iter().filter(|change| !change.needs_restart) {
        let setting = &*change.path;
        match (&change.before, &change.after) {
            (None, _) => tracing::info!(setting, "added"),
            (_, None) => tracing::info!(setting, "removed"),
            _ => tracing::info!(setting, "changed"),
        }
    }
}

/// How often the file is looked at though nothing was said of it: network file systems and bind mounts tell nothing.
const RESCAN: Duration = Duration::from_secs(2);

/// How long a changed file must stay as it is before it is read; also the least time between two looks.
const QUIET: Duration = Duration::from_millis(50);

/// Reloads whenever the content of `origin` changes, for ever.
pub(super) async fn watch(context: Arc<Context>, origin: PathBuf) {
    let (sender, mut events) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !changes(event.kind)) {
            return;
        }
        // One word waiting is as good as many.
        let _ = sender.try_send(());
    });
    // The folder, not the file: editors and Kubernetes put another file in its place.
    let folder = origin.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _watcher = watcher
        .and_then(|mut watcher| watcher.watch(folder, notify::RecursiveMode::NonRecursive).map(|()| watcher))
        .inspect_err(|error| tracing::warn!(%error, "the configuration's folder cannot be watched; it is looked at every {RESCAN:?}"))
        .ok();
    let mut known = tokio::fs::read(&origin).await.unwrap_or_default();
    let mut unreadable = 0_u64;
    loop {
        match tokio::time::timeout(RESCAN, events.recv()).await {
            // Other files of the folder change, too, and perhaps all the time.
            Ok(Some(())) => tokio::time::sleep(QUIET).await,
            // A closed channel: no watcher; the time-out alone paces the loop.
            Ok(None) => tokio::time::sleep(RESCAN).await,
            Err(_) => {}
        }
        let mut content = match tokio::fs::read(&origin).await {
            Ok(content) if !content.is_empty() => content,
            // Perhaps it is being replaced just now: it is said at the second look, and once.
            read => {
                unreadable += 1;
                if unreadable == 2 {
                    let what = read.map_or_else(|error| error.to_string(), |_| "it is empty".to_owned());
                    tracing::warn!(file = %origin.display(), what, "the configuration file cannot be read; the one in use stays");
                }
                continue;
            }
        };
        unreadable = 0;
        if content == known {
            continue;
        }
        loop {
            tokio::time::sleep(QUIET).await;
            match tokio::fs::read(&origin).await {
                Ok(again) if again == content => break,
                Ok(again) => content = again,
                Err(_) => break,
            }
        }
        known = content;
        let (context, origin) = (Arc::clone(&context), origin.clone());
        // Reads files and asks the policy store's thread.
        let reloaded = tokio::task::spawn_blocking(move || reload(&context, &origin)).await;
        if let Err(error) = reloaded {
            tracing::error!(%error, "the configuration was not reloaded");
        }
    }
}

/// Whether an event may mean another content. Reading the file is an event, too: who heeds that one never rests.
fn changes(event: EventKind) -> bool {
    matches!(event, EventKind::Access(AccessKind::Close(AccessMode::Write))) || !event.is_access()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind};

    use super::*;

    #[test]
    fn reading_the_file_is_no_change() {
        for (event, expected) in [
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
            (EventKind::Modify(ModifyKind::Data(DataChange::Any)), true),
            (EventKind::Create(CreateKind::File), true),
            (EventKind::Any, true),
        ] {
            assert_eq!(changes(event), expected, "{event:?}");
        }
    }
}
