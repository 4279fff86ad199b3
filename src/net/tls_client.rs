//! TLS towards servers.
//!
//! Invariant: a [`ClientTls`] never changes; a reload builds a new one. Sessions are never resumed (PostgreSQL offers none).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::end_point::end_point;
use super::error::NetError;
use super::stream::Stream;
use super::tls::{self, TlsMode};
use super::verify::{Level, ServerVerifier};

/// Where the material lies. PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// Authorities that the server's certificate must chain to, or the very certificate. Needed by verify-ca and verify-full.
    pub ca: Option<PathBuf>,
    /// Our own certificate, for servers that want one. Needs `key`.
    pub cert: Option<PathBuf>,
    /// Its private key, unencrypted.
    pub key: Option<PathBuf>,
}

/// Everything needed to connect by one mode. Cloning shares.
#[derive(Clone)]
pub struct ClientTls {
    mode: TlsMode,
    connector: Option<TlsConnector>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientTls({})", self.mode)
    }
}

impl ClientTls {
    /// Mode disable.
    #[must_use]
    pub fn disabled() -> Self {
        Self { mode: TlsMode::Disable, connector: None }
    }

    /// Reads the files. Mode disable reads nothing.
    ///
    /// # Errors
    /// [`NetError::File`] and [`NetError::Settings`], which name the setting.
    pub fn load(mode: TlsMode, files: &ClientTlsFiles) -> Result<Self, NetError> {
        let level = match mode {
            TlsMode::Disable => return Ok(Self::disabled()),
            TlsMode::Prefer => Level::Encrypt,
            // libpq: "if a root CA file exists, the behavior of sslmode=require will be the same as that of verify-ca".
            TlsMode::Require if files.ca.is_none() => Level::Encrypt,
            TlsMode::Require | TlsMode::VerifyCa => Level::Chain,
            TlsMode::VerifyFull => Level::Name,
        };
        let provider = tls::provider();
        let verifier = match (&files.ca, level) {
            (_, Level::Encrypt) => ServerVerifier::unverified(provider.clone()),
            (Some(path), _) => {
                let (roots, certificates) = tls::read_authorities("tls.ca", path)?;
                ServerVerifier::new(level, roots, certificates, provider.clone())
            }
            (None, _) => {
                return Err(NetError::Settings(format!(
                    "tls.mode = \"{mode}\" verifies the server's certificate; set tls.ca to the file of its authority"
                )));
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| NetError::Settings(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = tls::read_certificates("tls.cert", cert)?;
                let secret = tls::read_key("tls.key", key)?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    let problem = format!("cannot be used with tls.cert = \"{}\": {error}", cert.display());
                    tls::file_error("tls.key", key, problem)
                })?
            }
            (Some(_), None) => {
                return Err(NetError::Settings("tls.cert is set and tls.key is not; set both or neither".to_owned()));
            }
            (None, Some(_)) => {
                return Err(NetError::Settings("tls.key is set and tls.cert is not; set both or neither".to_owned()));
            }
        };
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { mode, connector: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// The mode it was loaded for.
    #[must_use]
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Whether to ask the server for TLS.
    pub(super) fn wanted(&self) -> bool {
        self.connector.is_some()
    }

    /// The handshake, after the server said 'S'. `address` is for errors.
    pub(super) async fn handshake(&self, stream: Stream, host: &str, address: &str) -> Result<Stream, NetError> {
        let connector = self.connector.as_ref().expect("the caller asked wanted() before it sent SSLRequest");
        let (socket, peer) = stream.into_tcp()?;
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if self.mode == TlsMode::VerifyFull => {
                return Err(NetError::Settings(format!(
                    "tls.mode = \"verify-full\" cannot check the host \"{host}\": it is neither a DNS name nor an IP address"
                )));
            }
            // Not a name that a certificate could hold, and it is not checked: connect without naming it.
            Err(_) => ServerName::IpAddress(
                peer.ip().ok_or_else(|| std::io::Error::other("a TCP connection has an address"))?.into(),
            ),
        };
        let tls = connector.connect(name, socket).await.map_err(|source| {
            let hint = hint(&source);
            NetError::TlsToServer { address: address.to_owned(), source, hint }
        })?;
        let hash = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(end_point);
        Ok(Stream::tls_to_server(tls, peer, hash.map(Arc::from)))
    }
}

/// What to do about the commonest refusals.
fn hint(error: &std::io::Error) -> &'static str {
    use rustls::CertificateError as C;
    let Some(rustls::Error::InvalidCertificate(reason)) =
        error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return "";
    };
    match reason {
        C::UnknownIssuer => "; its certificate does not chain to an authority in tls.ca",
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "; the certificate is for another host: use the name that it holds, or mode = \"verify-ca\" if any host of that authority will do"
        }
        C::Expired | C::ExpiredContext { .. } => "; renew the server's certificate",
        _ => "",
    }
}
