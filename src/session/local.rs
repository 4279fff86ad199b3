//! Units that need no server: the gateway answers them as a server would.
//!
//! Invariant: a unit is answered here only when every message in it is, and the answer is the one that a server gives.
//! Deliberately absent: anything that could fail on a server for a reason that is not known here.

use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::deferred::Step;
use super::executed::deallocated_name;
use super::{Op, Session, What, text_context};
use crate::sql::{Analysis, Shape};
use crate::upstream::{ErrorReply, Interner, Parameters, Prepared};
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::{TransactionStatus, backend, frontend};

/// Whether a unit was answered without a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalAnswer {
    /// Its answer is in the output.
    Answered,
    /// A server must answer it.
    NeedsServer,
}

/// How one statement is answered.
#[derive(Debug, Clone, Copy)]
enum Run {
    Transaction(Step),
    /// DEALLOCATE of a statement that was prepared through the protocol.
    Deallocate,
}

impl Session {
    /// Answers the unit if that needs no server. Call it only while no server is held.
    pub fn answer_locally(&mut self) -> LocalAnswer {
        if !self.unit.ends_when_refused() || self.in_group || !self.runs_locally() {
            return LocalAnswer::NeedsServer;
        }
        let held = self.cursor;
        let unit = self.take_unit();
        let bytes = self.input.split_to(held);
        let mut at = 0;
        let mut failed = false;
        let mut portal: Option<&Arc<Prepared>> = None;
        for (i, Op { len, what, .. }) in unit.ops.iter().enumerate() {
            let start = at;
            at += len;
            let frame = &bytes[start..at];
            if failed && !matches!(what, What::Sync) {
                continue;
            }
            match what {
                What::Query(analysis) => {
                    self.unnamed = None;
                    let text = frontend::query(frame).unwrap_or_default();
                    if self.resets_nothing(text) {
                        self.reset_nothing();
                    } else {
                        self.run(analysis, text);
                    }
                    self.ready();
                }
                // In a failed transaction everything but its end is refused as soon as it is read.
                What::Parse { statement, .. } if self.refused(&statement.analysis.shape) => {
                    failed = true;
                    aborted().write(&mut self.output);
                    self.take_back(&unit.ops[i..], &bytes[start..], true);
                }
                What::Parse { .. } => backend::write_bare(&mut self.output, b'1'),
                What::Bind { statement: Some(statement), .. } if self.refused(&statement.analysis.shape) => {
                    failed = true;
                    aborted().write(&mut self.output);
                    self.take_back(&unit.ops[i..], &bytes[start..], false);
                }
                What::Bind { statement, .. } => {
                    portal = statement.as_ref();
                    backend::write_bare(&mut self.output, b'2');
                }
                What::DescribeStatement { .. } => {
                    self.output.put_slice(b"t\0\0\0\x06\0\0");
                    backend::write_bare(&mut self.output, b'n');
                }
                What::DescribePortal => backend::write_bare(&mut self.output, b'n'),
                What::Execute => {
                    if let Some(statement) = portal
                        && !self.run(&statement.analysis, &statement.text)
                    {
                        failed = true;
                        self.take_back(&unit.ops[i..], &bytes[start..], false);
                    }
                }
                What::Deallocate { .. } => backend::write_complete(&mut self.output, "DEALLOCATE"),
                What::CloseStatement { .. } | What::ClosePortal => backend::write_bare(&mut self.output, b'3'),
                What::Sync => self.ready(),
                _ => {}
            }
        }
        LocalAnswer::Answered
    }

    /// Refuses the unit in the name of a server that is held: it refused what had to come before.
    pub fn refuse_as(&mut self, reply: &ErrorReply, status: TransactionStatus) {
        let closed = self.unit.ends_when_refused();
        let at = self.output.len();
        self.refuse(reply);
        if closed {
            // `refuse` ended with a ReadyForQuery of its own.
            let end = self.output.len();
            debug_assert!(end > at, "a refusal is never empty");
            self.output[end - 1] = status.byte();
            self.status = status;
        }
    }

    /// Sets the Query or FunctionCall apart that ends an extended group in place of a Sync, as if a Flush stood before it: the unit
    /// is what stands before it now. For one that is to be refused: which of the two is decided anew, and one that ends a group has
    /// a ReadyForQuery of its own. Returns whether there was any.
    pub fn set_end_apart(&mut self) -> bool {
        let apart =
            self.unit.ops.len() > 1 && self.unit.ops.last().is_some_and(|op| op.rest == 0 && op.what.ends_with_ready());
        let Some(end) = self.unit.ops.pop_if(|_| apart) else { return false };
        self.cursor -= end.len;
        let behind = self.input.split_off(self.cursor);
        frontend::frame(&mut self.input, b'H', |_| {});
        self.unit.ops.push(Op { len: self.input.len() - self.cursor, rest: 0, what: What::Flush });
        self.cursor = self.input.len();
        self.input.unsplit(behind);
        self.unit.closed = false;
        true
    }

    /// Refuses the unit while no server is held.
    pub fn refuse(&mut self, reply: &ErrorReply) {
        self.drop_unit_statements(true);
        let held = self.cursor;
        let unit = self.take_unit();
        self.ignoring += unit.ops.last().map_or(0, |op| op.rest);
        self.input.advance(held);
        reply.write(&mut self.output);
        self.last_error = reply.sqlstate.as_bytes().try_into().ok();
        if self.deferred.active() {
            self.deferred.fail();
        }
        if unit.ends_when_refused() {
            self.ready();
        } else {
            self.skip_to_sync = true;
        }
    }

    /// The server is lost: what it still owed is answered here, the session goes on without it. `unready` is the number of
    /// ReadyForQuery messages it owed. Only for a session outside a transaction block whose answer ended between two messages.
    pub fn lose_server(&mut self, reply: &ErrorReply, unready: usize) {
        self.last_error = reply.sqlstate.as_bytes().try_into().ok();
        self.status = TransactionStatus::Idle;
        // Each group in flight fails by itself; a client that counts answers finds one for each.
        for _ in 0..unready {
            reply.write(&mut self.output);
            backend::write_ready(&mut self.output, self.status);
        }
        self.ignoring = std::mem::take(&mut self.streaming);
        self.pins = super::Pins::default();
        self.group_failed = false;
        self.barrier = false;
        if std::mem::take(&mut self.in_group) {
            // What was read of the group that is open belongs to it: it must not run elsewhere by itself.
            self.refuse(reply);
        }
    }

    /// Brings what the client was told of settings up to what `parameters` says.
    /// Both share one allocation of `interner`'s afterwards, so that the next comparison is one of pointers.
    pub fn report(&mut self, parameters: &mut Arc<Parameters>, interner: &Interner<Parameters>) {
        if Arc::ptr_eq(&self.reported, parameters) {
            return;
        }
        for (name, value) in parameters.iter() {
            if self.reported.value(name) != Some(value) {
                backend::write_parameter_status(&mut self.output, name, value);
            }
        }
        *parameters = interner.intern((**parameters).clone());
        self.reported = Arc::clone(parameters);
        self.context = text_context(&self.reported);
    }

    /// ReadyForQuery with the status of a session that holds no server.
    fn ready(&mut self) {
        self.status = match (self.deferred.active(), self.deferred.failed()) {
            (false, _) => TransactionStatus::Idle,
            (true, false) => TransactionStatus::Active,
            (true, true) => TransactionStatus::Failed,
        };
        backend::write_ready(&mut self.output, self.status);
    }

    fn runs_locally(&self) -> bool {
        let mut portals = 0;
        let mut executed = 0;
        // The portal bound last: a local answer is about it and no other.
        let mut portal: Option<&[u8]> = None;
        let mut at = 0;
        let mut transaction_steps = 0;
        for op in &self.unit.ops {
            let frame = &self.input[at..at + op.len];
            at += op.len;
            if let What::Parse { statement, .. } | What::Bind { statement: Some(statement), .. } = &op.what
                && transaction_steps == 0
                && self.refused(&statement.analysis.shape)
            {
                // What follows is ignored.
                return true;
            }
            let local = match &op.what {
                What::Query(analysis) => {
                    transaction_steps += 1;
                    let text = frontend::query(frame).unwrap_or_default();
                    self.answer_for(&analysis.shape, text).is_some() || self.resets_nothing(text)
                }
                What::Parse { statement, duplicate, .. } => {
                    // Parsing alone is no step; a server must have said that anything else parses.
                    !duplicate && (self.controls(statement) || statement.is_proven(self.scope, &self.settings))
                }
                What::Bind { statement: Some(statement), .. } => {
                    if !self.controls(statement) {
                        return false;
                    }
                    portals += 1;
                    let bind = frontend::bind(frame).ok();
                    portal = bind.as_ref().map(|bind| bind.portal);
                    // No formats, no values. A portal with a name can be asked for later, on a server.
                    bind.is_some_and(|bind| bind.portal.is_empty() && bind.rest.starts_with(&[0, 0, 0, 0]))
                }
                // A server may describe it or refuse to: that depends on its columns.
                What::DescribeStatement { statement: Some(statement) } => {
                    self.controls(statement) && !self.refused(&statement.analysis.shape)
                }
                What::DescribePortal => {
                    portals > executed && portal == frontend::target(frame).ok().map(|target| target.name)
                }
                What::Execute | What::Deallocate { .. } => {
                    executed += 1;
                    transaction_steps += 1;
                    portals == executed && portal == frame.get(HEADER_LEN..).and_then(cstr).map(|(name, _)| name)
                }
                What::ClosePortal => portals == executed,
                What::CloseStatement { .. } | What::Sync => true,
                _ => false,
            };
            if !local {
                return false;
            }
        }
        // Each step changes what the next one means; one a unit is what drivers send. A portal that is not run here is one
        // that may be run later, on a server.
        transaction_steps <= 1 && portals == executed
    }

    /// Whether a statement is one that [`Session::answer_for`] takes, without parameters.
    fn controls(&self, statement: &Prepared) -> bool {
        self.answer_for(&statement.analysis.shape, &statement.text).is_some() && statement.types.as_ref() == [0, 0]
    }

    /// How a text is answered, if that needs no server.
    fn answer_for(&self, shape: &Shape, text: &[u8]) -> Option<Run> {
        if let Some(step) = self.deferred.step(shape, text.len(), self.shared.limits)
            && !(step == Step::Join("SET") && self.reports(shape))
            && !(matches!(step, Step::Join(_)) && !self.has_characters(text))
        {
            return Some(Run::Transaction(step));
        }
        let name = deallocated_name(shape).filter(|_| self.status != TransactionStatus::Failed)?.as_bytes();
        // It is gone as soon as its Execute is looked at.
        let goes = |op: &Op| matches!(&op.what, What::Deallocate { name: gone, .. } if **gone == *name);
        (self.statements.contains(name) || self.unit.ops.iter().any(goes)).then_some(Run::Deallocate)
    }

    /// Whether the database is known to have all characters of a text.
    fn has_characters(&self, text: &[u8]) -> bool {
        let utf8 = |name: &[u8]| self.reported.value(name) == Some(b"UTF8");
        text.is_ascii() || (utf8(b"client_encoding") && utf8(b"server_encoding"))
    }

    /// Whether a statement sets what a server reports: a client is told the new value together with the answer.
    fn reports(&self, shape: &Shape) -> bool {
        let reported = |name: &str| self.reported.iter().any(|(held, _)| held.eq_ignore_ascii_case(name.as_bytes()));
        shape.statements.iter().flat_map(|statement| &statement.settings).any(|name| reported(name))
    }

    /// Runs a statement that [`Session::answer_for`] takes. Returns whether it succeeded.
    fn run(&mut self, analysis: &Analysis, text: &[u8]) -> bool {
        let Some(run) = self.answer_for(&analysis.shape, text) else { return true };
        let statement = analysis.shape.statements.first();
        match run {
            Run::Deallocate => {
                if let Some(name) = statement.and_then(|statement| statement.object.as_ref()) {
                    self.statements.remove(name.as_bytes());
                }
                backend::write_complete(&mut self.output, "DEALLOCATE");
            }
            Run::Transaction(step) => {
                if let Some(statement) = statement {
                    self.deferred.apply(step, statement, text);
                }
                let tag = match step {
                    Step::Begin if statement.is_some_and(|s| s.transaction.is_some_and(|t| t.start)) => {
                        "START TRANSACTION"
                    }
                    Step::Begin => "BEGIN",
                    Step::Join(tag) | Step::End(tag) => tag,
                    Step::Return => "ROLLBACK",
                    Step::Refuse => {
                        self.deferred.fail();
                        aborted().write(&mut self.output);
                        return false;
                    }
                };
                backend::write_complete(&mut self.output, tag);
            }
        }
        true
    }

    /// Whether a statement of this shape is refused because the transaction has failed.
    fn refused(&self, shape: &Shape) -> bool {
        // Room is no question: what is refused is not held.
        self.deferred.failed() && matches!(self.answer_for(shape, b""), Some(Run::Transaction(Step::Refuse)))
    }
}

/// What PostgreSQL says in a failed transaction (`exec_simple_query` in `postgres.c`).
fn aborted() -> ErrorReply {
    ErrorReply::error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}
