//! Which databases a statement needs to itself: PostgreSQL drops, renames, moves or copies one only while no connection is
//! to it, and waits five seconds for those there are (`CountOtherDBBackends` in `procarray.c`).
//!
//! Invariant: a database that is named without need costs its idle connections and nothing else.
//! Deliberately absent: closing them.

use crate::sql::{Lexer, Token, TokenKind, unquoted_name, word_name};

/// Tokens of one statement that are looked at.
const LOOKED_AT: usize = 64;

/// The databases that must be without connections when `text` runs, by their names on the server.
#[must_use]
pub fn emptied_databases(text: &[u8]) -> Vec<Box<str>> {
    let mut found = Vec::new();
    let mut statement: Vec<Box<str>> = Vec::new();
    Lexer::whole(text, true, |token| {
        if token.kind == TokenKind::Punctuation && token.text == b";" {
            found.extend(emptied(&statement));
            statement.clear();
        } else if statement.len() < LOOKED_AT && concerns_databases(&statement) {
            statement.extend(name(&token));
        }
    });
    found.extend(emptied(&statement));
    found
}

/// Whether a statement that begins so may be one of those.
fn concerns_databases(statement: &[Box<str>]) -> bool {
    statement.first().is_none_or(|word| matches!(&**word, "create" | "alter" | "drop"))
        && statement.get(1).is_none_or(|word| **word == *"database")
}

fn name(token: &Token<'_>) -> Option<Box<str>> {
    let text = std::str::from_utf8(token.text).ok()?;
    match token.kind {
        TokenKind::Comment => None,
        TokenKind::Word => Some(word_name(text)),
        TokenKind::QuotedIdent => Some(unquoted_name(text)),
        _ => Some(text.trim_matches('\'').replace("''", "'").into()),
    }
}

fn emptied(statement: &[Box<str>]) -> Option<Box<str>> {
    let mut words = statement.iter().map(|word| &**word);
    let command = words.next()?;
    if words.next() != Some("database") {
        return None;
    }
    let rest: Vec<&str> = words.collect();
    let name = match (command, rest.as_slice()) {
        ("drop", ["if", "exists", name, ..] | [name, ..]) => name,
        ("alter", [name, "rename", ..] | [name, "set", "tablespace", ..]) => name,
        ("create", [_, options @ ..]) => {
            let template = options.iter().position(|word| *word == "template").map(|at| &options[at + 1..]);
            match template {
                Some(["=", name, ..] | [name, ..]) if *name != "default" => name,
                _ => "template1",
            }
        }
        _ => return None,
    };
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found = emptied_databases(text.as_bytes());
        assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn what_needs_a_database_to_itself() {
        check("DROP DATABASE Test_App", &["test_app"]);
        check("drop /* a */ database if exists \"Test\"\"App\" with (force)", &["Test\"App"]);
        check("ALTER DATABASE a RENAME TO b", &["a"]);
        check("ALTER DATABASE a SET TABLESPACE b", &["a"]);
        check("CREATE DATABASE a", &["template1"]);
        check("CREATE DATABASE a OWNER b ENCODING 'UTF8' TEMPLATE template0", &["template0"]);
        check("CREATE DATABASE a WITH TEMPLATE = 'It''s' STRATEGY wal_log", &["It's"]);
        check("CREATE DATABASE a TEMPLATE DEFAULT", &["template1"]);
        check("drop database a; create database b; select 1", &["a", "template1"]);
    }

    #[test]
    fn what_does_not() {
        for text in [
            "ALTER DATABASE a SET work_mem = '1MB'",
            "CREATE TABLE database (database int)",
            "DROP TABLE database",
            "SELECT 'drop database a'",
            "COMMENT ON DATABASE a IS 'drop database b'",
            "drop database",
            "",
        ] {
            check(text, &[]);
        }
    }
}
