//! Databases that a statement wants to itself: nobody reads their catalogues meanwhile.
//!
//! Invariant: what was named once is left alone for [`LEFT_ALONE`]; the statement goes on once a reading that was under way, and
//! its connection, have ended.
//! Deliberately absent: the pools' connections.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// PostgreSQL waits so long for the other connections to a database to end (`CountOtherDBBackends` in `procarray.c`).
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// Longest wait for a reading. A plain DROP waits by itself; WITH (FORCE) may not end the connections of others.
const PATIENCE: Duration = Duration::from_secs(3);

/// The databases, by their names on the servers.
#[derive(Debug, Default)]
pub struct Vacated {
    /// At most one entry for each.
    databases: Mutex<Vec<(Box<str>, Instant)>>,
    /// Whose catalogue is being read: one at a time.
    reading: Mutex<Option<Box<str>>>,
    read: Notify,
}

impl Vacated {
    /// Leaves `dbname` alone from now on, for a while.
    pub fn add(&self, dbname: &str) {
        let now = Instant::now();
        let mut databases = self.databases.lock();
        databases.retain(|(name, since)| **name != *dbname && now.duration_since(*since) < LEFT_ALONE);
        databases.push((dbname.into(), now));
    }

    /// Waits until the catalogues of `databases` are not being read, but not for ever. Cancel-safe.
    pub async fn unread(&self, databases: &[Box<str>]) {
        let unread = async {
            loop {
                let read = self.read.notified();
                if self.reading.lock().as_ref().is_none_or(|reading| !databases.contains(reading)) {
                    return;
                }
                read.await;
            }
        };
        // What takes longer fails as it would have.
        let _ = crate::net::timeout(PATIENCE, unread).await;
    }

    /// The catalogue of `dbname` is being read as long as the guard lives; `None`: it is left alone.
    pub(super) fn read(&self, dbname: &str) -> Option<Reading<'_>> {
        *self.reading.lock() = Some(dbname.into());
        let reading = Reading(self);
        // Looked at afterwards: whoever names it now waits for the guard, or is seen here.
        (!self.holds(dbname)).then_some(reading)
    }

    /// Whether `dbname` is left alone now.
    #[must_use]
    pub fn holds(&self, dbname: &str) -> bool {
        let left_alone = |since: &Instant| since.elapsed() < LEFT_ALONE;
        self.databases.lock().iter().any(|(name, since)| **name == *dbname && left_alone(since))
    }
}

/// See [`Vacated::read`].
pub(super) struct Reading<'a>(&'a Vacated);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *self.0.reading.lock() = None;
        self.0.read.notify_waiters();
    }
}
