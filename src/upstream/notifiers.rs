//! Who notifies: which client used a server's process last for something that may have notified.
//!
//! Invariant: only processes of connections that are open now are known, so that a number that a server gives again is
//! not taken for its old owner.
//!
//! Approximate: a notification says which process sent it, not when. If that process works for another client before the
//! notification is heard, it is taken for that client's; if its connection is closed by then, for nobody's.
//! Deliberately absent: what notifies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The processes of one node.
#[derive(Debug, Default)]
pub struct Notifiers(Mutex<HashMap<u32, Weak<AtomicU32>>>);

impl Notifiers {
    /// Makes a process known; what is stored in the cell is the process id that its last client was told, 0 for none.
    pub(super) fn enroll(&self, process: u32) -> Arc<AtomicU32> {
        let cell = Arc::new(AtomicU32::new(0));
        let mut known = self.0.lock();
        known.retain(|_, cell| cell.strong_count() > 0);
        known.insert(process, Arc::downgrade(&cell));
        cell
    }

    /// The process id that the client behind a process was told, if it is known.
    #[must_use]
    pub fn client(&self, process: u32) -> Option<u32> {
        let cell = self.0.lock().get(&process)?.upgrade()?;
        Some(cell.load(Ordering::Relaxed)).filter(|client| *client != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_last_clients_while_its_connection_is_open() {
        let notifiers = Notifiers::default();
        let cell = notifiers.enroll(7);
        assert_eq!(notifiers.client(7), None);
        cell.store(70, Ordering::Relaxed);
        assert_eq!((notifiers.client(7), notifiers.client(8)), (Some(70), None));
        drop(cell);
        assert_eq!(notifiers.client(7), None);
        let _again = notifiers.enroll(7);
        assert_eq!(notifiers.client(7), None);
    }
}
