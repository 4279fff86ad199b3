//! Much data through little memory.
//!
//! `POINTSMAN_BULK_MIB` is the size of the COPYs; 64 unless set, 1024 in the long form.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};

use crate::support::{Gateway, Raw, database, eventually, message};

const MIB: u64 = 1024 * 1024;
/// How much the gateway's resident memory may grow.
const GROWTH: u64 = 64 * MIB;
/// The single value that passes.
const VALUE_MIB: u64 = 200;

fn copy_mib() -> u64 {
    std::env::var("POINTSMAN_BULK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

/// Memory before, and a check against it after.
struct Memory<'a> {
    gateway: &'a Gateway<'a>,
    before: Option<u64>,
}

impl<'a> Memory<'a> {
    fn of(gateway: &'a Gateway<'a>) -> Self {
        Self { gateway, before: gateway.peak_memory() }
    }

    #[track_caller]
    fn check(&self) {
        if let (Some(before), Some(after)) = (self.before, self.gateway.peak_memory()) {
            println!("figure: memory grew by {} KiB", (after - before) >> 10);
            assert!(after - before < GROWTH, "memory grew by {} MiB", (after - before) / MIB);
        }
    }
}

#[tokio::test]
async fn copy_in_and_out() {
    let database = database("bulk_copy");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    client.batch_execute("CREATE UNLOGGED TABLE t (s text)").await.unwrap();
    let memory = Memory::of(&gateway);
    let block = Bytes::from(format!("{}\n", "x".repeat(1023)).repeat(64));
    let blocks = copy_mib() * MIB / block.len() as u64;
    let mut sink = pin!(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
    for _ in 0..blocks {
        sink.send(block.clone()).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), copy_mib() * 1024);
    memory.check();

    let mut out = pin!(client.copy_out("COPY t TO STDOUT").await.unwrap());
    let mut size = 0;
    while let Some(piece) = out.next().await {
        size += piece.unwrap().len() as u64;
    }
    assert_eq!(size, copy_mib() * MIB);
    memory.check();
}

#[tokio::test]
async fn one_large_row() {
    let database = database("bulk_row");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    let memory = Memory::of(&gateway);
    let row = client.query_one(&format!("SELECT repeat('x', {})", VALUE_MIB * MIB), &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0).len() as u64, VALUE_MIB * MIB);
    memory.check();
}

#[tokio::test]
async fn one_large_parameter() {
    let database = database("bulk_parameter");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    let memory = Memory::of(&gateway);
    let value = "y".repeat(usize::try_from(VALUE_MIB * MIB).unwrap());
    let row = client.query_one("SELECT length($1::text), right($1, 1)", &[&value]).await.unwrap();
    assert_eq!(u64::try_from(row.get::<_, i32>(0)).unwrap(), VALUE_MIB * MIB);
    assert_eq!(row.get::<_, &str>(1), "y");
    memory.check();
}

#[tokio::test]
async fn one_large_statement() {
    let database = database("bulk_statement");
    let gateway = Gateway::start();
    let client = gateway.connect(&database).await;
    let memory = Memory::of(&gateway);
    let text = format!("SELECT length('{}')", "z".repeat(16 * MIB as usize));
    assert_eq!(client.simple_query(&text).await.unwrap().len(), 3);
    memory.check();
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[test]
fn a_client_that_does_not_read_holds_back_the_server() {
    let database = database("bulk_slow");
    let gateway = Gateway::start();
    let memory = Memory::of(&gateway);
    let mut raw = Raw::log_in(gateway.port, "demo", &database);
    // In a transaction, so that it is on the primary, where its wait is seen.
    raw.send(&message(
        b'Q',
        b"BEGIN; SELECT pg_current_xact_id(); SELECT repeat('x', 1000) FROM generate_series(1, 200000)\0",
    ));
    let waits =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'ClientWrite'");
    eventually("the server to wait for its client", || {
        gateway.cluster.primary().psql("postgres", &waits).unwrap() == "1"
    });
    memory.check();
    let answer = raw.until(b'Z');
    assert_eq!(answer.iter().filter(|(tag, body)| *tag == b'D' && body.len() > 1000).count(), 200_000);
    memory.check();
}

/// The server stops reading when nobody takes its answers, and so must the gateway.
#[test]
fn a_pipeline_that_is_not_read_is_held_back() {
    let database = database("bulk_pipeline");
    let gateway = Gateway::start();
    let memory = Memory::of(&gateway);
    let parse = message(b'P', b"s\0SELECT 'one' FROM pg_current_xact_id()\0\0\0");
    let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0")].concat();
    let limit = 256 << 20;
    // One group without an end, then groups that end.
    for end in [&b""[..], &message(b'S', b"")] {
        let mut raw = Raw::log_in(gateway.port, "demo", &database);
        raw.send(&[parse.clone(), message(b'S', b"")].concat());
        raw.until(b'Z');
        let sent = raw.flood(&[run.repeat(100), end.to_vec()].concat(), limit);
        assert!(sent < limit, "{sent} bytes were taken though nobody read the answers");
        memory.check();
    }
}
