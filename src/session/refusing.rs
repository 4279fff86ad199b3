//! What is refused on a server that the session holds, and what becomes of messages that are never sent.
//!
//! Invariant: the transaction fails on the server where it fails for the client. What a message that is not sent would have declared
//! does not exist afterwards; what it would have closed does.
//!
//! Deliberately absent: why (`gateway`), and what is known to be refused further behind ([`super::foreseen`]).

use std::sync::Arc;

use bytes::Buf as _;

use super::{Op, Session, Unit, What};
use crate::upstream::{ErrorReply, Expected, Receiver as _, Replaced, Show, Upstream};
use crate::wire::frontend;

/// A text that no server accepts: it makes the server itself fail the transaction that the gateway refuses to go on with.
const REFUSED: &[u8] = b"pointsman refused this statement";

impl Session {
    /// Refuses the unit on the server that is held, so that the transaction fails there as it fails for the client.
    pub fn refuse_on(&mut self, up: &mut Upstream, reply: ErrorReply) {
        if self.in_group
            && let [Op { what, .. }] = self.unit.ops.as_slice()
            && what.ends_with_ready()
        {
            return self.refuse_end_on(up, reply);
        }
        self.drop_unit_statements(true);
        let closed = self.pass_over_unit().ends_when_refused();
        self.refuse_parse(up, reply);
        if closed {
            frontend::write_sync(&mut up.output);
            up.expect(Expected::Sync, self);
        } else {
            frontend::frame(&mut up.output, b'H', |_| {});
        }
        self.in_group = !closed;
    }

    /// The same for a Query that ends a group. Another Query stands for it, which is skipped as it would be if the group
    /// before it fails.
    fn refuse_end_on(&mut self, up: &mut Upstream, reply: ErrorReply) {
        let unit = self.pass_over_unit();
        for Op { what, .. } in &unit.ops {
            self.ends_group(up, what);
        }
        self.refuse_query(up, reply);
        self.in_group = false;
    }

    pub(super) fn refuse_query(&mut self, up: &mut Upstream, reply: ErrorReply) {
        frontend::write_query(&mut up.output, REFUSED);
        up.expect(Expected::Refused(Box::new(reply)), self);
    }

    /// A Query or FunctionCall ends the group that is open: it is skipped if that fails, and nobody looks further before it
    /// is known.
    pub(super) fn ends_group(&mut self, up: &mut Upstream, what: &What) {
        self.barrier = true;
        if !matches!(what, What::Function) {
            let statement = self.unnamed.take();
            up.expect(Expected::Local { tag: 0, client_name: [].into(), statement }, self);
        }
    }

    /// Takes the unit and its bytes away, those that are still to come included.
    pub(super) fn pass_over_unit(&mut self) -> Unit {
        let held = self.cursor;
        let unit = self.take_unit();
        self.input.advance(held);
        self.ignoring = unit.ops.last().map_or(0, |op| op.rest);
        self.said = None;
        unit
    }

    /// Makes the server refuse a statement in its place in the pipeline; the client sees `reply`.
    pub(super) fn refuse_parse(&mut self, up: &mut Upstream, reply: ErrorReply) {
        // Under a name, which is not taken when the Parse fails: the unnamed statement stays what it is.
        frontend::write_parse(&mut up.output, b"pointsman", REFUSED, &[0, 0]);
        up.expect(Expected::stray_parse(Show::Replace(Box::new(reply))), self);
    }

    /// The unit is not sent: the statements that it declared do not exist, those that it closed do. `refused`: it never
    /// will be, and its first message is the one that is answered with the error.
    pub(super) fn drop_unit_statements(&mut self, refused: bool) {
        let (ops, input) = (std::mem::take(&mut self.unit.ops), std::mem::take(&mut self.input));
        self.take_back(&ops, &input[..self.cursor], refused);
        (self.unit.ops, self.input) = (ops, input);
    }

    /// The same for messages whose bytes are `bytes`.
    pub(super) fn take_back(&mut self, ops: &[Op], bytes: &[u8], refused: bool) {
        let mut end = ops.iter().map(|op| op.len).sum();
        for (i, Op { len, what, .. }) in ops.iter().enumerate().rev() {
            let frame = &bytes[end - len..end];
            end -= len;
            match what {
                What::Parse { named: false, replaced, .. } => {
                    let failed = i == 0 && refused;
                    self.pins.large_unnamed &= !failed;
                    self.unnamed = match replaced {
                        Replaced::Statement(statement) if !failed => Some(Arc::clone(statement)),
                        _ => None,
                    };
                }
                What::Parse { duplicate: false, .. } => {
                    if let Ok(parse) = frontend::parse(frame) {
                        self.statements.remove(parse.name);
                    }
                }
                What::CloseStatement { held: Some(statement) } => {
                    if let Ok(target) = frontend::target(frame) {
                        self.close_skipped(target.name, statement);
                    }
                }
                What::Deallocate { name, statement } => self.close_skipped(name, statement),
                What::DeallocateAll(gone) => {
                    for (name, statement) in gone {
                        self.close_skipped(name, statement);
                    }
                }
                What::Query(_) | What::LongQuery if refused && i == 0 => self.drop_unnamed(),
                _ => {}
            }
        }
    }

    /// What a simple query does first.
    pub(super) fn drop_unnamed(&mut self) {
        self.unnamed = None;
        self.pins.large_unnamed = false;
    }
}
