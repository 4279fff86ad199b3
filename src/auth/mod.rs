//! Authentication in both roles, as machines: message bodies go in, frames and a verdict come out.
//!
//! - [`ClientAuth`] plays PostgreSQL towards clients: trust, SCRAM-SHA-256 (-PLUS), md5, cleartext.
//! - [`ServerAuth`] plays libpq towards servers: it answers whatever the server asks for.
//! - [`Credentials`] is what the first proves and the second uses; [`StoredPassword`] is what the configuration keeps of a user.
//!
//! Invariant: a verdict of "accepted" is only given after a proof (or where the method is trust), and an unknown user meets
//! the same exchange as a known one with a wrong password. Secrets are wiped when dropped and are never printed.
//!
//! Absent on purpose: sockets, clocks, rules (which method for whom is the caller's decision), and the key that a client's
//! SCRAM proof yields (room is left in [`Credentials`]).

mod client;
mod error;
mod scram;
mod secret;
mod server;
mod verifier;

#[cfg(test)]
mod tests;

pub use client::{ClientAuth, ClientAuthSetup, ClientMethod, ClientStep, Random};
pub use error::{ClientAuthError, RefusedBecause, ServerAuthError};
pub use secret::{Credentials, Md5Hash, Secret};
pub use server::{ChannelBindingMode, ServerAuth, ServerLink, ServerStep};
pub use verifier::{MockSecret, ScramVerifier, StoredPassword, VerifierError};

/// Codes of the Authentication messages (protocol chapter, "Message Formats"; `src/include/libpq/protocol.h`).
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const KERBEROS_V5: u32 = 2;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SCM: u32 = 6;
    pub(super) const GSS: u32 = 7;
    pub(super) const GSS_CONTINUE: u32 = 8;
    pub(super) const SSPI: u32 = 9;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}
