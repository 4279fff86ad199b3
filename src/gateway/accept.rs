//! Accepting clients and handing them to workers.
//!
//! Invariant: an error on one connection never ends the loop; when the system has no descriptors left, it waits.
//! Deliberately absent: reading a byte.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::greet;
use super::runtime::Spawner;
use crate::net::Listener;

/// Accepts for ever.
pub(super) async fn accept(listener: Listener, context: Arc<Context>, spawner: Spawner) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                let context = Arc::clone(&context);
                spawner.spawn(move |worker| async move {
                    match accepted.into_stream() {
                        Ok(stream) => greet::greet(stream, context, worker).await,
                        Err(error) => tracing::debug!(%error, "a client left before it was greeted"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; raise the limit of open files if it says so");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
