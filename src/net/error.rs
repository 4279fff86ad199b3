//! What can go wrong on a socket. Each message names the address or file, the setting, and what to change.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::TlsMode;

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A certificate, key or CA file.
    #[error("{setting} = \"{}\": {problem}", path.display())]
    File {
        /// The setting that names the file, e.g. `tls.cert`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Settings(String),
    /// A listening address that is busy, forbidden or not ours.
    #[error("cannot listen on {address}: {source}{hint}")]
    Bind {
        /// As configured.
        address: String,
        /// The system's reason.
        source: io::Error,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// A Unix socket whose lock file or listener belongs to a living process.
    #[error("cannot listen on {}: {holder}; stop it, or choose another directory or port", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The host name has no address.
    #[error("cannot find the address of \"{host}\": {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// No address of the server took the connection; the reason is the last one's.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As configured.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("no {what} from {address} within {after:?}")]
    Timeout {
        /// As configured.
        address: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The server answered SSLRequest with 'N'.
    #[error(
        "the server at {address} does not do TLS, and tls mode \"{mode}\" demands it; set ssl = on in its postgresql.conf, \
         or mode = \"prefer\" if an unencrypted connection will do"
    )]
    TlsNotOffered {
        /// As configured.
        address: String,
        /// As configured.
        mode: TlsMode,
    },
    /// The server answered SSLRequest with an error. Its text is not shown: nothing vouches for it yet (CVE-2024-10977).
    #[error("the server at {address} answered the request for TLS with an error; its log says which")]
    TlsRequestFailed {
        /// As configured.
        address: String,
    },
    /// The server sent something before the TLS handshake (CVE-2021-23222).
    #[error(
        "the server at {address} sent unencrypted data after its answer to SSLRequest; it is broken, or someone stands in between"
    )]
    ServerSentPlain {
        /// As configured.
        address: String,
    },
    /// Something that is not PostgreSQL.
    #[error("{address} does not answer like a PostgreSQL server: got {got} where 'S' or 'N' was expected")]
    NotPostgres {
        /// As configured.
        address: String,
        /// The answer.
        got: String,
    },
    /// The handshake with a server.
    #[error("TLS handshake with {address} failed: {source}{hint}")]
    TlsToServer {
        /// As configured.
        address: String,
        /// rustls' reason.
        source: io::Error,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// The handshake with a client.
    #[error("could not accept SSL connection: {source}")]
    TlsToClient {
        /// rustls' reason.
        source: io::Error,
    },
    /// The client sent something between SSLRequest and the handshake (CVE-2021-23214). Worded as PostgreSQL words it.
    #[error("received unencrypted data after SSL request")]
    ClientSentPlain,
    /// Direct TLS without ALPN "postgresql". Worded as PostgreSQL words it.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// Anything else on the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl NetError {
    /// The SQLSTATE for a client that hears of this: 08P01 where the other side broke the protocol, 08001 where a server
    /// could not be reached, F0000 (`config_file_error`) for settings, 08006 else.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::ServerSentPlain { .. } | Self::NotPostgres { .. } | Self::ClientSentPlain | Self::NoAlpn => "08P01",
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::TlsNotOffered { .. }
            | Self::TlsRequestFailed { .. }
            | Self::TlsToServer { .. } => "08001",
            Self::File { .. } | Self::Settings(_) | Self::Bind { .. } | Self::SocketInUse { .. } => "F0000",
            Self::TlsToClient { .. } | Self::Io(_) => "08006",
        }
    }
}
