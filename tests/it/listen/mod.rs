//! LISTEN in transaction mode: many listeners, few server connections, and what each hears is what PostgreSQL lets it hear.

mod lag;
mod upheaval;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::{Gateway, Raw, database, direct, eventually, message, sqlstate, startup};

/// A client and what it hears: channel and payload.
struct Listener {
    client: Client,
    heard: UnboundedReceiver<(String, String)>,
}

impl Listener {
    async fn connect(gateway: &Gateway<'_>, database: &str) -> Self {
        let (client, mut connection) = tokio_postgres::connect(&gateway.url(database), NoTls).await.unwrap();
        let (sender, heard) = unbounded_channel();
        tokio::spawn(async move {
            let mut messages = pin!(futures_util::stream::poll_fn(move |context| connection.poll_message(context)));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(told) = message {
                    let _ = sender.send((told.channel().to_owned(), told.payload().to_owned()));
                }
            }
        });
        Self { client, heard }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn next(&mut self) -> (String, String) {
        let next = tokio::time::timeout(Duration::from_secs(30), self.heard.recv()).await;
        next.expect("a notification").expect("the session lives")
    }

    /// What pg_listening_channels() says.
    async fn channels(&self) -> Vec<String> {
        let rows = self.client.query("SELECT * FROM pg_listening_channels() AS c ORDER BY c", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// The value of a metric without labels, or with those given.
fn metric(gateway: &Gateway<'_>, name: &str) -> u64 {
    let (_, text) = gateway.admin("/metrics").expect("the admin listener answers");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

const PINNED: &str = "pointsman_sessions_pinned{cause=\"LISTEN\"}";
const SESSIONS: &str = "pointsman_listen_sessions";
const CONNECTIONS: &str = "pointsman_listen_connections";

fn notify(gateway: &Gateway<'_>, database: &str, channel: &str, payload: &str) {
    gateway.cluster.primary().psql(database, &format!("SELECT pg_notify('{channel}', '{payload}')")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_listeners_keep_no_server_each() {
    let database = database("listeners");
    let gateway = Gateway::setup().pool("size = 3\nquery_wait = \"60s\"").start();
    let count = if direct() { 30 } else { 200 };
    let mut listeners = join_all((0..count).map(|_| Listener::connect(&gateway, &database))).await;
    join_all(listeners.iter().map(|listener| listener.run("LISTEN news"))).await;
    if !direct() {
        assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (200, 0));
        assert_eq!((metric(&gateway, CONNECTIONS), metric(&gateway, "pointsman_listen_channels")), (1, 1));
    }
    let stop = AtomicBool::new(false);
    let workers = join_all((0..20).map(async |n: i32| {
        let client = gateway.connect(&database).await;
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let row = client.query_one("SELECT $1::int, pg_current_xact_id()::text", &[&n]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), n);
            done += 1;
        }
        done
    }));
    let speak = async {
        let speaker = gateway.connect(&database).await;
        for n in 1..=50 {
            speaker.batch_execute(&format!("NOTIFY news, '{n}'")).await.unwrap();
        }
        for listener in &mut listeners {
            for n in 1..=50 {
                assert_eq!(listener.next().await, ("news".to_owned(), n.to_string()));
            }
        }
        if !direct() {
            eventually("the pool's connections, the shared one", || gateway.server_sessions(&database) <= 4);
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (done, ()) = tokio::join!(workers, speak);
    assert!(done.iter().all(|done| *done > 0), "{done:?}");
    for listener in &mut listeners {
        assert!(listener.heard.try_recv().is_err(), "heard twice");
    }
    drop(listeners);
    if !direct() {
        eventually("the shared connection closes", || metric(&gateway, CONNECTIONS) == 0);
    }
}

#[tokio::test]
async fn transactions_say_what_is_listened_to() {
    let database = database("listen_transactions");
    let gateway = Gateway::setup().pool("size = 2").start();
    let mut listener = Listener::connect(&gateway, &database).await;
    listener.run("CREATE TABLE checked (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await;
    for (sql, expected) in [
        ("BEGIN; LISTEN a; ROLLBACK", &[][..]),
        ("LISTEN a; SELECT 1/0", &[]),
        ("LISTEN a", &["a"]),
        ("LISTEN a; LISTEN b", &["a", "b"]),
        ("BEGIN; UNLISTEN *; ROLLBACK", &["a", "b"]),
        ("UNLISTEN a; SELECT 1/0", &["a", "b"]),
        ("BEGIN; SAVEPOINT s; UNLISTEN a; ROLLBACK TO s; COMMIT", &["a", "b"]),
        ("BEGIN; LISTEN c; SAVEPOINT s; UNLISTEN a; UNLISTEN c; ROLLBACK TO s; UNLISTEN b; COMMIT", &["a", "c"]),
        ("UNLISTEN b", &["a", "c"]),
        ("BEGIN; UNLISTEN *; RESET ALL; ROLLBACK", &["a", "c"]),
        ("BEGIN; UNLISTEN *; LISTEN a; COMMIT AND CHAIN; LISTEN c; UNLISTEN a; ROLLBACK", &["a"]),
        ("BEGIN; LISTEN c; INSERT INTO checked VALUES (1), (1); COMMIT", &["a"]),
        ("BEGIN; SELECT 1/0; LISTEN c", &["a"]),
        ("ROLLBACK; LISTEN c", &["a", "c"]),
        ("DO $$ BEGIN EXECUTE 'UNLISTEN a'; EXECUTE 'LISTEN \"d D\"'; END $$", &["c", "d D"]),
        ("UNLISTEN \"d D\"", &["c"]),
        ("UNLISTEN *", &[]),
        ("LISTEN e", &["e"]),
        ("DISCARD ALL", &[]),
        ("LISTEN \"Grüße 🚂\\\"", &["Grüße 🚂\\"]),
        ("UNLISTEN *; LISTEN f; LISTEN f", &["f"]),
        ("CREATE TEMP TABLE t (); LISTEN g", &["f", "g"]),
        ("UNLISTEN f", &["g"]),
        ("LISTEN h; DROP TABLE t", &["g", "h"]),
    ] {
        let failed = listener.client.batch_execute(sql).await.is_err();
        assert_eq!(failed, sql.contains("1/0") || sql.contains("(1), (1)"), "{sql}");
        if sql.starts_with("BEGIN; SELECT 1/0") {
            // Nothing is asked in a transaction that has failed.
            continue;
        }
        assert_eq!(listener.channels().await, expected, "{sql}");
        if !direct() && !sql.contains("TEMP") && sql != "UNLISTEN f" {
            assert_eq!(metric(&gateway, PINNED), 0, "{sql}");
            assert_eq!(metric(&gateway, SESSIONS), u64::from(!expected.is_empty()), "{sql}");
        }
        // What is heard agrees with what is said.
        let payload = sql.replace('\'', "");
        let calls = ["a", "b", "c", "d D", "e", "Grüße 🚂\\", "f", "g", "h"]
            .map(|name| format!("pg_notify('{name}', '{payload}')"));
        gateway.cluster.primary().psql(&database, &format!("SELECT {}", calls.join(", "))).unwrap();
        let mut heard = BTreeSet::new();
        while heard.len() < expected.len() {
            let (channel, told) = listener.next().await;
            assert_eq!(told, payload, "{channel}");
            assert!(heard.insert(channel.clone()), "{channel} twice");
        }
        assert!(heard.iter().map(String::as_str).eq(expected.iter().copied()), "{sql}: {heard:?}");
    }
    // Every one was heard once: nothing is left.
    listener.run("LISTEN sure").await;
    notify(&gateway, &database, "sure", "");
    assert_eq!(listener.next().await.0, "sure");
}

#[tokio::test]
async fn channels_are_asked_and_changed_where_they_are_known() {
    let database = database("listen_asked");
    let gateway = Gateway::setup().pool("size = 2").start();
    let mut listener = Listener::connect(&gateway, &database).await;
    listener.run("LISTEN a; LISTEN b").await;
    // In one go: each finds what those before it left.
    let client = &listener.client;
    let (slept, unlistened, listened) = tokio::join!(
        client.batch_execute("SELECT pg_sleep(0.1), pg_current_xact_id()"),
        client.batch_execute("UNLISTEN a"),
        client.batch_execute("LISTEN c"),
    );
    for answer in [slept, unlistened, listened] {
        answer.unwrap();
    }
    assert_eq!(listener.channels().await, ["b", "c"]);
    // In a transaction as well.
    for begin in ["BEGIN", "BEGIN; SELECT pg_current_xact_id()", "BEGIN READ ONLY; SELECT 1"] {
        listener.run(begin).await;
        listener.run("SAVEPOINT s; UNLISTEN c; ROLLBACK TO s").await;
        assert_eq!(listener.channels().await, ["b", "c"], "{begin}");
        listener.run("COMMIT").await;
    }
    // Also where no text says so; what a transaction does is seen behind it.
    listener.run("CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS 'BEGIN UNLISTEN c; LISTEN d; END'").await;
    listener.run("BEGIN; SELECT 1").await;
    listener.run("SELECT forget()").await;
    assert_eq!(listener.channels().await, ["b", "c"]);
    listener.run("ROLLBACK AND CHAIN").await;
    assert_eq!(listener.channels().await, ["b", "c"]);
    listener.run("SELECT forget(); COMMIT AND CHAIN").await;
    assert_eq!(listener.channels().await, ["b", "d"]);
    listener.run("LISTEN c; UNLISTEN d; COMMIT").await;
    assert_eq!(listener.channels().await, ["b", "c"]);
    // A prepared statement does it, and one that others prepared as well.
    let statement = listener.client.prepare("UNLISTEN b").await.unwrap();
    listener.run("BEGIN").await;
    listener.client.execute(&statement, &[]).await.unwrap();
    listener.run("ROLLBACK").await;
    assert_eq!(listener.channels().await, ["b", "c"]);
    listener.client.execute(&statement, &[]).await.unwrap();
    assert_eq!(listener.channels().await, ["c"]);
    let other = gateway.connect(&database).await;
    other.execute("UNLISTEN b", &[]).await.unwrap();
    assert_eq!(other.query("SELECT * FROM pg_listening_channels()", &[]).await.unwrap().len(), 0);
    for channel in ["a", "b", "c"] {
        notify(&gateway, &database, channel, "x");
    }
    assert_eq!(listener.next().await.0, "c");
    assert!(listener.heard.try_recv().is_err());
}

#[tokio::test]
async fn what_comes_during_a_transaction_is_told_after_it() {
    let database = database("listen_later");
    let gateway = Gateway::setup().pool("size = 2").start();
    let mut listener = Listener::connect(&gateway, &database).await;
    listener.run("LISTEN later").await;
    for begin in ["BEGIN", "BEGIN; SELECT pg_current_xact_id()"] {
        listener.run(begin).await;
        notify(&gateway, &database, "later", begin);
        notify(&gateway, &database, "later", "second");
        listener.run("SELECT pg_sleep(0.5)").await;
        assert!(listener.heard.try_recv().is_err(), "{begin}");
        listener.run("COMMIT").await;
        assert_eq!(listener.next().await.1, begin);
        assert_eq!(listener.next().await.1, "second");
    }
}

/// A byte-for-byte client and the process id that it was told.
fn raw(gateway: &Gateway<'_>, database: &str) -> (Raw, u32) {
    let mut raw = Raw::connect(gateway.port);
    raw.send(&startup(196_608, &[("user", "demo"), ("database", database)]));
    let answer = raw.until(b'Z');
    let key = answer.iter().find(|(tag, _)| *tag == b'K').expect("a key");
    let process = u32::from_be_bytes(key.1[..4].try_into().unwrap());
    (raw, process)
}

fn query(raw: &mut Raw, sql: &str) -> Vec<(u8, Vec<u8>)> {
    raw.send(&message(b'Q', format!("{sql}\0").as_bytes()));
    raw.until(b'Z')
}

/// The next notification, wherever it stands.
fn told(before: &[(u8, Vec<u8>)], raw: &mut Raw) -> (u32, Vec<u8>) {
    let found = before.iter().find(|(tag, _)| *tag == b'A').cloned();
    let (_, body) = found.unwrap_or_else(|| raw.until(b'A').pop().unwrap());
    (u32::from_be_bytes(body[..4].try_into().unwrap()), body[4..].to_vec())
}

#[test]
fn a_notification_tells_the_process_id_that_its_sender_was_told() {
    let database = database("listen_own");
    let gateway = Gateway::setup().pool("size = 2").start();
    let (mut one, own) = raw(&gateway, &database);
    let (mut two, other) = raw(&gateway, &database);
    query(&mut one, "LISTEN own");
    for (n, sql) in
        ["NOTIFY own, 'x'", "SELECT pg_notify('own', 'x')", "BEGIN; NOTIFY own, 'x'; COMMIT"].iter().enumerate()
    {
        let answer = query(&mut one, sql);
        assert_eq!(told(&answer, &mut one), (own, b"own\0x\0".to_vec()), "{n}");
        query(&mut two, sql);
        assert_eq!(told(&[], &mut one), (other, b"own\0x\0".to_vec()), "{n}");
    }
}

/// Numbers from another connection while clients LISTEN and UNLISTEN at random moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_told_twice_around_a_hand_over() {
    const CLIENTS: usize = 24;
    let database = database("listen_storm");
    let gateway = Gateway::setup().pool("size = 4\nquery_wait = \"60s\"").start();
    let speaker = gateway.connect(&database).await;
    let settled = AtomicUsize::new(0);
    let speak = async {
        let mut numbers = 1..;
        let mut say = async |count: usize| {
            for n in numbers.by_ref().take(count) {
                speaker.batch_execute(&format!("NOTIFY storm, '{n}'")).await.unwrap();
            }
        };
        while settled.load(Ordering::Relaxed) < CLIENTS {
            say(10).await;
        }
        say(300).await;
        speaker.batch_execute("NOTIFY storm, 'end'").await.unwrap();
    };
    let listen = join_all((0..CLIENTS as u64).map(async |client| {
        let mut listener = Listener::connect(&gateway, &database).await;
        for round in 0..4 {
            tokio::time::sleep(Duration::from_millis(7 * (client % 11) + 40 * round)).await;
            match (client + round) % 4 {
                0 => listener.run("LISTEN storm").await,
                1 => listener.run("BEGIN; LISTEN storm; SELECT 1; COMMIT").await,
                2 => listener.run(&format!("LISTEN other_{client}; LISTEN storm")).await,
                // Again, and something else: what comes meanwhile comes once.
                _ => {
                    listener.run("LISTEN storm").await;
                    listener.run(&format!("LISTEN storm; LISTEN more_{client}")).await;
                    assert!(listener.channels().await.contains(&"storm".to_owned()));
                }
            }
            if round < 3 {
                let mut before: Option<usize> = None;
                let until = Instant::now() + Duration::from_millis(30);
                while let Ok(Some((_, payload))) = tokio::time::timeout_at(until.into(), listener.heard.recv()).await {
                    let number: usize = payload.parse().unwrap();
                    assert!(before.is_none_or(|before| number == before + 1), "{client}: {number} after {before:?}");
                    before = Some(number);
                }
                listener.run(if client % 2 == 0 { "UNLISTEN *" } else { "UNLISTEN storm" }).await;
                while let Ok((_, payload)) = listener.heard.try_recv() {
                    let number: usize = payload.parse().unwrap();
                    assert!(before.is_none_or(|before| number == before + 1), "{client}: {number} after {before:?}");
                    before = Some(number);
                }
                // Nothing comes now; what does belongs to the next round.
            }
        }
        settled.fetch_add(1, Ordering::Relaxed);
        // To the end, without a gap.
        let (_, first) = listener.next().await;
        let first: usize = first.parse().unwrap();
        let mut next = first + 1;
        loop {
            match listener.next().await.1 {
                payload if payload == "end" => return (first, next - 1, listener),
                payload => assert_eq!(payload.parse::<usize>().unwrap(), next, "{client}"),
            }
            next += 1;
        }
    }));
    let ((), heard) = tokio::join!(speak, listen);
    for (first, last, _) in &heard {
        assert!(*first > 1 && *last == heard[0].1, "{first} {last} {}", heard[0].1);
    }
    if !direct() {
        assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (24, 0));
    }
}

fn flood(gateway: &Gateway<'_>, database: &str, count: usize) {
    let sql = format!("SELECT count(pg_notify('flood', n || repeat('x', 7000))) FROM generate_series(1, {count}) n");
    gateway.cluster.primary().psql(database, &sql).unwrap();
}

#[test]
fn a_client_that_does_not_listen_to_what_it_asked_for_is_ended() {
    if direct() {
        return;
    }
    let database = database("listen_overflow");
    let gateway = Gateway::setup().pool("size = 3").start();
    // In a transaction that does not end: at its end it learns that it has missed something.
    let (mut waiting, _) = raw(&gateway, &database);
    query(&mut waiting, "LISTEN flood");
    query(&mut waiting, "BEGIN; SELECT pg_current_xact_id()");
    flood(&gateway, &database, 300);
    waiting.send(&message(b'Q', b"COMMIT\0"));
    let (tag, body) = waiting.rest().pop().unwrap();
    assert_eq!((tag, sqlstate(&body).as_str()), (b'E', "57P01"));
    assert!(String::from_utf8_lossy(&body).contains("more notifications wait"), "{}", String::from_utf8_lossy(&body));
    // And one that never reads: it goes, and took no memory with it.
    let (mut deaf, _) = raw(&gateway, &database);
    query(&mut deaf, "LISTEN flood");
    assert_eq!(metric(&gateway, SESSIONS), 1);
    let before = gateway.peak_memory();
    for _ in 0..8 {
        // Within PostgreSQL's own queue.
        flood(&gateway, &database, 500);
    }
    eventually("the session is ended", || metric(&gateway, SESSIONS) == 0);
    if let (Some(before), Some(after)) = (before, gateway.peak_memory()) {
        assert!(after - before < 12 << 20, "{} bytes more", after - before);
    }
    let sound = raw(&gateway, &database);
    drop((sound, deaf));
}

#[test]
fn a_lost_shared_connection_ends_who_listens() {
    if direct() {
        return;
    }
    let database = database("listen_lost");
    let gateway = Gateway::setup().pool("size = 3").start();
    let mut listeners: Vec<_> = (0..3).map(|_| raw(&gateway, &database).0).collect();
    for listener in &mut listeners {
        query(listener, "LISTEN a");
    }
    let (mut other, _) = raw(&gateway, &database);
    query(&mut other, "SELECT 1");
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'pointsman LISTEN'"
    );
    assert_eq!(gateway.cluster.primary().psql("postgres", &sql).unwrap(), "t");
    for mut listener in listeners {
        let (tag, body) = listener.rest().pop().unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!((tag, sqlstate(&body).as_str()), (b'E', "57P01"), "{text}");
        assert!(text.contains("terminating connection due to administrator command"), "{text}");
    }
    query(&mut other, "LISTEN a");
    let answer = query(&mut other, "NOTIFY a, 'again'");
    assert_eq!(told(&answer, &mut other).1, b"a\0again\0");
}

#[test]
fn a_session_whose_channels_find_no_shared_connection_keeps_its_server() {
    if direct() {
        return;
    }
    let database = database("listen_no_room");
    let gateway = Gateway::setup().server("max_server_connections = 1").start();
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "LISTEN a");
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (0, 1));
    notify(&gateway, &database, "a", "heard");
    assert_eq!(told(&[], &mut one).1, b"a\0heard\0");
    query(&mut one, "UNLISTEN a");
    assert_eq!(metric(&gateway, PINNED), 0);
    // Nothing of the gateway's own is heard, and nothing stays.
    assert_eq!(gateway.query(&database, "SELECT count(*) FROM pg_listening_channels()"), "0");
}

/// Behind a Flush the server is in a transaction that cannot be left to listen: what it does not know is not told wrongly.
#[test]
fn what_cannot_be_asked_is_refused() {
    let database = database("listen_refused");
    let gateway = Gateway::setup().pool("size = 2").start();
    let (mut one, _) = raw(&gateway, &database);
    let run = |text: &str| {
        let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
        [parse, message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat()
    };
    let (flush, sync) = (message(b'H', b""), message(b'S', b""));
    let code = |answer: &[(u8, Vec<u8>)]| {
        answer.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| sqlstate(body)).unwrap_or_default()
    };
    let refused = if direct() { "" } else { "0A000" };
    query(&mut one, "LISTEN a");
    one.send(&[run("SELECT 1"), flush.clone()].concat());
    one.until(b'C');
    one.send(&[run("UNLISTEN a"), sync.clone()].concat());
    assert_eq!(code(&one.until(b'Z')), refused);
    query(&mut one, "LISTEN a");
    one.send(&[run("SELECT 1"), flush].concat());
    one.until(b'C');
    one.send(&[run("BEGIN"), sync].concat());
    assert_eq!(code(&one.until(b'Z')), "");
    assert_eq!(code(&query(&mut one, "SELECT * FROM pg_listening_channels()")), refused);
    query(&mut one, "ROLLBACK");
    notify(&gateway, &database, "a", "heard");
    assert_eq!(told(&[], &mut one).1, b"a\0heard\0");
}

#[test]
fn statement_pooling_shares_a_connection_too() {
    if direct() {
        return;
    }
    let database = database("listen_statement");
    let gateway = Gateway::setup().pool("mode = \"statement\"\nsize = 1\nquery_wait = \"20s\"").start();
    let (mut one, own) = raw(&gateway, &database);
    let (mut two, other) = raw(&gateway, &database);
    for raw in [&mut one, &mut two] {
        query(raw, "LISTEN a");
    }
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED), metric(&gateway, CONNECTIONS)), (2, 0, 1));
    for (speaker, process) in [(true, own), (false, other)] {
        let answer = query(if speaker { &mut one } else { &mut two }, "NOTIFY a, 'x'");
        let (first, second): (&[_], &[_]) = if speaker { (&answer, &[]) } else { (&[], &answer) };
        assert_eq!(told(first, &mut one), (process, b"a\0x\0".to_vec()));
        assert_eq!(told(second, &mut two), (process, b"a\0x\0".to_vec()));
    }
    query(&mut one, "UNLISTEN *");
    assert_eq!(metric(&gateway, SESSIONS), 1);
}

#[test]
fn session_pooling_listens_on_the_sessions_server() {
    if direct() {
        return;
    }
    let database = database("listen_session");
    let gateway = Gateway::setup().pool("mode = \"session\"").start();
    let (mut one, own) = raw(&gateway, &database);
    query(&mut one, "LISTEN a");
    assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, CONNECTIONS)), (0, 0));
    let answer = query(&mut one, "NOTIFY a, 'heard'");
    assert_eq!(told(&answer, &mut one), (own, b"a\0heard\0".to_vec()));
}

#[test]
fn a_gateway_that_stops_ends_idle_listeners_at_once() {
    if direct() {
        return;
    }
    let database = database("listen_drain");
    let mut gateway = Gateway::setup().pool("size = 3").start();
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "LISTEN a");
    let start = Instant::now();
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    let (tag, body) = one.rest().pop().unwrap();
    assert_eq!((tag, sqlstate(&body).as_str()), (b'E', "57P01"));
}

#[test]
fn latin1_clients_hear_and_are_heard() {
    let database = database("listen_latin1");
    let gateway = Gateway::setup().pool("size = 2").start();
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "SET client_encoding = 'LATIN1'");
    one.send(&message(b'Q', b"LISTEN \"Stra\xdfe \"\"x\"\"\"\0"));
    one.until(b'Z');
    if !direct() {
        assert_eq!((metric(&gateway, SESSIONS), metric(&gateway, PINNED)), (1, 0));
    }
    notify(&gateway, &database, "Straße \"x\"", "größer");
    assert_eq!(told(&[], &mut one).1, b"Stra\xdfe \"x\"\0gr\xf6\xdfer\0");
    // Listened to twice it is heard once.
    one.send(&message(b'Q', b"BEGIN; LISTEN \"Stra\xdfe \"\"x\"\"\"; COMMIT\0"));
    one.until(b'Z');
    for payload in ["ä", "ö"] {
        notify(&gateway, &database, "Straße \"x\"", payload);
    }
    assert_eq!(told(&[], &mut one).1, b"Stra\xdfe \"x\"\0\xe4\0");
    assert_eq!(told(&[], &mut one).1, b"Stra\xdfe \"x\"\0\xf6\0");
    if !direct() {
        // No such character there: a session that cannot be told the truth is ended.
        notify(&gateway, &database, "Straße \"x\"", "€");
        let (tag, body) = one.rest().pop().unwrap();
        assert_eq!((tag, sqlstate(&body).as_str()), (b'E', "57P01"));
    }
}

#[test]
fn what_a_session_leaves_unheard_is_not_told_to_the_next() {
    if direct() {
        return;
    }
    let database = database("listen_left");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"20s\"").start();
    let speaker = gateway.cluster.primary();
    for _ in 0..5 {
        let (mut leaving, _) = raw(&gateway, &database);
        query(&mut leaving, "CREATE TEMP TABLE t (); LISTEN left_over");
        assert_eq!(metric(&gateway, PINNED), 1);
        // They arrive while its server is cleaned, or just before.
        let sql = "SELECT count(pg_notify('left_over', n::text)) FROM generate_series(1, 3000) n";
        speaker.psql(&database, sql).unwrap();
        drop(leaving);
        let (mut next, _) = raw(&gateway, &database);
        for sql in ["SET work_mem = '10MB'", "SELECT pg_current_xact_id()", "LISTEN another"] {
            let answer = query(&mut next, sql);
            assert!(!answer.iter().any(|(tag, _)| *tag == b'A'), "{sql}: {answer:?}");
        }
    }
}

#[test]
fn a_trace_tells_of_the_hand_over() {
    if direct() {
        return;
    }
    let database = database("listen_trace");
    let gateway = Gateway::setup().pool("size = 2").start();
    let (mut one, _) = raw(&gateway, &database);
    query(&mut one, "SET pointsman.trace = on");
    query(&mut one, "LISTEN a");
    let answer = query(&mut one, "SELECT 1");
    let notices = answer.iter().filter(|(tag, _)| *tag == b'N').map(|(_, body)| String::from_utf8_lossy(body));
    let notices: Vec<_> = notices.collect();
    assert!(notices.iter().any(|notice| notice.contains("come through the shared connection")), "{notices:?}");
}
