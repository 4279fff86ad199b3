//! The literal-normalised form of a text: what texts that differ only in literals and block comments have in common.
//!
//! Invariants: two texts with the same form have the same analysis but for the values of their dropped literals; a
//! literal's class stays in the form (so `1` and `'1'` differ); only SELECT, INSERT, UPDATE, DELETE, MERGE and VALUES
//! lose literals, and not inside the arguments of functions that name state or objects; hints stay.
//!
//! Deliberately absent: folding of case, spaces and `IN` lists. A form of its own costs one parse, a fold costs every
//! text: as it is, whatever stands between two literals is copied in one go.

use smallvec::SmallVec;

use super::hints;
use super::lexer::{Lexer, Token, TokenKind};
use super::names;

/// A form and the literals that it lacks.
pub(crate) struct Normal {
    pub(crate) form: SmallVec<[u8; 512]>,
    pub(crate) literals: SmallVec<[(u32, u32); 8]>,
}

/// Normalises a text, which must be shorter than 4 GiB. `None` if a token is in error: such a text is its own form.
pub(crate) fn normalise(text: &[u8], standard_conforming_strings: bool) -> Option<Normal> {
    let mut state = State {
        text,
        normal: Normal { form: SmallVec::new(), literals: SmallVec::new() },
        beginning: true,
        drops: false,
        depth: 0,
        kept_from: u32::MAX,
        name: None,
        error: false,
        copied: 0,
    };
    // What a backslash means is part of what a text means.
    state.normal.form.push(if standard_conforming_strings { b'+' } else { b'-' });
    Lexer::whole(text, standard_conforming_strings, |token| state.token(&token));
    state.copy(text.len());
    (!state.error).then_some(state.normal)
}

struct State<'t> {
    text: &'t [u8],
    normal: Normal,
    /// No word of the statement was read yet.
    beginning: bool,
    /// The statement is of a kind whose literals are dropped.
    drops: bool,
    depth: u32,
    /// Depth of the arguments whose literals are kept; `u32::MAX` outside.
    kept_from: u32,
    /// The last token, if it was a name.
    name: Option<(usize, usize)>,
    error: bool,
    /// How much of the text is in the form, or was left out of it.
    copied: usize,
}

impl State<'_> {
    #[inline]
    fn token(&mut self, token: &Token<'_>) {
        let name = self.name.take();
        let class = match token.kind {
            TokenKind::Word => {
                if self.beginning {
                    self.beginning = false;
                    self.drops = drops_literals(token.text);
                }
                self.name = Some(place(token));
                0
            }
            TokenKind::QuotedIdent | TokenKind::UnicodeIdent => {
                self.name = Some(place(token));
                0
            }
            TokenKind::Punctuation => {
                self.punctuation(token.text, name);
                0
            }
            TokenKind::Operator | TokenKind::Parameter => 0,
            // The form itself must not be read as anything else: control characters are in error outside quotes.
            TokenKind::Integer => 1,
            TokenKind::Decimal => 2,
            TokenKind::OddNumber => 3,
            TokenKind::String => 4,
            TokenKind::EscapeString => 5,
            TokenKind::DollarString => 6,
            TokenKind::NationalString => 7,
            TokenKind::UnicodeString => 14,
            TokenKind::BitString => 15,
            TokenKind::HexString => 16,
            TokenKind::Comment => {
                self.name = name;
                let (from, to) = place(token);
                self.copy(from);
                self.copied = to;
                let form = &mut self.normal.form;
                // A comment parts what stands before and behind it.
                form.push(b' ');
                hints::parse(token.text, |key, value| {
                    form.push(17);
                    for part in [key, value] {
                        form.extend_from_slice(&(part.len() as u64).to_le_bytes());
                        form.extend_from_slice(part.as_bytes());
                    }
                });
                return;
            }
            TokenKind::Error => {
                self.error = true;
                return;
            }
        };
        if class != 0 && self.drops && self.depth < self.kept_from {
            let (from, to) = place(token);
            self.copy(from);
            self.copied = to;
            // Below 4 GiB by the caller's word.
            self.normal.literals.push((from as u32, to as u32));
            self.normal.form.push(class);
        }
    }

    /// Copies the text up to `to`, from where it was copied last.
    fn copy(&mut self, to: usize) {
        self.normal.form.extend_from_slice(&self.text[self.copied..to]);
    }

    fn punctuation(&mut self, text: &[u8], name: Option<(usize, usize)>) {
        match text {
            b"(" => {
                self.depth = self.depth.saturating_add(1);
                if self.kept_from == u32::MAX && name.is_some_and(|(from, to)| keeps(&self.text[from..to])) {
                    self.kept_from = self.depth;
                }
            }
            b")" => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth < self.kept_from {
                    self.kept_from = u32::MAX;
                }
            }
            b";" => {
                self.beginning = true;
                self.drops = false;
                self.depth = 0;
                self.kept_from = u32::MAX;
            }
            _ => {}
        }
    }
}

fn place(token: &Token<'_>) -> (usize, usize) {
    (usize::try_from(token.start).unwrap_or(0), usize::try_from(token.end).unwrap_or(0))
}

/// Whether a statement that begins with this word loses its literals.
fn drops_literals(word: &[u8]) -> bool {
    let mut lower = [0; 6];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    matches!(&*lower, b"select" | b"insert" | b"update" | b"delete" | b"with" | b"values" | b"merge")
}

/// Whether the arguments of a function so written keep their literals.
fn keeps(name: &[u8]) -> bool {
    match name {
        [b'u' | b'U', b'&', b'"', ..] => true,
        [b'"', inner @ .., b'"'] => std::str::from_utf8(inner).is_ok_and(names::keeps_literals),
        _ if matches!(name[0] | 0x20, b's' | b'c' | b'n' | b'l' | b'd' | b'q' | b'p') => {
            let mut lower = SmallVec::<[u8; 64]>::from_slice(name);
            lower.make_ascii_lowercase();
            std::str::from_utf8(&lower).is_ok_and(names::keeps_literals)
        }
        _ => false,
    }
}
