//! From the client's bytes to units: what belongs together and what each message refers to.
//!
//! Invariant: a frame is looked at once, when it is complete or so long that it will be streamed; the bytes looked at are
//! `input[..cursor]`.
//!
//! Deliberately absent: sending anything anywhere.

use std::sync::Arc;

use bytes::Buf;

use super::executed::gone;
use super::state::ANY_SETTING;
use super::{Op, Session, Unit, What};
use crate::sql::{Effects, Kind, Shape};
use crate::upstream::{Copy, Prepared, Reading, Replaced, finds_names, has_constants, makes_constants};
use crate::wire::frame::{HEADER_LEN, cstr, frontend_header};
use crate::wire::{Header, Malformed, frontend};

/// What the client's bytes amount to so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Pull {
    /// More bytes, or the answer to what is in flight, must come first.
    Wait,
    /// [`Session::unit`] wants a decision.
    Unit,
    /// COPY data, or more of a frame that is on its way: straight to the server.
    Stream,
    /// The client says goodbye.
    Terminate,
    /// Not the protocol; the connection must end.
    Violation(Malformed),
}

impl Session {
    /// Reads on in `input`. `copy` is the server's COPY state, `busy` whether a ReadyForQuery is still to come.
    pub fn pull(&mut self, copy: Copy, busy: bool) -> Pull {
        if self.streaming > 0 {
            return if self.input.is_empty() { Pull::Wait } else { Pull::Stream };
        }
        if copy == Copy::None && self.unit.is_copy() {
            // The COPY failed before its data went out: a server would ignore it.
            let held = self.cursor;
            let unit = self.take_unit();
            self.input.advance(held);
            self.ignoring += unit.ops.last().map_or(0, |op| op.rest);
        }
        if self.unit.complete {
            // Found before, and its decision had to wait.
            return Pull::Unit;
        }
        if self.unit.ops.last().is_some_and(|op| op.rest > 0 || matches!(op.what, What::CopyEnd)) {
            // COPY data found before, for which the server had no room.
            return Pull::Stream;
        }
        if !busy {
            self.names_in_flight.clear();
        }
        if self.barrier && copy == Copy::None {
            if busy {
                return Pull::Wait;
            }
            self.barrier = false;
        }
        loop {
            if self.ignoring > 0 {
                let step = self.ignoring.min(self.input.len());
                self.input.advance(step);
                self.ignoring -= step;
                if self.ignoring > 0 {
                    return Pull::Wait;
                }
            }
            let header = match frontend_header(&self.input[self.cursor..]) {
                Ok(Some(header)) => header,
                Ok(None) => return self.wait(copy),
                Err(error) => return Self::malformed(error),
            };
            let available = self.input.len() - self.cursor;
            let result = match header.tag {
                b'X' if busy => return Pull::Wait,
                b'X' => return Pull::Terminate,
                b'd' | b'c' | b'f' | b'H' | b'S' if copy != Copy::None => {
                    if matches!(header.tag, b'H' | b'S') && copy == Copy::In {
                        if self.cursor > 0 {
                            return Pull::Stream;
                        }
                        // Ignored by a server in COPY FROM STDIN, so nobody waits for an answer.
                        self.ignore(header, available);
                        continue;
                    }
                    self.copy_message(header, available)
                }
                _ if copy == Copy::In => Err(Malformed::Body("message other than COPY data in COPY FROM STDIN,")),
                // What stands before it may begin the COPY.
                b'd' | b'c' | b'f' if self.cursor > 0 => Ok(Next::Unit),
                // Whether a COPY has begun is about to be known.
                b'd' | b'c' | b'f' if busy || (self.in_group && !self.group_failed && self.binds_copy) => {
                    return Pull::Wait;
                }
                b'd' | b'c' | b'f' => {
                    // "Accept but ignore these messages": the rest of a COPY that failed, or of none.
                    self.ignore(header, available);
                    continue;
                }
                b'S' if header.len > HEADER_LEN => Err(Malformed::Body("Sync")),
                b'S' => Ok(self.sync(header)),
                _ if self.skip_to_sync => {
                    self.ignore(header, available);
                    continue;
                }
                b'H' if self.unit.ops.is_empty() && !self.in_group => {
                    // Nothing waits to be flushed.
                    self.ignore(header, available);
                    continue;
                }
                // It ends the group that is open as a Sync would, unless that has failed: then it is skipped as all else is.
                b'Q' | b'F' if busy && (self.in_group || !self.unit.ops.is_empty()) => return Pull::Wait,
                b'Q' | b'F' if self.in_group && self.group_failed && !self.unit.ops.is_empty() => Ok(Next::Unit),
                b'Q' | b'F' if self.in_group && self.group_failed => {
                    self.ignore(header, available);
                    continue;
                }
                b'P' if busy && self.effects != Effects::NONE && self.may_be_misread(header) => return self.wait(copy),
                b'p' => Err(Malformed::Tag(b'p')),
                _ => self.message(header, available),
            };
            match result {
                Ok(Next::Unit) => {
                    self.unit.complete = true;
                    return Pull::Unit;
                }
                Ok(Next::Stream) => return Pull::Stream,
                Ok(Next::More) => return self.wait(copy),
                Ok(Next::On) => {}
                Err(error) => return Self::malformed(error),
            }
        }
    }

    /// No whole frame is left: COPY data found so far goes on, everything else waits, up to the limit.
    fn wait(&mut self, copy: Copy) -> Pull {
        if copy != Copy::None && !self.unit.ops.is_empty() {
            return Pull::Stream;
        }
        Pull::Wait
    }

    fn message(&mut self, header: Header, available: usize) -> Result<Next, Malformed> {
        let limits = self.shared.limits;
        let whole = available >= header.len;
        let long = header.len > limits.statement;
        // Bytes held for this unit, once the limit is passed, must not grow by waiting for data that nobody reads here.
        let full = self.input.len() >= limits.hold;
        let may_stream = match header.tag {
            b'Q' | b'P' => long,
            b'B' | b'F' => header.len > limits.hold,
            _ => false,
        };
        if !whole && !(may_stream && full) {
            if full && !self.unit.ops.is_empty() && header.len > limits.hold && !may_stream {
                // A long Parse behind other messages: those go first, so that what is held stays bounded.
                return Ok(Next::Unit);
            }
            return Ok(if full && !self.unit.ops.is_empty() && header.len <= limits.hold {
                Next::Unit
            } else {
                Next::More
            });
        }
        let len = header.len.min(available);
        let rest = header.len - len;
        let (start, end) = (self.cursor, self.cursor + len);
        if rest > 0 && available < limits.hold && !Self::named(header.tag, &self.input[start..end]) {
            return Ok(Next::More);
        }
        if !self.names_in_flight.is_empty()
            && let Some(name) = statement_name(header.tag, &self.input[start..end])
            && self.in_doubt(header.tag, name)
        {
            return Ok(Next::More);
        }
        if !self.names_in_flight.is_empty() && header.tag == b'E' && !self.deallocating.is_empty() {
            return Ok(Next::More);
        }
        let what = self.understand(header.tag, start, end, rest)?;
        if !self.names_in_flight.is_empty() && self.drops_statements(&what) {
            return Ok(Next::More);
        }
        if matches!(header.tag, b'P' | b'C')
            && let Some(name) = statement_name(header.tag, &self.input[start..end])
        {
            self.names_open.insert(name, limits.prepared);
        }
        match &what {
            What::Deallocate { name, .. } => self.names_open.insert(name, limits.prepared),
            What::DeallocateAll(_) => self.names_open.insert_all(),
            _ => {}
        }
        let ends = what.ends_with_ready();
        // A server that begins COPY FROM STDIN says so at once; a client may wait for that without a Flush.
        self.binds_copy |= Self::begins_copy(&what);
        let flush = matches!(what, What::Flush) || matches!(what, What::Execute) && self.binds_copy;
        self.push(Op { len, rest, what });
        self.unit.closed |= ends;
        if ends && !self.names_open.is_empty() {
            self.names_in_flight.take(&mut self.names_open, limits.prepared);
        }
        Ok(if ends || flush || rest > 0 || (self.cursor >= limits.hold && self.next_is_not_sync()) {
            Next::Unit
        } else {
            Next::On
        })
    }

    /// Whether the first bytes of a long frame hold the names that must be known before it can go.
    fn named(tag: u8, frame: &[u8]) -> bool {
        match tag {
            b'B' => frontend::bind(frame).is_ok(),
            b'P' => cstr(frame.get(HEADER_LEN..).unwrap_or_default()).is_some(),
            _ => true,
        }
    }

    /// Whether what a name stands for depends on a group in flight. A Parse without a name replaces whatever there is.
    fn in_doubt(&self, tag: u8, name: &[u8]) -> bool {
        let decided_here = name.is_empty() && (tag == b'P' || self.names_open.contains(name));
        !decided_here && self.names_in_flight.contains(name)
    }

    fn begins_copy(what: &What) -> bool {
        let What::Bind { statement, .. } = what else { return false };
        // What is not known may be one.
        let Some(statement) = statement else { return true };
        statement.analysis.shape.statements.iter().any(|statement| statement.kind == Kind::CopyIn)
    }

    /// A Sync that has already arrived belongs to the unit although the limit is reached.
    fn next_is_not_sync(&self) -> bool {
        self.input.get(self.cursor) != Some(&b'S')
    }

    fn understand(&mut self, tag: u8, start: usize, end: usize, rest: usize) -> Result<What, Malformed> {
        let frame = &self.input[start..end];
        Ok(match tag {
            b'Q' if rest > 0 => What::LongQuery,
            b'Q' => match frontend::query(frame) {
                Ok(text) => What::Query(self.shared.analyzer.analyze(text, self.context)),
                // Bytes behind its end: the server says what it says.
                Err(_) => What::LongQuery,
            },
            b'F' => What::Function,
            b'P' if rest > 0 => What::LongParse { named: frame.get(HEADER_LEN) != Some(&0) },
            b'P' => self.parse(start, end)?,
            b'B' => {
                let bind = frontend::bind(frame)?;
                let values = (frame.len() - bind.rest.len()) as u32;
                let statement = self.statement(bind.statement).cloned();
                let deallocates = statement.as_deref().and_then(|one| gone(&one.analysis.shape));
                if deallocates.is_some() || !self.deallocating.is_empty() {
                    let portal = bind.portal.into();
                    self.note_deallocating(portal, deallocates);
                }
                What::Bind { statement, values }
            }
            b'D' | b'C' => {
                let target = frontend::target(frame)?;
                match (tag, target.kind) {
                    (b'D', b'S') => What::DescribeStatement { statement: self.statement(target.name).cloned() },
                    (b'D', _) => What::DescribePortal,
                    (_, b'S') => {
                        let name: Box<[u8]> = target.name.into();
                        self.close(&name)
                    }
                    _ => What::ClosePortal,
                }
            }
            b'E' if !self.deallocating.is_empty() => self.executed_portal(start, end),
            b'E' => What::Execute,
            b'H' => What::Flush,
            other => return Err(Malformed::Tag(other)),
        })
    }

    fn parse(&mut self, start: usize, end: usize) -> Result<What, Malformed> {
        let shared = Arc::clone(&self.shared);
        let context = self.context;
        let mut parse = frontend::parse(&self.input[start..end])?;
        let execution = self.prepared_execution(parse.text);
        if let Some(text) = &execution {
            parse.text = text;
        }
        let analyze = || shared.analyzer.analyze(parse.text, context);
        if parse.name.is_empty() {
            let statement = shared.registry.single(parse.text, parse.types, analyze());
            let replaced = self.replaced();
            self.unnamed = Some(Arc::clone(&statement));
            return Ok(What::Parse { statement, named: false, duplicate: false, replaced });
        }
        let duplicate = self.statements.contains(parse.name);
        if !duplicate {
            let len = parse.text.len() + parse.types.len();
            if let Some(reply) = self.statements.refusal(parse.name, len, shared.limits) {
                return Ok(What::RefusedParse(Box::new(reply)));
            }
        }
        let mut scope = self.scope;
        let constants = has_constants(parse.text);
        let unsettled = self.may_have_set_any(|name| finds_names(name) || makes_constants(name, constants));
        if unsettled {
            // What it is read under is not known: it is nobody else's, and nobody else's is taken for it.
            scope.own = shared.registry.unique();
        }
        let reading = Reading { scope, settings: Some(&self.settings), unsettled };
        let statement = shared.registry.share(parse.text, parse.types, reading, analyze);
        if !duplicate {
            self.statements.insert(parse.name, &statement);
        }
        Ok(What::Parse { statement, named: true, duplicate, replaced: Replaced::Nothing })
    }

    /// Whether something since the server was last asked about settings, the unit before the message at hand included, may have
    /// changed one of some.
    fn may_have_set_any(&self, some: impl Fn(&str) -> bool) -> bool {
        let makes = |shape: &Shape| {
            let mut names = shape.statements.iter().flat_map(|statement| &statement.settings);
            shape.effects.any(ANY_SETTING) || names.any(|name| some(name))
        };
        let bound = |op: &Op| matches!(&op.what, What::Bind { statement: Some(one), .. } if makes(&one.analysis.shape));
        let set = self.touched.iter().any(|name| some(name)) || self.deferred.sets(&some);
        set || self.effects.any(ANY_SETTING) || self.unit.ops.iter().any(bound)
    }

    /// Whether constants of the Parse at hand may be read otherwise than is known: something in flight sets that. Once it has ended
    /// that is known, unless it is in the same transaction.
    #[cold]
    fn may_be_misread(&self, header: Header) -> bool {
        let sets =
            self.effects.any(Effects::ALL_SETTINGS) || self.touched.iter().any(|name| makes_constants(name, true));
        let frame = self.input.get(self.cursor..self.cursor + header.len).filter(|_| sets);
        let parse = frame.and_then(|frame| frontend::parse(frame).ok());
        parse.is_some_and(|parse| !parse.name.is_empty() && has_constants(parse.text))
    }

    /// The unnamed statement, which is about to be another.
    pub(super) fn replaced(&mut self) -> Replaced {
        match self.unnamed.take() {
            Some(statement) => Replaced::Statement(statement),
            None if self.pins.large_unnamed => Replaced::Long,
            None => Replaced::Nothing,
        }
    }

    fn close(&mut self, name: &[u8]) -> What {
        let removed: Option<Arc<Prepared>> =
            if name.is_empty() { self.unnamed.take() } else { self.statements.remove(name) };
        What::CloseStatement { held: removed }
    }

    fn sync(&mut self, header: Header) -> Next {
        self.push(Op { len: header.len, rest: 0, what: What::Sync });
        self.skip_to_sync = false;
        self.unit.closed = true;
        self.names_in_flight.take(&mut self.names_open, self.shared.limits.prepared);
        Next::Unit
    }

    fn copy_message(&mut self, header: Header, available: usize) -> Result<Next, Malformed> {
        if header.tag != b'd' && available < header.len {
            return Ok(Next::More);
        }
        let ends = header.tag != b'd';
        let len = header.len.min(available);
        let rest = header.len - len;
        self.push(Op { len, rest, what: if ends { What::CopyEnd } else { What::CopyData } });
        Ok(if rest > 0 || ends || self.cursor == self.input.len() { Next::Stream } else { Next::On })
    }

    fn push(&mut self, op: Op) {
        if self.unit.ops.is_empty() {
            self.unit.opens = !self.in_group;
        }
        self.cursor += op.len;
        self.unit.ops.push(op);
    }

    /// Drops a frame. Only ever at the front: nothing that was looked at waits before it.
    fn ignore(&mut self, header: Header, available: usize) {
        debug_assert_eq!(self.cursor, 0, "messages wait before one that is ignored");
        let step = header.len.min(available);
        self.input.advance(step);
        self.ignoring = header.len - step;
    }

    /// How many more bytes from the client there is room for: up to the limits, and to the end of a statement that is held
    /// whole.
    #[must_use]
    pub fn room(&self) -> usize {
        let limits = self.shared.limits;
        let wanted = match self.input.get(self.cursor..).map(frontend_header) {
            // What stands behind a unit that is complete can wait.
            Some(Ok(Some(header))) if !self.unit.complete => {
                self.cursor + header.len.min(limits.statement + HEADER_LEN)
            }
            // A full unit waits for the header behind it, which may be a Sync.
            _ => self.cursor + HEADER_LEN,
        };
        // One chunk past the limit, so that a frame's header behind a full unit can be seen.
        wanted.max(limits.hold + HEADER_LEN).saturating_sub(self.input.len())
    }

    /// Takes the unit and its bytes out of the way.
    pub(super) fn take_unit(&mut self) -> Unit {
        self.cursor = 0;
        std::mem::take(&mut self.unit)
    }
}

/// The name of the statement that a message refers to. `frame` may be the head of a long one.
fn statement_name(tag: u8, frame: &[u8]) -> Option<&[u8]> {
    match tag {
        b'P' => cstr(frame.get(HEADER_LEN..)?).map(|(name, _)| name),
        b'B' => frontend::bind(frame).ok().map(|bind| bind.statement),
        b'C' | b'D' => frontend::target(frame).ok().filter(|target| target.kind == b'S').map(|target| target.name),
        _ => None,
    }
}

enum Next {
    On,
    More,
    Unit,
    Stream,
}
