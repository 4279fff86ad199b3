//! Databases that a statement wants to itself: nobody reads their catalogues meanwhile.
//!
//! Invariant: what was named once is left alone for [`LEFT_ALONE`], and a reading that is under way ends.
//! Deliberately absent: the pools' connections.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// PostgreSQL waits so long for the other connections to a database to end (`CountOtherDBBackends` in `procarray.c`).
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// The databases, by their names on the servers.
#[derive(Debug, Default)]
pub struct Vacated {
    /// At most one entry for each.
    databases: Mutex<Vec<(Box<str>, Instant)>>,
    more: Notify,
}

impl Vacated {
    /// Leaves `dbname` alone from now on, for a while.
    pub fn add(&self, dbname: &str) {
        let now = Instant::now();
        {
            let mut databases = self.databases.lock();
            databases.retain(|(name, since)| **name != *dbname && now.duration_since(*since) < LEFT_ALONE);
            databases.push((dbname.into(), now));
        }
        self.more.notify_waiters();
    }

    /// Whether `dbname` is left alone now.
    pub(super) fn holds(&self, dbname: &str) -> bool {
        let left_alone = |since: &Instant| since.elapsed() < LEFT_ALONE;
        self.databases.lock().iter().any(|(name, since)| **name == *dbname && left_alone(since))
    }

    /// Waits until `dbname` is to be left alone. Cancel-safe.
    pub(super) async fn wait(&self, dbname: &str) {
        loop {
            let more = self.more.notified();
            if self.holds(dbname) {
                return;
            }
            more.await;
        }
    }
}
