//! TLS and connecting over loopback with throw-away certificates, and peers that misbehave.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A directory with an authority in `ca.crt`, and certificates on demand.
pub(super) struct Pki {
    pub(super) directory: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = authority_params("Test authority");
        std::fs::write(directory.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, authority: Issuer::new(params, key) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.crt` and `NAME.key`, signed by the authority.
    pub(super) fn issue(&self, name: &str, params: &CertificateParams, algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        self.write(name, &params.signed_by(&key, &self.authority).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, pem: &str, key: &KeyPair) {
        std::fs::write(self.path(&format!("{name}.crt")), pem).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn self_signed(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.self_signed(&key).unwrap().pem(), &key);
    }

    fn server(&self, name: &str, mode: ServerTlsMode, client_ca: Option<&str>) -> ServerTls {
        let files = ServerTlsFiles {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            client_ca: client_ca.map(|file| self.path(file)),
        };
        ServerTls::load(mode, &files).unwrap().unwrap()
    }

    pub(super) fn client(&self, mode: TlsMode, ca: Option<&str>, own: Option<&str>) -> ClientTls {
        let file = |extension| own.map(|name| self.path(&format!("{name}.{extension}")));
        let files = ClientTlsFiles { ca: ca.map(|file| self.path(file)), cert: file("crt"), key: file("key") };
        ClientTls::load(mode, &files).unwrap()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(super) fn host_params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

async fn listen() -> (Listener, ServerAddress) {
    let address = ListenAddress::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
    let listener = bind(&[address], ListenOptions::default()).await.unwrap().remove(0);
    let port = listener.tcp_address().unwrap().port();
    (listener, ServerAddress::tcp("127.0.0.1", port))
}

/// The server's half: takes SSLRequest, then TLS.
async fn serve_one(listener: &Listener, tls: &ServerTls) -> Result<Stream, NetError> {
    let mut stream = listener.accept().await?.into_stream()?;
    let mut request = [0; 8];
    stream.read_exact(&mut request).await?;
    assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
    tls.accept_after_request(stream, &[]).await
}

/// Both halves, and bytes in both directions.
async fn handshake(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Stream, NetError>, Result<Stream, NetError>) {
    let (listener, address) = listen().await;
    let ServerAddress::Tcp { port, .. } = address else { unreachable!() };
    let address = ServerAddress::tcp(host, port);
    let (theirs, ours) = tokio::join!(serve_one(&listener, server), connect(&address, client, SOON));
    (theirs, ours)
}

#[tokio::test]
async fn client_modes_and_certificates() {
    use TlsMode::{Prefer, Require, VerifyCa, VerifyFull};
    let pki = Pki::new();
    let ecdsa = &rcgen::PKCS_ECDSA_P256_SHA256;
    pki.issue("localhost", &host_params(&["localhost", "127.0.0.1"]), ecdsa);
    pki.issue("elsewhere", &host_params(&["db.example.com"]), ecdsa);
    let mut common_name = host_params(&[]);
    common_name.distinguished_name.push(DnType::CommonName, "localhost");
    pki.issue("common-name", &common_name, ecdsa);
    let mut both = host_params(&["db.example.com"]);
    both.distinguished_name.push(DnType::CommonName, "localhost");
    pki.issue("san-wins", &both, ecdsa);
    let mut expired = host_params(&["localhost"]);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    pki.issue("expired", &expired, ecdsa);
    pki.self_signed("stranger", &host_params(&["localhost"]));
    // What `openssl req -x509` makes by default: an authority that serves as the server's certificate too.
    let mut both_roles = authority_params("localhost");
    both_roles.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    pki.self_signed("both-roles", &both_roles);

    let cases = [
        // certificate, CA file, mode, host, what the error must say
        ("localhost", None, Require, "localhost", None),
        ("localhost", Some("ca.crt"), VerifyCa, "localhost", None),
        ("localhost", Some("ca.crt"), VerifyFull, "localhost", None),
        ("localhost", Some("ca.crt"), VerifyFull, "127.0.0.1", None),
        ("elsewhere", Some("ca.crt"), VerifyCa, "localhost", None),
        ("elsewhere", Some("ca.crt"), VerifyFull, "localhost", Some("mode = \"verify-ca\" if any host")),
        ("common-name", Some("ca.crt"), VerifyFull, "localhost", None),
        ("common-name", Some("ca.crt"), VerifyFull, "127.0.0.1", Some("certificate is for another host")),
        ("san-wins", Some("ca.crt"), VerifyFull, "localhost", Some("certificate is for another host")),
        ("expired", Some("ca.crt"), VerifyCa, "localhost", Some("renew the server's certificate")),
        ("expired", None, Require, "localhost", None),
        ("stranger", None, Require, "localhost", None),
        ("stranger", None, Prefer, "localhost", None),
        ("stranger", Some("ca.crt"), VerifyCa, "localhost", Some("does not chain to an authority in tls.ca")),
        // As libpq: a CA file makes require verify.
        ("stranger", Some("ca.crt"), Require, "localhost", Some("does not chain to an authority in tls.ca")),
        ("stranger", Some("stranger.crt"), VerifyFull, "localhost", None),
        ("both-roles", Some("both-roles.crt"), VerifyFull, "localhost", None),
        ("both-roles", Some("ca.crt"), VerifyCa, "localhost", Some("TLS handshake with localhost")),
    ];
    for (n, (certificate, ca, mode, host, refusal)) in cases.into_iter().enumerate() {
        let server = pki.server(certificate, ServerTlsMode::Prefer, None);
        let (theirs, ours) = handshake(&server, &pki.client(mode, ca, None), host).await;
        match (ours, refusal) {
            (Ok(ours), None) => {
                assert!(ours.is_tls() && ours.is_private() && ours.is_local());
                assert_eq!(ours.tls_version(), Some("TLSv1.3"));
                let theirs = theirs.unwrap();
                assert_eq!(ours.end_point().unwrap(), theirs.end_point().unwrap());
            }
            (Err(error), Some(words)) => {
                let text = error.to_string();
                assert!(text.contains(words) && text.contains(host), "case {n}: {text}");
                assert_eq!(error.sqlstate(), "08001");
                assert!(theirs.is_err());
            }
            (got, expected) => panic!("case {n}: {certificate} {mode} {host}: {got:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn end_point_hash_follows_the_signature() {
    let pki = Pki::new();
    let own_hash = |name: &str, bytes: &dyn Fn(&[u8]) -> Vec<u8>| {
        use rustls::pki_types::pem::PemObject as _;
        bytes(&CertificateDer::from_pem_file(pki.path(&format!("{name}.crt"))).unwrap())
    };
    // What signs decides, not the certificate's own key: here the key signs itself.
    let sign = |name: &str, algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        pki.write(name, &host_params(&["localhost"]).self_signed(&key).unwrap().pem(), &key);
    };
    sign("p256", &rcgen::PKCS_ECDSA_P256_SHA256);
    sign("p384", &rcgen::PKCS_ECDSA_P384_SHA384);
    sign("ed25519", &rcgen::PKCS_ED25519);
    let cases = [
        ("p256", Some(own_hash("p256", &|der| sha2::Sha256::digest(der).to_vec()))),
        ("p384", Some(own_hash("p384", &|der| sha2::Sha384::digest(der).to_vec()))),
        ("ed25519", None),
    ];
    for (name, expected) in cases {
        let server = pki.server(name, ServerTlsMode::Require, None);
        let (theirs, ours) = handshake(&server, &pki.client(TlsMode::Require, None, None), "localhost").await;
        assert_eq!(theirs.unwrap().end_point(), expected.as_deref(), "{name}");
        assert_eq!(ours.unwrap().end_point(), expected.as_deref(), "{name}");
    }
}

#[tokio::test]
async fn client_certificates() {
    use ServerTlsMode::{Prefer, Verify};
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    pki.issue("ann", &host_params(&["ann"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    pki.self_signed("stranger", &host_params(&["ann"]));
    let cases = [
        // mode, authority, the client's certificate, let in
        (Prefer, None, Some("ann"), true),
        (Prefer, Some("ca.crt"), None, true),
        (Prefer, Some("ca.crt"), Some("ann"), true),
        (Prefer, Some("ca.crt"), Some("stranger"), false),
        (Verify, Some("ca.crt"), None, false),
        (Verify, Some("ca.crt"), Some("ann"), true),
        (Verify, Some("ca.crt"), Some("stranger"), false),
    ];
    for (n, (mode, ca, own, let_in)) in cases.into_iter().enumerate() {
        let server = pki.server("server", mode, ca);
        let (theirs, _) = handshake(&server, &pki.client(TlsMode::Require, None, own), "localhost").await;
        assert_eq!(theirs.is_ok(), let_in, "case {n}: {theirs:?}");
        if let Ok(stream) = theirs {
            assert_eq!(stream.peer_certificate().is_some(), ca.is_some() && own.is_some(), "case {n}");
        }
    }
}

/// A server that answers SSLRequest with these bytes on its first connection and accepts a second one silently.
async fn answers(bytes: &'static [u8]) -> (ServerAddress, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddress::tcp("127.0.0.1", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        for n in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            if n == 0 {
                socket.read_exact(&mut [0; 8]).await.unwrap();
                socket.write_all(bytes).await.unwrap();
                if bytes.is_empty() {
                    continue;
                }
            }
            held.push(socket);
        }
    });
    (address, task)
}

#[tokio::test]
async fn answers_to_the_request_for_tls() {
    use TlsMode::{Prefer, Require};
    let pki = Pki::new();
    let cases: [(&[u8], TlsMode, Option<&str>); 11] = [
        // the answer, the mode, what the error must say; without one a plain connection comes about
        (b"N", Prefer, None),
        (b"N", Require, Some("tls mode \"require\" demands it")),
        (b"E", Prefer, None),
        (b"E\0\0\0\x09Secret\0", Prefer, None),
        (b"E\0\0\0\x09Secret\0", Require, Some("answered the request for TLS with an error")),
        (b"Sx", Prefer, Some("unencrypted data after its answer")),
        (b"Sx", Require, Some("unencrypted data after its answer")),
        (b"NR\0\0\0\x08\0\0\0\0", Prefer, Some("unencrypted data after its answer")),
        (b"H", Require, Some("does not answer like a PostgreSQL server: got 'H'")),
        (b"", Require, Some("closed the connection when asked for TLS")),
        (b"Snot TLS", Require, Some("unencrypted data")),
    ];
    for (answer, mode, refusal) in cases {
        let (address, task) = answers(answer).await;
        let result = connect(&address, &pki.client(mode, None, None), SOON).await;
        match (result, refusal) {
            (Ok(stream), None) => assert!(!stream.is_tls() && stream.end_point().is_none()),
            (Err(error), Some(words)) => {
                let text = error.to_string();
                assert!(text.contains(words) && !text.contains("Secret"), "{text}");
            }
            (got, expected) => panic!("{} {mode}: {got:?}, expected {expected:?}", answer.escape_ascii()),
        }
        task.abort();
    }
}

#[tokio::test]
async fn connecting_fails_in_words() {
    let pki = Pki::new();
    let check = |result: Result<Stream, NetError>, words: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    };
    let plain = ClientTls::disabled();
    let (listener, closed) = listen().await;
    drop(listener);
    check(connect(&closed, &plain, SOON).await, &format!("cannot connect to {closed}: "));
    let nowhere = ServerAddress::tcp("no-such-host.invalid", 5432);
    check(connect(&nowhere, &plain, SOON).await, "cannot find the address of \"no-such-host.invalid\"");
    let missing = ServerAddress::unix(pki.directory.path(), 5432);
    check(connect(&missing, &plain, SOON).await, "/.s.PGSQL.5432: No such file");

    // A server that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddress::tcp("127.0.0.1", silent.local_addr().unwrap().port());
    let tls = pki.client(TlsMode::Prefer, None, None);
    let short = Duration::from_millis(50);
    check(connect(&address, &tls, short).await, "no answer to the request for TLS from 127.0.0.1");
}

#[tokio::test]
async fn a_name_with_several_addresses_is_tried_through() {
    // "localhost" may begin with ::1, where nobody listens.
    let (listener, address) = listen().await;
    let ServerAddress::Tcp { port, .. } = address else { unreachable!() };
    let stream = connect(&ServerAddress::tcp("localhost", port), &ClientTls::disabled(), SOON).await.unwrap();
    let client = listener.accept().await.unwrap().into_stream().unwrap();
    assert_eq!(stream.peer().to_string(), format!("127.0.0.1:{port}"));
    assert!(client.is_local() && !client.is_tls() && client.is_private());
}

#[tokio::test]
async fn bytes_before_the_handshake_are_refused() {
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    let tls = pki.server("server", ServerTlsMode::Prefer, None);
    let (listener, address) = listen().await;
    let mut client = connect(&address, &ClientTls::disabled(), SOON).await.unwrap();
    let stream = listener.accept().await.unwrap().into_stream().unwrap();
    let error = tls.accept_after_request(stream, b"Q").await.unwrap_err();
    assert_eq!(error.to_string(), "received unencrypted data after SSL request");
    assert_eq!(error.sqlstate(), "08P01");
    // Nothing was answered.
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

/// PostgreSQL 17's direct negotiation, with the first bytes already taken off the socket in pieces of any size.
#[tokio::test]
async fn direct_tls() {
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    let server_tls = pki.server("server", ServerTlsMode::Prefer, None);
    for (taken, alpn, fails) in [
        (0, Some("postgresql"), None),
        (1, Some("postgresql"), None),
        (5, Some("postgresql"), None),
        (100, Some("postgresql"), None),
        (16 * 1024, Some("postgresql"), None),
        (1, None, Some("without ALPN")),
        (1, Some("h2"), Some("could not accept SSL connection")),
    ] {
        let (listener, address) = listen().await;
        let ServerAddress::Tcp { port, .. } = address else { unreachable!() };
        let server = async {
            let mut stream = listener.accept().await.unwrap().into_stream().unwrap();
            let mut first = vec![0; taken];
            let length = if taken == 0 { 0 } else { stream.read(&mut first).await.unwrap() };
            assert!(length == 0 || first[0] == 0x16);
            server_tls.accept_direct(stream, &first[..length]).await
        };
        let client = async {
            let verifier = verify::ServerVerifier::unverified(tls::provider());
            let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await
        };
        let (theirs, ours) = tokio::join!(server, client);
        match (theirs, fails) {
            (Ok(mut theirs), None) => {
                let mut ours = ours.unwrap();
                ours.write_all(b"hello").await.unwrap();
                ours.flush().await.unwrap();
                let mut got = [0; 5];
                theirs.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"hello");
            }
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (got, expected) => panic!("{taken} {alpn:?}: {got:?}, expected {expected:?}"),
        }
    }
    // Not TLS at all.
    let (listener, address) = listen().await;
    let client = connect(&address, &ClientTls::disabled(), SOON).await.unwrap();
    let stream = listener.accept().await.unwrap().into_stream().unwrap();
    let error = server_tls.accept_direct(stream, b"\x16\x03\x01\0\x05hello and more").await.unwrap_err();
    assert!(matches!(error, NetError::TlsToClient { .. }), "{error}");
    drop(client);
}

/// 3 MiB through each transport, written vectored and read with `poll_read_buf`.
#[tokio::test]
async fn bytes_pass_through_every_transport() {
    const TOTAL: usize = 3 << 20;
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    let server = pki.server("server", ServerTlsMode::Prefer, None);
    let unix = ListenAddress::Unix { directory: pki.directory.path().to_owned() };

    for kind in ["tcp", "unix", "tls"] {
        let (theirs, ours) = if kind == "tls" {
            let (theirs, ours) = handshake(&server, &pki.client(TlsMode::Require, None, None), "localhost").await;
            (theirs.unwrap(), ours.unwrap())
        } else {
            let (listener, address) = if kind == "tcp" {
                listen().await
            } else {
                let options = ListenOptions { unix_port: 7001, ..ListenOptions::default() };
                let listener = bind(std::slice::from_ref(&unix), options).await.unwrap().remove(0);
                (listener, ServerAddress::unix(pki.directory.path(), 7001))
            };
            let ours = connect(&address, &ClientTls::disabled(), SOON).await.unwrap();
            (listener.accept().await.unwrap().into_stream().unwrap(), ours)
        };
        if kind == "unix" {
            assert_eq!((theirs.peer().to_string().as_str(), theirs.is_local()), ("[local]", true));
        }
        assert!(ours.is_write_vectored());
        let mut sender = ours;
        let mut receiver = theirs;
        let data: Vec<u8> = (0..TOTAL).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = data.clone();
        let send = async move {
            let mut sent = 0;
            while sent < TOTAL {
                let middle = (sent + 1000).min(TOTAL);
                let parts = [IoSlice::new(&data[sent..middle]), IoSlice::new(&data[middle..])];
                sent += sender.write_vectored(&parts).await.unwrap();
            }
            sender.flush().await.unwrap();
            sender.shutdown().await.unwrap();
            sender
        };
        let receive = async move {
            let mut buffer = BytesMut::with_capacity(16 * 1024);
            let mut got = Vec::with_capacity(TOTAL);
            while std::future::poll_fn(|cx| {
                tokio_util::io::poll_read_buf(std::pin::Pin::new(&mut receiver), cx, &mut buffer)
            })
            .await
            .unwrap()
                > 0
            {
                got.extend_from_slice(&buffer);
                buffer.clear();
            }
            got
        };
        let (_sender, got) = tokio::join!(send, receive);
        assert!(got == expected, "{kind}: {} bytes", got.len());
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    pki.issue("other", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    std::fs::write(pki.path("empty"), "").unwrap();
    let server = |cert: &str, key: &str, ca: Option<&str>, mode, words: &str| {
        let files = ServerTlsFiles { cert: pki.path(cert), key: pki.path(key), client_ca: ca.map(|f| pki.path(f)) };
        let text = ServerTls::load(mode, &files).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    };
    use ServerTlsMode::{Prefer, Verify};
    server("missing", "server.key", None, Prefer, "/missing\": No such file");
    server("empty", "server.key", None, Prefer, "holds no certificate");
    server("server.key", "server.key", None, Prefer, "holds no certificate");
    server("server.crt", "server.crt", None, Prefer, "holds no unencrypted private key");
    server("server.crt", "other.key", None, Prefer, "is not the key of the certificate in tls.cert");
    server("server.crt", "server.key", None, Verify, "set tls.client_ca");
    server("server.crt", "server.key", Some("empty"), Verify, "tls.client_ca = ");

    let client = |mode, ca: Option<&str>, cert: Option<&str>, key: Option<&str>, words: &str| {
        let path = |name: Option<&str>| name.map(|name| pki.path(name));
        let text = ClientTls::load(mode, &ClientTlsFiles { ca: path(ca), cert: path(cert), key: path(key) })
            .unwrap_err()
            .to_string();
        assert!(text.contains(words), "{text}");
    };
    client(
        TlsMode::VerifyFull,
        None,
        None,
        None,
        "tls.mode = \"verify-full\" verifies the server's certificate; set tls.ca",
    );
    client(TlsMode::VerifyCa, Some("missing"), None, None, "tls.ca = ");
    client(TlsMode::Require, None, Some("server.crt"), None, "tls.key is not");
    client(TlsMode::Require, None, None, Some("server.key"), "tls.cert is not");
    client(TlsMode::Require, None, Some("server.crt"), Some("other.key"), "cannot be used with tls.cert");

    assert!(ServerTls::load(ServerTlsMode::Disable, &ServerTlsFiles::default()).unwrap().is_none());
    for name in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(name.parse::<TlsMode>().unwrap().to_string(), name);
    }
    let error = "allow".parse::<TlsMode>().unwrap_err().to_string();
    assert!(error.contains("not one of disable, prefer, require, verify-ca, verify-full"), "{error}");
    assert_eq!("verify".parse::<ServerTlsMode>().unwrap(), Verify);
}
