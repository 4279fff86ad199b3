//! Accepting clients and handing them to workers.
//!
//! Invariant: an error on one connection never ends the loop. When the system has no descriptors left, who comes is told so
//! with the help of one that is kept for that; the log says it once in a while.
//!
//! Deliberately absent: reading a byte.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::context::Context;
use super::runtime::Spawner;
use super::{greet, io};
use crate::net::{Accepted, Listener};
use crate::upstream::ErrorReply;

/// Between two attempts while accepting fails.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two lines of the log about that.
const SILENCE: Duration = Duration::from_secs(10);

/// Longest time for telling a client that it cannot be served: others wait meanwhile.
const REFUSAL: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn accept(listener: Listener, context: Arc<Context>, spawner: Spawner) {
    let mut kept = spare();
    let mut told: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                let context = Arc::clone(&context);
                spawner.spawn(move |worker| greet::greet(accepted, context, worker));
            }
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= SILENCE) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "connections cannot be accepted; raise the limit of open files if it says so");
                }
                drop(kept.take());
                match crate::net::timeout(PAUSE, listener.accept()).await {
                    Ok(Ok(accepted)) => turn_away(accepted).await,
                    Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
                    Err(_) => {}
                }
                kept = spare();
            }
        }
    }
}

/// A descriptor that is given up to accept one connection more.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

async fn turn_away(accepted: Accepted) {
    let Ok(mut stream) = accepted.into_stream() else { return };
    let mut out = BytesMut::new();
    ErrorReply::fatal("53300", "the gateway has no file descriptors left for another client")
        .hint("Raise its limit of open files.")
        .write(&mut out);
    // What it has sent is read first: a socket that is closed with unread bytes takes back what was written to it.
    // It is refused whether it hears it or not.
    let _ = crate::net::timeout(REFUSAL, async {
        io::read(&mut stream, &mut BytesMut::new()).await?;
        io::write(&mut stream, &mut out).await
    })
    .await;
}
