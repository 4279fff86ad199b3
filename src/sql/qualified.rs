//! For tests of the gateway's own questions: what they name is PostgreSQL's under every search path.
//!
//! Invariant: an operator, a type, a function or a relation that is looked up along the path fails the test, and so does what looks
//! up an operator without showing it (`IN`, `LIKE`, `CASE a WHEN b` and their like). What sorts and groups uses the type's own order.

use super::{Lexer, TokenKind};

/// Words with which an operator is looked up along the search path, as `transformExprRecurse` in `parse_expr.c` does.
const IMPLICIT: [&str; 9] = ["IN", "BETWEEN", "LIKE", "ILIKE", "SIMILAR", "NULLIF", "USING", "OVERLAPS", "NATURAL"];

/// Words ahead of a parenthesis that are no functions, or that the grammar itself knows to be PostgreSQL's.
const NO_FUNCTIONS: [&str; 19] = [
    "SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "WHEN", "THEN", "ELSE", "EXISTS", "CAST", "COALESCE", "OVER",
    "OPERATOR", "ANY", "AS", "ON", "VALUES", "UNION",
];

/// Fails where `text` hangs on a search path.
#[track_caller]
pub(crate) fn assert_qualified(text: &str) {
    let mut tokens = Vec::new();
    Lexer::whole(text.as_bytes(), true, |token| {
        if token.kind != TokenKind::Comment {
            tokens.push((token.kind, String::from_utf8_lossy(token.text).to_ascii_uppercase()));
        }
    });
    let word = |at: usize| tokens.get(at).map_or("", |(_, text)| text);
    let before = |at: usize, back: usize| at.checked_sub(back).map_or("", word);
    // Whether a CAST stands around what is read, at each depth of parentheses.
    let mut casts = vec![false];
    for (at, (kind, text_here)) in tokens.iter().enumerate() {
        let bad = |what: &str| panic!("{what} \"{text_here}\" at token {at}: {text}");
        match text_here.as_str() {
            "(" => casts.push(before(at, 1) == "CAST"),
            ")" => drop(casts.pop()),
            _ => {}
        }
        let qualified = word(at + 1) == "PG_CATALOG" && word(at + 2) == ".";
        match (kind, text_here.as_str()) {
            (TokenKind::Operator, "*") if ["(", "."].contains(&before(at, 1)) => {}
            (TokenKind::Operator, _) => {
                let named = before(at, 1) == "." && before(at, 2) == "PG_CATALOG" && before(at, 4) == "OPERATOR";
                if !named {
                    bad("a bare operator");
                }
            }
            (TokenKind::Punctuation, "::") if !qualified => bad("a bare type behind"),
            (TokenKind::Word, "AS") if casts.last() == Some(&true) && !qualified => bad("a bare type behind"),
            (TokenKind::Word, "FROM" | "JOIN") if !qualified && word(at + 1) != "(" => bad("a bare relation behind"),
            (TokenKind::Word, "CASE") if word(at + 1) != "WHEN" => bad("an implicit operator in"),
            (TokenKind::Word, "DISTINCT") if word(at + 1) == "FROM" => bad("an implicit operator in"),
            (TokenKind::Word, implicit) if IMPLICIT.contains(&implicit) => bad("an implicit operator in"),
            (TokenKind::Word, name) if word(at + 1) == "(" && before(at, 1) != "." && !NO_FUNCTIONS.contains(&name) => {
                bad("a bare function");
            }
            _ => {}
        }
    }
}

#[test]
fn what_hangs_on_the_search_path_is_found() {
    let found = |text: &str| std::panic::catch_unwind(|| assert_qualified(text)).is_err();
    for text in [
        "SELECT 1 = 2",
        "SELECT -x",
        "SELECT x OPERATOR(mine.=) 1",
        "SELECT a IN (1)",
        "SELECT a IS DISTINCT FROM b",
        "SELECT CASE a WHEN 1 THEN 2 END",
        "SELECT f(1)",
        "SELECT '1'::text",
        "SELECT CAST(a AS text)",
        "SELECT 1 FROM pg_class",
        "SELECT 1 FROM pg_catalog.pg_class JOIN a ON true",
    ] {
        assert!(found(text), "{text}");
    }
    assert_qualified(
        "SELECT pg_catalog.count(*), a.* FROM pg_catalog.pg_class AS a WHERE a.oid OPERATOR(pg_catalog.=) 1::pg_catalog.oid AND \
         CASE WHEN CAST('1' AS pg_catalog.int4) IS NULL THEN true END AND a.oid OPERATOR(pg_catalog.=) ANY (ARRAY[1])",
    );
}
