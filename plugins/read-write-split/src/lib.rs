//! The default policy: what is proven to read goes to a replica, all else to the primary.
//!
//! Settings, all optional:
//!
//! ```toml
//! primary_tables    = ["jobs", "audit.log"]   # reads of these go to the primary; a name without a schema: in any
//! primary_functions = ["fresh_balance"]       # so do statements that call these
//! max_lag           = "5s"                    # replicas that lag more do not serve
//! ```
//!
//! The gateway carries the same rule in `src/policy/split.rs`, and a test there holds the two together.

use std::time::Duration;

use pointsman_policy::{Decision, Depends, Manifest, Needs, Policy, Query, Settings, Target};

/// The policy under its settings.
pub struct ReadWriteSplit {
    tables: Vec<String>,
    functions: Vec<String>,
    max_lag: Option<Duration>,
}

impl Policy for ReadWriteSplit {
    fn configure(settings: &Settings) -> Result<(Self, Manifest), String> {
        settings.only(&["primary_tables", "primary_functions", "max_lag"])?;
        let policy = Self {
            tables: settings.strings("primary_tables")?,
            functions: settings.strings("primary_functions")?,
            max_lag: settings.duration("max_lag")?,
        };
        let needs = if policy.tables.is_empty() && policy.functions.is_empty() { Needs::NONE } else { Needs::SHAPE };
        Ok((policy, Manifest { version: env!("CARGO_PKG_VERSION"), needs, depends: Depends::Statement }))
    }

    fn route(&mut self, query: &Query) -> Decision {
        if !query.may_use_replica() || self.named(query) {
            return Target::primary().into();
        }
        match self.max_lag {
            Some(lag) => Target::replica().max_lag(lag).into(),
            None => Target::replica().into(),
        }
    }
}

impl ReadWriteSplit {
    /// Whether the settings name a table or function of the query.
    fn named(&self, query: &Query) -> bool {
        let tables = || query.tables().iter().any(|table| matches(&self.tables, table.schema.as_deref(), &table.name));
        let functions = || {
            let called = query.functions();
            called.iter().any(|function| matches(&self.functions, function.schema.as_deref(), &function.name))
        };
        !self.tables.is_empty() && tables() || !self.functions.is_empty() && functions()
    }
}

/// A name without a schema matches in any; where the statement names no schema, the search path may lead to a qualified one.
fn matches(names: &[String], schema: Option<&str>, name: &str) -> bool {
    names.iter().any(|wanted| match wanted.rsplit_once('.') {
        None => wanted == name,
        Some((in_schema, wanted)) => wanted == name && schema.is_none_or(|schema| schema == in_schema),
    })
}

pointsman_policy::export_policy!(ReadWriteSplit);
