//! The unit at hand on the server that is held already: in a transaction, behind what is in flight, in a session that keeps it.
//!
//! Invariant: a question of the gateway's own is asked only when the server has answered everything; until then the unit waits.
//! A unit for which this server is the wrong one moves if nothing binds it here, and is refused on the server otherwise, so
//! that the transaction fails as by an error of its own. A replica that lacks what the unit must see is the wrong one, too, but
//! nothing is refused for that: in a transaction, or in a session that is kept there, it reads what the replica has.
//!
//! Deliberately absent: getting a server (`checkout`), letting go of one (`settle`).

use smallvec::SmallVec;

use super::checkout::cancelled;
use super::drive::{Conversation, End};
use super::route::Route;
use super::{doubted, home, io, private, written};
use crate::config::PoolMode;
use crate::policy::Role;
use crate::sql::Effects;
use crate::upstream::ErrorReply;
use crate::wire::{TransactionStatus, frontend};

impl Conversation {
    /// Sends the unit at hand, or leaves it for later (`blocked`).
    pub(super) async fn go_on(&mut self, decided: Result<Route, ErrorReply>) -> Result<(), End> {
        let Some(lent) = &self.held else { return Ok(()) };
        if self.lingers.take().is_some() {
            if self.session.pins.sequence {
                lent.pool().keep_sequences();
            } else {
                self.home.did_not_ask(lent, false);
            }
        }
        let busy = lent.upstream.unready() > 0;
        let channels = self.ear.is_some() && decided.is_ok() && self.concerns_channels();
        // A question in a transaction takes its snapshot: only what takes one itself can have it ahead.
        let may = match lent.upstream.status() {
            TransactionStatus::Idle => true,
            TransactionStatus::Active => self.session.begins_with_snapshot(),
            TransactionStatus::Failed => false,
        };
        let sequences = may && decided.as_ref().is_ok_and(|route| self.home.minds(lent, &self.session, route.writes));
        let shadows = may && self.home.wants_no_plans(lent, &self.session);
        let lacks = self.session.lacks();
        // Once the client has the answer, others are to begin with what it set. Nothing runs where a setting is lacking.
        if busy && (channels || sequences || shadows || lacks || self.session.alters_starts) {
            self.blocked = true;
            return Ok(());
        }
        if channels {
            let shown = Box::pin(self.show_channels()).await;
            if let Some(end) = self.asked(shown) {
                return end;
            }
        }
        if sequences && let Some(lent) = &mut self.held {
            let forgotten = home::forget_sequences(lent).await;
            if let Some(end) = self.asked(forgotten) {
                return end;
            }
        }
        if shadows && let Some(lent) = &mut self.held {
            let discarded = home::discard_plans(lent, &self.session.settings).await;
            if let Some(end) = self.asked(discarded) {
                return end;
            }
        }
        let behind = decided.as_ref().is_ok_and(|route| self.is_behind(route));
        let kept = self.account.mode == PoolMode::Session || self.session.pins.any();
        let Some(lent) = &mut self.held else { return Ok(()) };
        let asked = self.session.unit().asked;
        let doubtful = if asked { SmallVec::new() } else { self.session.doubtful(&lent.upstream) };
        let fits = decided.as_ref().is_ok_and(|route| route.admits(&lent.pool().node)) && !behind;
        // Drivers ask what a statement is like, wait, and send something else: a COPY, a write.
        let elsewhere =
            !(kept || fits && self.session.unit().closed) && lent.pool().node.role() != crate::topology::Role::Primary;
        match decided {
            Ok(_) if elsewhere && self.session.may_move(&lent.upstream) => match private::sync(lent).await {
                // Looked at again, as if the group began with it.
                Ok(_) => {
                    self.session.move_group();
                    // What ran before the group may have left state here: then the server is let go as behind any other.
                    if !self.unasked {
                        self.session.forget_effects();
                        self.release();
                    }
                }
                Err(error) => return self.server_lost(&error.to_string()),
            },
            Ok(_) if busy && !fits => self.blocked = true,
            // It may move once that has come; where the limit cut it short, no Flush of the client's has asked for it.
            Ok(_) if elsewhere && self.session.awaits_answers(&lent.upstream) => {
                self.awaits_group = true;
                frontend::frame(&mut lent.upstream.output, b'H', |_| {});
            }
            // It has nothing here, and was only left the server.
            Ok(_) if behind && !kept && self.settled => {
                self.session.forget_effects();
                self.release();
            }
            Err(_) if busy => self.blocked = true,
            Ok(route) if route.shard != lent.pool().node.shard => {
                let reply = ErrorReply::error(
                    "0A000",
                    "the statement concerns another shard than the transaction or session it is in",
                )
                .hint(
                    "End the transaction first. A session with temporary tables or advisory locks stays on its shard.",
                );
                self.refuse_on_server(reply);
            }
            Ok(Route { useless: Some(what), target, .. })
                if target.role == Role::Primary && lent.pool().node.role() == crate::topology::Role::Replica =>
            {
                let reply = ErrorReply::error(
                    "0A000",
                    format!("{what} would be worth nothing on a replica, and the transaction or session is on one"),
                )
                .hint("Let the transaction begin with it, or without READ ONLY: then all of it runs on the primary.");
                self.refuse_on_server(reply);
            }
            // Looked at again when that is known.
            Ok(_) if !doubtful.is_empty() && busy => self.blocked = true,
            Ok(_) if !doubtful.is_empty() => {
                let confirmed = Box::pin(doubted::confirm(lent, &mut self.session, &doubtful)).await;
                return self.asked(confirmed).unwrap_or(Ok(()));
            }
            Ok(route) => {
                self.unasked |= busy && self.session.audit_due();
                self.writes_in_flight |= route.writes;
                if route.writes {
                    lent.upstream.notifies_as(self.handle.key.pid);
                    self.home.advances(lent);
                    if self.session.effects().any(Effects::TEMPORARY) {
                        self.home.makes_temporary(lent);
                    }
                    written::sent(&mut self.writes, &mut self.keyed, &self.account.cluster, &route);
                }
                self.home.goes_back(&self.session);
                lent.pool().node.count_sent(route.target.role);
                let counters = self.tally.worker(self.worker);
                counters.statements.one();
                if self.session.pins.any() {
                    counters.pinned(self.session.pins);
                }
                if let Some(trace) = &mut self.trace {
                    trace.kept(&self.session, lent.upstream.status(), busy);
                    let shard =
                        self.account.cluster.topology.shards().get(route.shard).map_or("", |shard| &*shard.name);
                    let edge = lent.upstream.at_frame_edge();
                    trace.sent(&mut self.session, &lent.pool().node, shard, route.target.role, edge);
                }
                if self.settled {
                    self.handle.works();
                }
                self.settled = false;
                io::Buffers::lend(&mut lent.upstream.output);
                self.session.forward(&mut lent.upstream);
            }
            Err(reply) => self.refuse_on_server(reply),
        }
        Ok(())
    }

    /// Whether the unit at hand cannot run on the server held, which could not be asked yet what it has of the session: then it is
    /// asked at once, again and again, and the unit waits. `again`: it has waited before.
    pub(super) fn waits_to_leave(&mut self, decided: &Result<Route, ErrorReply>, again: bool) -> bool {
        let (Some(lent), Ok(route)) = (&self.held, decided) else { return false };
        if !self.settled || self.account.mode == PoolMode::Session {
            return false;
        }
        let node = &lent.pool().node;
        let needs_primary = || route.writes || route.useless.is_some() || self.session.begins_block();
        let fits = route.shard == node.shard && (route.admits(node) || !needs_primary());
        if fits && !self.is_behind(route) {
            return false;
        }
        if again && self.handle.struck() {
            self.refuse_on_server(cancelled());
            return true;
        }
        if !again {
            self.handle.works();
        }
        self.asks_again = None;
        self.settled = false;
        self.waits_to_leave = true;
        true
    }

    /// What a question came to; `Some`: the unit is done with.
    fn asked(&mut self, answer: Result<Option<ErrorReply>, private::PrivateError>) -> Option<Result<(), End>> {
        match answer {
            Ok(None) => None,
            Ok(Some(reply)) => {
                self.refuse_on_server(reply);
                Some(Ok(()))
            }
            Err(error) => Some(self.server_lost(&error.to_string())),
        }
    }

    /// Refuses the unit on the server that is held.
    fn refuse_on_server(&mut self, reply: ErrorReply) {
        let Some(lent) = &mut self.held else { return };
        self.context.metrics.rejected(&reply.sqlstate);
        if let Some(trace) = &mut self.trace {
            trace.refused(&mut self.session, &reply, lent.upstream.at_frame_edge());
        }
        self.settled = false;
        self.session.refuse_on(&mut lent.upstream, reply);
    }
}
