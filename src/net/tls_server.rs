//! TLS towards clients: the certificate we present, and whether we want one back.
//!
//! Invariant: a [`ServerTls`] never changes. A reload builds a new one from the files and swaps it in; running connections keep theirs.
//! Sessions are never resumed, as with PostgreSQL.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use super::end_point::end_point;
use super::error::NetError;
use super::stream::Stream;
use super::tls::{self, ServerTlsMode};

/// Where the material lies. PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// Our certificate, then its intermediates.
    pub cert: PathBuf,
    /// Its private key, unencrypted (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// Authorities that clients' certificates must chain to. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// Everything needed to accept TLS. Cloning shares.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
    mode: ServerTlsMode,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerTls({})", self.mode)
    }
}

impl ServerTls {
    /// Reads the files. `None` for mode disable, which reads nothing. With `client_ca`, a client's certificate is verified when it presents one;
    /// mode verify demands one.
    ///
    /// # Errors
    /// [`NetError::File`] and [`NetError::Settings`], which name the setting.
    pub fn load(mode: ServerTlsMode, files: &ServerTlsFiles) -> Result<Option<Self>, NetError> {
        if mode == ServerTlsMode::Disable {
            return Ok(None);
        }
        let certificates = tls::read_certificates("tls.cert", &files.cert)?;
        let key = tls::read_key("tls.key", &files.key)?;
        let end_point = certificates.first().and_then(end_point).map(Arc::from);
        let provider = tls::provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| NetError::Settings(format!("TLS cannot be set up: {error}")))?;
        let builder = match (&files.client_ca, mode) {
            (None, ServerTlsMode::Verify) => {
                return Err(NetError::Settings(
                    "tls.mode = \"verify\" demands clients' certificates; set tls.client_ca to the file of their authority".to_owned(),
                ));
            }
            (None, _) => builder.with_no_client_auth(),
            (Some(path), _) => {
                let (roots, _) = tls::read_authorities("tls.client_ca", path)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match mode {
                    ServerTlsMode::Verify => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                let verifier =
                    verifier.build().map_err(|error| tls::file_error("tls.client_ca", path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| tls::file_error("tls.key", &files.key, key_problem(&error, &files.cert)))?;
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(config)), end_point, mode }))
    }

    /// The mode it was loaded for. Refusing plain clients for require and verify is the gateway's part.
    #[must_use]
    pub fn mode(&self) -> ServerTlsMode {
        self.mode
    }

    /// Answers SSLRequest with 'S' and does the handshake. `buffered` is whatever was read behind SSLRequest: it must be empty, for bytes that came
    /// unencrypted must never be taken for encrypted ones (CVE-2021-23214).
    ///
    /// Not cancel-safe: dropping the future closes the connection. The caller sets the time limit. On a Unix socket answer 'N' instead.
    ///
    /// # Errors
    /// [`NetError::ClientSentPlain`] (the connection is closed, nothing was answered), [`NetError::TlsToClient`], [`NetError::Io`].
    pub async fn accept_after_request(&self, stream: Stream, buffered: &[u8]) -> Result<Stream, NetError> {
        if !buffered.is_empty() {
            return Err(NetError::ClientSentPlain);
        }
        let (mut socket, peer) = stream.into_tcp()?;
        socket.write_all(b"S").await?;
        let tls = self.acceptor.accept(socket).await.map_err(|source| NetError::TlsToClient { source })?;
        Ok(Stream::tls_to_client(tls, peer, self.end_point.clone()))
    }

    /// Takes a connection that begins with a TLS handshake at once (PostgreSQL 17's `sslnegotiation=direct`; its first byte is 0x16).
    /// `already_read` are the bytes taken off the socket to find that out; they are given to the handshake.
    ///
    /// Not cancel-safe: dropping the future closes the connection. The caller sets the time limit.
    ///
    /// # Errors
    /// [`NetError::NoAlpn`] when the client does not name "postgresql" in ALPN, [`NetError::TlsToClient`], [`NetError::Io`].
    pub async fn accept_direct(&self, stream: Stream, already_read: &[u8]) -> Result<Stream, NetError> {
        let (socket, peer) = stream.into_tcp()?;
        let mut given = Ok(());
        let handshake = self.acceptor.accept_with(socket, |connection| given = give(connection, already_read));
        // What was read already is broken: more bytes may never come, so do not wait for them.
        given.map_err(|source| NetError::TlsToClient { source })?;
        let tls = handshake.await.map_err(|source| NetError::TlsToClient { source })?;
        if tls.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
            return Err(NetError::NoAlpn);
        }
        Ok(Stream::tls_to_client(tls, peer, self.end_point.clone()))
    }
}

/// Feeds a fresh connection with bytes that were taken off its socket.
fn give(connection: &mut ServerConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        connection.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    Ok(())
}

fn key_problem(error: &rustls::Error, cert: &std::path::Path) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("is not the key of the certificate in tls.cert = \"{}\"", cert.display())
        }
        other => format!("cannot be used with the certificate in tls.cert = \"{}\": {other}", cert.display()),
    }
}
