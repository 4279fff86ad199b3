//! From a unit to a server's output: names are translated, what the server lacks is prepared ahead, answers are expected.
//!
//! Invariant: what the server will answer and what is expected of it are written in the same step. A unit in which
//! nothing is rewritten moves without a copy.
//!
//! Deliberately absent: the decision where to.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::{Op, Session, What};
use crate::sql::{Analysis, Effects, Kind};
use crate::upstream::{Expected, Prepared, Private, Reading, Replaced, Show, Upstream};
use crate::wire::frame::HEADER_LEN;
use crate::wire::{TransactionStatus, frontend};

/// A text that does nothing and fails only in a failed transaction, also on a standby.
pub(super) const NOTHING: &[u8] = b"UNLISTEN pointsman_none";

/// What the last [`Session::forward`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Whether a ReadyForQuery will come of it.
    pub closed: bool,
}

impl Session {
    /// Moves the unit to `up`'s output.
    pub fn forward(&mut self, up: &mut Upstream) -> Forwarded {
        let held = self.cursor;
        let mut unit = self.take_unit();
        if unit.opens && !unit.is_copy() {
            // Only as the first message of a group is a Close sure to be neither skipped nor taken for COPY data.
            for name in up.take_litter() {
                frontend::write_target(&mut up.output, b'C', b'S', &name);
                up.expect(Expected::Close { statement: None, show: Show::Hide }, self);
            }
        }
        self.declared_only = !unit.closed && unit.opens && unit.declares_one();
        // input[kept..at] goes as it is and was not yet moved.
        let (mut at, mut kept) = (0, 0);
        // The statement and the portal bound last.
        let mut bound = None;
        let mut foreseen = unit.foreseen.take();
        let mut ops = unit.ops.drain(..);
        while let Some(Op { len, rest, what }) = ops.next() {
            let frame = at..at + len;
            at += len;
            self.streaming = rest;
            let may_skip = self.in_group && what.ends_with_ready();
            self.barrier |= self.drops_statements(&what);
            if may_skip {
                self.ends_group(up, &what);
            }
            match what {
                What::Query(_) | What::LongQuery | What::Function | What::Sync => self.in_group = false,
                // COPY data belongs to whatever began the COPY.
                What::CopyData | What::CopyEnd => {}
                _ => self.in_group = true,
            }
            let mut rewrite = Rewrite { kept: &mut kept, start: frame.start, end: frame.end };
            let known = foreseen.as_deref_mut();
            if let Some(reply) = known.and_then(|known| self.refusal(&what, &self.input[frame.clone()], known)) {
                rewrite.flush(&self.input, up);
                self.ignoring = std::mem::take(&mut self.streaming);
                if may_skip {
                    self.refuse_query(up, reply.clone());
                } else {
                    self.refuse_parse(up, reply.clone());
                }
                continue;
            }
            match what {
                What::Query(analysis) => {
                    self.drop_unnamed();
                    if !may_skip {
                        up.unnamed_dropped();
                    }
                    if let Some((client_name, statement)) = self.deallocated(&analysis) {
                        rewrite.flush(&self.input, up);
                        frontend::write_query(&mut up.output, NOTHING);
                        up.expect(Expected::Deallocate { client_name, statement }, self);
                    } else if let Some(text) = self.execution_on(&analysis, &self.input[frame.clone()], up) {
                        rewrite.flush(&self.input, up);
                        frontend::write_query(&mut up.output, &text);
                        up.expect(Expected::Query, self);
                    } else if let Some((text, amended)) = self.amended(&analysis, &self.input[frame.clone()], up) {
                        rewrite.flush(&self.input, up);
                        frontend::write_query(&mut up.output, &text);
                        up.expect(Expected::Amended(Box::new(amended)), self);
                    } else {
                        up.expect(Expected::Query, self);
                    }
                }
                What::LongQuery => {
                    self.drop_unnamed();
                    if !may_skip {
                        up.unnamed_dropped();
                    }
                    up.expect(Expected::Query, self);
                }
                What::Function => up.expect(Expected::Function, self),
                What::Parse { statement, named: false, replaced, .. } => {
                    if statement.executes() {
                        // The name in it may be ours: see `executed`.
                        rewrite.flush(&self.input, up);
                        frontend::write_parse(&mut up.output, b"", &statement.text, &statement.types);
                    }
                    self.pins.large_unnamed = false;
                    up.expect(
                        Expected::Parse {
                            statement: Some(statement),
                            client_name: Some([].into()),
                            unnamed: true,
                            replaced,
                            show: Show::Pass,
                        },
                        self,
                    );
                }
                What::Parse { statement, duplicate: true, .. } => {
                    rewrite.flush(&self.input, up);
                    self.collide(up, &frame, &statement);
                }
                What::Parse { statement, .. } => {
                    rewrite.flush(&self.input, up);
                    let next = ops.as_slice().first().map(|next| &next.what);
                    let told = matches!(next, Some(What::DescribeStatement { statement: Some(one) }) if one.id == statement.id);
                    self.parse_named(up, &frame, statement, told);
                }
                What::RefusedParse(reply) => {
                    rewrite.flush(&self.input, up);
                    self.refuse_parse(up, *reply);
                }
                What::LongParse { named } => {
                    self.pins.large_statement |= named;
                    let mut replaced = Replaced::Nothing;
                    if !named {
                        replaced = self.replaced();
                        self.pins.large_unnamed = true;
                        up.forget_unnamed();
                    }
                    up.expect(
                        Expected::Parse {
                            statement: None,
                            client_name: None,
                            unnamed: !named,
                            replaced,
                            show: Show::Pass,
                        },
                        self,
                    );
                }
                What::Bind { statement, .. } => {
                    self.note_portal(&frame, statement.as_deref());
                    match statement {
                        Some(statement) => {
                            // Most are neither: they have been described on this server, and no DDL is known since.
                            let told = ops.as_slice().first().filter(|next| matches!(next.what, What::DescribePortal));
                            let worth = statement.is_shared()
                                && (!statement.is_read_under(self.scope) || up.prepared.undescribed(statement.id));
                            let statement = match told.filter(|_| worth) {
                                Some(next) if self.same_portal(&frame, next.len) => {
                                    let statement = self.renewed(&frame, statement);
                                    bound = Some(Arc::clone(&statement));
                                    statement
                                }
                                _ => statement,
                            };
                            self.bind(up, &mut rewrite, &statement, rest);
                        }
                        None => {
                            let bind = frontend::bind(&self.input[frame.clone()]);
                            let name: Box<[u8]> = bind.map_or_else(|_| [].into(), |bind| bind.statement.into());
                            self.keep_foreign(up, &mut rewrite, &name);
                        }
                    }
                    up.expect(Expected::Bind, self);
                }
                What::DescribeStatement { statement } => {
                    match &statement {
                        Some(statement) => self.describe(up, &mut rewrite, statement),
                        None => {
                            let name = self.target_name(&frame);
                            self.keep_foreign(up, &mut rewrite, &name);
                        }
                    }
                    let of =
                        statement.filter(|statement| statement.is_shared() && up.prepared.undescribed(statement.id));
                    up.expect(Expected::Describe { of }, self);
                }
                What::DescribePortal => {
                    let of = bound.take();
                    up.expect(Expected::Describe { of }, self);
                }
                What::Execute => {
                    up.expect(Expected::Execute, self);
                    self.restore_behind_execute(up, &mut rewrite, &frame);
                }
                What::Deallocate { name, statement } => {
                    rewrite.before(&self.input, up);
                    self.stand_in(up, &name);
                    up.expect(Expected::Deallocation(name, statement), self);
                }
                What::DeallocateAll(gone) => {
                    up.prepared.doubt_all();
                    up.expect(Expected::DeallocationAll(gone), self);
                    self.restore_behind_execute(up, &mut rewrite, &frame);
                }
                What::CloseStatement { held: Some(statement) } => {
                    let name = self.target_name(&frame);
                    rewrite.flush(&self.input, up);
                    if statement.momentary && up.prepared.touch(statement.id) {
                        // Nobody else will use it.
                        up.close(statement.id, self);
                    }
                    up.expect(Expected::Local { tag: b'3', client_name: name, statement: Some(statement) }, self);
                }
                What::CloseStatement { held: None } => {
                    let name = self.target_name(&frame);
                    self.keep_foreign(up, &mut rewrite, &name);
                    up.expect(Expected::Close { statement: None, show: Show::Pass }, self);
                }
                What::ClosePortal => up.expect(Expected::Close { statement: None, show: Show::Pass }, self),
                What::Flush | What::CopyData => {}
                What::CopyEnd => up.copy_ended(),
                What::Sync => up.expect(Expected::Sync, self),
            }
        }
        drop(ops);
        debug_assert_eq!(at, held, "every byte of the unit belongs to one message");
        if kept == 0 && up.output.is_empty() && at == self.input.len() {
            std::mem::swap(&mut self.input, &mut up.output);
        } else {
            up.output.extend_from_slice(&self.input[kept..at]);
            self.input.advance(at);
        }
        up.settle(self);
        // Its room serves the next unit.
        self.unit.ops = unit.ops;
        Forwarded { closed: unit.closed }
    }

    /// Moves more of a frame whose head was forwarded. Returns whether the frame is complete now.
    pub fn stream(&mut self, up: &mut Upstream) -> bool {
        let step = self.streaming.min(self.input.len());
        self.streaming -= step;
        if let Some(said) = &mut self.said {
            said.push(&self.input[..step]);
            if self.streaming == 0 {
                self.heard();
            }
        }
        if step == self.input.len() && up.output.is_empty() {
            std::mem::swap(&mut self.input, &mut up.output);
        } else {
            up.output.extend_from_slice(&self.input[..step]);
            self.input.advance(step);
        }
        self.streaming == 0
    }

    /// Whether a message may drop prepared statements by their names.
    pub(super) fn drops_statements(&self, what: &What) -> bool {
        let drops = |analysis: &Analysis| {
            analysis.shape.statements.iter().any(|statement| statement.kind == Kind::Deallocate)
                || analysis.shape.effects.any(Effects::DROPS_PREPARED)
        };
        match what {
            What::Query(analysis) => drops(analysis),
            What::Bind { statement: Some(statement), .. } => drops(&statement.analysis),
            What::LongQuery => true,
            _ => false,
        }
    }

    /// Before a name that the session does not know goes to the server as it is: it must not find there what is somebody
    /// else's.
    fn keep_foreign(&mut self, up: &mut Upstream, rewrite: &mut Rewrite<'_>, name: &[u8]) {
        let held = up.prepared.named(name);
        let may_be_ours = held.is_some() || name == Private::NAME || name.starts_with(b"pm_") && up.unready() > 0;
        if !(may_be_ours || name.is_empty() && !self.pins.large_unnamed) {
            return;
        }
        rewrite.before(&self.input, up);
        frontend::write_target(&mut up.output, b'C', b'S', name);
        up.expect(Expected::Close { statement: held, show: Show::Hide }, self);
        if name.is_empty() {
            up.forget_unnamed();
        }
    }

    #[inline]
    fn restore_behind_execute(&mut self, up: &mut Upstream, rewrite: &mut Rewrite<'_>, frame: &std::ops::Range<usize>) {
        if let Some(portal) = self.resets_by(&self.input[frame.clone()]) {
            rewrite.after(&self.input, up);
            self.restore_behind(&portal, up);
        }
    }

    fn target_name(&self, frame: &std::ops::Range<usize>) -> Box<[u8]> {
        // The frame was read as a Close before.
        frontend::target(&self.input[frame.clone()]).map_or_else(|_| [].into(), |target| target.name.into())
    }

    /// `told`: the client asks at once what the statement is like.
    fn parse_named(&mut self, up: &mut Upstream, frame: &std::ops::Range<usize>, statement: Arc<Prepared>, told: bool) {
        let name: Box<[u8]> = match frontend::parse(&self.input[frame.clone()]) {
            Ok(parse) => parse.name.into(),
            Err(_) => return,
        };
        // Groups in flight may yet fail the transaction, and in a failed one a Parse is refused.
        let sound = up.unready() == 0 && up.status() != TransactionStatus::Failed;
        if sound && up.prepared.fresh(statement.id, &self.settings) {
            up.expect(Expected::Local { tag: b'1', client_name: name, statement: Some(statement) }, self);
            return;
        }
        // Held, but perhaps no longer valid: only the server can say what a Parse would say now.
        let held = up.prepared.touch(statement.id);
        self.prepare(up, &statement, held, Some(name), Show::Pass);
        if !told && statement.leaves_types_open() {
            // The types that the client left open are the server's to choose, once.
            let name = statement.id.name();
            frontend::write_target(&mut up.output, b'D', b'S', &name);
            up.expect(Expected::Types(Arc::clone(&statement)), self);
        }
        if statement.can_be_settled() {
            self.ask_what_it_is_read_under(up, statement);
        }
    }

    /// Makes `up` hold `statement` under its name.
    fn ensure(&mut self, up: &mut Upstream, statement: &Arc<Prepared>) {
        let held = up.holds(statement.id);
        if held != Some(true) {
            // A group in flight may prepare it, or fail before it comes to that.
            self.prepare(up, statement, held.is_some(), None, Show::Hide);
        }
    }

    /// `held`: the server may hold it already.
    fn prepare(
        &mut self,
        up: &mut Upstream,
        statement: &Arc<Prepared>,
        held: bool,
        client_name: Option<Box<[u8]>>,
        show: Show,
    ) {
        if held || up.unready() > 0 {
            // Groups in flight may close it, or fail before they come to that.
            up.close(statement.id, self);
        }
        for victim in up.prepared.victims() {
            up.close(victim, self);
        }
        let name = statement.id.name();
        frontend::write_parse(&mut up.output, &name, &statement.text, statement.settled_types());
        let settings = Arc::clone(&self.settings);
        up.expect(
            Expected::Parse {
                statement: Some(Arc::clone(statement)),
                client_name,
                unnamed: false,
                replaced: Replaced::Nothing,
                show,
            },
            self,
        );
        up.prepared.parsed_under(statement.id, settings);
    }

    /// A Parse under a name that is taken: the server is made to say so itself, in its place in the pipeline.
    fn collide(&mut self, up: &mut Upstream, frame: &std::ops::Range<usize>, statement: &Arc<Prepared>) {
        let Ok(parse) = frontend::parse(&self.input[frame.clone()]) else { return };
        let name: Box<[u8]> = parse.name.into();
        if let Some(id) = up.prepared.named(&name) {
            frontend::write_target(&mut up.output, b'C', b'S', &name);
            up.expect(Expected::Close { statement: Some(id), show: Show::Hide }, self);
        }
        for (show, text) in [(Show::Hide, &b""[..]), (Show::Pass, &statement.text)] {
            frontend::write_parse(&mut up.output, &name, text, &[0, 0]);
            up.expect(Expected::stray_parse(show), self);
        }
        up.add_litter(name);
    }

    /// Lets the server have a statement without a text under a name of the client's, to be deallocated next.
    fn stand_in(&mut self, up: &mut Upstream, name: &[u8]) {
        frontend::write_target(&mut up.output, b'C', b'S', name);
        up.expect(Expected::Close { statement: up.prepared.named(name), show: Show::Hide }, self);
        frontend::write_parse(&mut up.output, name, b"", &[0, 0]);
        let (statement, client_name, replaced) = (None, None, Replaced::Nothing);
        up.expect(Expected::Parse { statement, client_name, unnamed: false, replaced, show: Show::Hide }, self);
    }

    fn bind(&mut self, up: &mut Upstream, rewrite: &mut Rewrite<'_>, statement: &Arc<Prepared>, rest: usize) {
        let Ok(bind) = frontend::bind(&self.input[rewrite.start..rewrite.end]) else { return };
        if bind.statement.is_empty() {
            self.ensure_unnamed(up, rewrite, statement);
            return;
        }
        let (portal, rest_at) = (bind.portal.to_vec(), rewrite.end - bind.rest.len());
        let rest_len = bind.rest.len() + rest;
        rewrite.flush(&self.input, up);
        self.ensure(up, statement);
        let name = statement.id.name();
        frontend::write_bind_head(&mut up.output, &portal, &name, rest_len);
        up.output.extend_from_slice(&self.input[rest_at..rewrite.end]);
    }

    fn describe(&mut self, up: &mut Upstream, rewrite: &mut Rewrite<'_>, statement: &Arc<Prepared>) {
        if self.input[rewrite.start + HEADER_LEN + 1] == 0 {
            self.ensure_unnamed(up, rewrite, statement);
            return;
        }
        rewrite.flush(&self.input, up);
        self.ensure(up, statement);
        let name = statement.id.name();
        frontend::write_target(&mut up.output, b'D', b'S', &name);
    }

    /// Whether a Bind is followed by the Describe of its portal.
    fn same_portal(&self, bind: &std::ops::Range<usize>, next: usize) -> bool {
        let target = frontend::target(&self.input[bind.end..bind.end + next]);
        let bind = frontend::bind(&self.input[bind.clone()]);
        matches!((bind, target), (Ok(bind), Ok(target)) if bind.portal == target.name)
    }

    /// The client is about to be told anew what the statement returns: if DDL is known since it was parsed, the same text read
    /// as it is now takes its place, and whatever has changed is not in its way. Not where its moment would be another.
    fn renewed(&mut self, bind: &std::ops::Range<usize>, statement: Arc<Prepared>) -> Arc<Prepared> {
        let alike = statement.is_read_under(self.scope) || !statement.finds_the_same(&self.settings);
        if alike || statement.momentary || self.sets_path() {
            return statement;
        }
        let reading = Reading { scope: self.scope, settings: Some(&self.settings), unsettled: false };
        let analysis = || statement.analysis.clone();
        let renewed = self.shared.registry.share(&statement.text, statement.settled_types(), reading, analysis);
        if let Ok(bind) = frontend::bind(&self.input[bind.clone()])
            && self.statements.get(bind.statement).is_some_and(|held| held.id == statement.id)
        {
            self.statements.remove(bind.statement);
            self.statements.insert(bind.statement, &renewed);
        }
        renewed
    }

    fn ensure_unnamed(&mut self, up: &mut Upstream, rewrite: &mut Rewrite<'_>, statement: &Arc<Prepared>) {
        if up.holds_unnamed(statement.id) {
            return;
        }
        rewrite.before(&self.input, up);
        frontend::write_parse(&mut up.output, b"", &statement.text, &statement.types);
        up.expect(
            Expected::Parse {
                statement: Some(Arc::clone(statement)),
                client_name: None,
                unnamed: true,
                replaced: Replaced::Nothing,
                show: Show::Hide,
            },
            self,
        );
    }
}

/// Where the run of bytes that go as they are begins, and the frame at hand.
struct Rewrite<'a> {
    kept: &'a mut usize,
    start: usize,
    end: usize,
}

impl Rewrite<'_> {
    /// Moves the run before the frame and leaves the frame out.
    fn flush(&mut self, input: &BytesMut, up: &mut Upstream) {
        up.output.extend_from_slice(&input[*self.kept..self.start]);
        *self.kept = self.end;
    }

    /// Moves the run up to the frame's end.
    fn after(&mut self, input: &BytesMut, up: &mut Upstream) {
        up.output.extend_from_slice(&input[*self.kept..self.end]);
        *self.kept = self.end;
    }

    /// Moves the run before the frame; the frame begins the next run.
    fn before(&mut self, input: &BytesMut, up: &mut Upstream) {
        up.output.extend_from_slice(&input[*self.kept..self.start]);
        *self.kept = self.start;
    }
}
