//! What the admin interface sees of a gateway.
//!
//! Invariant: nothing here waits for a session, and no session waits for it but for the moment that its own state is read.
//! Deliberately absent: how it is shown (`admin`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use crate::admin::{Listening, Policy, Sessions, Source};
use crate::control::Live;
use crate::observe::Metrics;
use crate::sql::CacheStats;
use crate::wasm::PolicyStatus;

impl Source for Context {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    fn sessions(&self) -> Sessions {
        self.cancels.states()
    }

    fn listening(&self) -> Listening {
        self.listeners.counts()
    }

    fn servers(&self) -> usize {
        self.budget.used()
    }

    fn analyses(&self) -> CacheStats {
        self.session.analyzer.stats()
    }

    fn policies(&self) -> Vec<Policy> {
        self.policies.status().into_iter().map(policy).collect()
    }

    fn draining(&self) -> bool {
        *self.on_drain().borrow()
    }
}

fn policy(status: PolicyStatus) -> Policy {
    let counts = status.counts;
    let (version, digest) = status
        .generation
        .map_or_else(Default::default, |generation| (generation.version.into_string(), generation.digest.to_string()));
    Policy {
        name: status.name.into_string(),
        state: status.state.as_str(),
        version,
        digest,
        loaded_at: status.loaded_at,
        error: status.error.map(String::from),
        calls: counts.asked,
        cached: counts.cached,
        decisions: vec![
            ("primary", counts.primary),
            ("replica", counts.replica),
            ("any", counts.any),
            ("reject", counts.rejected),
            ("pass", counts.passed),
        ],
        faults: counts.faults.into_iter().map(|(kind, count)| (kind.as_str(), count)).collect(),
        own: status.own_counts.into_iter().map(|(name, count)| (name.into_string(), count)).collect(),
    }
}
