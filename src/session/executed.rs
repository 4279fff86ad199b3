//! SQL's EXECUTE and DEALLOCATE of a statement that the client prepared through the protocol: servers know it by a name of ours.
//!
//! Invariant: of EXECUTE only a text that is nothing else is changed, and in it only the name. The server holds the statement before
//! the text goes out, or the text goes as it is and the server says that there is none.
//!
//! Of DEALLOCATE in the extended protocol nothing is changed: before its portal runs, the server gets a statement without a text
//! under the client's name, which is what it deallocates then. For the client the statement is gone as soon as that Execute is looked
//! at, as with a Close, and is there again if it fails or is skipped. So are all of them where all are dropped.
//!
//! Deliberately absent: EXPLAIN EXECUTE and CREATE TABLE AS EXECUTE; what a name stands for once an EXECUTE itself was prepared, which
//! is what it stood for then.

use std::sync::Arc;

use super::{Op, Session, What};
use crate::sql::{Analysis, Effects, Kind, Lexer, Shape, TextContext, TokenKind};
use crate::upstream::{Prepared, PreparedSet, StatementId, Upstream};
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::frontend;

const EXECUTE: &[u8] = b"execute";

/// The name in a text that is one EXECUTE.
fn name(analysis: &Analysis) -> Option<&str> {
    let [only] = analysis.shape.statements.as_slice() else { return None };
    if only.kind == Kind::Execute { only.object.as_deref() } else { None }
}

/// What the Execute of a portal takes from the client.
#[derive(Debug)]
pub(super) enum Gone {
    /// The statement of this name.
    One(Box<[u8]>),
    /// All that have names.
    All,
}

/// What a text deallocates, if it is one statement that does.
#[inline]
pub(super) fn gone(shape: &Shape) -> Option<Gone> {
    let [only] = shape.statements.as_slice() else { return None };
    if matches!(only.kind, Kind::Deallocate | Kind::Discard) && only.effects.any(Effects::DROPS_PREPARED) {
        return Some(Gone::All);
    }
    deallocated_name(shape).map(|name| Gone::One(name.as_bytes().into()))
}

/// The name that a text deallocates, if that is all it does.
#[inline]
pub(super) fn deallocated_name(shape: &Shape) -> Option<&str> {
    let [only] = shape.statements.as_slice() else { return None };
    let one = only.kind == Kind::Deallocate && !only.effects.any(Effects::DROPS_PREPARED);
    only.object.as_deref().filter(|_| one)
}

/// Portals that are known to deallocate. One more is told by its server that there is no such statement.
const PORTALS: usize = 64;

/// A portal that deallocates.
#[derive(Debug)]
pub(super) struct Deallocating {
    portal: Box<[u8]>,
    gone: Gone,
}

/// An EXECUTE's text with the name under which servers know what it executes.
fn renamed(text: &[u8], id: StatementId, context: TextContext) -> Option<Vec<u8>> {
    let (mut words, mut place) = (0, None);
    Lexer::whole(text, context.standard_conforming_strings, |token| {
        if token.kind != TokenKind::Comment {
            words += 1;
            if words == 2 {
                place = Some((token.start, token.end));
            }
        }
    });
    let (start, end) = place?;
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    let mut out = Vec::with_capacity(text.len() + 24);
    out.extend_from_slice(text.get(..start)?);
    out.extend_from_slice(&id.name());
    out.extend_from_slice(text.get(end..)?);
    Some(out)
}

impl Session {
    /// A Query's text with a server's name for what it executes, if that was prepared through the protocol.
    pub(super) fn execution(&self, analysis: &Analysis, text: &[u8]) -> Option<(Vec<u8>, StatementId)> {
        let statement = self.statements.get(name(analysis)?.as_bytes())?;
        Some((renamed(text, statement.id, self.context)?, statement.id))
    }

    /// The same for a Query's frame, if the server surely holds it.
    pub(super) fn execution_on(&self, analysis: &Analysis, frame: &[u8], up: &mut Upstream) -> Option<Vec<u8>> {
        if self.statements.is_empty() {
            return None;
        }
        let (text, id) = self.execution(analysis, frontend::query(frame).ok()?)?;
        (up.holds(id) == Some(true)).then_some(text)
    }

    /// The same for a text that is to be prepared.
    pub(super) fn prepared_execution(&self, text: &[u8]) -> Option<Vec<u8>> {
        let word = text.trim_ascii_start().get(..EXECUTE.len())?;
        if self.statements.is_empty() || !word.eq_ignore_ascii_case(EXECUTE) {
            return None;
        }
        let analysis = self.shared.analyzer.analyze(text, self.context);
        self.execution(&analysis, text).map(|(text, _)| text)
    }

    /// The statement of the client's own that a query string deallocates, if that is all it does.
    pub(super) fn deallocated(&self, analysis: &Analysis) -> Option<(Box<[u8]>, StatementId)> {
        let name = deallocated_name(&analysis.shape)?;
        let statement = self.statements.get(name.as_bytes())?;
        Some((name.as_bytes().into(), statement.id))
    }

    /// Notes a portal that a Bind makes: what it deallocates, if it does.
    pub(super) fn note_deallocating(&mut self, portal: Box<[u8]>, gone: Option<Gone>) {
        self.deallocating.retain(|held| held.portal != portal);
        if let Some(gone) = gone.filter(|_| self.deallocating.len() < PORTALS) {
            self.deallocating.push(Deallocating { portal, gone });
        }
    }

    /// What an Execute is: the client's statements go that its portal deallocates.
    pub(super) fn executed_portal(&mut self, start: usize, end: usize) -> What {
        let portal = cstr(&self.input[start + HEADER_LEN..end]).map(|(portal, _)| portal);
        let Some(held) = self.deallocating.iter().find(|held| portal == Some(&*held.portal)) else {
            return What::Execute;
        };
        let name = match &held.gone {
            Gone::One(name) => name.clone(),
            Gone::All => return What::DeallocateAll(self.statements.take_all()),
        };
        self.statements.remove(&name).map_or(What::Execute, |statement| What::Deallocate { name, statement })
    }

    /// The statement of the client's own for each statement of a string of several.
    pub(super) fn deallocations(&self, analysis: &Analysis) -> Vec<Option<(Box<[u8]>, StatementId)>> {
        let mut gone: Vec<&str> = Vec::new();
        let statements = &analysis.shape.statements;
        let own = statements.iter().map(|statement| {
            let alone = statement.kind == Kind::Deallocate && !statement.effects.any(Effects::DROPS_PREPARED);
            // The second time there is none.
            let name = statement.object.as_deref().filter(|name| alone && !gone.contains(name))?;
            let held = self.statements.get(name.as_bytes())?;
            gone.push(name);
            Some((name.as_bytes().into(), held.id))
        });
        own.collect()
    }

    /// The client's statement that a message executes by SQL.
    pub(super) fn executed_by(&self, what: &What) -> Option<&Arc<Prepared>> {
        match what {
            What::Query(analysis) => self.statements.get(name(analysis)?.as_bytes()),
            What::Bind { statement: Some(one), .. } | What::DescribeStatement { statement: Some(one) } => {
                self.statements.known_as(name(&one.analysis)?)
            }
            _ => None,
        }
    }

    /// What a message executes by SQL and the server may not hold as the client knows it.
    pub(super) fn lacks_for(&self, op: &Op, prepared: &PreparedSet) -> Option<&Arc<Prepared>> {
        let statement = self.executed_by(&op.what)?;
        let lacks = !prepared.surely_holds(statement.id) || prepared.doubts(statement, &self.settings, self.within());
        lacks.then_some(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Analyzer;
    use crate::upstream::Registry;

    #[test]
    fn the_name_alone_is_changed() {
        let context = TextContext::new(true, "UTF8");
        let statement = Registry::default().single(b"", &[0, 0], Analyzer::new(1 << 20).analyze(b"", context));
        let own = String::from_utf8(statement.id.name().to_vec()).unwrap();
        for (text, expected) in [
            ("EXECUTE a", format!("EXECUTE {own}")),
            ("execute/* a */\"A b\"(1, 'a')", format!("execute/* a */{own}(1, 'a')")),
            ("-- a\n EXECUTE a ;", format!("-- a\n EXECUTE {own} ;")),
        ] {
            assert_eq!(renamed(text.as_bytes(), statement.id, context), Some(expected.into_bytes()), "{text}");
        }
        assert_eq!(renamed(b"EXECUTE", statement.id, context), None);
    }
}
