//! An authority and what it signed, made once a process.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// PEM texts.
pub(crate) struct Certificates {
    /// The authority.
    pub(crate) ca: String,
    /// For `localhost` and 127.0.0.1.
    pub(crate) server: String,
    pub(crate) server_key: String,
    /// A client's.
    pub(crate) client: String,
    pub(crate) client_key: String,
    /// An authority that signed none of them.
    pub(crate) other_ca: String,
}

impl Certificates {
    /// The process's own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(Self::make)
    }

    fn make() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
        };
        let (ca, issuer) = authority("pointsman test authority");
        let (other_ca, _) = authority("another authority");
        let leaf = |names: &[&str], name: &str, usage| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (server, server_key) = leaf(&["localhost", "127.0.0.1"], "localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = leaf(&[], "demo", ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca, server, server_key, client, client_key, other_ca }
    }
}
