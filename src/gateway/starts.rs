//! What is set for sessions that begin was changed: ALTER ROLE or ALTER DATABASE, with SET or RESET.
//!
//! Invariant: a client that logs in after such a statement was acknowledged is greeted by, and runs on, servers that started
//! with what it set; sessions that exist keep what they began with. What did not pass through here is found within [`LOOK`].
//!
//! A primary tells what is set now; each account for which that differs from what it told before makes room for another with the
//! same name (`control::Cluster::renew`).
//!
//! Deliberately absent: which statements may have done it (`catalog::alters_starts`, what runs unseen), the questions
//! (`session::Starts`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::private;
use crate::control::{Account, Cluster};
use crate::net;
use crate::pool::{Lent, Pool};
use crate::session::Starts;
use crate::topology::{Requirement, Role, Writes};
use crate::upstream::Settings;

/// How often a primary is asked what nobody has said.
const LOOK: Duration = Duration::from_secs(10);

/// Longest time for asking the servers that there are what they started with. A server that does not tell costs old sessions no
/// more than what it started with.
const ASKING: Duration = Duration::from_secs(2);

/// Longest wait for replicas.
const REPLAY: Duration = Duration::from_secs(60);

/// The server of a primary that a session of `account` holds said what is set. `likely`: a statement has changed it just now.
pub(super) async fn learn_from(account: &Arc<Account>, lent: &mut Lent, told: Starts, likely: bool) {
    let shard = lent.pool().node.shard;
    learn(&account.cluster, shard, &told, likely, Some((account, lent))).await;
}

/// A shard's primary said what is set. `likely`: a statement has changed it just now. `own`: a server that is lent already, and its
/// account.
pub(super) async fn learn(
    cluster: &Arc<Cluster>,
    shard: usize,
    starts: &Starts,
    likely: bool,
    mut own: Option<(&Arc<Account>, &mut Lent)>,
) {
    let concerned = cluster.begin_otherwise(shard, starts, likely);
    if concerned.is_empty() {
        return;
    }
    let deadline = Instant::now() + ASKING;
    let mut heirs = Vec::new();
    for (account, set) in concerned {
        let own = match &mut own {
            Some((mine, lent)) if Arc::ptr_eq(mine, &account) => Some(&mut **lent),
            _ => None,
        };
        let mut values = account.beginning.values().cloned().unwrap_or_default();
        match net::timeout_at(deadline, ask_values(&account, shard, own)).await {
            Ok(Some(told)) => told.iter().for_each(|(name, value)| values.set(name, value)),
            Ok(None) | Err(_) => {
                tracing::debug!(user = %account.user, database = %account.database, "no server told what it started with");
            }
        }
        if let Some(heir) = cluster.renew(&account, shard, set, &values) {
            tracing::info!(
                cluster = %cluster.name,
                user = %account.user,
                database = %account.database,
                "settings of the role or the database have changed: sessions that begin now get servers of their own"
            );
            heirs.push(Arc::downgrade(&heir));
        }
    }
    if cluster.topology.shards()[shard].nodes.iter().any(|node| node.role() == Role::Replica) {
        tokio::spawn(once_replayed(Arc::downgrade(cluster), shard, heirs));
    }
}

/// What a server of the account started with. Nobody waits for one: `None`, if none is idle.
async fn ask_values(account: &Account, shard: usize, own: Option<&mut Lent>) -> Option<Settings> {
    let known = account.beginning.values();
    let names = known.into_iter().flat_map(Settings::iter).map(|(name, _)| name);
    let sql = Starts::values_sql(&account.dbname, &account.user, names);
    let mut spare = None;
    let lent = match own {
        Some(lent) => lent,
        None => spare.insert(account.own_pools(shard).iter().find_map(Pool::spare)?),
    };
    let answer = private::ask_whatever_it_takes(lent, &sql).await.ok()?;
    let values = Starts::values(&answer, lent.upstream.settings.as_deref());
    if let Some(spare) = spare {
        spare.give_back();
    }
    answer.error.is_none().then_some(values)
}

/// What replicas' servers started with that were opened too early is not what is set.
async fn once_replayed(cluster: Weak<Cluster>, shard: usize, heirs: Vec<Weak<Account>>) {
    let deadline = Instant::now() + REPLAY;
    let mut writes = match cluster.upgrade() {
        Some(cluster) => Writes::everywhere(&cluster.topology),
        None => return,
    };
    while Instant::now() < deadline {
        let Some(cluster) = cluster.upgrade() else { return };
        if writes.required(&cluster.topology, shard) == Requirement::None {
            break;
        }
        drop(cluster);
        net::sleep(Duration::from_millis(50)).await;
    }
    for heir in heirs.iter().filter_map(Weak::upgrade) {
        heir.own_pools(shard).iter().filter(|pool| pool.node.role() != Role::Primary).for_each(Pool::recycle);
    }
}

/// Notes what an account's sessions begin with, from a server that greets one of them.
pub(super) async fn note(account: &Account, lent: &mut Lent) {
    let node = Arc::clone(&lent.pool().node);
    if account.beginning.is_known() || node.role() == Role::Replica {
        return;
    }
    let values = Starts::values_sql(&account.dbname, &account.user, std::iter::empty());
    // A server that does not tell is asked when the next client is greeted.
    let Ok(answer) = private::ask_whatever_it_takes(lent, &format!("{}{values}", Starts::SQL)).await else { return };
    if answer.error.is_none() {
        let values = Starts::values(&answer, lent.upstream.settings.as_deref());
        account.beginning.note(node.shard, Starts::read(&answer).of(&account.dbname, &account.user), values);
    }
}

/// Looks for what was changed without passing through here, for ever. No connection is opened for that.
pub(super) async fn watch(context: Arc<Context>) {
    loop {
        net::sleep(LOOK).await;
        let clusters: Vec<_> = context.live.load().clusters.values().cloned().collect();
        for cluster in clusters {
            for shard in 0..cluster.topology.shards().len() {
                // A server that does not answer is found to be so by others.
                let _ = net::timeout(ASKING, look(&cluster, shard)).await;
            }
        }
    }
}

async fn look(cluster: &Arc<Cluster>, shard: usize) -> Option<()> {
    let pools = cluster.accounts().into_iter().flat_map(|account| account.own_pools(shard));
    let mut lent = pools.filter(|pool| pool.node.role() == Role::Primary).find_map(|pool| pool.spare())?;
    let answer = private::ask_whatever_it_takes(&mut lent, Starts::SQL).await.ok()?;
    lent.give_back();
    if answer.error.is_none() {
        learn(cluster, shard, &Starts::read(&answer), false, None).await;
    }
    Some(())
}
