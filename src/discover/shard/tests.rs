//! What follows from answers, without servers and with a virtual clock.

use std::time::{Duration, Instant};

use super::super::probe::Words;
use super::*;
use crate::topology::{Conditions, NodeSpec, Requirement, Writes};

struct Rig {
    topology: Topology,
    watch: Arc<ShardWatch>,
    start: Instant,
    now: Duration,
}

const INTERVAL: Duration = Duration::from_secs(1);

fn at(timeline: u32, lsn: u64) -> Position {
    Position { timeline, lsn: Lsn(lsn) }
}

impl Rig {
    fn new(roles: &[Role]) -> Self {
        let spec = |(n, role): (usize, &Role)| NodeSpec {
            name: format!("n{n}").into(),
            role: *role,
            weight: 1,
            labels: Box::default(),
        };
        let topology = Topology::new(1, vec![("s".into(), roles.iter().enumerate().map(spec).collect())]);
        let limits = Ejection { failures: 3, back_off: INTERVAL, max_back_off: 8 * INTERVAL };
        let watch = ShardWatch::from_parts("c", 0, &topology.shards()[0], limits);
        Self { topology, watch, start: Instant::now(), now: Duration::ZERO }
    }

    fn now(&self) -> Instant {
        self.start + self.now
    }

    fn node(&self, index: usize) -> &Node {
        &self.topology.shards()[0].nodes[index]
    }

    fn says(&mut self, index: usize, state: State) {
        self.says_in_run(index, "1", state);
    }

    fn says_in_run(&mut self, index: usize, started: &str, state: State) {
        self.now += Duration::from_millis(1);
        self.watch.asking(index);
        let question = self.watch.question(&self.topology);
        let report = Report { started: started.to_owned(), state };
        self.watch.reports(&self.topology, index, &report, question, (self.now(), self.now()));
    }

    fn primary(&mut self, index: usize, timeline: u32, lsn: u64) {
        self.says(index, State::Primary { inserted: at(timeline, lsn), flushed: Lsn(lsn) });
    }

    fn standby(&mut self, index: usize, timeline: u32, lsn: u64) {
        self.says(index, standby(timeline, lsn));
    }

    fn wrote(&self) -> Writes {
        let mut writes = Writes::default();
        writes.sent(0);
        writes.acknowledged(&self.topology, 0);
        writes
    }

    #[track_caller]
    fn roles(&self, expected: &[Role]) {
        let roles: Vec<_> = self.topology.nodes().map(|node| node.role()).collect();
        assert_eq!(roles, expected);
    }
}

fn standby(timeline: u32, lsn: u64) -> State {
    State::Standby { timeline, replayed: Some(Lsn(lsn)), words: Words { caught_up: true, age: None } }
}

use Role::{Primary, Replica, Unknown};

#[test]
fn roles_follow_what_the_nodes_say() {
    let mut rig = Rig::new(&[Primary, Replica, Replica]);
    rig.standby(0, 1, 10);
    rig.roles(&[Replica, Replica, Replica]);
    rig.primary(1, 1, 10);
    rig.roles(&[Replica, Primary, Replica]);
    // A promotion beside it: the later timeline wins, also when the earlier one speaks last.
    rig.primary(2, 2, 10);
    rig.roles(&[Replica, Unknown, Primary]);
    rig.primary(1, 1, 99);
    rig.roles(&[Replica, Unknown, Primary]);
    rig.standby(1, 2, 10);
    rig.roles(&[Replica, Replica, Primary]);
}

#[test]
fn a_configured_primary_gives_way_to_one_that_says_so_and_a_tie_changes_nothing() {
    let mut rig = Rig::new(&[Primary, Replica, Unknown]);
    rig.primary(1, 1, 10);
    rig.roles(&[Unknown, Primary, Unknown]);
    rig.primary(2, 1, 10);
    rig.primary(0, 1, 10);
    rig.roles(&[Unknown, Primary, Unknown]);
}

#[test]
fn a_standby_s_timeline_only_rises_within_a_run() {
    let mut rig = Rig::new(&[Primary, Replica]);
    rig.standby(1, 2, 10);
    rig.standby(1, 1, 12);
    assert_eq!(rig.node(1).position(), Some(at(2, 12)), "the receiver that said 2 has ended");
    rig.says_in_run(1, "2", standby(1, 11));
    assert_eq!(rig.node(1).position(), Some(at(1, 11)), "the server was started anew");
    rig.says_in_run(1, "3", standby(0, 11));
    assert_eq!(rig.node(1).position(), None);
}

#[test]
fn tickets_are_answered_by_the_primary_alone() {
    let mut rig = Rig::new(&[Primary, Replica, Replica]);
    rig.primary(0, 1, 10);
    rig.standby(1, 1, 10);
    rig.standby(2, 1, 10);
    let mut writes = rig.wrote();
    let plan = rig.watch.plan(&rig.topology, 0, INTERVAL, rig.now());
    assert_eq!(plan, Plan { kind: Kind::Inserted, wait: Some(Duration::ZERO) }, "a ticket waits");
    rig.standby(1, 1, 20);
    assert_eq!(writes.required(&rig.topology, 0), Requirement::Primary);
    rig.watch.inserted(&rig.topology, 0, Some(at(1, 20)), rig.watch.question(&rig.topology));
    assert_eq!(writes.required(&rig.topology, 0), Requirement::Position(at(1, 20)));
    let plan = rig.watch.plan(&rig.topology, 0, INTERVAL, rig.now());
    assert_eq!(plan.wait, Some(INTERVAL));
    let plan = rig.watch.plan(&rig.topology, 1, INTERVAL, rig.now());
    assert_eq!(plan, Plan { kind: Kind::Full, wait: Some(INTERVAL) });
    let plan = rig.watch.plan(&rig.topology, 2, INTERVAL, rig.now());
    assert_eq!(plan, Plan { kind: Kind::Replayed, wait: None }, "it is waited for");
    let (now, topology) = (rig.now(), &rig.topology);
    assert!(rig.watch.replayed(topology, 2, Some(Lsn(15)), now));
    assert!(!rig.watch.replayed(topology, 2, Some(Lsn(15)), now));
    assert_eq!(writes.required(topology, 0), Requirement::Position(at(1, 20)));
    assert!(rig.watch.replayed(topology, 2, Some(Lsn(20)), now));
    assert_eq!(writes.required(topology, 0), Requirement::None);
}

#[test]
fn a_replica_that_was_away_comes_back_only_with_what_all_others_have() {
    let mut rig = Rig::new(&[Primary, Replica, Replica]);
    rig.primary(0, 1, 10);
    rig.standby(1, 1, 10);
    rig.standby(2, 1, 10);
    rig.watch.reported(rig.node(2), Failure::Lost, rig.now());
    assert_eq!(rig.node(2).standing(), Standing::Ejected);
    assert_eq!(rig.node(2).position(), None);
    let mut writes = rig.wrote();
    rig.primary(0, 1, 20);
    rig.standby(1, 1, 20);
    assert_eq!(writes.required(&rig.topology, 0), Requirement::None);
    rig.says_in_run(2, "2", standby(1, 15));
    assert_eq!(rig.node(2).standing(), Standing::Ejected);
    rig.says_in_run(2, "2", standby(1, 20));
    assert_eq!(rig.node(2).standing(), Standing::Up);
    // A restart that nobody saw: it has replayed less than it had.
    rig.says_in_run(2, "3", standby(1, 12));
    assert_eq!(rig.node(2).standing(), Standing::Ejected);
    // A primary of before has what it wrote itself, and must have the rest too.
    rig.primary(1, 2, 30);
    let mut writes = rig.wrote();
    rig.primary(1, 2, 40);
    assert_eq!(writes.required(&rig.topology, 0), Requirement::None, "no replica is in use");
    rig.standby(0, 2, 20);
    assert_eq!((rig.node(0).role(), rig.node(0).standing()), (Replica, Standing::Ejected));
    rig.standby(0, 2, 40);
    assert_eq!(rig.node(0).standing(), Standing::Up);
}

#[test]
fn failures_of_the_data_path_and_of_questions_count_together() {
    let rig = Rig::new(&[Primary, Replica, Replica]);
    rig.watch.reported(rig.node(1), Failure::TimedOut, rig.now());
    assert!(rig.watch.asking(1), "a new connection tells more");
    rig.watch.failed(1, Failure::TimedOut, "x", rig.now());
    assert_eq!(rig.node(1).standing(), Standing::Up);
    rig.watch.failed(1, Failure::NotReady, "x", rig.now());
    assert_eq!(rig.node(1).standing(), Standing::Ejected);
    let wait = |index| rig.watch.plan(&rig.topology, index, INTERVAL / 2, rig.now()).wait;
    assert_eq!(wait(1), Some(INTERVAL), "the back-off");
    for _ in 0..3 {
        rig.watch.failed(0, Failure::Refused, "x", rig.now());
    }
    assert_eq!(wait(0), Some(INTERVAL / 2), "a primary is asked all the same");
    let read = Conditions { replica: true, ..Conditions::default() };
    assert_eq!(&*rig.topology.choose(&read).unwrap().spec.name, "n2");
}

#[test]
fn a_short_answer_that_contradicts_the_last_full_one_is_not_believed() {
    let mut rig = Rig::new(&[Primary, Replica]);
    rig.primary(0, 1, 10);
    let mut writes = rig.wrote();
    for said in [None, Some(at(2, 20))] {
        rig.watch.inserted(&rig.topology, 0, said, rig.watch.question(&rig.topology));
        assert_eq!(writes.required(&rig.topology, 0), Requirement::Primary);
        assert_eq!(rig.watch.plan(&rig.topology, 0, INTERVAL, rig.now()).kind, Kind::Full);
    }
    rig.primary(0, 2, 20);
    assert_eq!(writes.required(&rig.topology, 0), Requirement::Position(at(2, 20)));
}

#[test]
fn nobody_is_asked_in_haste_who_cannot_be_asked() {
    let rig = Rig::new(&[Primary, Replica]);
    let _writes = rig.wrote();
    rig.watch.unable(0, "x");
    assert_eq!(rig.watch.plan(&rig.topology, 0, INTERVAL, rig.now()).wait, Some(INTERVAL));
}
