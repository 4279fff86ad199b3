//! Which definitions change what a statement runs that names something old.
//!
//! Invariant: what is not known to make new names only redefines. Deliberately absent: what is defined.

use crate::sql::{Lexer, TokenKind};

/// Whether a text may redefine what a catalogue knows: a function, a view, a trigger, a type, a table's parts. Making
/// tables, indexes and sequences, dropping anything, rights and comments do not: what they name is new or gone.
#[must_use]
pub fn redefines(text: &[u8]) -> bool {
    let mut found = false;
    // `None` between a statement's decision and its end.
    let mut step = Some(Step::First);
    Lexer::whole(text, true, |token| {
        step = match (token.kind, step) {
            (TokenKind::Comment, step) => step,
            (TokenKind::Punctuation, _) if token.text == b";" => Some(Step::First),
            (_, None) => None,
            (TokenKind::Word, Some(step)) => {
                let word = token.text.to_ascii_lowercase();
                match (step, word.as_slice()) {
                    (Step::First, b"create") => Some(Step::Object { temporary: false }),
                    (Step::First, b"alter" | b"import") => {
                        found = true;
                        None
                    }
                    (Step::Object { .. }, b"temp" | b"temporary") => Some(Step::Object { temporary: true }),
                    (Step::Object { .. }, b"local" | b"global" | b"unlogged" | b"unique" | b"foreign") => Some(step),
                    (Step::Object { .. }, b"materialized" | b"or" | b"replace" | b"recursive") => Some(step),
                    (Step::Object { temporary }, object) => {
                        found |= !temporary && !makes_new_names(object);
                        None
                    }
                    (Step::First, _) => None,
                }
            }
            _ => None,
        };
    });
    found
}

#[derive(Clone, Copy)]
enum Step {
    /// At a statement's first word.
    First,
    /// Behind CREATE, before the word that says what is created.
    Object { temporary: bool },
}

fn makes_new_names(object: &[u8]) -> bool {
    matches!(
        object,
        b"table"
            | b"index"
            | b"sequence"
            | b"database"
            | b"role"
            | b"user"
            | b"group"
            | b"statistics"
            | b"publication"
            | b"subscription"
            | b"tablespace"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redefines() {
        for text in [
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "create or replace view v as select 1",
            "/* a */ CREATE /* b */ TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION f()",
            "CREATE MATERIALIZED VIEW m AS SELECT 1",
            "alter table t add column a int default f()",
            "begin; select 1; create rule r as on insert to t do nothing; commit",
            "create table a (b int); create domain d as int check (f(value))",
            "CREATE CAST (text AS t) WITH FUNCTION f(text)",
            "create schema s create view v as select 1",
        ] {
            assert!(redefines(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_makes_new_names() {
        for text in [
            "CREATE TABLE t (function int, view text)",
            "create unlogged table t as select 1",
            "create temp view v as select 1",
            "create local temporary table t (a int) on commit drop",
            "create unique index concurrently i on t (lower(a))",
            "drop view v; drop function f(int); drop table t",
            "grant select on t to a; comment on view v is 'alter function'",
            "select 'create function f()'; insert into t values (1)",
            "",
        ] {
            assert!(!redefines(text.as_bytes()), "{text}");
        }
    }
}
