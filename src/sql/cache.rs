//! stub of the analyser: signatures are final, bodies follow.
use super::analysis::{Analysis, Shape};
use std::sync::Arc;

/// What decides how a text's bytes are read. Both come from the client's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextContext {
    /// The setting of that name.
    pub standard_conforming_strings: bool,
    /// `false` for a client encoding whose trail bytes may be ASCII (SJIS, BIG5, GBK, GB18030, UHC, JOHAB, SHIFT_JIS_2004).
    pub safe_encoding: bool,
}

impl TextContext {
    /// From the two settings as PostgreSQL reports them.
    #[must_use]
    pub fn new(standard_conforming_strings: bool, client_encoding: &str) -> Self {
        let _ = client_encoding;
        Self { standard_conforming_strings, safe_encoding: true }
    }
}

impl Default for TextContext {
    fn default() -> Self {
        Self { standard_conforming_strings: true, safe_encoding: true }
    }
}

/// Counters of an [`Analyzer`], since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Texts answered by the exact level.
    pub exact_hits: u64,
    /// Texts answered by the normalised level.
    pub shape_hits: u64,
    /// Texts that were parsed or sketched.
    pub misses: u64,
    /// Bytes held now, both levels.
    pub bytes: u64,
}

/// Analyses texts and remembers the answers. Shared by all workers.
#[derive(Debug)]
pub struct Analyzer {}

impl Analyzer {
    /// An analyser whose caches together hold at most about `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        let _ = limit_bytes;
        Self {}
    }

    /// What `text` says. Never fails: what is not understood says so.
    #[must_use]
    pub fn analyze(&self, text: &[u8], context: TextContext) -> Analysis {
        let _ = text;
        Analysis {
            shape: Arc::new(Shape::default()),
            literals: smallvec::SmallVec::new(),
            standard_conforming_strings: context.standard_conforming_strings,
        }
    }

    /// Counters for the metrics.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}

/// Analysis of a text that arrives in pieces and is not held: by the lexer alone.
#[derive(Debug)]
pub struct Stream {}

impl Stream {
    /// Starts a text.
    #[must_use]
    pub fn new(context: TextContext) -> Self {
        let _ = context;
        Self {}
    }

    /// The next piece; any size, also empty.
    pub fn push(&mut self, piece: &[u8]) {
        let _ = piece;
    }

    /// The end of the text. The fingerprint is 0: streamed texts are not cached.
    #[must_use]
    pub fn finish(self) -> Shape {
        Shape::default()
    }
}
