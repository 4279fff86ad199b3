//! LISTEN without a server connection per listener: what a session listens to moves to one connection that all sessions of
//! its account share.
//!
//! Invariant: a session hears each notification of a channel exactly once, in the order in which they were sent, from the
//! commit of its LISTEN on, or it is ended with 57P01. What it listens to is what servers said at the end of its
//! transactions: no text says it.
//!
//! How: the client's LISTEN runs on the session's server. When that is idle it is asked for its channels, and they are handed
//! over ([`handover`]): the shared connection listens too, then a notification of the gateway's own, the marker, splits the
//! order that all listeners of a database hear: what comes before it the session has from its server, what comes after it
//! from the shared connection ([`shared`]), through a queue of its own ([`mailbox`]). Before a transaction block, and before a
//! statement that may ask about channels or end listening, the session's server listens to all of them again, outside of the
//! transaction; it is asked again afterwards, and what it listens to then is what the session listens to.
//!
//! Whoever was notified finds what was committed: to its reads, a notification is a write of the session's own. One place in the order of
//! writes is taken for each notification, by the shared connection, and whoever has heard joins the last ([`Ear::join`]).
//!
//! The shared connection is opened for the first listener, has a place in the budget, is closed when nobody has listened for
//! a few seconds, and is never opened again behind the back of those who listened.
//!
//! Approximate: a session that listens to more channels later may hear of the new ones and of the old ones in another order
//! around that moment. Outside of a transaction block, a function or view that asks for channels, or ends listening, without
//! the statement's text saying so, concerns the session's server alone. Who notified: `upstream::Notifiers`.
//!
//! Deliberately absent: session pooling, and sessions that have other reasons to keep their server: both listen there.

mod handover;
mod mailbox;
mod shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot};

use super::context::Context;
use crate::admin::Listening;
use crate::control::{Account, Cluster};
use crate::topology::{Node, Topology, Writes};
pub(super) use mailbox::{Mailbox, Next};

/// What a place in the order of notifications is known by.
type Ticket = u128;

/// A channel's name as an audit gives it.
type Channel = Box<[u8]>;

/// Most channels of one session on the shared connection; one with more stays on its server.
const CHANNELS: usize = 1024;

/// An account's number and a node's.
type Place = (u64, usize);

/// All shared connections of a gateway.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The channel of the gateway's own on which the orders of notifications are aligned.
    marker: Box<str>,
    shared: Mutex<HashMap<Place, Arc<Shared>>>,
}

/// A shared connection, as sessions see it.
#[derive(Debug)]
pub(super) struct Shared {
    place: Place,
    account: Arc<Account>,
    /// Unbounded, but for what sends: a session has one Join at most in it, and a Leave for each.
    commands: mpsc::UnboundedSender<Command>,
    sessions: AtomicUsize,
    channels: AtomicUsize,
    /// Bounds the commits that it has brought notifications of.
    brought: Mutex<Writes>,
}

/// What a session asks of the shared connection.
#[derive(Debug)]
enum Command {
    /// Listen to these, and let `mailbox` have what comes behind the marker with `ticket`.
    Join { mailbox: Arc<Mailbox>, ticket: Ticket, channels: Vec<Channel>, done: oneshot::Sender<Result<(), String>> },
    /// Forget these.
    Leave { mailbox: Arc<Mailbox>, channels: Vec<(Channel, Ticket)> },
    /// Somebody wants the database to themselves.
    Vacate,
}

/// A session's place on a shared connection; what it listened to there ends with it.
#[derive(Debug)]
pub(super) struct Ear {
    shared: Arc<Shared>,
    pub(super) mailbox: Arc<Mailbox>,
    channels: Vec<(Channel, Ticket)>,
    /// The client was told of some that its reads do not take into account yet.
    told: bool,
}

impl Listeners {
    pub(super) fn new() -> Self {
        let marker = format!("pointsman_{:016x}", rand::rng().next_u64()).into();
        Self { marker, shared: Mutex::default() }
    }

    /// Numbers for metrics.
    pub(super) fn counts(&self) -> Listening {
        let shared = self.shared.lock();
        let sum = |of: fn(&Shared) -> &AtomicUsize| shared.values().map(|s| of(s).load(Ordering::Relaxed)).sum();
        Listening { connections: shared.len(), sessions: sum(|s| &s.sessions), channels: sum(|s| &s.channels) }
    }

    /// Gives `ear` (`None`: a new one) these channels from the marker with `ticket` on. Resolves when the shared connection listens.
    ///
    /// # Errors
    /// Why it does not; the ear has what it had.
    async fn join(
        context: &Arc<Context>,
        account: &Arc<Account>,
        node: &Arc<Node>,
        worker: usize,
        ear: &mut Option<Box<Ear>>,
        ticket: Ticket,
        channels: &[Channel],
    ) -> Result<(), String> {
        let (done, joined) = oneshot::channel();
        {
            let place = (account.id, node.number);
            let mut all = context.listeners.shared.lock();
            let held = all.get(&place);
            if let Some(ear) = ear
                && held.is_none_or(|held| !Arc::ptr_eq(held, &ear.shared))
            {
                return Err("the session listens elsewhere".to_owned());
            }
            let shared = match held {
                Some(shared) => Arc::clone(shared),
                None => {
                    let (commands, receiver) = mpsc::unbounded_channel();
                    let shared = Arc::new(Shared {
                        place,
                        account: Arc::clone(account),
                        commands,
                        sessions: AtomicUsize::new(0),
                        channels: AtomicUsize::new(0),
                        brought: Mutex::default(),
                    });
                    all.insert(place, Arc::clone(&shared));
                    let (context, node) = (Arc::clone(context), Arc::clone(node));
                    tokio::spawn(shared::run(context, Arc::clone(&shared), node, worker, receiver));
                    shared
                }
            };
            let ear = ear.get_or_insert_with(|| Box::new(Ear::new(Arc::clone(&shared))));
            ear.mailbox.take_up(ticket, channels);
            ear.channels.extend(channels.iter().map(|channel| (channel.clone(), ticket)));
            let mailbox = Arc::clone(&ear.mailbox);
            // Under the lock: the connection is not closed in between.
            let _ = shared.commands.send(Command::Join { mailbox, ticket, channels: channels.to_vec(), done });
        }
        let answer = match crate::net::timeout(shared::JOIN, joined).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the shared connection was lost".to_owned()),
            Err(_) => Err(format!("the shared connection did not listen within {:?}", shared::JOIN)),
        };
        if answer.is_err() {
            Self::withdraw(ear, ticket);
        }
        answer
    }

    /// A statement wants these databases of a cluster's to itself: connections that listen for nobody close at once. One that
    /// somebody listens through is in the way, as a listener's own would be.
    pub(super) fn vacate(&self, cluster: &Arc<Cluster>, databases: &[Box<str>]) {
        let concerned =
            |account: &Account| Arc::ptr_eq(&account.cluster, cluster) && databases.contains(&account.dbname);
        for shared in self.shared.lock().values().filter(|shared| concerned(&shared.account)) {
            // One that is gone is in nobody's way.
            let _ = shared.commands.send(Command::Vacate);
        }
    }

    /// Undoes a [`Listeners::join`].
    fn withdraw(ear: &mut Option<Box<Ear>>, ticket: Ticket) {
        if let Some(held) = ear {
            held.leave(|_, at| at == ticket);
            ear.take_if(|held| held.channels.is_empty());
        }
    }

    /// Ends a shared connection: nobody finds it any more, and what was asked of it and not answered is refused.
    fn close(&self, shared: &Shared, commands: &mut mpsc::UnboundedReceiver<Command>, reason: &str) {
        self.shared.lock().remove(&shared.place);
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Join { done, mailbox, .. } = command {
                // A session that was asking for more hears nothing of the rest either.
                mailbox.end(reason);
                let _ = done.send(Err(reason.to_owned()));
            }
        }
    }

    /// As [`Listeners::close`], unless somebody has just asked for something.
    fn close_if_idle(&self, shared: &Shared, commands: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut all = self.shared.lock();
        let idle = commands.is_empty();
        if idle {
            all.remove(&shared.place);
        }
        idle
    }
}

impl Ear {
    fn new(shared: Arc<Shared>) -> Self {
        shared.sessions.fetch_add(1, Ordering::Relaxed);
        Self { shared, mailbox: Arc::default(), channels: Vec::new(), told: false }
    }

    /// What the client was told of is to be seen by a session that wrote `writes`.
    fn join(&mut self, topology: &Topology, writes: &mut Writes) {
        if std::mem::take(&mut self.told) {
            let mut brought = self.shared.brought.lock();
            brought.forget_passed(topology);
            writes.join(&brought);
        }
    }

    /// Gives up the channels that `gone` names.
    fn leave(&mut self, gone: impl Fn(&[u8], Ticket) -> bool) {
        let channels: Vec<_> = self.channels.extract_if(.., |(channel, ticket)| gone(channel, *ticket)).collect();
        if channels.is_empty() {
            return;
        }
        self.mailbox.lay_down(&channels);
        // A connection that is gone has forgotten them.
        let _ = self.shared.commands.send(Command::Leave { mailbox: Arc::clone(&self.mailbox), channels });
    }

    fn names(&self) -> Vec<Channel> {
        self.channels.iter().map(|(channel, _)| channel.clone()).collect()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.leave(|_, _| true);
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
