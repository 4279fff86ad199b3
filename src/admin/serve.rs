//! The admin listener's socket, and the bounds on what its clients can hold.
//!
//! Bounds: [`CONNECTIONS`] at once, further ones wait in the system's queue; each lives for [`LIFE`] at most, whatever it
//! does, and a scraper opens another; a request's head is bounded by hyper (100 headers, about 400 KiB), its body is never
//! read. Deliberately absent: TLS; bind it to loopback or a private network.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::config::Address;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// The longest life of a connection.
const LIFE: Duration = Duration::from_secs(30);

/// Binds the first address that `address` stands for.
pub(super) async fn bind(address: &Address) -> io::Result<(Bounded, SocketAddr)> {
    let listener = match address {
        Address::Tcp { host, port } => {
            // "*" as in PostgreSQL's listen_addresses.
            let host = if host == "*" { "0.0.0.0" } else { host.trim_start_matches('[').trim_end_matches(']') };
            TcpListener::bind((host, *port)).await?
        }
        Address::Unix { .. } => return Err(io::Error::other("the admin listener is TCP only")),
    };
    let address = listener.local_addr()?;
    Ok((Bounded { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)) }, address))
}

/// Serves for ever.
pub(super) async fn run(listener: Bounded, router: Router) {
    // It returns only when the listener does, which is never.
    let _ = axum::serve(listener, router).await;
}

/// A listener whose connections are bounded in number and life.
pub(super) struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = loop {
            // The semaphore is never closed.
            if let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
                break permit;
            }
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small and whole; a stream that takes no option still serves.
                    let _ = stream.set_nodelay(true);
                    let end = Box::pin(tokio::time::sleep(LIFE));
                    return (Connection { stream, end, _permit: permit }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over.
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn over(&mut self, task: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(task) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.over(task)?;
        Pin::new(&mut self.stream).poll_read(task, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.over(task)?;
        Pin::new(&mut self.stream).poll_write(task, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
