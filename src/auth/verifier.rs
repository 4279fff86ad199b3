//! What is kept of a user's password: the password, PostgreSQL's SCRAM verifier, or its md5 form.
//!
//! Invariant: a SCRAM verifier that looks like one but cannot be read is an error, never a password.
//! Absent: reading files or the environment; the caller hands the text in.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::scram::{Binding, ScramExchange};
use super::secret::{Credentials, Md5Hash, Secret};

/// Iterations of a verifier made here, and of a mock one: PostgreSQL's `SCRAM_SHA_256_DEFAULT_ITERATIONS`.
pub(super) const DEFAULT_ITERATIONS: u32 = 4096;
/// Bytes of salt: PostgreSQL's `SCRAM_DEFAULT_SALT_LEN`.
const SALT_BYTES: usize = 16;
const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";

/// Why a stored password cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// It begins like a SCRAM verifier and is not one.
    #[error(
        "the password begins with \"SCRAM-SHA-256$\" but is not a verifier: expected \
         SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> as in pg_authid.rolpassword"
    )]
    Scram,
    /// PostgreSQL cannot hold such a password.
    #[error("the password is empty")]
    Empty,
    /// PostgreSQL cannot hold such a password.
    #[error("the password contains a NUL byte")]
    Nul,
}

/// A SCRAM-SHA-256 verifier (RFC 5803, in the form of PostgreSQL's `pg_authid.rolpassword`). It checks a client; it
/// cannot log in on a server.
#[derive(Clone)]
pub struct ScramVerifier {
    pub(super) iterations: u32,
    /// Base64, as it goes over the wire.
    pub(super) salt: String,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

impl ScramVerifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.
    ///
    /// # Errors
    /// [`VerifierError::Scram`] for anything else.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        Self::read(text).ok_or(VerifierError::Scram)
    }

    fn read(text: &str) -> Option<Self> {
        let (cost, keys) = text.strip_prefix(SCRAM_PREFIX)?.split_once('$')?;
        let (iterations, salt) = cost.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations: u32 = iterations.parse().ok().filter(|n| *n > 0)?;
        if STANDARD.decode(salt).ok()?.is_empty() {
            return None;
        }
        Some(Self {
            iterations,
            salt: salt.to_owned(),
            stored_key: STANDARD.decode(stored).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server).ok()?.try_into().ok()?,
        })
    }

    /// Makes a verifier for `password` with a random salt of 16 bytes and 4096 iterations, after SASLprep as PostgreSQL
    /// does it (what is not UTF-8 or is prohibited is taken as it is). Costs a few milliseconds.
    #[must_use]
    pub fn derive(password: &Secret) -> Self {
        let text = postgres_protocol::password::scram_sha_256(password.reveal());
        Self::read(&text).expect("postgres_protocol::password::scram_sha_256 returns PostgreSQL's verifier form")
    }

    /// A verifier that nobody can satisfy, the same each time for a user within a process
    /// (`mock_scram_secret` in `src/backend/libpq/auth-scram.c`).
    pub(super) fn mock(user: &str, secret: &MockSecret) -> Self {
        let mut hash = Sha256::new();
        hash.update(user.as_bytes());
        hash.update(secret.0);
        Self {
            iterations: DEFAULT_ITERATIONS,
            salt: STANDARD.encode(&hash.finalize()[..SALT_BYTES]),
            stored_key: [0; 32],
            server_key: [0; 32],
        }
    }

    /// Whether `password` is the one that the verifier was made of. Costs what a client's log-in costs.
    #[must_use]
    pub fn matches(&self, password: &Secret) -> bool {
        self.run_exchange(password).is_some()
    }

    /// Both roles face to face: that reuses the client's SASLprep and key derivation instead of repeating them.
    fn run_exchange(&self, password: &Secret) -> Option<()> {
        let mut client = ScramSha256::new(password.reveal(), ChannelBinding::unsupported());
        let mut server = ScramExchange::new(self.clone(), false, Binding::NotOffered, "local");
        let challenge = server.first(client.message()).ok()?;
        client.update(challenge.as_bytes()).ok()?;
        server.last(client.message()).ok().map(drop)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier({} iterations, …)", self.iterations)
    }
}

/// A process's own secret behind the salts that unknown users are shown. One per process: with several, the salts would differ
/// from one attempt to the next and give the mock away.
#[derive(Clone)]
pub struct MockSecret([u8; 32]);

impl MockSecret {
    /// A fresh one from the operating system's generator.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// One chosen by the caller, so that tests and several gateways agree.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockSecret(…)")
    }
}

/// What the configuration (or, later, `auth_query`) keeps of a user. Cloning shares.
#[derive(Clone, Debug)]
pub struct StoredPassword(Arc<Form>);

#[derive(Debug)]
pub(super) enum Form {
    /// The verifier is made at the first SCRAM log-in and kept: thousands of users must not delay the start.
    Plain(Secret, OnceLock<ScramVerifier>),
    Scram(ScramVerifier),
    Md5(Md5Hash),
}

impl StoredPassword {
    /// Reads a password in any of PostgreSQL's three forms: `SCRAM-SHA-256$…`, `md5` and 32 digits, or the password itself.
    ///
    /// # Errors
    /// A broken SCRAM verifier, an empty password, one with a NUL byte.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        if text.starts_with(SCRAM_PREFIX) {
            return ScramVerifier::parse(text).map(Self::from);
        }
        match Md5Hash::parse(text) {
            Some(hash) => Ok(Self::from(hash)),
            None => Self::plain(Secret::new(text)),
        }
    }

    /// A plain password, whatever it looks like.
    ///
    /// # Errors
    /// An empty password, or one with a NUL byte.
    pub fn plain(password: Secret) -> Result<Self, VerifierError> {
        if password.reveal().is_empty() {
            return Err(VerifierError::Empty);
        }
        if password.reveal().contains(&0) {
            return Err(VerifierError::Nul);
        }
        Ok(Self(Arc::new(Form::Plain(password, OnceLock::new()))))
    }

    /// What of this can log in on a server: a SCRAM verifier cannot.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        match self.form() {
            Form::Plain(password, _) => Credentials::Password(password.clone()),
            Form::Md5(hash) => Credentials::Md5(hash.clone()),
            Form::Scram(_) => Credentials::None,
        }
    }

    pub(super) fn form(&self) -> &Form {
        &self.0
    }

    /// The verifier for a SCRAM exchange; `None` where only the md5 form is kept.
    pub(super) fn scram(&self) -> Option<&ScramVerifier> {
        match self.form() {
            Form::Plain(password, made) => Some(made.get_or_init(|| ScramVerifier::derive(password))),
            Form::Scram(verifier) => Some(verifier),
            Form::Md5(_) => None,
        }
    }

    /// The md5 form; `None` where only a SCRAM verifier is kept.
    pub(super) fn md5(&self, user: &str) -> Option<Md5Hash> {
        match self.form() {
            Form::Plain(password, _) => Some(Md5Hash::of(password, user)),
            Form::Md5(hash) => Some(hash.clone()),
            Form::Scram(_) => None,
        }
    }

    /// Whether a password given in clear is the one kept (`plain_crypt_verify` in `src/backend/libpq/crypt.c`).
    pub(super) fn matches(&self, given: &Secret, user: &str) -> bool {
        match self.form() {
            Form::Plain(password, _) => password.reveal().ct_eq(given.reveal()).into(),
            Form::Scram(verifier) => verifier.matches(given),
            Form::Md5(hash) => Md5Hash::of(given, user) == *hash,
        }
    }
}

impl From<ScramVerifier> for StoredPassword {
    fn from(verifier: ScramVerifier) -> Self {
        Self(Arc::new(Form::Scram(verifier)))
    }
}

impl From<Md5Hash> for StoredPassword {
    fn from(hash: Md5Hash) -> Self {
        Self(Arc::new(Form::Md5(hash)))
    }
}
