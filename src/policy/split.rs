//! The rule of the default policy, compiled into the gateway: the safety net behind every chain, and what the
//! component `read-write-split` is tested against.
//!
//! Invariant: a statement goes to a replica only if it is proven to read, asks nothing about the node itself, touches
//! no session state that a server keeps, and runs outside a transaction or in one that is READ ONLY and not SERIALIZABLE.

use std::time::Duration;

use super::{Decision, Depends, Digest, Fault, Generation, Manifest, Needs, Policy, Query, Role, Target, Transaction};
use crate::sql::{Access, Effects};

/// Reads to replicas, all else to the primary.
#[derive(Debug, Clone)]
pub struct ReadWriteSplit {
    settings: SplitSettings,
    generation: Generation,
}

/// What the rule can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitSettings {
    /// Reads of these go to the primary; `name`, which stands for it in any schema, or `schema.name`.
    pub primary_tables: Vec<Box<str>>,
    /// Statements that call these go to the primary; written likewise.
    pub primary_functions: Vec<Box<str>>,
    /// Replicas whose lag is larger do not serve.
    pub max_lag: Option<Duration>,
}

/// Effects that a replica may have: a setting alone is the same everywhere, and is replayed where it is needed.
const HARMLESS: Effects = Effects(Effects::SETTINGS.0 | Effects::ALL_SETTINGS.0 | Effects::LOCAL_SETTINGS.0);

impl Default for ReadWriteSplit {
    fn default() -> Self {
        Self::new(SplitSettings::default())
    }
}

impl ReadWriteSplit {
    /// The policy's name, which the component shares.
    pub const NAME: &str = "read-write-split";

    /// The rule under these settings.
    #[must_use]
    pub fn new(settings: SplitSettings) -> Self {
        let generation = Generation { id: 0, digest: Digest::NATIVE, version: env!("CARGO_PKG_VERSION").into() };
        Self { settings, generation }
    }

    /// The decision; this rule cannot fail.
    #[must_use]
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let role = if may_use_replica(query) && !self.named(query) { Role::Replica } else { Role::Primary };
        let max_lag = if role == Role::Replica { self.settings.max_lag } else { None };
        Decision::Route(Target { max_lag, ..Target::of(role) })
    }

    /// Whether the settings name a table or function of the statement.
    fn named(&self, query: &Query<'_>) -> bool {
        let SplitSettings { primary_tables, primary_functions, .. } = &self.settings;
        if primary_tables.is_empty() && primary_functions.is_empty() {
            return false;
        }
        query.analysis.shape.statements.iter().any(|statement| {
            let table = |names: &[Box<str>]| {
                statement.tables.iter().any(|table| matches(names, table.schema.as_deref(), &table.name))
            };
            let function = |names: &[Box<str>]| {
                statement.functions.iter().any(|called| matches(names, called.schema.as_deref(), &called.name))
            };
            table(primary_tables) || function(primary_functions)
        })
    }
}

fn may_use_replica(query: &Query<'_>) -> bool {
    let transaction = match query.transaction {
        Transaction::Idle => true,
        Transaction::Block { read_only, serializable, .. } => read_only && !serializable,
    };
    transaction && query.access == Access::Read && query.effects.0 & !HARMLESS.0 == 0
}

/// Whether `schema.name` is among `names`; a name without a schema matches in any, and a statement that names
/// no schema matches a qualified name, for the search path may lead there.
fn matches(names: &[Box<str>], schema: Option<&str>, name: &str) -> bool {
    names.iter().any(|wanted| match wanted.rsplit_once('.') {
        None => **wanted == *name,
        Some((wanted_schema, wanted_name)) => {
            wanted_name == name && schema.is_none_or(|schema| schema == wanted_schema)
        }
    })
}

impl Policy for ReadWriteSplit {
    fn route(&self, query: &Query<'_>) -> Result<Decision, Fault> {
        Ok(self.decide(query))
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn manifest(&self) -> Manifest {
        Manifest { needs: Needs::SHAPE, depends: Depends::Statement }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    const READ_ONLY: Transaction = Transaction::Block { read_only: true, serializable: false, first: true };
    const SERIALIZABLE: Transaction = Transaction::Block { read_only: true, serializable: true, first: true };
    const READ_WRITE: Transaction = Transaction::Block { read_only: false, serializable: false, first: true };

    #[test]
    fn the_rule() {
        for (case, role) in [
            (Case::of(Access::Read), Role::Replica),
            (Case::of(Access::Write), Role::Primary),
            (Case::of(Access::Unknown), Role::Primary),
            (Case::of(Access::Read).transaction(READ_ONLY), Role::Replica),
            (Case::of(Access::Write).transaction(READ_ONLY), Role::Primary),
            (Case::of(Access::Read).transaction(SERIALIZABLE), Role::Primary),
            (Case::of(Access::Read).transaction(READ_WRITE), Role::Primary),
            (Case::of(Access::Read).effects(Effects::SETTINGS), Role::Replica),
            (Case::of(Access::Read).effects(Effects::NODE_LOCAL), Role::Primary),
            (Case::of(Access::Read).effects(Effects::ADVISORY_LOCK), Role::Primary),
            (Case::of(Access::Read).effects(Effects::SEQUENCE), Role::Primary),
            (Case::of(Access::Read).effects(Effects::TEMPORARY), Role::Primary),
            (Case::of(Access::Read).effects(Effects::LISTEN), Role::Primary),
            (Case::of(Access::Read).effects(Effects::OPAQUE), Role::Primary),
            (Case::of(Access::Read).effects(Effects::CALLS_UNKNOWN), Role::Primary),
        ] {
            let decision = case.ask(|query| ReadWriteSplit::default().decide(query));
            assert_eq!(decision, Decision::Route(Target::of(role)), "{case:?}");
        }
    }

    #[test]
    fn named_tables_and_functions() {
        let settings = SplitSettings {
            primary_tables: vec!["jobs".into(), "audit.log".into()],
            primary_functions: vec!["fresh".into()],
            max_lag: Some(Duration::from_secs(1)),
        };
        let rule = ReadWriteSplit::new(settings);
        for (case, role) in [
            (Case::of(Access::Read).table(None, "jobs"), Role::Primary),
            (Case::of(Access::Read).table(Some("other"), "jobs"), Role::Primary),
            (Case::of(Access::Read).table(Some("audit"), "log"), Role::Primary),
            (Case::of(Access::Read).table(None, "log"), Role::Primary),
            (Case::of(Access::Read).table(Some("other"), "log"), Role::Replica),
            (Case::of(Access::Read).table(None, "orders"), Role::Replica),
            (Case::of(Access::Read).function("fresh"), Role::Primary),
            (Case::of(Access::Read).function("lower"), Role::Replica),
        ] {
            let Decision::Route(target) = case.ask(|query| rule.decide(query)) else { panic!("{case:?}") };
            assert_eq!(target.role, role, "{case:?}");
            assert_eq!(target.max_lag.is_some(), role == Role::Replica, "{case:?}");
        }
    }
}
