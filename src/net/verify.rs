//! How much of a server's certificate is checked: nothing, the chain, or the chain and the name (libpq's verify-ca and verify-full).
//!
//! Invariant: the handshake's signature is verified at every level, so that the peer holds the key of the certificate it shows; channel binding
//! relies on that. Where OpenSSL, and so libpq, accepts what webpki does not, we follow libpq: a certificate that itself stands in the CA file
//! (self-signed, even as a CA), a name in the subject alone, version 1 certificates where nothing is verified.
//! Absent: revocation.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Encrypt,
    Chain,
    Name,
}

/// The verifier given to rustls.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    level: Level,
    roots: RootCertStore,
    /// The CA file's certificates as they are, for one that stands there itself.
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn new(
        level: Level,
        roots: RootCertStore,
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { level, roots, trusted, provider }
    }

    pub(super) fn unverified(provider: Arc<CryptoProvider>) -> Self {
        Self::new(Level::Encrypt, RootCertStore::empty(), Vec::new(), provider)
    }

    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.trusted.iter().any(|trusted| trusted == certificate) {
            return check_dates(certificate, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.level != Level::Encrypt {
            self.check_chain(end_entity, intermediates, now)?;
        }
        if self.level == Level::Name {
            check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if ParsedCertificate::try_from(cert).is_ok() {
            return verify_tls13_signature(message, cert, dss, algorithms);
        }
        // webpki reads version 3 alone; `openssl x509 -req` without extensions makes version 1. Its key signs all the same.
        let parsed = parse(cert)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .ok_or(Error::FailedToGetCurrentTime)?;
    let parsed = parse(certificate)?;
    let reason = match parsed.validity() {
        validity if now < validity.not_before => CertificateError::NotValidYet,
        validity if now > validity.not_after => CertificateError::Expired,
        _ => return Ok(()),
    };
    Err(Error::InvalidCertificate(reason))
}

/// The subject's alternative names; where it has none that could count, its common name
/// (`pgtls_verify_peer_name_matches_certificate_guts` in `src/interfaces/libpq/fe-secure-openssl.c`).
fn check_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let refusal = match ParsedCertificate::try_from(certificate).and_then(|c| verify_server_name(&c, name)) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let parsed = parse(certificate)?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let has_names = alternatives.is_some_and(|extension| {
        let mut names = extension.value.general_names.iter();
        names.any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
    });
    if has_names {
        return Err(refusal);
    }
    let host = name.to_str();
    let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    if names.any(|pattern| name_matches(pattern, &host)) { Ok(()) } else { Err(refusal) }
}

/// Equal but for case, or a leading `*.` in place of one label, as libpq's `wildcard_certificate_match`.
fn name_matches(pattern: &str, host: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("*.") {
        return match host.split_once('.') {
            Some((label, domain)) => !label.is_empty() && domain.eq_ignore_ascii_case(rest),
            None => false,
        };
    }
    pattern.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn common_names_match_as_in_libpq() {
        let cases = [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("example.com", "db.example.com", false),
            ("", "db", false),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(name_matches(pattern, host), expected, "{pattern} against {host}");
        }
    }
}
