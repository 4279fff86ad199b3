//! Reading one's own writes: from "a write was acknowledged" to "every replica in use has replayed it" (DESIGN 4.2).
//!
//! Invariant: a ticket is resolved only by a position that the primary reported after the ticket was taken, so the
//! position bounds every commit acknowledged before the ticket. A ticket counts as passed only when every replica in
//! use has replayed that position; a replica that comes into use later must have replayed it too ([`Watermark::floor`]).
//!
//! Deliberately absent: asking (`discover` does), clocks, which statements may write.
//!
//! A session that wrote nothing pays one comparison. One that did holds a [`Ticket`]; the monitor asks the primary once for
//! all tickets taken before the question and publishes the answer; the session trades its ticket for that position, and
//! forgets it when all replicas have passed it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Position, Shard, Topology};

/// Answers kept for sessions that have not looked yet. Past it the oldest goes, and those sessions are given the next,
/// later position: they wait longer, never too short.
const ANSWERS: usize = 1024;

/// A place in the order of acknowledged writes of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a read needs so that it sees the session's own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: any node will do.
    None,
    /// The primary: how far a replica would have to be is not known.
    Primary,
    /// A replica that has replayed this, or the primary.
    Position(Position),
}

/// The acknowledged writes of one shard and how far they are known to have come.
#[derive(Debug)]
pub struct Watermark {
    /// The last ticket given.
    issued: AtomicU64,
    /// Every replica in use has replayed the writes up to this ticket.
    passed: AtomicU64,
    /// The primary's timeline in the last answer; 0 before the first.
    timeline: AtomicU32,
    /// Nobody looks for tickets: the next one must wake the monitor.
    asleep: AtomicBool,
    waker: Mutex<Option<Waker>>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// The last ticket with an answer.
    resolved: u64,
    /// Answers that not every replica has passed, oldest first: each bounds the tickets up to its own.
    open: VecDeque<(u64, Position)>,
    /// The last position that every replica in use had passed.
    floor: Option<Position>,
}

/// A question to the primary: what it answers bounds the tickets given before.
#[derive(Debug)]
#[must_use]
pub struct Question(u64);

impl Watermark {
    pub(super) fn new() -> Self {
        Self {
            issued: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            waker: Mutex::new(None),
            answers: Mutex::default(),
        }
    }

    /// A possible write was acknowledged just now: takes the ticket that bounds it.
    pub fn written(&self) -> Ticket {
        let ticket = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Ticket(ticket)
    }

    /// Whether every replica in use has replayed what `ticket` bounds.
    #[must_use]
    pub fn has_passed(&self, ticket: Ticket) -> bool {
        self.passed.load(Ordering::Acquire) >= ticket.0
    }

    /// The position that bounds `ticket`, once the primary was asked.
    #[must_use]
    pub fn position(&self, ticket: Ticket) -> Option<Position> {
        let answers = self.answers.lock();
        let first = answers.open.partition_point(|(last, _)| *last < ticket.0);
        answers.open.get(first).map(|(_, position)| *position)
    }

    /// Begins a question to the primary. Call it before the question is sent.
    pub fn question(&self) -> Question {
        Question(self.issued.load(Ordering::SeqCst))
    }

    /// The primary's answer: where its log ends (`pg_current_wal_insert_lsn`).
    #[expect(clippy::needless_pass_by_value, reason = "a question is answered once")]
    pub fn answer(&self, question: Question, position: Position) {
        let mut answers = self.answers.lock();
        if self.timeline.swap(position.timeline, Ordering::AcqRel) != position.timeline {
            // Positions of another timeline do not compare; the new one bounds all that its primary has.
            answers.open.clear();
        }
        if question.0 <= answers.resolved {
            return;
        }
        answers.resolved = question.0;
        if answers.open.len() >= ANSWERS {
            answers.open.pop_front();
        }
        answers.open.push_back((question.0, position));
    }

    /// Whether tickets wait for an answer.
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.issued.load(Ordering::SeqCst) > self.answers.lock().resolved
    }

    /// The position that replicas have yet to pass, if somebody may wait for one.
    #[must_use]
    pub fn goal(&self) -> Option<Position> {
        self.answers.lock().open.back().map(|(_, position)| *position)
    }

    /// What a replica must have replayed before it comes into use.
    #[must_use]
    pub fn floor(&self) -> Option<Position> {
        self.answers.lock().floor
    }

    /// Takes note of how far the replicas in use have replayed; `None` for one of which that is not known, which
    /// holds everything back.
    #[expect(clippy::needless_pass_by_value, reason = "callers build it for this call")]
    pub fn replayed(&self, replicas: impl Iterator<Item = Option<Position>> + Clone) {
        let mut answers = self.answers.lock();
        while let Some(&(ticket, position)) = answers.open.front() {
            if !replicas.clone().all(|at| at.is_some_and(|at| at.has_passed(position))) {
                return;
            }
            answers.open.pop_front();
            answers.floor = Some(position);
            self.passed.store(ticket, Ordering::Release);
        }
    }

    /// The monitor is about to sleep until a ticket is taken: the next one wakes it. Returns whether it may; else there
    /// are tickets already.
    pub fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.unanswered() {
            self.asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// What is woken by the first ticket after [`Watermark::sleep`].
    pub fn set_waker(&self, waker: Option<Waker>) {
        *self.waker.lock() = waker;
    }

    #[cold]
    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }
}

/// Whether a session wrote on one shard, and what is known of how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Written {
    /// Nothing that is not on every replica.
    #[default]
    No,
    /// A possible write was sent; it is not acknowledged, or whether it ever happens is not known.
    Unknown,
    /// It was acknowledged.
    Acknowledged(Ticket),
    /// And this position bounds it.
    Known(Ticket, Position),
}

impl Written {
    /// What a read of the session on `shard` needs.
    #[inline]
    pub fn required(&mut self, shard: &Shard) -> Requirement {
        match self {
            Self::No => Requirement::None,
            Self::Unknown => Requirement::Primary,
            Self::Acknowledged(_) | Self::Known(..) => self.look(&shard.watermark),
        }
    }

    /// Of two writes on one shard, the one that bounds both.
    fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::No, some) | (some, Self::No) => some,
            (Self::Acknowledged(ours) | Self::Known(ours, _), Self::Acknowledged(theirs) | Self::Known(theirs, _)) => {
                if theirs > ours {
                    other
                } else {
                    self
                }
            }
        }
    }

    fn look(&mut self, watermark: &Watermark) -> Requirement {
        let (Self::Acknowledged(ticket) | Self::Known(ticket, _)) = *self else { return Requirement::Primary };
        if watermark.has_passed(ticket) {
            *self = Self::No;
            return Requirement::None;
        }
        if let Self::Known(_, position) = *self {
            if watermark.timeline.load(Ordering::Acquire) == position.timeline {
                return Requirement::Position(position);
            }
            // The position says nothing on the new timeline: what its primary has now does.
            *self = Self::Acknowledged(watermark.written());
            return Requirement::Primary;
        }
        match watermark.position(ticket) {
            Some(position) => {
                *self = Self::Known(ticket, position);
                Requirement::Position(position)
            }
            None => Requirement::Primary,
        }
    }
}

/// What a session wrote, by shard.
#[derive(Debug, Clone, Default)]
pub struct Writes(SmallVec<[(usize, Written); 1]>);

impl Writes {
    /// Whether nothing is left that a replica may lack.
    #[inline]
    #[must_use]
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// A possible write goes to `shard` now.
    pub fn sent(&mut self, shard: usize) {
        self.set(shard, Written::Unknown);
    }

    /// What was sent to `shard` is acknowledged: the transaction that it belongs to has ended, whether it was committed or
    /// not. Does nothing if no write was sent. Not for a lost connection: a commit may happen after its answer was lost,
    /// so that such a session reads from the primary until its next write.
    pub fn acknowledged(&mut self, topology: &Topology, shard: usize) {
        if let (true, Some(at)) = (self.waiting(shard), topology.shards().get(shard)) {
            let written = if at.nodes.len() > 1 { Written::Acknowledged(at.watermark.written()) } else { Written::No };
            self.set(shard, written);
        }
    }

    /// The same towards a topology that took the place of the one they were made on: its shards may be numbered otherwise, so
    /// that a write on one counts for all.
    #[must_use]
    pub fn carried_to(&self, topology: &Topology) -> Self {
        if self.none() { Self::default() } else { Self::everywhere(topology) }
    }

    /// A write on every shard, acknowledged just now.
    #[must_use]
    pub fn everywhere(topology: &Topology) -> Self {
        let mut writes = Self::default();
        for shard in 0..topology.shards().len() {
            writes.sent(shard);
            writes.acknowledged(topology, shard);
        }
        writes
    }

    /// Another's acknowledged writes are to be seen as well.
    pub fn join(&mut self, other: &Self) {
        for (shard, theirs) in &other.0 {
            match self.0.iter_mut().find(|(number, _)| number == shard) {
                Some((_, ours)) => *ours = ours.later(*theirs),
                None => self.0.push((*shard, *theirs)),
            }
        }
    }

    /// Forgets what all replicas have.
    pub fn forget_passed(&mut self, topology: &Topology) {
        for shard in 0..topology.shards().len() {
            self.required(topology, shard);
        }
    }

    /// Whether a write sent to `shard` waits for its acknowledgement.
    #[must_use]
    pub fn waiting(&self, shard: usize) -> bool {
        self.0.iter().any(|(number, written)| *number == shard && *written == Written::Unknown)
    }

    /// What a read on `shard` needs. Forgets what all replicas have.
    #[inline]
    pub fn required(&mut self, topology: &Topology, shard: usize) -> Requirement {
        if self.0.is_empty() { Requirement::None } else { self.look(topology, shard) }
    }

    fn look(&mut self, topology: &Topology, shard: usize) -> Requirement {
        let Some(at) = topology.shards().get(shard) else { return Requirement::None };
        let Some(index) = self.0.iter().position(|(number, _)| *number == shard) else { return Requirement::None };
        let written = &mut self.0[index].1;
        let requirement = written.required(at);
        if *written == Written::No {
            self.0.swap_remove(index);
        }
        requirement
    }

    fn set(&mut self, shard: usize, to: Written) {
        match self.0.iter_mut().find(|(number, _)| *number == shard) {
            Some((_, written)) => *written = to,
            None => self.0.push((shard, to)),
        }
        self.0.retain(|(_, written)| *written != Written::No);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Lsn, NodeSpec, Role};
    use super::*;

    fn topology(nodes: usize) -> Topology {
        let role = |n| if n == 0 { Role::Primary } else { Role::Replica };
        let spec = |n| NodeSpec { name: format!("n{n}").into(), role: role(n), weight: 1, labels: Box::default() };
        Topology::new(1, vec![("s".into(), (0..nodes).map(spec).collect())])
    }

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline, lsn: Lsn(lsn) }
    }

    fn wrote(topology: &Topology) -> Writes {
        let mut writes = Writes::default();
        writes.sent(0);
        writes.acknowledged(topology, 0);
        writes
    }

    #[test]
    fn of_ones_own_writes_and_anothers_the_later_counts() {
        let topology = topology(2);
        let (first, second) = (wrote(&topology), wrote(&topology));
        let joined = |ours: &Writes, theirs: &Writes| {
            let mut ours = ours.clone();
            ours.join(theirs);
            format!("{ours:?}")
        };
        assert_eq!(joined(&first, &second), format!("{second:?}"));
        assert_eq!(joined(&second, &first), format!("{second:?}"));
        assert_eq!(joined(&Writes::default(), &first), format!("{first:?}"));
        let mut sent = Writes::default();
        sent.sent(0);
        assert_eq!(joined(&sent, &second), format!("{sent:?}"), "what is not acknowledged needs the primary");
        // A newcomer joins what is left of it.
        let mut late = second;
        late.forget_passed(&topology);
        assert!(!late.none());
        let watermark = &topology.shards()[0].watermark;
        watermark.answer(watermark.question(), at(1, 100));
        watermark.replayed([Some(at(1, 100))].into_iter());
        late.forget_passed(&topology);
        assert!(late.none());
    }

    #[test]
    fn a_write_is_followed_from_sent_to_replayed() {
        let topology = topology(3);
        let mark = &topology.shards()[0].watermark;
        let mut writes = Writes::default();
        assert_eq!(writes.required(&topology, 0), Requirement::None);
        writes.acknowledged(&topology, 0);
        assert!(writes.none(), "nothing was sent");
        writes.sent(0);
        assert_eq!(writes.required(&topology, 0), Requirement::Primary);
        writes.acknowledged(&topology, 0);
        assert_eq!(writes.required(&topology, 0), Requirement::Primary);
        assert!(mark.unanswered());
        let question = mark.question();
        mark.answer(question, at(1, 100));
        assert!(!mark.unanswered());
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(1, 100)));
        mark.replayed([Some(at(1, 100)), Some(at(1, 99))].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(1, 100)));
        mark.replayed([Some(at(1, 100)), None].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(1, 100)));
        assert_eq!(mark.floor(), None);
        mark.replayed([Some(at(1, 100)), Some(at(1, 101))].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::None);
        assert!(writes.none());
        assert_eq!(mark.floor(), Some(at(1, 100)));
        assert_eq!(mark.goal(), None);
    }

    #[test]
    fn an_answer_bounds_only_what_was_written_before_the_question() {
        let topology = topology(2);
        let mark = &topology.shards()[0].watermark;
        let mut early = wrote(&topology);
        let question = mark.question();
        let mut late = wrote(&topology);
        mark.answer(question, at(1, 100));
        assert_eq!(early.required(&topology, 0), Requirement::Position(at(1, 100)));
        assert_eq!(late.required(&topology, 0), Requirement::Primary);
        assert!(mark.unanswered());
        let question = mark.question();
        mark.answer(question, at(1, 200));
        assert_eq!(late.required(&topology, 0), Requirement::Position(at(1, 200)));
        mark.replayed([Some(at(1, 150))].into_iter());
        assert_eq!(early.required(&topology, 0), Requirement::None);
        assert_eq!(late.required(&topology, 0), Requirement::Position(at(1, 200)));
    }

    #[test]
    fn a_session_that_looks_late_is_given_the_position_of_its_own_time() {
        let topology = topology(2);
        let mark = &topology.shards()[0].watermark;
        let mut first = wrote(&topology);
        for lsn in 1..=(ANSWERS as u64) {
            let _ = mark.written();
            let question = mark.question();
            mark.answer(question, at(1, lsn));
        }
        assert_eq!(first.required(&topology, 0), Requirement::Position(at(1, 1)));
        // Past the bound the oldest answers are forgotten, and later ones stand for them.
        let mut forgotten = Written::Acknowledged(Ticket(1));
        let _ = mark.written();
        let question = mark.question();
        mark.answer(question, at(1, 5000));
        assert_eq!(forgotten.required(&topology.shards()[0]), Requirement::Position(at(1, 2)));
    }

    #[test]
    fn a_new_timeline_makes_positions_unknown_until_its_primary_was_asked() {
        let topology = topology(2);
        let mark = &topology.shards()[0].watermark;
        let mut writes = wrote(&topology);
        let question = mark.question();
        mark.answer(question, at(1, 100));
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(1, 100)));
        let question = mark.question();
        mark.answer(question, at(2, 50));
        mark.replayed([Some(at(2, 60))].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::Primary);
        assert!(mark.unanswered(), "the session took a new ticket");
        let question = mark.question();
        mark.answer(question, at(2, 70));
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(2, 70)));
        mark.replayed([Some(at(1, 900))].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::Position(at(2, 70)));
        mark.replayed([Some(at(2, 70))].into_iter());
        assert_eq!(writes.required(&topology, 0), Requirement::None);
    }

    #[test]
    fn a_lone_primary_and_other_shards_require_nothing() {
        let topology = topology(1);
        let mut writes = wrote(&topology);
        assert!(writes.none());
        writes.sent(0);
        assert_eq!(writes.required(&topology, 7), Requirement::None);
        assert_eq!(writes.required(&topology, 0), Requirement::Primary);
    }

    #[test]
    fn the_first_ticket_wakes_a_sleeping_monitor_once() {
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(AtomicU32::new(0)));
        let mark = Watermark::new();
        mark.set_waker(Some(std::sync::Arc::clone(&count).into()));
        let woken = || count.0.load(Ordering::Relaxed);
        let _ = mark.written();
        assert_eq!(woken(), 0, "nobody sleeps");
        assert!(!mark.sleep(), "there is a ticket");
        let question = mark.question();
        mark.answer(question, at(1, 1));
        assert!(mark.sleep());
        let _ = mark.written();
        let _ = mark.written();
        assert_eq!(woken(), 1);
    }
}
