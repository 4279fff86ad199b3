//! Dialling a server and negotiating TLS with it, up to where the start-up packet goes out.
//!
//! Invariant: TLS is what the mode says or there is no connection; bytes that come with the answer to SSLRequest are refused
//! (CVE-2021-23222). Absent: log-in; GSSAPI encryption; choice among nodes.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::Instant;

use super::error::NetError;
use super::stream::Stream;
use super::timers::{timeout, timeout_at};
use super::tls::TlsMode;
use super::tls_client::ClientTls;

/// Length 8 and the code 80877103 (protocol chapter, "SSLRequest").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A host name or IP address (without brackets) and a port.
    Tcp {
        /// Resolved anew for each connection.
        host: String,
        /// Usually 5432.
        port: u16,
    },
    /// The socket file itself.
    Unix(PathBuf),
}

impl ServerAddress {
    /// A server on TCP.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// The socket that a server with `port` has in `directory`.
    #[must_use]
    pub fn unix(directory: &Path, port: u16) -> Self {
        Self::Unix(directory.join(format!(".s.PGSQL.{port}")))
    }
}

/// `host:port`, `[::1]:port` or the socket's path.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Connects, tries every address of the name in turn, and negotiates TLS by `tls`. On a Unix socket there is no TLS whatever the mode, as
/// with libpq. In mode prefer a failed handshake is followed by a plain connection, as with libpq. `timeout` bounds the whole; each address
/// has its share of what is left, so that one that swallows packets does not eat it all.
///
/// Cancel-safe in the sense that dropping the future closes whatever was open.
///
/// # Errors
/// [`NetError`], which names the address and what to change.
pub async fn connect(address: &ServerAddress, tls: &ClientTls, timeout: Duration) -> Result<Stream, NetError> {
    let dialer = Dialer { address, deadline: Instant::now() + timeout, timeout };
    match address {
        ServerAddress::Unix(path) => dialer.unix(path).await,
        ServerAddress::Tcp { host, port } if !tls.wanted() => dialer.tcp(host, *port).await,
        ServerAddress::Tcp { host, port } => {
            let stream = dialer.tcp(host, *port).await?;
            match dialer.limit("answer to the request for TLS", dialer.negotiate(stream, tls, host)).await {
                Err(NetError::TlsToServer { .. } | NetError::TlsRequestFailed { .. })
                    if tls.mode() == TlsMode::Prefer =>
                {
                    dialer.tcp(host, *port).await
                }
                other => other,
            }
        }
    }
}

/// One call's particulars.
struct Dialer<'a> {
    address: &'a ServerAddress,
    deadline: Instant,
    timeout: Duration,
}

impl Dialer<'_> {
    async fn unix(&self, path: &Path) -> Result<Stream, NetError> {
        let socket =
            self.limit("connection", async { UnixStream::connect(path).await.map_err(|e| self.failed(e)) }).await?;
        Ok(Stream::from_unix_server(socket, path.to_owned()))
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<Stream, NetError> {
        let addresses = self.limit("address", self.resolve(host, port)).await?;
        let mut failure = self.timed_out("connection");
        for (index, address) in addresses.iter().enumerate() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => match Stream::from_tcp(socket) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => self.failed(error),
                },
                Ok(Err(error)) => self.failed(error),
                Err(_) => self.timed_out("connection"),
            };
        }
        Err(failure)
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
        let unknown = |source| NetError::Resolve { host: host.to_owned(), source };
        let found: Vec<_> = lookup_host((host, port)).await.map_err(unknown)?.collect();
        if found.is_empty() {
            return Err(unknown(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        Ok(found)
    }

    /// SSLRequest, its answer, and the handshake.
    async fn negotiate(&self, stream: Stream, tls: &ClientTls, host: &str) -> Result<Stream, NetError> {
        let mut stream = stream;
        stream.write_all(&SSL_REQUEST).await?;
        // One byte is due. Room for more, so that a server that says more is found out.
        let mut answer = [0_u8; 16];
        let length = stream.read(&mut answer).await?;
        let address = || self.address.to_string();
        match &answer[..length] {
            [] => Err(self.failed(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection when asked for TLS",
            ))),
            [b'S'] => tls.handshake(stream, host, &address()).await,
            [b'N'] if tls.mode() == TlsMode::Prefer => Ok(stream),
            [b'N'] => Err(NetError::TlsNotOffered { address: address(), mode: tls.mode() }),
            [b'S' | b'N', ..] => Err(NetError::ServerSentPlain { address: address() }),
            [b'E', ..] => Err(NetError::TlsRequestFailed { address: address() }),
            [other, ..] => {
                Err(NetError::NotPostgres { address: address(), got: format!("'{}'", other.escape_ascii()) })
            }
        }
    }

    async fn limit<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(self.timed_out(what)))
    }

    fn failed(&self, source: io::Error) -> NetError {
        NetError::Connect { address: self.address.to_string(), source }
    }

    fn timed_out(&self, what: &'static str) -> NetError {
        NetError::Timeout { address: self.address.to_string(), what, after: self.timeout }
    }
}
