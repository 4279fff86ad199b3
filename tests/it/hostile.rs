//! Clients that break the protocol, by mistake or on purpose: an error or a cut, never a crash, and the next client is
//! served.

use std::time::{Duration, Instant};

use crate::support::{Gateway, PASSWORD, Raw, database, direct, message, run_with, sqlstate, startup, succeed, tool};

const VERSION_3_0: u32 = 196_608;

/// After whatever happened, the gateway serves.
#[track_caller]
fn serves(gateway: &Gateway<'_>, database: &str) {
    assert_eq!(gateway.query(database, "SELECT 'alive'"), "alive");
}

/// How much resident memory a gateway has come to need since it was asked first, at most.
struct Memory(Option<u64>);

impl Memory {
    fn of(gateway: &Gateway<'_>) -> Self {
        Self(gateway.peak_memory())
    }

    #[track_caller]
    fn check(&self, gateway: &Gateway<'_>, mebibytes: u64) {
        if let (Some(before), Some(after)) = (self.0, gateway.peak_memory()) {
            println!("figure: memory grew by {} KiB of {mebibytes} MiB", (after - before) >> 10);
            assert!(after - before < mebibytes << 20, "memory grew by {} KiB", (after - before) >> 10);
        }
    }
}

#[test]
fn start_up_packets() {
    let database = database("hostile_startup");
    let gateway = Gateway::start();
    serves(&gateway, &database);
    let memory = Memory::of(&gateway);
    let good = startup(VERSION_3_0, &[("user", "demo"), ("database", &database)]);
    let unterminated = {
        let mut bytes = good.clone();
        bytes.pop();
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("length of 1 GiB", [&0x4000_0000_u32.to_be_bytes()[..], &VERSION_3_0.to_be_bytes(), &[b'x'; 100]].concat()),
        (
            "a GiB of which 32 MiB come",
            [&0x4000_0000_u32.to_be_bytes()[..], &VERSION_3_0.to_be_bytes(), &vec![b'x'; 32 << 20]].concat(),
        ),
        ("length of 2^32 - 1", [&u32::MAX.to_be_bytes()[..], &VERSION_3_0.to_be_bytes()].concat()),
        ("length 0", vec![0; 8]),
        ("length 3", [&3_u32.to_be_bytes()[..], &[0; 8]].concat()),
        ("length 7", [&7_u32.to_be_bytes()[..], &[0; 8]].concat()),
        ("parameters without an end", unterminated),
        ("a name without a value", [&15_u32.to_be_bytes()[..], &VERSION_3_0.to_be_bytes(), b"user\0x\0"].concat()),
        ("no user", startup(VERSION_3_0, &[("database", &database)])),
        ("version 2.0", startup(0x0002_0000, &[("user", "demo")])),
        ("version 4.0", startup(0x0004_0000, &[("user", "demo")])),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS without asking", [&[0x16, 3, 1, 2, 0, 1, 0, 1][..], &[7; 512]].concat()),
        ("Terminate", message(b'X', b"")),
        ("a query first", message(b'Q', b"SELECT 1\0")),
        (
            "a cancel request that is too short",
            [&12_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &[0; 4]].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::connect(gateway.port);
        raw.send(&bytes);
        // Nothing more comes from us.
        raw.close_writing();
        let answer = raw.rest();
        assert!(answer.iter().all(|(tag, _)| matches!(tag, b'E' | b'v')), "{what}: {answer:?}");
        // A length that cannot be a start-up packet's is not answered, by PostgreSQL neither. node-postgres says Terminate when
        // it gives up before it began, and an application that heard of an error then ended.
        let silent = what.starts_with("length") || ["HTTP", "a query first", "Terminate"].contains(&what);
        assert!(!silent || answer.is_empty(), "{what}: {answer:?}");
        serves(&gateway, &database);
    }
    // Asked for twice, TLS is refused twice or the connection is cut; afterwards a plain start-up still works.
    let mut raw = Raw::connect(gateway.port);
    if !direct() {
        for _ in 0..2 {
            raw.send(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]);
            if raw.byte() != Some(b'N') {
                break;
            }
        }
    }
    serves(&gateway, &database);
    memory.check(&gateway, 16);
}

#[test]
fn messages_instead_of_a_password() {
    let database = database("hostile_password");
    let quoted = toml::Value::String(PASSWORD.into()).to_string();
    let gateway = Gateway::setup().more(&format!("[users.scram_user]\npassword = {quoted}\n")).start();
    let memory = Memory::of(&gateway);
    let long = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes(), &vec![b'x'; 8 << 20]].concat();
    for (what, bytes) in [
        ("a query", message(b'Q', b"SELECT 1\0")),
        ("a Sync", message(b'S', b"")),
        ("a Parse and all that follows", [message(b'P', b"\0SELECT 1\0\0\0"), message(b'S', b"")].concat()),
        ("a Terminate", message(b'X', b"")),
        ("an empty password", message(b'p', b"")),
        ("rubbish", message(b'p', &[0xff; 100])),
        ("an unknown mechanism", message(b'p', b"PLAIN\0\0\0\0\x04abcd")),
        ("a negative length inside", message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xf0")),
        ("a nonce that is none", message(b'p', b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=")),
        ("a second start-up packet", startup(VERSION_3_0, &[("user", "demo")])),
        ("a password of 1 GiB, of which 8 MiB come", long(b'p', 0x4000_0000)),
        ("a password of 2^32 - 1 bytes", long(b'p', u32::MAX)),
        ("a length below 4", vec![b'p', 0, 0, 0, 3]),
    ] {
        let mut raw = Raw::connect(gateway.port);
        raw.send(&startup(VERSION_3_0, &[("user", "scram_user"), ("database", &database)]));
        let asked = raw.message().map(|(tag, body)| (tag, body[3]));
        // AuthenticationSASL.
        assert_eq!(asked, Some((b'R', 10)), "{what}");
        raw.send(&bytes);
        raw.close_writing();
        let answer = raw.rest();
        assert!(answer.iter().all(|(tag, _)| *tag == b'E'), "{what}: {answer:?}");
        let mut psql = tool("psql");
        psql.env("PGPASSWORD", PASSWORD).args(["-XqAtw", "-c", "SELECT 'alive'"]);
        assert_eq!(succeed(psql.arg(gateway.url_for("scram_user", &database))), "alive", "{what}");
    }
    memory.check(&gateway, 16);
}

#[test]
fn messages_after_log_in() {
    let database = database("hostile_messages");
    let gateway = Gateway::start();
    serves(&gateway, &database);
    let memory = Memory::of(&gateway);
    let bind_short = message(b'B', b"\0");
    let of_a_gib = |tag: u8| [&[tag][..], &0x3fff_0000_u32.to_be_bytes(), &vec![b'x'; 32 << 20]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("unknown tag", message(b'?', b"x")),
        ("tag 0", message(0, b"")),
        ("length below 4", vec![b'Q', 0, 0, 0, 3]),
        ("negative length", vec![b'Q', 0xff, 0xff, 0xff, 0xf0]),
        ("a Query of 2 GiB", vec![b'Q', 0x7f, 0xff, 0xff, 0xff]),
        ("a Query of 1 GiB, of which 32 MiB come", of_a_gib(b'Q')),
        ("a Parse of 1 GiB, of which 32 MiB come", of_a_gib(b'P')),
        ("a Bind of 1 GiB, of which 32 MiB come", of_a_gib(b'B')),
        ("COPY data of 1 GiB out of turn, of which 32 MiB come", of_a_gib(b'd')),
        ("a Sync of 100 MB", [&[b'S'][..], &100_000_000_u32.to_be_bytes()].concat()),
        ("a Query without its NUL", message(b'Q', b"SELECT 1")),
        ("an empty Parse", message(b'P', b"")),
        ("a Parse whose types are missing", message(b'P', b"\0SELECT 1\0\0\x05")),
        ("a short Bind", bind_short),
        ("a Bind with a wrong count", message(b'B', b"\0\0\0\0\xff\xff\0\0")),
        ("a Describe of nothing known", message(b'D', b"Z\0")),
        ("a Close of nothing known", message(b'C', b"Q\0")),
        ("a password out of turn", message(b'p', b"secret\0")),
        ("a server's message", message(b'Z', b"I")),
        ("an Execute without a portal", message(b'E', b"nowhere\0\0\0\0\0")),
        ("a function call of rubbish", message(b'F', b"\xff\xff\xff\xff\0\x01\0\x01\0\x01")),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::log_in(gateway.port, "demo", &database);
        raw.send(&bytes);
        raw.send(&message(b'S', b""));
        raw.close_writing();
        let answer = raw.rest();
        assert!(
            answer.iter().all(|(tag, _)| matches!(tag, b'E' | b'N' | b'Z' | b'S')),
            "{what}: {:?}",
            answer.iter().map(|(tag, _)| *tag as char).collect::<String>()
        );
        serves(&gateway, &database);
    }
    memory.check(&gateway, 16);
}

#[test]
fn messages_out_of_order_are_answered_as_postgresql_does() {
    let database = database("hostile_order");
    let gateway = Gateway::start();
    let mut raw = Raw::log_in(gateway.port, "demo", &database);
    let mut check = |what: &str, bytes: Vec<u8>, expected: &[&str]| {
        raw.send(&bytes);
        let states: Vec<String> =
            raw.until(b'Z').iter().filter(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).collect();
        assert_eq!(states, expected, "{what}");
    };
    let sync = || message(b'S', b"");
    check("COPY data outside of a COPY", [message(b'd', b"x"), message(b'c', b""), sync()].concat(), &[]);
    check("an unknown portal", [message(b'E', b"p\0\0\0\0\0"), sync()].concat(), &["34000"]);
    check("an unknown statement", [message(b'D', b"Ss\0"), sync()].concat(), &["26000"]);
    check("Bind to an unknown statement", [message(b'B', b"\0s\0\0\0\0\0\0\0"), sync()].concat(), &["26000"]);
    // After an error all is skipped up to the Sync.
    let skipped =
        [message(b'P', b"\0SELEC\0\0\0"), message(b'P', b"\0SELECT 1\0\0\0"), message(b'H', b""), sync()].concat();
    check("skipping", skipped, &["42601"]);
    check(
        "the same name twice",
        [message(b'P', b"a\0SELECT 1\0\0\0"), message(b'P', b"a\0SELECT 2\0\0\0"), sync()].concat(),
        &["42P05"],
    );
    check("closing what is not there", [message(b'C', b"Snone\0"), message(b'C', b"Pnone\0"), sync()].concat(), &[]);
    check("an empty query", message(b'Q', b"\0"), &[]);
    check("a hundred Syncs", sync(), &[]);
    check("and a plain query", message(b'Q', b"SELECT 1\0"), &[]);
}

/// PostgreSQL answers with an ERROR, then a FATAL, and closes: what it read ahead of that message is not known to be whole.
#[test]
fn another_message_in_the_middle_of_a_copy_ends_the_session() {
    let database = database("hostile_copy");
    let gateway = Gateway::start();
    gateway.query(&database, "CREATE TABLE t (n int)");
    let copy = [message(b'P', b"\0COPY t FROM STDIN\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    let (data, parse, sync) = (message(b'd', b"1\n"), message(b'P', b"\0SELECT 1\0\0\0"), message(b'S', b""));
    for together in [true, false] {
        let mut raw = Raw::log_in(gateway.port, "demo", &database);
        if together {
            raw.send(&[copy.as_slice(), &data, &parse, &sync].concat());
        } else {
            raw.send(&copy);
            raw.until(b'G');
            raw.send(&[data.as_slice(), &parse, &sync].concat());
        }
        let rest = raw.rest();
        let mut errors = rest.iter().filter(|(tag, _)| *tag == b'E');
        let severity = |body: &[u8]| String::from_utf8_lossy(&body[1..6]).into_owned();
        let last = errors.next_back().map(|(_, body)| (severity(body), sqlstate(body)));
        assert_eq!(last, Some(("FATAL".to_owned(), "08P01".to_owned())), "together: {together}");
        assert!(rest.iter().all(|(tag, _)| *tag != b'Z'), "together: {together}");
    }
    assert_eq!(gateway.query(&database, "SELECT count(*) FROM t"), "0");
    serves(&gateway, &database);
}

#[test]
fn statements_made_to_exhaust_a_parser() {
    let database = database("hostile_sql");
    let gateway = Gateway::start();
    let sum = format!("SELECT {}1", "1+".repeat(3_000));
    assert_eq!(succeed(gateway.psql(&database).args(["-c", &sum])), "3001");
    let memory = Memory::of(&gateway);
    for (what, sql) in [
        ("80 KB of sums", format!("SELECT {}1", "1+".repeat(40_000))),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(30_000), ")".repeat(30_000))),
        ("NOT", format!("SELECT {} true", "NOT ".repeat(20_000))),
        ("UNION", format!("SELECT 1{}", " UNION SELECT 1".repeat(3_000))),
        ("CASE", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(3_000), " END".repeat(3_000))),
        ("an open comment", format!("SELECT 1 {}", "/*".repeat(5_000))),
        ("an open string", format!("SELECT '{}", "x".repeat(100_000))),
        ("dollar quotes", format!("SELECT {}", "$a$ $b$".repeat(10_000))),
        ("bytes that are not UTF-8", "SELECT '\u{fffd}'".replace('\u{fffd}', "\u{1}")),
    ] {
        let output = run_with(gateway.psql(&database).args(["-v", "ON_ERROR_STOP=0"]), &format!("{sql}\n;\n"));
        // PostgreSQL answers, or says that it is too deep; psql itself never finds the connection lost.
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!error.contains("connection"), "{what}: {error}\n{}", gateway.log());
        serves(&gateway, &database);
    }
    memory.check(&gateway, 64);
}

#[test]
fn slow_and_many_and_silent() {
    if direct() {
        return;
    }
    let database = database("hostile_slow");
    let gateway = Gateway::setup().server("client_login_timeout = \"1s\"\nmax_clients = 300").start();
    let memory = Memory::of(&gateway);
    // A start-up packet, a byte at a time, never whole.
    let mut slow = Raw::connect(gateway.port);
    let start = Instant::now();
    let packet = startup(VERSION_3_0, &[("user", "demo"), ("database", &database)]);
    for byte in packet.iter().take(packet.len() - 1) {
        slow.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(5));
    }
    let answer = slow.rest();
    assert!(answer.iter().all(|(tag, _)| *tag == b'E'), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "cut after {:?}", start.elapsed());
    // Many that say nothing, or half of something: they are cut, and meanwhile others are served.
    let mut silent: Vec<Raw> = (0..200).map(|_| Raw::connect(gateway.port)).collect();
    for raw in silent.iter_mut().step_by(2) {
        raw.send(&packet[..6]);
    }
    serves(&gateway, &database);
    for raw in &mut silent {
        assert!(raw.rest().iter().all(|(tag, _)| *tag == b'E'));
    }
    memory.check(&gateway, 32);
    // The same after the log-in: messages that never become whole. What is not yet routed is held up to `hold_limit`.
    let mut slow: Vec<Raw> = (0..200).map(|_| Raw::log_in(gateway.port, "demo", &database)).collect();
    let long = message(b'Q', &vec![b' '; 60_000]);
    for (number, raw) in slow.iter_mut().enumerate() {
        let part = [5, 6, 1000, long.len() - 1][number % 4];
        raw.send(&long[..part]);
    }
    for _ in 0..20 {
        for raw in &mut slow {
            raw.send(b" ");
        }
        serves(&gateway, &database);
    }
    memory.check(&gateway, 64);
    serves(&gateway, &database);
}

#[test]
fn more_clients_than_the_system_has_files_for() {
    if direct() {
        return;
    }
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    let database = database("hostile_files");
    let gateway = Gateway::start();
    let mut inside = Raw::log_in(gateway.port, "demo", &database);
    let pid = gateway.pid().unwrap();
    // It has raised its soft limit to the hard one, which it has from us.
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = getrlimit(Resource::Nofile).maximum.map_or("unlimited".to_owned(), |files| files.to_string());
    let values: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values, [&hard, &hard], "{files}");

    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let few = Rlimit { current: Some(open + 4), maximum: Some(open + 4) };
    prlimit(Some(Pid::from_raw(pid as i32).unwrap()), Resource::Nofile, few).unwrap();
    let asks = startup(VERSION_3_0, &[("user", "demo"), ("database", &database)]);
    let silent: Vec<Raw> = (0..20).map(|_| Raw::connect(gateway.port)).collect();
    crate::support::eventually("a client is told that there is no room", || {
        let mut next = Raw::connect(gateway.port);
        next.send(&asks);
        let answer = next.message();
        assert!(answer.is_some(), "closed without a word");
        answer.is_some_and(|(tag, body)| tag == b'E' && sqlstate(&body) == "53300")
    });
    // Who is in is served, and afterwards everybody.
    inside.send(&message(b'Q', b"SELECT pg_backend_pid()\0"));
    assert!(inside.until(b'Z').iter().any(|(tag, _)| *tag == b'D'));
    drop(silent);
    crate::support::eventually("others get in again", || {
        let mut next = Raw::connect(gateway.port);
        next.send(&asks);
        next.message().is_some_and(|(tag, _)| tag == b'R')
    });
    assert!(gateway.log().matches("cannot be accepted").count() <= 2, "{}", gateway.log());
}
