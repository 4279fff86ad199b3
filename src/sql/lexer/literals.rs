//! The inside of literals: quotes and what goes on behind them, dollar quotes, numbers.
//!
//! Invariant: as the lexer's: each step takes bytes once, and waits where a byte to come decides.

use super::{Lexer, State, Step, TAG_LIMIT, Token, TokenKind};
use crate::sql::classes::{is_digit, is_space, is_tag_part};

impl Lexer {
    #[expect(clippy::too_many_arguments, reason = "the fields of the state, unpacked once")]
    pub(super) fn quoted<F: FnMut(Token<'_>)>(
        &mut self,
        kind: TokenKind,
        escapes: bool,
        doubles: bool,
        bytes: &[u8],
        at: &mut usize,
        last: bool,
        sink: &mut F,
    ) -> Step {
        let ident = matches!(kind, TokenKind::QuotedIdent | TokenKind::UnicodeIdent);
        let quote = if ident { b'"' } else { b'\'' };
        let found =
            if escapes { memchr::memchr2(quote, b'\\', &bytes[*at..]) } else { memchr::memchr(quote, &bytes[*at..]) };
        let Some(n) = found else {
            *at = bytes.len();
            return Step::Wait;
        };
        *at += n;
        let next = bytes.get(*at + 1).copied();
        if next.is_none() && (!last || bytes[*at] == b'\\') {
            if last {
                *at += 1;
            }
            return Step::Wait;
        }
        if bytes[*at] == b'\\' || (doubles && next == Some(quote)) {
            *at += 2;
            return Step::Go;
        }
        *at += 1;
        if ident {
            self.emit(kind, bytes, *at, sink);
            return Step::Go;
        }
        self.quote_end = self.base + *at as u64;
        self.state = State::AfterQuote { kind, escapes, doubles, newline: false, comment: false };
        Step::Go
    }

    /// PostgreSQL's `quotecontinue`: spaces, line comments, at least one newline, then a quote.
    pub(super) fn after_quote<F: FnMut(Token<'_>)>(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        last: bool,
        sink: &mut F,
    ) -> Step {
        let State::AfterQuote { kind, escapes, doubles, mut newline, mut comment } = self.state else {
            return Step::Go;
        };
        let mut over = false;
        while *at < bytes.len() {
            let byte = bytes[*at];
            match byte {
                b'\n' | b'\r' => {
                    newline = true;
                    comment = false;
                }
                _ if comment => {}
                _ if is_space(byte) => {}
                b'-' => match bytes.get(*at + 1) {
                    Some(b'-') => comment = true,
                    None if !last => break,
                    _ => over = true,
                },
                b'\'' if newline => {
                    *at += 1;
                    self.state = State::Quoted { kind, escapes, doubles };
                    return Step::Go;
                }
                _ => over = true,
            }
            if over {
                break;
            }
            *at += 1;
        }
        if over || (last && *at == bytes.len()) {
            self.emit_quoted(kind, bytes, *at, sink);
            // A `--` comment that was read past is over, or it would still be open here.
            if comment {
                self.state = State::LineComment;
            }
            return Step::Go;
        }
        self.state = State::AfterQuote { kind, escapes, doubles, newline, comment };
        Step::Wait
    }

    /// Emits a literal whose end lies behind `at`, by the spaces that were looked at.
    pub(super) fn emit_quoted<F: FnMut(Token<'_>)>(&mut self, kind: TokenKind, bytes: &[u8], at: usize, sink: &mut F) {
        let (start, end) = (self.start, self.quote_end);
        if start >= self.base {
            let from = usize::try_from(start - self.base).unwrap_or(0);
            let to = usize::try_from(end - self.base).unwrap_or(0);
            sink(Token { kind, start, end, text: &bytes[from..to] });
        } else {
            self.keep(bytes, at);
            let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(self.head.len());
            sink(Token { kind, start, end, text: &self.head[..length] });
        }
        self.head.clear();
        self.state = State::Start;
    }

    /// Reads the tag up to its second `$`; the first one is read already.
    pub(super) fn dollar_tag<F: FnMut(Token<'_>)>(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        last: bool,
        sink: &mut F,
    ) -> Step {
        while let Some(&byte) = bytes.get(*at) {
            if byte == b'$' {
                *at += 1;
                if self.tag.len() >= TAG_LIMIT {
                    // Its end cannot be told, so all that follows is one error.
                    self.state = State::Lost;
                    return Step::Go;
                }
                // What lies before this piece; the piece's own part is kept with the body.
                let before = usize::try_from(self.base.saturating_sub(self.start)).unwrap_or(0);
                self.head.clear();
                self.head.extend(std::iter::once(b'$').chain(self.tag.iter().copied()).take(before));
                self.state = State::DollarBody { matched: 0 };
                return Step::Go;
            }
            if !is_tag_part(byte) {
                break;
            }
            if self.tag.len() < TAG_LIMIT {
                self.tag.push(byte);
            }
            *at += 1;
        }
        if *at == bytes.len() && !last {
            return Step::Wait;
        }
        // PostgreSQL reads a `$` that is no quote as one character, which no grammar rule takes.
        self.head.clear();
        sink(Token { kind: TokenKind::Error, start: self.start, end: self.base + *at as u64, text: b"$" });
        self.state = State::Start;
        Step::Go
    }

    pub(super) fn dollar_body<F: FnMut(Token<'_>)>(
        &mut self,
        mut matched: usize,
        bytes: &[u8],
        at: &mut usize,
        sink: &mut F,
    ) -> Step {
        // The delimiter is `$`, the tag, `$`; a tag holds no `$`, so a mismatch starts over at the latest `$`.
        while *at < bytes.len() {
            if matched == 0 {
                let Some(n) = memchr::memchr(b'$', &bytes[*at..]) else {
                    *at = bytes.len();
                    break;
                };
                *at += n;
            }
            let byte = bytes[*at];
            let wanted = if matched == 0 || matched > self.tag.len() { b'$' } else { self.tag[matched - 1] };
            matched = if byte == wanted { matched + 1 } else { usize::from(byte == b'$') };
            *at += 1;
            if matched == self.tag.len() + 2 {
                self.emit(TokenKind::DollarString, bytes, *at, sink);
                return Step::Go;
            }
        }
        self.state = State::DollarBody { matched };
        Step::Wait
    }

    pub(super) fn number<F: FnMut(Token<'_>)>(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        last: bool,
        sink: &mut F,
    ) -> Step {
        let base = if let State::Based(base) = self.state { base } else { 10 };
        loop {
            while *at < bytes.len() && digit_of(base, bytes[*at]) {
                *at += 1;
            }
            let rest = &bytes[*at..];
            if rest.len() < 3 && !last {
                return Step::Wait;
            }
            if rest.first() != Some(&b'_') || !rest.get(1).is_some_and(|&b| digit_of(base, b)) {
                break;
            }
            self.state = match self.state {
                State::Integer { .. } => State::Integer { odd: true },
                State::Fraction { .. } => State::Fraction { odd: true },
                State::Exponent { .. } => State::Exponent { odd: true },
                other => other,
            };
            *at += 1;
        }
        let rest = &bytes[*at..];
        match (self.state, rest.first()) {
            // `1..2` is a range in PL/pgSQL: the dots are not the number's.
            (State::Integer { odd }, Some(b'.')) if rest.get(1) != Some(&b'.') => {
                *at += 1;
                self.state = State::Fraction { odd };
                // A fraction's first byte is a digit: `1._5` is `1.` and a word.
                if rest.get(1) == Some(&b'_') {
                    self.emit(if odd { TokenKind::OddNumber } else { TokenKind::Decimal }, bytes, *at, sink);
                }
                return Step::Go;
            }
            (State::Integer { odd } | State::Fraction { odd }, Some(b'e' | b'E')) => {
                let digits = if matches!(rest.get(1), Some(b'+' | b'-')) { 2 } else { 1 };
                if rest.get(digits).is_some_and(|&b| is_digit(b)) {
                    *at += digits;
                    self.state = State::Exponent { odd };
                    return Step::Go;
                }
            }
            _ => {}
        }
        let kind = match self.state {
            State::Integer { odd: false } => TokenKind::Integer,
            State::Fraction { odd: false } | State::Exponent { odd: false } => TokenKind::Decimal,
            _ => TokenKind::OddNumber,
        };
        self.emit(kind, bytes, *at, sink);
        Step::Go
    }
}

fn digit_of(base: u8, byte: u8) -> bool {
    match base {
        16 => byte.is_ascii_hexdigit(),
        8 => matches!(byte, b'0'..=b'7'),
        2 => matches!(byte, b'0' | b'1'),
        _ => byte.is_ascii_digit(),
    }
}

/// Whether digits of `base` follow, after at most one underscore.
pub(super) fn based_digit(base: u8, rest: &[u8]) -> bool {
    match rest {
        [b'_', digit, ..] | [digit, ..] => digit_of(base, *digit),
        [] => false,
    }
}
