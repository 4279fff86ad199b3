//! The drive loop: one client from its first ReadyForQuery to its end.
//!
//! Invariant: a server is held from a unit's decision until it has answered everything and is in no transaction, longer
//! only for a reason with a name; it goes back clean or not at all. No statement is sent twice, but for what failed by its
//! server's own fault and had no effect (`rerun`).
//!
//! Deliberately absent: bytes (`pump`), what statements mean (`route`), what a server is told first (`prepare`), how it is let go
//! (`settle`).

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use super::cancel::Handle;
use super::checkout::{cancelled, overdue};
use super::context::Context;
use super::home::Home;
use super::listen::Ear;
use super::pump::Event;
use super::rerun::{self, Fault, Rerun, UNIT_LIMIT};
use super::route::{self, Asker, Route};
use super::settle::FINISH;
use super::trace::{self, Trace};
use super::{io, written};
use crate::config::PoolMode;
use crate::control::{Account, KeyedWrite};
use crate::net::{self, Stream};
use crate::observe::{Tally, Worker};
use crate::policy::{Chain, Role};
use crate::pool::Lent;
use crate::session::{LocalAnswer, Session};
use crate::sql::{Effects, Kind};
use crate::topology::Writes;
use crate::upstream::ErrorReply;
use crate::wire::TransactionStatus;

/// One client and what works for it.
pub(super) struct Conversation {
    pub(super) client: Stream,
    pub(super) session: Session,
    pub(super) held: Option<Lent>,
    /// The server held has been settled and is kept.
    pub(super) settled: bool,
    /// The unit at hand must wait until the server has answered what is in flight.
    pub(super) blocked: bool,
    /// It must wait until what went ahead of it in its group has been answered.
    pub(super) awaits_group: bool,
    /// The client has said that it will send no more.
    pub(super) half_closed: bool,
    /// And until when the answers to what it has sent are awaited, and whether it has taken some of them since that was set.
    pub(super) leaves: Option<Instant>,
    pub(super) takes_answers: bool,
    /// Until when the server is left to a session that may ask for its sequence values, and nothing else keeps it.
    pub(super) lingers: Option<Instant>,
    /// When a question is asked again that was not answered in time. Until then the server is kept.
    pub(super) asks_again: Option<Instant>,
    /// A Flush was sent for a group that will have no Sync.
    pub(super) asked_to_flush: bool,
    /// Resolves when the gateway stops.
    pub(super) drained: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// `drained` was polled: it wakes the session when it is time.
    pub(super) hears_drain: bool,
    pub(super) account: Arc<Account>,
    pub(super) context: Arc<Context>,
    pub(super) handle: Arc<Handle>,
    pub(super) worker: usize,
    /// The database's counters.
    pub(super) tally: Arc<Tally>,
    pub(super) id: u64,
    /// What decides, from a transaction's first statement to its end.
    pub(super) chain: Option<Arc<Chain>>,
    /// What the session wrote and replicas may lack.
    pub(super) writes: Writes,
    /// What is in flight under consistency keys. What is left of a server that was lost nobody knows.
    pub(super) keyed: Vec<KeyedWrite>,
    /// The snapshot's serial that `account` was found under.
    serial: u32,
    /// Of the cluster's published DDL, what the session's reads take into account.
    published: u64,
    /// The unit in flight, if it may run again.
    pub(super) rerun: Rerun,
    /// Something in flight may write: its lost answer leaves open whether it did.
    pub(super) writes_in_flight: bool,
    /// What the session listens to through a shared connection.
    pub(super) ear: Option<Box<Ear>>,
    /// And whether the server held listens to that too: what it listens to is what the session listens to then.
    pub(super) shown: bool,
    /// Units went to the server held behind one that may have left state there: that was not asked about yet.
    pub(super) unasked: bool,
    /// The unit at hand waits until the replica held can be asked what it has of the session.
    pub(super) waits_to_leave: bool,
    /// The servers that it had, and what it left there.
    pub(super) home: Home,
    /// There while the session wants to be told of its statements' ways.
    pub(super) trace: Option<Box<Trace>>,
}

/// Why a conversation ended.
pub(super) enum End {
    /// Nothing more is to be said to the client.
    Quiet,
    /// The client is told.
    Tell(ErrorReply),
}

/// Drives a session to its end.
pub(super) async fn drive(mut conversation: Box<Conversation>) {
    let end = conversation.run().await;
    // Boxed as the conversation is: a session at rest holds no room for its end.
    Box::pin(conversation.finish(end)).await;
}

impl Conversation {
    /// A client that was let in. On the heap at once: a future would hold it several times over.
    pub(super) fn new(
        client: Stream,
        session: Session,
        account: Arc<Account>,
        context: Arc<Context>,
        handle: Arc<Handle>,
        worker: usize,
        id: u64,
    ) -> Box<Self> {
        let mut drain = context.on_drain();
        let drained = Box::pin(async move {
            // The sender lives as long as the context, which the session holds.
            let _ = drain.wait_for(|drain| *drain).await;
        });
        let tally = context.metrics.database(&account.database);
        let mut conversation = Box::new(Self {
            client,
            session,
            held: None,
            settled: false,
            blocked: false,
            awaits_group: false,
            half_closed: false,
            leaves: None,
            takes_answers: false,
            lingers: None,
            asks_again: None,
            asked_to_flush: false,
            drained,
            hears_drain: false,
            account,
            context,
            handle,
            worker,
            tally,
            id,
            chain: None,
            writes: Writes::default(),
            keyed: Vec::new(),
            published: 0,
            serial: 0,
            writes_in_flight: false,
            rerun: Rerun::default(),
            ear: None,
            shown: false,
            unasked: false,
            waits_to_leave: false,
            home: Home::new(id),
            trace: None,
        });
        trace::follow(&mut conversation.trace, &conversation.session.settings);
        conversation
    }

    async fn run(&mut self) -> End {
        loop {
            let event = match self.leaves.or(self.lingers).or(self.asks_again) {
                None => poll_fn(|task| self.poll_event(task)).await,
                // Boxed, so that the future stays small.
                Some(until) => {
                    let late = match (self.leaves, self.lingers) {
                        (Some(_), _) => Event::Overdue,
                        (None, Some(_)) => Event::Lingered,
                        (None, None) => Event::AsksAgain,
                    };
                    let event = Box::pin(net::timeout_at(until, poll_fn(|task| self.poll_event(task)))).await;
                    event.unwrap_or(late)
                }
            };
            let step = match event {
                Event::Unit => self.unit().await,
                Event::Settle => self.settle().await,
                Event::Again => self.again(None).await,
                Event::ServerLost(reason) if self.rerun.armed().is_some() => self.again(Some(&reason)).await,
                Event::ServerLost(reason) => self.server_lost(&reason),
                Event::Lingered => {
                    if let Some(lent) = &self.held {
                        self.home.did_not_ask(lent, true);
                    }
                    self.linger_no_more();
                    Ok(())
                }
                Event::AsksAgain => {
                    self.asks_again = None;
                    self.settled = false;
                    Ok(())
                }
                Event::HalfClosed => {
                    self.linger_no_more();
                    self.takes_answers = false;
                    self.leaves = Some(Instant::now() + FINISH);
                    Ok(())
                }
                Event::Overdue if std::mem::take(&mut self.takes_answers) || !self.session.output.is_empty() => {
                    // It takes what it is sent, or the system still holds that: had it vanished, the system would tell.
                    self.leaves = Some(Instant::now() + FINISH);
                    Ok(())
                }
                Event::Overdue => Err(End::Tell(overdue(self.writes_in_flight))),
                Event::Terminate | Event::ClientGone => Err(End::Quiet),
                Event::Violation(error) => Err(End::Tell(ErrorReply::fatal("08P01", error.to_string()))),
                Event::Deaf(reason) => {
                    let message = format!("the session cannot hear of notifications any more: {reason}");
                    Err(End::Tell(
                        ErrorReply::fatal("57P01", message)
                            .hint("Connect and LISTEN again, and look for what was missed."),
                    ))
                }
                Event::Drained => {
                    Err(End::Tell(ErrorReply::fatal("57P01", "terminating connection due to administrator command")))
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Whether the session may be ended by a gateway that stops.
    pub(super) fn may_drain(&self) -> bool {
        let resting = self.held.is_none() || self.settled;
        resting && self.session.status() == TransactionStatus::Idle && self.session.input.is_empty()
    }

    async fn unit(&mut self) -> Result<(), End> {
        let again = std::mem::take(&mut self.waits_to_leave);
        // It may want another server than the one that it was left, which is tried first.
        let mut tried = None;
        if self.lingers.is_some() && (self.session.sets_custom() || self.session.gives("temp_buffers")) {
            tried = self.session.repeatable(UNIT_LIMIT, Fault::Process.allows()).map(BytesMut::from);
            if tried.is_none() {
                self.linger_no_more();
            }
        }
        if self.held.is_none() {
            self.session.regain(false);
            self.follow_configuration()?;
        }
        let cluster = &self.account.cluster;
        if self.published != cluster.published.count() {
            self.published = cluster.published.join(&cluster.topology, &mut self.writes);
        }
        if self.ear.is_some() || self.session.notified {
            self.see_what_was_told();
        }
        self.session.scope.account = self.account.id;
        if let Some(lent) = &mut self.held {
            lent.upstream.prepared.enter(self.session.scope);
        }
        if let Some(trace) = &mut self.trace {
            trace.begin();
        }
        let refused = if self.account.mode == PoolMode::Statement { self.transaction_block()? } else { None };
        if let Some(reply) = refused.as_ref().filter(|_| self.held.is_none()) {
            if !self.session.set_end_apart() {
                self.refuse(reply);
            }
            return Ok(());
        }
        if self.rerun.take_cancelled() {
            self.refuse(&cancelled());
            return Ok(());
        }
        let told = self.session.output.len();
        if self.held.is_none() && self.session.answer_locally() == LocalAnswer::Answered {
            self.counters().local.one();
            if let Some(trace) = &mut self.trace {
                trace.local(&mut self.session, told);
            }
            return Ok(());
        }
        let decided = match refused {
            Some(reply) => Err(reply),
            None => self.decide(),
        };
        if decided.is_err() && self.session.set_end_apart() {
            // What stands before it is decided by itself.
            return Ok(());
        }
        if let Ok(route) = &decided
            && !route.vacates.is_empty()
        {
            self.context.listeners.vacate(&self.account.cluster, &route.vacates);
            Box::pin(self.account.cluster.vacated.unread(&route.vacates)).await;
        }
        if self.held.is_some() {
            if self.session.pins.unanswered && self.waits_to_leave(&decided, again) {
                return Ok(());
            }
            self.rerun.disarm();
            if let Some(unit) = tried {
                self.rerun.arm(&unit, Fault::Process);
            }
            return self.go_on(decided).await;
        }
        let second = self.rerun.take_second();
        match decided {
            Ok(mut route) => {
                if self.concerns_channels() {
                    // Where the session's channels can be listened to.
                    route.target.role = Role::Primary;
                    self.trace_reason("the session listens");
                }
                self.begin(route, second).await
            }
            Err(reply) => {
                self.refuse(&reply);
                Ok(())
            }
        }
    }

    /// What a unit is refused with that begins a transaction block, where none may be. The session ends if it is in one all the
    /// same: by a text that was too long to be looked into.
    fn transaction_block(&self) -> Result<Option<ErrorReply>, End> {
        const WORDS: &str = "transaction blocks are not allowed in statement pooling";
        let hint = "[pool] mode = \"transaction\" of the gateway's configuration allows them, for all, for a database or for a user.";
        if self.session.status() != TransactionStatus::Idle {
            return Err(End::Tell(ErrorReply::fatal("0A000", WORDS).hint(hint)));
        }
        let begins = |shape: &crate::sql::Shape| shape.statements.iter().any(|s| s.kind == Kind::Begin);
        Ok(self.session.shapes().any(begins).then(|| ErrorReply::error("0A000", WORDS).hint(hint)))
    }

    /// Between two transactions: whatever the configuration says now about the session's database.
    fn follow_configuration(&mut self) -> Result<(), End> {
        let live = self.context.live.load();
        if live.serial == self.serial {
            return Ok(());
        }
        let account = &self.account;
        let Some((cluster, dbname)) = live.database(&account.database) else {
            let message = format!("database \"{}\" is no longer in the gateway's configuration", account.database);
            return Err(End::Tell(ErrorReply::fatal("57P01", message)));
        };
        let in_use = cluster.account(&account.database, &account.user);
        let same = in_use.filter(|held| *held.dbname == *dbname && held.credentials == account.credentials);
        // One that began with other settings keeps its servers.
        let same = same.map(|held| if held.is_kin(account) { Arc::clone(account) } else { held });
        let next = same.unwrap_or_else(|| {
            let pool = live.config.pool_for(&account.database, &account.user);
            let made =
                cluster.new_account(&account.database, dbname, &account.user, account.credentials.clone(), &pool);
            cluster.adopt(&made);
            made
        });
        if self.ear.is_some() && !Arc::ptr_eq(&next, account) {
            let message = "the configuration of the database that the session listens in has changed";
            return Err(End::Tell(ErrorReply::fatal("57P01", message).hint("Connect and LISTEN again.")));
        }
        if !Arc::ptr_eq(&next.cluster, &account.cluster) {
            self.writes = self.writes.carried_to(&next.cluster.topology);
            self.published = 0;
        }
        self.serial = live.serial;
        self.account = next;
        Ok(())
    }

    /// The worker's counters.
    pub(super) fn counters(&self) -> &Worker {
        self.tally.worker(self.worker)
    }

    /// Answers the unit with an error of the gateway's own. No server is held.
    pub(super) fn refuse(&mut self, reply: &ErrorReply) {
        self.context.metrics.rejected(&reply.sqlstate);
        if let Some(trace) = &mut self.trace {
            trace.refused(&mut self.session, reply, true);
        }
        self.session.refuse(reply);
    }

    fn decide(&mut self) -> Result<Route, ErrorReply> {
        let chain = match &self.chain {
            Some(chain) => Arc::clone(chain),
            None => self.context.chain(&self.account.database),
        };
        let catalog = self.account.catalog();
        let asker = Asker {
            id: self.id,
            cluster: &self.account.cluster,
            catalog: &catalog,
            user: &self.account.user,
            database: &self.account.database,
            client: self.client.peer().ip(),
            key: 0,
            wrote: !self.writes.none(),
        };
        let held = self.held.as_ref().map(|lent| lent.pool().node.shard);
        let route = route::decide(&mut self.session, &chain, &asker, held, self.trace.as_deref_mut());
        if self.held.is_some() || route.is_ok() {
            self.chain = Some(chain);
        }
        route
    }

    /// Gets a server, makes it the session's, sends the unit.
    async fn begin(&mut self, mut route: Route, second: Option<Fault>) -> Result<(), End> {
        match second {
            Some(Fault::Replica) => {
                route.target.role = Role::Primary;
                self.trace_reason("it failed on a replica");
                if self.rerun.take_writes() {
                    route.writes = true;
                    self.learn_refusal();
                }
            }
            None if route.target.role != Role::Primary && self.was_refused() => {
                (route.target.role, route.writes) = (Role::Primary, true);
                self.trace_reason("a replica refused it a while ago: it writes");
            }
            Some(Fault::Process) => {
                self.home.want_new();
                self.trace_reason("the server's process before had reserved the name, or used temporary buffers");
            }
            None => {}
        }
        let sets_any = Effects(Effects::SETTINGS.0 | Effects::LOCAL_SETTINGS.0);
        if self.session.effects().any(sets_any)
            && self.session.gives("temp_buffers")
            && self.session.repeatable(UNIT_LIMIT, Fault::Process.allows()).is_none()
        {
            // It cannot be tried first.
            self.home.want_new();
        }
        if self.account.mode == PoolMode::Session {
            // One server for the whole session must be one that takes everything.
            route.target.role = Role::Primary;
            self.trace_reason("session pooling");
        }
        let replayed = self.must_be_replayed(&mut route);
        let mut lost = 0;
        let (mut lent, refused) = loop {
            let mut lent = match self.checkout(&route, replayed).await? {
                Ok(lent) => lent,
                Err(reply) => {
                    self.chain = None;
                    self.refuse(&reply);
                    return Ok(());
                }
            };
            self.handle.runs(&lent.gate, &lent.target);
            lent.upstream.prepared.enter(self.session.scope);
            match self.prepare(&mut lent, route.writes).await {
                Ok(refused) => break (lent, refused),
                Err(error) => {
                    lost += 1;
                    if self.gives_up(&error, lost) {
                        return Ok(());
                    }
                }
            }
        };
        let spare = second.is_none() && !route.writes && lent.pool().node.role() == crate::topology::Role::Replica;
        match refused {
            None => {}
            Some(reply) if lent.upstream.status() == TransactionStatus::Idle => {
                // The refused settings were rolled back with the rest of their transaction. The server is what it was before
                // and goes back as such: an audit would take its state, the pooled role included, for the session's.
                self.session.forget_effects();
                if self.shown {
                    // It listens.
                    lent.upstream.mark_broken();
                }
                self.held = Some(lent);
                self.release();
                if second != Some(Fault::Process) && rerun::wants_new_process(&reply) {
                    self.rerun.elsewhere(Fault::Process);
                    return Ok(());
                }
                if spare && self.session.repeatable(UNIT_LIMIT, Fault::Replica.allows()).is_some() {
                    // The replica may lack what the primary has.
                    self.rerun.elsewhere(Fault::Replica);
                    return Ok(());
                }
                self.refuse(&reply);
                return Ok(());
            }
            Some(reply) => {
                self.session.refuse_as(&reply, lent.upstream.status());
                self.held = Some(lent);
                self.settled = false;
                return Ok(());
            }
        }
        self.session.report(&mut lent.upstream.parameters, &self.context.parameters);
        io::Buffers::lend(&mut lent.upstream.output);
        self.rerun.disarm();
        let fault = if spare { Fault::Replica } else { Fault::Process };
        let sets = second.is_none() && self.session.effects().any(Effects::SETTINGS);
        if (spare || sets)
            && lent.upstream.status() == TransactionStatus::Idle
            && let Some(unit) = self.session.repeatable(UNIT_LIMIT, fault.allows())
        {
            self.rerun.arm(unit, fault);
        }
        self.writes_in_flight = route.writes;
        self.keyed.clear();
        if route.writes {
            lent.upstream.notifies_as(self.handle.key.pid);
            self.home.advances(&mut lent);
            if self.session.effects().any(Effects::TEMPORARY) {
                self.home.makes_temporary(&mut lent);
            }
            written::sent(&mut self.writes, &mut self.keyed, &self.account.cluster, &route);
        }
        let node = &lent.pool().node;
        node.count_sent(route.target.role);
        self.tally.worker(self.worker).statements.add(u64::from(second.is_none()));
        if let Some(trace) = &mut self.trace {
            let shard = self.account.cluster.topology.shards().get(route.shard).map_or("", |shard| &*shard.name);
            trace.sent(&mut self.session, node, shard, route.target.role, true);
        }
        self.session.forward(&mut lent.upstream);
        self.held = Some(lent);
        self.settled = false;
        Ok(())
    }

    pub(super) fn trace_reason(&mut self, reason: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.reason(reason);
        }
    }
}
