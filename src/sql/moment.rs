//! Whether a text's literals may stand for the moment at which they are read: PostgreSQL folds `'now'`, `'today'` and their like
//! into a prepared statement when it parses it (`DecodeDateTime` in `datetime.c`).
//!
//! Invariant: a literal counts that holds such a word, whatever type it is read as: `'today 12:00'`, `'{now}'`, `'[now,)'`.
//! Deliberately absent: functions (`now()`) and keywords (`CURRENT_DATE`), which are evaluated when the statement runs.

use std::borrow::Cow;

use super::analysis::{Analysis, Understood};
use super::lexer::{Lexer, TokenKind};
use super::literal::decode_string;

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether a literal of `text`, of which this is the analysis, may stand for the moment at which it is read.
#[must_use]
pub fn names_moment(text: &[u8], analysis: &Analysis) -> bool {
    let conforming = analysis.standard_conforming_strings;
    if analysis.shape.statements.iter().any(|statement| statement.understood == Understood::Nothing) {
        // Where its literals end is not known.
        return has_word(text);
    }
    let mut found = false;
    Lexer::whole(text, conforming, |token| {
        found = found
            || match token.kind {
                TokenKind::String | TokenKind::NationalString | TokenKind::EscapeString | TokenKind::DollarString => {
                    match decode_string(token.text, conforming) {
                        Some(Cow::Borrowed(value)) => has_word(value.as_bytes()),
                        Some(Cow::Owned(value)) => has_word(value.as_bytes()),
                        None => has_word(token.text) || token.text.contains(&b'\\'),
                    }
                }
                // Its escape character stands in a later token.
                TokenKind::UnicodeString => true,
                _ => false,
            };
    });
    found
}

fn has_word(value: &[u8]) -> bool {
    value
        .split(|byte| !byte.is_ascii_alphabetic())
        .any(|word| WORDS.iter().any(|moment| word.eq_ignore_ascii_case(moment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Analyzer, TextContext};

    #[test]
    fn literals_that_name_a_moment() {
        let analyzer = Analyzer::new(1 << 20);
        let check = |text: &str, conforming: bool, expected: bool| {
            let analysis = analyzer.analyze(text.as_bytes(), TextContext::new(conforming, "UTF8"));
            assert_eq!(names_moment(text.as_bytes(), &analysis), expected, "{text}");
        };
        for text in [
            "SELECT 'now'::timestamptz",
            "SELECT date 'ToDay'",
            "SELECT ' tomorrow 12:00'::timestamp, 1",
            "SELECT 'today12:00'::timestamp",
            "SELECT '{2020-01-01,yesterday}'::date[]",
            "SELECT '[now,infinity)'::tstzrange",
            "SELECT E'now'::date",
            r"SELECT E'\x6eow'::date",
            r"SELECT E'\nnow'::date",
            r"SELECT U&'\006eow'::date",
            "SELECT $$now$$::date, $a$x$a$",
            "SELECT 'no'\n'w'::date",
            "SELECT N'now'",
            "INSERT INTO t VALUES ($1, 'now')",
        ] {
            check(text, true, true);
        }
        for text in [
            "SELECT now(), 'a', now() - interval '1 day'",
            "SELECT \"now\", 'known', 'nowhere', 'snow', 'todays' FROM now /* 'now' */",
            "SELECT current_date, today FROM t -- 'now'",
            "SELECT 'epoch'::date, 'infinity'::date, E'\\n', $1",
        ] {
            check(text, true, false);
        }
        check(r"SELECT 'n\x6fw'", false, true);
        check(r"SELECT 'n\x6fw'", true, false);
        // In such an encoding nobody knows where a literal ends.
        let text = b"SELECT 'now'::date";
        assert!(names_moment(text, &analyzer.analyze(text, TextContext::new(true, "SJIS"))));
    }
}
