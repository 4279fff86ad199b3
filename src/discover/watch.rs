//! The task that watches one node.
//!
//! Invariant: one question is on its way at a time; what it brought is stored before the next. Between questions the task
//! holds nothing of the cluster, so that a cluster that is dropped ends its monitor.
//!
//! Deliberately absent: what an answer means (`shard`).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Source;
use super::link::{Asked, Link};
use super::probe::{self, FULL, INSERTED, REPLAYED};
use super::shard::{Kind, ShardWatch};

/// Least time between two questions to one node.
const GAP: Duration = Duration::from_millis(2);
/// Least time between two questions for tickets: those taken within it share an answer.
const TICKETS: Duration = Duration::from_millis(10);
/// A replica that somebody waits for is asked again after this; the time doubles while it does not come nearer.
const FIRST_PACE: Duration = Duration::from_millis(2);

/// Asks node `index` of the shard until the cluster is dropped.
pub(super) async fn run(source: Weak<dyn Source>, shard: Arc<ShardWatch>, index: usize, worker: usize) {
    let mut link = Link::new(worker);
    let mut last_full: Option<Instant> = None;
    let mut kind = Kind::Full;
    let mut pace = FIRST_PACE;
    loop {
        let wait = {
            let Some(source) = source.upgrade() else { return };
            let interval = source.config().monitor.interval;
            let asked_at = Instant::now();
            if last_full.is_none_or(|last| asked_at.saturating_duration_since(last) >= interval) {
                kind = Kind::Full;
            }
            let progress = ask(&*source, &shard, index, &mut link, kind).await;
            if kind == Kind::Full {
                last_full = Some(asked_at);
            }
            pace = if progress { FIRST_PACE } else { (pace * 2).min(interval) };
            let plan = shard.plan(source.topology(), index, interval, Instant::now());
            kind = plan.kind;
            let wait = match plan.wait {
                // Whatever else, the ordinary question is asked in time.
                Some(wait) => wait,
                None => pace.min(interval),
            };
            let gap = if kind == Kind::Inserted { TICKETS } else { GAP };
            wait.max(gap.saturating_sub(asked_at.elapsed()))
        };
        tokio::select! {
            () = crate::net::sleep(wait) => {}
            () = shard.called(index) => {
                // Whoever calls has news: what stood still may move again.
                kind = shard.kind_when_called(index);
                pace = FIRST_PACE;
            }
            lost = link.lost() => {
                if let Some(failure) = lost {
                    shard.failed(index, failure, "the server ended the monitor's connection", Instant::now());
                }
                kind = Kind::Full;
                crate::net::sleep(GAP).await;
            }
        }
    }
}

/// Asks once. Returns whether that brought the node nearer to what is waited for.
async fn ask(source: &dyn Source, shard: &ShardWatch, index: usize, link: &mut Link, kind: Kind) -> bool {
    let node = shard.node(index);
    let topology = source.topology();
    if shard.asking(index) {
        link.renew();
    }
    let question = shard.question(topology);
    let asked_at = Instant::now();
    let query = match kind {
        Kind::Full => FULL,
        Kind::Replayed => REPLAYED,
        Kind::Inserted => INSERTED,
    };
    let asked = link.ask(source, node, None, &[query], source.config().monitor.timeout).await;
    let now = Instant::now();
    match asked {
        Asked::Failed(failure, reason) => {
            shard.failed(index, failure, &reason, now);
            false
        }
        // No database was named.
        Asked::NoDatabase => false,
        Asked::Unable(reason) => {
            shard.unable(index, &reason);
            false
        }
        Asked::Answers(answers) => {
            let row = answers.first().and_then(|answer| answer.rows.first()).map(Vec::as_slice).unwrap_or_default();
            match (kind, probe::report(row)) {
                (Kind::Replayed, _) => shard.replayed(topology, index, probe::replayed(row), now),
                (Kind::Inserted, _) => {
                    shard.inserted(topology, index, probe::inserted(row), question);
                    false
                }
                (Kind::Full, Some(report)) => shard.reports(topology, index, &report, question, (asked_at, now)),
                (Kind::Full, None) => {
                    shard.unable(index, "it answered something else than was asked");
                    false
                }
            }
        }
    }
}
