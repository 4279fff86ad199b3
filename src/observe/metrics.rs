//! What is counted while the gateway works.
//!
//! Invariant: counting takes no lock and allocates nothing; what happens in every transaction is counted in the worker's own
//! cache lines, so that cores never wait for each other here. Deliberately absent: states (nodes, pools, caches), which are
//! read where they live when somebody asks; names and texts ([`super::families`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::databases::{Databases, Tally};
use crate::session::Pins;

/// A number that only grows. One relaxed addition a step.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn one(&self) {
        self.add(1);
    }

    /// `by` more.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// So far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker: what a database's sessions count in the course of their transactions.
#[derive(Debug, Default)]
// Whole pairs of lines: the neighbour is fetched along on common processors.
#[repr(align(128))]
pub struct Worker {
    /// Units that the gateway answered without a server.
    pub local: Counter,
    /// Units sent to servers, those that ran again once.
    pub statements: Counter,
    /// Transactions that ended on servers, implicit ones among them.
    pub transactions: Counter,
    /// Microseconds that sessions waited for a server.
    pub waited: Counter,
    /// Bytes that clients sent after their log-in.
    pub received: Counter,
    /// Bytes sent to clients after their log-in.
    pub sent: Counter,
    /// Questions to servers about the state that a session left there.
    pub audits: Counter,
    /// Times that a session's settings had to be brought to a server before its statement.
    pub syncs: Counter,
    /// Server connections that were lost while a session held them.
    pub lost_servers: Counter,
    /// Reads that failed on a replica and ran again.
    pub reruns: Counter,
    /// Statements sent to a server that their session must keep.
    pub pinned: Counter,
    pinned_causes: [Counter; Pins::CAUSES.len()],
}

impl Worker {
    /// A statement goes to a server that its session must keep.
    pub fn pinned(&self, pins: Pins) {
        self.pinned.one();
        for (holds, counter) in pins.flags().into_iter().zip(&self.pinned_causes) {
            counter.add(u64::from(holds));
        }
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_clients` is reached.
    TooMany,
    /// It took longer than `client_login_timeout`.
    TimedOut,
    /// Wrong or missing credentials, or a connection that must be encrypted and is not (SQLSTATE class 28).
    Authentication,
    /// A database that is not there (3D000).
    Database,
    /// What it said is not the protocol, or a part of it that is not supported (08P01, 0A000).
    Protocol,
    /// No server could be reached, or it refused (any other SQLSTATE).
    Server,
    /// It left, or TLS did not come about.
    Gone,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::TooMany, Self::TimedOut, Self::Authentication, Self::Database, Self::Protocol, Self::Server, Self::Gone];

    /// From the error that the client is told.
    #[must_use]
    pub fn of(sqlstate: &str) -> Self {
        match sqlstate {
            "3D000" => Self::Database,
            "08P01" | "0A000" => Self::Protocol,
            _ if sqlstate.starts_with("28") => Self::Authentication,
            _ => Self::Server,
        }
    }

    /// A word, as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many_clients",
            Self::TimedOut => "login_timeout",
            Self::Authentication => "authentication",
            Self::Database => "database",
            Self::Protocol => "protocol",
            Self::Server => "server",
            Self::Gone => "gone",
        }
    }
}

/// All that is counted outside of nodes and pools. One for the process.
#[derive(Debug)]
pub struct Metrics {
    databases: Databases,
    /// When the gateway started.
    pub started: SystemTime,
    /// Connections accepted.
    pub accepted: Counter,
    /// Cancel requests received.
    pub cancels: Counter,
    /// Cancel requests passed on to a peer.
    pub cancels_forwarded: Counter,
    /// Cancel requests for another gateway's session that could not be.
    pub cancels_stranded: Counter,
    /// Configurations put to work after the first.
    pub reloads: Counter,
    /// Configurations that could not be.
    pub reload_failures: Counter,
    /// Policies loaded.
    pub policy_loads: Counter,
    /// Policies that could not be loaded, or were retired by their breaker.
    pub policy_failures: Counter,
    refusals: [Counter; Refusal::ALL.len()],
    /// By the two characters of the SQLSTATE's class, 36 values each.
    rejections: Box<[Counter]>,
}

const CLASS_DIGITS: usize = 36;

impl Metrics {
    /// Nothing counted yet. `workers` is the number of threads or runtimes that count apart, at least 1.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            databases: Databases::new(workers),
            started: SystemTime::now(),
            accepted: Counter::default(),
            cancels: Counter::default(),
            cancels_forwarded: Counter::default(),
            cancels_stranded: Counter::default(),
            reloads: Counter::default(),
            reload_failures: Counter::default(),
            policy_loads: Counter::default(),
            policy_failures: Counter::default(),
            refusals: Default::default(),
            rejections: (0..CLASS_DIGITS * CLASS_DIGITS).map(|_| Counter::default()).collect(),
        }
    }

    /// The counters of a worker for what concerns no session.
    #[must_use]
    pub fn worker(&self, number: usize) -> &Worker {
        self.databases.rest.worker(number)
    }

    /// What sessions count in the database that clients call `name`. For those that have logged in: it is never forgotten.
    #[must_use]
    pub fn database(&self, name: &str) -> Arc<Tally> {
        self.databases.of(name)
    }

    /// All of these, by the databases' names.
    #[must_use]
    pub fn databases(&self) -> Vec<(Box<str>, Arc<Tally>)> {
        self.databases.named()
    }

    /// The sum of a worker's counter over all workers and databases.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&Worker) -> &Counter) -> u64 {
        let named = self.databases.named().into_iter().map(|(_, tally)| tally);
        named.chain([Arc::clone(&self.databases.rest)]).map(|tally| tally.sum(&of)).sum()
    }

    /// Statements sent to a server that their session had to keep, by cause; those causes that happened.
    pub fn pinned_causes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = Pins::CAUSES.into_iter().enumerate();
        let counted = counted.map(|(at, cause)| (cause, self.sum(|worker| &worker.pinned_causes[at])));
        counted.filter(|(_, count)| *count > 0)
    }

    /// A client was not let in.
    pub fn refused(&self, reason: Refusal) {
        self.refusals[reason as usize].one();
    }

    /// Clients not let in for a reason.
    #[must_use]
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// The gateway itself answered a statement with an error.
    pub fn rejected(&self, sqlstate: &str) {
        if let [first, second, ..] = sqlstate.as_bytes()
            && let (Some(first), Some(second)) = (digit(*first), digit(*second))
        {
            self.rejections[first * CLASS_DIGITS + second].one();
        }
    }

    /// Errors of the gateway's own by SQLSTATE class, those that happened.
    pub fn rejections(&self) -> impl Iterator<Item = (String, u64)> {
        let counted = self.rejections.iter().enumerate().map(|(index, counter)| (index, counter.get()));
        counted.filter(|(_, count)| *count > 0).map(|(index, count)| {
            let class = [index / CLASS_DIGITS, index % CLASS_DIGITS].map(|digit| {
                // Both are below 36.
                char::from_digit(digit as u32, CLASS_DIGITS as u32).unwrap_or('?').to_ascii_uppercase()
            });
            (class.iter().collect(), count)
        })
    }
}

/// The value of a character of a SQLSTATE.
fn digit(byte: u8) -> Option<usize> {
    char::from(byte).to_digit(CLASS_DIGITS as u32).map(|digit| digit as usize)
}

/// What a pool counts.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// How long those waited in the queue who had to, whatever came of it.
    pub waits: Histogram,
    /// Waits that ended with `query_wait`.
    pub timed_out: Counter,
    /// Clients turned away because the queue was full.
    pub queue_full: Counter,
    /// Connections of the reserve that were opened, or attempted.
    pub reserve_used: Counter,
    /// How long opening a connection took, log-in included, for those that were opened.
    pub connects: Histogram,
    /// Connections that could not be opened.
    pub connect_failures: Counter,
}

/// A distribution of times over [`Histogram::BOUNDS`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; Self::BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// The buckets' upper bounds; above them there is one more.
    pub const BOUNDS: [Duration; 12] = [
        Duration::from_micros(100),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(30),
        Duration::from_secs(120),
    ];

    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        let bucket = Self::BOUNDS.iter().position(|bound| time <= *bound).unwrap_or(Self::BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Times {
        let buckets = std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed));
        Times { buckets, sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)) }
    }
}

/// A [`Histogram`] at one moment, or several added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Times in each bucket, not cumulated.
    pub buckets: [u64; Histogram::BOUNDS.len() + 1],
    /// Of all times.
    pub sum: Duration,
}

impl Times {
    /// Takes the times of another in.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.buckets.iter_mut().zip(other.buckets) {
            *own += others;
        }
        self.sum += other.sum;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_counted_by_class() {
        let metrics = Metrics::new(2);
        for sqlstate in ["0A000", "42501", "57014", "57P03", "PM001", "", "é1234"] {
            metrics.rejected(sqlstate);
        }
        let found: Vec<_> = metrics.rejections().collect();
        let expected = [("0A", 1), ("42", 1), ("57", 2), ("PM", 1)].map(|(class, count)| (class.to_owned(), count));
        assert_eq!(found, expected);
    }

    #[test]
    fn workers_count_apart_and_sum_up() {
        let metrics = Metrics::new(2);
        for (worker, by) in [(0, 1), (1, 10), (7, 100)] {
            metrics.worker(worker).received.add(by);
        }
        assert_eq!(metrics.worker(1).received.get(), 10);
        metrics.database("a").worker(1).received.add(1000);
        assert_eq!(metrics.sum(|worker| &worker.received), 1111);
    }

    #[test]
    fn pinned_statements_count_once_and_under_each_cause() {
        let metrics = Metrics::new(2);
        metrics.worker(0).pinned(Pins { temporary: true, seed: true, ..Pins::default() });
        metrics.worker(1).pinned(Pins { temporary: true, ..Pins::default() });
        assert_eq!(metrics.sum(|worker| &worker.pinned), 2);
        let found: Vec<_> = metrics.pinned_causes().collect();
        assert_eq!(found, [("temporary objects", 2), ("seeded random numbers", 1)]);
    }

    #[test]
    fn refusals_by_what_the_client_was_told() {
        for (sqlstate, expected) in [
            ("28P01", Refusal::Authentication),
            ("28000", Refusal::Authentication),
            ("3D000", Refusal::Database),
            ("08P01", Refusal::Protocol),
            ("0A000", Refusal::Protocol),
            ("08001", Refusal::Server),
            ("53300", Refusal::Server),
        ] {
            assert_eq!(Refusal::of(sqlstate), expected, "{sqlstate}");
        }
        let metrics = Metrics::new(1);
        for reason in Refusal::ALL {
            metrics.refused(reason);
            assert_eq!(metrics.refusals(reason), 1, "{reason:?}");
        }
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 5_000, 500_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut times = histogram.read();
        let mut expected = [0; Histogram::BOUNDS.len() + 1];
        (expected[0], expected[1], expected[3], expected[12]) = (2, 1, 1, 1);
        assert_eq!(times.buckets, expected);
        assert_eq!((times.count(), times.sum), (5, Duration::from_micros(500_005_201)));
        times.merge(&histogram.read());
        assert_eq!(times.count(), 10);
    }
}
