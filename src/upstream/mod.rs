//! The server's side of the protocol as a machine: what was sent, what must come back, what the server remembers.
//!
//! Invariant: every message that the server answers has one entry in the queue of expected answers, in order; what the
//! client did not ask for is hidden, what the gateway answered in the server's place appears where it belongs. A
//! connection whose queue and answers disagree is broken and never lent again.
//!
//! Deliberately absent: sockets, clocks, the choice of a server, rows (they pass by their headers).
//!
//! Source: PostgreSQL documentation, "Message Flow"; `PostgresMain` in `src/backend/tcop/postgres.c` for what is skipped
//! after an error and for what a server in COPY FROM STDIN ignores.

mod amended;
mod deliver;
mod expected;
mod login;
mod notifiers;
mod own_names;
mod placeholders;
mod plans;
mod prepared;
mod private;
mod sequences;
mod settings;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;

use crate::wire::startup::CancelKey;
use crate::wire::{TransactionStatus, frontend};

pub use amended::Amended;
pub use deliver::Receiver;
pub use expected::{Expected, Replaced, Show};
pub use login::{Login, LoginError, LoginStep};
pub use notifiers::Notifiers;
pub use placeholders::leaves_name;
pub use plans::Plans;
use prepared::DOUBTED;
pub use prepared::{
    Prepared, PreparedSet, Reading, Registry, Scope, StatementId, Within, finds_names, has_constants, makes_constants,
    read_under,
};
pub use private::{Answer, Column, Private};
pub use sequences::Sequences;
pub use settings::{Interner, Parameters, Settings, literal, value_sql};

/// Why a server connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are not the protocol.
    #[error("the server sent a malformed message: {0}")]
    Malformed(#[from] crate::wire::Malformed),
    /// An answer to a question that was not asked.
    #[error("the server sent message {got:?} where {expected} was expected")]
    Unexpected {
        /// The message's tag.
        got: char,
        /// What stood at the front of the queue.
        expected: &'static str,
    },
    /// A message that must be read whole is too large.
    #[error("the server sent a message {tag:?} of {len} bytes, more than a gateway holds")]
    TooLarge {
        /// The message's tag.
        tag: char,
        /// Its length in bytes.
        len: usize,
    },
}

/// An error that the gateway puts in the place of the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// ERROR or FATAL.
    pub severity: &'static str,
    /// Five characters.
    pub sqlstate: String,
    /// One line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The server's function that says so; drivers know some errors by it, whatever the language of the message.
    pub routine: Option<String>,
    /// A server's ErrorResponse, which says all that and more.
    pub verbatim: Option<Box<BytesMut>>,
}

impl ErrorReply {
    /// An ERROR.
    pub fn error(sqlstate: impl Into<String>, message: impl Into<String>) -> Self {
        let (sqlstate, message) = (sqlstate.into(), message.into());
        Self { severity: "ERROR", sqlstate, message, hint: None, routine: None, verbatim: None }
    }

    /// A FATAL: the connection ends after it.
    pub fn fatal(sqlstate: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: "FATAL", ..Self::error(sqlstate, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the server's function that says so.
    #[must_use]
    pub fn routine(mut self, routine: impl Into<String>) -> Self {
        self.routine = Some(routine.into());
        self
    }

    /// Appends the ErrorResponse.
    pub fn write(&self, out: &mut BytesMut) {
        if let Some(frame) = &self.verbatim {
            out.extend_from_slice(frame);
            return;
        }
        let more = [(b'H', self.hint.as_deref()), (b'R', self.routine.as_deref())];
        crate::wire::backend::write_error(out, b'E', self.severity, &self.sqlstate, &self.message, &more);
    }
}

/// Which way COPY data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copy {
    /// No COPY.
    #[default]
    None,
    /// From the client to the server.
    In,
    /// Both ways: replication.
    Both,
}

/// One logged-in server connection, without its socket.
#[derive(Debug)]
pub struct Upstream {
    /// Bytes received and not yet delivered.
    pub input: BytesMut,
    /// Bytes to send.
    pub output: BytesMut,
    /// What the server holds prepared for us.
    pub prepared: PreparedSet,
    /// The session settings applied on it; `None`: not known, all must be reset first.
    pub settings: Option<Arc<Settings>>,
    /// What ParameterStatus last said.
    pub parameters: Arc<Parameters>,
    /// What cancels it.
    pub key: CancelKey,
    /// NotificationResponse messages that came during exchanges of the gateway's own: they are the client's.
    pub overheard: BytesMut,
    /// Whose values `currval` tells here.
    pub sequences: Sequences,
    /// What the plans in the process were made of.
    pub plans: Plans,
    /// Its process keeps what nobody but the session that has it may meet: it is closed when that lets go.
    pub spoiled: bool,
    /// Whose notifications come from where on this server's node, and this connection's own entry there.
    notifiers: Option<(Arc<Notifiers>, Arc<AtomicU32>)>,
    expected: VecDeque<Expected>,
    /// Entries of `expected` that end with ReadyForQuery.
    unready: usize,
    /// Counts what ends with one: messages sent under the same number are skipped together.
    group: u64,
    status: TransactionStatus,
    /// Bytes of the current frame that pass without being looked at.
    passing: usize,
    /// An error came; the server ignores everything up to the next Sync.
    skipping: bool,
    copy: Copy,
    /// A FATAL came, or the protocol was violated.
    broken: bool,
    fatal: Option<Box<crate::wire::ErrorFields>>,
    /// What the unnamed statement is, and the group in which its Parse was sent (`None`: it was answered).
    unnamed: Option<(StatementId, Option<u64>)>,
    /// Names that a client's own Parse left on the server; closed before its next use.
    litter: Vec<Box<[u8]>>,
    /// What a statement returns has changed: there was DDL that nobody knew of.
    outdated: bool,
}

impl Upstream {
    /// A connection that has just said ReadyForQuery for the first time.
    #[must_use]
    pub fn new(parameters: Arc<Parameters>, key: CancelKey, prepared_limit: usize, settings: Arc<Settings>) -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            prepared: PreparedSet::new(prepared_limit),
            plans: Plans::none(Arc::clone(&settings)),
            settings: Some(settings),
            spoiled: false,
            parameters,
            key,
            overheard: BytesMut::new(),
            sequences: Sequences::NONE,
            notifiers: None,
            expected: VecDeque::new(),
            unready: 0,
            group: 0,
            status: TransactionStatus::Idle,
            passing: 0,
            skipping: false,
            copy: Copy::None,
            broken: false,
            fatal: None,
            unnamed: None,
            litter: Vec::new(),
            outdated: false,
        }
    }

    /// Makes this connection's process known to those who hear of its notifications.
    pub fn enroll(&mut self, notifiers: &Arc<Notifiers>) {
        self.notifiers = Some((Arc::clone(notifiers), notifiers.enroll(self.key.pid)));
    }

    /// What is sent from now on may notify, for a client that was told this process id.
    pub fn notifies_as(&self, process: u32) {
        if let Some((_, own)) = &self.notifiers {
            own.store(process, Ordering::Relaxed);
        }
    }

    /// The transaction status of the last ReadyForQuery.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// ReadyForQuery messages still to come.
    #[must_use]
    pub fn unready(&self) -> usize {
        self.unready
    }

    /// Whether all that was sent has been answered.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.expected.is_empty() && self.passing == 0 && !self.skipping && self.output.is_empty()
    }

    /// Whether the server is between two transactions, has answered all, and stands at a frame's edge: only then may
    /// it be lent to somebody else.
    #[must_use]
    pub fn idle(&self) -> bool {
        !self.broken && self.quiet() && self.status == TransactionStatus::Idle && self.input.is_empty()
    }

    /// Whether the connection must be closed.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Marks the connection as one that must be closed.
    pub fn mark_broken(&mut self) {
        self.broken = true;
    }

    /// Whether the bytes delivered so far end between two messages.
    #[must_use]
    pub fn at_frame_edge(&self) -> bool {
        self.passing == 0
    }

    /// Which way COPY data flows now.
    #[must_use]
    pub fn copy(&self) -> Copy {
        self.copy
    }

    /// CopyDone or CopyFail was sent.
    pub fn copy_ended(&mut self) {
        self.copy = Copy::None;
    }

    /// Whether a message that is sent now surely finds a statement under its name of ours; `None`: the server lacks it.
    pub fn holds(&mut self, id: StatementId) -> Option<bool> {
        self.prepared.sure(id, self.group)
    }

    /// Notes once more what the messages in flight, but for the first `skip`, do to the server's set.
    fn replay(&mut self, skip: usize) {
        for expected in self.expected.iter().skip(skip) {
            match expected {
                Expected::Parse { statement: Some(statement), unnamed: false, .. } => {
                    self.prepared.insert(statement.id, DOUBTED);
                }
                Expected::Close { statement: Some(id), .. } => self.prepared.remove(*id),
                _ => {}
            }
        }
    }

    /// Whether a message that is sent now surely finds a statement as the unnamed one.
    #[must_use]
    pub fn holds_unnamed(&self, id: StatementId) -> bool {
        self.unnamed.is_some_and(|(held, sent_in)| held == id && sent_in.is_none_or(|sent_in| sent_in == self.group))
    }

    /// Messages sent and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.expected.len()
    }

    /// Lets the server forget a statement that has a name of ours.
    pub fn close<R: Receiver>(&mut self, id: StatementId, to: &mut R) {
        frontend::write_target(&mut self.output, b'C', b'S', &id.name());
        self.expect(Expected::Close { statement: Some(id), show: Show::Hide }, to);
    }

    /// Names to be closed before anything else is sent; empties the list.
    pub fn take_litter(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.litter)
    }

    /// Notes a name that must be closed before the next use.
    pub fn add_litter(&mut self, name: Box<[u8]>) {
        self.litter.push(name);
    }

    /// A simple query goes behind what is in flight: it drops the client's unnamed statement whatever becomes of the rest.
    pub fn unnamed_dropped(&mut self) {
        for expected in &mut self.expected {
            match expected {
                Expected::Parse { unnamed: true, replaced, .. } => *replaced = Replaced::Nothing,
                Expected::Local { tag: b'3', client_name, statement } if client_name.is_empty() => *statement = None,
                _ => {}
            }
        }
    }

    /// There was DDL that did not come through here.
    pub fn mark_outdated(&mut self) {
        self.outdated = true;
    }

    /// Whether an answer told of DDL that did not come through here; told once.
    pub fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// What the server knows as the unnamed statement is no longer what was sent for a session.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// Notes the answer that a message just put into `output` will bring.
    pub fn expect<R: Receiver>(&mut self, expected: Expected, to: &mut R) {
        match &expected {
            Expected::Sync if self.copy == Copy::In => {
                // It had to wait, and meanwhile the COPY began that ignores it.
                to.group_reopened();
                return;
            }
            expected if expected.readies() => {
                self.unready += 1;
                self.group += 1;
            }
            Expected::Parse { statement: Some(statement), unnamed, .. } => {
                if *unnamed {
                    self.unnamed = Some((statement.id, Some(self.group)));
                } else {
                    self.prepared.insert(statement.id, self.group);
                }
            }
            Expected::Close { statement: Some(id), .. } => self.prepared.remove(*id),
            _ => {}
        }
        if expected.readies() && !matches!(expected, Expected::Sync | Expected::Function) {
            // exec_simple_query drops the unnamed statement.
            self.unnamed = None;
        }
        if self.skipping && matches!(expected, Expected::Sync) {
            // All that stands in the queue was sent after the error. What is sent from now on is looked at again.
            while let Some(skipped) = self.expected.pop_back() {
                self.unready -= usize::from(skipped.readies());
                self.undo(skipped, to);
            }
            self.skipping = false;
        }
        self.expected.push_back(expected);
    }

    /// Puts out the answers that wait for nothing from the server.
    pub fn settle<R: Receiver>(&mut self, to: &mut R) {
        if self.passing == 0 && self.input.is_empty() {
            self.local_answers(to);
        }
    }

    /// The connection is lost: what was not answered did not happen, as far as the session's names go.
    pub fn abandon<R: Receiver>(&mut self, to: &mut R) {
        self.broken = true;
        self.unready = 0;
        to.look_again();
        while let Some(expected) = self.expected.pop_back() {
            self.undo(expected, to);
        }
    }

    /// The FATAL that the server ended the connection with; the receiver has not seen it.
    #[must_use]
    pub fn fatal(&self) -> Option<&crate::wire::ErrorFields> {
        self.fatal.as_deref()
    }

    /// An unnamed statement (`None`: a long one) was not made: the next that the client sent behind it replaces what it would
    /// have replaced. Returns whether there is a next.
    fn never_was(&mut self, statement: Option<StatementId>, before: &Replaced) -> bool {
        let next = self.expected.iter_mut().find_map(|expected| match expected {
            // A hidden Parse, which makes no statement of the client's, has a statement and no name.
            Expected::Parse { unnamed: true, statement, client_name, replaced, .. }
                if statement.is_none() || client_name.is_some() =>
            {
                Some(replaced)
            }
            _ => None,
        });
        let Some(replaced) = next else { return false };
        let was_it = match replaced {
            Replaced::Nothing => false,
            Replaced::Statement(replaced) => statement == Some(replaced.id),
            Replaced::Long => statement.is_none(),
        };
        if was_it {
            *replaced = before.clone();
        }
        true
    }

    /// What a message that the server ignored must not be believed to have done. The last message comes first, so that each
    /// finds the state that it left.
    fn undo<R: Receiver>(&mut self, expected: Expected, to: &mut R) {
        match expected {
            Expected::Parse { statement: Some(statement), client_name, unnamed, replaced, .. } => {
                if unnamed {
                    self.unnamed = None;
                    if client_name.is_some() {
                        self.never_was(Some(statement.id), &replaced);
                    }
                } else {
                    self.prepared.remove(statement.id);
                }
                if let Some(name) = client_name.filter(|name| to.parse_failed(name, statement.id)) {
                    replaced.restore(&name, to);
                }
            }
            Expected::Parse { unnamed: true, replaced, .. } => {
                if !self.never_was(None, &replaced) {
                    to.long_parse_failed();
                    replaced.restore(b"", to);
                }
            }
            Expected::Close { statement: Some(id), .. } => self.prepared.insert(id, DOUBTED),
            Expected::Local { tag: b'1', client_name, statement: Some(statement) } => {
                to.parse_failed(&client_name, statement.id);
            }
            Expected::Local { client_name, statement: Some(statement), .. }
            | Expected::Deallocation(client_name, statement) => {
                to.close_skipped(&client_name, &statement);
            }
            Expected::DeallocationAll(gone) => {
                for (client_name, statement) in &gone {
                    to.close_skipped(client_name, statement);
                }
            }
            _ => {}
        }
    }
}
