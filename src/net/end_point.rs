//! The channel binding "tls-server-end-point" (RFC 5929, section 4): a hash of the server's certificate.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::oid_registry::{self as oid, Oid};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// SHA-224 is of no use with SCRAM clients' TLS libraries other than OpenSSL, which PostgreSQL uses, so it is served too.
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The hash of the DER certificate, by the hash function of its signature algorithm, with SHA-256 in place of MD5 and SHA-1. `None` where the
/// algorithm has no single hash (Ed25519) or is not known: then there is nothing to bind to, as in PostgreSQL.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let hash = match by_signature(&algorithm.algorithm) {
        Some(hash) => hash,
        // RSASSA-PSS names its hash in the parameters.
        None => match SignatureAlgorithm::try_from(algorithm).ok()? {
            SignatureAlgorithm::RSASSA_PSS(parameters) => by_hash(parameters.hash_algorithm_oid())?,
            _ => return None,
        },
    };
    Some(match hash {
        Hash::Sha224 => sha2::Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

fn by_signature(algorithm: &Oid<'_>) -> Option<Hash> {
    let known = [
        (oid::OID_PKCS1_MD5WITHRSAENC, Hash::Sha256),
        (oid::OID_PKCS1_SHA1WITHRSA, Hash::Sha256),
        (oid::OID_SHA1_WITH_RSA, Hash::Sha256),
        (oid::OID_SIG_DSA_WITH_SHA1, Hash::Sha256),
        (oid::OID_PKCS1_SHA224WITHRSA, Hash::Sha224),
        (oid::OID_PKCS1_SHA256WITHRSA, Hash::Sha256),
        (oid::OID_PKCS1_SHA384WITHRSA, Hash::Sha384),
        (oid::OID_PKCS1_SHA512WITHRSA, Hash::Sha512),
        (oid::OID_SIG_ECDSA_WITH_SHA224, Hash::Sha224),
        (oid::OID_SIG_ECDSA_WITH_SHA256, Hash::Sha256),
        (oid::OID_SIG_ECDSA_WITH_SHA384, Hash::Sha384),
        (oid::OID_SIG_ECDSA_WITH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(name, _)| name == algorithm).map(|(_, hash)| hash)
}

fn by_hash(algorithm: &Oid<'_>) -> Option<Hash> {
    // SHA-1 is the default of RSASSA-PSS (RFC 4055); it counts as SHA-256.
    let known = [
        (oid::OID_HASH_SHA1, Hash::Sha256),
        (oid::OID_NIST_HASH_SHA256, Hash::Sha256),
        (oid::OID_NIST_HASH_SHA384, Hash::Sha384),
        (oid::OID_NIST_HASH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(name, _)| name == algorithm).map(|(_, hash)| hash)
}
