//! How a conversation lets go of a server: what it remembers is asked, it goes back clean, or it was lost.
//!
//! Invariant: a server goes back only when it has answered everything, is in no transaction, and what it holds of the
//! session is known or will be reset; the client is told of its settings before it is told that it is ready.
//!
//! Deliberately absent: the questions (`session`), sending statements (`drive`).

use std::time::Duration;

use tokio::time::Instant;

use super::drive::{Conversation, End};
use super::private::{Patience, PrivateError};
use super::rerun::Fault;
use super::{home, io, private, route, starts, trace};
use crate::config::PoolMode;
use crate::discover::Failure;
use crate::net;
use crate::pool::Lent;
use crate::session::{Session, Starts};
use crate::sql::Effects;
use crate::upstream::{Copy, ErrorReply, Sequences};
use crate::wire::TransactionStatus;

/// How long a server that a vanished client left at work may go on before something is done about it.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a question is asked again that was not answered in time: the client waits for it each time.
const AGAIN: Duration = Duration::from_secs(5);

/// And how long then: after a cancel, or because it may write. A client that only says that it will send no more looks like
/// one that vanished: it waits as long for a server, and for the next bytes of the answers that it still awaits.
pub(super) const FINISH: Duration = Duration::from_secs(5);

impl Conversation {
    /// The server is idle: what it remembers of the session is asked, then it goes back unless the session is pinned.
    pub(super) async fn settle(&mut self) -> Result<(), End> {
        let ended = std::mem::take(&mut self.session.transactions);
        self.counters().transactions.add(ended.into());
        let Some(lent) = &mut self.held else { return Ok(()) };
        if std::mem::take(&mut self.writes_in_flight) {
            self.writes.acknowledged(&self.account.cluster.topology, lent.pool().node.shard);
            self.keyed.drain(..).for_each(crate::control::KeyedWrite::acknowledged);
        }
        let cluster = &self.account.cluster;
        if std::mem::take(&mut self.session.publishes) {
            cluster.published.add(&cluster.topology);
            cluster.schema_changed();
        } else if lent.upstream.take_outdated() {
            cluster.schema_changed();
        }
        if std::mem::take(&mut self.session.redefines) {
            self.account.cluster.redefined();
        }
        if let Some(trace) = &mut self.trace {
            trace.flush(&mut self.session);
        }
        if self.asks_again.is_some() && self.session.audit_due() {
            self.ask_later();
            return Ok(());
        }
        self.unasked = false;
        let mut asked = false;
        if let Some(audit) = self.session.audit() {
            self.tally.worker(self.worker).audits.one();
            let told = match private::ask_in_time(lent, &audit.sql).await {
                Ok(None) => {
                    self.session.unanswered(&audit);
                    self.ask_later();
                    return Ok(());
                }
                Ok(Some(answer)) if answer.error.is_none() => {
                    let actual = self.session.audited(&audit, &answer);
                    let settings = &self.context.settings;
                    self.session.settings = settings.intern((*self.session.settings).clone());
                    lent.upstream.plans.had_temporary |= self.session.temporary_schema;
                    lent.upstream.settings = actual.map(|actual| settings.intern(actual));
                    audit.starts.then(|| Starts::read(&answer))
                }
                Ok(Some(answer)) => {
                    let reason = private::error_of(&answer).map_or_else(String::new, |reply| reply.message);
                    return Err(self.cannot_audit(&reason));
                }
                Err(error) => return Err(self.cannot_audit(&error.to_string())),
            };
            if let Some(told) = told.filter(|_| lent.pool().node.role() == crate::topology::Role::Primary) {
                let likely = std::mem::take(&mut self.session.alters_starts);
                Box::pin(starts::learn_from(&self.account, lent, told, likely)).await;
            }
            trace::follow(&mut self.trace, &self.session.settings);
            asked = true;
        }
        // RESET went to the server's own settings, not to those that the client began with.
        let reset = lent.upstream.settings.as_ref().is_some_and(|applied| *applied != self.session.settings);
        let alone = self.account.mode == PoolMode::Session;
        // Another server would do as well, unless something of the session is here alone.
        let bound = alone || self.session.pins.any() || asked && self.ear.is_some();
        let patience = if bound { Patience::Endless } else { Patience::WhileIn };
        let mut refused = None;
        if reset {
            let syncs = &self.tally.worker(self.worker).syncs;
            refused = reason(private::apply_whatever_it_takes(lent, &self.session.settings, syncs, patience).await);
            if refused.is_none() {
                self.session.report_before_ready(&mut lent.upstream.parameters, &self.context.parameters);
            }
        }
        lent.upstream.spoiled |= self.session.pins.sources | std::mem::take(&mut self.session.leaves_traces);
        let refolds = std::mem::take(&mut self.session.refolds);
        let stale = refused.is_none() && !alone && (refolds || !lent.upstream.plans.suit(&self.session.settings));
        if stale && self.session.pins.any() && lent.upstream.plans.own {
            // As with a server of its own: what it has prepared keeps its constants. Who comes next discards them.
            lent.upstream.plans.mix();
        } else if stale {
            // What it made of constants is not what others would.
            refused = reason(home::discard_plans_behind(lent, &self.session.settings, patience).await);
        }
        if let Some(refused) = refused {
            if bound {
                return Err(self.cannot_audit(&refused));
            }
            tracing::debug!(session = self.id, reason = refused, "a server is closed instead of being left to others");
            lent.upstream.mark_broken();
        }
        let lacked = self.session.regain(true);
        // A session that listens may be notified while it is asked; one that has just begun to may leave its server for that.
        let overheard = lent.upstream.overheard.split();
        self.session.take_notifications(&overheard);
        if asked {
            self.home.note_settings(&self.session);
            if self.session.pins.listen || self.ear.is_some() {
                Box::pin(self.follow_channels()).await?;
            }
        }
        let Some(lent) = &mut self.held else { return Ok(()) };
        let keeps = self.account.mode == PoolMode::Session || self.session.pins.any();
        let advances = std::mem::take(&mut self.session.advances);
        if keeps && lacked {
            return Err(self.cannot_audit("it keeps a server that has refused one of its settings"));
        }
        let whole = !lent.upstream.broken();
        if keeps || self.home.may_ask(lent, advances) && !self.half_closed && !lacked && whole {
            self.lingers = (!keeps).then(|| Instant::now() + home::LINGER);
            self.handle.keeps(self.session.pins);
            self.chain = None;
            self.settled = true;
            return Ok(());
        }
        let applied = lent.upstream.settings.as_ref();
        if lent.pool().node.role() != crate::topology::Role::Primary
            && applied.is_some_and(|applied| applied.value(route::ISOLATION) == Some("serializable"))
        {
            // A standby on which nothing but RESET can run any more.
            self.held = None;
        }
        self.release();
        Ok(())
    }

    /// What the server remembers of the session could not be asked in time: others have locked what tells it. The client gets its
    /// answer, and the session keeps its server, until that can be asked.
    fn ask_later(&mut self) {
        self.asks_again.get_or_insert_with(|| Instant::now() + AGAIN);
        // What was set, locked or listened to is there alone.
        self.unasked = true;
        if let Some(lent) = &mut self.held {
            let overheard = lent.upstream.overheard.split();
            self.session.take_notifications(&overheard);
        }
        self.handle.keeps(self.session.pins);
        self.chain = None;
        self.settled = true;
    }

    pub(super) fn cannot_audit(&mut self, reason: &str) -> End {
        tracing::warn!(
            session = self.id,
            reason,
            "the session's state on its server could not be asked; the session ends"
        );
        self.held = None;
        End::Tell(ErrorReply::fatal(
            "08006",
            format!("the connection to the server was lost between two statements: {reason}"),
        ))
    }

    pub(super) fn release(&mut self) {
        self.lingers = None;
        self.chain = None;
        self.shown = false;
        if self.handle.rests() && self.waits_to_leave {
            self.rerun.cancel();
        }
        if let Some(lent) = self.held.take() {
            self.home.leaves(&lent);
            if !lent.upstream.spoiled {
                lent.give_back();
            }
        }
    }

    /// Lets go of a server that was left to the session for a moment only.
    pub(super) fn linger_no_more(&mut self) {
        if self.lingers.take().is_some() {
            self.release();
        }
    }

    /// The unit in flight failed for its server's own sake, or its connection was lost (`lost`: why), and the client knows
    /// nothing of it: it runs elsewhere.
    pub(super) async fn again(&mut self, lost: Option<&str>) -> Result<(), End> {
        let Some(mut lent) = self.held.take() else { return Ok(()) };
        match self.rerun.armed() {
            Some(Fault::Process) => self.session.forget_effects(),
            _ => self.counters().reruns.one(),
        }
        // It may be on its way still, or lie before a node that hangs.
        let cancelled = self.handle.rests();
        self.chain = None;
        let lost = match lost {
            Some(reason) => Some(reason.to_owned()),
            None => match net::timeout(FINISH, private::hear_out(&mut lent)).await {
                Ok(Ok(answer)) => {
                    self.rerun.note_error(&private::error_of(&answer).map_or_else(String::new, |reply| reply.sqlstate));
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the server did not end its answer".to_owned()),
            },
        };
        if let Some(reason) = lost {
            self.counters().lost_servers.one();
            self.blame(&lent);
            let reason = lent.upstream.fatal().map_or(&*reason, |fatal| &*fatal.message);
            let node = &lent.pool().node.spec.name;
            tracing::warn!(session = self.id, %node, reason, "a server connection was lost; the statement runs again");
        } else if lent.upstream.idle() && self.session.effects() == Effects::NONE {
            lent.give_back();
        }
        let unit = self.rerun.take();
        self.session.repeat(unit);
        if cancelled {
            self.rerun.cancel();
        }
        Ok(())
    }

    /// Tells the monitor of a connection that ended; a FATAL of its own sake says nothing of the node, and of one that is given up
    /// the monitor knows.
    fn blame(&self, lent: &Lent) {
        if lent.pool().node.given_up() {
            return;
        }
        let failure = match lent.upstream.fatal() {
            Some(fatal) if fatal.sqlstate.starts_with("57P0") => Failure::NotReady,
            Some(_) => return,
            None => Failure::Lost,
        };
        self.account.cluster.report_failure(&lent.pool().node, failure);
    }

    /// The server is gone. A session outside a transaction block goes on without it.
    pub(super) fn server_lost(&mut self, reason: &str) -> Result<(), End> {
        let Some(mut lent) = self.held.take() else { return Ok(()) };
        self.lingers = None;
        self.counters().lost_servers.one();
        self.handle.rests();
        self.chain = None;
        self.shown = false;
        let node = lent.pool().node.spec.name.clone();
        let unready = lent.upstream.unready();
        // What a client was told to be set, locked or listened to, and pipelined on, may be gone.
        let unasked = std::mem::take(&mut self.unasked);
        let pinned = self.account.mode == PoolMode::Session || self.session.pins.any() || unasked;
        let in_block = lent.upstream.status() != TransactionStatus::Idle;
        let at_edge = lent.upstream.at_frame_edge() && lent.upstream.copy() == Copy::None;
        let unknown = self.writes_in_flight && unready > 0;
        // The client's own fault: a message in the middle of a COPY, for one. Where the server stopped to read is not known.
        let out_of_step = lent.upstream.fatal().is_some_and(|fatal| fatal.sqlstate == "08P01");
        let (sqlstate, message) = match lent.upstream.fatal() {
            Some(fatal) => (fatal.sqlstate.clone(), fatal.message.clone()),
            None => ("08006".to_owned(), format!("the connection to node \"{node}\" was lost: {reason}")),
        };
        tracing::warn!(session = self.id, node = %node, sqlstate, reason = message, "a server connection was lost");
        self.blame(&lent);
        lent.upstream.abandon(&mut self.session);
        drop(lent);
        let sqlstate = if unknown { "08007".to_owned() } else { sqlstate };
        let hint = if unknown {
            "Whether the statement or the COMMIT in flight took effect is not known; look before you repeat it."
        } else {
            "Nothing that may write was in flight; the statement can be sent again."
        };
        if out_of_step {
            return Err(End::Tell(ErrorReply::fatal(sqlstate, message)));
        }
        if pinned || in_block || !at_edge {
            return Err(End::Tell(ErrorReply::fatal(sqlstate, message).hint(hint)));
        }
        if unready > 0 || self.session.in_group() {
            self.session.lose_server(&ErrorReply::error(sqlstate, message).hint(hint), unready);
        }
        Ok(())
    }

    /// Says goodbye to the client and brings the server back.
    pub(super) async fn finish(mut self: Box<Self>, end: End) {
        if let End::Tell(reply) = end {
            reply.write(&mut self.session.output);
            // It may be gone already; a client that does not read must not keep the server.
            let farewell = io::write(&mut self.client, &mut self.session.output);
            let _ = net::timeout(Duration::from_secs(5), farewell).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.client).await;
        }
        self.linger_no_more();
        let Some(mut lent) = self.held.take() else { return };
        drop(self.client);
        // It was waited for already.
        let overdue = self.leaves.is_some_and(|leaves| leaves <= Instant::now());
        let patience = if overdue { Duration::ZERO } else { PATIENCE };
        let cleaned = if overdue && self.writes_in_flight {
            None
        } else {
            clean(&mut lent, &mut self.session, self.writes_in_flight, patience).await
        };
        self.handle.rests();
        match cleaned {
            Some(()) => lent.give_back(),
            // The server goes on with what it is at, as it does when a client of its own vanishes.
            None => drop(lent),
        }
    }
}

/// Why a server did not do what a session leaves to it.
fn reason(answer: Result<Option<ErrorReply>, PrivateError>) -> Option<String> {
    answer.map_or_else(|error| Some(error.to_string()), |refused| refused.map(|reply| reply.message))
}

/// Lets a server finish what a client left, then rolls back and resets it. Nobody waits for a read any more: it is cancelled.
/// What may write is not, as it would not be by a server. `None`: the connection must be closed.
async fn clean(lent: &mut Lent, session: &mut Session, may_write: bool, patience: Duration) -> Option<()> {
    if session.in_group() || session.streaming() || lent.upstream.copy() != Copy::None {
        // In the middle of a message or a COPY: a server rolls back when the connection closes.
        return None;
    }
    match net::timeout(patience, hear_out(lent, session)).await {
        Ok(heard) => heard?,
        Err(_) => {
            if !may_write {
                let on_its_way = lent.gate.enter();
                lent.target.connector.cancel(&lent.target.key, &on_its_way).await.ok()?;
            }
            net::timeout(FINISH, hear_out(lent, session)).await.ok()??;
        }
    }
    if session.pins.taints() || session.leaves_traces || lent.upstream.spoiled {
        return None;
    }
    net::timeout(FINISH, reset(lent)).await.ok()?
}

/// Reads on until the server has answered everything; cancel-safe.
async fn hear_out(lent: &mut Lent, session: &mut Session) -> Option<()> {
    while !lent.upstream.quiet() {
        let crate::pool::Server { stream, upstream, .. } = &mut **lent;
        io::write(stream, &mut upstream.output).await.ok()?;
        io::read(stream, &mut upstream.input).await.ok()?;
        upstream.deliver(session).ok()?;
        session.output.clear();
        if upstream.copy() != Copy::None {
            return None;
        }
    }
    Some(())
}

/// Makes a server that rests what it was after its log-in.
async fn reset(lent: &mut Lent) -> Option<()> {
    if lent.upstream.status() != TransactionStatus::Idle {
        private::ask(lent, "ROLLBACK").await.ok()?;
    }
    let answer = private::ask(lent, "DISCARD ALL").await.ok()?;
    lent.upstream.sequences = Sequences::NONE;
    answer.error.is_none().then_some(())
}
