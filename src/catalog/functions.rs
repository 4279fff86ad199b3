//! What is known of functions by name.
//!
//! Invariant: a name that stands for several functions is as bad as the worst of them, over all schemas unless the
//! statement names one; a name that is not known may do anything. Deliberately absent: argument types, the search path.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::conduct::{Outcome, called_by_name, called_inside, text_effects};
use super::queries::FunctionRow;
use crate::sql::Effects;

/// Effects of what a function runs inside that concern its callers by themselves.
const KEPT: Effects = Effects(
    Effects::NODE_LOCAL.0
        | Effects::SEQUENCE.0
        | Effects::CURRVAL.0
        | Effects::COMPUTED_SETTING.0
        | Effects::PROCESS.0
        | Effects::TAKES_ADVISORY.0
        | Effects::SEED.0
        | Effects::SETS_INSIDE.0
        | Effects::RUNS_TEXT.0,
);

/// The functions of one database.
#[derive(Debug)]
pub(super) struct Functions {
    by_name: HashMap<Box<str>, Overloads, RandomState>,
    /// PostgreSQL 16 or later, whose grammar has JSON constructors.
    json_syntax: bool,
}

/// What each schema has under one name.
type Overloads = SmallVec<[(Schema, Outcome); 1]>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Schema {
    /// `pg_catalog`, and whether one of its overloads is volatile.
    Catalog(bool),
    Other(Box<str>),
}

impl Functions {
    pub(super) fn builtin() -> Self {
        let mut functions = Self { by_name: HashMap::default(), json_syntax: false };
        for line in include_str!("builtin.txt").lines().filter(|l| !l.starts_with('#')) {
            if let Some((name, volatility)) = line.split_once(' ') {
                functions.add_own("pg_catalog", name, volatility);
            }
        }
        functions
    }

    /// PostgreSQL's own.
    pub(super) fn from_rows(rows: impl IntoIterator<Item = FunctionRow>) -> Self {
        let mut functions = Self { by_name: HashMap::default(), json_syntax: false };
        for row in rows {
            functions.add_own(&row.schema, &row.name, &row.volatility);
        }
        functions.json_syntax = functions.by_name.contains_key("any_value");
        functions
    }

    fn add_own(&mut self, schema: &str, name: &str, volatility: &str) {
        let volatile = volatility.is_empty() || volatility.contains('v');
        let schema = if schema == "pg_catalog" { Schema::Catalog(volatile) } else { Schema::Other(schema.into()) };
        let outcome = Outcome { conduct: called_by_name(name, volatile), effects: text_effects(name) };
        self.by_name.entry(name.into()).or_default().push((schema, outcome));
    }

    /// Adds one of a user's. Of what it runs only [`KEPT`] is told apart; the rest is in the conduct.
    pub(super) fn add(&mut self, schema: &str, name: &str, outcome: Outcome) {
        let schema = if schema == "pg_catalog" { Schema::Catalog(true) } else { Schema::Other(schema.into()) };
        let outcome = Outcome { effects: Effects(outcome.effects.0 & KEPT.0), ..outcome };
        self.by_name.entry(name.into()).or_default().push((schema, outcome));
    }

    /// What one of PostgreSQL's own of this name brings where it is called inside something else.
    pub(super) fn inside(&self, name: &str) -> Outcome {
        let own = self.by_name.get(name).into_iter().flatten();
        own.filter_map(|(schema, _)| match schema {
            Schema::Catalog(volatile) => Some(called_inside(name, *volatile)),
            Schema::Other(_) => None,
        })
        .fold(Outcome::default(), Outcome::with)
    }

    /// Whether every function that can be meant is PostgreSQL's own.
    pub(super) fn own(&self, name: &str) -> bool {
        match self.by_name.get(name) {
            Some(known) => known.iter().all(|(schema, _)| match schema {
                Schema::Catalog(_) => true,
                Schema::Other(schema) => &**schema == "information_schema",
            }),
            None => self.json_syntax && json_constructor(name),
        }
    }

    /// What there is by name, and what effects calling it has.
    pub(super) fn effects(&self) -> impl Iterator<Item = (&str, Effects)> {
        self.by_name.iter().flat_map(|(name, all)| all.iter().map(|(_, outcome)| (&**name, outcome.effects)))
    }

    pub(super) fn outcome(&self, schema: Option<&str>, name: &str) -> Outcome {
        let Some(known) = self.by_name.get(name) else {
            let syntax = self.json_syntax && schema.is_none() && json_constructor(name);
            return if syntax { Outcome::default() } else { Outcome::UNKNOWN };
        };
        let matches = |of: &Schema| match (schema, of) {
            (None, _) => true,
            (Some(schema), Schema::Catalog(_)) => schema == "pg_catalog",
            (Some(schema), Schema::Other(of)) => schema == &**of,
        };
        let meant = known.iter().filter(|(of, _)| matches(of)).map(|(_, outcome)| *outcome);
        meant.reduce(Outcome::with).unwrap_or(Outcome::UNKNOWN)
    }
}

fn json_constructor(name: &str) -> bool {
    matches!(
        name,
        "json"
            | "json_array"
            | "json_arrayagg"
            | "json_objectagg"
            | "json_scalar"
            | "json_serialize"
            | "json_exists"
            | "json_query"
            | "json_value"
    )
}
