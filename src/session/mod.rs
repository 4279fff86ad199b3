//! The client's side of the protocol as a machine: which messages belong together, what they mean for the session, how
//! they reach a server that other clients use too.
//!
//! Invariant: a unit (a Query, a FunctionCall, or the messages up to a Sync) is looked at once, decided once, and sent to
//! one server whole. What the client may rely on from one unit to the next (settings, prepared statements, transaction
//! status) is held here, never only on a server.
//!
//! Deliberately absent: sockets, clocks, the choice of a server, what a policy says.

mod again;
mod channels;
mod deferred;
mod doubts;
mod executed;
mod foreseen;
mod forward;
mod lacking;
mod local;
mod names;
mod nothing;
mod parts;
mod pull;
mod questions;
mod reading;
mod refusing;
mod restore;
mod starts;
mod state;
mod statements;

use std::sync::Arc;

use bytes::BytesMut;

use crate::sql::{Analysis, Analyzer, Effects, Said, TextContext};
use crate::upstream::{
    ErrorReply, Parameters, Prepared, Reading, Receiver, Registry, Replaced, Scope, Settings, StatementId, Upstream,
};
use crate::wire::{Malformed, TransactionStatus};

pub use channels::channel_sql;
pub use deferred::Deferred;
pub use forward::Forwarded;
pub use local::LocalAnswer;
use names::Names;
pub use parts::{BoundValues, Part};
pub use pull::Pull;
pub use starts::Starts;
pub use state::{Audit, Pins, SETTINGS_LIMIT};
use statements::Statements;

/// Bounds of what one session holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a unit that are held before a decision must be made without the rest.
    pub hold: usize,
    /// Bytes of a Query or Parse that are held whole so that they can be understood; longer ones stream to the primary.
    pub statement: usize,
    /// Prepared statements of one session.
    pub prepared: usize,
    /// Bytes of their names, texts and types; a text that several sessions prepared counts for each. Beyond, a Parse is
    /// refused with 53400.
    pub prepared_bytes: usize,
    /// Transaction control statements that wait for a transaction's first statement.
    pub deferred: usize,
    /// Bytes of their texts. What finds no room begins the transaction on a server.
    pub deferred_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold: 64 << 10,
            statement: 1 << 20,
            prepared: 10_000,
            prepared_bytes: 16 << 20,
            deferred: 64,
            deferred_bytes: 16 << 10,
        }
    }
}

/// What all sessions of a gateway share for reading statements.
#[derive(Debug)]
pub struct Shared {
    /// Understands texts.
    pub analyzer: Analyzer,
    /// Gives prepared statements their identity.
    pub registry: Registry,
    /// The bounds.
    pub limits: Limits,
}

/// One client's session from the first ReadyForQuery on.
#[derive(Debug)]
pub struct Session {
    /// Bytes received and not yet forwarded.
    pub input: BytesMut,
    /// Bytes to send to the client.
    pub output: BytesMut,
    /// Transactions that ended on servers since this was taken last.
    pub transactions: u32,
    /// What was sent since the last settlement advances a sequence, as far as is known: its session may ask for the value next.
    pub advances: bool,
    /// And it may have changed, if only for a while, what plans are made of ([`folds_constants`](crate::sql::folds_constants)).
    pub refolds: bool,
    /// And it may have left in the server's process what others would meet: the name of a setting
    /// ([`leaves_name`](crate::upstream::leaves_name)), functions read otherwise.
    pub leaves_traces: bool,
    /// What the client wants set, on any server.
    pub settings: Arc<Settings>,
    /// What the start-up message set; RESET returns to it.
    pub baseline: Arc<Settings>,
    /// What ParameterStatus told the client last.
    pub reported: Arc<Parameters>,
    /// Why the session must keep its server.
    pub pins: Pins,
    /// Transaction control that waits for the first statement.
    pub deferred: Deferred,
    /// The channels that the server listened to at the last audit, named as values of settings are; `None`: too many to be told.
    pub channels: Option<Vec<Box<[u8]>>>,
    /// Channels that the session hears of from elsewhere than from its server.
    pub elsewhere: Vec<Box<[u8]>>,
    /// The server's process had a temporary schema at the last audit, whatever is left in it.
    pub temporary_schema: bool,
    /// Its server has notified the client since this was cleared last.
    pub notified: bool,
    /// DISCARD ALL has ended all listening since this was cleared last.
    pub discarded: bool,
    /// The transaction at hand may redefine what others run.
    pub redefines: bool,
    /// It holds DDL that others can see once it has ended.
    pub publishes: bool,
    /// It may change what is set for sessions that begin.
    pub alters_starts: bool,
    /// Its role or database has set `default_transaction_isolation` to serializable.
    pub begins_serializable: bool,
    /// Whose servers the session uses, and under which schema: what a Parse may be answered from.
    pub scope: Scope,
    shared: Arc<Shared>,
    statements: Statements,
    unnamed: Option<Arc<Prepared>>,
    /// The unit being read.
    unit: Unit,
    /// Bytes of `input` that belong to `unit`.
    cursor: usize,
    /// Bytes of a frame, the head of which was forwarded, that still go to the server.
    streaming: usize,
    /// The words of what is on its way, if those are not known.
    said: Option<Box<Said>>,
    /// Bytes of a frame that are ignored.
    ignoring: usize,
    /// Messages of an extended group went to a server and its Sync has not.
    in_group: bool,
    /// Nothing of the group that is open is bound or run.
    declared_only: bool,
    /// An error came in the group that is open.
    group_failed: bool,
    /// A statement in flight drops prepared statements: what refers to them waits for its answer.
    barrier: bool,
    /// Names that the open group declares or closes.
    names_open: Names,
    /// Names that groups in flight do: what refers to one must know what became of it.
    names_in_flight: Names,
    /// A portal was bound that may begin COPY FROM STDIN when it is executed.
    binds_copy: bool,
    /// A unit was refused here: messages are ignored up to the next Sync.
    skip_to_sync: bool,
    status: TransactionStatus,
    /// Effects of what was sent since the session was last audited, and the settings' names in it.
    effects: Effects,
    touched: Vec<Box<str>>,
    /// One of them was a RESET of what the start-up message set.
    resets: bool,
    /// Portals of such that were not run yet.
    resetting: Vec<restore::Resetting>,
    /// Portals that deallocate.
    deallocating: Vec<executed::Deallocating>,
    /// Settings that the server at hand does without.
    lacking: Option<Box<lacking::Lacking>>,
    /// Errors seen so far; it wraps.
    errors: u32,
    last_error: Option<[u8; 5]>,
    /// How texts are read under the settings reported last.
    context: TextContext,
}

/// How texts are read under reported settings.
fn text_context(reported: &Parameters) -> TextContext {
    let encoding = reported.value(b"client_encoding").unwrap_or_default();
    TextContext::new(
        reported.value(b"standard_conforming_strings") != Some(b"off"),
        std::str::from_utf8(encoding).unwrap_or_default(),
    )
}

/// What stands between two decisions.
#[derive(Debug, Default)]
pub struct Unit {
    ops: Vec<Op>,
    /// Whether the last message ends it: Query, FunctionCall, Sync.
    pub closed: bool,
    /// Whether the first message of an extended group is in it.
    pub opens: bool,
    /// Its statements were asked about where it was to run: that is not done there twice.
    pub asked: bool,
    /// It wants a decision; what the client sends after it is not looked at before.
    complete: bool,
    foreseen: Option<Box<foreseen::Foreseen>>,
}

/// One message of a unit and what is known of it.
#[derive(Debug)]
struct Op {
    /// Bytes of the frame, or of the part of it that is in `input`.
    len: usize,
    /// Bytes of the frame that are still to come.
    rest: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Query(Analysis),
    /// A Query too long to be held.
    LongQuery,
    Function,
    Parse {
        statement: Arc<Prepared>,
        named: bool,
        duplicate: bool,
        replaced: Replaced,
    },
    /// A Parse under a name, for which the session has no room.
    RefusedParse(Box<ErrorReply>),
    /// A Parse too long to be held, under the client's own name.
    LongParse {
        named: bool,
    },
    Bind {
        statement: Option<Arc<Prepared>>,
        /// Where in its frame the formats and values begin.
        values: u32,
    },
    DescribeStatement {
        statement: Option<Arc<Prepared>>,
    },
    DescribePortal,
    Execute,
    /// An Execute that deallocates what the client prepared through the protocol.
    Deallocate {
        name: Box<[u8]>,
        statement: Arc<Prepared>,
    },
    /// An Execute that drops all statements: those that the client prepared through the protocol.
    DeallocateAll(Vec<(Box<[u8]>, Arc<Prepared>)>),
    CloseStatement {
        held: Option<Arc<Prepared>>,
    },
    ClosePortal,
    Flush,
    Sync,
    CopyData,
    /// CopyDone or CopyFail.
    CopyEnd,
}

impl What {
    /// Whether it is a message with a ReadyForQuery of its own.
    fn ends_with_ready(&self) -> bool {
        matches!(self, Self::Query(_) | Self::LongQuery | Self::Function)
    }
}

impl Session {
    /// A session that was just told it is ready.
    #[must_use]
    pub fn new(shared: Arc<Shared>, baseline: Arc<Settings>, reported: Arc<Parameters>) -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            transactions: 0,
            advances: false,
            refolds: false,
            leaves_traces: false,
            settings: Arc::clone(&baseline),
            pins: Pins { sources: state::reads_sources_otherwise(&baseline), ..Pins::default() },
            baseline,
            context: text_context(&reported),
            reported,
            deferred: Deferred::default(),
            channels: Some(Vec::new()),
            elsewhere: Vec::new(),
            temporary_schema: false,
            notified: false,
            discarded: false,
            redefines: false,
            publishes: false,
            alters_starts: false,
            begins_serializable: false,
            scope: Scope::default(),
            shared,
            statements: Statements::default(),
            unnamed: None,
            unit: Unit::default(),
            cursor: 0,
            streaming: 0,
            said: None,
            ignoring: 0,
            in_group: false,
            declared_only: false,
            group_failed: false,
            barrier: false,
            names_open: Names::default(),
            names_in_flight: Names::default(),
            binds_copy: false,
            skip_to_sync: false,
            status: TransactionStatus::Idle,
            effects: Effects::NONE,
            touched: Vec::new(),
            resets: false,
            resetting: Vec::new(),
            deallocating: Vec::new(),
            lacking: None,
            errors: 0,
            last_error: None,
        }
    }

    /// The transaction status that the client was told last.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether an extended group is open on a server.
    #[must_use]
    pub fn in_group(&self) -> bool {
        self.in_group
    }

    /// Whether the group that is open may go on elsewhere: it stands in no transaction block, nothing of it was bound or run, and
    /// all of it was answered; and nothing keeps the session where it is.
    #[must_use]
    pub fn may_move(&self, up: &Upstream) -> bool {
        self.declares(up) && up.quiet()
    }

    /// Whether that is so but for answers that are still to come.
    #[must_use]
    pub fn awaits_answers(&self, up: &Upstream) -> bool {
        self.declares(up) && !up.quiet()
    }

    fn declares(&self, up: &Upstream) -> bool {
        let declares = self.in_group && self.declared_only && !self.group_failed;
        declares && !self.pins.any() && up.status() == TransactionStatus::Idle
    }

    /// The group that is open goes on elsewhere; the server that had it was sent a Sync of ours.
    pub fn move_group(&mut self) {
        self.in_group = false;
        self.unit.opens = true;
    }

    /// Whether a frame is on its way to the server piece by piece.
    #[must_use]
    pub fn streaming(&self) -> bool {
        self.streaming > 0
    }

    /// The unit that [`Session::pull`] found last.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Errors since the unit began to be answered, and the SQLSTATE of the last.
    #[must_use]
    pub fn last_error(&self) -> Option<[u8; 5]> {
        self.last_error
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn statement(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.statements.get(name) }
    }

    fn malformed(error: Malformed) -> Pull {
        Pull::Violation(error)
    }
}

impl Unit {
    /// Whether something in the unit is not known to the session: it must go to the primary.
    #[must_use]
    pub fn opaque(&self) -> bool {
        self.ops.iter().any(|op| {
            matches!(
                op.what,
                What::LongQuery
                    | What::Function
                    | What::LongParse { .. }
                    | What::Bind { statement: None, .. }
                    | What::DescribeStatement { statement: None }
            )
        })
    }

    /// Whether it is COPY data or the end of it.
    fn is_copy(&self) -> bool {
        matches!(self.ops.first(), Some(Op { what: What::CopyData | What::CopyEnd, .. }))
    }

    /// Whether an error in its first message is followed by ReadyForQuery. A Query behind messages of the extended protocol
    /// is skipped with them, to the Sync that the client must send.
    fn ends_when_refused(&self) -> bool {
        self.closed && (self.ops.len() == 1 || !self.ops.last().is_some_and(|op| op.what.ends_with_ready()))
    }

    /// Whether anything in it is executed, or may be.
    #[must_use]
    pub fn executes(&self) -> bool {
        self.ops.iter().any(|op| {
            matches!(
                op.what,
                What::Query(_)
                    | What::LongQuery
                    | What::Function
                    | What::Execute
                    | What::Deallocate { .. }
                    | What::DeallocateAll(_)
                    | What::LongParse { .. }
            )
        })
    }

    /// Its messages by their names.
    #[cfg(test)]
    fn brief(&self) -> String {
        let name = |op: &Op| format!("{:?}", op.what).split([' ', '(']).next().unwrap_or_default().to_owned();
        self.ops.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    /// Whether it has no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

impl Receiver for Session {
    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    fn parameter_status(&mut self, name: &[u8], value: &[u8]) -> bool {
        if self.reported.value(name) == Some(value) {
            return false;
        }
        Arc::make_mut(&mut self.reported).set(name, value);
        self.context = text_context(&self.reported);
        true
    }

    fn look_again(&mut self) {
        if !self.unit.is_copy() {
            self.drop_unit_statements(false);
            self.take_unit();
        }
    }

    fn parse_failed(&mut self, client_name: &[u8], statement: StatementId) -> bool {
        if client_name.is_empty() {
            return self.unnamed.take_if(|held| held.id == statement).is_some();
        }
        let current = self.statements.get(client_name).is_some_and(|held| held.id == statement);
        if current {
            self.statements.remove(client_name);
        }
        current
    }

    fn name_of(&self, statement: StatementId) -> Option<&[u8]> {
        self.statements.name_of(statement)
    }

    /// What it was told holds for it from now on, whatever was told to others: the statement becomes one of its own.
    fn read_under(&mut self, statement: &Prepared, asked: &[&'static str], told: &[u8]) {
        self.settle(statement, asked, told);
    }

    fn told_otherwise(&mut self, statement: &Arc<Prepared>, columns: &[u8]) {
        let names = self.statements.names_of(statement.id);
        if names.is_empty() || statement.is_misread(&self.settings) {
            return;
        }
        let scope = Scope { own: self.shared.registry.unique(), ..self.scope };
        let unsettled = !statement.finds_the_same(&self.settings);
        let reading = Reading { scope, settings: Some(&self.settings), unsettled };
        let analysis = || statement.analysis.clone();
        let own = self.shared.registry.share(&statement.text, statement.settled_types(), reading, analysis);
        own.learn_columns(columns);
        for name in names {
            self.statements.remove(&name);
            self.statements.insert(&name, &own);
        }
    }

    fn long_parse_failed(&mut self) {
        self.pins.large_unnamed = false;
    }

    fn long_parse_kept(&mut self) {
        self.pins.large_unnamed |= self.unnamed.is_none();
    }

    fn hears(&mut self, channel: &[u8]) -> bool {
        let heard = self.hears_from_server(channel);
        self.notified |= heard;
        heard
    }

    fn command_complete(&mut self, tag: &[u8]) {
        self.note_completion(tag);
    }

    fn statements_gone(&mut self) {
        self.statements.clear();
    }

    fn close_skipped(&mut self, client_name: &[u8], statement: &Arc<Prepared>) {
        if client_name.is_empty() {
            self.unnamed.get_or_insert_with(|| Arc::clone(statement));
        } else {
            self.statements.insert(client_name, statement);
        }
    }

    fn group_reopened(&mut self) {
        self.in_group = true;
    }

    fn error(&mut self, sqlstate: [u8; 5]) {
        self.errors = self.errors.wrapping_add(1);
        self.group_failed = true;
        self.last_error = Some(sqlstate);
    }

    fn ready(&mut self, status: TransactionStatus) {
        self.group_failed = false;
        self.status = status;
        self.transactions += u32::from(status == TransactionStatus::Idle);
        if status == TransactionStatus::Idle && !self.in_group && self.unit.ops.is_empty() {
            // Portals have gone with their transaction.
            self.binds_copy = false;
            self.resetting = Vec::new();
            self.deallocating = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests;
