//! PostgreSQL's lexical rules (`src/backend/parser/scan.l`, versions 13 to 18) over bytes, in pieces of any size.
//!
//! Invariants: how a text is cut into pieces never changes the tokens; work is linear in the text; nothing recurses;
//! memory is bounded by [`HEAD_LIMIT`] and [`TAG_LIMIT`] whatever the text. Every encoding in which bytes below 0x80
//! stand for ASCII alone is read right; the others must not come here.
//!
//! Where versions differ the tokens follow PostgreSQL 16 (`0x1F`, `1_000`, `\v` is a space). A number that runs into a
//! word, an error since 15, yields a number and a word as before, so that no keyword can hide behind a digit.
//!
//! Deliberately absent: keywords, decoding of literals (see `literal`), `UESCAPE`, and everything that psql does to a text.

mod literals;

use smallvec::SmallVec;

use self::literals::based_digit;
use super::classes::{is_digit, is_ident_part, is_ident_start, is_operator, is_space};

/// Bytes of a token that are kept when it began in an earlier piece. A comment's may hold hints.
pub(crate) const HEAD_LIMIT: usize = 2048;
/// Longest tag of a dollar quote, and longest run of operator characters, that is read; a longer one is an error.
const TAG_LIMIT: usize = 256;

/// What a token is, by its spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An unquoted identifier or keyword.
    Word,
    /// `"…"`.
    QuotedIdent,
    /// `U&"…"`.
    UnicodeIdent,
    /// Decimal digits only.
    Integer,
    /// With a fraction or an exponent.
    Decimal,
    /// Hexadecimal, octal, binary, or with underscores: a number since PostgreSQL 16.
    OddNumber,
    /// `'…'`.
    String,
    /// `E'…'`.
    EscapeString,
    /// `U&'…'`.
    UnicodeString,
    /// `B'…'`.
    BitString,
    /// `X'…'`.
    HexString,
    /// `N'…'`.
    NationalString,
    /// `$tag$…$tag$`.
    DollarString,
    /// `$1`.
    Parameter,
    /// One or more operator characters, after PostgreSQL's rules on trailing `+` and `-`.
    Operator,
    /// `( ) [ ] , ; . .. : :: :=`.
    Punctuation,
    /// `/* … */`, nested ones included. Line comments yield no token.
    Comment,
    /// What PostgreSQL refuses: a stray character, an unterminated literal or comment, a run that is too long.
    Error,
}

/// One token.
#[derive(Debug, Clone, Copy)]
pub struct Token<'t> {
    /// What it is.
    pub kind: TokenKind,
    /// Offset of its first byte in the whole text.
    pub start: u64,
    /// Offset past its last byte.
    pub end: u64,
    /// Its bytes; only the first ones where it began in an earlier piece and is longer than [`HEAD_LIMIT`].
    pub text: &'t [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Word,
    Integer {
        odd: bool,
    },
    Fraction {
        odd: bool,
    },
    Exponent {
        odd: bool,
    },
    /// Digits of another base: 16, 8 or 2.
    Based(u8),
    Parameter,
    Operator,
    LineComment,
    BlockComment {
        depth: u64,
    },
    Quoted {
        kind: TokenKind,
        escapes: bool,
        doubles: bool,
    },
    /// Past a closing quote: the literal goes on if a newline and then another quote follow.
    AfterQuote {
        kind: TokenKind,
        escapes: bool,
        doubles: bool,
        newline: bool,
        comment: bool,
    },
    DollarTag,
    DollarBody {
        matched: usize,
    },
    /// In a literal whose end cannot be told.
    Lost,
}

/// The resumable lexer.
#[derive(Debug)]
pub struct Lexer {
    standard_conforming_strings: bool,
    state: State,
    /// Offset of the token at hand, and of the end of a literal that may go on.
    start: u64,
    quote_end: u64,
    /// Offset of the first byte of the piece at hand.
    base: u64,
    /// First bytes of a token that began in an earlier piece.
    head: SmallVec<[u8; 64]>,
    /// Tag of a dollar quote, or operator characters.
    tag: SmallVec<[u8; 32]>,
    /// Bytes whose meaning hangs on what follows; fewer than 4.
    pending: SmallVec<[u8; 80]>,
}

/// What a step of the machine wants.
enum Step {
    Go,
    /// The piece is used up but for bytes that need more context.
    Wait,
}

impl Lexer {
    /// A lexer at the start of a text.
    #[must_use]
    pub fn new(standard_conforming_strings: bool) -> Self {
        Self {
            standard_conforming_strings,
            state: State::Start,
            start: 0,
            quote_end: 0,
            base: 0,
            head: SmallVec::new(),
            tag: SmallVec::new(),
            pending: SmallVec::new(),
        }
    }

    /// Reads a whole text at once.
    pub fn whole<F: FnMut(Token<'_>)>(text: &[u8], standard_conforming_strings: bool, mut sink: F) {
        let mut lexer = Self::new(standard_conforming_strings);
        lexer.run(text, true, &mut sink);
    }

    /// Reads the next piece.
    pub fn push<F: FnMut(Token<'_>)>(&mut self, piece: &[u8], mut sink: F) {
        self.feed(piece, false, &mut sink);
    }

    /// Ends the text; what is unterminated yields an error token.
    pub fn finish<F: FnMut(Token<'_>)>(mut self, mut sink: F) {
        self.feed(&[], true, &mut sink);
    }

    fn feed<F: FnMut(Token<'_>)>(&mut self, mut piece: &[u8], last: bool, sink: &mut F) {
        if !self.pending.is_empty() {
            // A few bytes past the pending ones always settle what they are.
            let mut joined = std::mem::take(&mut self.pending);
            let waiting = joined.len();
            let taken = piece.len().min(16);
            joined.extend_from_slice(&piece[..taken]);
            let used = self.run(&joined, last && taken == piece.len(), sink);
            if used < waiting {
                self.pending.extend_from_slice(&joined[used..]);
                return;
            }
            piece = &piece[used - waiting..];
        }
        let used = self.run(piece, last, sink);
        self.pending.extend_from_slice(&piece[used..]);
    }

    /// Reads as much of `bytes` as can be settled and says how much; all of it if `last`.
    fn run<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], last: bool, sink: &mut F) -> usize {
        let mut at = 0;
        while matches!(self.step(bytes, &mut at, last, sink), Step::Go) {}
        if last {
            self.unterminated(bytes, sink);
            at = bytes.len();
        } else if !matches!(self.state, State::Start | State::LineComment | State::Operator | State::DollarTag) {
            self.keep(bytes, at);
        }
        self.base += at as u64;
        at
    }

    /// Keeps the first bytes of the token at hand beyond the piece `bytes[..at]`.
    fn keep(&mut self, bytes: &[u8], at: usize) {
        let from = usize::try_from(self.start.saturating_sub(self.base)).unwrap_or(usize::MAX).min(at);
        let room = HEAD_LIMIT - self.head.len();
        self.head.extend_from_slice(&bytes[from..at.min(from + room)]);
    }

    fn emit<F: FnMut(Token<'_>)>(&mut self, kind: TokenKind, bytes: &[u8], at: usize, sink: &mut F) {
        let end = self.base + at as u64;
        if self.start >= self.base {
            let from = usize::try_from(self.start - self.base).unwrap_or(0);
            sink(Token { kind, start: self.start, end, text: &bytes[from..at] });
        } else {
            self.keep(bytes, at);
            sink(Token { kind, start: self.start, end, text: &self.head });
        }
        self.head.clear();
        self.state = State::Start;
    }

    fn unterminated<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], sink: &mut F) {
        if !matches!(self.state, State::Start | State::LineComment) {
            self.emit(TokenKind::Error, bytes, bytes.len(), sink);
        }
    }

    #[inline]
    fn step<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], at: &mut usize, last: bool, sink: &mut F) -> Step {
        match self.state {
            State::Start => self.begin(bytes, at, last, sink),
            State::Word => self.word(bytes, at, last, sink),
            State::Quoted { kind, escapes, doubles } => self.quoted(kind, escapes, doubles, bytes, at, last, sink),
            State::AfterQuote { .. } => self.after_quote(bytes, at, last, sink),
            State::Operator => self.operator(bytes, at, last, sink),
            State::Lost => {
                *at = bytes.len();
                Step::Wait
            }
            State::LineComment => {
                let Some(n) = memchr::memchr2(b'\n', b'\r', &bytes[*at..]) else {
                    *at = bytes.len();
                    return Step::Wait;
                };
                *at += n + 1;
                self.state = State::Start;
                Step::Go
            }
            State::BlockComment { depth } => self.block_comment(depth, bytes, at, sink),
            State::DollarTag => self.dollar_tag(bytes, at, last, sink),
            State::DollarBody { matched } => self.dollar_body(matched, bytes, at, sink),
            State::Parameter => {
                while *at < bytes.len() && is_digit(bytes[*at]) {
                    *at += 1;
                }
                self.ended(TokenKind::Parameter, bytes, *at, last, sink)
            }
            State::Integer { .. } | State::Fraction { .. } | State::Exponent { .. } | State::Based(_) => {
                self.number(bytes, at, last, sink)
            }
        }
    }

    #[inline]
    fn word<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], at: &mut usize, last: bool, sink: &mut F) -> Step {
        *at += bytes[*at..].iter().take_while(|&&byte| is_ident_part(byte)).count();
        self.ended(TokenKind::Word, bytes, *at, last, sink)
    }

    /// The token is over if a byte stopped it or the text is; else the next piece may go on with it.
    #[inline]
    fn ended<F: FnMut(Token<'_>)>(
        &mut self,
        kind: TokenKind,
        bytes: &[u8],
        at: usize,
        last: bool,
        sink: &mut F,
    ) -> Step {
        if at == bytes.len() && !last {
            return Step::Wait;
        }
        self.emit(kind, bytes, at, sink);
        Step::Go
    }

    #[inline]
    fn begin<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], at: &mut usize, last: bool, sink: &mut F) -> Step {
        while *at < bytes.len() && is_space(bytes[*at]) {
            *at += 1;
        }
        let rest = &bytes[*at..];
        let Some(&first) = rest.first() else { return Step::Wait };
        // Three bytes settle every beginning: `U&'`.
        if rest.len() < 3 && !last {
            return Step::Wait;
        }
        self.start = self.base + *at as u64;
        let (second, third) = (rest.get(1).copied(), rest.get(2).copied());
        let mut skip = 1;
        self.state = match first {
            b'e' | b'E' | b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if second == Some(b'\'') => {
                skip = 2;
                match first | 0x20 {
                    b'e' => State::Quoted { kind: TokenKind::EscapeString, escapes: true, doubles: true },
                    b'b' => State::Quoted { kind: TokenKind::BitString, escapes: false, doubles: false },
                    b'x' => State::Quoted { kind: TokenKind::HexString, escapes: false, doubles: false },
                    _ => self.plain_string(TokenKind::NationalString),
                }
            }
            b'u' | b'U' if second == Some(b'&') && third == Some(b'"') => {
                skip = 3;
                State::Quoted { kind: TokenKind::UnicodeIdent, escapes: false, doubles: true }
            }
            b'u' | b'U' if second == Some(b'&') && third == Some(b'\'') => {
                skip = 3;
                // Refused by PostgreSQL without standard_conforming_strings.
                let kind = if self.standard_conforming_strings { TokenKind::UnicodeString } else { TokenKind::Error };
                State::Quoted { kind, escapes: false, doubles: true }
            }
            _ if is_ident_start(first) => {
                self.state = State::Word;
                *at += 1;
                return self.word(bytes, at, last, sink);
            }
            b'\'' => self.plain_string(TokenKind::String),
            b'"' => State::Quoted { kind: TokenKind::QuotedIdent, escapes: false, doubles: true },
            b'0' if matches!(second, Some(b'x' | b'X')) && based_digit(16, &rest[2..]) => self.based(16, &mut skip),
            b'0' if matches!(second, Some(b'o' | b'O')) && based_digit(8, &rest[2..]) => self.based(8, &mut skip),
            b'0' if matches!(second, Some(b'b' | b'B')) && based_digit(2, &rest[2..]) => self.based(2, &mut skip),
            // `0x_1` needs a fourth byte.
            b'0' if !last && rest.len() == 3 && third == Some(b'_') => return Step::Wait,
            b'0'..=b'9' => State::Integer { odd: false },
            b'.' if second.is_some_and(is_digit) => State::Fraction { odd: false },
            b'$' if second.is_some_and(is_digit) => State::Parameter,
            b'$' if second.is_some_and(|b| b == b'$' || is_ident_start(b)) => {
                self.tag.clear();
                State::DollarTag
            }
            b'-' if second == Some(b'-') => {
                skip = 2;
                State::LineComment
            }
            b'/' if second == Some(b'*') => {
                skip = 2;
                State::BlockComment { depth: 1 }
            }
            _ if is_operator(first) => {
                self.tag.clear();
                self.state = State::Operator;
                return Step::Go;
            }
            b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' | b':' => {
                let two = matches!((first, second), (b':', Some(b':' | b'=')) | (b'.', Some(b'.')));
                *at += if two { 2 } else { 1 };
                self.emit(TokenKind::Punctuation, bytes, *at, sink);
                return Step::Go;
            }
            _ => {
                *at += 1;
                self.emit(TokenKind::Error, bytes, *at, sink);
                return Step::Go;
            }
        };
        *at += skip;
        Step::Go
    }

    fn plain_string(&self, kind: TokenKind) -> State {
        State::Quoted { kind, escapes: !self.standard_conforming_strings, doubles: true }
    }

    #[expect(clippy::unused_self, reason = "reads as its siblings do")]
    fn based(&self, base: u8, skip: &mut usize) -> State {
        *skip = 2;
        State::Based(base)
    }

    fn block_comment<F: FnMut(Token<'_>)>(
        &mut self,
        mut depth: u64,
        bytes: &[u8],
        at: &mut usize,
        sink: &mut F,
    ) -> Step {
        while let Some(n) = memchr::memchr2(b'*', b'/', &bytes[*at..]) {
            *at += n;
            match (bytes[*at], bytes.get(*at + 1)) {
                (_, None) => {
                    self.state = State::BlockComment { depth };
                    return Step::Wait;
                }
                (b'/', Some(b'*')) => {
                    depth += 1;
                    *at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    *at += 2;
                    if depth == 0 {
                        self.emit(TokenKind::Comment, bytes, *at, sink);
                        return Step::Go;
                    }
                }
                _ => *at += 1,
            }
        }
        *at = bytes.len();
        self.state = State::BlockComment { depth };
        Step::Wait
    }

    fn operator<F: FnMut(Token<'_>)>(&mut self, bytes: &[u8], at: &mut usize, last: bool, sink: &mut F) -> Step {
        while let Some(&byte) = bytes.get(*at) {
            if !is_operator(byte) {
                break;
            }
            if matches!(byte, b'-' | b'/') {
                match bytes.get(*at + 1) {
                    None if !last => return Step::Wait,
                    Some(b'-') if byte == b'-' => break,
                    Some(b'*') if byte == b'/' => break,
                    _ => {}
                }
            }
            if self.tag.len() < TAG_LIMIT {
                self.tag.push(byte);
            }
            *at += 1;
        }
        if *at == bytes.len() && !last {
            return Step::Wait;
        }
        self.state = State::Start;
        let end = self.base + *at as u64;
        if end - self.start >= TAG_LIMIT as u64 {
            sink(Token { kind: TokenKind::Error, start: self.start, end, text: &self.tag });
            return Step::Go;
        }
        let mut from = 0;
        while from < self.tag.len() {
            let run = &self.tag[from..];
            let length = operator_length(run);
            let start = self.start + from as u64;
            sink(Token { kind: TokenKind::Operator, start, end: start + length as u64, text: &run[..length] });
            from += length;
        }
        Step::Go
    }
}

/// How much of a run of operator characters is one operator. A trailing `+` or `-` belongs to it only if the run holds a
/// character that no standard operator has.
fn operator_length(run: &[u8]) -> usize {
    let mut length = run.len();
    let sign = |b: u8| matches!(b, b'+' | b'-');
    if length > 1 && sign(run[length - 1]) && !run[..length - 1].iter().any(|b| b"~!@#^&|`?%".contains(b)) {
        while length > 1 && sign(run[length - 1]) {
            length -= 1;
        }
    }
    length
}
