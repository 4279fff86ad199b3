//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 5929), as
//! `src/backend/libpq/auth-scram.c` does it: one exchange, two messages in, two out.
//!
//! Invariant: [`ScramExchange::last`] succeeds only if the client proved the verifier's key over exactly the messages
//! exchanged, with the agreed nonce and, for PLUS, our own certificate; a doomed exchange (mock verifier) runs the same course and fails.
//! Absent: framing, the choice of a mechanism, and the ClientKey that the proof yields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::error::ClientAuthError;
use super::verifier::ScramVerifier;

pub(super) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
pub(super) const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
const TLS_SERVER_END_POINT: &[u8] = b"tls-server-end-point";

/// Whether and how the channel is bound, as far as the mechanism that the client chose says.
#[derive(Debug, Clone)]
pub(super) enum Binding {
    /// SCRAM-SHA-256, and PLUS was not on offer.
    NotOffered,
    /// SCRAM-SHA-256 although PLUS was on offer.
    Declined,
    /// SCRAM-SHA-256-PLUS with this tls-server-end-point hash of our certificate.
    Chosen(Vec<u8>),
}

/// Why the last message did not convince.
#[derive(Debug)]
pub(super) enum LastError {
    /// Well-formed, and the proof is wrong (or the exchange was doomed).
    Proof,
    /// Anything else.
    Refused(ClientAuthError),
}

impl From<ClientAuthError> for LastError {
    fn from(error: ClientAuthError) -> Self {
        Self::Refused(error)
    }
}

/// One exchange. Call [`first`](Self::first), then [`last`](Self::last).
pub(super) struct ScramExchange {
    verifier: ScramVerifier,
    doomed: bool,
    binding: Binding,
    server_nonce: String,
    /// The gs2 header, e.g. `n,,`, which attribute "c" must repeat.
    gs2_header: Vec<u8>,
    /// Client and server nonce together.
    nonce: Vec<u8>,
    /// client-first-message-bare "," server-first-message ",".
    auth_message: Vec<u8>,
}

impl ScramExchange {
    /// `server_nonce` is printable ASCII without a comma; `doomed` makes the proof fail whatever it is.
    pub(super) fn new(verifier: ScramVerifier, doomed: bool, binding: Binding, server_nonce: &str) -> Self {
        Self {
            verifier,
            doomed,
            binding,
            server_nonce: server_nonce.to_owned(),
            gs2_header: Vec::new(),
            nonce: Vec::new(),
            auth_message: Vec::new(),
        }
    }

    /// client-first-message in, server-first-message out.
    pub(super) fn first(&mut self, message: &[u8]) -> Result<String, ClientAuthError> {
        check_whole(message)?;
        let mut p = Cursor { rest: message };
        self.channel_flag(&mut p)?;
        match p.peek() {
            Some(b'a') => return Err(ClientAuthError::AuthorizationIdentity),
            Some(b',') => p.skip(),
            other => {
                return Err(malformed(format!(
                    "Unexpected attribute \"{}\" in client-first-message.",
                    sanitize_char(other)
                )));
            }
        }
        let bare = p.rest;
        self.gs2_header = message[..message.len() - bare.len()].to_vec();
        if p.peek() == Some(b'm') {
            return Err(ClientAuthError::Extension);
        }
        // The start-up packet names the user; PostgreSQL ignores this one too.
        p.attribute(b'n')?;
        let client_nonce = p.attribute(b'r')?;
        if client_nonce.is_empty() || !client_nonce.iter().all(|b| (0x21..=0x7e).contains(b)) {
            return Err(ClientAuthError::NonceNotPrintable);
        }
        while !p.rest.is_empty() {
            p.any_attribute()?;
        }

        self.nonce = [client_nonce, self.server_nonce.as_bytes()].concat();
        let answer = format!(
            "r={},s={},i={}",
            String::from_utf8_lossy(&self.nonce),
            self.verifier.salt,
            self.verifier.iterations
        );
        self.auth_message = [bare, b",", answer.as_bytes(), b","].concat();
        Ok(answer)
    }

    /// The gs2-cbind-flag, up to and with its comma.
    fn channel_flag(&self, p: &mut Cursor<'_>) -> Result<(), ClientAuthError> {
        let flag = p.peek();
        match (flag, &self.binding) {
            (Some(b'n' | b'y'), Binding::Chosen(_)) => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
                ));
            }
            (Some(b'y'), Binding::Declined) => return Err(ClientAuthError::Downgrade),
            (Some(b'n' | b'y'), _) => {
                p.skip();
                match p.peek() {
                    Some(b',') => p.skip(),
                    other => {
                        return Err(malformed(format!(
                            "Comma expected, but found character \"{}\".",
                            sanitize_char(other)
                        )));
                    }
                }
            }
            (Some(b'p'), Binding::Chosen(_)) => {
                let kind = p.attribute(b'p')?;
                if kind != TLS_SERVER_END_POINT {
                    return Err(ClientAuthError::ChannelBindingType(sanitize_text(kind)));
                }
            }
            (Some(b'p'), _) => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
                ));
            }
            (other, _) => {
                return Err(malformed(format!("Unexpected channel-binding flag \"{}\".", sanitize_char(other))));
            }
        }
        Ok(())
    }

    /// client-final-message in, server-final-message (our own proof) out.
    pub(super) fn last(&mut self, message: &[u8]) -> Result<String, LastError> {
        check_whole(message)?;
        let mut p = Cursor { rest: message };
        let channel = p.attribute(b'c')?;
        self.check_channel(channel)?;
        let nonce = p.attribute(b'r')?;
        // Extensions may stand before the proof; the proof comes last.
        let (before_proof, proof) = loop {
            let before = p.rest;
            let (name, value) = p.any_attribute()?;
            if name == b'p' {
                // Without the comma that separates the proof.
                break (&message[..message.len() - before.len() - 1], value);
            }
        };
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| malformed("Malformed proof in client-final-message."))?;
        if !p.rest.is_empty() {
            return Err(malformed("Garbage found at the end of client-final-message.").into());
        }
        if nonce != self.nonce {
            return Err(ClientAuthError::Nonce.into());
        }

        self.auth_message.extend_from_slice(before_proof);
        let mut client_key = hmac(&self.verifier.stored_key, &self.auth_message);
        for (key, proof) in client_key.iter_mut().zip(proof) {
            *key ^= proof;
        }
        let proved: bool = Sha256::digest(client_key).ct_eq(&self.verifier.stored_key).into();
        if !proved || self.doomed {
            return Err(LastError::Proof);
        }
        let signature = hmac(&self.verifier.server_key, &self.auth_message);
        Ok(format!("v={}", STANDARD.encode(signature)))
    }

    /// Attribute "c": the gs2 header again, and with PLUS the certificate's hash that the client saw.
    fn check_channel(&self, attribute: &[u8]) -> Result<(), ClientAuthError> {
        let (data, mismatch): (&[u8], _) = match &self.binding {
            Binding::Chosen(hash) => (hash, ClientAuthError::ChannelBinding),
            Binding::Declined | Binding::NotOffered => (&[], ClientAuthError::ChannelBindingAttribute),
        };
        let expected = STANDARD.encode([&self.gs2_header, data].concat());
        if expected.as_bytes().ct_eq(attribute).into() { Ok(()) } else { Err(mismatch) }
    }
}

fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn malformed(detail: impl Into<String>) -> ClientAuthError {
    ClientAuthError::Malformed(detail.into())
}

fn check_whole(message: &[u8]) -> Result<(), ClientAuthError> {
    if message.is_empty() {
        return Err(malformed("The message is empty."));
    }
    if message.contains(&0) {
        return Err(malformed("Message length does not match input length."));
    }
    Ok(())
}

/// What is left of a message: comma-separated `name=value`.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// The value of attribute `name`, which must be next; eats the comma behind it.
    fn attribute(&mut self, name: u8) -> Result<&'a [u8], ClientAuthError> {
        if self.peek() != Some(name) {
            return Err(malformed(format!(
                "Expected attribute \"{}\" but found \"{}\".",
                char::from(name),
                sanitize_char(self.peek())
            )));
        }
        self.skip();
        self.value(name)
    }

    /// The next attribute, whatever its name.
    fn any_attribute(&mut self) -> Result<(u8, &'a [u8]), ClientAuthError> {
        let name = match self.peek() {
            None => return Err(malformed("Attribute expected, but found end of string.")),
            Some(c) if c.is_ascii_alphabetic() => c,
            other => {
                return Err(malformed(format!(
                    "Attribute expected, but found invalid character \"{}\".",
                    sanitize_char(other)
                )));
            }
        };
        self.skip();
        Ok((name, self.value(name)?))
    }

    fn value(&mut self, name: u8) -> Result<&'a [u8], ClientAuthError> {
        if self.peek() != Some(b'=') {
            return Err(malformed(format!("Expected character \"=\" for attribute \"{}\".", char::from(name))));
        }
        self.skip();
        let end = memchr::memchr(b',', self.rest).unwrap_or(self.rest.len());
        let value = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Ok(value)
    }
}

/// A byte as PostgreSQL shows it in these messages (`sanitize_char`); the end of the text is NUL there.
fn sanitize_char(byte: Option<u8>) -> String {
    match byte.unwrap_or(0) {
        c @ 0x21..=0x7e => char::from(c).to_string(),
        c => format!("0x{c:02x}"),
    }
}

/// The first 30 bytes, what is not printable as "?" (`sanitize_str`).
fn sanitize_text(bytes: &[u8]) -> String {
    bytes.iter().take(30).map(|b| if (0x21..=0x7e).contains(b) { char::from(*b) } else { '?' }).collect()
}
