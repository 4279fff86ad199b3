//! Notifications that wait for their session to be idle.
//!
//! Invariant: a session has in it what its tickets admit, in the order in which it came, and no more than [`LIMIT`]; what
//! does not fit ends the mailbox, which holds nothing then. Its lock is held for a few instructions and never across an await.
//!
//! Deliberately absent: encodings, and who is idle.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Channel, Ticket};
use crate::wire::backend;

/// Bytes of notifications that wait for one session, with what keeping them costs.
const LIMIT: usize = 1 << 20;

/// What keeping one costs: its place in the queue, its allocation.
const COST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(in super::super) struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// What the session listens to, and from which place in the order on.
    tickets: HashMap<Channel, Ticket, foldhash::fast::RandomState>,
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Why nothing comes any more.
    ended: Option<Box<str>>,
    waker: Option<Waker>,
}

/// What a session finds in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Next {
    /// A NotificationResponse.
    Frame(Bytes),
    /// Nothing now.
    Nothing,
    /// Nothing any more, and why.
    Ended(Box<str>),
}

impl Mailbox {
    /// The session wants these channels from `ticket` on.
    pub(super) fn take_up(&self, ticket: Ticket, channels: &[Channel]) {
        self.0.lock().tickets.extend(channels.iter().map(|channel| (channel.clone(), ticket)));
    }

    /// The session no longer listens to these: what of them waits is not told.
    pub(super) fn lay_down(&self, channels: &[(Channel, Ticket)]) {
        let mut inner = self.0.lock();
        let Inner { tickets, queue, bytes, .. } = &mut *inner;
        for (channel, _) in channels {
            tickets.remove(channel);
        }
        queue.retain(|frame| {
            let kept = backend::notification(frame).is_ok_and(|told| tickets.contains_key(told.channel));
            *bytes -= if kept { 0 } else { frame.len() + COST };
            kept
        });
    }

    /// A notification came on a channel that is live under `ticket`.
    pub(super) fn push(&self, channel: &[u8], ticket: Ticket, frame: &Bytes) {
        let mut inner = self.0.lock();
        if inner.ended.is_some() || inner.tickets.get(channel) != Some(&ticket) {
            return;
        }
        inner.bytes += frame.len() + COST;
        if inner.bytes > LIMIT {
            inner.end("more notifications wait for the client than the gateway keeps: it has not read them, or not ended its transaction");
        } else {
            inner.queue.push_back(frame.clone());
        }
        wake(inner);
    }

    /// Nothing will come any more.
    pub(super) fn end(&self, reason: &str) {
        let mut inner = self.0.lock();
        inner.end(reason);
        wake(inner);
    }

    /// Wakes the session's task at the next change.
    pub(in super::super) fn watch(&self, waker: &Waker) {
        let mut inner = self.0.lock();
        if inner.waker.as_ref().is_none_or(|held| !held.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
    }

    /// Takes the next.
    pub(in super::super) fn next(&self) -> Next {
        let mut inner = self.0.lock();
        if let Some(frame) = inner.queue.pop_front() {
            inner.bytes -= frame.len() + COST;
            return Next::Frame(frame);
        }
        inner.ended.clone().map_or(Next::Nothing, Next::Ended)
    }

    /// Whether [`Mailbox::next`] has something to say.
    pub(in super::super) fn waits(&self) -> bool {
        let inner = self.0.lock();
        !inner.queue.is_empty() || inner.ended.is_some()
    }

    /// Whether nothing will come any more, whatever still waits: the client takes none of it.
    pub(in super::super) fn overflowed(&self) -> Option<Box<str>> {
        let inner = self.0.lock();
        inner.ended.clone().filter(|_| inner.queue.is_empty())
    }
}

impl Inner {
    fn end(&mut self, reason: &str) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(reason.into());
        if self.bytes > LIMIT {
            self.queue = VecDeque::new();
            self.bytes = 0;
        }
    }
}

fn wake(mut inner: parking_lot::MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn frame(channel: &str, payload: &str) -> Bytes {
        let mut out = BytesMut::new();
        backend::write_notification(&mut out, 1, channel.as_bytes(), payload.as_bytes());
        out.freeze()
    }

    #[test]
    fn tickets_admit_and_laying_down_forgets() {
        let mailbox = Mailbox::default();
        let (a, b): (Channel, Channel) = (b"a"[..].into(), b"b"[..].into());
        mailbox.take_up(1, &[a.clone(), b.clone()]);
        mailbox.push(b"a", 1, &frame("a", "1"));
        mailbox.push(b"b", 1, &frame("b", "2"));
        mailbox.push(b"a", 2, &frame("a", "of another ticket"));
        mailbox.push(b"c", 1, &frame("c", "of another channel"));
        mailbox.lay_down(&[(a, 1)]);
        assert_eq!(mailbox.next(), Next::Frame(frame("b", "2")));
        assert_eq!(mailbox.next(), Next::Nothing);
        mailbox.end("over");
        mailbox.push(b"b", 1, &frame("b", "3"));
        assert_eq!(mailbox.next(), Next::Ended("over".into()));
    }

    #[test]
    fn the_bound_ends_it_and_frees_what_it_held() {
        let mailbox = Mailbox::default();
        mailbox.take_up(1, &[b"a"[..].into()]);
        let large = frame("a", &"x".repeat(7000));
        let room = LIMIT / (large.len() + COST);
        for _ in 0..room {
            mailbox.push(b"a", 1, &large);
        }
        assert_eq!(mailbox.overflowed(), None);
        mailbox.push(b"a", 1, &large);
        assert!(mailbox.overflowed().is_some() && mailbox.waits());
        {
            let inner = mailbox.0.lock();
            assert_eq!((inner.bytes, inner.queue.capacity()), (0, 0));
        }
        assert!(matches!(mailbox.next(), Next::Ended(_)));
    }
}
