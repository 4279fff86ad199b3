//! The sockets of one conversation: bytes move as far as they can, then something is to be decided or awaited.
//!
//! Invariant: a side is read only while the other side takes what came before, so that a conversation never holds more
//! than one chunk each way, whatever is sent.
//!
//! Deliberately absent: decisions.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use super::drive::Conversation;
use super::io::{Buffers, CHUNK};
use super::private::GIVEN_UP;
use super::rerun::{self, Look};
use crate::net::Stream;
use crate::pool::Server;
use crate::session::Pull;
use crate::upstream::Copy;
use crate::wire::{Malformed, TransactionStatus, frontend};

/// What a conversation has come to.
#[derive(Debug)]
pub(super) enum Event {
    /// A unit wants a decision.
    Unit,
    /// The server has answered all and is in no transaction.
    Settle,
    /// The client said goodbye.
    Terminate,
    /// The client will send no more, and there is something left to do for it.
    HalfClosed,
    /// It has taken no answer for too long.
    Overdue,
    /// It has not asked for its sequence values in time.
    Lingered,
    /// A question that was not answered in time may be asked again.
    AsksAgain,
    /// The client's connection ended or broke, or all is done that it sent before it said that it will send no more.
    ClientGone,
    /// A read failed on a replica and may run again.
    Again,
    /// The server's connection ended, broke, or was told to end.
    ServerLost(String),
    /// The client does not speak the protocol.
    Violation(Malformed),
    /// The session hears of no notifications any more, and why.
    Deaf(Box<str>),
    /// The gateway stops, and the session is between transactions.
    Drained,
}

impl Conversation {
    /// Moves bytes until something happens. Cancel-safe: what was moved is where it belongs.
    pub(super) fn poll_event(&mut self, task: &mut TaskContext<'_>) -> Poll<Event> {
        loop {
            // What the client is told of its settings belongs before the ReadyForQuery that waits in the output.
            if self.session.audit_due() && self.may_settle() {
                return Poll::Ready(Event::Settle);
            }
            if self.ear.is_some()
                && let Some(event) = self.hear(task)
            {
                return Poll::Ready(event);
            }
            let waiting = self.session.output.len();
            if waiting > 0 || self.client.unflushed() {
                if write_out(&mut self.client, &mut self.session.output, task).is_err() {
                    return Poll::Ready(Event::ClientGone);
                }
                let written = waiting - self.session.output.len();
                self.takes_answers |= written > 0;
                self.counters().sent.add(written as u64);
            }
            if self.ear.is_some() && self.hears_more() {
                continue;
            }
            if self.may_settle() && self.heard_out() {
                // What it says of itself from now on is found when it is lent again.
                return Poll::Ready(Event::Settle);
            }
            match self.exchange_with_server(task) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(event) => return Poll::Ready(event),
            }
            if self.may_settle() {
                return Poll::Ready(Event::Settle);
            }
            self.handle.shows(self.session.status());
            if let Some(event) = ready!(self.poll_client(task)) {
                return Poll::Ready(event);
            }
        }
    }

    /// Sends what waits for the server and takes what it has sent. `true`: something was delivered.
    fn exchange_with_server(&mut self, task: &mut TaskContext<'_>) -> Result<bool, Event> {
        let Some(lent) = &mut self.held else { return Ok(false) };
        let Server { stream, upstream, gate, .. } = &mut **lent;
        if !upstream.output.is_empty() || stream.unflushed() {
            write_out(stream, &mut upstream.output, task).map_err(|error| Event::ServerLost(error.to_string()))?;
        }
        if !self.session.output.is_empty() {
            return Ok(false);
        }
        let fresh = upstream.input.is_empty();
        if fresh {
            Buffers::lend(&mut upstream.input);
        }
        upstream.input.reserve(if upstream.at_frame_edge() { CHUNK / 2 } else { CHUNK });
        match poll_read_buf(Pin::new(stream), task, &mut upstream.input) {
            Poll::Pending => {
                // A server at work will need it soon.
                if fresh && self.settled {
                    Buffers::take_back(&mut upstream.input);
                }
                if self.rerun.armed().is_some() {
                    gate.watch(task.waker());
                    if lent.pool().node.given_up() {
                        return Err(Event::ServerLost(GIVEN_UP.to_owned()));
                    }
                }
                Ok(false)
            }
            Poll::Ready(Ok(0)) => Err(Event::ServerLost("the server closed the connection".to_owned())),
            Poll::Ready(Err(error)) => Err(Event::ServerLost(error.to_string())),
            Poll::Ready(Ok(_)) => {
                if let Some(fault) = self.rerun.armed() {
                    match rerun::look(&upstream.input, fault) {
                        Look::More => return Ok(true),
                        Look::Pass => self.rerun.disarm(),
                        Look::Again | Look::Lost => return Err(Event::Again),
                    }
                }
                upstream.deliver(&mut self.session).map_err(|error| Event::ServerLost(error.to_string()))?;
                if upstream.input.is_empty() {
                    Buffers::take_back(&mut upstream.input);
                }
                if upstream.broken() {
                    return Err(Event::ServerLost(String::new()));
                }
                Ok(true)
            }
        }
    }

    /// Reads on in what the client sends. `Ready(None)`: bytes moved on, go round again.
    fn poll_client(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Event>> {
        let (copy, busy, room) = match &self.held {
            Some(lent) => (lent.upstream.copy(), lent.upstream.unready() > 0, lent.upstream.output.is_empty()),
            None => (Copy::None, false, true),
        };
        if !room && !self.half_closed {
            // The server's socket is full; its readiness to write wakes the task. What the client sends can wait.
            return Poll::Pending;
        }
        let waits =
            self.awaits_group && self.held.as_ref().is_some_and(|lent| self.session.awaits_answers(&lent.upstream));
        let blocked = waits || self.blocked && busy;
        if !blocked && !self.session.input.is_empty() {
            (self.blocked, self.awaits_group) = (false, false);
            self.session.scope.schema = self.account.cluster.schema();
            match self.session.pull(copy, busy) {
                Pull::Unit => return Poll::Ready(Some(Event::Unit)),
                Pull::Terminate if self.session.output.is_empty() => return Poll::Ready(Some(Event::Terminate)),
                // Its answers have not all gone out.
                Pull::Terminate => {}
                Pull::Violation(error) => return Poll::Ready(Some(Event::Violation(error))),
                Pull::Stream => {
                    if room && self.stream_on(copy, busy) {
                        return Poll::Ready(None);
                    }
                    if !room {
                        // The server's socket is full; its readiness to write wakes the task.
                        return Poll::Pending;
                    }
                }
                Pull::Wait => {}
            }
        }
        if self.half_closed {
            return self.work_off();
        }
        if (!self.hears_drain || self.context.draining()) && self.may_drain() {
            self.hears_drain = true;
            return match self.drained.as_mut().poll(task) {
                Poll::Ready(()) => Poll::Ready(Some(Event::Drained)),
                Poll::Pending => self.read_client(task),
            };
        }
        self.read_client(task)
    }

    fn read_client(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Event>> {
        let room = self.session.room();
        if room == 0 {
            return Poll::Pending;
        }
        let input = &mut self.session.input;
        let fresh = input.is_empty();
        if fresh {
            Buffers::lend(input);
        }
        input.reserve(room.min(CHUNK));
        match poll_read_buf(Pin::new(&mut self.client), task, input) {
            Poll::Pending => {
                if fresh && (self.held.is_none() || self.settled) {
                    Buffers::take_back(input);
                }
                Poll::Pending
            }
            Poll::Ready(Ok(read)) if read > 0 => {
                self.counters().received.add(read as u64);
                Poll::Ready(None)
            }
            Poll::Ready(Ok(_)) => {
                self.half_closed = true;
                Poll::Ready(None)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Some(Event::ClientGone)),
        }
    }

    /// The client will send no more, and nothing of what it sent can go on now: what it was not answered yet is awaited.
    fn work_off(&mut self) -> Poll<Option<Event>> {
        let mut owed = !self.session.output.is_empty();
        if let Some(lent) = self.held.as_mut().filter(|_| !self.settled) {
            let up = &mut lent.upstream;
            let open = self.session.streaming() || up.copy() != Copy::None;
            owed |= if open { !up.output.is_empty() } else { !up.quiet() };
            if owed && !open && up.unready() == 0 && self.session.in_group() && !self.asked_to_flush {
                // No Sync will come: the server is made to say what it has to say.
                self.asked_to_flush = true;
                frontend::frame(&mut up.output, b'H', |_| {});
                return Poll::Ready(None);
            }
        }
        match (owed, self.leaves) {
            (false, _) => Poll::Ready(Some(Event::ClientGone)),
            (true, None) => Poll::Ready(Some(Event::HalfClosed)),
            (true, Some(_)) => Poll::Pending,
        }
    }

    /// Moves COPY data, or more of a long frame, to the server's output: all that there is, so that the end of one frame
    /// and the beginning of the next go out in one write.
    fn stream_on(&mut self, copy: Copy, busy: bool) -> bool {
        let Some(lent) = &mut self.held else { return false };
        loop {
            if self.session.streaming() {
                self.session.stream(&mut lent.upstream);
            } else {
                self.session.forward(&mut lent.upstream);
            }
            let more = !self.session.input.is_empty() && lent.upstream.copy() == copy;
            if !more || self.session.pull(copy, busy) != Pull::Stream {
                return true;
            }
        }
    }

    fn may_settle(&self) -> bool {
        !self.settled && self.rests_in(TransactionStatus::Idle)
    }

    /// Whether all that was read from the server has been delivered.
    fn heard_out(&self) -> bool {
        self.held.as_ref().is_some_and(|lent| lent.upstream.input.is_empty())
    }

    /// Whether nothing is in flight and the server held is in this state.
    fn rests_in(&self, status: TransactionStatus) -> bool {
        !self.session.in_group()
            && !self.session.streaming()
            && self.held.as_ref().is_some_and(|lent| lent.upstream.quiet() && lent.upstream.status() == status)
    }
}

/// Writes as much as the socket takes, what TLS has held back since the last time included. An error means that the peer is
/// gone.
fn write_out(stream: &mut Stream, out: &mut BytesMut, task: &mut TaskContext<'_>) -> std::io::Result<()> {
    while !out.is_empty() {
        match Pin::new(&mut *stream).poll_write(task, out) {
            Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(written)) => out.advance(written),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    // Plain sockets have nothing to flush; TLS may hold records back, and then its readiness to write wakes the task.
    if let Poll::Ready(Err(error)) = Pin::new(stream).poll_flush(task) {
        return Err(error);
    }
    if out.is_empty() {
        Buffers::take_back(out);
    }
    Ok(())
}
