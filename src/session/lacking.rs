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

use super::{Session, What};
use crate::sql::{Effects, Kind, Statement};
use crate::upstream::Settings;
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::frontend;

/// RESET ALL leaves these alone.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// What sets these keeps its server.
const PINNING: [&str; 2] = ["seed", "standard_conforming_strings"];

/// What the server at hand lacks.
#[derive(Debug)]
pub(super) struct Lacking {
    /// Of the session's, and of those that it began with.
    settings: Settings,
    baseline: Settings,
    /// Of the former, what the unit in flight does away with if it succeeds.
    resets: Vec<Box<str>>,
    /// Errors that the session had seen before.
    errors: u32,
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
            && self.runs_what_it_binds()
            && !self.may_undo()
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
        let resets = names.iter().filter(|name| self.does_away_with(name)).cloned().collect();
        for name in names {
            Arc::make_mut(&mut self.settings).remove(name);
            Arc::make_mut(&mut self.baseline).remove(name);
        }
        self.lacking = Some(Box::new(Lacking { settings, baseline, resets, errors: self.errors }));
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
        let Lacking { settings, baseline, resets, .. } = *lacking;
        for (all, part) in [(&mut self.settings, settings), (&mut self.baseline, baseline)] {
            for (name, value) in part.iter() {
                let gone = succeeded && resets.iter().any(|reset| **reset == *name);
                if !gone && all.bytes(name).is_none() {
                    Arc::make_mut(all).set(name, value);
                }
            }
        }
        true
    }

    /// Whether the unit at hand, which only sets, resets a setting or sets it for the session.
    fn does_away_with(&self, setting: &str) -> bool {
        let identity = IDENTITY.contains(&setting);
        self.executed().any(|statement| {
            // It lays down the role as well.
            let named = |name: &str| name == setting || (identity && name == "session_authorization");
            let all = Effects(if identity { Effects::DISCARD_ALL.0 } else { Effects::ALL_SETTINGS.0 });
            statement.effects.any(all) || statement.settings.iter().any(|name| named(name))
        })
    }
}

/// What drivers' pools send when a connection comes back among them.
fn takes_back(statement: &Statement) -> bool {
    match statement.kind {
        // What holds for a transaction takes nothing back.
        Kind::Set | Kind::Reset if statement.effects.any(Effects::LOCAL_SETTINGS) => false,
        Kind::Set | Kind::Reset => !statement.settings.iter().any(|name| PINNING.contains(&&**name)),
        Kind::Discard | Kind::Close | Kind::Unlisten => true,
        Kind::Commit | Kind::Rollback => statement.transaction.is_some_and(|transaction| !transaction.chain),
        Kind::Select => match statement.functions.as_slice() {
            [only] => statement.tables.is_empty() && &*only.name == "pg_advisory_unlock_all",
            _ => false,
        },
        _ => false,
    }
}
