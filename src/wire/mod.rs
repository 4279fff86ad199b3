//! The frontend/backend protocol as bytes: frames, start-up packets and the messages of both directions.
//!
//! Invariant: nothing here owns a socket or remembers a conversation; every function is a pure reading or writing of
//! bytes, and refuses what PostgreSQL would refuse.
//!
//! Deliberately absent: the order of messages (`session` and `upstream`), authentication payloads (`auth`).
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", sections "Message Formats" and
//! "Message Flow"; limits from `src/backend/tcop/postgres.c` (`SocketBackend`) and `src/include/libpq/libpq.h`.

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod startup;

pub use backend::{ErrorFields, TransactionStatus};
pub use frame::{Header, Malformed};
