//! The SQL lexer and what stands on it: no bytes make it panic, cutting a text changes no token, and what the sketch
//! calls a write no grammar calls a read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman::sql::{Access, Analyzer, Lexer, Stream, TextContext, TokenKind};

fn tokens(text: &[u8], conforming: bool, cut: usize) -> Vec<(TokenKind, u64, u64)> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer::new(conforming);
    for piece in text.chunks(cut) {
        lexer.push(piece, |t| tokens.push((t.kind, t.start, t.end)));
    }
    lexer.finish(|t| tokens.push((t.kind, t.start, t.end)));
    tokens
}

fuzz_target!(|data: &[u8]| {
    let [control, text @ ..] = data else { return };
    let conforming = control & 1 == 0;
    let cut = usize::from(control >> 1).max(1);
    assert_eq!(tokens(text, conforming, cut), tokens(text, conforming, text.len().max(1)));

    let context = TextContext { standard_conforming_strings: conforming, safe_encoding: true };
    let analysis = Analyzer::new(1 << 16).analyze(text, context);
    for i in 0..analysis.literals.len().min(1 << 16) {
        let _ = analysis.literal(text, i as u16);
    }

    let mut stream = Stream::new(context);
    text.chunks(cut).for_each(|piece| stream.push(piece));
    let streamed = stream.finish();
    assert_eq!(streamed.statements.len(), analysis.shape.statements.len());
    for (a, b) in streamed.statements.iter().zip(&analysis.shape.statements) {
        assert!(a.access != Access::Write || b.access == Access::Write);
        assert_eq!(a.effects.0 & b.effects.0, a.effects.0);
    }
});
