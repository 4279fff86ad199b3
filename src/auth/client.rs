//! The server role towards one client: from the first Authentication message to AuthenticationOk.
//!
//! Invariant: [`ClientStep::Accepted`] comes after a proof (or for trust), and with it AuthenticationOk stands in `out`;
//! after an error the machine is over and answers nothing more. No input is looked at beyond [`ClientAuth::body_limit`].
//! Absent: which method applies to whom; ErrorResponse (the caller writes it from the error); time limits.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, BytesMut};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;

use super::code;
use super::error::{ClientAuthError, RefusedBecause};
use super::scram::{Binding, LastError, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramExchange};
use super::secret::{Credentials, Md5Hash, Secret};
use super::verifier::{Form, MockSecret, ScramVerifier, StoredPassword};

/// Longest SASL message: PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`.
const MAX_SASL_BODY: usize = 1024;
/// Longest password message: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`.
const MAX_PASSWORD_BODY: usize = 65535;
/// Bytes of a server nonce before base64: PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
const NONCE_BYTES: usize = 18;

/// How a client is to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMethod {
    /// Not at all. For the caller to allow, e.g. on loopback.
    Trust,
    /// SCRAM-SHA-256, with -PLUS on offer where the connection is TLS.
    ScramSha256,
    /// md5; SCRAM for a user of whom a SCRAM verifier is kept, as PostgreSQL does it.
    Md5,
    /// The password in clear, compared with what is kept.
    Password,
    /// The password in clear, handed to the caller, who tries it on a server and then calls [`ClientAuth::conclude`].
    PasswordOnServer,
}

/// Randomness for one exchange.
#[derive(Clone)]
pub struct Random {
    /// The server's share of the SCRAM nonce: printable ASCII, no comma.
    pub nonce: String,
    /// The md5 salt.
    pub salt: [u8; 4],
}

impl Random {
    /// From the thread's cryptographic generator.
    #[must_use]
    pub fn fresh() -> Self {
        let mut bytes = [0; NONCE_BYTES + 4];
        rand::rng().fill_bytes(&mut bytes);
        let (nonce, salt) = bytes.split_at(NONCE_BYTES);
        Self { nonce: STANDARD.encode(nonce), salt: [salt[0], salt[1], salt[2], salt[3]] }
    }
}

/// What an exchange starts from.
pub struct ClientAuthSetup<'a> {
    /// The method.
    pub method: ClientMethod,
    /// The user as the start-up packet names it.
    pub user: &'a str,
    /// What is kept of the user; `None` for one that is not known.
    pub stored: Option<&'a StoredPassword>,
    /// The tls-server-end-point hash of our own certificate if the client's connection is TLS; PLUS is offered then.
    pub end_point: Option<&'a [u8]>,
    /// The process's secret for mock exchanges.
    pub mock: &'a MockSecret,
    /// Use [`Random::fresh`].
    pub random: Random,
}

/// What to do next. Whatever stands in `out` is to be sent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStep {
    /// Wait for the client's next 'p' message.
    Wait,
    /// The client is who it says; AuthenticationOk is in `out`. With it, what is known that logs the user in on servers.
    Accepted(Credentials),
    /// Try this password on a server, then call [`ClientAuth::conclude`]. Nothing was answered yet.
    TryOnServer(Secret),
}

enum State {
    /// Which mechanism the client picks.
    SaslMechanism,
    /// An empty challenge was sent, because the client's choice came without its first message.
    SaslFirst(Box<ScramExchange>),
    SaslLast(Box<ScramExchange>),
    /// The right answer; `None` where there is none.
    Md5(Option<Md5Hash>),
    Password,
    PasswordOnServer,
    Trying(Secret),
    Over,
}

/// The machine. See [`ClientAuth::start`].
pub struct ClientAuth {
    user: String,
    stored: Option<StoredPassword>,
    end_point: Option<Arc<[u8]>>,
    mock: MockSecret,
    random: Random,
    state: State,
}

impl ClientAuth {
    /// Writes the first Authentication message to `out`. [`ClientStep::Accepted`] at once for trust.
    pub fn start(setup: ClientAuthSetup<'_>, out: &mut BytesMut) -> (Self, ClientStep) {
        let mut this = Self {
            user: setup.user.to_owned(),
            stored: setup.stored.cloned(),
            end_point: setup.end_point.map(Arc::from),
            mock: setup.mock.clone(),
            random: setup.random,
            state: State::Over,
        };
        let scram_kept = matches!(this.stored.as_ref().map(StoredPassword::form), Some(Form::Scram(_)));
        this.state = match setup.method {
            ClientMethod::Trust => {
                let credentials = this.stored.as_ref().map_or(Credentials::None, StoredPassword::credentials);
                return (this, accept(credentials, out));
            }
            ClientMethod::ScramSha256 => this.offer_sasl(out),
            ClientMethod::Md5 if scram_kept => this.offer_sasl(out),
            ClientMethod::Md5 => {
                put_request(out, code::MD5, &this.random.salt);
                State::Md5(this.stored.as_ref().and_then(|stored| stored.md5(&this.user)))
            }
            ClientMethod::Password => {
                put_request(out, code::CLEARTEXT, &[]);
                State::Password
            }
            ClientMethod::PasswordOnServer => {
                put_request(out, code::CLEARTEXT, &[]);
                State::PasswordOnServer
            }
        };
        (this, ClientStep::Wait)
    }

    /// Largest body of the next 'p' message, in bytes. Check the frame's length against it before buffering; a longer one is
    /// [`ClientAuthError::MessageTooLong`].
    #[must_use]
    pub fn body_limit(&self) -> usize {
        match self.state {
            State::Md5(_) | State::Password | State::PasswordOnServer => MAX_PASSWORD_BODY,
            _ => MAX_SASL_BODY,
        }
    }

    /// Takes the body of one 'p' message (PasswordMessage, SASLInitialResponse, SASLResponse).
    ///
    /// # Errors
    /// [`ClientAuthError`]: send it as a FATAL ErrorResponse and close. The machine is over.
    pub fn on_password_message(&mut self, body: &[u8], out: &mut BytesMut) -> Result<ClientStep, ClientAuthError> {
        if body.len() > self.body_limit() {
            self.state = State::Over;
            return Err(ClientAuthError::MessageTooLong);
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::SaslMechanism => self.on_mechanism(body, out),
            State::SaslFirst(exchange) => self.on_sasl_first(exchange, body, out),
            State::SaslLast(exchange) => self.on_sasl_last(exchange, body, out),
            State::Md5(expected) => {
                let given = password_text(body)?;
                let right = expected
                    .as_ref()
                    .is_some_and(|hash| hash.response(self.random.salt).as_bytes().ct_eq(given).into());
                if !right {
                    return Err(self.refusal(RefusedBecause::WrongPassword));
                }
                Ok(accept(self.stored_credentials(), out))
            }
            State::Password => {
                let given = Secret::new(password_text(body)?);
                if !self.stored.as_ref().is_some_and(|stored| stored.matches(&given, &self.user)) {
                    return Err(self.refusal(RefusedBecause::WrongPassword));
                }
                Ok(accept(Credentials::Password(given), out))
            }
            State::PasswordOnServer => {
                let given = Secret::new(password_text(body)?);
                self.state = State::Trying(given.clone());
                Ok(ClientStep::TryOnServer(given))
            }
            State::Trying(_) | State::Over => Err(ClientAuthError::Unexpected),
        }
    }

    /// Ends a [`ClientStep::TryOnServer`]: AuthenticationOk if the server took the password, else the error that the client gets.
    ///
    /// # Errors
    /// [`ClientAuthError::Password`] when it was refused; [`ClientAuthError::Unexpected`] if nothing is being tried.
    pub fn conclude(&mut self, accepted: bool, out: &mut BytesMut) -> Result<ClientStep, ClientAuthError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Trying(password) if accepted => Ok(accept(Credentials::Password(password), out)),
            State::Trying(_) => Err(self.password_error(RefusedBecause::RefusedByServer)),
            _ => Err(ClientAuthError::Unexpected),
        }
    }

    fn offer_sasl(&self, out: &mut BytesMut) -> State {
        let mut mechanisms = Vec::with_capacity(40);
        if self.end_point.is_some() {
            mechanisms.extend_from_slice(SCRAM_SHA_256_PLUS.as_bytes());
            mechanisms.push(0);
        }
        mechanisms.extend_from_slice(SCRAM_SHA_256.as_bytes());
        mechanisms.extend_from_slice(&[0, 0]);
        put_request(out, code::SASL, &mechanisms);
        State::SaslMechanism
    }

    /// SASLInitialResponse: mechanism, NUL, length of the rest or -1, the rest.
    fn on_mechanism(&mut self, body: &[u8], out: &mut BytesMut) -> Result<ClientStep, ClientAuthError> {
        let end = memchr::memchr(0, body).ok_or(ClientAuthError::SaslFormat)?;
        let (mechanism, rest) = (&body[..end], &body[end + 1..]);
        let (length, data) = rest.split_first_chunk::<4>().ok_or(ClientAuthError::SaslFormat)?;
        let binding = match (&self.end_point, mechanism) {
            (Some(hash), m) if m == SCRAM_SHA_256_PLUS.as_bytes() => Binding::Chosen(hash.to_vec()),
            (Some(_), m) if m == SCRAM_SHA_256.as_bytes() => Binding::Declined,
            (None, m) if m == SCRAM_SHA_256.as_bytes() => Binding::NotOffered,
            _ => return Err(ClientAuthError::Mechanism),
        };
        let verifier = self.stored.as_ref().and_then(StoredPassword::scram);
        let doomed = verifier.is_none();
        let verifier = verifier.cloned().unwrap_or_else(|| ScramVerifier::mock(&self.user, &self.mock));
        let exchange = Box::new(ScramExchange::new(verifier, doomed, binding, &self.random.nonce));
        match i32::from_be_bytes(*length) {
            -1 if data.is_empty() => {
                put_request(out, code::SASL_CONTINUE, &[]);
                self.state = State::SaslFirst(exchange);
                Ok(ClientStep::Wait)
            }
            n if usize::try_from(n).is_ok_and(|n| n == data.len()) => self.on_sasl_first(exchange, data, out),
            _ => Err(ClientAuthError::SaslFormat),
        }
    }

    fn on_sasl_first(
        &mut self,
        mut exchange: Box<ScramExchange>,
        message: &[u8],
        out: &mut BytesMut,
    ) -> Result<ClientStep, ClientAuthError> {
        let challenge = exchange.first(message)?;
        put_request(out, code::SASL_CONTINUE, challenge.as_bytes());
        self.state = State::SaslLast(exchange);
        Ok(ClientStep::Wait)
    }

    fn on_sasl_last(
        &mut self,
        mut exchange: Box<ScramExchange>,
        message: &[u8],
        out: &mut BytesMut,
    ) -> Result<ClientStep, ClientAuthError> {
        let proof = exchange.last(message).map_err(|error| match error {
            LastError::Proof => self.refusal(RefusedBecause::WrongForm),
            LastError::Refused(error) => error,
        })?;
        put_request(out, code::SASL_FINAL, proof.as_bytes());
        Ok(accept(self.stored_credentials(), out))
    }

    fn stored_credentials(&self) -> Credentials {
        self.stored.as_ref().map_or(Credentials::None, StoredPassword::credentials)
    }

    /// The refusal after a wrong proof; the reason, for the log, is found here so that the exchange itself need not know.
    /// `with_md5_form` is the reason where only an md5 form is kept.
    fn refusal(&self, with_md5_form: RefusedBecause) -> ClientAuthError {
        self.password_error(match self.stored.as_ref().map(StoredPassword::form) {
            None => RefusedBecause::UnknownUser,
            Some(Form::Md5(_)) => with_md5_form,
            Some(_) => RefusedBecause::WrongPassword,
        })
    }

    fn password_error(&self, because: RefusedBecause) -> ClientAuthError {
        ClientAuthError::Password { user: self.user.clone(), because }
    }
}

/// PasswordMessage: a C string and nothing else (`recv_password_packet` in `src/backend/libpq/auth.c`).
fn password_text(body: &[u8]) -> Result<&[u8], ClientAuthError> {
    match body.split_last() {
        Some((0, [])) => Err(ClientAuthError::EmptyPassword),
        Some((0, text)) if !text.contains(&0) => Ok(text),
        _ => Err(ClientAuthError::PasswordPacketSize),
    }
}

fn accept(credentials: Credentials, out: &mut BytesMut) -> ClientStep {
    put_request(out, code::OK, &[]);
    ClientStep::Accepted(credentials)
}

/// One Authentication message: 'R', length, code, data. `data` is at most a few hundred bytes here.
fn put_request(out: &mut BytesMut, code: u32, data: &[u8]) {
    let length = u32::try_from(8 + data.len()).expect("authentication data is short");
    out.put_u8(b'R');
    out.put_u32(length);
    out.put_u32(code);
    out.put_slice(data);
}
