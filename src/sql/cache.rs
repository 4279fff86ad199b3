//! The analyser: two levels of memory over the lexer and the grammar.
//!
//! The exact level maps a text to its analysis; the shape level maps a normalised form to what all texts of that form
//! share. Invariants: keys are compared byte for byte; both levels are bounded in bytes and evict by themselves; a text
//! enters the exact level only when it comes a second time within a short while, so that a stream of ever-different
//! literals leaves it alone; a hit allocates nothing (up to eight literals).
//!
//! Deliberately absent: the catalogue's verdict, which the catalogue keeps in the shape ([`super::Memo`]).

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use foldhash::quality::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};
use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;

use super::analysis::{Access, Analysis, Effects, Shape, Statement, Understood};
use super::normal::{self, Normal};
use super::parse;
use super::read;
use super::stream::Stream;

/// What decides how a text's bytes are read. Both come from the client's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextContext {
    /// The setting of that name.
    pub standard_conforming_strings: bool,
    /// `false` for a client encoding whose trail bytes may be ASCII (SJIS, BIG5, GBK, GB18030, UHC, JOHAB,
    /// SHIFT_JIS_2004): a backslash or a quote in such a text may be half a character.
    pub safe_encoding: bool,
}

impl TextContext {
    /// From the two settings, the encoding as PostgreSQL reports it (`UTF8`) or as a client may write it (`utf-8`).
    #[must_use]
    pub fn new(standard_conforming_strings: bool, client_encoding: &str) -> Self {
        const UNSAFE: [&str; 15] = [
            "sjis",
            "shiftjis",
            "mskanji",
            "win932",
            "windows932",
            "big5",
            "win950",
            "windows950",
            "gbk",
            "win936",
            "windows936",
            "gb18030",
            "uhc",
            "johab",
            "shiftjis2004",
        ];
        // As `pg_char_to_encoding` compares names: letters and digits only, without case.
        let name: String =
            client_encoding.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        let safe_encoding = !UNSAFE.contains(&name.as_str()) && !matches!(name.as_str(), "win949" | "windows949");
        Self { standard_conforming_strings, safe_encoding }
    }
}

impl Default for TextContext {
    /// What PostgreSQL has by default: conforming strings, UTF-8.
    fn default() -> Self {
        Self { standard_conforming_strings: true, safe_encoding: true }
    }
}

/// Counters of an [`Analyzer`], since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Texts answered by the exact level.
    pub exact_hits: u64,
    /// Texts answered by the shape level.
    pub shape_hits: u64,
    /// Texts that were parsed or sketched.
    pub misses: u64,
    /// Bytes held now, both levels, by the cache's own count.
    pub bytes: u64,
}

/// Analyses texts and remembers the answers. One for the whole process; workers share it by reference.
pub struct Analyzer {
    exact: Cache<ExactKey, Analysis, Bytes, RandomState>,
    shapes: Cache<Box<[u8]>, Arc<Shape>, Bytes, RandomState>,
    /// Tags of texts that missed the exact level lately.
    seen: Box<[AtomicU32]>,
    hasher: RandomState,
    /// Key of the fingerprints; new in every process.
    key: (u64, u64),
    opaque: Arc<Shape>,
    shape_hits: AtomicU64,
    misses: AtomicU64,
    exact_hits: Counters,
}

/// One counter a few cache lines wide, so that hits on different cores rarely meet.
#[derive(Default)]
struct Counters([Padded; 8]);

#[derive(Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ExactKey {
    text: Box<[u8]>,
    conforming: bool,
    hash: u64,
}

#[derive(Clone, Copy)]
struct ExactQuery<'t> {
    text: &'t [u8],
    conforming: bool,
    /// Of both, under the analyser's key: a text is hashed once.
    hash: u64,
}

impl Hash for ExactKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for ExactQuery<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<ExactKey> for ExactQuery<'_> {
    fn equivalent(&self, key: &ExactKey) -> bool {
        self.conforming == key.conforming && self.text == &*key.text
    }
}

/// What an entry costs beyond its key and value: table slots and allocator overhead.
const ENTRY_OVERHEAD: usize = 96;

#[derive(Clone)]
struct Bytes;

impl Weighter<ExactKey, Analysis> for Bytes {
    fn weight(&self, key: &ExactKey, value: &Analysis) -> u64 {
        let spilled = if value.literals.spilled() { value.literals.capacity() * 8 } else { 0 };
        // An exact entry may be the last to hold its shape.
        (key.text.len() + size_of::<Analysis>() + spilled + value.shape.weight() + ENTRY_OVERHEAD) as u64
    }
}

impl Weighter<Box<[u8]>, Arc<Shape>> for Bytes {
    fn weight(&self, key: &Box<[u8]>, value: &Arc<Shape>) -> u64 {
        (key.len() + value.weight() + ENTRY_OVERHEAD) as u64
    }
}

/// Slots that remember texts which missed; each forgets as soon as another text falls on it.
const SEEN_SLOTS: usize = 4096;

impl Analyzer {
    /// An analyser whose two levels together hold at most about `limit_bytes`, half each.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        let half = limit_bytes / 2;
        Self {
            exact: level(half),
            shapes: level(half),
            seen: (0..SEEN_SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::default(),
            key: (rand::random(), rand::random()),
            opaque: Arc::new(opaque()),
            shape_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            exact_hits: Counters::default(),
        }
    }

    /// What `text` says. Never fails: what is not understood says so. A text over 64 KiB is read by the lexer alone
    /// and not remembered.
    #[must_use]
    pub fn analyze(&self, text: &[u8], context: TextContext) -> Analysis {
        let conforming = context.standard_conforming_strings;
        if !context.safe_encoding {
            return Analysis {
                shape: Arc::clone(&self.opaque),
                literals: SmallVec::new(),
                standard_conforming_strings: conforming,
            };
        }
        if text.len() > parse::TEXT_LIMIT {
            return self.long(text, context);
        }
        let query = ExactQuery { text, conforming, hash: self.hash(text, conforming) };
        if let Some(found) = self.exact.get(&query) {
            self.exact_hits.0[text.len() % 8].0.fetch_add(1, Ordering::Relaxed);
            return found;
        }
        let analysis = self.by_shape(text, conforming);
        if self.seen_before(&query) {
            self.exact.insert(ExactKey { text: text.into(), conforming, hash: query.hash }, analysis.clone());
        }
        analysis
    }

    fn by_shape(&self, text: &[u8], conforming: bool) -> Analysis {
        if std::str::from_utf8(text).is_err() {
            // Even a bad byte in a literal only: its form would be that of a good text.
            return Analysis {
                shape: Arc::clone(&self.opaque),
                literals: SmallVec::new(),
                standard_conforming_strings: conforming,
            };
        }
        let Some(Normal { form, literals }) = normal::normalise(text, conforming) else {
            // In error: its own form, and not worth a place.
            self.misses.fetch_add(1, Ordering::Relaxed);
            let shape = Arc::new(read::shape(text, conforming, &[], self.fingerprint(text)));
            return Analysis { shape, literals: SmallVec::new(), standard_conforming_strings: conforming };
        };
        let shape = if let Some(shape) = self.shapes.get(&form[..]) {
            self.shape_hits.fetch_add(1, Ordering::Relaxed);
            shape
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            let shape = Arc::new(read::shape(text, conforming, &literals, self.fingerprint(&form)));
            self.shapes.insert(form[..].into(), Arc::clone(&shape));
            shape
        };
        Analysis { shape, literals, standard_conforming_strings: conforming }
    }

    fn long(&self, text: &[u8], context: TextContext) -> Analysis {
        self.misses.fetch_add(1, Ordering::Relaxed);
        let mut stream = Stream::new(context);
        stream.push(text);
        let mut shape = stream.finish();
        shape.fingerprint = self.fingerprint(text);
        Analysis {
            shape: Arc::new(shape),
            literals: SmallVec::new(),
            standard_conforming_strings: context.standard_conforming_strings,
        }
    }

    fn fingerprint(&self, form: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(form);
        hasher.finish128().as_u128()
    }

    fn hash(&self, text: &[u8], conforming: bool) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.write_u8(u8::from(conforming));
        hasher.finish()
    }

    /// Whether this text missed lately already; remembers it either way.
    fn seen_before(&self, query: &ExactQuery<'_>) -> bool {
        let bytes = query.hash.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % SEEN_SLOTS;
        let tag = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) | 1;
        self.seen[slot].swap(tag, Ordering::Relaxed) == tag
    }

    /// Counters for the metrics.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            exact_hits: self.exact_hits.0.iter().map(|c| c.0.load(Ordering::Relaxed)).sum(),
            shape_hits: self.shape_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.exact.weight() + self.shapes.weight(),
        }
    }
}

fn level<K, V>(bytes: u64) -> Cache<K, V, Bytes, RandomState>
where
    K: Eq + Hash,
    V: Clone,
    Bytes: Weighter<K, V>,
{
    // Few shards, so that none is too small for an entry of a long text.
    let options = OptionsBuilder::new()
        .estimated_items_capacity(usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20))
        .weight_capacity(bytes)
        .shards(16)
        .build()
        .unwrap_or_else(|_| unreachable!("both capacities are given"));
    Cache::with_options(options, Bytes, RandomState::default(), DefaultLifecycle::default())
}

/// What is said of a text whose bytes cannot be read.
pub(super) fn opaque() -> Shape {
    Shape::new(
        0,
        SmallVec::from_iter([Statement {
            access: Access::Unknown,
            understood: Understood::Nothing,
            effects: Effects::OPAQUE | Effects::CALLS_UNKNOWN | Effects::RUNS_TEXT,
            ..Statement::default()
        }]),
    )
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Analyzer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
