//! Opening a server connection: socket, TLS, log-in.
//!
//! Invariant: what comes out is logged in and idle, or an error that says which step failed and on which node.
//! Deliberately absent: retries, the pool's accounting.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CancelGuard, Server};
use crate::auth::{ChannelBindingMode, Credentials, ServerLink};
use crate::net::{ClientTls, NetError, ServerAddress, Stream};
use crate::upstream::{Login, LoginError, LoginStep, Notifiers};
use crate::wire::startup::CancelKey;

/// Why a server connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Socket or TLS.
    #[error("cannot connect to node \"{node}\": {source}")]
    Net {
        /// The node's name.
        node: Box<str>,
        /// What failed.
        source: NetError,
    },
    /// The log-in.
    #[error("cannot log in on node \"{node}\": {source}")]
    Login {
        /// The node's name.
        node: Box<str>,
        /// What failed.
        source: LoginError,
    },
    /// The connection broke during log-in.
    #[error("node \"{node}\" closed the connection during log-in: {source}")]
    Io {
        /// The node's name.
        node: Box<str>,
        /// What the system said.
        source: std::io::Error,
    },
    /// All of it took too long.
    #[error("node \"{node}\" did not finish a log-in within {limit:?}")]
    TimedOut {
        /// The node's name.
        node: Box<str>,
        /// The setting `connect_timeout`.
        limit: Duration,
    },
}

impl ConnectError {
    /// The server's own SQLSTATE, if it refused the log-in.
    #[must_use]
    pub fn refused(&self) -> Option<&crate::wire::ErrorFields> {
        match self {
            Self::Login { source: LoginError::Refused(fields), .. } => Some(fields),
            _ => None,
        }
    }

    /// Whether the node is to blame, rather than the account: it did not answer, or not in time.
    #[must_use]
    pub fn blames_node(&self) -> bool {
        match self {
            Self::Net { .. } | Self::Io { .. } | Self::TimedOut { .. } => true,
            // Starting up, shutting down, not accepting: class 57P0x.
            Self::Login { source: LoginError::Refused(fields), .. } => fields.sqlstate.starts_with("57P0"),
            Self::Login { .. } => false,
        }
    }
}

/// All that is needed to open connections for one (node, database, user).
#[derive(Debug, Clone)]
pub struct Connector(Arc<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    node: Box<str>,
    address: ServerAddress,
    tls: ClientTls,
    user: Box<str>,
    database: Box<str>,
    /// Further parameters of the start-up message.
    startup: Box<[(Box<str>, Box<str>)]>,
    credentials: Credentials,
    timeout: Duration,
    prepared_limit: usize,
    notifiers: Option<Arc<Notifiers>>,
}

impl Connector {
    /// `database` is its name on the server; `prepared_limit` bounds the statements prepared on one connection.
    #[expect(clippy::too_many_arguments, reason = "each is one independent fact of a connection")]
    #[must_use]
    pub fn new(
        node: &str,
        address: ServerAddress,
        tls: ClientTls,
        user: &str,
        database: &str,
        credentials: Credentials,
        timeout: Duration,
        prepared_limit: usize,
    ) -> Self {
        Self(Arc::new(Parts {
            node: node.into(),
            address,
            tls,
            user: user.into(),
            database: database.into(),
            startup: [].into(),
            credentials,
            timeout,
            prepared_limit,
            notifiers: None,
        }))
    }

    /// The same; who notifies through its connections is known to `notifiers`.
    #[must_use]
    pub fn with_notifiers(self, notifiers: Arc<Notifiers>) -> Self {
        Self(Arc::new(Parts { notifiers: Some(notifiers), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, with further parameters in the start-up message: for connections that one client has to itself.
    #[must_use]
    pub fn with_startup(self, startup: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let startup = startup.into_iter().collect();
        Self(Arc::new(Parts { startup, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// The database's name on the server.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.0.database
    }

    /// Where it connects to: a host and a port, or a socket's path.
    #[must_use]
    pub fn host_and_port(&self) -> (String, Option<u16>) {
        match &self.0.address {
            ServerAddress::Tcp { host, port } => (host.clone(), Some(*port)),
            ServerAddress::Unix(path) => (path.display().to_string(), None),
        }
    }

    /// The user that it logs in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// Opens a connection, watched by the runtime that this runs on.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, worker: usize, epoch: u64) -> Result<Server, ConnectError> {
        let parts = &self.0;
        let node = || parts.node.clone();
        let open = async {
            let mut stream = crate::net::connect(&parts.address, &parts.tls, parts.timeout)
                .await
                .map_err(|source| ConnectError::Net { node: node(), source })?;
            let upstream = self.log_in(&mut stream).await?;
            Ok(Server::new(stream, upstream, self.clone(), worker, epoch))
        };
        match crate::net::timeout(parts.timeout, open).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { node: node(), limit: parts.timeout }),
        }
    }

    async fn log_in(&self, stream: &mut Stream) -> Result<Box<crate::upstream::Upstream>, ConnectError> {
        let parts = &self.0;
        let broken = |source| ConnectError::Io { node: parts.node.clone(), source };
        let link = ServerLink {
            private: stream.is_private(),
            tls: stream.is_tls(),
            end_point: stream.end_point().map(<[u8]>::to_vec),
            channel_binding: ChannelBindingMode::Prefer,
        };
        let credentials = parts.credentials.clone();
        let mut login =
            Login::start(&parts.user, &parts.database, &parts.startup, credentials, link, parts.prepared_limit);
        loop {
            if !login.output.is_empty() {
                stream.write_all_buf(&mut login.output).await.map_err(broken)?;
                stream.flush().await.map_err(broken)?;
            }
            login.input.reserve(4096);
            if stream.read_buf(&mut login.input).await.map_err(broken)? == 0 {
                return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let step = if login.derives_key_next() {
                let (back, step) = elsewhere(login).await.map_err(broken)?;
                login = back;
                step
            } else {
                login.advance()
            };
            match step {
                Ok(LoginStep::Continue) => {}
                Ok(LoginStep::Done(mut upstream)) => {
                    if let Some(notifiers) = &parts.notifiers {
                        upstream.enroll(notifiers);
                    }
                    return Ok(upstream);
                }
                Err(source) => return Err(ConnectError::Login { node: parts.node.clone(), source }),
            }
        }
    }

    /// Sends a cancel request and waits until the server has closed that connection: the signal was sent by then. `guard` is of the
    /// server that the key is of.
    ///
    /// # Errors
    /// The node cannot be reached in time.
    pub async fn cancel(&self, key: &CancelKey, guard: &CancelGuard) -> Result<(), ConnectError> {
        let parts = &self.0;
        crate::net::cancel(&parts.address, &parts.tls, key, parts.timeout, || guard.sent())
            .await
            .map_err(|source| ConnectError::Net { node: parts.node.clone(), source })?;
        guard.arrived();
        Ok(())
    }
}

/// Lets the log-in go on upon a thread of its own: the sessions of this one need not wait while a key is derived.
async fn elsewhere(mut login: Login) -> std::io::Result<(Login, Result<LoginStep, LoginError>)> {
    let work = tokio::task::spawn_blocking(move || {
        let step = login.advance();
        (login, step)
    });
    // It fails if the runtime shuts down, or by a panic, which this task has no better answer to.
    work.await.map_err(std::io::Error::other)
}
