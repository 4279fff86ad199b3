//! What the plans that a server process keeps were made of: those of functions and triggers in PL/pgSQL stay there from call to
//! call, whoever calls, with constants made of text under the settings of whoever called first.
//!
//! Invariant: a session meets no plan that was made under other settings of [`FOLDING`] than its own, nor one that was made
//! before its first temporary object, which PostgreSQL would have made anew then: `DISCARD PLANS` comes in between.
//!
//! Sources are read once for all, by `standard_conforming_strings`: where a session had that off nobody else comes.
//!
//! Deliberately absent: what a function sets while it runs and puts back itself; `backslash_quote`, which makes errors only.

use std::sync::Arc;

use super::Settings;

/// Settings that decide what a constant is that is written as text, or what a comparison with NULL means.
const FOLDING: [&str; 8] = [
    "array_nulls",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Whether plans made under another value of `setting` may have other constants.
#[must_use]
pub fn folds_constants(setting: &str) -> bool {
    FOLDING.iter().any(|name| setting.eq_ignore_ascii_case(name))
}

/// What a server process keeps.
#[derive(Debug)]
pub struct Plans {
    /// Under what they were made.
    under: Arc<Settings>,
    /// The process has had temporary objects: the first of a session changes no search path there, so that PostgreSQL makes no plan
    /// anew (`InitTempTableNamespace` in `namespace.c`).
    pub had_temporary: bool,
}

impl Plans {
    /// Of a process that has made none.
    #[must_use]
    pub fn none(settings: Arc<Settings>) -> Self {
        Self { under: settings, had_temporary: false }
    }

    /// Whether they are good for a session with these settings, which are then those that the next one is compared with: the same,
    /// mostly.
    #[inline]
    pub fn suit(&mut self, settings: &Arc<Settings>) -> bool {
        Arc::ptr_eq(&self.under, settings) || self.suit_as_well(settings)
    }

    #[cold]
    fn suit_as_well(&mut self, settings: &Arc<Settings>) -> bool {
        let suit = FOLDING.iter().all(|name| self.under.bytes(name) == settings.bytes(name));
        if suit {
            self.made_under(settings);
        }
        suit
    }

    /// From now on plans are made under `settings`; those before were discarded, or suit.
    pub(super) fn made_under(&mut self, settings: &Arc<Settings>) {
        self.under = Arc::clone(settings);
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
        plans.made_under(&other);
        assert!(!plans.suit(&plain));
        assert!(plans.suit(&settings(&[("TimeZone", "Asia/Tokyo"), ("work_mem", "1MB")])));
        assert!(folds_constants("TimeZone") && !folds_constants("client_encoding"));
    }
}
