//! What the words of a text may do, wherever in it they stand: in bodies and strings that are run as statements, and in what
//! is too long to be held.
//!
//! Invariants: how the text was cut into pieces changes nothing; nothing is allocated but for very long words; a word too
//! many costs a pin or a refusal on a replica, so only what is run as a text, or is not understood, is read like this.
//!
//! Deliberately absent: names that are put together, those with spaces or signs in them, strings that hide letters of a name
//! behind escapes.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::analysis::Effects;
use super::names::function_effects;

/// What naming something of a database brings, by names as they are spelled in its catalogue.
pub type Names = HashMap<Box<str>, Effects, RandomState>;

/// Bytes of a word that are kept: a name has 63, and may stand between dollars.
const WORD: usize = 192;

/// A text being read.
#[derive(Debug)]
pub struct Said {
    names: Arc<Names>,
    effects: Effects,
    word: SmallVec<[u8; WORD]>,
    before: Before,
    /// What stood before the word at hand.
    opened: u8,
    last: u8,
}

/// The words before, as far as the next byte's meaning hangs on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Other,
    /// SET, or `set_config`.
    Set,
    /// LOAD; and whether it stood behind a quote, with nothing behind it yet.
    Load(bool),
    /// `U`, right before this byte, or `U&`.
    Unicode(bool),
}

impl Said {
    /// Starts a text. `names`: what counts besides PostgreSQL's own.
    #[must_use]
    pub fn new(names: Arc<Names>) -> Self {
        let effects = Effects::NONE;
        Self { names, effects, word: SmallVec::new(), before: Before::Other, opened: 0, last: 0 }
    }

    /// The next piece; any size.
    pub fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80 {
                if self.word.is_empty() {
                    // `E'…\nsetseed(…)'`: no name has a backslash before it.
                    if self.last == b'\\' && matches!(byte, b'b' | b'f' | b'n' | b'r' | b't') {
                        self.last = byte;
                        continue;
                    }
                    self.opened = self.last;
                    // `LOAD $$…$$`.
                    self.loads(byte);
                }
                if self.word.len() < WORD {
                    self.word.push(byte);
                }
            } else {
                self.end_word();
                self.loads(byte);
                self.before = match (self.before, byte) {
                    (Before::Unicode(false), b'&') => Before::Unicode(true),
                    (Before::Unicode(seen), _) => {
                        if seen && byte == b'"' {
                            self.effects |= Effects::HIDDEN;
                        }
                        Before::Other
                    }
                    (before, _) => before,
                };
            }
            self.last = byte;
        }
    }

    /// What the words so far may do. Those of the whole text once it has ended.
    pub fn finish(&mut self) -> Effects {
        self.end_word();
        self.effects
    }

    /// A library is a string behind LOAD. `'load', 'x'` is no such thing.
    fn loads(&mut self, byte: u8) {
        let Before::Load(bare) = self.before else { return };
        match byte {
            b'\'' | b'$' if !bare => self.effects |= Effects::LOAD,
            b' ' | b'\t' | b'\n' | b'\r' => {
                self.before = Before::Load(false);
                return;
            }
            // `LOAD E'…'`.
            b'e' | b'E' if !bare => return,
            _ => {}
        }
        self.before = Before::Other;
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let (word, before) = (std::mem::take(&mut self.word), self.before);
        self.name(&word);
        // Behind a dollar quote, or before the next.
        if word.contains(&b'$') {
            for part in word.split(|byte| *byte == b'$') {
                if before == Before::Set {
                    self.before = before;
                }
                self.name(part);
            }
        }
    }

    fn name(&mut self, spelled: &[u8]) {
        let mut folded = SmallVec::<[u8; WORD]>::from_slice(spelled);
        folded.make_ascii_lowercase();
        let (Ok(spelled), Ok(name)) = (std::str::from_utf8(spelled), std::str::from_utf8(&folded)) else { return };
        let known = |name: &str| self.names.get(name).copied().unwrap_or_default();
        let mut effects = Effects(function_effects(name).0 & Effects::FOUND.0) | known(name);
        if spelled != name {
            effects |= known(spelled);
        }
        self.effects |= effects;
        self.before = match (self.before, name) {
            (Before::Set, "seed") => {
                self.effects |= Effects::SEED;
                Before::Other
            }
            (_, "set" | "set_config") | (Before::Set, "session" | "local" | "e") => Before::Set,
            (_, "load") => Before::Load(matches!(self.opened, b'\'' | b'"')),
            (load @ Before::Load(_), "e" | "") => load,
            (_, "u") => Before::Unicode(false),
            _ => Before::Other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Effects) {
        let own = [("Link It", Effects::PROCESS), ("LinkIt", Effects::PROCESS), ("adv", Effects::TAKES_ADVISORY)];
        let names: Arc<Names> = Arc::new(own.iter().map(|(name, effects)| ((*name).into(), *effects)).collect());
        for size in [1, 2, 3, text.len()] {
            let mut said = Said::new(Arc::clone(&names));
            text.as_bytes().chunks(size).for_each(|piece| said.push(piece));
            assert_eq!(said.finish(), expected, "{text} in pieces of {size}");
        }
    }

    #[test]
    fn words_count_wherever_they_stand() {
        for text in
            ["select 1", "load", "'load', 'x'", "set a = seed", "linkit", "AT&T \"u\"", "upload 'x'", "setseeds"]
        {
            check(text, Effects::NONE);
        }
        for text in [
            "SetSeed",
            "do $$begin perform setseed(1)",
            "a$setseed$b",
            "set session seed = 1",
            "set_config('Seed'",
            "set_config($$seed$$",
            "E'select\\nsetseed(1)'",
        ] {
            check(text, Effects::SEED);
        }
        for text in ["LOAD 'x'", "x;load\n'x'", "execute 'load ''x'''", "load'x'", "load $a$x$a$", "load E'x'"] {
            check(text, Effects::LOAD);
        }
        check("\"LinkIt\"", Effects::PROCESS);
        check("ADV(1) dblink_connect('')", Effects::PROCESS | Effects::TAKES_ADVISORY);
        check("select lastval()", Effects::CURRVAL);
        check("select U&\"a\"", Effects::HIDDEN);
    }
}
