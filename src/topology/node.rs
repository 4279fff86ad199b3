//! One server and what is known of it.
//!
//! Invariant: what is known is stored as a whole by whoever learnt it and read without a lock.
//! Deliberately absent: how it was learnt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::policy;

/// What a node does in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Nobody has said or asked yet.
    Unknown = 0,
    /// Takes writes.
    Primary = 1,
    /// A standby.
    Replica = 2,
}

/// A position in the write-ahead log, in bytes (`pg_lsn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads PostgreSQL's form, two hexadecimal numbers with a slash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

/// A position and the timeline that it is on; positions on different timelines do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// The timeline's number.
    pub timeline: u32,
    /// The position on it.
    pub lsn: Lsn,
}

impl Position {
    /// Whether a server at this position has all that is up to `wanted`.
    #[must_use]
    pub fn has_passed(self, wanted: Self) -> bool {
        self.timeline == wanted.timeline && self.lsn >= wanted.lsn
    }
}

/// Found out so often in a row, a node is given up.
const OUT: u8 = 2;

/// Whether a node is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Up,
    /// It failed and is left out until it answers again.
    Ejected,
}

/// What the configuration says of a node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Unique in the cluster.
    pub name: Box<str>,
    /// The role to believe until the node was asked.
    pub role: Role,
    /// Share of the reads.
    pub weight: u32,
    /// What a policy can ask for: name and value.
    pub labels: Box<[(Box<str>, Box<str>)]>,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    /// What the configuration says.
    pub spec: NodeSpec,
    /// Position of its shard in the cluster.
    pub shard: usize,
    /// Its place among all nodes of the topology.
    pub number: usize,
    role: AtomicU8,
    ejected: AtomicBool,
    /// How often [`Node::still_out`] has found it out in a row.
    outs: AtomicU8,
    failures: AtomicU32,
    /// Replay lag in milliseconds, plus one; zero: not known.
    lag: AtomicU64,
    replayed: AtomicU64,
    timeline: AtomicU32,
    in_flight: AtomicU32,
    /// Statements sent to it, by the role that was decided.
    sent: [AtomicU64; 3],
    /// The topology's: raised when role or standing change.
    changes: Arc<AtomicU64>,
}

impl Node {
    pub(super) fn new(spec: NodeSpec, shard: usize, number: usize, changes: Arc<AtomicU64>) -> Self {
        Self {
            role: AtomicU8::new(spec.role as u8),
            spec,
            shard,
            number,
            ejected: AtomicBool::new(false),
            outs: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            lag: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            sent: Default::default(),
            changes,
        }
    }

    /// Its role, as last learnt.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Relaxed) {
            1 => Role::Primary,
            2 => Role::Replica,
            _ => Role::Unknown,
        }
    }

    /// Stores its role.
    pub fn set_role(&self, role: Role) {
        if self.role.swap(role as u8, Ordering::Relaxed) != role as u8 {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether it is used.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if self.ejected.load(Ordering::Relaxed) { Standing::Ejected } else { Standing::Up }
    }

    /// Takes it out or back in. Returns whether that changed anything.
    pub fn set_standing(&self, standing: Standing) -> bool {
        let ejected = standing == Standing::Ejected;
        if !ejected {
            self.outs.store(0, Ordering::Relaxed);
        }
        let changed = self.ejected.swap(ejected, Ordering::Relaxed) != ejected;
        if changed {
            self.changes.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// To be called about once a second: whether it is a replica that was out the last time, too, and still is. What is in flight
    /// there is given up from then on, where it can run elsewhere.
    pub fn still_out(&self) -> bool {
        if self.role() != Role::Replica || self.standing() == Standing::Up {
            self.outs.store(0, Ordering::Relaxed);
            return false;
        }
        let outs = self.outs.load(Ordering::Relaxed).saturating_add(1);
        self.outs.store(outs, Ordering::Relaxed);
        outs >= OUT
    }

    /// Whether what is in flight there is given up.
    #[inline]
    #[must_use]
    pub fn given_up(&self) -> bool {
        self.outs.load(Ordering::Relaxed) >= OUT
    }

    /// Counts a failure in a row; returns how many there are.
    pub fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// It answered: no failure in a row any more.
    pub fn answered(&self) {
        // Called for every answer: the line stays shared between cores while all is well.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// How far it is behind its primary; `None`: not known.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.lag.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }

    /// Stores how far it is behind.
    pub fn set_lag(&self, lag: Option<Duration>) {
        let millis = lag.map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX - 1) + 1);
        self.lag.store(millis, Ordering::Relaxed);
    }

    /// What it has replayed (a replica) or written (a primary); `None`: not known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        // The timeline is read on both sides of the position: a pair torn by a change of timeline says nothing. Whoever
        // sees the new timeline also sees the zero stored before it.
        let timeline = self.timeline.load(Ordering::Acquire);
        let lsn = Lsn(self.replayed.load(Ordering::Acquire));
        let whole = timeline != 0 && self.timeline.load(Ordering::Acquire) == timeline;
        whole.then_some(Position { timeline, lsn })
    }

    /// Whether it is known to have replayed this.
    #[must_use]
    pub fn has_replayed(&self, wanted: Position) -> bool {
        self.position().is_some_and(|at| at.timeline == wanted.timeline && at.lsn >= wanted.lsn)
    }

    /// Stores its position.
    pub fn set_position(&self, position: Option<Position>) {
        let Position { timeline, lsn } = position.unwrap_or_default();
        if self.timeline.load(Ordering::Relaxed) != timeline {
            self.replayed.store(0, Ordering::Release);
            self.timeline.store(timeline, Ordering::Release);
        }
        self.replayed.store(lsn.0, Ordering::Release);
    }

    /// Connections lent to sessions now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A connection to it was lent (`1`) or came back (`-1`).
    pub fn lent(&self, step: i32) {
        if step > 0 {
            self.in_flight.fetch_add(step.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.in_flight.fetch_sub(step.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// A statement for which `target` was decided goes to it. One relaxed addition, beside what [`Node::lent`] writes.
    pub fn count_sent(&self, target: policy::Role) {
        self.sent[target as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Statements sent to it so far for which `target` was decided.
    #[must_use]
    pub fn sent(&self, target: policy::Role) -> u64 {
        self.sent[target as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_postgresql_writes_them() {
        for (text, expected) in [
            ("0/0", Some(0)),
            ("16/B374D848", Some(0x16_B374_D848)),
            ("FFFFFFFF/FFFFFFFF", Some(u64::MAX)),
            ("16", None),
            ("x/1", None),
        ] {
            assert_eq!(Lsn::parse(text), expected.map(Lsn), "{text}");
        }
    }

    #[test]
    fn a_replica_is_given_up_that_stays_out() {
        let spec = |role| NodeSpec { name: "n".into(), role, weight: 1, labels: Box::default() };
        let node = Node::new(spec(Role::Replica), 0, 0, Arc::default());
        assert!(!node.still_out());
        node.set_standing(Standing::Ejected);
        assert!(!node.still_out() && !node.given_up());
        node.set_standing(Standing::Up);
        node.set_standing(Standing::Ejected);
        assert!(!node.still_out() && !node.given_up());
        assert!(node.still_out() && node.given_up());
        node.set_standing(Standing::Up);
        assert!(!node.given_up());
        // There is no other primary.
        let node = Node::new(spec(Role::Primary), 0, 0, Arc::default());
        node.set_standing(Standing::Ejected);
        assert!(!node.still_out() && !node.still_out() && !node.given_up());
    }

    #[test]
    fn a_change_of_timeline_forgets_the_position() {
        let spec = NodeSpec { name: "n".into(), role: Role::Replica, weight: 1, labels: Box::default() };
        let node = Node::new(spec, 0, 0, Arc::default());
        assert_eq!(node.position(), None);
        node.set_position(Some(Position { timeline: 1, lsn: Lsn(9) }));
        node.set_position(Some(Position { timeline: 2, lsn: Lsn(3) }));
        assert_eq!(node.position(), Some(Position { timeline: 2, lsn: Lsn(3) }));
        node.set_position(None);
        assert_eq!(node.position(), None);
    }
}
