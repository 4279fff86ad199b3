//! One text, read without any cache: the lexer once, the sketch beside it, then the grammar for each statement.
//!
//! Deliberately absent: bounds, which `parse` keeps, and memory, which `cache` is.

use std::ops::Range;

use super::analysis::Shape;
use super::cache::{TextContext, opaque};
use super::lexer::{Lexer, TokenKind};
use super::parse;
use super::sketch::{Boundary, Sketcher};
use super::tokens::Spot;

/// Where the statements of a text begin, and end before their semicolons, in bytes: as many as the text's shape has statements.
#[must_use]
pub fn statement_spans(text: &[u8], context: TextContext) -> Vec<Range<usize>> {
    let conforming = context.standard_conforming_strings;
    let mut sketcher = Sketcher::new(conforming);
    Lexer::whole(text, conforming, |token| {
        sketcher.token(&token);
    });
    sketcher.finish();
    // What can be cut at offsets that do not fit was not read as a whole.
    let spans = sketcher.statements.iter().map(|statement| statement.span.0 as usize..statement.span.1 as usize);
    spans.filter(|span| span.start <= span.end && span.end <= text.len()).collect()
}

/// The shape of a text of at most [`parse::TEXT_LIMIT`] bytes. `literals` are those that normalisation dropped.
pub(super) fn shape(text: &[u8], conforming: bool, literals: &[(u32, u32)], fingerprint: u128) -> Shape {
    let Ok(text) = std::str::from_utf8(text) else {
        return Shape { fingerprint, ..opaque() };
    };
    let mut sketcher = Sketcher::new(conforming);
    let mut spots = Vec::with_capacity(text.len() / 5 + 4);
    let mut ranges = Vec::new();
    let mut begin = 0;
    Lexer::whole(text.as_bytes(), conforming, |token| {
        let boundary = sketcher.token(&token);
        if boundary == Boundary::Kept {
            ranges.push(begin..spots.len());
        }
        if token.kind != TokenKind::Comment {
            // The text is far shorter than 4 GiB.
            #[expect(clippy::cast_possible_truncation, reason = "the text is at most 64 KiB")]
            spots.push(Spot { kind: token.kind, start: token.start as u32, end: token.end as u32 });
        }
        if boundary != Boundary::Inside {
            begin = spots.len();
        }
    });
    if sketcher.finish() == Boundary::Kept {
        ranges.push(begin..spots.len());
    }
    let inner = std::mem::take(&mut sketcher.inner);
    let mut statements = std::mem::take(&mut sketcher.statements);
    for ((statement, inner), range) in statements.iter_mut().zip(inner).zip(ranges) {
        if let Some(inner) = inner {
            parse::refine(statement, inner, &spots[range], text, literals, conforming);
        }
    }
    Shape::new(fingerprint, statements)
}
