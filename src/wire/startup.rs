//! The packets before the first frame: start-up, SSL and GSS requests, cancel requests.
//!
//! Invariant: a packet over [`MAX_STARTUP`] is refused before a byte of its body is awaited.
//! Deliberately absent: what to answer.
//!
//! Source: `src/include/libpq/pqcomm.h`, `ProcessStartupPacket` in `src/backend/tcop/backend_startup.c`.

use bytes::{BufMut, BytesMut};

use super::frame::{Malformed, cstr};

/// `MAX_STARTUP_PACKET_LENGTH` of PostgreSQL.
pub const MAX_STARTUP: usize = 10_000;
/// 1234.5679
pub const SSL_REQUEST: u32 = (1234 << 16) | 5679;
/// 1234.5680
pub const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
/// 1234.5678
pub const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
/// 3.0
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// 3.2, of PostgreSQL 18: secret keys of up to 256 bytes.
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;
/// Longest secret key of protocol 3.2, in bytes.
pub const MAX_SECRET: usize = 256;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Asks for TLS; answered with one byte.
    Ssl,
    /// Asks for GSSAPI encryption; answered with one byte.
    GssEnc,
    /// Asks to cancel what the named backend is doing.
    Cancel(CancelKey),
    /// Opens a session.
    Startup(Startup),
}

/// Process id and secret, as BackendKeyData gave them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id (or what stands for it).
    pub pid: u32,
    /// 4 bytes with protocol 3.0, up to [`MAX_SECRET`] with 3.2.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey {{ pid: {}, .. }}", self.pid)
    }
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Major version in the upper, minor in the lower 16 bits.
    pub version: u32,
    /// Name and value, in the order sent; never empty names.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// The last value given for `name`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads one packet. `Ok(None)`: more bytes are needed. The second value is the bytes it takes.
///
/// # Errors
/// A length that PostgreSQL refuses, parameters that are not pairs of strings, an unsupported major version.
pub fn read(bytes: &[u8]) -> Result<Option<(Packet, usize)>, Malformed> {
    let Some(word) = bytes.get(..4) else { return Ok(None) };
    let length = u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize;
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err(Malformed::Length { tag: 0, length: length as i64 });
    }
    let Some(packet) = bytes.get(4..length) else { return Ok(None) };
    let (code, body) = packet.split_at(4);
    let packet = match u32::from_be_bytes([code[0], code[1], code[2], code[3]]) {
        SSL_REQUEST if body.is_empty() => Packet::Ssl,
        GSSENC_REQUEST if body.is_empty() => Packet::GssEnc,
        CANCEL_REQUEST => Packet::Cancel(cancel(body)?),
        version => Packet::Startup(startup(version, body)?),
    };
    Ok(Some((packet, length)))
}

fn cancel(body: &[u8]) -> Result<CancelKey, Malformed> {
    match body {
        [a, b, c, d, secret @ ..] if (1..=MAX_SECRET).contains(&secret.len()) => {
            Ok(CancelKey { pid: u32::from_be_bytes([*a, *b, *c, *d]), secret: secret.into() })
        }
        _ => Err(Malformed::Body("cancel request")),
    }
}

fn startup(version: u32, mut body: &[u8]) -> Result<Startup, Malformed> {
    let mut parameters = Vec::new();
    if version >> 16 != 3 {
        // The body of another major version has another form; the caller refuses by the version.
        return Ok(Startup { version, parameters });
    }
    loop {
        let (name, rest) = cstr(body).ok_or(Malformed::Body("startup"))?;
        if name.is_empty() {
            return if rest.is_empty() { Ok(Startup { version, parameters }) } else { Err(Malformed::Body("startup")) };
        }
        let (value, rest) = cstr(rest).ok_or(Malformed::Body("startup"))?;
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).map_err(|_| Malformed::Body("startup"));
        parameters.push((text(name)?, text(value)?));
        body = rest;
    }
}

/// Writes a StartupMessage.
pub fn write(out: &mut BytesMut, version: u32, parameters: &[(&str, &str)]) {
    let at = out.len();
    out.put_u32(0);
    out.put_u32(version);
    for (name, value) in parameters {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_slice(value.as_bytes());
        out.put_u8(0);
    }
    out.put_u8(0);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes a CancelRequest.
pub fn write_cancel(out: &mut BytesMut, key: &CancelKey) {
    out.put_u32(12 + key.secret.len() as u32);
    out.put_u32(CANCEL_REQUEST);
    out.put_u32(key.pid);
    out.put_slice(&key.secret);
}

/// Writes an SSLRequest.
pub fn write_ssl_request(out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u32(SSL_REQUEST);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = BytesMut::new();
        write(&mut bytes, PROTOCOL_3_0, &[("user", "app"), ("database", "x")]);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let (packet, len) = read(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        let Packet::Startup(startup) = packet else { panic!("{packet:?}") };
        assert_eq!(startup.parameter("user"), Some("app"));
        let key = CancelKey { pid: 7, secret: vec![1; 32].into() };
        bytes.clear();
        write_cancel(&mut bytes, &key);
        assert_eq!(read(&bytes), Ok(Some((Packet::Cancel(key), bytes.len()))));
        bytes.clear();
        write_ssl_request(&mut bytes);
        assert_eq!(read(&bytes), Ok(Some((Packet::Ssl, 8))));
    }

    #[test]
    fn a_gigabyte_of_start_up_is_refused_by_its_length_word() {
        for length in [0_u32, 7, 10_001, 1 << 30, u32::MAX] {
            assert!(read(&length.to_be_bytes()).is_err(), "{length}");
        }
    }

    #[test]
    fn parameters_must_be_pairs() {
        for body in [&b"user\0"[..], b"user\0app", b"user\0app\0", b"user\0app\0\0x", b"\xff\0x\0\0"] {
            let mut bytes = BytesMut::new();
            bytes.put_u32(8 + body.len() as u32);
            bytes.put_u32(PROTOCOL_3_0);
            bytes.put_slice(body);
            assert!(read(&bytes).is_err(), "{body:?}");
        }
    }
}
