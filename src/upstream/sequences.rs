//! Whose `nextval` a connection remembers: what `currval` and `lastval` tell on it.
//!
//! Invariant: [`Sequences::of`] a session only if no other has advanced a sequence there since the connection was opened or
//! told to forget.
//!
//! Deliberately absent: telling it (`DISCARD SEQUENCES`), which statements advance a sequence.

/// Whose values they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequences(u64);

impl Sequences {
    /// Nobody's: there are none.
    pub const NONE: Self = Self(0);
    const SEVERAL: Self = Self(u64::MAX);

    /// A session, by its number from 1, may have advanced a sequence.
    #[inline]
    pub fn advanced_by(&mut self, session: u64) {
        *self = if *self == Self::NONE || self.0 == session { Self(session) } else { Self::SEVERAL };
    }

    /// Whether they are all of this session.
    #[must_use]
    pub fn of(self, session: u64) -> bool {
        self.0 == session
    }

    /// Whether they are all of one session.
    #[must_use]
    pub fn of_one(self) -> bool {
        self != Self::NONE && self != Self::SEVERAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_they_are() {
        let mut sequences = Sequences::NONE;
        assert!(!sequences.of(1) && !sequences.of_one());
        sequences.advanced_by(1);
        sequences.advanced_by(1);
        assert!(sequences.of(1) && !sequences.of(2) && sequences.of_one());
        sequences.advanced_by(2);
        assert!(!sequences.of(1) && !sequences.of(2) && !sequences.of_one());
        sequences.advanced_by(1);
        assert!(!sequences.of(1), "another's are still there");
    }
}
