//! Settings of the session's that a server refuses: what they name is gone, or the right to it.
//!
//! PostgreSQL looks at a setting when it is set and never again. A session goes from server to server, where each sets it anew: once
//! that is refused, nothing can run but what may take the setting back. For that the server is used without it.
//!
//! Invariant: nothing but statements that set, reset or end something runs on a server that lacks a setting of the session's, a
//! role least of all; the session has the setting afterwards, unless the statement has reset it or set another value.
//!
//! Deliberately absent: which setting it is (`gateway`).

use std::sync::Arc;

use super::parts::Part;
use super::{Session, What};
use crate::sql::{Effects, Kind, Statement};
use crate::upstream::Settings;
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::frontend;

/// RESET ALL leaves these alone.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// What pools send when a connection comes back, after the words of which there is nothing that could be told without a role.
const UNLOCK: [&str; 2] = ["select pg_advisory_unlock_all()", "select pg_catalog.pg_advisory_unlock_all()"];

/// What sets these keeps its server.
const PINNING: [&str; 2] = ["seed", "standard_conforming_strings"];

/// What the server at hand lacks.
#[derive(Debug)]
pub(super) struct Lacking {
    /// Of the session's, and of those that it began with.
    settings: Settings,
    baseline: Settings,
    /// Of those, what the unit in flight does away with if it succeeds, and how.
    gone: Vec<(Box<str>, Gone)>,
    /// Errors that the session had seen before.
    errors: u32,
}

/// How a setting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// It has another value.
    Set,
    /// It has the value that the session began with.
    Reset,
}

impl Session {
    /// Whether the unit at hand is whole and does nothing but set, reset and end, outside a transaction block.
    #[must_use]
    pub fn only_sets(&self) -> bool {
        let unit = &self.unit;
        let hidden = Effects(Effects::OPAQUE.0 | Effects::UNKNOWN.0 | Effects::COMPUTED_SETTING.0);
        unit.closed
            && unit.opens
            && !unit.opaque()
            && !self.deferred.active()
            && !self.effects.any(hidden)
            && !self.pins.any()
            && self.shapes().flat_map(|shape| &shape.statements).all(takes_back)
            && self.parts().all(|part| tells_nothing(&part))
            && self.runs_what_it_binds()
            && !self.may_undo()
    }

    /// Whether it sets nothing but who the user is: without a role it may set what the role may not.
    #[must_use]
    pub fn sets_only_identity(&self) -> bool {
        let sets = self.shapes().flat_map(|shape| &shape.statements).filter(|statement| statement.kind == Kind::Set);
        sets.flat_map(|statement| &statement.settings).all(|name| IDENTITY.contains(&&**name))
    }

    /// Whether the user is who the session began as, by a setting that RESET and DISCARD go back to.
    #[must_use]
    pub fn began_as(&self, setting: &str) -> bool {
        IDENTITY.contains(&setting)
            && self.baseline.bytes(setting).is_some_and(|value| self.settings.bytes(setting) == Some(value))
    }

    /// Whether the session began with a role of its own, which SET ROLE NONE does not leave alone.
    pub(super) fn began_with_role(&self) -> bool {
        let began = |settings: &Settings| settings.bytes(IDENTITY[0]).is_some();
        began(&self.baseline) || self.lacking.as_ref().is_some_and(|lacking| began(&lacking.baseline))
    }

    /// Whether each portal that the unit binds is run, before the next is bound: if it succeeds, all of that took place.
    fn runs_what_it_binds(&self) -> bool {
        let (mut at, mut bound) = (0, None);
        for op in &self.unit.ops {
            let frame = &self.input[at..at + op.len];
            at += op.len;
            match &op.what {
                What::Bind { statement: Some(_), .. } if bound.is_none() => {
                    let Ok(bind) = frontend::bind(frame) else { return false };
                    bound = Some(bind.portal);
                }
                What::Bind { .. } => return false,
                What::Execute | What::DeallocateAll(_) => {
                    let portal = frame.get(HEADER_LEN..).and_then(cstr).map(|(name, _)| name);
                    if portal.is_none() || bound.take() != portal {
                        return false;
                    }
                }
                _ => {}
            }
        }
        bound.is_none()
    }

    /// Whether the unit may take back itself what it sets: several statements are one transaction, which one of them ends.
    fn may_undo(&self) -> bool {
        let ends = |statement: &Statement| matches!(statement.kind, Kind::Commit | Kind::Rollback);
        self.executed().any(ends) && self.executed().count() > 1
    }

    /// The statements that the unit runs; not what it only prepares or describes, as drivers do ahead.
    fn executed(&self) -> impl Iterator<Item = &Statement> {
        let run = self.parts().filter(|part| part.simple || part.bind.is_some());
        run.flat_map(|part| &part.analysis.shape.statements)
    }

    /// The server at hand does without settings of these names.
    pub fn lack(&mut self, names: &[Box<str>]) {
        let part = |all: &Settings| {
            let lacked = names.iter().filter_map(|name| Some((name, all.bytes(name)?)));
            lacked.fold(Settings::default(), |mut part, (name, value)| {
                part.set(name, value);
                part
            })
        };
        let (settings, baseline) = (part(&self.settings), part(&self.baseline));
        let gone = names.iter().filter_map(|name| Some((name.clone(), self.does_away_with(name)?))).collect();
        for name in names {
            Arc::make_mut(&mut self.settings).remove(name);
            Arc::make_mut(&mut self.baseline).remove(name);
        }
        self.lacking = Some(Box::new(Lacking { settings, baseline, gone, errors: self.errors }));
    }

    /// Whether the server at hand lacks anything.
    #[must_use]
    pub fn lacks(&self) -> bool {
        self.lacking.is_some()
    }

    /// The session has again what its last server did without. `answered`: that has answered the unit. Returns whether there was
    /// anything.
    #[inline]
    pub fn regain(&mut self, answered: bool) -> bool {
        self.lacking.is_some() && self.regain_all(answered)
    }

    #[cold]
    fn regain_all(&mut self, answered: bool) -> bool {
        let Some(lacking) = self.lacking.take() else { return false };
        let succeeded = answered && lacking.errors == self.errors;
        let Lacking { settings, baseline, gone, .. } = *lacking;
        let gone = |name: &str| gone.iter().find(|(gone, _)| succeeded && **gone == *name).map(|(_, how)| *how);
        for (name, value) in settings.iter().filter(|(name, _)| gone(name).is_none()) {
            // No role is none that somebody has set.
            let lacked = |now: &[u8]| name == IDENTITY[0] && now == b"none";
            if self.settings.bytes(name).is_none_or(lacked) {
                Arc::make_mut(&mut self.settings).set(name, value);
            }
        }
        // Without any other setting that it began with a session is better served than not at all; without its role it has another's rights.
        for (name, value) in baseline.iter().filter(|(name, _)| gone(name).is_none() || IDENTITY.contains(name)) {
            Arc::make_mut(&mut self.baseline).set(name, value);
            if gone(name) == Some(Gone::Reset) || self.settings.bytes(name).is_none() {
                Arc::make_mut(&mut self.settings).set(name, value);
            }
        }
        true
    }

    /// What the unit at hand, which only sets, comes to for a setting.
    fn does_away_with(&self, setting: &str) -> Option<Gone> {
        let identity = IDENTITY.contains(&setting);
        let does = |statement: &Statement| {
            // It lays down the role as well.
            let named = |name: &str| name == setting || (identity && name == "session_authorization");
            let all = Effects(if identity { Effects::DISCARD_ALL.0 } else { Effects::ALL_SETTINGS.0 });
            statement.effects.any(all) || statement.settings.iter().any(|name| named(name))
        };
        let last = self.executed().filter(|statement| does(statement)).last()?;
        Some(if last.kind == Kind::Set { Gone::Set } else { Gone::Reset })
    }
}

/// Whether a statement that is no utility is, word by word, one that returns nothing of anybody's.
fn tells_nothing(part: &Part<'_>) -> bool {
    part.analysis.shape.statements.iter().filter(|statement| statement.kind == Kind::Select).all(|statement| {
        let (from, to) = statement.span;
        let text = part.text.get(from as usize..to as usize).and_then(|text| std::str::from_utf8(text).ok());
        let text = text.unwrap_or_default().trim().trim_end_matches(';').trim_end();
        UNLOCK.iter().any(|unlock| text.eq_ignore_ascii_case(unlock))
    })
}

/// What drivers' pools send when a connection comes back among them.
fn takes_back(statement: &Statement) -> bool {
    match statement.kind {
        // What holds for a transaction takes nothing back.
        Kind::Set | Kind::Reset if statement.effects.any(Effects::LOCAL_SETTINGS) => false,
        Kind::Set | Kind::Reset => !statement.settings.iter().any(|name| PINNING.contains(&&**name)),
        Kind::Discard | Kind::Close | Kind::Unlisten => true,
        Kind::Commit | Kind::Rollback => statement.transaction.is_some_and(|transaction| !transaction.chain),
        // Which it is, `tells_nothing` says.
        Kind::Select => true,
        _ => false,
    }
}
