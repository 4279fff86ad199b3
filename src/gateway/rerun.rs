//! A read that failed on a replica for the replica's own sake runs once more, on the primary (DESIGN 4.7).
//!
//! Invariant: only what was proven to read, outside a transaction block, alone in flight, and of which the client has seen
//! nothing, not even a NOTICE or a ParseComplete, runs again; once.
//!
//! Deliberately absent: where the second run goes (`drive`), what reads (`catalog`).
//!
//! Source: "Hot Standby" in PostgreSQL's documentation for what a standby refuses and cancels.

use bytes::BytesMut;

use super::io::Buffers;
use crate::wire::backend;
use crate::wire::frame::{HEADER_LEN, backend_header};

/// Longest unit of which a copy is kept, in bytes; what is longer fails as it fails.
pub(super) const UNIT_LIMIT: usize = 16 << 10;

/// Most bytes of an answer that are kept from the client until it is known whether the read failed.
const ANSWER_LIMIT: usize = 64 << 10;

/// Errors that a standby answers with where the primary would not: what it cannot do, what it was made to cancel, what it has
/// not replayed yet, and what it finds missing while it replays.
const OF_A_STANDBY: [&str; 11] =
    ["25006", "0A000", "40001", "40P01", "XX000", "58P01", "42P01", "42703", "42883", "42704", "3F000"];

/// The unit in flight, as long as it may run again.
#[derive(Debug, Default)]
pub(super) struct Rerun {
    /// The client's own bytes.
    unit: BytesMut,
    /// Nothing of the answer has been looked at by anybody else.
    armed: bool,
    /// The unit at hand has run before.
    second: bool,
}

/// What an answer's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing yet.
    More,
    /// It is an answer.
    Pass,
    /// It failed, but not by its own fault.
    Again,
    /// The connection ends.
    Lost,
}

impl Rerun {
    /// Keeps a copy of the unit that is about to be sent.
    pub(super) fn arm(&mut self, unit: &[u8]) {
        Buffers::lend(&mut self.unit);
        self.unit.extend_from_slice(unit);
        self.armed = true;
    }

    /// The unit in flight must not run again.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            Buffers::take_back(&mut self.unit);
        }
    }

    #[inline]
    pub(super) fn armed(&self) -> bool {
        self.armed
    }

    /// Takes the copy: from now on it is the second run.
    pub(super) fn take(&mut self) -> BytesMut {
        self.armed = false;
        self.second = true;
        std::mem::take(&mut self.unit)
    }

    /// The unit at hand, of which nothing was sent yet, goes to the primary.
    pub(super) fn elsewhere(&mut self) {
        self.second = true;
    }

    /// Whether the unit at hand is a second run; told once.
    #[inline]
    pub(super) fn take_second(&mut self) -> bool {
        std::mem::take(&mut self.second)
    }
}

/// Looks at what the server has sent so far of an answer.
pub(super) fn look(input: &[u8]) -> Look {
    let mut pos = 0;
    while let Ok(Some(header)) = backend_header(&input[pos..]) {
        match header.tag {
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' | b'N' | b'S' if pos + header.len <= ANSWER_LIMIT => {
                pos += header.len;
            }
            b'E' if header.len <= ANSWER_LIMIT => {
                let Some(frame) = input.get(pos..pos + header.len) else { return Look::More };
                return judge(frame);
            }
            _ => return Look::Pass,
        }
        if pos > input.len() {
            return Look::More;
        }
    }
    if input.len() - pos >= HEADER_LEN { Look::Pass } else { Look::More }
}

fn judge(frame: &[u8]) -> Look {
    let fields = backend::error_fields(frame);
    let changed = fields.routine.as_deref() == Some("RevalidateCachedQuery");
    let ends = matches!(fields.severity.as_str(), "FATAL" | "PANIC");
    if ends {
        Look::Lost
    } else if !changed && OF_A_STANDBY.contains(&&*fields.sqlstate) {
        Look::Again
    } else {
        Look::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(parts: &[(u8, &[u8])]) -> Vec<u8> {
        parts
            .iter()
            .flat_map(|(tag, body)| [&[*tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat())
            .collect()
    }

    #[test]
    fn what_runs_again() {
        let error = |code: &str, routine: &str| format!("SERROR\0VERROR\0C{code}\0Mm\0R{routine}\0\0").into_bytes();
        let (refused, wrong) = (error("25006", "f"), error("22012", "int4div"));
        let changed = error("0A000", "RevalidateCachedQuery");
        let heads: &[(u8, &[u8])] = &[(b'1', b""), (b'2', b""), (b'N', b"Mx\0\0"), (b'T', b"\0\0")];
        for (parts, expected) in [
            (vec![(b'E', &*refused)], Look::Again),
            ([heads, &[(b'E', &*refused)]].concat(), Look::Again),
            (vec![(b'E', &*wrong)], Look::Pass),
            (vec![(b'E', &*changed)], Look::Pass),
            (vec![(b'E', b"SFATAL\0VFATAL\0C57P01\0Mm\0\0")], Look::Lost),
            ([heads, &[(b'D', b"\0\0")]].concat(), Look::Pass),
            ([heads, &[(b'D', b"\0\0"), (b'E', &*refused)]].concat(), Look::Pass),
            (vec![(b'C', b"SELECT 0\0")], Look::Pass),
            (heads.to_vec(), Look::More),
        ] {
            let bytes = answer(&parts);
            assert_eq!(look(&bytes), expected, "{parts:?}");
            // However little of it is there, nothing else is said of it.
            for end in 0..bytes.len() {
                let early = look(&bytes[..end]);
                assert!(early == Look::More || early == expected, "{parts:?} at {end}: {early:?}");
            }
        }
        assert_eq!(look(&[b"T\0\x10\0\0".as_slice(), &[0; 100]].concat()), Look::Pass, "an endless description");
    }
}
