//! What failed for its server's own sake runs once more elsewhere: a read that a replica cannot answer, on the primary (DESIGN
//! 4.7); SET of a custom setting whose prefix a library on that server has reserved, on a server that has loaded none, and SET of
//! `temp_buffers`, which holds until a process has used temporary tables.
//!
//! Invariant: only what was proven to read or to set, outside a transaction block, alone in flight, and of which the client has
//! seen nothing, not even a NOTICE or a ParseComplete, runs again; once, and not if its client has asked to cancel it.
//!
//! Deliberately absent: where the second run goes (`drive`), what reads (`catalog`).
//!
//! Source: "Hot Standby" in PostgreSQL's documentation for what a standby refuses and cancels; `MarkGUCPrefixReserved` in
//! `guc.c`; `check_temp_buffers` in `variable.c`.

use std::time::Instant;

use bytes::BytesMut;

use super::drive::Conversation;
use super::io::Buffers;
use crate::sql::{Kind, Statement};
use crate::upstream::ErrorReply;
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

/// ERRCODE_INVALID_NAME: the name's prefix is reserved.
const OF_A_LIBRARY: &str = "42602";

/// What may be the server's own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is a replica.
    Replica,
    /// Its process has loaded a library, or used temporary tables.
    Process,
}

impl Fault {
    /// Which statements have no effect where they fail by it.
    pub(super) fn allows(self) -> fn(&Statement) -> bool {
        match self {
            Self::Replica => |statement| matches!(statement.kind, Kind::Select | Kind::Values),
            Self::Process => |statement| {
                let hangs_on_it = |name: &Box<str>| name.contains('.') || &**name == "temp_buffers";
                statement.kind == Kind::Set && statement.settings.iter().any(hangs_on_it)
            },
        }
    }
}

/// The unit in flight, as long as it may run again.
#[derive(Debug, Default)]
pub(super) struct Rerun {
    /// The client's own bytes.
    unit: BytesMut,
    /// Nothing of the answer has been looked at by anybody else.
    armed: Option<Fault>,
    /// The unit at hand has run before.
    second: Option<Fault>,
    /// And it writes.
    writes: bool,
    /// Its cancel was asked the first time.
    cancelled: bool,
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
    pub(super) fn arm(&mut self, unit: &[u8], fault: Fault) {
        Buffers::lend(&mut self.unit);
        self.unit.extend_from_slice(unit);
        self.armed = Some(fault);
    }

    /// The unit in flight must not run again.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.armed.is_some() {
            self.armed = None;
            Buffers::take_back(&mut self.unit);
        }
    }

    #[inline]
    pub(super) fn armed(&self) -> Option<Fault> {
        self.armed
    }

    /// Takes the copy: from now on it is the second run.
    pub(super) fn take(&mut self) -> BytesMut {
        self.second = self.armed.take();
        std::mem::take(&mut self.unit)
    }

    /// The unit at hand, of which nothing was sent yet, goes elsewhere.
    pub(super) fn elsewhere(&mut self, fault: Fault) {
        self.second = Some(fault);
    }

    /// The replica that the copy was sent to has answered with this.
    pub(super) fn note_error(&mut self, sqlstate: &str) {
        // ERRCODE_READ_ONLY_SQL_TRANSACTION
        self.writes = self.armed == Some(Fault::Replica) && sqlstate == "25006";
    }

    /// The unit at hand was to be cancelled: it does not run again.
    pub(super) fn cancel(&mut self) {
        self.second = None;
        self.cancelled = true;
    }

    /// Whether it was; told once.
    #[inline]
    pub(super) fn take_cancelled(&mut self) -> bool {
        std::mem::take(&mut self.cancelled)
    }

    /// Whether the unit at hand runs a second time because it writes; told once.
    pub(super) fn take_writes(&mut self) -> bool {
        std::mem::take(&mut self.writes)
    }

    /// Why the unit at hand runs a second time, if it does; told once.
    #[inline]
    pub(super) fn take_second(&mut self) -> Option<Fault> {
        self.second.take()
    }
}

impl Conversation {
    /// The unit at hand goes to the primary at once from now on, whoever of the account sends it.
    pub(super) fn learn_refusal(&mut self) {
        for shape in self.session.shapes() {
            self.account.refused.add(shape.fingerprint, Instant::now());
        }
    }

    /// Whether the unit at hand was found to write where it should only read.
    #[inline]
    pub(super) fn was_refused(&self) -> bool {
        let refused = &self.account.refused;
        refused.any() && self.session.shapes().any(|shape| refused.holds(shape.fingerprint, Instant::now()))
    }
}

/// Looks at what the server has sent so far of an answer.
pub(super) fn look(input: &[u8], fault: Fault) -> Look {
    let mut pos = 0;
    while let Ok(Some(header)) = backend_header(&input[pos..]) {
        match header.tag {
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' | b'N' | b'S' if pos + header.len <= ANSWER_LIMIT => {
                pos += header.len;
            }
            b'E' if header.len <= ANSWER_LIMIT => {
                let Some(frame) = input.get(pos..pos + header.len) else { return Look::More };
                return judge(frame, fault);
            }
            _ => return Look::Pass,
        }
        if pos > input.len() {
            return Look::More;
        }
    }
    if input.len() - pos >= HEADER_LEN { Look::Pass } else { Look::More }
}

fn judge(frame: &[u8], fault: Fault) -> Look {
    let fields = backend::error_fields(frame);
    let changed = || fields.routine.as_deref() == Some("RevalidateCachedQuery");
    let ends = matches!(fields.severity.as_str(), "FATAL" | "PANIC");
    let of_the_server = match fault {
        Fault::Replica => OF_A_STANDBY.contains(&&*fields.sqlstate) && !changed(),
        Fault::Process => {
            fields.sqlstate == OF_A_LIBRARY || is_used(&fields.sqlstate, fields.routine.as_deref(), &fields.message)
        }
    };
    if ends {
        Look::Lost
    } else if of_the_server {
        Look::Again
    } else {
        Look::Pass
    }
}

/// Whether a server refused a session's settings because its process has used temporary tables.
pub(super) fn wants_new_process(reply: &ErrorReply) -> bool {
    is_used(&reply.sqlstate, reply.routine.as_deref(), &reply.message)
}

/// A value out of range is refused elsewhere.
fn is_used(sqlstate: &str, routine: Option<&str>, message: &str) -> bool {
    sqlstate == "22023" && routine == Some("call_int_check_hook") && message.contains("temp_buffers")
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
            assert_eq!(look(&bytes, Fault::Replica), expected, "{parts:?}");
            // However little of it is there, nothing else is said of it.
            for end in 0..bytes.len() {
                let early = look(&bytes[..end], Fault::Replica);
                assert!(early == Look::More || early == expected, "{parts:?} at {end}: {early:?}");
            }
        }
        let endless = [b"T\0\x10\0\0".as_slice(), &[0; 100]].concat();
        assert_eq!(look(&endless, Fault::Replica), Look::Pass, "an endless description");
        for (code, expected) in [("42602", Look::Again), ("25006", Look::Pass)] {
            assert_eq!(look(&answer(&[(b'E', &error(code, "f"))]), Fault::Process), expected, "{code}");
        }
    }
}
