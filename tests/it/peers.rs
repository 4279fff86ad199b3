//! Cancel requests that reach another gateway than the one that runs the statement.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Certificates, Gateway, Raw, Setup, database, direct, eventually, query, sqlstate, startup, tool};

const V3_0: u32 = 196_608;
const V3_2: u32 = 196_610;

/// Gateway 1, and gateway 2, which knows it.
fn two() -> (Gateway<'static>, Gateway<'static>) {
    let one = Gateway::setup().more("[peers]\nid = 1").start();
    let two = knowing(&one, Gateway::setup(), "");
    (one, two)
}

/// Gateway 2, which knows `one` as 1.
fn knowing(one: &Gateway<'_>, setup: Setup<'static>, lines: &str) -> Gateway<'static> {
    setup.more(&format!("[peers]\nid = 2\n{lines}\nnodes = {{ 1 = \"127.0.0.1:{}\" }}", one.port)).start()
}

/// A session that runs something long, and its key.
fn sleeper(gateway: &Gateway<'_>, database: &str, version: u32) -> (Raw, u32, Vec<u8>) {
    let mut raw = Raw::connect(gateway.port);
    raw.send(&startup(version, &[("user", "demo"), ("database", database)]));
    let greeting = raw.until(b'Z');
    let (_, key) = greeting.iter().find(|(tag, _)| *tag == b'K').expect("every session has a key");
    raw.send(&query("SELECT pg_sleep(15)"));
    eventually("the statement to run", || {
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND query ~ 'sleep' AND state = 'active'"
        );
        gateway.cluster.nodes().iter().any(|node| node.psql("postgres", &running).unwrap() != "0")
    });
    (raw, u32::from_be_bytes([key[0], key[1], key[2], key[3]]), key[4..].to_vec())
}

/// Asks `gateway` to cancel, and waits until it has closed the connection.
fn cancel(gateway: &Gateway<'_>, pid: u32, secret: &[u8]) -> Duration {
    let start = Instant::now();
    let mut raw = Raw::connect(gateway.port);
    let length = 12 + secret.len() as u32;
    raw.send(&[&length.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &pid.to_be_bytes(), secret].concat());
    assert_eq!(raw.rest(), [], "a cancel request is not answered");
    start.elapsed()
}

/// What a session's statement ended with; whether it did so early.
fn outcome(raw: &mut Raw) -> String {
    let answer = raw.until(b'Z');
    answer.iter().find(|(tag, _)| *tag == b'E').map_or_else(|| "done".to_owned(), |(_, body)| sqlstate(body))
}

/// Requests passed on, and not passed on though they were for another gateway.
#[track_caller]
fn forwarded(gateway: &Gateway<'_>) -> [u64; 2] {
    let (_, page) = gateway.admin("/metrics").expect("the admin listener answers");
    ["success", "failure"].map(|result| {
        let name = format!("pointsman_cancels_forwarded_total{{result=\"{result}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(name.as_str()));
        line.unwrap_or_else(|| panic!("{name} is missing")).parse().unwrap()
    })
}

#[test]
fn a_request_is_passed_on_to_whom_it_concerns() {
    if direct() {
        return;
    }
    let database = database("peers");
    let (one, two) = two();
    for (version, length) in [(V3_0, 4), (V3_2, 32)] {
        let (mut session, pid, secret) = sleeper(&one, &database, version);
        assert_eq!((secret.len(), pid >> 21), (length, 1), "a key of gateway 1");
        // Wrong secrets, of this length and of others, do nothing.
        let mut wrong = secret.clone();
        wrong[0] ^= 1;
        for wrong in [&wrong[..], &secret[..1], &[secret.as_slice(), b"x"].concat()] {
            cancel(&two, pid, wrong);
        }
        let before = Instant::now();
        cancel(&two, pid, &secret);
        assert_eq!(outcome(&mut session), "57014");
        assert!(before.elapsed() < Duration::from_secs(5), "it ended late: {:?}", before.elapsed());
        // And its own gateway takes it as before.
        let (mut session, pid, secret) = sleeper(&one, &database, version);
        cancel(&one, pid, &wrong);
        cancel(&one, pid, &secret);
        assert_eq!(outcome(&mut session), "57014");
    }
    assert_eq!((forwarded(&one), forwarded(&two)), ([0, 0], [8, 0]));
}

#[test]
fn who_is_not_known_or_not_there_costs_the_request_alone() {
    if direct() {
        return;
    }
    let database = database("peers_unknown");
    // Accepts and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nodes = format!("3 = \"{}\", 4 = \"{gone}\"", silent.local_addr().unwrap());
    let gateway =
        Gateway::setup().more(&format!("[peers]\nid = 2\ntimeout = \"700ms\"\nnodes = {{ {nodes} }}")).start();
    for (id, word, least) in [(5, "no such number", 0), (4, "onnection refused", 0), (3, "within", 600)] {
        let before = forwarded(&gateway)[1];
        let took = cancel(&gateway, id << 21 | 77, b"abcd");
        assert!(took < Duration::from_secs(10) && took >= Duration::from_millis(least), "{id}: {took:?}");
        eventually("the failure to be counted", || forwarded(&gateway) == [0, before + 1]);
        assert!(gateway.log().contains(word), "{word}:\n{}", gateway.log());
    }
    // No gateway's, and its own without a session: nothing to pass on.
    for pid in [77, 2 << 21 | 77] {
        cancel(&gateway, pid, b"abcd");
    }
    assert_eq!(forwarded(&gateway), [0, 3]);
    assert_eq!(gateway.query(&database, "SELECT 1"), "1");
}

#[test]
fn no_request_goes_in_circles() {
    if direct() {
        return;
    }
    let database = database("peers_loop");
    let (one, two) = two();
    // Each takes the other for gateway 3; a reload says so.
    for (gateway, other) in [(&one, &two), (&two, &one)] {
        let file = gateway.path("pointsman.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, _) = text.split_once("[peers]").unwrap();
        let id = if gateway.port == one.port { 1 } else { 2 };
        let new = format!("{before}[peers]\nid = {id}\nnodes = {{ 3 = \"127.0.0.1:{}\" }}\n", other.port);
        std::fs::write(&file, new).unwrap();
        eventually("the reload", || gateway.log().contains("peers.nodes.3"));
    }
    cancel(&one, 3 << 21 | 5, b"abcd");
    eventually("the end of its way", || forwarded(&two) == [0, 1]);
    assert_eq!(forwarded(&one), [1, 0]);
    assert!(two.log().contains("is not for here"), "{}", two.log());
    // A client that claims to be a peer gets no further than that.
    let (mut session, pid, secret) = sleeper(&one, &database, V3_0);
    cancel(&two, pid | 1 << 31, &secret);
    assert_eq!(forwarded(&two), [0, 2]);
    cancel(&one, pid | 1 << 31, &secret);
    assert_eq!(outcome(&mut session), "57014");
}

#[test]
fn peers_are_told_through_tls() {
    if direct() {
        return;
    }
    let database = database("peers_tls");
    let certificates = Certificates::shared();
    let one = Gateway::setup()
        .file("server.crt", &certificates.server)
        .file("server.key", &certificates.server_key)
        .server("tls = { cert = \"server.crt\", key = \"server.key\" }")
        .more("[peers]\nid = 1")
        .start();
    for (authority, tells) in [(&certificates.ca, true), (&certificates.other_ca, false)] {
        let setup = Gateway::setup().file("ca.crt", authority);
        let two = knowing(&one, setup, "tls = { mode = \"verify-full\", ca = \"ca.crt\" }");
        let (mut session, pid, secret) = sleeper(&one, &database, V3_0);
        cancel(&two, pid, &secret);
        eventually("the request to be counted", || forwarded(&two) == if tells { [1, 0] } else { [0, 1] });
        if !tells {
            cancel(&one, pid, &secret);
        }
        assert_eq!(outcome(&mut session), "57014");
    }
}

/// A TCP load balancer that gives each connection to the next of `ports`, until the process ends.
fn balancer(ports: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let next = AtomicUsize::new(0);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let port = ports[next.fetch_add(1, Ordering::Relaxed) % ports.len()];
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut bytes) {
                        if to.write_all(&bytes[..read]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn libpq_cancels_through_a_load_balancer() {
    if direct() {
        return;
    }
    let database = database("peers_balanced");
    let (one, two) = two();
    let port = balancer(vec![one.port, two.port]);
    let mut psql = tool("psql")
        .args(["-XqAt", "-c", "SELECT pg_sleep(15)", &format!("postgres://demo@127.0.0.1:{port}/{database}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the statement to run", || {
        let running =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND query ~ 'pg_sleep'");
        one.cluster.nodes().iter().any(|node| node.psql("postgres", &running).unwrap() != "0")
    });
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(&psql);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = psql.wait().unwrap();
    let mut said = String::new();
    psql.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("canceling statement due to user request"), "{status}: {said}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(forwarded(&two), [1, 0]);
}
