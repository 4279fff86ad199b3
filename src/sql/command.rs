//! The command that a statement's first tokens name, and what its syntax says of session, transaction and objects.
//!
//! Invariants: a kind is told by its leading keywords alone; `Transaction::whole` only where every token was interpreted;
//! access is `Read` only for commands that can change no data. Deliberately absent: expressions and queries, which the
//! grammar reads (see `parse`).

mod certain;
mod utility;

use super::analysis::{Access, Effects, Kind, Statement, Table, Understood};
use super::lexer::TokenKind;
use super::literal;
use super::sketch::{HeadToken, Scan};

/// Where in a statement the part stands that the grammar may read, in tokens (comments not counted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) start: usize,
    /// Up to the parenthesis that closes the one before `start`, rather than to the end.
    pub(crate) parenthesised: bool,
}

/// Fills in `statement` from its first tokens and from what was seen in the rest.
pub(crate) fn interpret(
    head: &[HeadToken],
    complete: bool,
    mut scan: Scan,
    statement: &mut Statement,
) -> Option<Inner> {
    let mut reader = Reader { head, at: 0, complete };
    let error = scan.error;
    let inner = reader.command(&scan, statement);
    if scan.pg_settings && (scan.writes || statement.access == Access::Write) {
        // An UPDATE of this view is a SET, wherever it stands (its rule in `system_views.sql`).
        statement.effects |= Effects::SETTINGS | Effects::ALL_SETTINGS;
    }
    if statement.kind == Kind::Ddl && !runs(head, &scan) {
        // What a definition mentions is not called yet.
        scan.effects = Effects(scan.effects.0 & Effects::TEMPORARY.0);
        scan.settings.clear();
        scan.setting_parameters.clear();
        scan.functions.clear();
    }
    statement.effects |= scan.effects;
    statement.settings.extend(scan.settings);
    statement.setting_parameters = scan.setting_parameters;
    if scan.into_temporary {
        statement.effects |= Effects::TEMPORARY;
    }
    let calls = matches!(
        statement.kind,
        Kind::Select
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
            | Kind::Values
            | Kind::Call
            | Kind::Explain
            | Kind::Prepare
            | Kind::Execute
            | Kind::Declare
            | Kind::Other
    );
    if calls || statement.kind == Kind::Ddl || (statement.kind == Kind::CopyOut && inner.is_some()) {
        statement.functions = scan.functions;
    }
    if error {
        *statement = Statement {
            kind: statement.kind,
            hints: std::mem::take(&mut statement.hints),
            effects: statement.effects | Effects::OPAQUE | Effects::CALLS_UNKNOWN,
            ..Statement::default()
        };
        return None;
    }
    inner
}

/// Whether a definition runs what it holds: CREATE TABLE AS, CREATE MATERIALIZED VIEW, ALTER TABLE with a new default.
fn runs(head: &[HeadToken], scan: &Scan) -> bool {
    let word = |i: usize| head.get(i).map_or(&b""[..], |t| &t.text[..]);
    let early = |w: &[u8]| (1..5).any(|i| word(i) == w);
    match word(0) {
        b"create" => scan.query && (early(b"table") || early(b"materialized")) && !early(b"function"),
        b"alter" => early(b"table") || early(b"type") || early(b"domain"),
        // EXPLAIN and PREPARE hold one.
        b"explain" | b"prepare" => true,
        _ => false,
    }
}

struct Reader<'h> {
    head: &'h [HeadToken],
    at: usize,
    /// The head is the whole statement.
    complete: bool,
}

impl Reader<'_> {
    fn word(&self, ahead: usize) -> &str {
        match self.head.get(self.at + ahead) {
            Some(t) if t.kind == TokenKind::Word => std::str::from_utf8(&t.text).unwrap_or(""),
            _ => "",
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.word(0) == word;
        self.at += usize::from(found);
        found
    }

    fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|w| self.eat(w))
    }

    fn eat_all(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, w)| self.word(i) == *w);
        if found {
            self.at += words.len();
        }
        found
    }

    fn is_mark(&self, mark: &[u8]) -> bool {
        self.head
            .get(self.at)
            .is_some_and(|t| matches!(t.kind, TokenKind::Punctuation | TokenKind::Operator) && &t.text[..] == mark)
    }

    fn eat_mark(&mut self, mark: &[u8]) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Option<Box<str>> {
        let token = self.head.get(self.at)?;
        let text = std::str::from_utf8(&token.text).ok()?;
        let name = match token.kind {
            TokenKind::Word => literal::fold_word(text),
            TokenKind::QuotedIdent => literal::fold_quoted(text),
            _ => return None,
        };
        self.at += 1;
        Some(name)
    }

    /// `schema.name`; of three parts the last two.
    fn qualified(&mut self) -> Option<(Option<Box<str>>, Box<str>)> {
        let mut schema = None;
        let mut name = self.name()?;
        while self.eat_mark(b".") {
            schema = Some(std::mem::replace(&mut name, self.name()?));
        }
        Some((schema, name))
    }

    fn done(&self) -> bool {
        self.complete && self.at == self.head.len()
    }

    fn skip_parentheses(&mut self) -> bool {
        let mut depth = 0_usize;
        while self.at < self.head.len() {
            if self.is_mark(b"(") {
                depth += 1;
            } else if self.is_mark(b")") {
                depth -= 1;
            }
            self.at += 1;
            if depth == 0 {
                return true;
            }
        }
        false
    }

    fn command(&mut self, scan: &Scan, s: &mut Statement) -> Option<Inner> {
        let start = self.at;
        while self.is_mark(b"(") {
            self.at += 1;
        }
        let parentheses = self.at - start;
        let first = self.word(0).to_owned();
        self.at += 1;
        if parentheses > 0 && !matches!(first.as_str(), "select" | "values" | "with" | "table") {
            return unknown(s);
        }
        let grammar = Some(Inner { start, parenthesised: false });
        match first.as_str() {
            "select" | "table" => {
                query(s, Kind::Select, scan);
                return grammar;
            }
            "values" => {
                query(s, Kind::Values, scan);
                return grammar;
            }
            "with" => {
                match scan.main {
                    _ if parentheses > 0 => query(s, Kind::Select, scan),
                    Some(kind @ (Kind::Select | Kind::Values)) => query(s, kind, scan),
                    Some(kind) => write(s, kind),
                    None => {
                        let _ = unknown(s);
                    }
                }
                return grammar;
            }
            "insert" => write(s, Kind::Insert),
            "update" => write(s, Kind::Update),
            "delete" => write(s, Kind::Delete),
            "merge" => write(s, Kind::Merge),
            "copy" => return self.copy(scan, s),
            "explain" => return self.explain(scan, s),
            "prepare" => return self.prepare(scan, s),
            "declare" => return self.declare(scan, s),
            "create" | "alter" | "drop" | "comment" | "grant" | "revoke" | "truncate" | "security" | "import"
            | "reassign" => {
                self.definition(&first, scan, s);
                return grammar;
            }
            _ => {
                self.utility(&first, s);
                return None;
            }
        }
        grammar
    }

    fn copy(&mut self, scan: &Scan, s: &mut Statement) -> Option<Inner> {
        if self.is_mark(b"(") {
            let start = self.at + 1;
            // Judged before the query inside fills in its own kind.
            self.at += 1;
            let mut query = Statement::default();
            let _ = self.command(scan, &mut query);
            s.kind = Kind::CopyOut;
            s.access = query.access;
            s.effects |= query.effects;
            self.at = start - 1;
            let closed = self.skip_parentheses();
            let to_client = closed && self.eat("to") && self.eat_any(&["stdout", "stdin"]);
            if !to_client && closed {
                s.access = Access::Write;
            }
            return Some(Inner { start, parenthesised: true });
        }
        self.eat("binary");
        let table = self.qualified();
        if self.is_mark(b"(") {
            self.skip_parentheses();
        }
        let (kind, access) = match self.word(0) {
            "from" => (Kind::CopyIn, Access::Write),
            // To a file or a program of the server's is more than a read.
            // PostgreSQL takes either word in either direction.
            "to" if matches!(self.word(1), "stdout" | "stdin") => (Kind::CopyOut, Access::Read),
            "to" => (Kind::CopyOut, Access::Write),
            _ => {
                let _ = unknown(s);
                s.kind = Kind::CopyIn;
                s.access = Access::Write;
                return None;
            }
        };
        done(s, kind, access, Effects::NONE);
        match table {
            Some((schema, name)) => s.tables.push(Table { schema, name, access }),
            None => s.understood = Understood::Lexed,
        }
        None
    }

    fn explain(&mut self, scan: &Scan, s: &mut Statement) -> Option<Inner> {
        let mut analyze = false;
        if self.is_mark(b"(")
            && !matches!(self.word(1), "select" | "with" | "values" | "table")
            && !self.word(1).is_empty()
        {
            let end = {
                let from = self.at;
                let closed = self.skip_parentheses();
                let to = self.at;
                self.at = from;
                if !closed {
                    return unknown(s);
                }
                to
            };
            while self.at < end {
                if self.eat_any(&["analyze", "analyse"]) {
                    let off = self.head.get(self.at).is_some_and(|t| {
                        matches!(&t.text[..], b"false" | b"off" | b"0" | b"'false'" | b"'off'" | b"'0'")
                    });
                    analyze = !off;
                }
                self.at += usize::from(self.at < end);
            }
            self.at = end;
        } else {
            analyze = self.eat_any(&["analyze", "analyse"]);
            self.eat("verbose");
        }
        let mut inner = Statement::default();
        let start = self.at;
        let grammar = self.command(scan, &mut inner).is_some();
        let query = matches!(inner.kind, Kind::Select | Kind::Values);
        let modifies = matches!(inner.kind, Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge);
        s.kind = Kind::Explain;
        s.access = match (analyze, inner.access) {
            // A plan alone changes nothing, whatever it plans.
            (false, _) if query || modifies => Access::Read,
            (false, _) => Access::Unknown,
            (true, access) => access,
        };
        // EXECUTE and CREATE TABLE AS do what they do only when run, but to be told apart they need no grammar.
        s.effects |= inner.effects;
        let asks = query || modifies || inner.kind == Kind::Ddl;
        (grammar && asks).then_some(Inner { start, parenthesised: false })
    }

    fn prepare(&mut self, scan: &Scan, s: &mut Statement) -> Option<Inner> {
        if self.word(0) == "transaction" && self.head.get(self.at + 1).is_some_and(|t| t.text.contains(&b'\'')) {
            done(s, Kind::PrepareTransaction, Access::Write, Effects::NONE);
            return None;
        }
        s.kind = Kind::Prepare;
        s.effects |= Effects::SQL_PREPARE;
        s.object = self.name();
        if self.is_mark(b"(") && !self.skip_parentheses() {
            return None;
        }
        if !self.eat("as") {
            return None;
        }
        let mut inner = Statement::default();
        let start = self.at;
        let grammar = self.command(scan, &mut inner).is_some();
        s.access = inner.access;
        s.effects |= inner.effects;
        grammar.then_some(Inner { start, parenthesised: false })
    }

    fn declare(&mut self, scan: &Scan, s: &mut Statement) -> Option<Inner> {
        s.kind = Kind::Declare;
        s.object = self.name();
        while !self.eat("cursor") {
            if self.at >= self.head.len() {
                s.effects |= Effects::HOLD_CURSOR;
                return None;
            }
            self.at += 1;
        }
        if self.eat_all(&["with", "hold"]) {
            s.effects |= Effects::HOLD_CURSOR;
        }
        self.eat_all(&["without", "hold"]);
        if !self.eat("for") {
            return None;
        }
        let mut inner = Statement::default();
        let start = self.at;
        let grammar = self.command(scan, &mut inner).is_some();
        s.access = inner.access;
        s.effects |= inner.effects;
        grammar.then_some(Inner { start, parenthesised: false })
    }

    fn definition(&mut self, first: &str, scan: &Scan, s: &mut Statement) {
        s.kind = Kind::Ddl;
        s.access = Access::Write;
        if first != "truncate" {
            s.effects |= Effects::DDL;
        }
        let from = self.at;
        self.eat_all(&["or", "replace"]);
        self.eat_any(&["global", "local"]);
        if self.eat_any(&["temp", "temporary"]) {
            s.effects |= Effects::TEMPORARY;
        }
        self.at = from;
        let outside = matches!(
            (first, self.word(0)),
            ("create" | "drop", "database" | "tablespace" | "subscription")
                | ("alter", "system" | "subscription" | "database")
        );
        if outside || scan.concurrently {
            s.effects |= Effects::OUTSIDE_TRANSACTION;
        }
        if first == "truncate" {
            self.eat("table");
            self.tables(s);
            s.understood = Understood::Parsed;
        }
    }
}

fn done(s: &mut Statement, kind: Kind, access: Access, effects: Effects) {
    s.kind = kind;
    s.access = access;
    s.effects |= effects;
    s.understood = Understood::Parsed;
}

fn unknown(s: &mut Statement) -> Option<Inner> {
    s.kind = Kind::Other;
    s.access = Access::Unknown;
    s.effects |= Effects::OPAQUE | Effects::CALLS_UNKNOWN;
    None
}

fn query(s: &mut Statement, kind: Kind, scan: &Scan) {
    s.kind = kind;
    s.access = if scan.writes { Access::Write } else { Access::Unknown };
    if scan.writes && scan.into_temporary {
        s.effects |= Effects::TEMPORARY;
    }
}

fn write(s: &mut Statement, kind: Kind) {
    s.kind = kind;
    s.access = Access::Write;
}
