//! Addresses as the configuration writes them: TCP host and port, or a Unix socket's directory.
//!
//! Invariant: an address that exists is well formed; names are resolved by whoever connects, each
//! time anew, because DNS is how nodes move. Deliberately absent: DNS, sockets, default ports
//! (the caller says which one it means).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Where to listen or connect. Displays as it is written in the configuration.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Address {
    /// TCP. `host` is a name or an IP address without brackets; port 0 only where one listens.
    Tcp {
        /// Host name, IPv4 or IPv6 address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket as libpq names them: the file is `DIRECTORY/.s.PGSQL.PORT`.
    Unix {
        /// The directory; relative paths were resolved against the configuration file's.
        directory: PathBuf,
        /// The port that names the file.
        port: u16,
    },
}

impl Address {
    /// Reads `host:port`, `host`, `[v6]:port`, `/directory`, `/directory:port` or
    /// `/directory/.s.PGSQL.port`.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that begins with the text.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.starts_with(['/', '.']) {
            return parse_unix(text, default_port);
        }
        let (host, port) = split_host(text)?;
        if host.is_empty() {
            return Err("has no host before the port".to_owned());
        }
        if let Some(odd) = host.chars().find(|c| c.is_whitespace() || matches!(c, '/' | '@' | '?' | ',')) {
            return Err(format!("has {odd:?} in the host"));
        }
        let port = match port {
            Some(port) => parse_port(port)?,
            None => default_port,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }

    /// The socket file of a Unix address.
    #[must_use]
    pub fn socket_file(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }

    /// The socket address, if the host is an IP address and needs no name service.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { host, port } => host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port)),
            Self::Unix { .. } => None,
        }
    }

    /// Whether only processes of this host can reach it: a Unix socket, a loopback address or
    /// the name `localhost`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            Self::Unix { .. } => true,
        }
    }

    /// The same address with a relative Unix directory taken from `base`.
    pub(super) fn resolved(self, base: &Path) -> Self {
        match self {
            Self::Unix { directory, port } => Self::Unix { directory: base.join(directory), port },
            tcp @ Self::Tcp { .. } => tcp,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn parse_unix(text: &str, default_port: u16) -> Result<Address, String> {
    if let Some((directory, port)) = text.rsplit_once("/.s.PGSQL.") {
        return Ok(Address::Unix { directory: PathBuf::from(directory), port: parse_port(port)? });
    }
    match text.rsplit_once(':') {
        Some((directory, port)) => Ok(Address::Unix { directory: PathBuf::from(directory), port: parse_port(port)? }),
        None => Ok(Address::Unix { directory: PathBuf::from(text), port: default_port }),
    }
}

/// Splits the host from the port; an IPv6 address without brackets is a host alone.
fn split_host(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("has no closing bracket")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("has no IPv6 address between its brackets".to_owned());
        }
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err("has something other than a port after the bracket".to_owned()),
        };
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err("has more than one colon; write an IPv6 address in brackets".to_owned())
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("has {text:?} for a port; a port is a number from 0 to 65535"))
}
