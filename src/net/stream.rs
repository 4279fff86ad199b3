//! A connection to a client or a server, whatever it runs over.
//!
//! Invariant: TLS runs over TCP alone (as with PostgreSQL, which answers 'N' on a Unix socket). Reading and writing allocate nothing
//! here; rustls keeps its own buffers. With TLS, a write is on the wire only after a flush, and a flush may have to wait
//! although the write did not: see [`Stream::unflushed`].

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A silent peer is probed after this long; a dead one is known after that and [`KEEPALIVE_RETRIES`] × [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address, IPv4-mapped ones written as IPv4.
    Tcp(SocketAddr),
    /// A client on our Unix socket.
    UnixClient {
        /// Its effective user id when it connected.
        uid: u32,
        /// Its process id, where the system tells.
        pid: Option<i32>,
    },
    /// A server's Unix socket.
    UnixServer(PathBuf),
}

impl Peer {
    /// The IP address, or `None` on a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::UnixClient { .. } | Self::UnixServer(_) => None,
        }
    }

    /// Loopback or a Unix socket: the peer is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

/// `192.0.2.1:5432`, `[local]` as PostgreSQL calls a client on a Unix socket, or the socket's path.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::UnixClient { .. } => f.write_str("[local]"),
            Self::UnixServer(path) => path.display().fmt(f),
        }
    }
}

/// A connection. Reads and writes are those of the transport; dropping it closes it without a TLS goodbye.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    peer: Peer,
    end_point: Option<Arc<[u8]>>,
    unflushed: bool,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsToServer(Box<client::TlsStream<TcpStream>>),
    TlsToClient(Box<server::TlsStream<TcpStream>>),
}

impl Stream {
    /// Takes a connected TCP socket and sets its options.
    ///
    /// # Errors
    /// When the peer is gone already.
    pub fn from_tcp(socket: TcpStream) -> io::Result<Self> {
        let peer = socket.peer_addr()?;
        socket.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        let peer = Peer::Tcp(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        Ok(Self { io: Io::Tcp(socket), peer, end_point: None, unflushed: false })
    }

    /// Takes a client's connection on our Unix socket.
    ///
    /// # Errors
    /// When the system does not tell who is at the other end.
    pub fn from_unix_client(socket: UnixStream) -> io::Result<Self> {
        let credentials = socket.peer_cred()?;
        let peer = Peer::UnixClient { uid: credentials.uid(), pid: credentials.pid() };
        Ok(Self { io: Io::Unix(socket), peer, end_point: None, unflushed: false })
    }

    /// Takes our connection to a server's Unix socket at `path`.
    #[must_use]
    pub fn from_unix_server(socket: UnixStream, path: PathBuf) -> Self {
        Self { io: Io::Unix(socket), peer: Peer::UnixServer(path), end_point: None, unflushed: false }
    }

    pub(super) fn tls_to_client(tls: server::TlsStream<TcpStream>, peer: Peer, end_point: Option<Arc<[u8]>>) -> Self {
        Self { io: Io::TlsToClient(Box::new(tls)), peer, end_point, unflushed: false }
    }

    pub(super) fn tls_to_server(tls: client::TlsStream<TcpStream>, peer: Peer, end_point: Option<Arc<[u8]>>) -> Self {
        Self { io: Io::TlsToServer(Box::new(tls)), peer, end_point, unflushed: false }
    }

    /// The bare TCP socket, to put TLS on.
    pub(super) fn into_tcp(self) -> io::Result<(TcpStream, Peer)> {
        match self.io {
            Io::Tcp(socket) => Ok((socket, self.peer)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS goes over a plain TCP connection only")),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Loopback or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.peer.is_local()
    }

    /// Encrypted with TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.io, Io::TlsToServer(_) | Io::TlsToClient(_))
    }

    /// Nobody else can read along: TLS, loopback or a Unix socket. A password may go in clear.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_tls() || self.is_local()
    }

    /// Reads what has arrived; `WouldBlock` where nothing has, without a system call while the runtime knows of nothing.
    ///
    /// # Errors
    /// `WouldBlock`, or what is wrong with the connection.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        let mut context = Context::from_waker(Waker::noop());
        let polled = match &mut self.io {
            Io::Tcp(io) => return io.try_read(into),
            Io::Unix(io) => return io.try_read(into),
            Io::TlsToServer(io) => Pin::new(io).poll_read(&mut context, &mut buffer),
            Io::TlsToClient(io) => Pin::new(io).poll_read(&mut context, &mut buffer),
        };
        match polled {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether something was written that may not be on the wire: flush again when the socket has room, even if there is
    /// nothing more to write. Only ever with TLS, whose records wait in rustls while the socket is full.
    #[must_use]
    pub fn unflushed(&self) -> bool {
        self.unflushed
    }

    /// The tls-server-end-point hash (RFC 5929): of our own certificate towards a client, of the server's towards a server.
    /// `None` without TLS, or where the certificate's signature algorithm has no hash (Ed25519).
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// The certificate that the peer presented, in DER; of a client only if one was asked for, and then it was verified.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        let certificates = match &self.io {
            Io::Tcp(_) | Io::Unix(_) => None,
            Io::TlsToServer(tls) => tls.get_ref().1.peer_certificates(),
            Io::TlsToClient(tls) => tls.get_ref().1.peer_certificates(),
        };
        certificates.and_then(<[_]>::first)
    }

    /// `TLSv1.3`, `TLSv1.2`, or `None` without TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        let version = match &self.io {
            Io::Tcp(_) | Io::Unix(_) => None,
            Io::TlsToServer(tls) => tls.get_ref().1.protocol_version(),
            Io::TlsToClient(tls) => tls.get_ref().1.protocol_version(),
        };
        version.map(|version| if version == rustls::ProtocolVersion::TLSv1_3 { "TLSv1.3" } else { "TLSv1.2" })
    }
}

/// Runs the same call on whichever transport it is.
macro_rules! on_io {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.as_mut().get_mut().io {
            Io::Tcp($io) => $call,
            Io::Unix($io) => $call,
            Io::TlsToServer($io) => $call,
            Io::TlsToClient($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_io!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed |= self.is_tls();
        on_io!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed |= self.is_tls();
        on_io!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Unix(io) => io.is_write_vectored(),
            Io::TlsToServer(io) => io.is_write_vectored(),
            Io::TlsToClient(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = on_io!(self, io => Pin::new(io).poll_flush(cx));
        if flushed.is_ready() {
            self.unflushed = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
