//! Values that must not be seen: passwords and what stands in for them.
//!
//! Invariant: `Debug` prints no part of a secret, there is no `Display`, comparison takes constant time, and the memory is
//! wiped when the last holder drops it.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A password: bytes without a NUL (PostgreSQL does not require UTF-8). Cloning shares the one copy in memory.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes the bytes over; nothing is copied.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes themselves. Do not log them.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.reveal().ct_eq(other.reveal()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// PostgreSQL's md5 form of a password: `md5(password || user name)` as 32 lower-case hexadecimal digits, without the
/// leading "md5". It is as good as the password wherever a server asks for md5.
#[derive(Clone)]
pub struct Md5Hash(Arc<Zeroizing<[u8; 32]>>);

impl Md5Hash {
    /// Computes the form of `password` for `user`.
    #[must_use]
    pub fn of(password: &Secret, user: &str) -> Self {
        let text = Zeroizing::new(postgres_protocol::password::md5(password.reveal(), user));
        Self::parse(&text).expect("postgres_protocol::password::md5 returns \"md5\" and 32 lower-case digits")
    }

    /// Reads `md5` and 32 hexadecimal digits, as `pg_authid.rolpassword` has them. `None` for anything else
    /// (`get_password_type` in `src/backend/libpq/crypt.c` has the same rule).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        let lower = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(lower).then(|| Self(Arc::new(Zeroizing::new(*digits))))
    }

    /// What a client answers to AuthenticationMD5Password with this salt: `md5` and 32 digits.
    #[must_use]
    pub fn response(&self, salt: [u8; 4]) -> Zeroizing<String> {
        let mut salted = Zeroizing::new([0_u8; 36]);
        salted[..32].copy_from_slice(self.0.as_slice());
        salted[32..].copy_from_slice(&salt);
        // md5(bytes || "") with the prefix "md5": exactly the outer hash of the protocol.
        Zeroizing::new(postgres_protocol::password::md5(salted.as_slice(), ""))
    }
}

impl PartialEq for Md5Hash {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Md5Hash {}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(…)")
    }
}

/// What logs a user in on a server.
///
/// A later variant holds the `ClientKey` that a SCRAM proof yields (DESIGN 4.14); match with that in mind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: only a server that trusts us lets us in.
    #[default]
    None,
    /// The password: serves every method.
    Password(Secret),
    /// The md5 form: serves md5 alone.
    Md5(Md5Hash),
}
