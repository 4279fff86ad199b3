//! Bound values as text, whatever format they travel in, for the types that routing keys have.
//!
//! Invariant: the text is what PostgreSQL's output function would write, so that a key compares equal however a driver
//! sends it; a value that cannot be decoded with certainty is `None`, never a guess.
//!
//! Deliberately absent: numeric, dates and times, arrays, composite types in binary.

use std::borrow::Cow;

use super::query::{Bound, Format, Parameter};

/// Oids of the types that are decoded (PostgreSQL's `pg_type.dat`).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const UUID: u32 = 2950;
}

/// A value as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// NULL.
    Null,
    /// The value as text.
    Text(Cow<'a, str>),
    /// Not held, not UTF-8, of a type that is not decoded, or malformed.
    Unknown,
}

/// A bound value as text.
#[must_use]
pub fn decode<'a>(parameter: &Parameter<'a>) -> Decoded<'a> {
    let bytes = match parameter.value {
        Bound::Null => return Decoded::Null,
        Bound::Streamed => return Decoded::Unknown,
        Bound::Bytes(bytes) => bytes,
    };
    let text = match parameter.format {
        Format::Text => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Format::Binary => binary(parameter.type_oid, bytes),
    };
    text.map_or(Decoded::Unknown, Decoded::Text)
}

fn binary(type_oid: u32, bytes: &[u8]) -> Option<Cow<'_, str>> {
    let owned = match type_oid {
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN => {
            return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
        }
        oid::BOOL => match bytes {
            [0] => return Some(Cow::Borrowed("f")),
            [1] => return Some(Cow::Borrowed("t")),
            _ => return None,
        },
        oid::INT2 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::INT4 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::INT8 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::OID => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        oid::UUID => write_uuid(bytes.try_into().ok()?),
        _ => return None,
    };
    Some(Cow::Owned(owned))
}

/// A uuid as PostgreSQL writes it: lower case, hyphens after 8, 12, 16 and 20 digits.
#[must_use]
pub fn write_uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// A uuid as PostgreSQL reads it (`string_to_uuid`): 32 hexadecimal digits of any case, a hyphen allowed after each
/// group of four, braces allowed around the whole.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = inner.bytes().peekable();
    let mut bytes = [0u8; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let mut digit = || digits.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        *byte = u8::try_from(high << 4 | low).ok()?;
        if index % 2 == 1 && index < 15 && digits.peek() == Some(&b'-') {
            digits.next();
        }
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        let uuid = [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
        let text = |text: &'static str| Decoded::Text(Cow::Borrowed(text));
        for (format, oid, bytes, expected) in [
            (Format::Text, 23, &b"42"[..], text("42")),
            (Format::Text, 0, b"acme", text("acme")),
            (Format::Text, 25, b"\xff", Decoded::Unknown),
            (Format::Binary, 0, b"\0\0\0\x2a", Decoded::Unknown),
            (Format::Binary, 21, b"\xff\xff", text("-1")),
            (Format::Binary, 23, b"\0\0\0\x2a", text("42")),
            (Format::Binary, 23, b"\0\0\x2a", Decoded::Unknown),
            (Format::Binary, 20, b"\x80\0\0\0\0\0\0\0", text("-9223372036854775808")),
            (Format::Binary, 26, b"\xff\xff\xff\xff", text("4294967295")),
            (Format::Binary, 25, b"acme", text("acme")),
            (Format::Binary, 16, b"\x01", text("t")),
            (Format::Binary, 16, b"\x02", Decoded::Unknown),
            (Format::Binary, 2950, &uuid, text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
            (Format::Binary, 1700, b"\0\x01\0\0\0\0\0\0\0\x2a", Decoded::Unknown),
        ] {
            let parameter = Parameter { format, type_oid: oid, value: Bound::Bytes(bytes) };
            assert_eq!(decode(&parameter), expected, "{parameter:?}");
        }
        let parameter = |value| Parameter { format: Format::Text, type_oid: 25, value };
        assert_eq!(decode(&parameter(Bound::Null)), Decoded::Null);
        assert_eq!(decode(&parameter(Bound::Streamed)), Decoded::Unknown);
    }

    /// The spellings are those of PostgreSQL's documentation, chapter 8.12.
    #[test]
    fn uuids() {
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            let bytes = parse_uuid(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(write_uuid(&bytes), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        }
        for text in [
            "",
            "a0",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        ] {
            assert_eq!(parse_uuid(text), None, "{text:?}");
        }
    }
}
