//! The grammar behind its bounds: which statements sqlparser may read, and what its tree adds to the sketch.
//!
//! Invariants: no statement reaches sqlparser whose tree could be deeper than its recursion (building, walking, dropping)
//! can bear on a 2 MiB stack; the tree only ever strengthens what the sketch says of access and effects, with one
//! exception: a query that the sketch leaves `Unknown` becomes `Read` when its tree holds nothing that writes.
//!
//! Deliberately absent: the walk itself (see `tree`).

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::analysis::{Access, Kind, Statement, Understood};
use super::command::Inner;
use super::lexer::TokenKind;
use super::tokens::{self, Spot};
use super::tree;

/// Longest text, in bytes, of which any statement is parsed.
pub(crate) const TEXT_LIMIT: usize = 64 * 1024;
/// Most tokens in one statement: the grammar takes 0.1 to 0.5 us for each, so this is a few milliseconds.
const TOKEN_LIMIT: usize = 16 * 1024;
/// Deepest nesting of parentheses, brackets and CASE.
const NESTING_LIMIT: usize = 32;
/// sqlparser's own count of nested calls; a parenthesised level spends two or three.
const RECURSION_LIMIT: usize = 120;
/// Most operators in one expression: each is a level of the tree, `a + b + c` as well as `a AND b AND c`.
const CHAIN_LIMIT: u16 = 1000;
/// Most UNION, INTERSECT and EXCEPT in one statement: each is a level of the tree.
const SET_OPERATION_LIMIT: u16 = 200;
/// Most joins in one statement: right-deep ones nest.
const JOIN_LIMIT: u16 = 100;

/// Reads `statement`, whose tokens are `spots`, by the grammar, and adds what it finds.
/// `literals` are the ranges that normalisation dropped, in order.
pub(crate) fn refine(
    statement: &mut Statement,
    inner: Inner,
    spots: &[Spot],
    text: &str,
    literals: &[(u32, u32)],
    standard_conforming_strings: bool,
) {
    let Some(spots) = spots.get(inner.start..) else { return };
    let spots = if inner.parenthesised { &spots[..closing(spots, text)] } else { spots };
    if spots.len() > TOKEN_LIMIT || !bounded(spots, text) {
        return;
    }
    let Some(tokens) = tokens::convert(spots, text) else { return };
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let Ok(tree) = parser.parse_statement() else { return };
    if parser.peek_token_ref().token != Token::EOF {
        return;
    }
    let source = tree::Source { text, spots, literals, standard_conforming_strings };
    let Some(facts) = tree::facts(&tree, &source) else { return };
    statement.understood = Understood::Parsed;
    statement.tables = facts.tables;
    statement.equalities = facts.equalities;
    statement.effects |= facts.effects;
    let queries = !matches!(statement.kind, Kind::Ddl);
    if queries {
        // The tree tells calls from lists of columns; the sketch's list was a superset.
        statement.functions = facts.functions;
    }
    statement.access = match (statement.kind, statement.access) {
        // A plan that is not run changes nothing.
        (Kind::Explain, Access::Read) => Access::Read,
        (_, Access::Unknown) if queries => facts.access,
        (_, access) => access.stronger(facts.access),
    };
}

/// Where the parenthesis before `spots` closes.
fn closing(spots: &[Spot], text: &str) -> usize {
    let mut depth = 1_usize;
    for (i, spot) in spots.iter().enumerate() {
        match spot.text(text) {
            "(" if spot.kind == TokenKind::Punctuation => depth += 1,
            ")" if spot.kind == TokenKind::Punctuation => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    spots.len()
}

/// Whether the statement's tree is sure to be shallow.
fn bounded(spots: &[Spot], text: &str) -> bool {
    // Operators seen at each level since its last separator.
    let mut chains = [0_u16; NESTING_LIMIT + 1];
    let mut depth = 0_usize;
    let (mut sets, mut joins) = (0_u16, 0_u16);
    for spot in spots {
        match spot.kind {
            TokenKind::Operator => chains[depth] += 1,
            TokenKind::Punctuation => match spot.text(text) {
                "(" | "[" => {
                    // A subscript is a level of its own base.
                    chains[depth] += 1;
                    depth += 1;
                    if depth > NESTING_LIMIT {
                        return false;
                    }
                    chains[depth] = 0;
                }
                ")" | "]" => depth = depth.saturating_sub(1),
                "," => chains[depth] = 0,
                _ => chains[depth] += 1,
            },
            TokenKind::Word if spot.end - spot.start <= 9 => match word(spot, text) {
                Meaning::Separator => chains[depth] = 0,
                Meaning::Operator => chains[depth] += 1,
                Meaning::SetOperation => {
                    chains[depth] = 0;
                    sets += 1;
                }
                Meaning::Join => {
                    chains[depth] = 0;
                    joins += 1;
                }
                Meaning::Case => {
                    depth += 1;
                    if depth > NESTING_LIMIT {
                        return false;
                    }
                    chains[depth] = 0;
                }
                Meaning::End => depth = depth.saturating_sub(1),
                Meaning::None => {}
            },
            _ => {}
        }
        if chains[depth] > CHAIN_LIMIT || sets > SET_OPERATION_LIMIT || joins > JOIN_LIMIT {
            return false;
        }
    }
    true
}

enum Meaning {
    None,
    Separator,
    Operator,
    SetOperation,
    Join,
    Case,
    End,
}

fn word(spot: &Spot, text: &str) -> Meaning {
    let text = spot.text(text).as_bytes();
    let mut lower = [0_u8; 9];
    let Some(lower) = lower.get_mut(..text.len()) else { return Meaning::None };
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    match &*lower {
        b"select" | b"from" | b"where" | b"having" | b"on" | b"set" | b"returning" | b"values" | b"limit"
        | b"offset" | b"order" | b"group" | b"when" | b"then" | b"else" | b"using" => Meaning::Separator,
        b"and" | b"or" | b"not" | b"is" | b"isnull" | b"notnull" | b"like" | b"ilike" | b"similar" | b"between"
        | b"in" | b"collate" | b"at" | b"any" | b"all" | b"some" | b"overlaps" | b"operator" | b"xor" | b"div"
        | b"mod" | b"rlike" | b"regexp" | b"over" | b"filter" => Meaning::Operator,
        b"union" | b"intersect" | b"except" | b"minus" => Meaning::SetOperation,
        b"join" => Meaning::Join,
        b"case" => Meaning::Case,
        b"end" => Meaning::End,
        _ => Meaning::None,
    }
}
