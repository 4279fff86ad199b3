//! A connection that somebody holds.
//!
//! Invariant: it goes back only by [`Lent::give_back`], and only clean; any other end closes it.
//! Deliberately absent: cleaning it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;

use super::{Pool, Server};
use crate::upstream::{Private, Upstream};

/// A server connection on loan.
#[derive(Debug)]
pub struct Lent {
    /// `None` only once it was given back or taken out.
    server: Option<Box<Server>>,
    pool: Arc<Pool>,
}

impl Lent {
    pub(super) fn new(server: Box<Server>, pool: Arc<Pool>) -> Self {
        Self { server: Some(server), pool }
    }

    /// The pool that it belongs to.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Returns it. One that is not clean is closed; one with a cancel on its way is kept apart until that has arrived.
    pub fn give_back(mut self) {
        let Some(mut server) = self.server.take() else { return };
        if !server.upstream.overheard.is_empty() {
            // The next holder's they are not.
            server.upstream.overheard = BytesMut::new();
        }
        server.upstream.plans.own = false;
        let pool = Arc::clone(&self.pool);
        pool.node.lent(-1);
        drop(self);
        if !server.clean() {
            drop(server);
            pool.closed_one();
        } else if server.gate.is_empty() {
            pool.take_back(server);
        } else {
            tokio::spawn(async move {
                // DESIGN 4.13: the cancel's connection has seen EOF, and one Sync has passed.
                server.gate.emptied().await;
                let passed = if server.clean() { pass_a_sync(server).await } else { None };
                match passed {
                    Some(server) => pool.take_back(server),
                    None => pool.closed_one(),
                }
            });
        }
    }

    pub(super) fn into_server(mut self) -> Box<Server> {
        self.pool.node.lent(-1);
        // Only `give_back` and this take it, and both take `self`.
        match self.server.take() {
            Some(server) => server,
            None => unreachable!("a lent connection is there until it is given back"),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.pool.node.lent(-1);
            drop(server);
            self.pool.closed_one();
        }
    }
}

impl Deref for Lent {
    type Target = Server;
    fn deref(&self) -> &Server {
        match &self.server {
            Some(server) => server,
            None => unreachable!("a lent connection is there until it is given back"),
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Server {
        match &mut self.server {
            Some(server) => server,
            None => unreachable!("a lent connection is there until it is given back"),
        }
    }
}

/// Sends a Sync and awaits its answer: a cancel that arrived late has hit nothing. `None`: the connection is lost.
async fn pass_a_sync(mut server: Box<Server>) -> Option<Box<Server>> {
    let mut private = Private::sync(&mut server.upstream);
    loop {
        let Server { stream, upstream, .. } = &mut *server;
        if !upstream.output.is_empty() {
            stream.write_all_buf(&mut upstream.output).await.ok()?;
            stream.flush().await.ok()?;
        }
        if let Some(_answer) = private.advance(upstream).ok()? {
            return upstream.idle().then_some(server);
        }
        upstream.input.reserve(1024);
        if read_more(stream, upstream).await? == 0 {
            return None;
        }
    }
}

async fn read_more(stream: &mut crate::net::Stream, upstream: &mut Upstream) -> Option<usize> {
    use tokio::io::AsyncReadExt as _;
    stream.read_buf(&mut upstream.input).await.ok()
}
