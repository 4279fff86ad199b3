//! Logging in on a server: start-up message, authentication, what the server reports, the first ReadyForQuery.
//!
//! Invariant: nothing is lent before ReadyForQuery with status idle was read.
//! Deliberately absent: TLS (the stream is secured before the first byte here), time-outs.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::{Parameters, Settings, Upstream};
use crate::auth::{Credentials, ServerAuth, ServerAuthError, ServerLink};
use crate::wire::frame::{HEADER_LEN, backend_header};
use crate::wire::startup::{self, CancelKey, PROTOCOL_3_0};
use crate::wire::{ErrorFields, Malformed, TransactionStatus, backend};

/// Longest message of a log-in, in bytes (`MAX_ERRLEN` of libpq is 30,000).
const LIMIT: usize = 64 << 10;

/// Why a log-in failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server refused, with its own words.
    #[error("the server refused the log-in: {} ({})", .0.message, .0.sqlstate)]
    Refused(Box<ErrorFields>),
    /// The server asks for something that cannot be given.
    #[error(transparent)]
    Auth(#[from] ServerAuthError),
    /// Bytes that are not the protocol.
    #[error("the server sent a malformed message during log-in: {0}")]
    Malformed(#[from] Malformed),
    /// A message that has no place in a log-in.
    #[error("the server sent message {0:?} during log-in")]
    Unexpected(char),
}

/// What the log-in needs next.
#[derive(Debug)]
pub enum LoginStep {
    /// Send `output`, then read more.
    Continue,
    /// Logged in.
    Done(Box<Upstream>),
}

/// A log-in in progress.
pub struct Login {
    /// Bytes received.
    pub input: BytesMut,
    /// Bytes to send.
    pub output: BytesMut,
    auth: Option<ServerAuth>,
    parameters: Parameters,
    key: CancelKey,
    prepared_limit: usize,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    /// Begins: the start-up message is in `output`, with `more` behind user and database.
    #[must_use]
    pub fn start(
        user: &str,
        database: &str,
        more: &[(Box<str>, Box<str>)],
        credentials: Credentials,
        link: ServerLink,
        prepared_limit: usize,
    ) -> Self {
        let mut output = BytesMut::new();
        let own = [("user", user), ("database", database)];
        let parameters: Vec<_> = own.into_iter().chain(more.iter().map(|(name, value)| (&**name, &**value))).collect();
        startup::write(&mut output, PROTOCOL_3_0, &parameters);
        Self {
            input: BytesMut::new(),
            output,
            auth: Some(ServerAuth::new(user, credentials, link)),
            parameters: Parameters::default(),
            key: CancelKey { pid: 0, secret: [].into() },
            prepared_limit,
        }
    }

    /// Whether [`Self::advance`] will have to derive a key from the password: milliseconds of CPU, better spent where nobody waits.
    #[must_use]
    pub fn derives_key_next(&self) -> bool {
        self.auth.as_ref().is_some_and(ServerAuth::derives_key_next)
    }

    /// Takes what was received.
    ///
    /// # Errors
    /// The log-in failed; the connection must be closed.
    pub fn advance(&mut self) -> Result<LoginStep, LoginError> {
        while let Some(header) = backend_header(&self.input)? {
            if header.len > LIMIT {
                return Err(Malformed::Length { tag: header.tag, length: header.len as i64 }.into());
            }
            if self.input.len() < header.len {
                break;
            }
            let frame = self.input.split_to(header.len);
            let body = &frame[HEADER_LEN..];
            match header.tag {
                b'R' => {
                    let auth = self.auth.as_mut().ok_or(LoginError::Unexpected('R'))?;
                    if auth.on_authentication(body, &mut self.output)? == crate::auth::ServerStep::Done {
                        self.auth = None;
                    }
                }
                b'E' => return Err(LoginError::Refused(Box::new(backend::error_fields(&frame)))),
                b'S' => {
                    let (name, value) = backend::parameter_status(&frame)?;
                    // See `Upstream::parameter`: a gateway is never a standby.
                    let value = if name == b"in_hot_standby" { b"off" } else { value };
                    self.parameters.set(name, value);
                }
                b'K' if body.len() >= 8 => {
                    let mut body = body;
                    self.key = CancelKey { pid: body.get_u32(), secret: body.into() };
                }
                b'N' | b'v' => {}
                b'Z' if self.auth.is_none() && body == [TransactionStatus::Idle.byte()] => {
                    let parameters = Arc::new(std::mem::take(&mut self.parameters));
                    let key = self.key.clone();
                    let settings = Arc::new(Settings::default());
                    let mut upstream = Upstream::new(parameters, key, self.prepared_limit, settings);
                    upstream.input = std::mem::take(&mut self.input);
                    return Ok(LoginStep::Done(Box::new(upstream)));
                }
                other => return Err(LoginError::Unexpected(char::from(other))),
            }
        }
        Ok(LoginStep::Continue)
    }
}
