//! From our tokens to the grammar's: the grammar never reads text, so the two cannot disagree on where a token ends.
//!
//! Invariant: each token carries its byte offset as its column, by which a literal in the syntax tree is found again.
//! Strings go in empty: nothing that the tree is asked for hangs on their value.

use sqlparser::ast::DollarQuotedString;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::lexer::TokenKind;
use super::literal;

/// A token by its place in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) kind: TokenKind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Spot {
    pub(crate) fn text<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..self.end as usize).unwrap_or("")
    }
}

/// The grammar's tokens; `None` where one has no counterpart.
pub(crate) fn convert(spots: &[Spot], text: &str) -> Option<Vec<TokenWithSpan>> {
    let mut tokens = Vec::with_capacity(spots.len());
    for (i, spot) in spots.iter().enumerate() {
        if spot.kind == TokenKind::Word && superfluous(spots, i, text) {
            continue;
        }
        let token = one(spot.kind, spot.text(text))?;
        let place = Location { line: 1, column: u64::from(spot.start) };
        tokens.push(TokenWithSpan { token, span: Span { start: place, end: place } });
    }
    Some(tokens)
}

/// Words that the grammar does not know and that change neither tables nor access: ONLY before a table, and the strength
/// of a row lock (`FOR NO KEY UPDATE`, `FOR KEY SHARE`).
fn superfluous(spots: &[Spot], i: usize, text: &str) -> bool {
    let near = |at: Option<usize>, words: &[&str]| {
        at.and_then(|at| spots.get(at)).is_some_and(|s| words.iter().any(|w| s.text(text).eq_ignore_ascii_case(w)))
    };
    let before = |n| i.checked_sub(n);
    let after = |n| Some(i + n);
    match spots[i].end - spots[i].start {
        4 if near(Some(i), &["only"]) => near(before(1), &["from", "update", "join", "into", "using", ","]),
        2 if near(Some(i), &["no"]) => {
            near(before(1), &["for"]) && near(after(1), &["key"]) && near(after(2), &["update"])
        }
        3 if near(Some(i), &["key"]) => {
            (near(before(1), &["for"]) && near(after(1), &["share"]))
                || (near(before(1), &["no"]) && near(before(2), &["for"]) && near(after(1), &["update"]))
        }
        _ => false,
    }
}

fn one(kind: TokenKind, text: &str) -> Option<Token> {
    Some(match kind {
        TokenKind::Word => Token::make_word(text, None),
        TokenKind::QuotedIdent => Token::make_word(&literal::unquote(text), Some('"')),
        TokenKind::Integer | TokenKind::Decimal | TokenKind::OddNumber => Token::Number(text.to_owned(), false),
        TokenKind::String => Token::SingleQuotedString(String::new()),
        TokenKind::EscapeString => Token::EscapedStringLiteral(String::new()),
        TokenKind::UnicodeString => Token::UnicodeStringLiteral(String::new()),
        TokenKind::BitString => Token::SingleQuotedByteStringLiteral(String::new()),
        TokenKind::HexString => Token::HexStringLiteral(String::new()),
        TokenKind::NationalString => Token::NationalStringLiteral(String::new()),
        TokenKind::DollarString => Token::DollarQuotedString(DollarQuotedString { value: String::new(), tag: None }),
        TokenKind::Parameter => Token::Placeholder(text.to_owned()),
        TokenKind::Punctuation => punctuation(text)?,
        TokenKind::Operator => operator(text),
        TokenKind::UnicodeIdent | TokenKind::Comment | TokenKind::Error => return None,
    })
}

fn punctuation(text: &str) -> Option<Token> {
    Some(match text {
        "(" => Token::LParen,
        ")" => Token::RParen,
        "[" => Token::LBracket,
        "]" => Token::RBracket,
        "," => Token::Comma,
        ";" => Token::SemiColon,
        "." => Token::Period,
        ":" => Token::Colon,
        "::" => Token::DoubleColon,
        ":=" => Token::Assignment,
        _ => return None,
    })
}

fn operator(text: &str) -> Token {
    match text {
        "=" => Token::Eq,
        "<>" | "!=" => Token::Neq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "=>" => Token::RArrow,
        "+" => Token::Plus,
        "-" => Token::Minus,
        "*" => Token::Mul,
        "/" => Token::Div,
        "%" => Token::Mod,
        "||" => Token::StringConcat,
        "&" => Token::Ampersand,
        "|" => Token::Pipe,
        "^" => Token::Caret,
        "#" => Token::Sharp,
        "##" => Token::DoubleSharp,
        "~" => Token::Tilde,
        "~*" => Token::TildeAsterisk,
        "!~" => Token::ExclamationMarkTilde,
        "!~*" => Token::ExclamationMarkTildeAsterisk,
        "~~" => Token::DoubleTilde,
        "~~*" => Token::DoubleTildeAsterisk,
        "!~~" => Token::ExclamationMarkDoubleTilde,
        "!~~*" => Token::ExclamationMarkDoubleTildeAsterisk,
        "<<" => Token::ShiftLeft,
        ">>" => Token::ShiftRight,
        "&&" => Token::Overlap,
        "!" => Token::ExclamationMark,
        "!!" => Token::DoubleExclamationMark,
        "@" => Token::AtSign,
        "^@" => Token::CaretAt,
        "|/" => Token::PGSquareRoot,
        "||/" => Token::PGCubeRoot,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        "#>" => Token::HashArrow,
        "#>>" => Token::HashLongArrow,
        "@-@" => Token::AtDashAt,
        "?-" => Token::QuestionMarkDash,
        "&<" => Token::AmpersandLeftAngleBracket,
        "&>" => Token::AmpersandRightAngleBracket,
        "&<|" => Token::AmpersandLeftAngleBracketVerticalBar,
        "|&>" => Token::VerticalBarAmpersandRightAngleBracket,
        "<->" => Token::TwoWayArrow,
        "<^" => Token::LeftAngleBracketCaret,
        ">^" => Token::RightAngleBracketCaret,
        "?#" => Token::QuestionMarkSharp,
        "?-|" => Token::QuestionMarkDashVerticalBar,
        "?||" => Token::QuestionMarkDoubleVerticalBar,
        "~=" => Token::TildeEqual,
        "<<|" => Token::ShiftLeftVerticalBar,
        "|>>" => Token::VerticalBarShiftRight,
        "@>" => Token::AtArrow,
        "<@" => Token::ArrowAt,
        "#-" => Token::HashMinus,
        "@?" => Token::AtQuestion,
        "@@" => Token::AtAt,
        "?" => Token::Question,
        "?&" => Token::QuestionAnd,
        "?|" => Token::QuestionPipe,
        other => Token::CustomBinaryOperator(other.to_owned()),
    }
}
