//! What sessions count, apart for each database.
//!
//! Invariant: a session finds its database's counters once, when it begins, and counts without a lock from then on. What was counted
//! stays for the life of the process.
//!
//! Deliberately absent: users; what nodes, pools and policies count.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::metrics::{Counter, Worker};

/// Databases that are counted apart; further ones are counted together.
const MOST: usize = 1000;

/// The counters of one database's sessions, a worker's each.
#[derive(Debug)]
pub struct Tally(Box<[Worker]>);

impl Tally {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Worker::default()).collect())
    }

    /// The counters of a worker; a number too large shares another's.
    #[inline]
    #[must_use]
    pub fn worker(&self, number: usize) -> &Worker {
        &self.0[if number < self.0.len() { number } else { 0 }]
    }

    /// The sum of a worker's counter over all workers.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&Worker) -> &Counter) -> u64 {
        self.0.iter().map(|worker| of(worker).get()).sum()
    }
}

/// All databases' counters.
#[derive(Debug)]
pub(super) struct Databases {
    workers: usize,
    /// Of no database, or of one too many.
    pub(super) rest: Arc<Tally>,
    named: Mutex<BTreeMap<Box<str>, Arc<Tally>>>,
}

impl Databases {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, rest: Arc::new(Tally::new(workers)), named: Mutex::default() }
    }

    /// Those of the database that clients call `name`.
    pub(super) fn of(&self, name: &str) -> Arc<Tally> {
        let mut named = self.named.lock();
        if let Some(tally) = named.get(name) {
            return Arc::clone(tally);
        }
        if named.len() >= MOST {
            return Arc::clone(&self.rest);
        }
        Arc::clone(named.entry(name.into()).or_insert_with(|| Arc::new(Tally::new(self.workers))))
    }

    /// Those with a name of their own, in its order.
    pub(super) fn named(&self) -> Vec<(Box<str>, Arc<Tally>)> {
        self.named.lock().iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_count_apart_up_to_a_limit() {
        let databases = Databases::new(2);
        for (name, worker) in [("a", 0), ("b", 1), ("a", 1), ("a", 7)] {
            databases.of(name).worker(worker).received.one();
        }
        let counts = |databases: &Databases| -> Vec<(Box<str>, u64)> {
            let named = databases.named().into_iter();
            named.map(|(name, tally)| (name, tally.sum(|worker| &worker.received))).collect()
        };
        assert_eq!(counts(&databases), [("a".into(), 3), ("b".into(), 1)]);
        for number in 0..MOST {
            databases.of(&format!("x{number}")).worker(0).received.one();
        }
        assert_eq!(databases.named().len(), MOST);
        assert_eq!(databases.rest.sum(|worker| &worker.received), 2);
        databases.of("b").worker(0).received.one();
        assert_eq!(counts(&databases)[1].1, 2);
    }
}
