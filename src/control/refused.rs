//! Statements that look like reads and that a replica has refused because they write (SQLSTATE 25006, DESIGN 4.7): they go to the
//! primary at once, until it is tried again.
//!
//! Invariant: at most [`LIMIT`] statements, each for [`KEPT`]; where there are more, the oldest is forgotten. Nothing else that a
//! replica answers teaches: what it lacks or cancels now it may do a moment later.
//!
//! Deliberately absent: the second run (`gateway::rerun`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// Statements of one database and user.
const LIMIT: usize = 1024;

/// Functions are replaced, and a statement may have read only since.
const KEPT: Duration = Duration::from_secs(600);

/// By the fingerprints of their shapes.
#[derive(Debug, Default)]
pub struct Refused {
    count: AtomicUsize,
    since: Mutex<HashMap<u128, Instant, RandomState>>,
}

impl Refused {
    /// A replica has refused one.
    pub fn add(&self, fingerprint: u128, now: Instant) {
        let mut since = self.since.lock();
        if since.len() >= LIMIT && !since.contains_key(&fingerprint) {
            let oldest = since.iter().min_by_key(|(_, since)| **since).map(|(fingerprint, _)| *fingerprint);
            since.remove(&oldest.unwrap_or_default());
        }
        since.insert(fingerprint, now);
        self.count.store(since.len(), Ordering::Release);
    }

    /// Whether there are any.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether a replica has refused this one a while ago.
    #[must_use]
    pub fn holds(&self, fingerprint: u128, now: Instant) -> bool {
        let mut since = self.since.lock();
        let Some(at) = since.get(&fingerprint) else { return false };
        if now.saturating_duration_since(*at) < KEPT {
            return true;
        }
        since.remove(&fingerprint);
        self.count.store(since.len(), Ordering::Release);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_known_for_a_while() {
        let (refused, start) = (Refused::default(), Instant::now());
        assert!(!refused.any() && !refused.holds(1, start));
        refused.add(1, start);
        assert!(refused.any() && refused.holds(1, start + KEPT / 2) && !refused.holds(2, start));
        assert!(!refused.holds(1, start + KEPT));
        assert!(!refused.any());
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let (refused, start) = (Refused::default(), Instant::now());
        for n in 0..=LIMIT {
            refused.add(n as u128, start + Duration::from_millis(n as u64));
        }
        assert!(!refused.holds(0, start) && refused.holds(1, start) && refused.holds(LIMIT as u128, start));
    }
}
