//! A Query into which statements of the gateway's own were put, or in which they stand for the client's: what the client sees of
//! its answer is that to its own text.
//!
//! Invariant: a server completes the statements of a string in their order, one after the other, each of them once.
//! Deliberately absent: what the statements are.

use bytes::{BufMut, BytesMut};

use super::StatementId;
use crate::wire::frame::{HEADER_LEN, cstr};

/// Where the gateway's statements stand among the client's.
#[derive(Debug, Clone, Default)]
pub struct Amended {
    /// For each statement, whether it is the gateway's.
    own: Vec<bool>,
    /// Those that were completed.
    completed: usize,
    /// Behind how many characters of the client's text how many more stand.
    more: Vec<(usize, usize)>,
    /// Positions of what stands for a DEALLOCATE of what servers know by another name, with the client's name for that.
    deallocates: Vec<(usize, Box<[u8]>, StatementId)>,
}

impl Amended {
    /// Notes the next statement as the client's.
    pub fn one_of_the_clients(&mut self) {
        self.own.push(false);
    }

    /// Notes the next statement as the gateway's: it and its semicolon are `len` characters, behind `at` of the client's.
    pub fn one_of_ours(&mut self, at: usize, len: usize) {
        self.own.push(true);
        self.more.push((at, len));
    }

    /// Notes that the next statement stands for a DEALLOCATE of the client's, which ends behind `at` characters of its text and is
    /// `more` characters shorter.
    pub fn stands_for(&mut self, at: usize, more: usize, client_name: Box<[u8]>, statement: StatementId) {
        self.deallocates.push((self.own.len(), client_name, statement));
        self.more.push((at, more));
        self.own.push(false);
    }

    /// What the statement that is about to complete has deallocated.
    pub(super) fn deallocated(&self) -> Option<(Box<[u8]>, StatementId)> {
        let (_, name, statement) = self.deallocates.iter().find(|(at, ..)| *at == self.completed)?;
        Some((name.clone(), *statement))
    }

    /// Whether what the server says now it says of the gateway's.
    pub(super) fn hides(&self) -> bool {
        self.own.get(self.completed).is_some_and(|own| *own)
    }

    /// Takes a CommandComplete. Returns whether it is the gateway's.
    pub(super) fn complete(&mut self) -> bool {
        let own = self.hides();
        self.completed += 1;
        own
    }

    /// The ErrorResponse with its position in the client's own text, if it has one in what the server was sent.
    pub(super) fn relocated(&self, frame: &[u8]) -> Option<BytesMut> {
        let mut at = HEADER_LEN;
        while let Some(kind) = frame.get(at).filter(|kind| **kind != 0) {
            let (value, _) = cstr(&frame[at + 1..])?;
            let (from, to) = (at + 1, at + 1 + value.len());
            at = to + 1;
            if *kind != b'P' {
                continue;
            }
            let sent: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
            let mut position = sent;
            for (before, len) in &self.more {
                if position > *before {
                    position = position.saturating_sub(*len).max(*before);
                }
            }
            let digits = position.to_string();
            let mut out = BytesMut::with_capacity(frame.len());
            out.put_u8(frame[0]);
            out.put_u32(u32::try_from(frame.len() - 1 - value.len() + digits.len()).ok()?);
            out.put_slice(&frame[HEADER_LEN..from]);
            out.put_slice(digits.as_bytes());
            out.put_slice(&frame[to..]);
            return Some(out);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::{error_fields, write_error};

    #[test]
    fn positions_are_those_of_the_clients_text() {
        // "RESET a; SELECT b; RESET c; SELECT d", and ten characters behind each RESET.
        let mut amended = Amended::default();
        for (at, own) in [(0, false), (7, true), (0, false), (0, false), (26, true), (0, false)] {
            if own { amended.one_of_ours(at, 10) } else { amended.one_of_the_clients() }
        }
        for (sent, seen) in [("3", "3"), ("7", "7"), ("20", "10"), ("36", "26"), ("49", "29")] {
            let mut frame = BytesMut::new();
            let fields = [(b'P', Some(sent)), (b'R', Some("f"))];
            write_error(&mut frame, b'E', "ERROR", "42703", "none", &fields);
            let out = amended.relocated(&frame).expect("it has a position");
            assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1);
            let mut expected = BytesMut::new();
            write_error(&mut expected, b'E', "ERROR", "42703", "none", &[(b'P', Some(seen)), (b'R', Some("f"))]);
            assert_eq!(out, expected, "{sent}");
            assert_eq!(error_fields(&out).routine.as_deref(), Some("f"));
        }
        assert_eq!([0; 6].map(|_| amended.complete()), [false, true, false, false, true, false]);
    }
}
