//! Messages from a client: reading what a gateway must see, writing what it sends in a client's place.
//!
//! Invariant: a view borrows from the frame and copies nothing.
//! Deliberately absent: rows, parameters' meaning.

use bytes::{BufMut, BytesMut};

use super::frame::{HEADER_LEN, Malformed, cstr};

/// A Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Empty for the unnamed statement.
    pub name: &'a [u8],
    /// The statement's text, without its NUL.
    pub text: &'a [u8],
    /// The count and the object ids of the parameter types, as sent.
    pub types: &'a [u8],
}

/// A Bind message. The portal and statement names stand first, so that a prefix of a large Bind is enough to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Empty for the unnamed portal.
    pub portal: &'a [u8],
    /// Empty for the unnamed statement.
    pub statement: &'a [u8],
    /// Formats, values and result formats, as sent.
    pub rest: &'a [u8],
}

/// The target of Describe and Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// `S` for a statement, `P` for a portal.
    pub kind: u8,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

/// Reads a Query's text from its whole frame.
///
/// # Errors
/// No terminating NUL, or bytes behind it.
pub fn query(frame: &[u8]) -> Result<&[u8], Malformed> {
    match cstr(&frame[HEADER_LEN..]) {
        Some((text, [])) => Ok(text),
        _ => Err(Malformed::Body("query")),
    }
}

/// Reads a Parse from its whole frame.
///
/// # Errors
/// Missing strings, or a parameter count that does not fit the length.
pub fn parse(frame: &[u8]) -> Result<Parse<'_>, Malformed> {
    let bad = Malformed::Body("Parse");
    let (name, rest) = cstr(&frame[HEADER_LEN..]).ok_or(bad.clone())?;
    let (text, types) = cstr(rest).ok_or(bad.clone())?;
    match types {
        [a, b, oids @ ..] if oids.len() == 4 * usize::from(u16::from_be_bytes([*a, *b])) => {
            Ok(Parse { name, text, types })
        }
        _ => Err(bad),
    }
}

/// Reads a Bind from a frame or a prefix of it that holds both names.
///
/// # Errors
/// A name that does not end within the bytes given.
pub fn bind(frame: &[u8]) -> Result<Bind<'_>, Malformed> {
    let bad = Malformed::Body("Bind");
    let (portal, rest) = cstr(&frame[HEADER_LEN..]).ok_or(bad.clone())?;
    let (statement, rest) = cstr(rest).ok_or(bad)?;
    Ok(Bind { portal, statement, rest })
}

/// Reads a Describe's or a Close's target from its whole frame.
///
/// # Errors
/// A kind that is neither statement nor portal, a missing NUL, bytes behind it.
pub fn target(frame: &[u8]) -> Result<Target<'_>, Malformed> {
    let bad = Malformed::Body("Describe or Close");
    match frame[HEADER_LEN..].split_first() {
        Some((&kind @ (b'S' | b'P'), rest)) => match cstr(rest) {
            Some((name, [])) => Ok(Target { kind, name }),
            _ => Err(bad),
        },
        _ => Err(bad),
    }
}

/// Writes a frame whose body `body` appends.
pub fn frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes a Query.
pub fn write_query(out: &mut BytesMut, text: &[u8]) {
    frame(out, b'Q', |out| put_cstr(out, text));
}

/// Writes a Parse; `types` as in [`Parse::types`].
pub fn write_parse(out: &mut BytesMut, name: &[u8], text: &[u8], types: &[u8]) {
    frame(out, b'P', |out| {
        put_cstr(out, name);
        put_cstr(out, text);
        out.put_slice(types);
    });
}

/// Writes the head of a Bind whose `rest_len` bytes behind the names follow by other means.
pub fn write_bind_head(out: &mut BytesMut, portal: &[u8], statement: &[u8], rest_len: usize) {
    out.put_u8(b'B');
    out.put_u32((4 + portal.len() + 1 + statement.len() + 1 + rest_len) as u32);
    put_cstr(out, portal);
    put_cstr(out, statement);
}

/// Writes a Describe (`D`) or a Close (`C`).
pub fn write_target(out: &mut BytesMut, tag: u8, kind: u8, name: &[u8]) {
    frame(out, tag, |out| {
        out.put_u8(kind);
        put_cstr(out, name);
    });
}

/// Writes a Sync.
pub fn write_sync(out: &mut BytesMut) {
    out.put_slice(b"S\0\0\0\x04");
}

/// Writes a Terminate.
pub fn write_terminate(out: &mut BytesMut) {
    out.put_slice(b"X\0\0\0\x04");
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut out = BytesMut::new();
        write_parse(&mut out, b"s", b"select $1", &[0, 1, 0, 0, 0, 23]);
        assert_eq!(parse(&out), Ok(Parse { name: b"s", text: b"select $1", types: &[0, 1, 0, 0, 0, 23] }));
        assert!(parse(&out[..out.len() - 1]).is_err());
        out.clear();
        write_bind_head(&mut out, b"p", b"s", 2);
        out.put_slice(&[0, 0]);
        assert_eq!(bind(&out), Ok(Bind { portal: b"p", statement: b"s", rest: &[0, 0] }));
        assert_eq!(super::super::frame::frontend_header(&out).unwrap().unwrap().len, out.len());
        out.clear();
        write_target(&mut out, b'D', b'S', b"s");
        assert_eq!(target(&out), Ok(Target { kind: b'S', name: b"s" }));
        out.clear();
        write_query(&mut out, b"select 1");
        assert_eq!(query(&out), Ok(&b"select 1"[..]));
        assert!(query(b"Q\0\0\0\x06a\0b").is_err());
    }
}
