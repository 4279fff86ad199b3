//! What reading and writing relations brings, by name.
//!
//! Invariant: a name that stands for several relations brings what any of them does. Deliberately absent: how it is found
//! out (`closure`).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::conduct::{Conduct, Outcome};
use super::queries::RelationRow;
use crate::sql::Effects;

/// Effects of what writing runs that are told apart.
const KEPT: Effects =
    Effects(Effects::SEQUENCE.0 | Effects::CURRVAL.0 | Effects::PROCESS.0 | Effects::SEED.0 | Effects::SETS_INSIDE.0);

/// The relations of one database that are known.
#[derive(Debug, Default)]
pub(super) struct Relations {
    by_name: HashMap<Box<str>, Homonyms, RandomState>,
    /// Whether any leaves state.
    any_unknown: bool,
}

/// The relations of one name.
type Homonyms = SmallVec<[Relation; 1]>;

#[derive(Debug)]
struct Relation {
    oid: u32,
    schema: Box<str>,
    reading: Outcome,
    writing: Outcome,
    /// A table whose reading runs nothing.
    plain: bool,
}

impl Relations {
    /// Adds one, unless it is there.
    pub(super) fn add(&mut self, row: &RelationRow, reading: Outcome, writing: Outcome) {
        let RelationRow { oid, schema, name, .. } = row;
        let homonyms = self.by_name.entry(name.as_str().into()).or_default();
        if homonyms.iter().all(|relation| relation.oid != *oid) {
            let conduct = reading.conduct;
            // What state a view leaves behind the scenes is not known by name.
            let effects = if conduct == Conduct::Unknown { Effects::RUNS_UNKNOWN } else { Effects::NONE };
            let reading = Outcome { conduct, effects: Effects(reading.effects.0 & !Effects::RUNS_TEXT.0) | effects };
            let writing = Outcome { effects: Effects(writing.effects.0 & KEPT.0), ..writing };
            self.any_unknown |= writing.conduct.max(conduct) == Conduct::Unknown;
            homonyms.push(Relation { oid: *oid, schema: schema.as_str().into(), reading, writing, plain: false });
        }
        if let Some(relation) = homonyms.iter_mut().find(|relation| relation.oid == *oid) {
            relation.plain |= row.fact == 'p';
        }
    }

    fn named(&self, schema: Option<&str>, name: &str) -> impl Iterator<Item = &Relation> {
        let homonyms = self.by_name.get(name).into_iter().flatten();
        homonyms.filter(move |relation| schema.is_none_or(|schema| schema == &*relation.schema))
    }

    /// What reading a relation of this name brings; without a schema, over all that have it.
    pub(super) fn reading(&self, schema: Option<&str>, name: &str) -> Outcome {
        self.named(schema, name).fold(Outcome::default(), |all, one| all.with(one.reading))
    }

    /// What writing one brings besides the write. Of the effects only [`KEPT`] are told apart.
    pub(super) fn writing(&self, schema: Option<&str>, name: &str) -> Outcome {
        self.named(schema, name).fold(Outcome::default(), |all, one| all.with(one.writing))
    }

    /// What there is by name, and what effects reading and writing it have.
    pub(super) fn effects(&self) -> impl Iterator<Item = (&str, Effects, Effects)> {
        let all = self.by_name.iter().flat_map(|(name, all)| all.iter().map(move |one| (&**name, one)));
        all.map(|(name, one)| (name, one.reading.effects, one.writing.effects))
    }

    /// Whether there is one.
    pub(super) fn known(&self, schema: Option<&str>, name: &str) -> bool {
        self.named(schema, name).next().is_some()
    }

    /// Whether all of that name are tables whose reading runs nothing.
    pub(super) fn plain(&self, schema: Option<&str>, name: &str) -> bool {
        self.named(schema, name).all(|one| one.plain)
    }

    /// Whether reading or writing any may leave state in the session.
    pub(super) fn any_unknown(&self) -> bool {
        self.any_unknown
    }
}
