//! The server that a session would rather have: what PostgreSQL keeps in a process alone is there, or is not there yet.
//!
//! Invariant: `currval` and `lastval` tell a session what its own `nextval` gave, or that it called none.
//!
//! A session prefers the server that it used last (`pool::Wish`), and a server knows whose sequence values it holds. Once an
//! account has asked for them, its pool keeps such a server from others while it can, and what may write begins without
//! another's. The very first to ask is told another's of a sequence that it has not advanced itself, if it has advanced one since it
//! holds the server.
//!
//! For such an account, a session that may have advanced a sequence and does not keep its server is left it for a moment
//! ([`LINGER`]): applications ask in the next statement, and with a pool at its limit another session would have it by then. Not
//! for long: who has let such moments pass ([`IN_VAIN`]) is a session that does not ask. An account of which nothing is known yet
//! is taken for such a one where a statement is known to advance a sequence, until its sessions have let many such moments pass
//! (`pool`).
//!
//! Deliberately absent: what else a session leaves on a server (`session::Pins`).

use std::sync::Arc;
use std::time::Duration;

use super::private;
use crate::pool::{Lent, Wish};
use crate::session::Session;
use crate::sql::{Effects, Kind};
use crate::topology::Role;
use crate::upstream::{Answer, ErrorReply, Sequences, Settings};

/// How long a session that may ask for what its `nextval` gave is left the server.
pub(super) const LINGER: Duration = Duration::from_millis(200);

/// How often it is, without asking: so often if it does something else meanwhile, ...
const IN_VAIN: u8 = 64;

/// ... and a moment in which others wait for nothing counts as so many.
const IDLE: u8 = 32;

const DISCARD_PLANS: &str = "DISCARD PLANS";

/// What one session had where.
#[derive(Debug)]
pub(super) struct Home {
    /// The session's number.
    id: u64,
    /// The server of a primary that was used last, by its number; 0: none.
    last: u64,
    /// The one on which the session may have advanced a sequence last, and whether it did while it holds that.
    advanced_on: u64,
    advancing: bool,
    /// What is created next would make the session's temporary schema, which can be told on a server that has none yet only:
    /// such a one is wanted (`true`), or the session has had it.
    wants_new: Option<bool>,
    /// How often it was left a server and did not ask.
    in_vain: u8,
    /// It has made something temporary since it holds the server.
    temporary: bool,
    /// And has gone back to a savepoint since.
    returned: bool,
}

impl Home {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            last: 0,
            advanced_on: 0,
            advancing: false,
            wants_new: None,
            in_vain: 0,
            temporary: false,
            returned: false,
        }
    }

    /// The server that would be best for the unit at hand.
    #[inline]
    pub(super) fn wish(&mut self, session: &Session) -> Wish {
        self.advancing = false;
        self.temporary = false;
        self.returned = false;
        if self.wants_new == Some(true) && !session.pins.temporary {
            self.wants_new = Some(false);
            return Wish::New;
        }
        Wish::Again(if session.pins.sequence { self.advanced_on } else { self.last })
    }

    /// A server that has run nothing yet would be best for the unit at hand.
    pub(super) fn want_new(&mut self) {
        self.wants_new = Some(true);
    }

    /// The settings are known anew.
    pub(super) fn note_settings(&mut self, session: &Session) {
        let temporary_first = |path: &str| path.trim_start_matches([' ', '"']).starts_with("pg_temp");
        if self.wants_new.is_none() && session.settings.value("search_path").is_some_and(temporary_first) {
            self.wants_new = Some(true);
        }
    }

    /// The session lets go of a server.
    #[inline]
    pub(super) fn leaves(&mut self, lent: &Lent) {
        if lent.pool().node.role() == Role::Primary {
            self.last = lent.number();
        }
    }

    /// What is about to be sent may advance a sequence.
    #[inline]
    pub(super) fn advances(&mut self, lent: &mut Lent) {
        lent.upstream.sequences.advanced_by(self.id);
        self.advanced_on = lent.number();
        self.advancing = true;
    }

    /// Whether it may soon ask for what only this server can tell.
    #[inline]
    pub(super) fn may_ask(&self, lent: &Lent, advances: bool) -> bool {
        self.may_be_asking(lent, advances) && lent.upstream.sequences.of(self.id) && lent.number() == self.advanced_on
    }

    /// Whether it, or an account like its, asks, as far as is known.
    #[inline]
    fn may_be_asking(&self, lent: &Lent, advances: bool) -> bool {
        let pool = lent.pool();
        self.in_vain < IN_VAIN && (pool.keeps_sequences() || advances && pool.may_keep_sequences())
    }

    /// It did something else, or nothing (`idle`), while it was left the server.
    pub(super) fn did_not_ask(&mut self, lent: &Lent, idle: bool) {
        let cost = if idle { IDLE } else { 1 };
        self.in_vain = self.in_vain.saturating_add(cost);
        lent.pool().left_in_vain(cost.into());
    }

    /// Whether others' plans on a server must be gone before the unit at hand runs. Never within a group, as below.
    #[inline]
    pub(super) fn wants_no_plans(&self, lent: &Lent, session: &Session) -> bool {
        let concerned = session.refolds || session.effects().any(Effects::TEMPORARY | Effects::SQL_PREPARE);
        concerned && session.unit().opens && (self.shadows(lent, session) || meets_plans(lent, session))
    }

    /// Whether they were made before the session's first temporary object, which is about to be made.
    fn shadows(&self, lent: &Lent, session: &Session) -> bool {
        if !lent.upstream.plans.had_temporary || !session.effects().any(Effects::TEMPORARY) {
            return false;
        }
        // What was noted of the transaction before was undone, perhaps.
        let undone = || self.returned || returns_to_savepoint(session);
        let first = !self.temporary || undone() && session.shapes().any(|shape| shape.effects.any(Effects::TEMPORARY));
        first && !session.pins.temporary
    }

    /// What is about to be sent may make a temporary object.
    #[inline]
    pub(super) fn makes_temporary(&mut self, lent: &mut Lent) {
        lent.upstream.plans.had_temporary = true;
        self.temporary = true;
    }

    /// What is sent may undo that, down to the temporary schema (`AtEOSubXact_Namespace` in `namespace.c`).
    #[inline]
    pub(super) fn goes_back(&mut self, session: &Session) {
        self.returned |= self.temporary && returns_to_savepoint(session);
    }

    /// Whether a server holds sequence values that the unit at hand must not be told of, or that it is better rid of. Never
    /// within a group: a question would end it, or take its answers away.
    #[inline]
    pub(super) fn minds(&self, lent: &Lent, session: &Session, writes: bool) -> bool {
        let held = lent.upstream.sequences;
        if held == Sequences::NONE || self.advancing || held.of(self.id) && lent.number() == self.advanced_on {
            return false;
        }
        if !session.unit().opens {
            return false;
        }
        // What is not known may ask as well, and so may what follows in the same group.
        let unknown = session.effects().any(Effects::UNKNOWN | Effects::OPAQUE) || !session.unit().closed;
        let kept = || lent.pool().keeps_sequences() || self.may_be_asking(lent, session.advances);
        // What begins a transaction may leave no other moment for it.
        session.pins.sequence || unknown || (writes || session.begins_block()) && kept()
    }
}

/// Whether a session runs what may meet others' plans after it has set, for this transaction perhaps, what plans are made of; or
/// prepares what a later `DISCARD PLANS` would make anew under other settings.
fn meets_plans(lent: &Lent, session: &Session) -> bool {
    let prepares = session.effects().any(Effects::SQL_PREPARE) && !session.pins.sql_prepare;
    !lent.upstream.plans.own && (prepares || session.refolds && session.takes_snapshot())
}

/// Whether a unit goes back to a savepoint.
fn returns_to_savepoint(session: &Session) -> bool {
    session.shapes().flat_map(|shape| &shape.statements).any(|statement| statement.kind == Kind::RollbackTo)
}

/// Makes a server make all plans anew, under `settings`. `Some`: it refused.
pub(super) async fn discard_plans(
    lent: &mut Lent,
    settings: &Arc<Settings>,
) -> Result<Option<ErrorReply>, private::PrivateError> {
    let answer = private::run(lent, &[DISCARD_PLANS]).await?;
    Ok(discarded(lent, settings, &answer))
}

/// The same behind an answer of the client's: as [`private::run_whatever_it_takes`].
pub(super) async fn discard_plans_behind(
    lent: &mut Lent,
    settings: &Arc<Settings>,
    patience: private::Patience,
) -> Result<Option<ErrorReply>, private::PrivateError> {
    let answer = private::run_whatever_it_takes(lent, DISCARD_PLANS, patience).await?;
    Ok(discarded(lent, settings, &answer))
}

fn discarded(lent: &mut Lent, settings: &Arc<Settings>, answer: &Answer) -> Option<ErrorReply> {
    let refused = private::error_of(answer);
    match refused {
        None => lent.upstream.plans_discarded(settings),
        Some(_) => lent.upstream.plans_may_be_gone(),
    }
    refused
}

/// Makes a server forget all sequence values. `Some`: it refused.
pub(super) async fn forget_sequences(lent: &mut Lent) -> Result<Option<ErrorReply>, private::PrivateError> {
    let answer = private::run(lent, &["DISCARD SEQUENCES"]).await?;
    let refused = private::error_of(&answer);
    if refused.is_none() {
        lent.upstream.sequences = Sequences::NONE;
    }
    Ok(refused)
}
