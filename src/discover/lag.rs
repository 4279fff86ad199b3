//! How far a standby is behind its primary, in time.
//!
//! Invariant: a standby is never said to be fresher than the primary's own positions prove it not to be.
//! Deliberately absent: clocks; the time of every observation is passed in.
//!
//! A standby's words alone mislead. The age of the last transaction replayed grows while the primary is idle; "all that was
//! received is replayed" also holds when nothing is received any more. So the primary's positions are remembered with
//! the time at which they were seen. A standby that has replayed R is behind by at most the time since the primary was last
//! seen at or before R, and by at least the time since it was first seen past R; its own words count between the two.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::probe::Words;
use crate::topology::Lsn;

/// Positions kept. At the limit every second one goes, never the oldest: what is long past is known more coarsely.
const KEPT: usize = 256;
/// Observations nearer to each other than this share an entry: while sessions wait, the primary is asked much more often.
const GRAIN: Duration = Duration::from_millis(50);

/// Where the primary was seen, and when.
#[derive(Debug, Default)]
pub(super) struct History {
    seen: VecDeque<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    lsn: Lsn,
    first: Instant,
    last: Instant,
}

impl History {
    /// The primary's log ended (durably) at `lsn` when it was asked at `now`.
    pub(super) fn observe(&mut self, lsn: Lsn, now: Instant) {
        if self.seen.back().is_some_and(|seen| seen.lsn > lsn) {
            // A crash that lost what was not durable, or another timeline.
            self.seen.clear();
        }
        match self.seen.back_mut() {
            Some(seen) if seen.lsn == lsn => seen.last = now,
            Some(seen) if now.saturating_duration_since(seen.first) < GRAIN => {}
            _ => {
                if self.seen.len() >= KEPT {
                    let mut index = 0;
                    self.seen.retain(|_| {
                        index += 1;
                        index % 2 == 1
                    });
                }
                self.seen.push_back(Seen { lsn, first: now, last: now });
            }
        }
    }

    /// Forgets everything: the primary or its timeline is another.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    /// How far a standby is behind that has replayed `replayed` at `now`, by all that is known. `None`: not known.
    pub(super) fn lag(&self, replayed: Lsn, words: Words, now: Instant) -> Option<Duration> {
        let said = if words.caught_up { Some(Duration::ZERO) } else { words.age };
        let next = self.seen.partition_point(|seen| seen.lsn <= replayed);
        let since = |at: Instant| now.saturating_duration_since(at);
        let most = next.checked_sub(1).map(|index| since(self.seen[index].last));
        let least = self.seen.get(next).map_or(Duration::ZERO, |seen| since(seen.first));
        let lag = match (said, most) {
            (Some(said), Some(most)) => said.min(most),
            (said, most) => said.or(most)?,
        };
        Some(lag.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    const CONNECTED: Words = Words { caught_up: true, age: Some(Duration::from_secs(3600)) };

    fn working(age: f64) -> Words {
        Words { caught_up: false, age: Some(second(age)) }
    }

    /// The primary was seen at these positions at these times; a standby at a position at a time has this lag.
    fn check(seen: &[(f64, u64)], (now, replayed, words): (f64, u64, Words), expected: Option<f64>) {
        let start = Instant::now();
        let mut history = History::default();
        for (at, lsn) in seen {
            history.observe(Lsn(*lsn), start + second(*at));
        }
        let lag = history.lag(Lsn(replayed), words, start + second(now));
        assert_eq!(lag, expected.map(second), "{seen:?} {now} {replayed} {words:?}");
    }

    #[test]
    fn words_count_between_what_the_primary_s_positions_prove() {
        // Nothing known of the primary: the words alone.
        check(&[], (5.0, 10, CONNECTED), Some(0.0));
        check(&[], (5.0, 10, working(2.0)), Some(2.0));
        check(&[], (5.0, 10, Words::default()), None);
        // An idle primary: nothing was replayed for an hour, and nothing was there to be replayed.
        check(&[(0.0, 10), (1.0, 10), (2.0, 10)], (2.5, 10, CONNECTED), Some(0.0));
        // The receiver is gone, and nothing was missed yet.
        check(&[(0.0, 10), (1.0, 10), (2.0, 10)], (2.5, 10, working(3600.0)), Some(0.5));
        // The receiver is gone, and the primary went on.
        check(&[(0.0, 10), (1.0, 10), (2.0, 20), (3.0, 30)], (3.5, 10, working(3600.0)), Some(2.5));
        // The receiver believes that it is connected, and is not.
        check(&[(0.0, 10), (1.0, 20), (9.0, 30)], (9.5, 10, CONNECTED), Some(8.5));
        // Under load, a little behind: the words are finer than the questions to the primary.
        check(&[(0.0, 10), (1.0, 20), (2.0, 30)], (2.5, 35, working(0.01)), Some(0.01));
        // The first write after a long pause is on its way.
        check(&[(0.0, 10), (1.0, 10), (2.0, 11)], (2.1, 10, working(3600.0)), Some(1.1));
        // The primary is dead: nobody knows what it did since.
        check(&[(0.0, 10), (1.0, 10)], (60.0, 10, working(3600.0)), Some(59.0));
        // Behind everything that is remembered.
        check(&[(0.0, 10), (1.0, 20)], (5.0, 5, Words::default()), None);
        check(&[(0.0, 10), (1.0, 20)], (5.0, 5, working(7.0)), Some(7.0));
    }

    #[test]
    fn the_history_is_bounded_and_coarser_where_it_is_old() {
        let start = Instant::now();
        let mut history = History::default();
        for n in 0..10_000_u64 {
            history.observe(Lsn(n), start + Duration::from_secs(n));
            assert!(history.seen.len() <= KEPT);
        }
        let behind = history.lag(Lsn(5000), Words::default(), start + second(10_000.0)).unwrap();
        assert!(behind >= second(5000.0) && behind <= second(10_000.0), "{behind:?}");
        // Frequent questions do not push the old out.
        let (len, base) = (history.seen.len(), start + second(10_000.0));
        for n in 0..1000_u32 {
            history.observe(Lsn(20_000 + u64::from(n)), base + Duration::from_micros(10) * n);
        }
        assert_eq!(history.seen.len(), len + 1);
        history.observe(Lsn(1), base + second(1.0));
        assert_eq!(history.seen.len(), 1, "a position that went back is another history");
    }
}
