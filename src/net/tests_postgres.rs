//! Against the real thing: our client role against a PostgreSQL server, and libpq (psql) against our server role.
//!
//! Needs an installed PostgreSQL server; as root it is run as user postgres, for it refuses root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rcgen::DnType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{Pki, host_params};
use super::*;
use crate::auth::{
    ChannelBindingMode, ClientAuth, ClientAuthSetup, ClientMethod, ClientStep, Credentials, Md5Hash, MockSecret,
    Random, Secret, ServerAuth, ServerLink, ServerStep, StoredPassword,
};

const SOON: Duration = Duration::from_secs(20);

/// The newest installed server's programs; Debian keeps them out of the path.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path: &PathBuf| path.exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| name.into())
}

/// A command that runs as a user whom PostgreSQL accepts.
fn unprivileged(name: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program(name));
    command
}

/// A server with TLS and one user per method. Dropping it stops the server and removes its files.
struct Postgres {
    pki: Pki,
    port: u16,
    server: Child,
}

impl Postgres {
    fn start() -> Self {
        let pki = Pki::new();
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        pki.issue("server", &host_params(&["localhost", "127.0.0.1"]), algorithm);
        let mut certified = host_params(&[]);
        certified.distinguished_name.push(DnType::CommonName, "certified");
        pki.issue("certified", &certified, algorithm);
        give_away(&pki);
        let data = pki.path("data");
        let made = unprivileged("initdb")
            .args(["-A", "trust", "-U", "postgres", "-N", "-D"])
            .arg(&data)
            .output()
            .expect("initdb must be installed (package postgresql)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = "local all postgres trust\n\
                     host all trusting 127.0.0.1/32 trust\n\
                     host all scram 127.0.0.1/32 scram-sha-256\n\
                     host all hashed 127.0.0.1/32 md5\n\
                     host all clear 127.0.0.1/32 password\n\
                     hostssl all certified 127.0.0.1/32 cert\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| pki.path(name).display().to_string();
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", pki.directory.path().display().to_string()),
            ("ssl_cert_file", file("server.crt")),
            ("ssl_key_file", file("server.key")),
            ("ssl_ca_file", file("ca.crt")),
            ("fsync", "off".to_owned()),
        ];
        let mut command = unprivileged("postgres");
        command.arg("-D").arg(&data);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let this = Self { pki, port, server };
        let deadline = Instant::now() + SOON;
        while !this.sql("select 1").status.success() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start within {SOON:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        this.must(
            "alter system set ssl = on; \
             create role trusting login; create role certified login; \
             create role scram login password 'sesame'; create role clear login password 'sesame'; \
             set password_encryption = 'md5'; create role hashed login password 'sesame'",
        );
        this.set_tls("on");
        this
    }

    fn sql(&self, text: &str) -> Output {
        let mut command = Command::new(program("psql"));
        for statement in text.split("; ") {
            command.arg("-c").arg(statement);
        }
        command
            .args(["-XAtq", "-U", "postgres", "-d", "postgres", "-p", &self.port.to_string(), "-h"])
            .arg(self.pki.directory.path())
            .output()
            .unwrap()
    }

    fn must(&self, text: &str) -> String {
        let output = self.sql(text);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn set_tls(&self, value: &str) {
        self.must(&format!("alter system set ssl = {value}; select pg_reload_conf()"));
        let deadline = Instant::now() + SOON;
        // The postmaster has re-read it when a new session sees it.
        while self.must("show ssl").trim() != value {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn tcp(&self, host: &str) -> ServerAddress {
        ServerAddress::tcp(host, self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends the postmaster and its children; the files go with the directory.
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.server.wait();
    }
}

/// Lets user postgres have the directory, if we are root.
fn give_away(pki: &Pki) {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let key = pki.path("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        let output = Command::new("id").args(["-u", "postgres"]).output().unwrap();
        let uid = String::from_utf8(output.stdout).unwrap().trim().parse().expect("user postgres exists");
        let files = std::fs::read_dir(pki.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        for path in files.chain([pki.directory.path().to_owned()]) {
            chown(path, Some(uid), None).unwrap();
        }
    }
}

/// Logs in and returns what `pg_stat_ssl` says of the session, or the error of whoever refused.
async fn log_in(
    mut stream: Stream,
    user: &str,
    credentials: Credentials,
    binding: ChannelBindingMode,
    end_point: Option<Vec<u8>>,
) -> Result<String, String> {
    let parameters = format!("user\0{user}\0database\0postgres\0\0");
    let length = u32::try_from(8 + parameters.len()).unwrap();
    let packet = [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat();
    stream.write_all(&packet).await.unwrap();
    stream.flush().await.unwrap();
    let link = ServerLink { private: stream.is_private(), tls: stream.is_tls(), end_point, channel_binding: binding };
    let mut machine = ServerAuth::new(user, credentials, link);
    let mut answer = String::new();
    let mut asked = false;
    loop {
        let (tag, body) = read_message(&mut stream).await.map_err(|error| error.to_string())?;
        let mut out = BytesMut::new();
        match tag {
            b'R' => {
                let step = machine.on_authentication(&body, &mut out).map_err(|error| error.to_string())?;
                assert!(out.is_empty() || step == ServerStep::Wait);
            }
            b'E' => return Err(String::from_utf8_lossy(&body).replace('\0', " ")),
            b'D' => answer = String::from_utf8_lossy(&body[6..]).into_owned(),
            b'Z' if asked => return Ok(answer),
            b'Z' => {
                asked = true;
                let query = b"select ssl::text from pg_stat_ssl where pid = pg_backend_pid()\0";
                out.extend_from_slice(&[b'Q', 0, 0, 0, u8::try_from(4 + query.len()).unwrap()]);
                out.extend_from_slice(query);
            }
            _ => {}
        }
        stream.write_all(&out).await.unwrap();
        stream.flush().await.unwrap();
    }
}

async fn read_message(stream: &mut Stream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok((head[0], body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_role_against_postgresql() {
    let server = Postgres::start();
    methods(&server).await;
    channel_binding(&server).await;
    modes(&server).await;
    server.set_tls("off");
    without_tls(&server).await;
}

async fn methods(server: &Postgres) {
    let password = |text: &str| Credentials::Password(Secret::new(text));
    let md5 = Credentials::Md5(Md5Hash::of(&Secret::new("sesame"), "hashed"));
    let cases = [
        ("trusting", Credentials::None, None),
        ("scram", password("sesame"), None),
        ("scram", password("wrong"), Some("password authentication failed for user \"scram\"")),
        ("scram", Credentials::None, Some("asks for SCRAM-SHA-256 authentication of user \"scram\"")),
        ("hashed", password("sesame"), None),
        ("hashed", md5.clone(), None),
        ("hashed", password("wrong"), Some("password authentication failed for user \"hashed\"")),
        ("clear", password("sesame"), None),
        ("clear", password("wrong"), Some("password authentication failed for user \"clear\"")),
        ("clear", md5, Some("only the md5 form of its password is known")),
        ("nobody", password("sesame"), Some("no pg_hba.conf entry")),
    ];
    let plain = ClientTls::disabled();
    let tls = server.pki.client(TlsMode::VerifyFull, Some("ca.crt"), None);
    for (user, credentials, refusal) in cases {
        for (tls, shown) in [(&plain, "false"), (&tls, "true")] {
            let stream = connect(&server.tcp("localhost"), tls, SOON).await.unwrap();
            let end_point = stream.end_point().map(<[u8]>::to_vec);
            let got = log_in(stream, user, credentials.clone(), ChannelBindingMode::Prefer, end_point).await;
            match (got, refusal) {
                (Ok(ssl), None) => assert_eq!(ssl, shown, "{user}"),
                (Err(text), Some(words)) => assert!(text.contains(words), "{user}: {text}"),
                (got, expected) => panic!("{user} {credentials:?}: {got:?}, expected {expected:?}"),
            }
        }
    }
    let socket = ServerAddress::unix(server.pki.directory.path(), server.port);
    let stream = connect(&socket, &tls, SOON).await.unwrap();
    assert!(stream.is_local() && !stream.is_tls());
    let got = log_in(stream, "postgres", Credentials::None, ChannelBindingMode::Prefer, None).await;
    assert_eq!(got.as_deref(), Ok("false"));
}

async fn channel_binding(server: &Postgres) {
    let password = || Credentials::Password(Secret::new("sesame"));
    let tls = server.pki.client(TlsMode::Require, None, None);
    let dial = || async { connect(&server.tcp("127.0.0.1"), &tls, SOON).await.unwrap() };
    let real = dial().await.end_point().unwrap().to_vec();
    use ChannelBindingMode::{Disable, Prefer, Require};
    let cases = [
        ("scram", Require, Some(real.clone()), None),
        ("scram", Disable, Some(real.clone()), None),
        ("scram", Prefer, Some(vec![0; 32]), Some("SCRAM channel binding check failed")),
        ("scram", Require, None, Some("channel binding is required")),
        ("hashed", Require, Some(real.clone()), Some("channel binding is required")),
        ("clear", Require, Some(real.clone()), Some("channel binding is required")),
        ("trusting", Require, Some(real), Some("channel binding is required")),
    ];
    for (user, mode, end_point, refusal) in cases {
        match (log_in(dial().await, user, password(), mode, end_point).await, refusal) {
            (Ok(ssl), None) => assert_eq!(ssl, "true"),
            (Err(text), Some(words)) => assert!(text.contains(words), "{user} {mode:?}: {text}"),
            (got, expected) => panic!("{user} {mode:?}: {got:?}, expected {expected:?}"),
        }
    }
}

async fn modes(server: &Postgres) {
    use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let ca = Some("ca.crt");
    for (mode, ca, own, user, shown) in [
        (Disable, None, None, "trusting", "false"),
        (Prefer, None, None, "trusting", "true"),
        (Require, None, None, "trusting", "true"),
        (VerifyCa, ca, None, "trusting", "true"),
        (VerifyFull, ca, None, "trusting", "true"),
        (VerifyFull, ca, Some("certified"), "certified", "true"),
    ] {
        let tls = server.pki.client(mode, ca, own);
        let stream = connect(&server.tcp("localhost"), &tls, SOON).await.unwrap();
        let got = log_in(stream, user, Credentials::None, ChannelBindingMode::Prefer, None).await;
        assert_eq!(got.as_deref(), Ok(shown), "{mode} {user}");
    }
}

async fn without_tls(server: &Postgres) {
    let stream =
        connect(&server.tcp("localhost"), &server.pki.client(TlsMode::Prefer, None, None), SOON).await.unwrap();
    let got = log_in(stream, "trusting", Credentials::None, ChannelBindingMode::Prefer, None).await;
    assert_eq!(got.as_deref(), Ok("false"));
    for (mode, ca) in
        [(TlsMode::Require, None), (TlsMode::VerifyCa, Some("ca.crt")), (TlsMode::VerifyFull, Some("ca.crt"))]
    {
        let error = connect(&server.tcp("localhost"), &server.pki.client(mode, ca, None), SOON).await.unwrap_err();
        assert!(matches!(error, NetError::TlsNotOffered { .. }), "{error}");
    }
}

/// A gateway in small: TLS if asked for, log-in, and an empty answer to each query.
async fn serve(listener: &Listener, tls: &ServerTls, method: ClientMethod, stored: Option<&StoredPassword>) -> bool {
    let mut stream = listener.accept().await.unwrap().into_stream().unwrap();
    let user = loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut packet = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut packet).await.unwrap();
        match u32::from_be_bytes(packet[..4].try_into().unwrap()) {
            80_877_103 => match tls.accept_after_request(stream, &[]).await {
                Ok(secured) => stream = secured,
                Err(_) => return false,
            },
            80_877_104 => stream.write_all(b"N").await.unwrap(),
            _ => {
                let mut fields =
                    packet[4..].split(|byte| *byte == 0).map(|field| String::from_utf8_lossy(field).into_owned());
                while fields.next().unwrap() != "user" {}
                break fields.next().unwrap();
            }
        }
    };
    let mut out = BytesMut::new();
    let mock = MockSecret::random();
    let setup = ClientAuthSetup {
        method,
        user: &user,
        stored,
        end_point: stream.end_point(),
        mock: &mock,
        random: Random::fresh(),
    };
    let (mut machine, mut step) = ClientAuth::start(setup, &mut out);
    while !matches!(step, ClientStep::Accepted(_)) {
        stream.write_all(&out).await.unwrap();
        stream.flush().await.unwrap();
        out.clear();
        // psql hangs up to ask for a password, or when it refuses us.
        let Ok((b'p', body)) = read_message(&mut stream).await else { return false };
        let next = machine.on_password_message(&body, &mut out).and_then(|step| match step {
            ClientStep::TryOnServer(given) => machine.conclude(given == Secret::new("sesame"), &mut out),
            other => Ok(other),
        });
        step = match next {
            Ok(step) => step,
            Err(error) => {
                let fields = format!("SFATAL\0C{}\0M{error}\0\0", error.sqlstate());
                out.extend_from_slice(&[b'E', 0, 0, 0, u8::try_from(4 + fields.len()).unwrap()]);
                out.extend_from_slice(fields.as_bytes());
                stream.write_all(&out).await.unwrap();
                stream.shutdown().await.unwrap();
                return false;
            }
        };
    }
    out.extend_from_slice(b"Z\0\0\0\x05I");
    loop {
        stream.write_all(&out).await.unwrap();
        stream.flush().await.unwrap();
        out.clear();
        match read_message(&mut stream).await {
            Ok((b'Q', _)) => out.extend_from_slice(b"I\0\0\0\x04Z\0\0\0\x05I"),
            _ => return true,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_against_our_server_role() {
    let pki = Pki::new();
    pki.issue("server", &host_params(&["localhost"]), &rcgen::PKCS_ECDSA_P256_SHA256);
    let files = ServerTlsFiles {
        cert: pki.path("server.crt"),
        key: pki.path("server.key"),
        client_ca: Some(pki.path("ca.crt")),
    };
    let tls = ServerTls::load(ServerTlsMode::Prefer, &files).unwrap().unwrap();
    let plain = StoredPassword::parse("sesame").unwrap();
    let verifier = StoredPassword::parse(&postgres_protocol::password::scram_sha_256(b"sesame")).unwrap();
    let hash = StoredPassword::parse(&postgres_protocol::password::md5(b"sesame", "ann")).unwrap();

    use ClientMethod as M;
    let bound = format!("sslmode=verify-full channel_binding=require sslrootcert={}", pki.path("ca.crt").display());
    let (clear, secured) = ("sslmode=disable", "sslmode=require");
    let refused = Some("password authentication failed for user \"ann\"");
    let cases = [
        (M::Trust, None, "", clear, None),
        (M::ScramSha256, Some(&plain), "sesame", clear, None),
        (M::ScramSha256, Some(&verifier), "sesame", secured, None),
        (M::ScramSha256, Some(&verifier), "sesame", bound.as_str(), None),
        (M::ScramSha256, Some(&verifier), "wrong", bound.as_str(), refused),
        (M::ScramSha256, Some(&plain), "wrong", clear, refused),
        (M::ScramSha256, None, "sesame", secured, refused),
        (M::Md5, Some(&plain), "sesame", clear, None),
        (M::Md5, Some(&hash), "sesame", secured, None),
        (M::Md5, Some(&verifier), "sesame", clear, None),
        (M::Md5, Some(&hash), "wrong", clear, refused),
        (M::Password, Some(&verifier), "sesame", clear, None),
        (M::Password, Some(&verifier), "wrong", clear, refused),
        (M::PasswordOnServer, None, "sesame", secured, None),
        (M::PasswordOnServer, None, "wrong", secured, refused),
    ];
    for (n, (method, stored, password, options, refusal)) in cases.into_iter().enumerate() {
        let address = ListenAddress::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
        let listener = bind(&[address], ListenOptions::default()).await.unwrap().remove(0);
        let port = listener.tcp_address().unwrap().port();
        let target = format!("host=localhost port={port} user=ann dbname=x connect_timeout=10 {options}");
        let psql = psql(&target, password, pki.directory.path());
        let (let_in, output) = tokio::join!(serve(&listener, &tls, method, stored), psql);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(let_in, refusal.is_none(), "case {n}: {method:?} {options}: {said}");
        match refusal {
            None => assert!(output.status.success(), "case {n}: {said}"),
            Some(words) => assert!(said.contains(words), "case {n}: {said}"),
        }
    }
}

async fn psql(target: &str, password: &str, home: &Path) -> Output {
    let mut command = Command::new(program("psql"));
    command
        .args(["-X", "-w", "-d", target, "-c", ""])
        .env("PGPASSWORD", password)
        .env("HOME", home)
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}
