//! Framing: one tag byte, a length word that counts itself, the body.
//!
//! Invariant: a length that PostgreSQL would refuse never leaves this module as a number somebody could allocate.
//! Deliberately absent: bodies.

/// Bytes of a tag and a length word.
pub const HEADER_LEN: usize = 5;

/// Largest frame that PostgreSQL accepts from a client for messages that carry data
/// (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize - 1`).
pub const LARGE_LIMIT: usize = 0x3fff_ffff - 1;

/// Largest frame that PostgreSQL accepts from a client for all other messages (`PQ_SMALL_MESSAGE_LIMIT`).
pub const SMALL_LIMIT: usize = 10_000;

/// A frame's tag and its whole length, tag and length word included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message type byte.
    pub tag: u8,
    /// Bytes of the whole frame: at least [`HEADER_LEN`].
    pub len: usize,
}

/// Why bytes are not the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length word is below its own size or above the limit for its tag.
    #[error("invalid message length")]
    Length {
        /// The frame's tag.
        tag: u8,
        /// What the length word said.
        length: i64,
    },
    /// The tag is not one that this side may send.
    #[error("invalid frontend message type {0}")]
    Tag(u8),
    /// The body does not have the form that its tag promises.
    #[error("invalid {0} message")]
    Body(&'static str),
}

/// Reads the header of a frame from a client. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// A tag no client may send, or a length that PostgreSQL refuses for that tag.
pub fn frontend_header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(&tag) = bytes.first() else { return Ok(None) };
    let limit = match tag {
        b'Q' | b'F' | b'B' | b'P' | b'd' => LARGE_LIMIT,
        b'X' | b'C' | b'D' | b'E' | b'H' | b'S' | b'c' | b'f' => SMALL_LIMIT,
        b'p' => SMALL_LIMIT,
        other => return Err(Malformed::Tag(other)),
    };
    header(bytes, tag, limit)
}

/// Reads the header of a frame from a server. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// A length that no server sends.
pub fn backend_header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(&tag) = bytes.first() else { return Ok(None) };
    header(bytes, tag, 0x7fff_ffff)
}

fn header(bytes: &[u8], tag: u8, limit: usize) -> Result<Option<Header>, Malformed> {
    let Some(word) = bytes.get(1..HEADER_LEN) else { return Ok(None) };
    let length = i32::from_be_bytes([word[0], word[1], word[2], word[3]]);
    match usize::try_from(length) {
        Ok(body) if (4..=limit).contains(&body) => Ok(Some(Header { tag, len: body + 1 })),
        _ => Err(Malformed::Length { tag, length: i64::from(length) }),
    }
}

/// Splits a NUL-terminated string off the front of `bytes`.
#[must_use]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Option<usize>, ()>) {
        let got = frontend_header(bytes).map(|h| h.map(|h| h.len)).map_err(|_| ());
        assert_eq!(got, expected, "{bytes:?}");
    }

    #[test]
    fn lengths_that_postgresql_refuses_are_refused() {
        check(b"", Ok(None));
        check(b"Q\0\0\0", Ok(None));
        check(b"Q\0\0\0\x04", Ok(Some(5)));
        check(b"Q\0\0\0\x03", Err(()));
        check(b"Q\xff\xff\xff\xff", Err(()));
        check(b"Q\x7f\xff\xff\xff", Err(()));
        check(b"B\x3f\xff\xff\xfe", Ok(Some(0x3fff_ffff)));
        check(b"B\x3f\xff\xff\xff", Err(()));
        check(b"S\0\0\x27\x11", Err(()));
        check(b"z\0\0\0\x04", Err(()));
    }
}
