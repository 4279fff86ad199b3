//! Secrets that the configuration names: they are held, compared and used, and never shown.
//!
//! Invariant: no `Debug`, `Display` or `Serialize` of anything in this file yields a byte of the
//! secret. The only way to the text is [`Secret::expose`], so that a reader of the code can find
//! every use by searching for that word.
//!
//! Deliberately absent: wiping memory on drop. The text also lives in the configuration file's
//! buffer, in the allocator and in the socket buffers of the log-in; a wipe here would promise
//! what it cannot keep.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// What is printed in a secret's place.
pub const HIDDEN: &str = "(secret)";

/// A secret text: a password, a verifier, a token. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text in. It may be empty; the checker refuses empty secrets where they make no sense.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text itself. Never hand it to a log, an error or a dump.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// How the gateway knows a user, told apart by the text's own form as PostgreSQL's
/// `get_password_type` does (src/backend/libpq/crypt.c).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// The password itself: serves every method towards clients and servers.
    Password(Secret),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`: checks a client; logs in on
    /// servers only with the key that the client's proof yields.
    ScramVerifier(Secret),
    /// `md5` and 32 hexadecimal digits: checks a client and logs in on servers by md5 only.
    Md5Hash(Secret),
}

impl Credential {
    /// The text, whatever its kind. Never hand it to a log, an error or a dump.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Password(secret) | Self::ScramVerifier(secret) | Self::Md5Hash(secret) => secret,
        }
    }
}
