//! What the answers of a shard's nodes mean together: roles, standings, lag, how far writes have come.
//!
//! Invariant: every change of a node's role and standing is made here, under one lock, so that each follows from all that
//! is known. A replica is not used while it lacks what some session was told every replica in use has
//! ([`Watermark::floor`](crate::topology::Watermark::floor)).
//!
//! Deliberately absent: asking, fencing: of two primaries the one on the later timeline is used, the other gets nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::health::{Change, Health};
use super::lag::History;
use super::probe::{Report, State};
use super::{Failure, Source};
use crate::config::Ejection;
use crate::topology::{Lsn, Node, Position, Question, Role, Shard, Standing, Topology};

/// Nobody is the primary.
const NOBODY: usize = usize::MAX;

/// What is known of one shard's nodes.
#[derive(Debug)]
pub(super) struct ShardWatch {
    cluster: Box<str>,
    number: usize,
    nodes: Vec<Arc<Node>>,
    /// One a node: its task is to ask now.
    calls: Vec<Notify>,
    /// The primary, by what the nodes say.
    primary: AtomicUsize,
    /// It was said that nobody can ask yet.
    said_unable: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    watched: Vec<Watched>,
    /// Of the primary.
    history: History,
    /// The two nodes that both say they are primaries and were named in the log.
    contest: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Watched {
    health: Health,
    /// What it said last.
    claim: Option<Claim>,
    /// Which run of the server said so.
    started: String,
    /// The latest timeline that this run was on.
    timeline: u32,
    /// Nobody could ask it the last time.
    unable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Primary { timeline: u32 },
    Standby,
}

impl Claim {
    fn on(position: Position) -> Self {
        Self::Primary { timeline: position.timeline }
    }
}

/// Which question to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All there is.
    Full,
    /// A standby's replay position.
    Replayed,
    /// A primary's insert position.
    Inserted,
}

/// What a node's task does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// `None`: somebody waits for a position, ask at the quick pace.
    pub(super) wait: Option<Duration>,
}

impl Wake for ShardWatch {
    /// A ticket was taken while nobody looked: the primary is asked.
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(call) = self.calls.get(self.primary.load(Ordering::Acquire)) {
            call.notify_one();
        }
    }
}

impl ShardWatch {
    pub(super) fn new(source: &dyn Source, number: usize) -> Arc<Self> {
        let shard = &source.topology().shards()[number];
        let watch = Self::from_parts(source.name(), number, shard, source.config().ejection);
        shard.watermark.set_waker(Some(Waker::from(Arc::clone(&watch))));
        watch
    }

    fn from_parts(cluster: &str, number: usize, shard: &Shard, ejection: Ejection) -> Arc<Self> {
        let watched = |_: &Arc<Node>| Watched {
            health: Health::new(ejection),
            claim: None,
            started: String::new(),
            timeline: 0,
            unable: false,
        };
        let inner =
            Inner { watched: shard.nodes.iter().map(watched).collect(), history: History::default(), contest: None };
        Arc::new(Self {
            cluster: cluster.into(),
            number,
            nodes: shard.nodes.clone(),
            calls: shard.nodes.iter().map(|_| Notify::new()).collect(),
            primary: AtomicUsize::new(NOBODY),
            said_unable: AtomicBool::new(false),
            inner: Mutex::new(inner),
        })
    }

    /// The node number `index`.
    pub(super) fn node(&self, index: usize) -> &Arc<Node> {
        &self.nodes[index]
    }

    /// Waits until the node is to be asked at once. Cancel-safe.
    pub(super) async fn called(&self, index: usize) {
        self.calls[index].notified().await;
    }

    /// Every node is asked at once.
    pub(super) fn call_all(&self) {
        for call in &self.calls {
            call.notify_one();
        }
    }

    /// The question for a node whose task was called: why is not said, so all, unless a standby is only waited for.
    pub(super) fn kind_when_called(&self, index: usize) -> Kind {
        let inner = self.inner.lock();
        let watched = &inner.watched[index];
        match watched.claim {
            _ if !watched.health.up() || watched.health.doubted() => Kind::Full,
            Some(Claim::Standby) => Kind::Replayed,
            Some(Claim::Primary { .. }) => Kind::Inserted,
            None => Kind::Full,
        }
    }

    /// A question to the node begins. Returns whether it must be asked on a new connection.
    pub(super) fn asking(&self, index: usize) -> bool {
        let mut inner = self.inner.lock();
        let health = &mut inner.watched[index].health;
        let doubted = health.doubted();
        health.asking();
        doubted
    }

    /// What an answer of the primary to a question that begins now will bound.
    pub(super) fn question(&self, topology: &Topology) -> Question {
        self.shard(topology).watermark.question()
    }

    /// Whoever used `node` saw it fail.
    pub(super) fn reported(&self, node: &Node, failure: Failure, now: Instant) {
        let Some(index) = self.nodes.iter().position(|own| std::ptr::eq(Arc::as_ptr(own), node)) else { return };
        let mut inner = self.inner.lock();
        inner.watched[index].health.reported();
        self.fail(&mut inner, index, failure, "statements or connections on it failed", now);
        drop(inner);
        self.calls[index].notify_one();
    }

    /// A question to the node failed, and the node is to blame.
    pub(super) fn failed(&self, index: usize, failure: Failure, reason: &str, now: Instant) {
        self.fail(&mut self.inner.lock(), index, failure, reason, now);
    }

    fn fail(&self, inner: &mut Inner, index: usize, failure: Failure, reason: &str, now: Instant) {
        let node = &self.nodes[index];
        let in_a_row = node.failed();
        let change = inner.watched[index].health.failed(failure, in_a_row, now);
        let (cluster, name) = (&*self.cluster, &*node.spec.name);
        match change {
            Change::Ejected(back_off) => tracing::warn!(
                cluster,
                node = name,
                reason,
                failures = in_a_row,
                ?back_off,
                "node ejected: it takes no more statements"
            ),
            Change::Suspended => tracing::debug!(cluster, node = name, reason, "node left out until it answers"),
            Change::StillOut(back_off) => tracing::debug!(cluster, node = name, reason, ?back_off, "node is still out"),
            _ => {}
        }
        if !inner.watched[index].health.up() {
            node.set_standing(Standing::Ejected);
            node.set_lag(None);
            if failure.certain() {
                // Whatever comes back may have replayed less: after a crash a standby starts from its last restartpoint.
                node.set_position(None);
            }
        }
    }

    /// Nobody could ask the node.
    pub(super) fn unable(&self, index: usize, reason: &str) {
        let node = &self.nodes[index];
        node.set_lag(None);
        self.inner.lock().watched[index].unable = true;
        let (cluster, name) = (&*self.cluster, &*node.spec.name);
        if self.said_unable.swap(true, Ordering::Relaxed) {
            tracing::debug!(cluster, node = name, reason, "the node could not be asked");
        } else {
            tracing::info!(
                cluster,
                node = name,
                reason,
                "a node could not be asked; configured roles are trusted until it is"
            );
        }
    }

    /// The node answered [`FULL`](super::probe::FULL), asked and answered at those times. Returns whether a position that
    /// somebody may wait for came nearer.
    pub(super) fn reports(
        &self,
        topology: &Topology,
        index: usize,
        report: &Report,
        question: Question,
        (asked_at, now): (Instant, Instant),
    ) -> bool {
        let node = &self.nodes[index];
        let mark = &self.shard(topology).watermark;
        let before = node.position();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let watched = &mut inner.watched[index];
        if watched.started != report.started {
            watched.started.clone_from(&report.started);
            watched.timeline = 0;
        }
        let (claim, position) = match &report.state {
            State::Primary { inserted, .. } => (Claim::on(*inserted), Some(*inserted)),
            State::Standby { timeline, replayed, .. } => {
                watched.timeline = watched.timeline.max(*timeline);
                let timeline = watched.timeline;
                (Claim::Standby, replayed.filter(|_| timeline != 0).map(|lsn| Position { timeline, lsn }))
            }
        };
        watched.claim = Some(claim);
        watched.unable = false;
        node.set_position(position);
        let fit = claim != Claim::Standby || reaches(position, mark.floor());
        let change = watched.health.answered(fit, now);
        if change == Change::Suspended {
            // Before it may become a replica by its role.
            node.set_standing(Standing::Ejected);
        }
        if !watched.health.doubted() {
            node.answered();
        }
        self.elect(inner);
        match &report.state {
            State::Primary { inserted, flushed } if self.primary.load(Ordering::Relaxed) == index => {
                inner.history.observe(*flushed, asked_at);
                node.set_lag(Some(Duration::ZERO));
                mark.answer(question, *inserted);
            }
            State::Primary { .. } => node.set_lag(None),
            State::Standby { replayed, words, .. } => {
                node.set_lag(replayed.and_then(|lsn| inner.history.lag(lsn, *words, now)));
            }
        }
        self.settle(change, index);
        self.note(topology);
        if self.primary.load(Ordering::Relaxed) == index {
            self.call_waited_for(topology);
        }
        nearer(before, node.position())
    }

    /// A standby answered [`REPLAYED`](super::probe::REPLAYED); `None`: it is none any more, or cannot say. Returns whether
    /// it came nearer.
    pub(super) fn replayed(&self, topology: &Topology, index: usize, lsn: Option<Lsn>, now: Instant) -> bool {
        let node = &self.nodes[index];
        let mark = &self.shard(topology).watermark;
        let mut inner = self.inner.lock();
        let watched = &mut inner.watched[index];
        let (Some(lsn), timeline @ 1..) = (lsn, watched.timeline) else { return false };
        let before = node.position();
        let position = Some(Position { timeline, lsn });
        node.set_position(position);
        let change = watched.health.answered(reaches(position, mark.floor()), now);
        if !watched.health.doubted() {
            node.answered();
        }
        self.settle(change, index);
        self.note(topology);
        nearer(before, position)
    }

    /// A primary answered [`INSERTED`](super::probe::INSERTED); `None`: it is none any more, or cannot say.
    pub(super) fn inserted(&self, topology: &Topology, index: usize, at: Option<Position>, question: Question) {
        let mut inner = self.inner.lock();
        let watched = &mut inner.watched[index];
        let known = self.primary.load(Ordering::Relaxed) == index && watched.claim == at.map(Claim::on);
        let (Some(at), true) = (at, known) else {
            // Its role or timeline is another now: the full question tells, at once.
            watched.health.reported();
            return;
        };
        self.nodes[index].set_position(Some(at));
        self.shard(topology).watermark.answer(question, at);
        self.note(topology);
        self.call_waited_for(topology);
    }

    /// What the node's task does next.
    pub(super) fn plan(&self, topology: &Topology, index: usize, interval: Duration, now: Instant) -> Plan {
        let mark = &self.shard(topology).watermark;
        let inner = self.inner.lock();
        let (node, watched) = (&self.nodes[index], &inner.watched[index]);
        let primary = self.primary.load(Ordering::Relaxed) == index || node.role() == Role::Primary;
        if let Some(wait) = watched.health.again(node.failures(), now) {
            // Statements go to a primary whether it is out or not: nothing is gained by looking late whether it is back.
            let wait = if primary { wait.min(interval) } else { wait };
            return Plan { kind: Kind::Full, wait: Some(wait) };
        }
        if watched.unable {
            return Plan { kind: Kind::Full, wait: Some(interval) };
        }
        if primary {
            return if mark.sleep() {
                Plan { kind: Kind::Full, wait: Some(interval) }
            } else {
                Plan { kind: Kind::Inserted, wait: Some(Duration::ZERO) }
            };
        }
        if watched.claim == Some(Claim::Standby) && watched.timeline != 0 && !reaches(node.position(), mark.goal()) {
            return Plan { kind: Kind::Replayed, wait: None };
        }
        Plan { kind: Kind::Full, wait: Some(interval) }
    }

    /// Gives every node the role that follows from what all say.
    fn elect(&self, inner: &mut Inner) {
        let claims = |index: usize| match inner.watched[index].claim {
            Some(Claim::Primary { timeline }) => Some(timeline),
            _ => None,
        };
        let rank = |index: &usize| {
            let node = &self.nodes[*index];
            let current = node.role() == Role::Primary;
            (claims(*index), current, node.spec.role == Role::Primary, std::cmp::Reverse(*index))
        };
        let claimants = (0..self.nodes.len()).filter(|index| claims(*index).is_some());
        let best = claimants.clone().max_by_key(rank);
        let other = claimants.filter(|index| Some(*index) != best).max_by_key(rank);
        let contest = best.zip(other);
        if contest != inner.contest {
            if let Some((used, unused)) = contest {
                let name = |index: usize| &*self.nodes[index].spec.name;
                let timeline = |index| claims(index).unwrap_or_default();
                tracing::warn!(
                    cluster = &*self.cluster,
                    used = name(used),
                    timeline = timeline(used),
                    unused = name(unused),
                    unused_timeline = timeline(unused),
                    "two nodes of a shard say that they are its primary; the one on the later timeline is used"
                );
            }
            inner.contest = contest;
        }
        let was = self.primary.swap(best.unwrap_or(NOBODY), Ordering::AcqRel);
        if best.is_some_and(|best| best != was) {
            inner.history.clear();
        }
        // The new primary first, so that there always is one.
        let order = best.into_iter().chain((0..self.nodes.len()).filter(|index| Some(*index) != best));
        for index in order {
            let node = &self.nodes[index];
            let role = match inner.watched[index].claim {
                Some(Claim::Primary { .. }) if Some(index) == best => Role::Primary,
                Some(Claim::Primary { .. }) => Role::Unknown,
                Some(Claim::Standby) => Role::Replica,
                None if best.is_some() && node.role() == Role::Primary => Role::Unknown,
                None => continue,
            };
            let before = node.role();
            if before == role {
                continue;
            }
            node.set_role(role);
            let (cluster, name) = (&*self.cluster, &*node.spec.name);
            let (configured, role) = (word(node.spec.role), word(role));
            if before == Role::Unknown && node.spec.role == Role::Unknown {
                tracing::debug!(cluster, node = name, role, "role learnt");
            } else if before == node.spec.role {
                tracing::warn!(
                    cluster,
                    node = name,
                    configured,
                    role,
                    "a node's role is not what the configuration says"
                );
            } else {
                tracing::info!(cluster, node = name, configured, role, "a node's role has changed");
            }
        }
    }

    /// Stores what an answer did to the node's standing.
    fn settle(&self, change: Change, index: usize) {
        let node = &self.nodes[index];
        let (cluster, name) = (&*self.cluster, &*node.spec.name);
        match change {
            Change::Returned(out) => {
                node.set_standing(Standing::Up);
                tracing::info!(cluster, node = name, ?out, "node is back");
            }
            Change::Resumed => {
                node.set_standing(Standing::Up);
                tracing::debug!(cluster, node = name, "node answers again");
            }
            Change::Suspended => {
                node.set_standing(Standing::Ejected);
                tracing::debug!(cluster, node = name, "node left out until it has replayed what sessions rely on");
            }
            _ => {}
        }
    }

    /// Tells the watermark how far the replicas in use are.
    fn note(&self, topology: &Topology) {
        let in_use =
            |node: &&Arc<Node>| node.role() == Role::Replica && node.standing() == Standing::Up && node.spec.weight > 0;
        self.shard(topology).watermark.replayed(self.nodes.iter().filter(in_use).map(|node| node.position()));
    }

    /// Has the replicas asked that are not where somebody may wait for them to be.
    fn call_waited_for(&self, topology: &Topology) {
        let Some(goal) = self.shard(topology).watermark.goal() else { return };
        for (node, call) in self.nodes.iter().zip(&self.calls) {
            let waited_for = node.role() == Role::Replica && node.standing() == Standing::Up;
            if waited_for && !reaches(node.position(), Some(goal)) {
                call.notify_one();
            }
        }
    }

    fn shard<'a>(&self, topology: &'a Topology) -> &'a Shard {
        &topology.shards()[self.number]
    }
}

/// Whether a node at `position` has what `wanted` asks for. A later timeline has all that an earlier one had at that point.
fn reaches(position: Option<Position>, wanted: Option<Position>) -> bool {
    wanted.is_none_or(|wanted| position.is_some_and(|at| at.timeline >= wanted.timeline && at.lsn >= wanted.lsn))
}

fn nearer(before: Option<Position>, after: Option<Position>) -> bool {
    after.is_some_and(|after| before.is_none_or(|before| (before.timeline, before.lsn) < (after.timeline, after.lsn)))
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unused",
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

#[cfg(test)]
mod tests;
