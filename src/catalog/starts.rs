//! Which statements change what is set for sessions that begin (`pg_db_role_setting`).
//!
//! Invariant: one that is named without need costs a question and nothing else. Deliberately absent: for whom.

use crate::sql::{Lexer, TokenKind};

/// Whether a text holds ALTER ROLE, USER or DATABASE with SET or RESET.
#[must_use]
pub fn alters_starts(text: &[u8]) -> bool {
    let mut found = false;
    // Words of the statement that are as they must be; `None`: one was not.
    let mut matched = Some(0);
    Lexer::whole(text, true, |token| {
        matched = match (token.kind, matched) {
            (TokenKind::Comment, matched) => matched,
            (TokenKind::Punctuation, _) if token.text == b";" => Some(0),
            (TokenKind::Word, Some(count)) => {
                let is = |words: &[&str]| words.iter().any(|word| token.text.eq_ignore_ascii_case(word.as_bytes()));
                match count {
                    0 => is(&["alter"]).then_some(1),
                    1 => is(&["role", "user", "database"]).then_some(2),
                    _ => {
                        found |= is(&["set", "reset"]);
                        Some(2)
                    }
                }
            }
            (_, Some(2)) => Some(2),
            _ => None,
        };
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_alters_them() {
        for text in [
            "ALTER ROLE a SET work_mem = '1MB'",
            "alter user current_user reset all",
            "/* x */ ALTER /* y */ DATABASE \"A b\" SET a.b TO DEFAULT",
            "ALTER ROLE ALL IN DATABASE d RESET work_mem",
            "begin; select 1; alter role a in database d set x from current; commit",
        ] {
            assert!(alters_starts(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_does_not() {
        for text in [
            "ALTER ROLE a CONNECTION LIMIT 5",
            "ALTER ROLE a RENAME TO b; SET work_mem = '1MB'",
            "ALTER TABLE role SET (fillfactor = 70)",
            "SELECT 'ALTER ROLE a SET b = 1'",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "",
        ] {
            assert!(!alters_starts(text.as_bytes()), "{text}");
        }
    }
}
