//! What the gateway tells of itself: logs, metrics, decision records.
//!
//! Invariant: no secret and no parameter value leaves through here.
//! Deliberately absent: who reads it.

mod databases;
pub mod expose;
pub mod families;
pub mod log;
pub mod metrics;

pub use databases::Tally;
pub use metrics::{Counter, Histogram, Metrics, PoolStats, Refusal, Worker};
