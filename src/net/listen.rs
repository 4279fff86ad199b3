//! Listening on TCP addresses and Unix sockets.
//!
//! Invariant: an accepted socket belongs to no runtime until [`Accepted::into_stream`], so that any worker can take it.
//! Absent: limits on the number of clients, TLS, PROXY protocol.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener, lookup_host};

use super::error::NetError;
use super::stream::Stream;
use super::unix_lock::{self, SocketFiles};

/// The system cuts it to its own limit (`net.core.somaxconn`), so this means "as many as allowed".
const BACKLOG: i32 = i32::MAX;

/// Where to listen, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A host name, an IP address, or `*` for every address of both families.
    Tcp {
        /// Without brackets.
        host: String,
        /// 0 lets the system choose.
        port: u16,
    },
    /// The directory of the socket `.s.PGSQL.PORT`.
    Unix {
        /// It must exist.
        directory: PathBuf,
    },
}

/// `host:port`, `[::1]:port`, `*:port`, or a directory (anything with a slash).
impl FromStr for ListenAddress {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        if text.contains('/') {
            return Ok(Self::Unix { directory: PathBuf::from(text) });
        }
        let wrong = || {
            NetError::Settings(format!(
                "\"{text}\" is not a place to listen on; expected host:port, [ipv6]:port, *:port or a directory like /run/pointsman"
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Tcp { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory } => directory.display().fmt(f),
        }
    }
}

/// What goes for all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// The port in a Unix socket's name.
    pub unix_port: u16,
    /// A Unix socket's permission bits; PostgreSQL's `unix_socket_permissions` is 0777 by default.
    pub unix_mode: u32,
    /// SO_REUSEPORT: several listeners, or processes, share a TCP port and the system spreads the clients.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { unix_port: 6432, unix_mode: 0o777, reuse_port: false }
    }
}

/// Binds every address. A name may stand for several sockets (`localhost` is two). All or nothing: on an error what was bound is closed again.
/// Must be called on a runtime; its listeners belong to that runtime.
///
/// # Errors
/// [`NetError::Bind`], [`NetError::Resolve`], [`NetError::SocketInUse`], [`NetError::Settings`].
pub async fn bind(addresses: &[ListenAddress], options: ListenOptions) -> Result<Vec<Listener>, NetError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        match address {
            ListenAddress::Unix { directory } => {
                let (socket, files) = unix_lock::bind(directory, options.unix_port, options.unix_mode, BACKLOG)?;
                listeners.push(Listener { inner: Inner::Unix(UnixListener::from_std(socket)?, files) });
            }
            ListenAddress::Tcp { host, port } => {
                for resolved in resolve(host, *port).await? {
                    let socket = bind_tcp(resolved, options).map_err(|source| bind_error(address, source))?;
                    let local = socket.local_addr()?;
                    listeners.push(Listener { inner: Inner::Tcp(TcpListener::from_std(socket)?, local) });
                }
            }
        }
    }
    Ok(listeners)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    if host == "*" {
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        // A machine without IPv6 has no IPv6 socket to offer.
        let usable = all.into_iter().filter(|ip| ip.is_ipv4() || Socket::new(Domain::IPV6, Type::STREAM, None).is_ok());
        return Ok(usable.map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found =
        lookup_host((host, port)).await.map_err(|source| NetError::Resolve { host: host.to_owned(), source })?;
    // /etc/hosts may name an address twice.
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn bind_tcp(address: SocketAddr, options: ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Or 0.0.0.0 and [::] with one port would be in each other's way.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_error(address: &ListenAddress, source: io::Error) -> NetError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => "; another process has the port: stop it or choose another",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
        _ => "",
    };
    NetError::Bind { address: address.to_string(), source, hint }
}

/// One listening socket. Dropping it closes it, and removes a Unix socket's files.
#[derive(Debug)]
pub struct Listener {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFiles),
}

impl Listener {
    /// The address with the port that the system chose; `None` for a Unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Tcp(_, address) => Some(*address),
            Inner::Unix(..) => None,
        }
    }

    /// The socket file; `None` for TCP.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.inner {
            Inner::Tcp(..) => None,
            Inner::Unix(_, files) => Some(files.socket()),
        }
    }

    /// The next client. Clients that vanished while they waited are skipped. Cancel-safe.
    ///
    /// # Errors
    /// Those of a system that is out of files or memory: log it, wait a little (100 ms), call again.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            // Out of this runtime again: two cheap system calls per client, so that any worker's runtime can take it.
            let accepted = match &self.inner {
                Inner::Tcp(listener, _) => {
                    listener.accept().await.and_then(|(socket, _)| socket.into_std()).map(Raw::Tcp)
                }
                Inner::Unix(listener, _) => {
                    listener.accept().await.and_then(|(socket, _)| socket.into_std()).map(Raw::Unix)
                }
            };
            match accepted {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
                    ) => {}
                other => return other.map(Accepted),
            }
        }
    }
}

/// `127.0.0.1:6432` or the socket file.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Tcp(_, address) => address.fmt(f),
            Inner::Unix(_, files) => files.socket().display().fmt(f),
        }
    }
}

/// A client's socket on its way to a worker. It is `Send` and belongs to no runtime.
#[derive(Debug)]
pub struct Accepted(Raw);

#[derive(Debug)]
enum Raw {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Registers the socket with the current runtime and sets its options.
    ///
    /// # Errors
    /// When the client is gone already.
    pub fn into_stream(self) -> io::Result<Stream> {
        match self.0 {
            Raw::Tcp(socket) => Stream::from_tcp(tokio::net::TcpStream::from_std(socket)?),
            Raw::Unix(socket) => Stream::from_unix_client(tokio::net::UnixStream::from_std(socket)?),
        }
    }
}
