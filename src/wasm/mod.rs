//! The policy host: components in, [`crate::policy::Policy`] out.
//!
//! Invariant: whatever a component does, the gateway goes on. It runs under a deadline, within bounds of memory, stack
//! and answer, with no ambient authority; what fails is thrown away, and after a few failures the last good generation
//! is back. A file that cannot be loaded changes nothing. Bindgen's types are not named outside this module.
//!
//! Deliberately absent: tokio. The data path calls synchronously, and the store works on threads of its own.

mod bindings;
pub mod builtin;
mod compile;
mod counters;
mod current;
mod engine;
mod event;
mod folder;
mod generation;
mod host;
mod instance;
mod keeper;
mod limits;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod trial;
mod worker;

pub use counters::PolicyCounts;
pub use event::{PolicyEvent, PolicyState, PolicyStatus};
pub use folder::ignored;
pub use limits::Limits;
pub use store::{Chains, Observer, PolicyStore, StoreConfig, StoreError};
