//! What a driver's pool sends when a connection comes back to it, where there is nothing to reset.
//!
//! Invariant: a text is answered here only while all that it would reset is known to be as it was at log-in.
//! Deliberately absent: DISCARD ALL, which forgets sequence values, too: they are on the server that the session used last.

use super::{Pins, Session};
use crate::sql::Effects;
use crate::wire::TransactionStatus;
use crate::wire::backend;

/// asyncpg's, of `Connection.get_reset_query`.
const ASYNCPG: &[u8] = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
/// `void`, which is shown as an empty string.
const VOID: u32 = 2278;

impl Session {
    /// Whether a Query's text resets a session in which nothing was changed. Its servers were left clean, so that they need not
    /// be asked for a connection, for the answer, and for the settings afterwards.
    pub(super) fn resets_nothing(&self, text: &[u8]) -> bool {
        text == ASYNCPG
            && self.status == TransactionStatus::Idle
            && !self.deferred.active()
            && self.pins == Pins::default()
            && self.effects == Effects::NONE
            && self.touched.is_empty()
            && self.elsewhere.is_empty()
            && self.channels.as_ref().is_some_and(Vec::is_empty)
            && self.settings == self.baseline
    }

    /// The answer to a text of which [`Session::resets_nothing`] said so, but for the ReadyForQuery.
    pub(super) fn reset_nothing(&mut self) {
        backend::write_column(&mut self.output, "pg_advisory_unlock_all", VOID, 4);
        backend::write_value(&mut self.output, b"");
        for tag in ["SELECT 1", "CLOSE CURSOR ALL", "UNLISTEN", "RESET"] {
            backend::write_complete(&mut self.output, tag);
        }
    }
}
