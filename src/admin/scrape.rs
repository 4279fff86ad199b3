//! All metrics, written from a source.
//!
//! Invariant: every family of [`families::ALL`] is written, each once. Deliberately absent: the format.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use super::Source;
use crate::control::{Cluster, Live};
use crate::observe::PoolStats;
use crate::observe::expose::{Page, Samples};
use crate::observe::families as f;
use crate::observe::metrics::{Counter, Refusal, Times};
use crate::policy::Role as Target;
use crate::topology::{Node, Role, Standing};

/// Writes everything.
pub(super) fn write(source: &dyn Source, page: &mut Page<'_>) -> fmt::Result {
    let live = source.live();
    process(source, &live, page)?;
    clients(source, &live, page)?;
    statements(source, &live, page)?;
    servers(source, &live, page)?;
    nodes(&live, page)?;
    policies(source, page)
}

fn process(source: &dyn Source, _live: &Live, page: &mut Page<'_>) -> fmt::Result {
    let started = source.metrics().started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.family(&f::BUILD, |out| out.value(&[env!("CARGO_PKG_VERSION")], 1))?;
    page.family(&f::STARTED, |out| out.fraction(&[], started.as_secs_f64()))
}

fn clients(source: &dyn Source, live: &Live, page: &mut Page<'_>) -> fmt::Result {
    let metrics = source.metrics();
    page.single(&f::CLIENTS, source.clients() as u64)?;
    page.single(&f::CLIENTS_LIMIT, live.config.server.max_clients as u64)?;
    page.single(&f::ACCEPTED, metrics.accepted.get())?;
    page.family(&f::REFUSED, |out| {
        Refusal::ALL.into_iter().try_for_each(|reason| out.value(&[reason.as_str()], metrics.refusals(reason)))
    })?;
    let sessions = source.sessions();
    page.family(&f::SESSIONS, |out| {
        out.value(&["idle"], sessions.idle as u64)?;
        out.value(&["waiting"], sessions.waiting as u64)?;
        out.value(&["active"], sessions.active as u64)?;
        out.value(&["pinned"], sessions.pinned as u64)
    })?;
    page.family(&f::PINNED, |out| {
        sessions.pins.iter().try_for_each(|(cause, count)| out.value(&[cause], *count as u64))
    })?;
    let listening = source.listening();
    page.single(&f::LISTEN_CONNECTIONS, listening.connections as u64)?;
    page.single(&f::LISTEN_SESSIONS, listening.sessions as u64)?;
    page.single(&f::LISTEN_CHANNELS, listening.channels as u64)?;
    page.single(&f::RECEIVED, metrics.sum(|worker| &worker.received))?;
    page.single(&f::SENT, metrics.sum(|worker| &worker.sent))
}

fn statements(source: &dyn Source, live: &Live, page: &mut Page<'_>) -> fmt::Result {
    let metrics = source.metrics();
    page.family(&f::STATEMENTS, |out| {
        each_node(live, |labels, node| {
            let [cluster, shard, name] = labels;
            for (target, word) in [(Target::Primary, "primary"), (Target::Replica, "replica"), (Target::Any, "any")] {
                let count = node.sent(target);
                if count > 0 {
                    out.value(&[cluster, shard, name, word], count)?;
                }
            }
            Ok(())
        })
    })?;
    page.single(&f::STATEMENTS_PINNED, metrics.sum(|worker| &worker.pinned))?;
    page.family(&f::PINNED_CAUSES, |out| {
        metrics.pinned_causes().try_for_each(|(cause, count)| out.value(&[cause], count))
    })?;
    page.single(&f::LOCAL, metrics.sum(|worker| &worker.local))?;
    page.family(&f::REJECTED, |out| metrics.rejections().try_for_each(|(class, count)| out.value(&[&class], count)))?;
    page.single(&f::AUDITS, metrics.sum(|worker| &worker.audits))?;
    page.single(&f::SYNCS, metrics.sum(|worker| &worker.syncs))?;
    page.single(&f::RERUNS, metrics.sum(|worker| &worker.reruns))?;
    page.single(&f::LOST, metrics.sum(|worker| &worker.lost_servers))?;
    page.single(&f::CANCELS, metrics.cancels.get())?;
    page.family(&f::CANCELS_FORWARDED, |out| {
        out.value(&["success"], metrics.cancels_forwarded.get())?;
        out.value(&["failure"], metrics.cancels_stranded.get())
    })?;
    let analyses = source.analyses();
    page.family(&f::ANALYSES, |out| {
        out.value(&["exact"], analyses.exact_hits)?;
        out.value(&["shape"], analyses.shape_hits)?;
        out.value(&["miss"], analyses.misses)
    })?;
    page.single(&f::ANALYSIS_BYTES, analyses.bytes)
}

fn servers(source: &dyn Source, live: &Live, page: &mut Page<'_>) -> fmt::Result {
    page.single(&f::SERVERS, source.servers() as u64)?;
    page.single(&f::SERVERS_LIMIT, live.config.max_server_connections as u64)?;
    page.family(&f::POOL, |out| {
        each_pool(live, |labels, counts| {
            let [cluster, shard, node, database, user] = labels;
            let lent = counts.open.saturating_sub(counts.idle);
            out.value(&[cluster, shard, node, database, user, "idle"], counts.idle as u64)?;
            out.value(&[cluster, shard, node, database, user, "lent"], lent as u64)
        })
    })?;
    page.family(&f::POOL_WAITING, |out| each_pool(live, |labels, counts| out.value(&labels, counts.waiting as u64)))?;
    let sums: Vec<_> = live.clusters.values().map(|cluster| (cluster, PoolSums::of(cluster))).collect();
    let by_node = |out: &mut Samples<'_>, write: &dyn Fn(&mut Samples<'_>, &[&str], &PoolSums) -> fmt::Result| {
        sums.iter().try_for_each(|(cluster, sums)| {
            sums.iter().try_for_each(|((shard, node), sums)| write(out, &[&cluster.name, shard, node], sums))
        })
    };
    page.family(&f::CHECKOUT_WAITS, |out| by_node(out, &|out, labels, sums| out.times(labels, &sums.waits)))?;
    page.family(&f::CHECKOUT_TIMEOUTS, |out| by_node(out, &|out, labels, sums| out.value(labels, sums.timed_out)))?;
    page.family(&f::CHECKOUT_FULL, |out| by_node(out, &|out, labels, sums| out.value(labels, sums.queue_full)))?;
    page.family(&f::CHECKOUT_RESERVE, |out| by_node(out, &|out, labels, sums| out.value(labels, sums.reserve)))?;
    page.family(&f::CONNECTS, |out| by_node(out, &|out, labels, sums| out.times(labels, &sums.connects)))?;
    page.family(&f::CONNECT_FAILURES, |out| by_node(out, &|out, labels, sums| out.value(labels, sums.failures)))
}

fn nodes(live: &Live, page: &mut Page<'_>) -> fmt::Result {
    page.family(&f::NODE_UP, |out| {
        each_node(live, |labels, node| out.value(&labels, u64::from(node.standing() == Standing::Up)))
    })?;
    page.family(&f::NODE_ROLE, |out| {
        each_node(live, |[cluster, shard, name], node| {
            [Role::Primary, Role::Replica, Role::Unknown].into_iter().try_for_each(|role| {
                let holds = u64::from(node.role() == role);
                out.value(&[cluster, shard, name, super::status::role(role)], holds)
            })
        })
    })?;
    page.family(&f::NODE_LAG, |out| {
        each_node(live, |labels, node| {
            let lag = node.lag().filter(|_| node.role() == Role::Replica);
            lag.map_or(Ok(()), |lag| out.fraction(&labels, lag.as_secs_f64()))
        })
    })?;
    page.family(&f::NODE_WEIGHT, |out| each_node(live, |labels, node| out.value(&labels, node.spec.weight.into())))?;
    page.family(&f::NODE_FAILURES, |out| each_node(live, |labels, node| out.value(&labels, node.failures().into())))?;
    page.family(&f::NODE_IN_FLIGHT, |out| each_node(live, |labels, node| out.value(&labels, node.in_flight().into())))
}

fn policies(source: &dyn Source, page: &mut Page<'_>) -> fmt::Result {
    let metrics = source.metrics();
    let results = |out: &mut Samples<'_>, success: &Counter, failure: &Counter| {
        out.value(&["success"], success.get())?;
        out.value(&["failure"], failure.get())
    };
    page.family(&f::RELOADS, |out| results(out, &metrics.reloads, &metrics.reload_failures))?;
    page.family(&f::POLICY_LOADS, |out| results(out, &metrics.policy_loads, &metrics.policy_failures))?;
    let policies = source.policies();
    page.family(&f::POLICY, |out| {
        policies.iter().try_for_each(|p| out.value(&[&p.name, &p.version, &p.digest, p.state], 1))
    })?;
    page.family(&f::POLICY_CALLS, |out| policies.iter().try_for_each(|p| out.value(&[&p.name], p.calls)))?;
    page.family(&f::POLICY_CACHED, |out| policies.iter().try_for_each(|p| out.value(&[&p.name], p.cached)))?;
    let pairs = |out: &mut Samples<'_>, name: &str, pairs: &[(&'static str, u64)]| {
        pairs.iter().try_for_each(|(word, count)| out.value(&[name, word], *count))
    };
    page.family(&f::POLICY_DECISIONS, |out| policies.iter().try_for_each(|p| pairs(out, &p.name, &p.decisions)))?;
    page.family(&f::POLICY_FAULTS, |out| policies.iter().try_for_each(|p| pairs(out, &p.name, &p.faults)))?;
    page.family(&f::POLICY_OWN, |out| {
        policies.iter().try_for_each(|p| p.own.iter().try_for_each(|(own, count)| out.value(&[&p.name, own], *count)))
    })
}

fn each_node(live: &Live, mut write: impl FnMut([&str; 3], &Node) -> fmt::Result) -> fmt::Result {
    for cluster in live.clusters.values() {
        for shard in cluster.topology.shards() {
            for node in &shard.nodes {
                write([&cluster.name, &shard.name, &node.spec.name], node)?;
            }
        }
    }
    Ok(())
}

fn each_pool(live: &Live, mut write: impl FnMut([&str; 5], crate::pool::PoolCounts) -> fmt::Result) -> fmt::Result {
    for cluster in live.clusters.values() {
        for account in cluster.accounts() {
            for (node, counts) in account.counts() {
                let shard = shard_name(cluster, &node);
                let labels = [&*cluster.name, shard, &*node.spec.name, &*account.database, &*account.user];
                write(labels, counts)?;
            }
        }
    }
    Ok(())
}

/// The name of a node's shard.
pub(super) fn shard_name<'a>(cluster: &'a Cluster, node: &Node) -> &'a str {
    cluster.topology.shards().get(node.shard).map_or("", |shard| &*shard.name)
}

/// What all pools of one node counted.
#[derive(Default)]
struct PoolSums {
    waits: Times,
    connects: Times,
    timed_out: u64,
    queue_full: u64,
    reserve: u64,
    failures: u64,
}

impl PoolSums {
    /// By shard and node.
    fn of(cluster: &Cluster) -> BTreeMap<(String, String), Self> {
        let mut sums: BTreeMap<(String, String), Self> = BTreeMap::new();
        for pool in cluster.accounts().iter().flat_map(|account| account.pools()) {
            let key = (shard_name(cluster, &pool.node).to_owned(), pool.node.spec.name.to_string());
            sums.entry(key).or_default().take(&pool.stats);
        }
        sums
    }

    fn take(&mut self, stats: &PoolStats) {
        self.waits.merge(&stats.waits.read());
        self.connects.merge(&stats.connects.read());
        self.timed_out += stats.timed_out.get();
        self.queue_full += stats.queue_full.get();
        self.reserve += stats.reserve_used.get();
        self.failures += stats.connect_failures.get();
    }
}
