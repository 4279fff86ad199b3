//! What gateway and admin share: the live snapshot and what it is built from.
//!
//! Invariant: a change that fails changes nothing.
//! Deliberately absent: sessions, HTTP.

pub mod cluster;
pub mod config_file;
mod keyed;
pub mod live;
mod monitor;
pub mod policies;
pub mod published;
mod reach;
mod refused;
mod starts;

pub use cluster::{Account, Cluster};
pub use keyed::{Keyed, KeyedWrite};
pub use live::{Live, LiveError};
pub use reach::Peers;
pub use refused::Refused;
pub use starts::Beginning;
