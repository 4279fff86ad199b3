//! TLS modes and the files behind them, for both roles.
//!
//! Invariant: every error names the setting, the file and what was expected of it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::NetError;

/// PostgreSQL's name in ALPN (`PG_ALPN_PROTOCOL`, protocol chapter, "SSL Session Encryption").
pub(super) const ALPN: &[u8] = b"postgresql";

/// How a connection to a server is secured: libpq's `sslmode` without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS if the server does it, unverified; else, or if the handshake fails, plain.
    #[default]
    Prefer,
    /// TLS, unverified; with a CA file it checks the chain like [`Self::VerifyCa`], as libpq does.
    Require,
    /// TLS, and the certificate chains to the CA file.
    VerifyCa,
    /// TLS, the chain, and the certificate is for the host name.
    VerifyFull,
}

/// How clients' connections are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ServerTlsMode {
    /// SSLRequest is answered 'N'.
    Disable,
    /// TLS for clients that ask for it.
    #[default]
    Prefer,
    /// Clients on TCP must use TLS.
    Require,
    /// And must present a certificate that chains to `client_ca`.
    Verify,
}

const MODES: [(TlsMode, &str); 5] = [
    (TlsMode::Disable, "disable"),
    (TlsMode::Prefer, "prefer"),
    (TlsMode::Require, "require"),
    (TlsMode::VerifyCa, "verify-ca"),
    (TlsMode::VerifyFull, "verify-full"),
];

const SERVER_MODES: [(ServerTlsMode, &str); 4] = [
    (ServerTlsMode::Disable, "disable"),
    (ServerTlsMode::Prefer, "prefer"),
    (ServerTlsMode::Require, "require"),
    (ServerTlsMode::Verify, "verify"),
];

fn name_of<M: Copy + PartialEq>(mode: M, table: &[(M, &'static str)]) -> &'static str {
    table.iter().find(|(m, _)| *m == mode).map_or("", |(_, name)| *name)
}

fn mode_of<M: Copy>(text: &str, table: &[(M, &'static str)]) -> Result<M, NetError> {
    table.iter().find(|(_, name)| *name == text).map(|(mode, _)| *mode).ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|(_, name)| *name).collect();
        NetError::Settings(format!("tls mode \"{text}\" is not one of {}", names.join(", ")))
    })
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(*self, &MODES))
    }
}

impl FromStr for TlsMode {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        mode_of(text, &MODES)
    }
}

impl fmt::Display for ServerTlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(*self, &SERVER_MODES))
    }
}

impl FromStr for ServerTlsMode {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        mode_of(text, &SERVER_MODES)
    }
}

/// The one provider; handed to rustls explicitly, so that nothing depends on a process-wide default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn file_error(setting: &'static str, path: &Path, problem: impl Into<String>) -> NetError {
    NetError::File { setting, path: path.to_owned(), problem: problem.into() }
}

/// All certificates of a PEM file, at least one.
pub(super) fn read_certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(setting, path, pem_problem(&error)))?;
    if found.is_empty() {
        return Err(file_error(setting, path, "holds no certificate; expected PEM with -----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

/// The first private key of a PEM file.
pub(super) fn read_key(setting: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => {
                "holds no unencrypted private key; expected PEM with -----BEGIN PRIVATE KEY----- \
                 (decrypt it with: openssl pkey -in OLD -out NEW)"
                    .to_owned()
            }
            other => pem_problem(&other),
        };
        file_error(setting, path, problem)
    })
}

/// The trust anchors of a PEM file, and the certificates as they stand there.
pub(super) fn read_authorities(
    setting: &'static str,
    path: &Path,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), NetError> {
    let certificates = read_certificates(setting, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| file_error(setting, path, format!("a certificate in it cannot be used: {error}")))?;
    }
    Ok((roots, certificates))
}

fn pem_problem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("is not readable as PEM: {other}"),
    }
}
