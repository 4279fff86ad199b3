//! The client role towards one server: answers each Authentication message until AuthenticationOk.
//!
//! Invariant: a password goes out in clear only over a link that nobody else can read, and a SCRAM exchange counts only when the server
//! has proved that it knows the password too. Absent: ErrorResponse (the caller sees it first) and time limits.
//!
//! Cost: one SCRAM answer derives a key in 4096 rounds or what the server asks, up to 100,000: milliseconds of CPU. The machine is `Send`.

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use zeroize::Zeroizing;

use super::code;
use super::error::ServerAuthError;
use super::scram::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use super::secret::{Credentials, Secret};

/// Whether SCRAM is tied to the server's certificate (libpq's `channel_binding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBindingMode {
    /// Never.
    Disable,
    /// Where the server offers it and the link is TLS.
    #[default]
    Prefer,
    /// Or no log-in at all.
    Require,
}

/// What the machine must know of the connection.
#[derive(Debug, Clone, Default)]
pub struct ServerLink {
    /// TLS, loopback or a Unix socket: nobody reads along, so a password may go in clear.
    pub private: bool,
    /// The connection is TLS.
    pub tls: bool,
    /// The tls-server-end-point hash of the server's certificate, if TLS and its signature has a defined hash.
    pub end_point: Option<Vec<u8>>,
    /// See there.
    pub channel_binding: ChannelBindingMode,
}

/// What to do next. Whatever stands in `out` is to be sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStep {
    /// Wait for the server's next message.
    Wait,
    /// AuthenticationOk: ParameterStatus, BackendKeyData and ReadyForQuery follow.
    Done,
}

enum State {
    /// Nothing was asked yet.
    Start,
    /// A password or hash went out.
    Answered,
    ScramFirst(Box<sasl::ScramSha256>, bool),
    ScramLast(Box<sasl::ScramSha256>, bool),
    /// The server proved itself; the flag says whether the channel was bound.
    ScramProved(bool),
    Over,
}

/// The machine.
pub struct ServerAuth {
    user: String,
    credentials: Credentials,
    link: ServerLink,
    state: State,
}

impl ServerAuth {
    /// `user` is the one that the start-up packet named to this server.
    #[must_use]
    pub fn new(user: impl Into<String>, credentials: Credentials, link: ServerLink) -> Self {
        Self { user: user.into(), credentials, link, state: State::Start }
    }

    /// Whether the next message brings a SCRAM challenge: to answer it takes milliseconds (see the module's text).
    #[must_use]
    pub fn derives_key_next(&self) -> bool {
        matches!(self.state, State::ScramFirst(..))
    }

    /// Takes the body of one Authentication message ('R'): four bytes of code and what follows; an answer goes to `out`.
    ///
    /// # Errors
    /// [`ServerAuthError`]: close the connection. The machine is over.
    pub fn on_authentication(&mut self, body: &[u8], out: &mut BytesMut) -> Result<ServerStep, ServerAuthError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (code, data) = body.split_first_chunk::<4>().ok_or(ServerAuthError::Protocol("it has no code"))?;
        match (u32::from_be_bytes(*code), state) {
            (code::OK, state) => self.on_ok(&state),
            (code::CLEARTEXT, State::Start) => self.on_cleartext(out),
            (code::MD5, State::Start) => self.on_md5(data, out),
            (code::SASL, State::Start) => self.on_sasl(data, out),
            (code::SASL_CONTINUE, State::ScramFirst(scram, bound)) => self.on_sasl_continue(scram, bound, data, out),
            (code::SASL_FINAL, State::ScramLast(mut scram, bound)) => {
                scram.finish(data).map_err(|error| ServerAuthError::Scram(error.to_string()))?;
                self.state = State::ScramProved(bound);
                Ok(ServerStep::Wait)
            }
            (code::CLEARTEXT | code::MD5 | code::SASL | code::SASL_CONTINUE | code::SASL_FINAL, _) => {
                Err(ServerAuthError::Protocol("it comes out of turn"))
            }
            (other, _) => Err(ServerAuthError::Unsupported(method_name(other))),
        }
    }

    fn on_ok(&self, state: &State) -> Result<ServerStep, ServerAuthError> {
        match state {
            // A server that breaks the exchange off with a yes has proved nothing; libpq before 16 let it pass.
            State::ScramFirst(..) | State::ScramLast(..) => {
                Err(ServerAuthError::Protocol("AuthenticationOk before the end of the SCRAM exchange"))
            }
            State::Over => Err(ServerAuthError::Protocol("it comes out of turn")),
            State::Start | State::Answered | State::ScramProved(false)
                if self.link.channel_binding == ChannelBindingMode::Require =>
            {
                Err(ServerAuthError::ChannelBindingRequired("it let us in without SCRAM-SHA-256-PLUS"))
            }
            State::Start | State::Answered | State::ScramProved(_) => Ok(ServerStep::Done),
        }
    }

    fn on_cleartext(&mut self, out: &mut BytesMut) -> Result<ServerStep, ServerAuthError> {
        self.refuse_if_binding_required("it asks for the password in clear")?;
        let password = self.password("password")?;
        if !self.link.private {
            return Err(ServerAuthError::CleartextRefused { user: self.user.clone() });
        }
        put_password(out, password.reveal());
        self.state = State::Answered;
        Ok(ServerStep::Wait)
    }

    fn on_md5(&mut self, data: &[u8], out: &mut BytesMut) -> Result<ServerStep, ServerAuthError> {
        self.refuse_if_binding_required("it asks for md5")?;
        let salt: [u8; 4] = data.try_into().map_err(|_| ServerAuthError::Protocol("the md5 salt is not 4 bytes"))?;
        let response = match &self.credentials {
            Credentials::Password(password) => Zeroizing::new(md5_hash(self.user.as_bytes(), password.reveal(), salt)),
            Credentials::Md5(hash) => hash.response(salt),
            Credentials::None => return Err(self.no_credentials("md5")),
        };
        put_password(out, response.as_bytes());
        self.state = State::Answered;
        Ok(ServerStep::Wait)
    }

    fn on_sasl(&mut self, data: &[u8], out: &mut BytesMut) -> Result<ServerStep, ServerAuthError> {
        let offered = mechanisms(data)?;
        let plain = offered.contains(&SCRAM_SHA_256.as_bytes());
        let plus = offered.contains(&SCRAM_SHA_256_PLUS.as_bytes());
        if plus && !self.link.tls {
            // Only TLS can be bound to: someone else's offer was forwarded to us.
            return Err(ServerAuthError::Protocol("it offers SCRAM-SHA-256-PLUS without TLS"));
        }
        if !plain && !plus {
            let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
            return Err(ServerAuthError::Mechanisms(names.join(", ")));
        }
        let (binding, bound) = self.choose_binding(plain, plus)?;
        let password = self.password(SCRAM_SHA_256)?;
        let scram = Box::new(sasl::ScramSha256::new(password.reveal(), binding));
        put_initial_response(out, if bound { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 }, scram.message());
        self.state = State::ScramFirst(scram, bound);
        Ok(ServerStep::Wait)
    }

    /// The gs2 flag: 'p' binds; 'y' says "I could, you did not offer", which lets the server notice a stripped offer; 'n' says "I do not".
    fn choose_binding(&self, plain: bool, plus: bool) -> Result<(sasl::ChannelBinding, bool), ServerAuthError> {
        let mode = self.link.channel_binding;
        let hash = self.link.end_point.as_ref().filter(|_| mode != ChannelBindingMode::Disable);
        match hash {
            Some(hash) if plus => Ok((sasl::ChannelBinding::tls_server_end_point(hash.clone()), true)),
            _ if mode == ChannelBindingMode::Require => {
                Err(ServerAuthError::ChannelBindingRequired(if !self.link.tls {
                    "the connection is not encrypted"
                } else if plus {
                    "its certificate's signature algorithm has no hash for tls-server-end-point"
                } else {
                    "it does not offer SCRAM-SHA-256-PLUS"
                }))
            }
            _ if !plain => Err(ServerAuthError::Mechanisms(SCRAM_SHA_256_PLUS.to_owned())),
            Some(_) => Ok((sasl::ChannelBinding::unrequested(), false)),
            None => Ok((sasl::ChannelBinding::unsupported(), false)),
        }
    }

    fn on_sasl_continue(
        &mut self,
        mut scram: Box<sasl::ScramSha256>,
        bound: bool,
        data: &[u8],
        out: &mut BytesMut,
    ) -> Result<ServerStep, ServerAuthError> {
        scram.update(data).map_err(|error| ServerAuthError::Scram(error.to_string()))?;
        put_message(out, &[scram.message()]);
        self.state = State::ScramLast(scram, bound);
        Ok(ServerStep::Wait)
    }

    fn password(&self, method: &'static str) -> Result<Secret, ServerAuthError> {
        match &self.credentials {
            Credentials::Password(password) => Ok(password.clone()),
            Credentials::None | Credentials::Md5(_) => Err(self.no_credentials(method)),
        }
    }

    fn no_credentials(&self, method: &'static str) -> ServerAuthError {
        let have = match &self.credentials {
            Credentials::Md5(_) => "only the md5 form of its password is known",
            _ => "no password is known for it",
        };
        let fix = "configure the user's password in plain form, or let the client send it (no verifier can log in)";
        ServerAuthError::NoCredentials { user: self.user.clone(), method, have, fix }
    }

    fn refuse_if_binding_required(&self, what: &'static str) -> Result<(), ServerAuthError> {
        match self.link.channel_binding {
            ChannelBindingMode::Require => Err(ServerAuthError::ChannelBindingRequired(what)),
            _ => Ok(()),
        }
    }
}

/// The list in AuthenticationSASL: C strings, ended by an empty one.
fn mechanisms(mut data: &[u8]) -> Result<Vec<&[u8]>, ServerAuthError> {
    let mut names = Vec::new();
    loop {
        let end = memchr::memchr(0, data).ok_or(ServerAuthError::Protocol("the mechanism list does not end"))?;
        if end == 0 {
            return Ok(names);
        }
        names.push(&data[..end]);
        data = &data[end + 1..];
    }
}

fn method_name(code: u32) -> String {
    match code {
        code::KERBEROS_V5 => "Kerberos V5".to_owned(),
        code::SCM => "SCM credential".to_owned(),
        code::GSS | code::GSS_CONTINUE => "GSSAPI".to_owned(),
        code::SSPI => "SSPI".to_owned(),
        other => format!("unknown (code {other})"),
    }
}

/// PasswordMessage.
fn put_password(out: &mut BytesMut, text: &[u8]) {
    put_message(out, &[text, &[0]]);
}

/// SASLInitialResponse.
fn put_initial_response(out: &mut BytesMut, mechanism: &str, message: &[u8]) {
    put_message(out, &[mechanism.as_bytes(), &[0], &length(message.len()).to_be_bytes(), message]);
}

fn put_message(out: &mut BytesMut, parts: &[&[u8]]) {
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    out.put_u8(b'p');
    out.put_u32(length(4 + size));
    for part in parts {
        out.put_slice(part);
    }
}

/// Passwords come from a configuration or a client's message and SCRAM messages from a bounded frame: all far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("authentication messages are far below 4 GiB")
}
