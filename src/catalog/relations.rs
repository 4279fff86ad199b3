//! Relations of which a read is more than a read of shared data.
//!
//! Invariant: what a view reads, through any number of views and children, counts as read by the view.
//! Deliberately absent: plain tables; triggers, which only writes fire.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::functions::harmless_builtin;
use super::queries::RelationRow;
use crate::sql::{Effects, node_local_relation};

/// What reading a relation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// It calls a function that may write.
    pub(super) writes: bool,
    pub(super) effects: Effects,
}

impl Reading {
    fn with(self, other: Self) -> Self {
        Self { writes: self.writes || other.writes, effects: self.effects | other.effects }
    }
}

/// The relations of one database that matter.
#[derive(Debug, Default)]
pub(super) struct Relations {
    by_name: HashMap<Box<str>, Homonyms, RandomState>,
}

/// The relations of one name, by schema.
type Homonyms = SmallVec<[(Box<str>, Reading); 1]>;

impl Relations {
    pub(super) fn from_rows(rows: impl IntoIterator<Item = RelationRow>) -> Self {
        let mut own: HashMap<u32, Reading> = HashMap::new();
        let mut readers: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut names: HashMap<u32, (String, String)> = HashMap::new();
        for row in rows {
            let reading = match row.fact {
                'f' => call(&row.detail),
                'u' | 'e' => Reading { writes: false, effects: Effects::NODE_LOCAL },
                'n' if node_local_relation(&row.name) => Reading { writes: false, effects: Effects::NODE_LOCAL },
                'v' => {
                    if let Ok(read) = row.detail.parse() {
                        readers.entry(read).or_default().push(row.oid);
                    }
                    Reading::default()
                }
                _ => Reading::default(),
            };
            let known = own.entry(row.oid).or_default();
            *known = known.with(reading);
            names.entry(row.oid).or_insert((row.schema, row.name));
        }
        let reading = closure(own, &readers);
        let mut relations = Self::default();
        for (oid, reading) in reading {
            if let Some((schema, name)) = names.remove(&oid) {
                relations.by_name.entry(name.into()).or_default().push((schema.into(), reading));
            }
        }
        relations
    }

    /// What reading a relation of this name brings; without a schema, over all that have it.
    pub(super) fn reading(&self, schema: Option<&str>, name: &str) -> Reading {
        let Some(known) = self.by_name.get(name) else { return Reading::default() };
        known
            .iter()
            .filter(|(of, _)| schema.is_none_or(|schema| schema == &**of))
            .fold(Reading::default(), |all, (_, one)| all.with(*one))
    }
}

fn call(detail: &str) -> Reading {
    let (schema, name) = detail.split_once('.').unwrap_or(("", detail));
    if harmless_builtin(schema, name) {
        return Reading::default();
    }
    let effects = if schema == "pg_catalog" { Effects::SEQUENCE } else { Effects::CALLS_UNKNOWN };
    Reading { writes: true, effects: effects | crate::sql::function_effects(name) }
}

/// Carries each relation's reading up to all that read it.
fn closure(own: HashMap<u32, Reading>, readers: &HashMap<u32, Vec<u32>>) -> HashMap<u32, Reading> {
    let mut total: HashMap<u32, Reading> = HashMap::new();
    for (source, reading) in own.into_iter().filter(|(_, r)| *r != Reading::default()) {
        let mut reached = HashSet::from([source]);
        let mut stack = vec![source];
        while let Some(oid) = stack.pop() {
            let known = total.entry(oid).or_default();
            *known = known.with(reading);
            for &reader in readers.get(&oid).into_iter().flatten() {
                if reached.insert(reader) {
                    stack.push(reader);
                }
            }
        }
    }
    total
}
