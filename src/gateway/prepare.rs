//! A server that was just lent is brought to where the session is, before anything of the unit at hand is sent.
//!
//! Invariant: what the server refuses here is the unit's failure, and the unit had no effect.
//!
//! Deliberately absent: which server (`checkout`), what is sent to one that the session holds already (`held`).

use super::drive::Conversation;
use super::rerun::{Fault, UNIT_LIMIT};
use super::{doubted, home, private};
use crate::pool::Lent;
use crate::upstream::ErrorReply;
use crate::wire::TransactionStatus;

impl Conversation {
    /// Brings the session's state to the server, the deferred begin of its transaction last. `Some`: the server refused.
    pub(super) async fn prepare(
        &mut self,
        lent: &mut Lent,
        writes: bool,
    ) -> Result<Option<ErrorReply>, private::PrivateError> {
        let syncs = &self.tally.worker(self.worker).syncs;
        let mut refused = private::apply_settings(lent, &self.session.settings, syncs).await?;
        while let Some(reply) = &refused
            && self.session.forget_reserved(reply)
        {
            refused = private::apply_settings(lent, &self.session.settings, syncs).await?;
        }
        if let Some(reply) = refused
            && let Some(reply) = Box::pin(self.leave_out(lent, reply)).await?
        {
            return Ok(Some(reply));
        }
        if self.session.pins.sequence {
            lent.pool().keep_sequences();
        }
        if self.home.minds(lent, &self.session, writes)
            && let Some(refused) = home::forget_sequences(lent).await?
        {
            return Ok(Some(refused));
        }
        if self.home.wants_no_plans(lent, &self.session)
            && let Some(refused) = home::discard_plans(lent, &self.session.settings).await?
        {
            return Ok(Some(refused));
        }
        self.session.foresee_nothing();
        let doubtful = self.session.doubtful(&lent.upstream);
        if !doubtful.is_empty() {
            let refused = Box::pin(doubted::confirm(lent, &mut self.session, &doubtful)).await?;
            if lent.upstream.take_outdated() {
                self.account.cluster.schema_changed();
            }
            // The replica may lack what the primary has: nothing of the unit is told before that is known.
            let spare = !writes && lent.pool().node.role() == crate::topology::Role::Replica;
            let repeatable = || self.session.repeatable(UNIT_LIMIT, Fault::Replica.allows()).is_some();
            let foreseen = self.session.foreseen().filter(|_| spare && repeatable()).cloned();
            if let Some(refused) = refused.or(foreseen) {
                return Ok(Some(refused));
            }
        }
        if self.ear.is_some()
            && self.concerns_channels()
            && let Some(refused) = Box::pin(self.show_channels_on(lent)).await?
        {
            return Ok(Some(refused));
        }
        let fails = self.session.deferred.failed();
        let Some(prelude) = self.session.deferred.prelude() else { return Ok(None) };
        let answer = private::ask(lent, &prelude).await?;
        for name in self.session.deferred.begun() {
            self.session.touch(&name);
        }
        let as_it_should = fails && answer.status == TransactionStatus::Failed;
        Ok(private::error_of(&answer).filter(|_| !as_it_should))
    }
}
