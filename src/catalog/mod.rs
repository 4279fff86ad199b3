//! What is known of one database's functions and relations, and what a statement may do given that.
//!
//! Invariants: a verdict is never weaker than the syntax's; `Read` only where nothing that the statement runs is known to
//! change anything; a function that is not known may do anything; what may leave state in the session is marked
//! `CALLS_UNKNOWN` where the statement calls it, `RUNS_UNKNOWN` where a trigger, a default, a constraint, a rule, a view, an
//! operator, a cast or a policy does.
//!
//! A function in SQL or PL/pgSQL is judged by its source (`screen`) and by what that names (`closure`); one in C by its
//! declaration; one in any other language may do anything.
//!
//! Not seen: support functions of operator classes, selectivity estimators, input and output functions of types, the
//! negator or commutator that the planner puts in an operator's place; expressions that ANALYZE, REINDEX and their like
//! evaluate, which PostgreSQL shields (`RestrictSearchPath`, security-restricted operations). Before a server was asked, a
//! user's function with the name of one of PostgreSQL's counts as PostgreSQL's.
//!
//! Deliberately absent: asking a server (the caller has the connection), the search path (a name counts as whatever is
//! worst in any schema).

mod closure;
mod conduct;
mod custom;
mod emptied;
mod functions;
mod queries;
mod redefinition;
mod relations;
mod screen;
mod starts;

pub use emptied::emptied_databases;
pub use queries::{DEFINITIONS_SQL, DefinitionRow, FUNCTIONS_SQL, FunctionRow, RELATIONS_SQL, RelationRow, TYPES_SQL};
pub use redefinition::redefines;
pub use starts::alters_starts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sql::{Access, Effects, Kind, Names, Said, Shape, Statement, Understood, sets_inside};
use closure::Unnamed;
use conduct::Conduct;
use functions::Functions;
use relations::Relations;

/// What syntax and catalogue together say of a text or of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `Read` only if nothing that the text names may write.
    pub access: Access,
    /// The syntax's effects and those of the functions and relations named. With `NODE_LOCAL` even a read belongs to
    /// the primary.
    pub effects: Effects,
}

/// How far a catalogue can be trusted, given what was defined since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing was defined since.
    Current,
    /// Relations were made: of those that it does not know, it is not known what writing them runs.
    Grown,
    /// What is in it may mean something else by now: only plain tables and PostgreSQL's own can be read without ado.
    Stale,
    /// No server was asked yet.
    Unread,
}

/// Counts what was defined through here, so far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Definitions {
    /// Of any kind.
    pub all: u64,
    /// Those that may change what a statement runs that names what was there before, see [`redefines`].
    pub redefined: u64,
}

/// What is known of one database. New knowledge is a new catalogue with a new generation.
#[derive(Debug)]
pub struct Catalog {
    generation: u64,
    functions: Functions,
    relations: Relations,
    unnamed: Unnamed,
    /// Of what users have made, what [`Effects::FOUND`] its name may bring, and those of all that is read.
    names: Arc<Names>,
    any_read: Effects,
    custom: Box<[Box<str>]>,
    sets_folding: bool,
    /// [`Definitions`] when it was last read, plus one; 0: never.
    all: AtomicU64,
    redefined: AtomicU64,
}

/// How a verdict is kept in a shape's memo: two bits of access, then effects, then the generation.
const EFFECT_BITS: u32 = 27;
const EFFECTS_AT: u32 = 2;
const GENERATION_AT: u32 = EFFECTS_AT + EFFECT_BITS;
/// One past the largest generation.
pub const GENERATION_LIMIT: u64 = 1 << (64 - GENERATION_AT);

impl Catalog {
    /// PostgreSQL 15's own functions and views only: what holds until a server was asked.
    /// `generation` as in [`Catalog::from_rows`].
    #[must_use]
    pub fn builtin(generation: u64) -> Self {
        Self::new(generation, Functions::builtin(), Relations::default(), Unnamed::default())
    }

    fn new(generation: u64, functions: Functions, relations: Relations, unnamed: Unnamed) -> Self {
        let (all, redefined) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut names = Names::default();
        let mut any_read = Effects::NONE;
        let mut found = |name: &str, effects: Effects| {
            let effects = Effects(effects.0 & Effects::FOUND.0);
            if effects != Effects::NONE {
                *names.entry(name.into()).or_default() |= effects;
            }
        };
        functions.effects().for_each(|(name, effects)| found(name, effects));
        for (name, reading, writing) in relations.effects() {
            found(name, reading | writing);
            any_read |= Effects(reading.0 & Effects::FOUND.0);
        }
        let (names, custom) = (Arc::new(names), Box::default());
        let sets_folding = false;
        Self { generation, functions, relations, unnamed, names, any_read, custom, sets_folding, all, redefined }
    }

    /// From the rows of [`FUNCTIONS_SQL`], [`DEFINITIONS_SQL`] and [`RELATIONS_SQL`], all asked in the same database.
    ///
    /// `generation` must differ from that of every other catalogue in the process, whatever its database, because
    /// verdicts are remembered by it; from 1 to below [`GENERATION_LIMIT`]. Outside that nothing is remembered.
    pub fn from_rows(
        generation: u64,
        functions: impl IntoIterator<Item = FunctionRow>,
        definitions: &[DefinitionRow],
        relations: &[RelationRow],
    ) -> Self {
        let mut functions = Functions::from_rows(functions);
        let (relations, unnamed) = closure::close(&mut functions, definitions, relations);
        let mut custom = BTreeSet::new();
        let mut sets_folding = false;
        for row in definitions.iter().filter(|row| row.kind == 'f') {
            custom::collect(&row.source, &mut custom);
            sets_folding |= crate::sql::sets_folding(&row.source);
        }
        Self {
            sets_folding,
            custom: custom.into_iter().collect(),
            ..Self::new(generation, functions, relations, unnamed)
        }
    }

    /// The custom settings that functions name: what is not known may set them.
    #[must_use]
    pub fn custom_settings(&self) -> &[Box<str>] {
        &self.custom
    }

    /// Whether any function sets, perhaps for a while only, what plans are made of ([`crate::sql::FOLDING`]).
    #[must_use]
    pub fn sets_folding(&self) -> bool {
        self.sets_folding
    }

    /// A server said all of this, asked when `definitions` had been counted.
    pub fn confirm(&self, definitions: Definitions) {
        self.all.store(definitions.all + 1, Ordering::Relaxed);
        self.redefined.store(definitions.redefined + 1, Ordering::Relaxed);
    }

    /// How far to trust it now.
    #[must_use]
    pub fn trust(&self, definitions: Definitions) -> Trust {
        match (self.all.load(Ordering::Relaxed), self.redefined.load(Ordering::Relaxed)) {
            (0, _) | (_, 0) => Trust::Unread,
            (_, redefined) if redefined != definitions.redefined + 1 => Trust::Stale,
            (all, _) if all != definitions.all + 1 => Trust::Grown,
            _ => Trust::Current,
        }
    }

    /// The number it was made with.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What `text`, which is of this shape, may do. One load for a shape judged before; the memory is one word in the
    /// shape, so shapes that serve several databases in turn are judged anew at each turn.
    #[must_use]
    pub fn judge(&self, shape: &Shape, text: &[u8], trust: Trust) -> Verdict {
        let word = shape.memo.load();
        if word >> GENERATION_AT == self.generation && self.generation != 0 {
            return self.distrust(self.heard(unpack(word), text), shape, trust);
        }
        let mut verdict = Verdict { access: shape.access, effects: shape.effects };
        for statement in &shape.statements {
            self.judge_statement(statement, &mut verdict);
        }
        // The body of a DO is a literal, and a prepared statement may run the one that it is given.
        if shape.statements.iter().any(|statement| matches!(statement.kind, Kind::Do | Kind::Execute)) {
            verdict.effects |= Effects::RUNS_TEXT;
        }
        self.judge_names(shape, text, &mut verdict);
        if self.generation < GENERATION_LIMIT {
            shape.memo.store(pack(verdict, self.generation));
        }
        self.distrust(self.heard(verdict, text), shape, trust)
    }

    /// Adds what a text brings that is run as such: that is not its shape's.
    #[inline]
    fn heard(&self, mut verdict: Verdict, text: &[u8]) -> Verdict {
        if verdict.effects.any(Effects::RUNS_TEXT) {
            verdict.effects |= self.said(text);
        }
        verdict
    }

    /// What the words of a text may do that is run somewhere in a statement: a constant of it or a value bound to it.
    #[must_use]
    pub fn said(&self, text: &[u8]) -> Effects {
        let mut said = Said::new(self.names());
        said.push(text);
        said.finish() | sets_inside(&String::from_utf8_lossy(text))
    }

    /// What [`Effects::FOUND`] words may bring in this database.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }

    fn judge_statement(&self, statement: &Statement, verdict: &mut Verdict) {
        for function in &statement.functions {
            let outcome = self.functions.outcome(function.schema.as_deref(), &function.name);
            verdict.effects |= outcome.effects;
            verdict.runs(outcome.conduct, Effects::CALLS_UNKNOWN);
            if conduct::reads_all(&function.name) {
                verdict.effects |= self.any_read;
            }
        }
        for table in &statement.tables {
            let (schema, name) = (table.schema.as_deref(), &*table.name);
            let reading = self.relations.reading(schema, name);
            verdict.effects |= reading.effects;
            verdict.runs(reading.conduct, Effects::RUNS_UNKNOWN);
            if table.access != Access::Read {
                let writing = self.relations.writing(schema, name);
                verdict.effects |= writing.effects;
                if writing.conduct == Conduct::Unknown {
                    verdict.effects |= Effects::RUNS_UNKNOWN;
                }
            }
        }
        match statement.kind {
            Kind::Ddl if self.unnamed.definitions == Conduct::Unknown => verdict.effects |= Effects::RUNS_UNKNOWN,
            kind if evaluates(kind) => {
                verdict.runs(self.unnamed.expressions, Effects::RUNS_UNKNOWN);
                if statement.access != Access::Read {
                    verdict.runs(self.unnamed.assignments, Effects::RUNS_UNKNOWN);
                }
            }
            _ => {}
        }
    }

    /// What no list of calls or tables shows: operators, casts, attributes that are functions; and the tables of what the
    /// grammar could not take.
    fn judge_names(&self, shape: &Shape, text: &[u8], verdict: &mut Verdict) {
        let lexed = shape.statements.iter().any(|statement| statement.understood != Understood::Parsed);
        let tables = lexed && self.relations.any_unknown();
        if !tables && self.unnamed.by_name.is_empty() {
            return;
        }
        let told = screen::each_name(text, |name, place| {
            if let Some(mention) = self.unnamed.by_name.get(name) {
                let outcome = mention.outcome(place);
                verdict.effects |= Effects(outcome.effects.0 & Effects::HIDDEN.0);
                verdict.runs(outcome.conduct, Effects::RUNS_UNKNOWN);
            }
            if tables {
                let outcome = self.relations.reading(None, name).with(self.relations.writing(None, name));
                verdict.effects |= Effects(outcome.effects.0 & Effects::FOUND.0);
                if outcome.conduct == Conduct::Unknown {
                    verdict.effects |= Effects::RUNS_UNKNOWN;
                }
            }
        });
        if !told {
            verdict.effects |= Effects::RUNS_UNKNOWN;
        }
    }

    /// What a verdict is worth while definitions are not known. Costs nothing while they are.
    fn distrust(&self, mut verdict: Verdict, shape: &Shape, trust: Trust) -> Verdict {
        if trust == Trust::Current {
            return verdict;
        }
        for statement in shape.statements.iter().filter(|statement| evaluates(statement.kind)) {
            let plain = |schema: Option<&str>, name: &str| {
                schema == Some("pg_catalog")
                    || schema == Some("information_schema")
                    || name.starts_with("pg_")
                    || self.relations.known(schema, name)
            };
            let known = |table: &crate::sql::Table| plain(table.schema.as_deref(), &table.name);
            let lexed = statement.understood != Understood::Parsed;
            let writes = statement.access != Access::Read;
            let tables = statement.tables.iter();
            let unknown = match trust {
                Trust::Current => false,
                Trust::Grown => writes && (lexed || !tables.clone().all(known)),
                Trust::Unread => lexed || !tables.clone().all(known),
                Trust::Stale => {
                    let functions = statement.functions.iter().any(|function| !self.functions.own(&function.name));
                    let plain = |table: &crate::sql::Table| {
                        known(table) && self.relations.plain(table.schema.as_deref(), &table.name)
                    };
                    if functions || !tables.clone().all(plain) {
                        verdict.access = Access::Write;
                    }
                    lexed || writes || verdict.access == Access::Write
                }
            };
            if unknown {
                verdict.effects |= Effects::RUNS_UNKNOWN;
            }
        }
        verdict
    }
}

impl Verdict {
    /// `unknown`: the effect of what may do anything.
    fn runs(&mut self, conduct: Conduct, unknown: Effects) {
        if conduct > Conduct::Harmless {
            self.access = Access::Write;
        }
        if conduct == Conduct::Unknown {
            self.effects |= unknown;
        }
    }
}

/// Whether a statement of this kind evaluates expressions of the client's or runs what tables bring.
fn evaluates(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Other
            | Kind::Select
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
            | Kind::Values
            | Kind::CopyIn
            | Kind::CopyOut
            | Kind::Call
            | Kind::Do
            | Kind::Explain
            | Kind::Prepare
            | Kind::Execute
            | Kind::Declare
    )
}

fn pack(verdict: Verdict, generation: u64) -> u64 {
    let effects = u64::from(verdict.effects.0) & ((1 << EFFECT_BITS) - 1);
    generation << GENERATION_AT | effects << EFFECTS_AT | verdict.access as u64
}

fn unpack(word: u64) -> Verdict {
    let access = match word & 3 {
        1 => Access::Read,
        2 => Access::Write,
        _ => Access::Unknown,
    };
    let effects = (word >> EFFECTS_AT) & ((1 << EFFECT_BITS) - 1);
    Verdict { access, effects: Effects(u32::try_from(effects).unwrap_or(u32::MAX)) }
}

#[cfg(test)]
mod tests;
