//! RESET: on a server that several clients use it goes to the server's own value, and the client's is the one that its start-up
//! message gave. What sets that one again runs right behind, in the same message group or query string, and the client sees
//! nothing of it: what comes next finds what it would find on a server of the client's own, and a rollback takes both back. In a
//! string with others, what stands for a DEALLOCATE is put in its place.
//!
//! Invariant: only what the RESET at hand has reset is set again, for as long as the RESET holds.
//! Deliberately absent: DISCARD ALL as a Query, behind which nothing runs before the server was asked (`state`); RESET inside
//! functions, which is found at the transaction's end.

use std::ops::Range;

use super::Session;
use super::forward::NOTHING;
use crate::sql::{self, Analysis, Effects, Kind, Statement, Understood};
use crate::upstream::{Amended, Prepared, Upstream, literal, value_sql};
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::{TransactionStatus, frontend};

/// What the syntax of a RESET shows, among others.
const SETS: Effects = Effects(Effects::SETTINGS.0 | Effects::LOCAL_SETTINGS.0 | Effects::ALL_SETTINGS.0);

/// RESET ALL leaves these alone (`GUC_NO_RESET_ALL` in `guc_tables.c`).
const KEPT: [&str; 6] = [
    "role",
    "session_authorization",
    "seed",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
];

/// Of lists of names SET makes a text of its own, with other spaces and quotes (`flatten_set_variable_args` in `guc.c`).
const LISTS: [&str; 2] = ["search_path", "temp_tablespaces"];

/// A portal of a RESET that has not run yet.
#[derive(Debug)]
pub(super) struct Resetting {
    portal: Box<[u8]>,
    texts: Vec<String>,
}

impl Session {
    /// What sets again what a statement resets.
    fn restoring(&self, statement: &Statement) -> Vec<String> {
        let resets = matches!(statement.kind, Kind::Reset | Kind::Discard);
        if !resets || statement.understood == Understood::Lexed {
            return Vec::new();
        }
        let all = statement.effects.any(Effects::ALL_SETTINGS);
        let local = statement.effects.any(Effects::LOCAL_SETTINGS);
        let reset = |name: &str| {
            if all { !KEPT.contains(&name) } else { statement.settings.iter().any(|reset| **reset == *name) }
        };
        self.baseline.iter().filter(|(name, _)| reset(name)).map(|(name, value)| setting(name, value, local)).collect()
    }

    /// Whether a text may hold a RESET of what the client began with.
    fn may_reset(&self, analysis: &Analysis) -> bool {
        analysis.shape.effects.any(SETS) && !self.baseline.is_empty()
    }

    /// Whether a text may deallocate, among other things, what was prepared through the protocol.
    fn may_deallocate(&self, analysis: &Analysis) -> bool {
        let several = analysis.shape.statements.len() > 1;
        several && analysis.shape.effects.any(Effects::SQL_PREPARE) && !self.statements.is_empty()
    }

    /// A Query's text with what sets again what it resets, and what deallocates, if it does anything like that.
    #[inline]
    pub(super) fn amended(&self, analysis: &Analysis, frame: &[u8], up: &Upstream) -> Option<(Vec<u8>, Amended)> {
        let may = self.may_reset(analysis) || self.may_deallocate(analysis);
        if may { self.amend(analysis, frontend::query(frame).ok()?, up) } else { None }
    }

    fn amend(&self, analysis: &Analysis, text: &[u8], up: &Upstream) -> Option<(Vec<u8>, Amended)> {
        let statements = &analysis.shape.statements;
        let more: Vec<_> = statements.iter().map(|statement| self.restoring(statement)).collect();
        // It cannot share a string with others.
        let discards = statements.iter().any(|statement| statement.kind == Kind::Discard);
        let gone = if self.may_deallocate(analysis) { self.deallocations(analysis) } else { Vec::new() };
        if discards || more.iter().all(Vec::is_empty) && gone.iter().all(Option::is_none) {
            return None;
        }
        if let [only] = statements.as_slice()
            && only.effects.any(Effects::LOCAL_SETTINGS)
            && up.status() == TransactionStatus::Idle
            && up.unready() == 0
        {
            // By itself it does nothing, and says so; two in one string are a transaction.
            return None;
        }
        let spans = sql::statement_spans(text, self.context);
        if spans.len() != more.len() {
            // More statements than are told apart: it is seen to at the transaction's end.
            return None;
        }
        let (mut whole, mut amended, mut from) = (Vec::with_capacity(text.len() + 64), Amended::default(), 0);
        let mut gone = gone.into_iter();
        for (Range { start, end }, more) in spans.into_iter().zip(more) {
            if let Some((name, statement)) = gone.next().flatten() {
                whole.extend_from_slice(&text[from..start]);
                whole.extend_from_slice(NOTHING);
                let own = characters(&text[start..end]);
                // Not shorter than what it stands for: what stands behind it is so many characters further on.
                whole.resize(whole.len() + own.saturating_sub(NOTHING.len()), b' ');
                amended.stands_for(characters(&text[..end]), NOTHING.len().saturating_sub(own), name, statement);
            } else {
                whole.extend_from_slice(&text[from..end]);
                amended.one_of_the_clients();
            }
            from = end;
            for own in more {
                amended.one_of_ours(characters(&text[..end]), own.len() + 1);
                whole.push(b';');
                whole.extend_from_slice(own.as_bytes());
            }
        }
        whole.extend_from_slice(&text[from..]);
        Some((whole, amended))
    }

    /// Notes a portal that a Bind makes, if its Execute resets what the client began with.
    #[inline]
    pub(super) fn note_portal(&mut self, bind: &Range<usize>, statement: Option<&Prepared>) {
        let may_reset = statement.filter(|statement| self.may_reset(&statement.analysis));
        if may_reset.is_some() || !self.resetting.is_empty() {
            self.note_resetting(bind, may_reset);
        }
    }

    fn note_resetting(&mut self, bind: &Range<usize>, statement: Option<&Prepared>) {
        let Ok(bind) = frontend::bind(&self.input[bind.clone()]) else { return };
        self.resetting.retain(|held| *held.portal != *bind.portal);
        let statement = statement.and_then(|statement| statement.analysis.shape.statements.first());
        let texts = statement.map_or_else(Vec::new, |statement| self.restoring(statement));
        if !texts.is_empty() {
            self.resetting.push(Resetting { portal: bind.portal.into(), texts });
        }
    }

    /// Runs what stands behind the Execute of such a portal.
    pub(super) fn restore_behind(&mut self, portal: &[u8], up: &mut Upstream) {
        let Some(at) = self.resetting.iter().position(|held| *held.portal == *portal) else { return };
        for text in self.resetting.swap_remove(at).texts {
            up.run_within(&text, self);
        }
    }

    /// Whether an Execute is of such a portal; its name.
    #[inline]
    pub(super) fn resets_by(&self, execute: &[u8]) -> Option<Box<[u8]>> {
        if self.resetting.is_empty() {
            return None;
        }
        let (portal, _) = cstr(execute.get(HEADER_LEN..)?)?;
        self.resetting.iter().any(|held| *held.portal == *portal).then(|| portal.into())
    }
}

/// Sets one, without a row, and where it can be without a snapshot: SET TRANSACTION may come behind it.
fn setting(name: &str, value: &[u8], local: bool) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() && !LISTS.contains(&name) => {
            let path: Vec<_> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
            format!("SET {} {} TO {}", if local { "LOCAL" } else { "SESSION" }, path.join("."), literal(text))
        }
        _ => format!("SELECT WHERE pg_catalog.set_config({},{},{local}) IS NULL", literal(name), value_sql(value)),
    }
}

/// As a server counts them; in encodings other than UTF-8 those of one byte each.
fn characters(text: &[u8]) -> usize {
    std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count())
}
