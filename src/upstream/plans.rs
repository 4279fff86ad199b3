//! What the plans that a server process keeps were made of: those of functions and triggers in PL/pgSQL stay there from call to
//! call, whoever calls, with constants made of text under the settings of whoever called first.
//!
//! Invariant: a session meets no plan that another made under other settings of [`FOLDING`] than its own, nor one that was made
//! before its first temporary object, which PostgreSQL would have made anew then: `DISCARD PLANS` comes in between.
//!
//! Sources are read once for all, by `standard_conforming_strings` and its like: a process that has read some otherwise is nobody
//! else's ([`Upstream::spoiled`]).
//!
//! Deliberately absent: `backslash_quote`, which makes errors only; the settings of functions in other languages than SQL and PL/pgSQL
//! but for their SET clauses.

use std::sync::Arc;

use super::{Settings, Upstream};
use crate::sql::FOLDING;

/// What a server process keeps.
#[derive(Debug)]
pub struct Plans {
    /// Under what they were made; `None`: under several.
    under: Option<Arc<Settings>>,
    /// All of them were made for the session that has the server, since it has it.
    pub own: bool,
    /// The process has had temporary objects: the first of a session changes no search path there, so that PostgreSQL makes no plan
    /// anew (`InitTempTableNamespace` in `namespace.c`).
    pub had_temporary: bool,
}

impl Plans {
    /// Of a process that has made none.
    #[must_use]
    pub fn none(settings: Arc<Settings>) -> Self {
        Self { under: Some(settings), own: true, had_temporary: false }
    }

    /// Whether they are good for a session with these settings, which are then those that the next one is compared with: the same,
    /// mostly.
    #[inline]
    pub fn suit(&mut self, settings: &Arc<Settings>) -> bool {
        self.under.as_ref().is_some_and(|under| Arc::ptr_eq(under, settings)) || self.suit_as_well(settings)
    }

    #[cold]
    fn suit_as_well(&mut self, settings: &Arc<Settings>) -> bool {
        let Some(under) = &self.under else { return false };
        let suit = FOLDING.iter().all(|name| under.bytes(name) == settings.bytes(name));
        if suit {
            self.under = Some(Arc::clone(settings));
        }
        suit
    }

    /// They were discarded: from now on they are made under `settings`, for the session that has the server.
    fn discarded(&mut self, settings: &Arc<Settings>) {
        self.under = Some(Arc::clone(settings));
        self.own = true;
    }

    /// The session that has the server, and keeps it, has changed what they are made under: nobody else can use them.
    pub fn mix(&mut self) {
        self.under = None;
    }
}

impl Upstream {
    /// The plans in the process were discarded: those to come are made under `settings`.
    pub fn plans_discarded(&mut self, settings: &Arc<Settings>) {
        self.plans.discarded(settings);
        self.prepared.plans_discarded();
    }

    /// The plans in the process may have been discarded: a refusal takes nothing of that back.
    pub fn plans_may_be_gone(&mut self) {
        self.prepared.plans_discarded();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_made_under_some_settings() {
        let settings = |pairs: &[(&str, &str)]| Arc::new(pairs.iter().copied().collect::<Settings>());
        let plain = settings(&[]);
        let mut plans = Plans::none(Arc::clone(&plain));
        assert!(plans.suit(&plain));
        assert!(plans.suit(&settings(&[("work_mem", "1MB")])));
        let other = settings(&[("timezone", "Asia/Tokyo")]);
        assert!(!plans.suit(&other));
        plans.discarded(&other);
        assert!(!plans.suit(&plain));
        assert!(plans.suit(&settings(&[("TimeZone", "Asia/Tokyo"), ("work_mem", "1MB")])));
    }
}
