//! The unit that was sent last, as it is sent once more elsewhere.
//!
//! Invariant: a unit is repeated from the client's own bytes, as if they had just come.
//! Deliberately absent: whether it should be (`gateway`).

use bytes::BytesMut;

use super::{Session, What};
use crate::sql::Statement;
use crate::upstream::Receiver as _;
use crate::wire::frame::frontend_header;
use crate::wire::frontend;

impl Session {
    /// The bytes of the unit at hand, if they are whole, no more than `limit`, and nothing but statements that are `allowed`.
    #[must_use]
    pub fn repeatable(&self, limit: usize, allowed: fn(&Statement) -> bool) -> Option<&[u8]> {
        let unit = &self.unit;
        if !unit.closed || !unit.opens || self.cursor > limit || self.deferred.active() {
            return None;
        }
        let plain = unit.ops.iter().all(|op| {
            let shape = match &op.what {
                What::Query(analysis) => &analysis.shape,
                // Under a name that was taken before: it would be free the second time.
                What::Parse { duplicate: true, .. } => return false,
                What::Parse { statement, .. } => &statement.analysis.shape,
                What::Bind { statement: Some(statement), .. }
                | What::DescribeStatement { statement: Some(statement) } => &statement.analysis.shape,
                What::DescribePortal | What::Execute | What::ClosePortal | What::Sync => return true,
                _ => return false,
            };
            shape.statements.iter().all(allowed)
        });
        plain.then(|| &self.input[..self.cursor])
    }

    /// Takes back a unit that was sent, is no longer in flight, and of which the client has seen nothing.
    pub fn repeat(&mut self, mut unit: BytesMut) {
        // What was looked at behind it.
        self.look_again();
        let mut at = 0;
        while let Ok(Some(header)) = frontend_header(&unit[at..]) {
            let end = unit.len().min(at + header.len);
            if header.tag == b'P'
                && let Ok(parse) = frontend::parse(&unit[at..end])
            {
                self.statements.remove(parse.name);
            }
            at = end;
        }
        unit.extend_from_slice(&self.input);
        self.input = unit;
        self.barrier = false;
        self.group_failed = false;
    }
}
