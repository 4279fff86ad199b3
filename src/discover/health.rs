//! Whether one node is used: out after failures in a row, back after an answer.
//!
//! Invariant: a node that is out comes back only through an answer to a question that was asked after its last failure.
//! Deliberately absent: clocks; the time is passed in. What a node's standing means for statements.
//!
//! A failure that leaves no doubt (nobody listens, the connection broke) takes the node out at once, without a word in the
//! log: *suspended*. It is asked again within milliseconds. Only failures in a row, as many as the configuration says, *eject*
//! it: that is logged, and it is left alone for a time that doubles with each return that fails.

use std::time::{Duration, Instant};

use super::Failure;
use crate::config::Ejection;

/// Between two questions to a node that has just failed.
const AGAIN: Duration = Duration::from_millis(50);

/// One node's standing, and what led to it.
#[derive(Debug)]
pub(super) struct Health {
    limits: Ejection,
    state: State,
    /// The next time out.
    back_off: Duration,
    /// When it came back the last time.
    returned: Option<Instant>,
    /// A failure was reported since the last question began: what that question brings says nothing.
    outdated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Left out until the next answer.
    Suspended,
    /// Left out, and left alone until then.
    Ejected {
        since: Instant,
        until: Instant,
    },
}

/// What a failure or an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It is left out until it answers.
    Suspended,
    /// It is left out and tried again after this.
    Ejected(Duration),
    /// A try failed; the next is after this.
    StillOut(Duration),
    /// It is used again, without anybody having noticed.
    Resumed,
    /// It is used again, having been out for this long.
    Returned(Duration),
}

impl Health {
    pub(super) fn new(limits: Ejection) -> Self {
        Self { limits, state: State::Up, back_off: limits.back_off, returned: None, outdated: false }
    }

    /// Whether it is used.
    pub(super) fn up(&self) -> bool {
        self.state == State::Up
    }

    /// A question begins: failures reported before do not touch its answer.
    pub(super) fn asking(&mut self) {
        self.outdated = false;
    }

    /// Somebody else saw a failure: the answer to a question on its way is not believed.
    pub(super) fn reported(&mut self) {
        self.outdated = true;
    }

    /// Whether the next question must be asked on a new connection.
    pub(super) fn doubted(&self) -> bool {
        self.outdated
    }

    /// It failed, for the `in_a_row`th time.
    pub(super) fn failed(&mut self, failure: Failure, in_a_row: u32, now: Instant) -> Change {
        match self.state {
            State::Ejected { since, until } => {
                // Reports of statements that were on their way do not count as a return that failed.
                if now < until {
                    return Change::None;
                }
                // A server that starts or stops says so; it is asked at the first pace until it is done.
                let wait = if failure == Failure::NotReady { self.limits.back_off } else { self.raise() };
                self.state = State::Ejected { since, until: now + wait };
                Change::StillOut(wait)
            }
            _ if in_a_row >= self.limits.failures => {
                let stayed = self.returned.map(|returned| now.saturating_duration_since(returned));
                if stayed.is_some_and(|stayed| stayed < self.back_off) {
                    self.raise();
                } else {
                    self.back_off = self.limits.back_off;
                }
                self.state = State::Ejected { since: now, until: now + self.back_off };
                Change::Ejected(self.back_off)
            }
            State::Up if failure.certain() => {
                self.state = State::Suspended;
                Change::Suspended
            }
            _ => Change::None,
        }
    }

    /// It answered; `fit` if it may be used.
    pub(super) fn answered(&mut self, fit: bool, now: Instant) -> Change {
        match self.state {
            State::Up if !fit => {
                self.state = State::Suspended;
                Change::Suspended
            }
            State::Suspended if fit && !self.outdated => {
                self.state = State::Up;
                Change::Resumed
            }
            State::Ejected { since, .. } if fit && !self.outdated => {
                self.state = State::Up;
                self.returned = Some(now);
                Change::Returned(now.saturating_duration_since(since))
            }
            _ => Change::None,
        }
    }

    /// When to ask next, if nothing else calls for it; `None`: at the ordinary time.
    pub(super) fn again(&self, in_a_row: u32, now: Instant) -> Option<Duration> {
        match self.state {
            State::Ejected { until, .. } => {
                Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero()).or(Some(AGAIN))
            }
            State::Suspended => Some(AGAIN),
            State::Up if self.outdated => Some(Duration::ZERO),
            State::Up => (in_a_row > 0).then_some(AGAIN),
        }
    }

    fn raise(&mut self) -> Duration {
        self.back_off = (self.back_off * 2).min(self.limits.max_back_off).max(self.limits.back_off);
        self.back_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Course {
        health: Health,
        start: Instant,
        in_a_row: u32,
    }

    impl Course {
        fn new(failures: u32) -> Self {
            let limits = Ejection { failures, back_off: SECOND, max_back_off: 5 * SECOND };
            Self { health: Health::new(limits), start: Instant::now(), in_a_row: 0 }
        }

        #[track_caller]
        fn fails(&mut self, at: u64, failure: Failure, expected: Change) {
            self.in_a_row += 1;
            let now = self.start + Duration::from_millis(at);
            assert_eq!(self.health.failed(failure, self.in_a_row, now), expected, "at {at} ms");
        }

        #[track_caller]
        fn answers(&mut self, at: u64, fit: bool, expected: Change) {
            self.in_a_row = 0;
            let now = self.start + Duration::from_millis(at);
            assert_eq!(self.health.answered(fit, now), expected, "at {at} ms");
        }

        fn ejected(&self) -> bool {
            matches!(self.health.state, State::Ejected { .. })
        }

        fn again(&self, at: u64) -> Option<Duration> {
            self.health.again(self.in_a_row, self.start + Duration::from_millis(at))
        }
    }

    #[test]
    fn so_many_failures_in_a_row_eject_and_one_answer_brings_back() {
        let mut row = Course::new(3);
        row.fails(0, Failure::TimedOut, Change::None);
        row.fails(1, Failure::TimedOut, Change::None);
        row.answers(2, true, Change::None);
        row.fails(3, Failure::TimedOut, Change::None);
        row.fails(4, Failure::TimedOut, Change::None);
        assert!(row.health.up());
        assert_eq!(row.again(5), Some(AGAIN));
        row.fails(5, Failure::TimedOut, Change::Ejected(SECOND));
        assert!(row.ejected());
        assert_eq!(row.again(505), Some(SECOND / 2));
        row.answers(1005, true, Change::Returned(SECOND));
        assert!(row.health.up());
        assert_eq!(row.again(1005), None);
    }

    #[test]
    fn a_certain_failure_suspends_at_once() {
        let mut row = Course::new(3);
        row.fails(0, Failure::Lost, Change::Suspended);
        assert!(!row.health.up());
        assert!(!row.ejected());
        row.answers(10, true, Change::Resumed);
        row.fails(20, Failure::Refused, Change::Suspended);
        row.fails(70, Failure::Refused, Change::None);
        row.fails(120, Failure::Refused, Change::Ejected(SECOND));
        let mut row = Course::new(1);
        row.fails(0, Failure::Refused, Change::Ejected(SECOND));
    }

    #[test]
    fn times_out_double_up_to_the_longest_and_start_anew_after_a_good_while() {
        let mut row = Course::new(1);
        row.fails(0, Failure::Refused, Change::Ejected(SECOND));
        row.fails(500, Failure::Refused, Change::None);
        row.fails(1000, Failure::Refused, Change::StillOut(2 * SECOND));
        row.fails(3000, Failure::Refused, Change::StillOut(4 * SECOND));
        row.fails(7000, Failure::Refused, Change::StillOut(5 * SECOND));
        row.fails(12_000, Failure::NotReady, Change::StillOut(SECOND));
        row.answers(13_000, true, Change::Returned(13 * SECOND));
        // It stayed for less than it was out: the return failed.
        row.fails(14_000, Failure::Refused, Change::Ejected(5 * SECOND));
        row.answers(19_000, true, Change::Returned(5 * SECOND));
        row.fails(30_000, Failure::Refused, Change::Ejected(SECOND));
    }

    #[test]
    fn an_answer_to_an_earlier_question_does_not_bring_back() {
        let mut row = Course::new(3);
        row.health.asking();
        row.health.reported();
        row.fails(0, Failure::Refused, Change::Suspended);
        row.answers(1, true, Change::None);
        assert!(!row.health.up());
        assert!(row.health.doubted());
        row.health.asking();
        row.answers(2, true, Change::Resumed);
    }

    #[test]
    fn a_node_that_is_behind_what_sessions_rely_on_waits() {
        let mut row = Course::new(3);
        row.answers(0, false, Change::Suspended);
        row.answers(1, false, Change::None);
        assert_eq!(row.again(1), Some(AGAIN));
        row.answers(2, true, Change::Resumed);
        row.fails(3, Failure::TimedOut, Change::None);
        row.fails(4, Failure::TimedOut, Change::None);
        row.fails(5, Failure::TimedOut, Change::Ejected(SECOND));
        row.answers(1005, false, Change::None);
        assert!(row.ejected());
    }
}
