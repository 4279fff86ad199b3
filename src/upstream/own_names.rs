//! Names of ours in what servers say: a client knows its prepared statements by its own names.
//!
//! Invariant: an error is changed only where PostgreSQL names a statement of this client's in it, in its own words.
//! Deliberately absent: messages in other languages than English, which stay as they are.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::StatementId;
use crate::wire::frame::HEADER_LEN;

/// As PostgreSQL begins to name a statement of ours: in "… does not exist", "… already exists", "bind message supplies …",
/// "wrong number of parameters for …".
const NAMED: &[u8] = b"prepared statement \"pm_";

/// The ErrorResponse with the client's name for the statement that it names, if that is one of the client's.
pub(super) fn translated<'a>(
    frame: &[u8],
    sqlstate: [u8; 5],
    name_of: impl FnOnce(StatementId) -> Option<&'a [u8]>,
) -> Option<BytesMut> {
    if !matches!(&sqlstate, b"08P01" | b"26000" | b"42601" | b"42P05") {
        return None;
    }
    let (Range { start, end }, id) = named(frame)?;
    let name = name_of(id)?;
    let mut out = BytesMut::with_capacity(frame.len() + name.len());
    out.put_u8(frame[0]);
    let body = frame.len() - HEADER_LEN - (end - start) + name.len();
    out.put_u32(u32::try_from(body + 4).ok()?);
    out.put_slice(&frame[HEADER_LEN..start]);
    out.put_slice(name);
    out.put_slice(&frame[end..]);
    Some(out)
}

/// The statement that an ErrorResponse says does not exist, if it has a name of ours.
pub(super) fn missing(frame: &[u8], sqlstate: [u8; 5]) -> Option<StatementId> {
    let (Range { end, .. }, id) = named(frame).filter(|_| sqlstate == *b"26000")?;
    frame[end..].starts_with(b"\" does not exist\0").then_some(id)
}

/// Where an ErrorResponse names a statement of ours, and which.
fn named(frame: &[u8]) -> Option<(Range<usize>, StatementId)> {
    let at = frame.windows(NAMED.len()).position(|part| part == NAMED)? + NAMED.len();
    let digits = frame[at..].iter().position(|byte| !byte.is_ascii_digit())?;
    let end = at + digits;
    if frame[end] != b'"' {
        return None;
    }
    let id = std::str::from_utf8(&frame[at..end]).ok()?.parse().ok()?;
    Some((at - b"pm_".len()..end, StatementId::from_number(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::{error_fields, write_error};

    #[test]
    fn only_the_clients_own_statements_are_named_anew() {
        let known = StatementId::from_number(17);
        let check = |sqlstate: &[u8; 5], message: &str, expected: Option<&str>| {
            let mut frame = BytesMut::new();
            let code = std::str::from_utf8(sqlstate).expect("ASCII");
            write_error(&mut frame, b'E', "ERROR", code, message, &[(b'H', Some("do this"))]);
            let out = translated(&frame, *sqlstate, |id| (id == known).then_some(b"mine"));
            assert_eq!(out.as_ref().map(|out| error_fields(out).message).as_deref(), expected, "{message}");
            if let Some(out) = out {
                assert_eq!(error_fields(&out).hint.as_deref(), Some("do this"));
                assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1);
            }
        };
        check(
            b"26000",
            r#"prepared statement "pm_17" does not exist"#,
            Some(r#"prepared statement "mine" does not exist"#),
        );
        let bind = r#"bind message supplies 1 parameters, but prepared statement "pm_17" requires 2"#;
        check(b"08P01", bind, Some(&bind.replace("pm_17", "mine")));
        check(b"26000", r#"prepared statement "pm_18" does not exist"#, None);
        check(b"26000", r#"prepared statement "pm_17x" does not exist"#, None);
        check(b"26000", r#"prepared statement "pm_99999999999999999999999" does not exist"#, None);
        check(b"P0001", r#"prepared statement "pm_17" does not exist"#, None);
        check(b"26000", r#"prepared statement "pm_17"#, None);
    }
}
