//! Messages from a server: reading what a gateway must see, writing what it answers by itself.
//!
//! Invariant: an ErrorResponse written here always carries severity, SQLSTATE and message, and never a secret.
//! Deliberately absent: rows; they pass by their headers.

use bytes::{BufMut, BytesMut};

use super::frame::{HEADER_LEN, Malformed, backend_header, cstr};
use super::frontend::frame;

/// The status byte of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    #[default]
    Idle,
    /// `T`: in a transaction block.
    Active,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Active => b'T',
            Self::Failed => b'E',
        }
    }

    /// Reads the byte of the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Active),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// What an ErrorResponse or NoticeResponse says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// Field `V` (or `S`): ERROR, FATAL, PANIC, WARNING …
    pub severity: String,
    /// Field `C`: five characters.
    pub sqlstate: String,
    /// Field `M`.
    pub message: String,
    /// Field `D`.
    pub detail: Option<String>,
    /// Field `H`.
    pub hint: Option<String>,
    /// Field `R`: the function of the server that said so.
    pub routine: Option<String>,
}

/// Reads the fields of an ErrorResponse or NoticeResponse frame, or of a prefix of one.
#[must_use]
pub fn error_fields(frame: &[u8]) -> ErrorFields {
    let mut fields = ErrorFields::default();
    let mut rest = frame.get(HEADER_LEN..).unwrap_or_default();
    while let Some((&kind, tail)) = rest.split_first()
        && kind != 0
    {
        let (value, tail) = cstr(tail).unwrap_or((tail, &[]));
        let value = String::from_utf8_lossy(value).into_owned();
        match kind {
            b'S' if fields.severity.is_empty() => fields.severity = value,
            b'V' => fields.severity = value,
            b'C' => fields.sqlstate = value,
            b'M' => fields.message = value,
            b'D' => fields.detail = Some(value),
            b'H' => fields.hint = Some(value),
            b'R' => fields.routine = Some(value),
            _ => {}
        }
        rest = tail;
    }
    fields
}

/// Reads a ParameterStatus from its whole frame.
///
/// # Errors
/// Missing strings.
pub fn parameter_status(frame: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let bad = Malformed::Body("ParameterStatus");
    let (name, rest) = cstr(&frame[HEADER_LEN..]).ok_or(bad.clone())?;
    match cstr(rest) {
        Some((value, [])) => Ok((name, value)),
        _ => Err(bad),
    }
}

/// Reads the columns of a DataRow from its whole frame.
///
/// # Errors
/// Counts or lengths that do not fit the frame.
pub fn data_row(frame: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let bad = || Malformed::Body("DataRow");
    let body = &frame[HEADER_LEN..];
    let (count, mut rest) = body.split_at_checked(2).ok_or_else(bad)?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
        let (word, tail) = rest.split_at_checked(4).ok_or_else(bad)?;
        match i32::from_be_bytes([word[0], word[1], word[2], word[3]]) {
            -1 => {
                columns.push(None);
                rest = tail;
            }
            length => {
                let length = usize::try_from(length).map_err(|_| bad())?;
                let (value, tail) = tail.split_at_checked(length).ok_or_else(bad)?;
                columns.push(Some(value));
                rest = tail;
            }
        }
    }
    Ok(columns)
}

/// What a NotificationResponse says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The process that notified.
    pub process: u32,
    /// The channel's name.
    pub channel: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// Reads a NotificationResponse from its whole frame.
///
/// # Errors
/// Missing parts.
pub fn notification(frame: &[u8]) -> Result<Notification<'_>, Malformed> {
    let bad = || Malformed::Body("NotificationResponse");
    let (process, rest) = frame.get(HEADER_LEN..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(bad)?;
    let (channel, rest) = cstr(rest).ok_or_else(bad)?;
    let (payload, _) = cstr(rest).ok_or_else(bad)?;
    Ok(Notification { process: u32::from_be_bytes(*process), channel, payload })
}

/// Writes a NotificationResponse.
pub fn write_notification(out: &mut BytesMut, process: u32, channel: &[u8], payload: &[u8]) {
    frame(out, b'A', |out| {
        out.put_u32(process);
        for text in [channel, payload] {
            out.put_slice(text);
            out.put_u8(0);
        }
    });
}

/// The whole frames at the front of `bytes`, one after the other.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = backend_header(bytes).ok().flatten()?;
        let (frame, rest) = bytes.split_at_checked(header.len)?;
        bytes = rest;
        Some(frame)
    })
}

/// What a client relies on of a RowDescription: for each column its name, NUL, then the object id of its type, its length and
/// its modifier. Left out are the table, whose place another of the same columns may take, and the format. What is not ASCII in a
/// name counts as one character: under another client encoding its bytes are others.
///
/// # Errors
/// Columns that do not fit the frame.
pub fn row_shape(frame: &[u8]) -> Result<Box<[u8]>, Malformed> {
    let bad = || Malformed::Body("RowDescription");
    let (count, mut rest) = frame[HEADER_LEN..].split_at_checked(2).ok_or_else(bad)?;
    let mut shape = Vec::with_capacity(frame.len());
    for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
        let (name, tail) = cstr(rest).ok_or_else(bad)?;
        let (fields, tail) = tail.split_at_checked(18).ok_or_else(bad)?;
        let mut before = 0;
        for &byte in name {
            let byte = byte.min(0x80);
            if byte < 0x80 || before < 0x80 {
                shape.push(byte);
            }
            before = byte;
        }
        shape.push(0);
        shape.extend_from_slice(&fields[6..16]);
        rest = tail;
    }
    Ok(shape.into())
}

/// Writes an ErrorResponse (`E`) or, with the other tag, a NoticeResponse (`N`). `more`: other fields by their type bytes.
pub fn write_error(
    out: &mut BytesMut,
    tag: u8,
    severity: &str,
    sqlstate: &str,
    message: &str,
    more: &[(u8, Option<&str>)],
) {
    let mut fields = vec![(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)];
    fields.extend(more.iter().filter_map(|(kind, value)| Some((*kind, (*value)?))));
    frame(out, tag, |out| {
        for (kind, value) in fields {
            out.put_u8(kind);
            // A NUL inside would end the field early and shift all that follows.
            out.extend(value.bytes().map(|b| if b == 0 { b' ' } else { b }));
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

/// Writes a ReadyForQuery.
pub fn write_ready(out: &mut BytesMut, status: TransactionStatus) {
    out.put_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

/// Writes a CommandComplete.
pub fn write_complete(out: &mut BytesMut, tag: &str) {
    frame(out, b'C', |out| {
        out.put_slice(tag.as_bytes());
        out.put_u8(0);
    });
}

/// Writes a RowDescription of one column in text format that is no table's: its name, the object id of its type, its length.
pub fn write_column(out: &mut BytesMut, name: &str, kind: u32, length: i16) {
    frame(out, b'T', |out| {
        out.put_u16(1);
        out.put_slice(name.as_bytes());
        // The name's end, no table, no column of it.
        out.put_slice(&[0; 7]);
        out.put_u32(kind);
        out.put_i16(length);
        out.put_i32(-1);
        out.put_u16(0);
    });
}

/// Writes a DataRow of one value.
pub fn write_value(out: &mut BytesMut, value: &[u8]) {
    frame(out, b'D', |out| {
        out.put_u16(1);
        out.put_u32(u32::try_from(value.len()).expect("a value of a few bytes"));
        out.put_slice(value);
    });
}

/// Writes a message without a body: `1` `2` `3` `n` `I` `s`.
pub fn write_bare(out: &mut BytesMut, tag: u8) {
    out.put_slice(&[tag, 0, 0, 0, 4]);
}

/// Writes a ParameterStatus.
pub fn write_parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    frame(out, b'S', |out| {
        out.put_slice(name);
        out.put_u8(0);
        out.put_slice(value);
        out.put_u8(0);
    });
}

/// Writes BackendKeyData.
pub fn write_key(out: &mut BytesMut, pid: u32, secret: &[u8]) {
    frame(out, b'K', |out| {
        out.put_u32(pid);
        out.put_slice(secret);
    });
}

/// Writes NegotiateProtocolVersion: the newest minor version spoken and the `_pq_.` options not understood.
pub fn write_negotiate(out: &mut BytesMut, version: u32, options: &[&str]) {
    frame(out, b'v', |out| {
        out.put_u32(version);
        out.put_u32(options.len() as u32);
        for option in options {
            out.put_slice(option.as_bytes());
            out.put_u8(0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_fields_and_cannot_be_broken_by_a_nul() {
        let mut out = BytesMut::new();
        write_error(&mut out, b'E', "ERROR", "42601", "bad\0thing", &[(b'H', Some("do this"))]);
        let fields = error_fields(&out);
        assert_eq!(fields.severity, "ERROR");
        assert_eq!(fields.sqlstate, "42601");
        assert_eq!(fields.message, "bad thing");
        assert_eq!(fields.hint.as_deref(), Some("do this"));
        assert_eq!(backend_header(&out).unwrap().unwrap().len, out.len());
    }

    #[test]
    fn rows_with_lengths_that_do_not_fit_are_refused() {
        assert_eq!(data_row(b"D\0\0\0\x0b\0\x01\0\0\0\x01x").unwrap(), vec![Some(&b"x"[..])]);
        assert_eq!(data_row(b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff").unwrap(), vec![None]);
        assert!(data_row(b"D\0\0\0\x0b\0\x01\0\0\0\x02x").is_err());
        assert!(data_row(b"D\0\0\0\x06\0\x01").is_err());
    }
}
