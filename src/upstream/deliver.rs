//! From the server's bytes to the client's: what passes, what is hidden, what is put in its place.
//!
//! Invariant: bytes leave in the order they came, and a chunk in which nothing is hidden is handed over without a copy.
//! Deliberately absent: writing to anything but a buffer.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::{Amended, Copy, Error, Expected, Prepared, Replaced, Show, StatementId, Upstream, own_names};
use crate::wire::backend;
use crate::wire::frame::{HEADER_LEN, backend_header};
use crate::wire::{Header, TransactionStatus};

/// Largest message that is read whole, in bytes: ParameterStatus, CommandComplete and other small ones.
const WHOLE_LIMIT: usize = 1 << 20;

/// Bytes of an ErrorResponse in which its severity and SQLSTATE stand.
const ERROR_PREFIX: usize = 128;

/// Largest description of a statement that is looked into, in bytes: some hundred columns. What is larger is not compared.
const DESCRIPTION_LIMIT: usize = 64 << 10;

/// Largest refusal of a statement whose result has changed; its message is translated, a line of text in any language.
const OUTDATED_LIMIT: usize = 1024;

/// Who gets a server's answers. One that only listens leaves out what concerns a client's names and settings.
pub trait Receiver {
    /// Where bytes for the client go.
    fn output(&mut self) -> &mut BytesMut;
    /// A setting was reported. Returns whether the client is told.
    fn parameter_status(&mut self, _name: &[u8], _value: &[u8]) -> bool {
        false
    }
    /// Messages sent were ignored, and what they declared is taken back next: what was looked at behind them and not yet
    /// sent must be looked at again.
    fn look_again(&mut self) {}
    /// A statement's Parse failed or was skipped; it does not exist. Returns whether the client's name stood for it.
    fn parse_failed(&mut self, _client_name: &[u8], _statement: StatementId) -> bool {
        false
    }
    /// The client's name for a statement that has a name of ours.
    fn name_of(&self, _statement: StatementId) -> Option<&[u8]> {
        None
    }
    /// The server has told what a text was read under: of the settings asked for those that the session has set, by name and value.
    fn read_under(&mut self, _statement: &Prepared, _asked: &[&'static str], _told: &[u8]) {}
    /// The client is told other columns of a statement than were told first of what it shares with others: the shape.
    fn told_otherwise(&mut self, _statement: &Arc<Prepared>, _columns: &[u8]) {}
    /// The Parse of an unnamed statement too long to be held failed or was skipped.
    fn long_parse_failed(&mut self) {}
    /// What would have replaced such a statement was skipped: it exists still.
    fn long_parse_kept(&mut self) {}
    /// A Close that was answered here was skipped: the client's statement exists still.
    fn close_skipped(&mut self, _client_name: &[u8], _statement: &Arc<Prepared>) {}
    /// A Sync was ignored by a server in COPY FROM STDIN, or a Query skipped after an error: the group is open again.
    fn group_reopened(&mut self) {}
    /// Whether a notification of a channel, named in the connection's client encoding, is let through.
    fn hears(&mut self, _channel: &[u8]) -> bool {
        true
    }
    /// All statements that have names are gone.
    fn statements_gone(&mut self) {}
    /// A command completed, with its tag.
    fn command_complete(&mut self, _tag: &[u8]) {}
    /// An error came.
    fn error(&mut self, _sqlstate: [u8; 5]) {}
    /// ReadyForQuery came.
    fn ready(&mut self, _status: TransactionStatus) {}
}

/// What becomes of a frame.
enum Verdict {
    Keep,
    Drop,
    Replace(BytesMut),
}

impl Upstream {
    /// Moves what has been received to `to`, as far as it is complete enough to be judged.
    ///
    /// # Errors
    /// A violation of the protocol; the connection is broken then, and what was delivered before stays delivered.
    pub fn deliver<R: Receiver>(&mut self, to: &mut R) -> Result<(), Error> {
        let mut input = std::mem::take(&mut self.input);
        let result = self.deliver_from(&mut input, to);
        if result.is_err() {
            self.broken = true;
        }
        self.input = input;
        result
    }

    fn deliver_from<R: Receiver>(&mut self, input: &mut BytesMut, to: &mut R) -> Result<(), Error> {
        if self.passing == 0 {
            self.local_answers(to);
        }
        // Everything before `pos` has been judged; everything from `kept` to `pos` passes and was not yet moved.
        let (mut pos, mut kept) = (0, 0);
        let mut result = Ok(());
        while pos < input.len() {
            if self.passing > 0 {
                let step = self.passing.min(input.len() - pos);
                self.passing -= step;
                pos += step;
                continue;
            }
            if matches!(self.expected.front(), Some(Expected::Local { .. })) {
                // What passed before the local answer must stand before it.
                to.output().extend_from_slice(&input[kept..pos]);
                kept = pos;
                self.local_answers(to);
            }
            let header = match backend_header(&input[pos..]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            };
            // Rows and COPY data, nine tenths of all frames, are not looked at.
            let asked = matches!(self.expected.front(), Some(Expected::Reading { .. }));
            if matches!(header.tag, b'D' | b'd') && !asked {
                self.passing = header.len;
                continue;
            }
            let available = &input[pos..];
            let (needed, bulk) = self.needed(header, available);
            if needed > WHOLE_LIMIT {
                result = Err(Error::TooLarge { tag: char::from(header.tag), len: header.len });
                break;
            }
            if available.len() < needed {
                break;
            }
            let frame = &available[..needed.min(header.len)];
            let verdict = match self.judge(header, frame, to) {
                Ok(verdict) => verdict,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            match verdict {
                Verdict::Keep if bulk => self.passing = header.len,
                Verdict::Keep => pos += header.len,
                Verdict::Drop | Verdict::Replace(_) => {
                    to.output().extend_from_slice(&input[kept..pos]);
                    if let Verdict::Replace(bytes) = verdict {
                        to.output().extend_from_slice(&bytes);
                    }
                    pos += header.len;
                    kept = pos;
                }
            }
        }
        hand_over(input, kept, pos, to.output());
        if self.passing == 0 {
            self.local_answers(to);
        }
        result
    }

    /// How many bytes of a frame must be there before it can be judged, and whether the rest then passes unseen.
    #[inline]
    fn needed(&self, header: Header, frame: &[u8]) -> (usize, bool) {
        match header.tag {
            b'T' | b't' if header.len <= DESCRIPTION_LIMIT && self.describes() => (header.len, false),
            b'N' | b'T' | b't' if self.hides() => (header.len, false),
            // The contents do not matter and may be large.
            b'T' | b't' | b'V' | b'N' | b'G' | b'H' | b'W' => (HEADER_LEN, true),
            b'E' if header.len <= OUTDATED_LIMIT => (header.len, false),
            b'E' if !self.replaces() && !fatal(frame) => (header.len.min(ERROR_PREFIX), true),
            _ => (header.len, false),
        }
    }

    /// Whether an error that comes now is not the one that the client will see.
    fn replaces(&self) -> bool {
        matches!(
            self.expected.front(),
            Some(Expected::Parse { show: Show::Replace(_), .. } | Expected::Refused(_) | Expected::Amended(_))
        )
    }

    /// Whether what the server says on its way to the answer is not for the client: it has been told when it prepared the
    /// statement, or did not ask at all.
    fn hides(&self) -> bool {
        match self.expected.front() {
            Some(
                Expected::Parse { show: Show::Hide, .. }
                | Expected::Own(_)
                | Expected::Reading { .. }
                | Expected::Types(_),
            ) => true,
            Some(Expected::Amended(amended)) => amended.hides(),
            _ => false,
        }
    }

    /// The Query at hand, if it holds statements of the gateway's own.
    fn amended(&mut self) -> Option<&mut Amended> {
        match self.expected.front_mut() {
            Some(Expected::Amended(amended)) => Some(amended),
            _ => None,
        }
    }

    /// Whether a description that comes now is of a statement with a name of ours.
    fn describes(&self) -> bool {
        matches!(self.expected.front(), Some(Expected::Describe { of: Some(_) }))
    }

    /// Puts out the local answers that stand at the front of the queue.
    pub(super) fn local_answers<R: Receiver>(&mut self, to: &mut R) {
        while !self.skipping
            && let Some(Expected::Local { tag, .. }) = self.expected.front()
        {
            if *tag != 0 {
                backend::write_bare(to.output(), *tag);
            }
            self.expected.pop_front();
        }
    }

    fn judge<R: Receiver>(&mut self, header: Header, frame: &[u8], to: &mut R) -> Result<Verdict, Error> {
        match (header.tag, self.expected.front()) {
            (b'S', _) => self.parameter(frame, to),
            (b'N', _) if self.hides() => Ok(Verdict::Drop),
            (b'N', _) => Ok(Verdict::Keep),
            (b'A', _) => self.notification(frame, to),
            (b'E', _) => Ok(self.error(frame, frame.len() == header.len, to)),
            (b'1', Some(Expected::Parse { show, .. })) | (b'3', Some(Expected::Close { show, .. })) => {
                let hide = *show != Show::Pass;
                match self.expected.pop_front() {
                    Some(Expected::Parse { statement: Some(statement), unnamed: false, .. }) => {
                        self.prepared.succeeded(&statement);
                    }
                    Some(Expected::Parse { statement: Some(statement), .. }) => {
                        if let Some((_, sent_in)) = self.unnamed.as_mut().filter(|(id, _)| *id == statement.id) {
                            *sent_in = None;
                        }
                    }
                    _ => {}
                }
                Ok(if hide { Verdict::Drop } else { Verdict::Keep })
            }
            (b'2', Some(Expected::Bind)) => self.answered(),
            (b't', Some(Expected::Describe { of })) => {
                if let Some(statement) = of.as_ref().filter(|_| frame.len() == header.len) {
                    statement.learn_types(frame);
                }
                Ok(Verdict::Keep)
            }
            (b't', Some(Expected::Types(statement))) => {
                if frame.len() == header.len {
                    statement.learn_types(frame);
                }
                Ok(Verdict::Drop)
            }
            (b'T' | b'n', Some(Expected::Types(_))) => {
                self.expected.pop_front();
                Ok(Verdict::Drop)
            }
            (b'T', Some(Expected::Describe { of })) => {
                if let Some(statement) = of.as_ref().filter(|_| frame.len() == header.len) {
                    let shape = backend::row_shape(frame)?;
                    let changed = !statement.learn_columns(&shape);
                    self.outdated |= changed;
                    self.prepared.was_described(statement.id, changed);
                    if changed {
                        to.told_otherwise(statement, &shape);
                    }
                }
                self.answered()
            }
            (b'n', Some(Expected::Describe { of })) => {
                if let Some(statement) = of {
                    self.prepared.was_described(statement.id, false);
                }
                self.answered()
            }
            (b'C', Some(Expected::Execute | Expected::Query)) => {
                let tag = frame.get(HEADER_LEN..frame.len() - 1).unwrap_or_default();
                self.completed(tag, to);
                self.executed()
            }
            (b'C', Some(Expected::Deallocate { client_name, statement })) => {
                Ok(deallocation(client_name, *statement, to))
            }
            (b'C' | b's', Some(Expected::Deallocation(..))) => {
                if !frame.ends_with(b"\0\0\0\x0fDEALLOCATE\0") {
                    // The portal was another, a cursor.
                    self.not_deallocated(to);
                }
                self.answered()
            }
            (b'C' | b's', Some(Expected::DeallocationAll(_))) => {
                let tag = frame.get(HEADER_LEN..frame.len() - 1).filter(|_| header.tag == b'C').unwrap_or_default();
                if !drops_all(tag) {
                    // The same.
                    self.not_deallocated(to);
                }
                self.completed(tag, to);
                self.answered()
            }
            (b'I' | b's', Some(Expected::Execute | Expected::Query)) => self.executed(),
            (b'T' | b'c', Some(Expected::Query)) | (b'c', Some(Expected::Execute)) => Ok(Verdict::Keep),
            (b'H', Some(Expected::Query | Expected::Execute)) => Ok(Verdict::Keep),
            (b'G' | b'W', Some(Expected::Query | Expected::Execute)) => {
                self.copy = if header.tag == b'G' { Copy::In } else { Copy::Both };
                self.swallow_syncs(to);
                Ok(Verdict::Keep)
            }
            (b'V', Some(Expected::Function)) => Ok(Verdict::Keep),
            (tag, Some(Expected::Amended(_))) if matches!(tag, b'T' | b'C' | b'c' | b'H' | b'G') => {
                Ok(self.judge_amended(tag, frame, to))
            }
            (b'D', Some(Expected::Reading { statement, asked })) => {
                if let [Some(told)] = backend::data_row(frame)?.as_slice() {
                    to.read_under(statement, asked, told);
                }
                Ok(Verdict::Drop)
            }
            (b'C', Some(Expected::Reading { .. })) => {
                self.expected.pop_front();
                Ok(Verdict::Drop)
            }
            (tag, Some(Expected::Own(own))) if tag == *own => {
                self.expected.pop_front();
                Ok(Verdict::Drop)
            }
            (b'Z', Some(expected)) if expected.readies() => {
                let byte = frame.get(HEADER_LEN).copied().unwrap_or_default();
                let Some(status) = TransactionStatus::from_byte(byte) else {
                    return Err(Error::Unexpected { got: char::from(byte), expected: "a transaction status" });
                };
                self.expected.pop_front();
                self.unready -= 1;
                self.status = status;
                self.skipping = false;
                self.copy = Copy::None;
                to.ready(status);
                Ok(Verdict::Keep)
            }
            (tag, expected) => {
                Err(Error::Unexpected { got: char::from(tag), expected: expected.map_or("nothing", Expected::name) })
            }
        }
    }

    fn judge_amended<R: Receiver>(&mut self, tag: u8, frame: &[u8], to: &mut R) -> Verdict {
        let deallocated = self.amended().filter(|_| tag == b'C').and_then(|amended| amended.deallocated());
        let own = self.amended().is_some_and(|amended| if tag == b'C' { amended.complete() } else { amended.hides() });
        if own {
            return Verdict::Drop;
        }
        if let Some((name, statement)) = deallocated {
            return deallocation(&name, statement, to);
        }
        match tag {
            b'C' => self.completed(frame.get(HEADER_LEN..frame.len() - 1).unwrap_or_default(), to),
            b'G' => self.copy = Copy::In,
            _ => {}
        }
        Verdict::Keep
    }

    /// What a command's completion says about the server's own memory.
    fn completed<R: Receiver>(&mut self, tag: &[u8], to: &mut R) {
        self.copy = Copy::None;
        to.command_complete(tag);
        if !drops_all(tag) {
            return;
        }
        if tag == b"DISCARD ALL" {
            self.settings = Some(Arc::default());
        }
        self.prepared.clear();
        // What was sent behind it comes after it on the server, too.
        self.replay(1);
        if matches!(self.expected.front(), Some(Expected::DeallocationAll(_))) {
            // They went when the Execute was looked at, and what was looked at since is there.
            return;
        }
        // The unnamed statement stays (`DropAllPreparedStatements` in `prepare.c`).
        to.statements_gone();
        for expected in self.expected.iter().skip(1) {
            match expected {
                Expected::Parse { statement: Some(statement), client_name: Some(name), unnamed: false, .. } => {
                    to.close_skipped(name, statement);
                }
                Expected::Local { tag: b'1', client_name, statement: Some(statement) } => {
                    to.close_skipped(client_name, statement);
                }
                _ => {}
            }
        }
    }

    /// What stands under a client's name, to be deallocated, stands there still.
    fn not_deallocated<R: Receiver>(&mut self, to: &mut R) {
        match self.expected.front() {
            Some(Expected::Deallocation(client_name, statement)) => {
                to.close_skipped(client_name, statement);
                self.litter.push(client_name.clone());
            }
            Some(Expected::DeallocationAll(gone)) => {
                for (client_name, statement) in gone {
                    to.close_skipped(client_name, statement);
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self) -> Result<Verdict, Error> {
        self.expected.pop_front();
        Ok(Verdict::Keep)
    }

    fn executed(&mut self) -> Result<Verdict, Error> {
        if matches!(self.expected.front(), Some(Expected::Execute)) {
            self.expected.pop_front();
        }
        Ok(Verdict::Keep)
    }

    fn parameter<R: Receiver>(&mut self, frame: &[u8], to: &mut R) -> Result<Verdict, Error> {
        let (name, value) = backend::parameter_status(frame)?;
        if name == b"in_hot_standby" {
            // Drivers that look for a primary would take a gateway that reads from a replica for a standby.
            return Ok(Verdict::Drop);
        }
        Arc::make_mut(&mut self.parameters).set(name, value);
        Ok(if to.parameter_status(name, value) { Verdict::Keep } else { Verdict::Drop })
    }

    /// The client knows other clients of the gateway by the process ids that they were told.
    fn notification<R: Receiver>(&self, frame: &[u8], to: &mut R) -> Result<Verdict, Error> {
        let told = backend::notification(frame)?;
        if !to.hears(told.channel) {
            return Ok(Verdict::Drop);
        }
        let client = self.notifiers.as_ref().and_then(|(known, _)| known.client(told.process));
        Ok(client.map_or(Verdict::Keep, |client| {
            let mut bytes = BytesMut::new();
            backend::write_notification(&mut bytes, client, told.channel, told.payload);
            Verdict::Replace(bytes)
        }))
    }

    fn error<R: Receiver>(&mut self, frame: &[u8], whole: bool, to: &mut R) -> Verdict {
        let fields = backend::error_fields(frame);
        if matches!(fields.severity.as_str(), "FATAL" | "PANIC") {
            // The server's end need not be the client's: whoever holds the connection tells the client what it means.
            self.broken = true;
            self.fatal = Some(Box::new(fields));
            return Verdict::Drop;
        }
        let mut sqlstate = *b"XX000";
        if fields.sqlstate.len() == 5 {
            sqlstate.copy_from_slice(fields.sqlstate.as_bytes());
        }
        let replacement = match self.expected.front() {
            Some(Expected::Parse { show: Show::Replace(reply), .. } | Expected::Refused(reply)) => {
                let mut bytes = BytesMut::new();
                reply.write(&mut bytes);
                sqlstate.copy_from_slice(&reply.sqlstate.as_bytes()[..5]);
                Some(bytes)
            }
            Some(Expected::Amended(amended)) => amended.relocated(frame),
            _ => None,
        };
        self.outdated |= sqlstate == *b"0A000" && fields.routine.as_deref() == Some("RevalidateCachedQuery");
        if let Some(id) = Some(frame).filter(|_| whole).and_then(|frame| own_names::missing(frame, sqlstate)) {
            // A function or a DO has deallocated it unseen: who uses it next prepares it anew.
            self.prepared.doubt(id);
        }
        to.error(sqlstate);
        let replacement =
            replacement.or_else(|| whole.then(|| own_names::translated(frame, sqlstate, |id| to.name_of(id)))?);
        self.not_deallocated(to);
        if self.expected.front().is_some_and(|expected| !expected.readies()) {
            self.skip_to_sync(to);
        }
        self.copy = Copy::None;
        replacement.map_or(Verdict::Keep, Verdict::Replace)
    }

    /// After an error in the extended protocol the server reads and discards messages until a Sync.
    fn skip_to_sync<R: Receiver>(&mut self, to: &mut R) {
        to.look_again();
        let end = self.expected.iter().position(|expected| matches!(expected, Expected::Sync));
        self.skipping = end.is_none();
        let mut skipped: Vec<_> = self.expected.drain(..end.unwrap_or(self.expected.len())).collect();
        if let Some(Expected::Parse { replaced, .. }) = skipped.first_mut() {
            // It was not skipped: the unnamed statement goes before the new one is looked at.
            *replaced = Replaced::Nothing;
        }
        let queries = skipped.iter().filter(|expected| expected.readies()).count();
        self.unready -= queries;
        while let Some(expected) = skipped.pop() {
            self.undo(expected, to);
        }
        if queries > 0 && self.skipping {
            to.group_reopened();
        }
        self.replay(0);
    }

    /// A server in COPY FROM STDIN ignores Flush and Sync that stand before CopyDone (`CopyGetData` in `copyfromparse.c`).
    fn swallow_syncs<R: Receiver>(&mut self, to: &mut R) {
        if !matches!(self.expected.front(), Some(Expected::Execute)) {
            return;
        }
        let unready = &mut self.unready;
        let mut reopened = false;
        self.expected.retain(|expected| {
            let sync = matches!(expected, Expected::Sync);
            *unready -= usize::from(sync);
            reopened |= sync;
            !sync
        });
        if reopened {
            to.group_reopened();
        }
    }
}

/// Whether what completed with this tag has dropped all prepared statements.
fn drops_all(tag: &[u8]) -> bool {
    matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL")
}

/// The client's statement is gone; what is completed has another tag.
fn deallocation<R: Receiver>(client_name: &[u8], statement: StatementId, to: &mut R) -> Verdict {
    to.parse_failed(client_name, statement);
    let mut bytes = BytesMut::new();
    backend::write_complete(&mut bytes, "DEALLOCATE");
    Verdict::Replace(bytes)
}

/// Whether a prefix of an ErrorResponse says that the connection ends.
fn fatal(frame: &[u8]) -> bool {
    let severity = backend::error_fields(&frame[..frame.len().min(ERROR_PREFIX)]).severity;
    matches!(severity.as_str(), "FATAL" | "PANIC")
}

/// Moves `input[kept..pos]` to `output` and keeps the rest. Without a copy if nothing was cut out and nothing waits.
fn hand_over(input: &mut BytesMut, kept: usize, pos: usize, output: &mut BytesMut) {
    if kept == 0 && output.is_empty() && pos > 0 {
        let mut rest = std::mem::take(output);
        rest.clear();
        rest.extend_from_slice(&input[pos..]);
        input.truncate(pos);
        std::mem::swap(input, output);
        *input = rest;
    } else {
        output.extend_from_slice(&input[kept..pos]);
        input.advance(pos);
    }
}
