//! Sockets: [`Stream`]s to clients and servers, over TCP, Unix sockets and TLS; listening and connecting.
//!
//! - [`bind`] listens, a [`Listener`] yields [`Accepted`] sockets, which become [`Stream`]s on the runtime that serves them.
//! - [`ServerTls`] secures a client's stream, after SSLRequest or directly.
//! - [`connect`] dials a server and negotiates TLS by its [`ClientTls`]; [`cancel`] does so for a cancel request.
//!
//! Invariant: no byte that came before a TLS handshake is ever taken for one that came through it. Every TCP socket has TCP_NODELAY and
//! keepalive. Absent: the protocol beyond SSLRequest, its answer and CancelRequest, log-in, time limits on accepted clients (the gateway's), PROXY protocol.

mod cancel;
mod connect;
mod end_point;
mod error;
mod listen;
mod stream;
mod timers;
mod tls;
mod tls_client;
mod tls_server;
mod unix_lock;
mod verify;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_listen;
#[cfg(test)]
mod tests_postgres;

pub use cancel::cancel;
pub use connect::{ServerAddress, connect};
pub use error::NetError;
pub use listen::{Accepted, ListenAddress, ListenOptions, Listener, bind};
pub use stream::{Peer, Stream};
pub use timers::{borrow_timers, sleep, sleep_until, timeout, timeout_at};
pub use tls::{ServerTlsMode, TlsMode};
pub use tls_client::{ClientTls, ClientTlsFiles};
pub use tls_server::{ServerTls, ServerTlsFiles};
