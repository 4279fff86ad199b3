//! Both roles face to face, our server role against postgres-protocol's client, RFC 7677's vector, and hostile input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use hmac::{Hmac, KeyInit as _, Mac as _};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::scram::{Binding, LastError, ScramExchange};
use super::*;

const MOCK: [u8; 32] = [7; 32];

fn password(text: &str) -> Credentials {
    Credentials::Password(Secret::new(text))
}

fn plain(text: &str) -> StoredPassword {
    StoredPassword::plain(Secret::new(text)).unwrap()
}

fn scram_only(text: &str) -> StoredPassword {
    ScramVerifier::derive(&Secret::new(text)).into()
}

fn md5_only(text: &str) -> StoredPassword {
    Md5Hash::of(&Secret::new(text), "ann").into()
}

fn start(
    method: ClientMethod,
    stored: Option<&StoredPassword>,
    end_point: Option<&[u8]>,
) -> (ClientAuth, ClientStep, BytesMut) {
    let mut out = BytesMut::new();
    let mock = MockSecret::from_bytes(MOCK);
    let setup = ClientAuthSetup { method, user: "ann", stored, end_point, mock: &mock, random: Random::fresh() };
    let (machine, step) = ClientAuth::start(setup, &mut out);
    (machine, step, out)
}

/// The bodies of the frames in `bytes`, which must all have this tag.
fn bodies(tag: u8, bytes: &mut BytesMut) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], tag);
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        found.push(bytes.split_to(1 + length)[5..].to_vec());
    }
    found
}

#[derive(Debug, PartialEq)]
enum End {
    In(Credentials),
    ClientRefused(ClientAuthError),
    ServerRefused(ServerAuthError),
}

/// Lets the two machines talk until one has a verdict. The "server" tries passwords against `tried`.
fn talk(
    method: ClientMethod,
    stored: Option<&StoredPassword>,
    tried: &str,
    seen_by_server: Option<&[u8]>,
    credentials: Credentials,
    link: ServerLink,
) -> End {
    let (mut ours, mut step, mut to_client) = start(method, stored, seen_by_server);
    let mut theirs = ServerAuth::new("ann", credentials, link);
    loop {
        let mut to_server = BytesMut::new();
        for body in bodies(b'R', &mut to_client) {
            match theirs.on_authentication(&body, &mut to_server) {
                Ok(ServerStep::Wait) => {}
                Ok(ServerStep::Done) => {
                    let ClientStep::Accepted(credentials) = step else { panic!("done after {step:?}") };
                    return End::In(credentials);
                }
                Err(error) => return End::ServerRefused(error),
            }
        }
        for body in bodies(b'p', &mut to_server) {
            assert!(body.len() <= ours.body_limit());
            let answer = ours.on_password_message(&body, &mut to_client).and_then(|step| match step {
                ClientStep::TryOnServer(given) => ours.conclude(given == Secret::new(tried), &mut to_client),
                other => Ok(other),
            });
            match answer {
                Ok(next) => step = next,
                Err(error) => return End::ClientRefused(error),
            }
        }
    }
}

fn refused(because: RefusedBecause) -> End {
    End::ClientRefused(ClientAuthError::Password { user: "ann".to_owned(), because })
}

fn local() -> ServerLink {
    ServerLink { private: true, ..ServerLink::default() }
}

#[test]
fn methods_and_stored_forms() {
    use ClientMethod as M;
    let right = || password("sesame");
    let (p, s, m) = (plain("sesame"), scram_only("sesame"), md5_only("sesame"));
    let md5_credentials = Credentials::Md5(Md5Hash::of(&Secret::new("sesame"), "ann"));
    let wrong = RefusedBecause::WrongPassword;
    let cases = [
        // method, stored, what the other side has, end
        (M::Trust, None, Credentials::None, End::In(Credentials::None)),
        (M::Trust, Some(&p), Credentials::None, End::In(right())),
        (M::ScramSha256, Some(&p), right(), End::In(right())),
        (M::ScramSha256, Some(&s), right(), End::In(Credentials::None)),
        (M::ScramSha256, Some(&p), password("Sesame"), refused(wrong)),
        (M::ScramSha256, Some(&s), password("Sesame"), refused(wrong)),
        (M::ScramSha256, Some(&m), right(), refused(RefusedBecause::WrongForm)),
        (M::ScramSha256, None, right(), refused(RefusedBecause::UnknownUser)),
        (M::Md5, Some(&p), right(), End::In(right())),
        (M::Md5, Some(&m), right(), End::In(md5_credentials.clone())),
        (M::Md5, Some(&m), md5_credentials.clone(), End::In(md5_credentials.clone())),
        (M::Md5, Some(&m), password("x"), refused(wrong)),
        (M::Md5, Some(&s), right(), End::In(Credentials::None)),
        (M::Md5, None, right(), refused(RefusedBecause::UnknownUser)),
        (M::Password, Some(&p), right(), End::In(right())),
        (M::Password, Some(&s), right(), End::In(right())),
        (M::Password, Some(&m), right(), End::In(right())),
        (M::Password, Some(&p), password("x"), refused(wrong)),
        (M::Password, Some(&s), password("x"), refused(wrong)),
        (M::Password, Some(&m), password("x"), refused(wrong)),
        (M::Password, None, right(), refused(RefusedBecause::UnknownUser)),
        (M::PasswordOnServer, None, right(), End::In(right())),
        (M::PasswordOnServer, None, password("x"), refused(RefusedBecause::RefusedByServer)),
    ];
    for (n, (method, stored, credentials, end)) in cases.into_iter().enumerate() {
        assert_eq!(talk(method, stored, "sesame", None, credentials, local()), end, "case {n}: {method:?}");
    }
}

#[test]
fn passwords_are_prepared_as_postgresql_does() {
    // A soft hyphen vanishes, a ligature comes apart, a non-breaking space becomes a space; what is prohibited stays as it is.
    for (kept, given) in [("I\u{ad}X", "IX"), ("\u{2168}", "IX"), ("a\u{a0}b", "a b"), ("\u{7}bell", "\u{7}bell")] {
        let end = talk(ClientMethod::ScramSha256, Some(&scram_only(kept)), "", None, password(given), local());
        assert_eq!(end, End::In(Credentials::None), "{kept:?} given as {given:?}");
    }
    let not_utf8 = StoredPassword::plain(Secret::new([0xff, 0xfe])).unwrap();
    let same = Credentials::Password(Secret::new([0xff, 0xfe]));
    assert_eq!(talk(ClientMethod::ScramSha256, Some(&not_utf8), "", None, same.clone(), local()), End::In(same));
}

#[test]
fn channel_binding() {
    let stored = plain("sesame");
    let tls = |hash: Option<&[u8]>, channel_binding| ServerLink {
        private: true,
        tls: true,
        end_point: hash.map(<[u8]>::to_vec),
        channel_binding,
    };
    let required = |why| End::ServerRefused(ServerAuthError::ChannelBindingRequired(why));
    let offered: Option<&[u8]> = Some(b"certificate");
    let other: Option<&[u8]> = Some(b"another");
    let into = || End::In(password("sesame"));
    use ChannelBindingMode::{Disable, Prefer, Require};
    let cases = [
        // the server's own hash, what the client sees, end
        (offered, tls(offered, Prefer), into()),
        (offered, tls(offered, Require), into()),
        (offered, tls(offered, Disable), into()),
        (offered, tls(other, Prefer), End::ClientRefused(ClientAuthError::ChannelBinding)),
        (offered, tls(None, Prefer), into()),
        (
            offered,
            tls(None, Require),
            required("its certificate's signature algorithm has no hash for tls-server-end-point"),
        ),
        // No offer: 'y' is accepted by a server that could not bind.
        (None, tls(offered, Prefer), into()),
        (None, tls(offered, Require), required("it does not offer SCRAM-SHA-256-PLUS")),
        (None, ServerLink { channel_binding: Require, ..local() }, required("the connection is not encrypted")),
        (offered, local(), End::ServerRefused(ServerAuthError::Protocol("it offers SCRAM-SHA-256-PLUS without TLS"))),
    ];
    for (n, (own, link, end)) in cases.into_iter().enumerate() {
        let got = talk(ClientMethod::ScramSha256, Some(&stored), "", own, password("sesame"), link);
        assert_eq!(got, end, "case {n}");
    }
    // Methods that cannot bind are refused before a secret goes out.
    for (method, why) in [
        (ClientMethod::Trust, "it let us in without SCRAM-SHA-256-PLUS"),
        (ClientMethod::Md5, "it asks for md5"),
        (ClientMethod::Password, "it asks for the password in clear"),
    ] {
        let got = talk(method, Some(&stored), "", offered, password("sesame"), tls(offered, Require));
        assert_eq!(got, required(why));
    }
}

/// A stripped offer: the client could bind and was told that the server cannot ('y'), but the server did offer it.
#[test]
fn downgrade_is_noticed() {
    let stored = plain("sesame");
    let (mut machine, _, _) = start(ClientMethod::ScramSha256, Some(&stored), Some(b"certificate"));
    let client = ScramSha256::new(b"sesame", ChannelBinding::unrequested());
    let error = send_initial(&mut machine, "SCRAM-SHA-256", client.message()).unwrap_err();
    assert_eq!(error, ClientAuthError::Downgrade);
    assert_eq!(error.sqlstate(), "28000");
}

fn send_initial(machine: &mut ClientAuth, mechanism: &str, message: &[u8]) -> Result<Vec<u8>, ClientAuthError> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [mechanism.as_bytes(), &[0], &length, message].concat();
    send(machine, &body)
}

/// The data of the one Authentication message that answers.
fn send(machine: &mut ClientAuth, body: &[u8]) -> Result<Vec<u8>, ClientAuthError> {
    let mut out = BytesMut::new();
    machine.on_password_message(body, &mut out)?;
    Ok(bodies(b'R', &mut out)[0][4..].to_vec())
}

/// RFC 7677, section 3.
#[test]
fn rfc_7677() {
    let salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
    let mac = |key: &[u8], data: &[u8]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(data);
        mac.finalize().into_bytes().into()
    };
    let mut block = mac(b"pencil", &[STANDARD.decode(salt).unwrap(), vec![0, 0, 0, 1]].concat());
    let mut salted = block;
    for _ in 1..4096 {
        block = mac(b"pencil", &block);
        salted.iter_mut().zip(block).for_each(|(a, b)| *a ^= b);
    }
    let stored_key = Sha256::digest(mac(&salted, b"Client Key"));
    let server_key = mac(&salted, b"Server Key");
    let text = format!("SCRAM-SHA-256$4096:{salt}${}:{}", STANDARD.encode(stored_key), STANDARD.encode(server_key));
    let verifier = ScramVerifier::parse(&text).unwrap();
    assert!(verifier.matches(&Secret::new("pencil")));
    assert!(!verifier.matches(&Secret::new("pencils")));

    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let both = format!("rOprNGfwEbeRWgbNEkqO{nonce}");
    let fresh = |doomed| {
        let mut exchange = ScramExchange::new(verifier.clone(), doomed, Binding::NotOffered, nonce);
        let challenge = exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(challenge, format!("r={both},s={salt},i=4096"));
        exchange
    };
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let last = format!("c=biws,r={both},p={proof}");
    let answer = fresh(false).last(last.as_bytes()).unwrap();
    assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

    // Every other proof fails, and so does the right one in a doomed exchange.
    assert!(matches!(fresh(true).last(last.as_bytes()), Err(LastError::Proof)));
    let bytes = STANDARD.decode(proof).unwrap();
    for bit in 0..256 {
        let mut tampered = bytes.clone();
        tampered[bit / 8] ^= 1 << (bit % 8);
        let last = format!("c=biws,r={both},p={}", STANDARD.encode(tampered));
        assert!(matches!(fresh(false).last(last.as_bytes()), Err(LastError::Proof)), "bit {bit}");
    }

    let check = |last: String, sqlstate: &str, message: &str, detail: Option<&str>| {
        let Err(LastError::Refused(error)) = fresh(false).last(last.as_bytes()) else {
            panic!("{last} was not refused")
        };
        assert_eq!(
            (error.sqlstate(), error.to_string().as_str(), error.detail()),
            (sqlstate, message, detail),
            "{last}"
        );
    };
    let malformed = "malformed SCRAM message";
    check(format!("c=biws,r={both}x,p={proof}"), "08P01", "invalid SCRAM response", Some("Nonce does not match."));
    check(
        format!("c=eSws,r={both},p={proof}"),
        "08P01",
        "unexpected SCRAM channel-binding attribute in client-final-message",
        None,
    );
    check(format!("c=biws,r={both},p=AAAA"), "08P01", malformed, Some("Malformed proof in client-final-message."));
    check(
        format!("c=biws,r={both},p={proof},x=1"),
        "08P01",
        malformed,
        Some("Garbage found at the end of client-final-message."),
    );
    check(format!("c=biws,r={both}"), "08P01", malformed, Some("Attribute expected, but found end of string."));
    check(String::new(), "08P01", malformed, Some("The message is empty."));
    check(format!("c=biws\0,r={both}"), "08P01", malformed, Some("Message length does not match input length."));
    check(format!("r={both}"), "08P01", malformed, Some("Expected attribute \"c\" but found \"r\"."));
}

#[test]
fn first_messages_are_refused_in_postgresqls_words() {
    let stored = plain("sesame");
    let check =
        |mechanism: &str, message: &[u8], own: Option<&[u8]>, sqlstate: &str, text: &str, detail: Option<&str>| {
            let (mut machine, _, _) = start(ClientMethod::ScramSha256, Some(&stored), own);
            let error = send_initial(&mut machine, mechanism, message).unwrap_err();
            assert_eq!((error.sqlstate(), error.to_string().as_str(), error.detail()), (sqlstate, text, detail));
            // And it is over.
            assert_eq!(send(&mut machine, b"x"), Err(ClientAuthError::Unexpected));
        };
    let malformed = "malformed SCRAM message";
    let (plus, bare) = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256");
    let own: Option<&[u8]> = Some(b"hash");
    check("SCRAM-SHA-1", b"", None, "08P01", "client selected an invalid SASL authentication mechanism", None);
    check(plus, b"n,,n=,r=a", None, "08P01", "client selected an invalid SASL authentication mechanism", None);
    check(bare, b"x,,n=,r=a", None, "08P01", malformed, Some("Unexpected channel-binding flag \"x\"."));
    check(bare, b"n", None, "08P01", malformed, Some("Comma expected, but found character \"0x00\"."));
    check(bare, b"n,b,n=,r=a", None, "08P01", malformed, Some("Unexpected attribute \"b\" in client-first-message."));
    check(bare, b"n,,x=,r=a", None, "08P01", malformed, Some("Expected attribute \"n\" but found \"x\"."));
    check(bare, b"n,,n,r=a", None, "08P01", malformed, Some("Expected character \"=\" for attribute \"n\"."));
    check(bare, b"n,,n=,r=a\xc3", None, "08P01", "non-printable characters in SCRAM nonce", None);
    check(
        bare,
        b"n,,n=,r=a,?",
        None,
        "08P01",
        malformed,
        Some("Attribute expected, but found invalid character \"?\"."),
    );
    check(bare, b"n,a=x,n=,r=a", None, "0A000", "client uses authorization identity, but it is not supported", None);
    check(bare, b"n,,m=x,n=,r=a", None, "0A000", "client requires an unsupported SCRAM extension", None);
    check(
        bare,
        b"p=tls-server-end-point,,n=,r=a",
        own,
        "08P01",
        malformed,
        Some(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
        ),
    );
    check(
        plus,
        b"n,,n=,r=a",
        own,
        "08P01",
        malformed,
        Some("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data."),
    );
    check(plus, b"p=tls-unique,,n=,r=a", own, "08P01", "unsupported SCRAM channel-binding type \"tls-unique\"", None);
}

/// A client may name the mechanism first and send its message when asked again.
#[test]
fn a_mechanism_without_a_message_gets_an_empty_challenge() {
    let stored = plain("sesame");
    let (mut machine, _, mut out) = start(ClientMethod::ScramSha256, Some(&stored), None);
    assert_eq!(bodies(b'R', &mut out), [b"\0\0\0\x0aSCRAM-SHA-256\0\0"]);
    let mut client = ScramSha256::new(b"sesame", ChannelBinding::unsupported());
    assert_eq!(send(&mut machine, b"SCRAM-SHA-256\0\xff\xff\xff\xff").unwrap(), b"");
    let challenge = send(&mut machine, client.message()).unwrap();
    client.update(&challenge).unwrap();
    let proof = send(&mut machine, client.message()).unwrap();
    client.finish(&proof).unwrap();
}

/// What an unknown user sees must be what a known one sees: the same salt each time, and one per user.
#[test]
fn unknown_users_are_not_given_away() {
    let challenge = |user: &str| {
        let mock = MockSecret::from_bytes(MOCK);
        let setup = ClientAuthSetup {
            method: ClientMethod::ScramSha256,
            user,
            stored: None,
            end_point: None,
            mock: &mock,
            random: Random { nonce: "server".to_owned(), salt: [0; 4] },
        };
        let (mut machine, _) = ClientAuth::start(setup, &mut BytesMut::new());
        String::from_utf8(send_initial(&mut machine, "SCRAM-SHA-256", b"n,,n=,r=client").unwrap()).unwrap()
    };
    assert_eq!(challenge("nobody"), challenge("nobody"));
    assert_ne!(challenge("nobody"), challenge("no one"));
    assert!(challenge("nobody").starts_with("r=clientserver,s=") && challenge("nobody").ends_with(",i=4096"));

    let known = talk(ClientMethod::ScramSha256, Some(&plain("a")), "", None, password("b"), local());
    let unknown = talk(ClientMethod::ScramSha256, None, "", None, password("b"), local());
    let (End::ClientRefused(known), End::ClientRefused(unknown)) = (known, unknown) else { panic!("someone got in") };
    assert_eq!(known.to_string(), "password authentication failed for user \"ann\"");
    assert_eq!(known.to_string(), unknown.to_string());
    assert_eq!((known.sqlstate(), unknown.sqlstate()), ("28P01", "28P01"));
}

#[test]
fn password_messages() {
    let stored = plain("sesame");
    let check = |body: &[u8], expected: ClientAuthError, sqlstate| {
        let (mut machine, _, _) = start(ClientMethod::Password, Some(&stored), None);
        assert_eq!(expected.sqlstate(), sqlstate);
        assert_eq!(machine.on_password_message(body, &mut BytesMut::new()), Err(expected));
    };
    check(b"", ClientAuthError::PasswordPacketSize, "08P01");
    check(b"\0", ClientAuthError::EmptyPassword, "28P01");
    check(b"sesame", ClientAuthError::PasswordPacketSize, "08P01");
    check(b"ses\0ame\0", ClientAuthError::PasswordPacketSize, "08P01");
    check(&vec![b'a'; 65536], ClientAuthError::MessageTooLong, "08P01");
    let (mut machine, _, _) = start(ClientMethod::ScramSha256, Some(&stored), None);
    assert_eq!(machine.on_password_message(&[b'a'; 1025], &mut BytesMut::new()), Err(ClientAuthError::MessageTooLong));
    // Trust asks for nothing.
    let (mut machine, step, mut out) = start(ClientMethod::Trust, None, None);
    assert_eq!(step, ClientStep::Accepted(Credentials::None));
    assert_eq!(bodies(b'R', &mut out), [[0, 0, 0, 0]]);
    assert_eq!(machine.on_password_message(b"x\0", &mut BytesMut::new()), Err(ClientAuthError::Unexpected));
    assert_eq!(machine.conclude(true, &mut BytesMut::new()), Err(ClientAuthError::Unexpected));
}

#[test]
fn a_challenge_is_known_beforehand_to_cost_time() {
    let check = |message: &[u8], expected: bool| {
        let mut machine = ServerAuth::new("ann", password("sesame"), local());
        assert!(!machine.derives_key_next());
        assert_eq!(machine.on_authentication(message, &mut BytesMut::new()), Ok(ServerStep::Wait));
        assert_eq!(machine.derives_key_next(), expected);
    };
    check(b"\0\0\0\x0aSCRAM-SHA-256\0\0", true);
    check(&[0, 0, 0, 3], false);
    check(&[0, 0, 0, 5, 1, 2, 3, 4], false);
}

#[test]
fn what_servers_may_not_do() {
    let check = |credentials: Credentials, link: ServerLink, messages: &[&[u8]], expected: &str| {
        let mut machine = ServerAuth::new("ann", credentials, link);
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            assert_eq!(machine.on_authentication(message, &mut BytesMut::new()), Ok(ServerStep::Wait));
        }
        let mut out = BytesMut::new();
        let error = machine.on_authentication(last, &mut out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(out.is_empty(), "something was sent");
        assert!(!error.contains("sesame"));
        assert!(machine.on_authentication(&[0; 4], &mut out).is_err(), "the machine goes on after an error");
    };
    let right = || password("sesame");
    let sasl: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256\0\0";
    check(right(), ServerLink::default(), &[&[0, 0, 0, 3]], "clear text over a connection that is not encrypted");
    check(
        Credentials::None,
        local(),
        &[&[0, 0, 0, 3]],
        "asks for password authentication of user \"ann\", and no password",
    );
    check(Credentials::None, local(), &[&[0, 0, 0, 5, 1, 2, 3, 4]], "asks for md5");
    check(Credentials::None, local(), &[sasl], "asks for SCRAM-SHA-256");
    let hash = Credentials::Md5(Md5Hash::of(&Secret::new("sesame"), "ann"));
    check(hash, local(), &[sasl], "only the md5 form of its password is known");
    check(right(), local(), &[&[0, 0, 0, 5, 1, 2, 3]], "salt");
    check(right(), local(), &[&[0, 0]], "no code");
    check(right(), local(), &[&[0, 0, 0, 7]], "GSSAPI authentication, which is not supported");
    check(right(), local(), &[&[0, 0, 0, 9]], "SSPI");
    check(right(), local(), &[&[0, 0, 0, 2]], "Kerberos V5");
    check(right(), local(), &[&[0, 0, 0, 99]], "unknown (code 99)");
    check(right(), local(), &[b"\0\0\0\x0aOAUTHBEARER\0\0"], "it offers: OAUTHBEARER");
    check(right(), local(), &[b"\0\0\0\x0aSCRAM-SHA-256"], "list does not end");
    check(right(), local(), &[b"\0\0\0\x0bchallenge"], "out of turn");
    check(right(), local(), &[sasl, sasl], "out of turn");
    // A server that cannot finish the exchange must not get away with a yes.
    check(right(), local(), &[sasl, &[0, 0, 0, 0]], "before the end of the SCRAM exchange");
    check(right(), local(), &[sasl, b"\0\0\0\x0br=other,s=AAAA,i=4096"], "invalid nonce");
    check(right(), local(), &[sasl, b"\0\0\0\x0cv=AAAA"], "out of turn");
}

/// The server must prove that it knows the password: here it forges its last message.
#[test]
fn a_server_without_the_verifier_is_found_out() {
    let stored = plain("sesame");
    let (mut ours, _, mut out) = start(ClientMethod::ScramSha256, Some(&stored), None);
    let mut theirs = ServerAuth::new("ann", password("sesame"), local());
    let mut answers = BytesMut::new();
    for _ in 0..2 {
        for body in bodies(b'R', &mut out) {
            theirs.on_authentication(&body, &mut answers).unwrap();
        }
        for body in bodies(b'p', &mut answers) {
            ours.on_password_message(&body, &mut out).unwrap();
        }
    }
    let mut last = bodies(b'R', &mut out).remove(0);
    last[8] = if last[8] == b'A' { b'B' } else { b'A' };
    let error = theirs.on_authentication(&last, &mut answers).unwrap_err();
    assert!(matches!(error, ServerAuthError::Scram(_)), "{error}");
}

#[test]
fn stored_passwords() {
    let verifier = postgres_protocol::password::scram_sha_256(b"sesame");
    assert_eq!(StoredPassword::parse(&verifier).unwrap().credentials(), Credentials::None);
    let md5 = postgres_protocol::password::md5(b"sesame", "ann");
    let hash = Md5Hash::of(&Secret::new("sesame"), "ann");
    assert_eq!(StoredPassword::parse(&md5).unwrap().credentials(), Credentials::Md5(hash));
    for text in ["sesame", "md5", "md5 is not a hash, nor is this one!!", "SCRAM-SHA-256"] {
        assert_eq!(StoredPassword::parse(text).unwrap().credentials(), password(text));
    }
    for text in [
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        &verifier.replace("4096", "x"),
        &verifier[..verifier.len() - 1],
        &verifier.replace(':', ";"),
    ] {
        assert_eq!(StoredPassword::parse(text).unwrap_err(), VerifierError::Scram, "{text}");
    }
    assert_eq!(StoredPassword::parse("").unwrap_err(), VerifierError::Empty);
    assert_eq!(StoredPassword::parse("a\0b").unwrap_err(), VerifierError::Nul);
}

/// The digest that postgres-protocol's own test has.
#[test]
fn md5_response() {
    let hash = Md5Hash::of(&Secret::new("password"), "md5_user");
    assert_eq!(hash.response([0x2a, 0x3d, 0x8f, 0xe0]).as_str(), "md562af4dd09bbb41884907a838a3233294");
}

#[test]
fn nothing_prints_a_secret() {
    let stored = plain("sesame");
    stored.scram();
    let md5 = Md5Hash::of(&Secret::new("sesame"), "ann");
    let shown = format!("{stored:?} {:?} {:?} {:?}", stored.credentials(), md5, MockSecret::from_bytes(MOCK));
    let stored = stored.scram().unwrap();
    for secret in ["sesame", &md5.response([0; 4])[3..], &stored.salt, "7, 7", "[115"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

proptest! {
    /// No input makes either machine panic, and none but the right one gets in.
    #[test]
    fn no_input_gets_in(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5), method in 0_usize..3) {
        let method = [ClientMethod::ScramSha256, ClientMethod::Md5, ClientMethod::Password][method];
        let stored = md5_only("sesame");
        let (mut ours, _, mut out) = start(method, Some(&stored), None);
        for body in &bodies {
            let step = ours.on_password_message(body, &mut out);
            prop_assert!(!matches!(step, Ok(ClientStep::Accepted(_))));
        }
    }

    #[test]
    fn scram_messages_never_panic(head in "[nyp],{0,2}", tail in "([a-z]?=?[a-zA-Z0-9+/=]{0,9},?){0,5}", last in "(c=biws,)?(r=[ab]{0,3}nonce,?)?([a-z]=[A-Z]{0,44},?){0,3}") {
        let verifier = ScramVerifier::mock("ann", &MockSecret::from_bytes(MOCK));
        let mut exchange = ScramExchange::new(verifier, false, Binding::NotOffered, "nonce");
        let message = format!("{head}{tail}");
        if exchange.first(message.as_bytes()).is_ok() {
            prop_assert!(exchange.last(last.as_bytes()).is_err());
        }
    }

    #[test]
    fn servers_cannot_make_us_panic(messages in prop::collection::vec((0_u32..14, prop::collection::vec(any::<u8>(), 0..60)), 1..4)) {
        let mut theirs = ServerAuth::new("ann", password("sesame"), local());
        for (code, data) in messages {
            let body = [&code.to_be_bytes()[..], &data].concat();
            let _ = theirs.on_authentication(&body, &mut BytesMut::new());
        }
    }
}
