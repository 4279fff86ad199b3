//! What can go wrong in either role, with the SQLSTATE and the words that a client may see.
//!
//! Invariant: [`ClientAuthError`]'s `Display` is exactly PostgreSQL's message and says nothing of whether the user exists;
//! what only the log may say is in [`RefusedBecause`].

/// Why a client is not let in. `Display` is the message for ErrorResponse, worded as PostgreSQL words it
/// (`src/backend/libpq/auth.c`, `auth-scram.c`); severity is FATAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientAuthError {
    /// The proof or password is wrong, or there is no such user.
    #[error("password authentication failed for user \"{user}\"")]
    Password {
        /// As the client gave it.
        user: String,
        /// For the log only.
        because: RefusedBecause,
    },
    /// A client must not send an empty password.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// A PasswordMessage without its NUL, or with one inside.
    #[error("invalid password packet size")]
    PasswordPacketSize,
    /// A 'p' message longer than [`super::ClientAuth::body_limit`].
    #[error("invalid message length")]
    MessageTooLong,
    /// A 'p' message that was not asked for.
    #[error("unexpected password response")]
    Unexpected,
    /// SASLInitialResponse itself cannot be read.
    #[error("invalid message format")]
    SaslFormat,
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// The SCRAM message does not follow RFC 5802; `0` says where.
    #[error("malformed SCRAM message")]
    Malformed(String),
    /// The nonce of the final message is not the one agreed on.
    #[error("invalid SCRAM response")]
    Nonce,
    /// The client's nonce.
    #[error("non-printable characters in SCRAM nonce")]
    NonceNotPrintable,
    /// The client thinks that we cannot bind, but we offered it: someone took the offer out on the way.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The client saw another certificate than ours.
    #[error("SCRAM channel binding check failed")]
    ChannelBinding,
    /// A binding type other than tls-server-end-point.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    ChannelBindingType(String),
    /// The attribute "c" does not repeat the client's first choice.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    ChannelBindingAttribute,
    /// RFC 5802's authzid.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// RFC 5802's attribute "m".
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
}

/// The reason behind [`ClientAuthError::Password`]. For logs; a client must not learn it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedBecause {
    /// Nothing is known of the user.
    #[error("there is no such user, or no password is configured for it")]
    UnknownUser,
    /// The password or the proof does not match.
    #[error("the password does not match")]
    WrongPassword,
    /// What is stored cannot serve the method: SCRAM with only an md5 form kept.
    #[error("the stored password is in md5 form and cannot serve SCRAM; store a SCRAM verifier or the password")]
    WrongForm,
    /// The server on which the password was tried refused it.
    #[error("the server refused the password")]
    RefusedByServer,
}

impl ClientAuthError {
    /// The SQLSTATE that PostgreSQL gives.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Password { .. } | Self::EmptyPassword => "28P01",
            Self::Downgrade | Self::ChannelBinding => "28000",
            Self::AuthorizationIdentity | Self::Extension => "0A000",
            _ => "08P01",
        }
    }

    /// PostgreSQL's DETAIL, which a client may see.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Malformed(detail) => Some(detail),
            Self::Nonce => Some("Nonce does not match."),
            Self::Downgrade => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding.",
            ),
            _ => None,
        }
    }
}

/// Why the log-in on a server cannot go on. `Display` names the server's demand and what to change; it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerAuthError {
    /// An Authentication message that does not follow the protocol, or one out of turn.
    #[error("the server sent a malformed or unexpected authentication message: {0}")]
    Protocol(&'static str),
    /// The password would be readable on the network.
    #[error(
        "the server asks for the password of user \"{user}\" in clear text over a connection that is not encrypted; \
         use TLS to the server (tls mode require or higher), or have pg_hba.conf ask for scram-sha-256"
    )]
    CleartextRefused {
        /// Who logs in.
        user: String,
    },
    /// There is nothing to answer with.
    #[error("the server asks for {method} authentication of user \"{user}\", and {have}; {fix}")]
    NoCredentials {
        /// Who logs in.
        user: String,
        /// What the server asks for.
        method: &'static str,
        /// What we have instead.
        have: &'static str,
        /// What to change.
        fix: &'static str,
    },
    /// A method that is not implemented.
    #[error(
        "the server asks for {0} authentication, which is not supported; have its pg_hba.conf ask for \
         scram-sha-256, md5, password or trust from this host"
    )]
    Unsupported(String),
    /// SASL without a mechanism that we know.
    #[error(
        "none of the server's SASL authentication mechanisms are supported (it offers: {0}); SCRAM-SHA-256 is needed"
    )]
    Mechanisms(String),
    /// `channel_binding = require` and the server goes on without it.
    #[error("channel binding is required, but the server did not do it: {0}")]
    ChannelBindingRequired(&'static str),
    /// The SCRAM exchange failed; the server may not know the password, or someone stands between.
    #[error("the SCRAM exchange with the server failed: {0}")]
    Scram(String),
}

impl ServerAuthError {
    /// For the client that waits for this connection: 08P01 where the server broke the protocol, else 08001
    /// (`sqlclient_unable_to_establish_sqlconnection`, which postgres_fdw uses too).
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "08P01",
            _ => "08001",
        }
    }
}
