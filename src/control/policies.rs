//! From the configuration to the policy store's.
//!
//! Deliberately absent: loading.

use crate::config::{self, Config};
use crate::policy::OnFault;
use crate::wasm::{Limits, StoreConfig};

/// What the configuration says to the policy store.
#[must_use]
pub fn store_config(config: &Config, workers: usize) -> StoreConfig {
    let policies = &config.policies;
    let chains = config.databases.iter().filter_map(|(name, database)| {
        let chain = database.policies.as_ref()?;
        Some((name.as_str().into(), chain.iter().map(|policy| policy.as_str().into()).collect()))
    });
    let size = |bytes: bytesize::ByteSize| usize::try_from(bytes.as_u64()).unwrap_or(usize::MAX);
    StoreConfig {
        directory: policies.directory.clone(),
        on_fault: match policies.on_fault {
            config::OnFault::Reject => OnFault::Reject,
            config::OnFault::Primary => OnFault::Primary,
            config::OnFault::Pass => OnFault::Pass,
        },
        limits: Limits {
            deadline: policies.deadline,
            memory: size(policies.memory),
            file: policies.max_size.as_u64(),
            faults: policies.breaker.faults,
            fault_window: policies.breaker.window,
            ..Limits::default()
        },
        workers,
        chains: chains.collect(),
    }
}
