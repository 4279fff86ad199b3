//! The connection that listens for all sessions of an account.
//!
//! Invariant: what is sent on it is answered in its order, so that a channel is listened to when its Join is answered and no
//! longer when its last listener has left. When it ends, for whatever reason, every mailbox that it fed is ended.
//!
//! Deliberately absent: opening it again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::context::Context;
use super::super::io;
use super::{Channel, Command, Mailbox, Shared, Ticket};
use crate::control::Account;
use crate::net;
use crate::pool::{CheckoutError, Dedicated, Server};
use crate::session::channel_sql;
use crate::topology::{Node, Role};
use crate::upstream::{Expected, Receiver};
use crate::wire::backend::{self, frames};
use crate::wire::frontend;

/// How long a session waits until the shared connection listens, before it stays on its server.
pub(super) const JOIN: Duration = Duration::from_secs(5);

/// How long the connection stays open for nobody.
const LINGER: Duration = Duration::from_secs(3);

/// How long it does not, once somebody wants its database to themselves: PostgreSQL waits so long for the other connections to
/// a database to end (`CountOtherDBBackends` in `procarray.c`).
const VACATED: Duration = Duration::from_secs(5);

/// How often it is looked after.
const TICK: Duration = Duration::from_secs(1);

/// A connection on which nothing was heard for this long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(10);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// What no setting of the account's may cut short.
const LIMITS_SQL: &str = "SELECT pg_catalog.set_config(name, '0', false) IS NULL FROM pg_catalog.pg_settings \
WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['statement_timeout', 'lock_timeout', 'idle_session_timeout'])";

/// Opens the connection and serves sessions until nobody listens or it is lost.
pub(super) async fn run(
    context: Arc<Context>,
    shared: Arc<Shared>,
    node: Arc<Node>,
    worker: usize,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let lost = match open(&context, &shared.account, &node, worker).await {
        Ok(connection) => {
            tracing::debug!(node = %node.spec.name, database = %shared.account.database, "a shared connection listens");
            let mut serving = Serving::new(&context, &shared, node, connection);
            let lost = serving.serve(&mut commands).await;
            if let Some(reason) = &lost {
                serving.end_all(reason);
            }
            lost
        }
        Err(error) => {
            tracing::warn!(node = %node.spec.name, %error, "no shared connection for LISTEN: sessions keep their servers");
            Some(error.to_string())
        }
    };
    if let Some(reason) = lost {
        context.listeners.close(&shared, &mut commands, &reason);
    }
}

async fn open(context: &Context, account: &Account, node: &Node, worker: usize) -> Result<Dedicated, CheckoutError> {
    let pool = account.pool_config();
    let name = ("application_name".into(), "pointsman LISTEN".into());
    let connector = account
        .cluster
        .connector(node, &account.user, &account.dbname, account.credentials.clone(), &pool)
        .with_startup([name]);
    Dedicated::open(&context.budget, &connector, worker).await
}

/// Where what a session listens to goes.
#[derive(Debug)]
struct Subscriber {
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

/// A question that the server has not answered yet.
#[derive(Debug)]
struct Pending {
    since: Instant,
    /// Who waits for it. Without one, an error ends the connection.
    join: Option<(Ticket, oneshot::Sender<Result<(), String>>)>,
}

/// The connection at work.
struct Serving<'a> {
    context: &'a Context,
    shared: &'a Shared,
    node: Arc<Node>,
    connection: Dedicated,
    heard: Heard,
    pending: VecDeque<Pending>,
    /// The error in the answer that is being read.
    error: Option<String>,
    live: HashMap<Channel, Vec<Subscriber>>,
    /// What becomes live with the marker.
    waiting: HashMap<Ticket, (Arc<Mailbox>, Vec<Channel>)>,
    /// Listeners of each channel, live and waiting; without any, the server is told to forget it.
    listeners: HashMap<Channel, usize>,
    /// When the last left.
    deserted: Option<Instant>,
    /// When somebody wanted the database to themselves.
    vacated: Option<Instant>,
    last_heard: Instant,
}

impl<'a> Serving<'a> {
    fn new(context: &'a Context, shared: &'a Shared, node: Arc<Node>, connection: Dedicated) -> Self {
        let mut serving = Self {
            context,
            shared,
            node,
            connection,
            heard: Heard::default(),
            pending: VecDeque::new(),
            error: None,
            live: HashMap::new(),
            waiting: HashMap::new(),
            listeners: HashMap::new(),
            deserted: None,
            vacated: None,
            last_heard: Instant::now(),
        };
        let raw = serving.connection.server.upstream.parameters.value(b"server_encoding") == Some(b"SQL_ASCII");
        serving.ask(&format!("SET client_encoding = '{}'", if raw { "SQL_ASCII" } else { "UTF8" }), None);
        serving.ask(LIMITS_SQL, None);
        serving.ask(&format!("LISTEN {}", channel_sql(&context.listeners.marker)), None);
        serving
    }

    /// Returns why the connection was lost; `None`: nobody needs it any more, and nobody finds it.
    async fn serve(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Option<String> {
        let mut tick = Box::pin(net::sleep(TICK));
        loop {
            let Server { stream, upstream, .. } = &mut self.connection.server;
            match net::timeout(ANSWER, io::write(stream, &mut upstream.output)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(self.lost(&error.to_string())),
                Err(_) => return Some(self.lost("the server takes nothing")),
            }
            let Server { stream, upstream, .. } = &mut self.connection.server;
            tokio::select! {
                read = io::read(stream, &mut upstream.input) => {
                    if let Err(error) = read {
                        return Some(self.lost(&error.to_string()));
                    }
                    if let Err(reason) = self.take_in() {
                        return Some(self.lost(&reason));
                    }
                }
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    // Its sender is in `shared`, which is borrowed here.
                    None => return None,
                },
                () = &mut tick => {
                    tick = Box::pin(net::sleep(TICK));
                    if let Err(reason) = self.look_after() {
                        return Some(self.lost(&reason));
                    }
                }
            }
            if self.deserted.is_some_and(|since| since.elapsed() >= self.lingers())
                && self.context.listeners.close_if_idle(self.shared, commands)
            {
                return None;
            }
        }
    }

    fn lingers(&self) -> Duration {
        let wanted = self.vacated.is_some_and(|since| since.elapsed() < VACATED);
        if wanted { Duration::ZERO } else { LINGER }
    }

    fn lost(&self, reason: &str) -> String {
        let reason = match self.connection.server.upstream.fatal() {
            Some(fatal) => &fatal.message,
            None => reason,
        };
        tracing::warn!(node = %self.node.spec.name, database = %self.shared.account.database, reason, "a shared connection for LISTEN was lost");
        format!("the connection that brings notifications from node \"{}\" was lost: {reason}", self.node.spec.name)
    }

    fn end_all(&self, reason: &str) {
        let waiting = self.waiting.values().map(|(mailbox, _)| mailbox);
        self.live
            .values()
            .flatten()
            .map(|subscriber| &subscriber.mailbox)
            .chain(waiting)
            .for_each(|mailbox| mailbox.end(reason));
    }

    fn ask(&mut self, sql: &str, join: Option<(Ticket, oneshot::Sender<Result<(), String>>)>) {
        let upstream = &mut self.connection.server.upstream;
        frontend::write_query(&mut upstream.output, sql.as_bytes());
        upstream.expect(Expected::Query, &mut self.heard);
        self.pending.push_back(Pending { since: Instant::now(), join });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join { mailbox, ticket, channels, done } => {
                // Also where it listens already: the answer says that all before it has been done.
                let names = channels.iter().filter_map(|channel| std::str::from_utf8(channel).ok());
                let sql: String = names.map(|name| format!("LISTEN {};", channel_sql(name))).collect();
                for channel in &channels {
                    *self.listeners.entry(channel.clone()).or_default() += 1;
                }
                self.waiting.insert(ticket, (mailbox, channels));
                self.ask(&sql, Some((ticket, done)));
            }
            Command::Leave { mailbox, channels } => {
                for (channel, ticket) in channels {
                    self.leave(&mailbox, &channel, ticket);
                }
            }
            Command::Vacate => self.vacated = Some(Instant::now()),
        }
        self.count();
    }

    fn leave(&mut self, mailbox: &Arc<Mailbox>, channel: &Channel, ticket: Ticket) {
        let mut found = false;
        if let Some((_, channels)) = self.waiting.get_mut(&ticket) {
            let before = channels.len();
            channels.retain(|held| held != channel);
            found = channels.len() < before;
            if channels.is_empty() {
                self.waiting.remove(&ticket);
            }
        }
        if let Some(subscribers) = self.live.get_mut(channel) {
            let before = subscribers.len();
            subscribers.retain(|held| held.ticket != ticket || !Arc::ptr_eq(&held.mailbox, mailbox));
            found |= subscribers.len() < before;
        }
        if found {
            self.forget(channel);
        }
    }

    /// A channel has one listener fewer.
    fn forget(&mut self, channel: &Channel) {
        let Some(count) = self.listeners.get_mut(channel) else { return };
        *count -= 1;
        if *count == 0 {
            self.listeners.remove(channel);
            self.live.remove(channel);
            if let Ok(name) = std::str::from_utf8(channel) {
                self.ask(&format!("UNLISTEN {}", channel_sql(name)), None);
            }
        }
    }

    fn count(&mut self) {
        self.shared.channels.store(self.listeners.len(), Ordering::Relaxed);
        self.deserted = if self.listeners.is_empty() { self.deserted.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Takes what the server has sent.
    fn take_in(&mut self) -> Result<(), String> {
        self.last_heard = Instant::now();
        let upstream = &mut self.connection.server.upstream;
        let delivered = upstream.deliver(&mut self.heard);
        let broken = upstream.broken();
        let bytes = self.heard.0.split();
        let mut whole = 0;
        for frame in frames(&bytes) {
            whole += frame.len();
            match frame[0] {
                b'A' => self.dispatch(frame),
                b'E' => self.error = Some(backend::error_fields(frame).message),
                b'Z' => self.answered()?,
                _ => {}
            }
        }
        if whole < bytes.len() {
            let mut rest = bytes;
            rest.advance(whole);
            self.heard.0 = rest;
        }
        self.count();
        delivered.map_err(|error| error.to_string())?;
        if broken { Err("the server ended it".to_owned()) } else { Ok(()) }
    }

    fn dispatch(&mut self, frame: &[u8]) {
        let Ok(told) = backend::notification(frame) else { return };
        if told.channel == self.context.listeners.marker.as_bytes() {
            let ticket = std::str::from_utf8(told.payload).ok().and_then(|text| Ticket::from_str_radix(text, 16).ok());
            let Some((ticket, (mailbox, channels))) =
                ticket.and_then(|ticket| Some((ticket, self.waiting.remove(&ticket)?)))
            else {
                return;
            };
            for channel in channels {
                let subscriber = Subscriber { mailbox: Arc::clone(&mailbox), ticket };
                self.live.entry(channel).or_default().push(subscriber);
            }
        } else if let Some(subscribers) = self.live.get(told.channel) {
            // Before anybody can know of it.
            let mut brought = self.shared.brought.lock();
            brought.sent(self.node.shard);
            brought.acknowledged(&self.shared.account.cluster.topology, self.node.shard);
            drop(brought);
            // A copy of its own, which all of them share: what it was read with need not stay.
            let whole = Bytes::copy_from_slice(frame);
            for held in subscribers {
                held.mailbox.push(told.channel, held.ticket, &whole);
            }
        }
    }

    fn answered(&mut self) -> Result<(), String> {
        let error = self.error.take();
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        match (pending.join, error) {
            (Some((ticket, done)), error) => {
                if error.is_some()
                    && let Some((_, channels)) = self.waiting.remove(&ticket)
                {
                    for channel in &channels {
                        self.forget(channel);
                    }
                }
                // Who no longer waits has taken it back, or will.
                let _ = done.send(error.map_or(Ok(()), Err));
                Ok(())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    /// Whether the connection is still the one to hear from.
    fn look_after(&mut self) -> Result<(), String> {
        self.count();
        let shard = self.shared.account.cluster.topology.shards().get(self.node.shard);
        let another = || {
            let mut nodes = shard.into_iter().flat_map(|shard| &shard.nodes);
            nodes.any(|node| node.number != self.node.number && node.role() == Role::Primary)
        };
        if self.node.role() == Role::Replica || (self.node.role() != Role::Primary && another()) {
            return Err("the node is no longer the primary".to_owned());
        }
        match self.pending.front() {
            Some(pending) if pending.since.elapsed() >= ANSWER => return Err("the server does not answer".to_owned()),
            None if self.last_heard.elapsed() >= QUIET => self.ask("", None),
            _ => {}
        }
        Ok(())
    }
}

/// Everything that the server says.
#[derive(Debug, Default)]
struct Heard(BytesMut);

impl Receiver for Heard {
    fn output(&mut self) -> &mut BytesMut {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_changes_nothing() {
        crate::sql::qualified::assert_qualified(LIMITS_SQL);
    }
}
