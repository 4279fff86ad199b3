//! Analysis of a text that arrives in pieces and is never held: the lexer and the sketch alone.
//!
//! Invariant: the same as reading the text at once without the grammar. Deliberately absent: tables, equalities, memory.

use smallvec::SmallVec;

use super::analysis::Shape;
use super::cache::{TextContext, opaque};
use super::lexer::Lexer;
use super::sketch::Sketcher;

/// A text being read.
#[derive(Debug)]
pub struct Stream {
    lexer: Lexer,
    sketcher: Sketcher,
    /// Whether the bytes can be read at all.
    readable: bool,
    /// The beginning of a character whose rest is to come.
    partial: SmallVec<[u8; 8]>,
}

impl Stream {
    /// Starts a text.
    #[must_use]
    pub fn new(context: TextContext) -> Self {
        let conforming = context.standard_conforming_strings;
        Self {
            lexer: Lexer::new(conforming),
            sketcher: Sketcher::new(conforming),
            readable: context.safe_encoding,
            partial: SmallVec::new(),
        }
    }

    /// The next piece; any size, also empty.
    pub fn push(&mut self, piece: &[u8]) {
        if !self.readable {
            return;
        }
        self.readable = self.check(piece);
        let sketcher = &mut self.sketcher;
        self.lexer.push(piece, |token| {
            sketcher.token(&token);
        });
    }

    /// The end of the text. The fingerprint is 0: a streamed text is not cached.
    #[must_use]
    pub fn finish(mut self) -> Shape {
        if !self.readable || !self.partial.is_empty() {
            return opaque();
        }
        let sketcher = &mut self.sketcher;
        self.lexer.finish(|token| {
            sketcher.token(&token);
        });
        sketcher.finish();
        Shape::new(0, std::mem::take(&mut sketcher.statements))
    }

    /// Whether the text is UTF-8 up to here.
    fn check(&mut self, mut piece: &[u8]) -> bool {
        while !self.partial.is_empty() {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            self.partial.push(byte);
            piece = rest;
            match std::str::from_utf8(&self.partial) {
                Ok(_) => self.partial.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.partial.extend_from_slice(&piece[error.valid_up_to()..]);
                true
            }
        }
    }
}
