//! The idle connections of a pool: which of them goes to whom.
//!
//! Invariant: whoever asks gets one of the worker's own while there is any, unless all are kept for others; the rest, the one
//! used last first, so that the others can age.
//!
//! A session gets the connection back that it had last, within [`REACH`] and a while: its settings and prepared statements
//! are there, and what PostgreSQL keeps in the process alone (what `currval` tells, counts not yet flushed) most probably too.
//!
//! Deliberately absent: how many there may be, who waits.

use std::time::{Duration, Instant};

use super::Server;

/// How many of the idle connections are searched for a certain one.
const REACH: usize = 64;

/// A connection idle for longer is nobody's any more: were each session to keep its own alive, none would age.
const WARM: Duration = Duration::from_secs(10);

/// The same of one that is kept for a session.
const KEPT: Duration = Duration::from_secs(60);

/// Which connection would do best. Any other will do as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The one with this number.
    Again(u64),
    /// One that has run nothing yet.
    New,
}

impl Wish {
    /// None in particular.
    pub const ANY: Self = Self::Again(0);
}

/// Idle connections, one list a worker.
#[derive(Debug)]
pub(super) struct Idle {
    lists: Vec<Vec<Entry>>,
    count: usize,
    /// When [`Pool::tidy`](super::Pool::tidy) was called last: time enough for ages, and no clock is read when a connection
    /// comes back.
    pub(super) now: Instant,
    /// How often it was called.
    ticks: u64,
    /// Connections that hold what `currval` may tell a session are kept from others.
    pub(super) keeps_sequences: bool,
}

#[derive(Debug)]
struct Entry {
    server: Box<Server>,
    /// The server's.
    number: u64,
    since: Instant,
    /// [`Idle::ticks`] then.
    tick: u64,
    /// It holds one session's sequence values.
    kept: bool,
}

impl Idle {
    pub(super) fn new(workers: usize) -> Self {
        let lists = (0..workers.max(1)).map(|_| Vec::new()).collect();
        Self { lists, count: 0, now: Instant::now(), ticks: 0, keeps_sequences: false }
    }

    /// Time has gone on. Call it about once a second.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        self.ticks += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn put(&mut self, server: Box<Server>) {
        let list = server.worker % self.lists.len();
        let entry = Entry {
            number: server.number,
            since: self.now,
            tick: self.ticks,
            kept: self.keeps_sequences && server.upstream.sequences.of_one(),
            server,
        };
        self.lists[list].push(entry);
        self.count += 1;
    }

    /// The one that suits `wish` best of the worker's own, if there is one that is not kept for somebody else.
    pub(super) fn take(&mut self, worker: usize, wish: Wish) -> Option<Box<Server>> {
        let list = worker % self.lists.len();
        let list = &mut self.lists[list];
        let last = list.last()?;
        let Wish::Again(number) = wish else { return None };
        let now = self.now;
        let idle = |entry: &Entry| now.saturating_duration_since(entry.since);
        let entry = if last.number == number {
            list.pop()
        } else {
            let reach = list.len().saturating_sub(REACH);
            let limit = |entry: &Entry| if entry.kept { KEPT } else { WARM };
            let own = list[reach..].iter().rposition(|entry| entry.number == number && idle(entry) < limit(entry));
            let place = match own {
                Some(place) => reach + place,
                None if self.keeps_sequences => list.iter().rposition(|entry| !entry.kept || idle(entry) >= KEPT)?,
                None => list.len() - 1,
            };
            Some(list.remove(place))
        };
        self.count -= 1;
        entry.map(|entry| entry.server)
    }

    /// Any worker's, also what is kept: the one that was idle for the longest time then.
    pub(super) fn take_any(&mut self) -> Option<Box<Server>> {
        let list = self.lists.iter_mut().max_by_key(|list| list.len())?;
        let entry = if self.keeps_sequences && !list.is_empty() { Some(list.remove(0)) } else { list.pop() };
        self.count -= usize::from(entry.is_some());
        entry.map(|entry| entry.server)
    }

    pub(super) fn take_all(&mut self) -> Vec<Box<Server>> {
        self.count = 0;
        self.lists.iter_mut().flat_map(std::mem::take).map(|entry| entry.server).collect()
    }

    /// All of them, to be looked at.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.lists.iter().flatten().map(|entry| &*entry.server)
    }

    /// One that was idle from one tick to the next: what came back just before a tick was used lately, whatever its age says, and
    /// a process that stood still for a while has used nothing.
    pub(super) fn take_unused(&mut self) -> Option<Box<Server>> {
        let ticks = self.ticks;
        let unused = |entry: &Entry| ticks - entry.tick >= 2;
        // The first of a list has been idle for longest.
        let list = self.lists.iter_mut().find(|list| list.first().is_some_and(unused))?;
        self.count -= 1;
        Some(list.remove(0).server)
    }

    /// Those that are lost or older than `lifetime`, and those idle for `timeout` or longer as long as more than `min` stay.
    pub(super) fn expired(
        &mut self,
        min: usize,
        timeout: Option<Duration>,
        lifetime: Option<Duration>,
    ) -> Vec<Box<Server>> {
        let (now, mut gone) = (self.now, Vec::new());
        let mut surplus = self.count.saturating_sub(min);
        for list in &mut self.lists {
            let mut index = 0;
            while index < list.len() {
                let entry = &mut list[index];
                let idle = now.saturating_duration_since(entry.since);
                let idle_out = surplus > 0 && timeout.is_some_and(|limit| idle >= limit);
                let aged = lifetime.is_some_and(|limit| entry.server.age(now) >= limit);
                if idle_out || aged || !entry.server.still_alive() {
                    gone.push(list.remove(index).server);
                    surplus = surplus.saturating_sub(1);
                    self.count -= 1;
                } else {
                    index += 1;
                }
            }
        }
        gone
    }
}
