//! What is known of one database's functions and relations, and what a statement may do given that.
//!
//! Invariants: a verdict is never weaker than the syntax's; `Read` only where every function named is known to change
//! nothing and no relation named calls one that does; a name that is not known may do anything.
//!
//! Not seen, because no name in the text tells: operators, casts and type input functions that users defined as
//! volatile; functions called as `row.function`; a stable or immutable function that changes something all the same
//! (PostgreSQL takes the declaration at its word, too); triggers. Before a server was asked, a user's function with the
//! name of one of PostgreSQL's counts as PostgreSQL's.
//!
//! Deliberately absent: asking a server (the caller has the connection), the search path (a name counts as whatever is
//! worst in any schema).

mod functions;
mod queries;
mod relations;

pub use queries::{FUNCTIONS_SQL, FunctionRow, RELATIONS_SQL, RelationRow};

use crate::sql::{Access, Effects, Shape, Statement};
use functions::{Conduct, Functions};
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

/// What is known of one database. Immutable: new knowledge is a new catalogue with a new generation.
#[derive(Debug)]
pub struct Catalog {
    generation: u64,
    functions: Functions,
    relations: Relations,
}

/// How a verdict is kept in a shape's memo: two bits of access, then effects, then the generation.
const EFFECT_BITS: u32 = 26;
const EFFECTS_AT: u32 = 2;
const GENERATION_AT: u32 = EFFECTS_AT + EFFECT_BITS;
/// One past the largest generation.
pub const GENERATION_LIMIT: u64 = 1 << (64 - GENERATION_AT);

impl Catalog {
    /// PostgreSQL 15's own functions and views only: what holds until a server was asked.
    /// `generation` as in [`Catalog::from_rows`].
    #[must_use]
    pub fn builtin(generation: u64) -> Self {
        Self { generation, functions: Functions::builtin(), relations: Relations::default() }
    }

    /// From the rows of [`FUNCTIONS_SQL`] and [`RELATIONS_SQL`], both asked in the same database.
    ///
    /// `generation` must differ from that of every other catalogue in the process, whatever its database, because
    /// verdicts are remembered by it; from 1 to below [`GENERATION_LIMIT`]. Outside that nothing is remembered.
    pub fn from_rows(
        generation: u64,
        functions: impl IntoIterator<Item = FunctionRow>,
        relations: impl IntoIterator<Item = RelationRow>,
    ) -> Self {
        Self { generation, functions: Functions::from_rows(functions), relations: Relations::from_rows(relations) }
    }

    /// The number it was made with.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What a text of this shape may do. One load for a shape judged before; the memory is one word in the shape, so
    /// shapes that serve several databases in turn are judged anew at each turn.
    #[must_use]
    pub fn judge(&self, shape: &Shape) -> Verdict {
        let word = shape.memo.load();
        if word >> GENERATION_AT == self.generation && self.generation != 0 {
            return unpack(word);
        }
        let verdict = shape.statements.iter().map(|statement| self.judge_statement(statement)).fold(
            Verdict { access: shape.access, effects: shape.effects },
            |all, one| Verdict { access: all.access.stronger(one.access), effects: all.effects | one.effects },
        );
        if self.generation < GENERATION_LIMIT {
            shape.memo.store(pack(verdict, self.generation));
        }
        verdict
    }

    /// [`Catalog::judge`]'s access.
    #[must_use]
    pub fn access(&self, shape: &Shape) -> Access {
        self.judge(shape).access
    }

    /// What one statement of a text may do. Not remembered.
    #[must_use]
    pub fn judge_statement(&self, statement: &Statement) -> Verdict {
        let mut verdict = Verdict { access: statement.access, effects: statement.effects };
        for function in &statement.functions {
            match self.functions.conduct(function.schema.as_deref(), &function.name) {
                Conduct::Harmless => {}
                Conduct::Known => verdict.access = Access::Write,
                Conduct::Unknown => {
                    verdict.access = Access::Write;
                    verdict.effects |= Effects::CALLS_UNKNOWN;
                }
            }
        }
        for table in &statement.tables {
            let reading = self.relations.reading(table.schema.as_deref(), &table.name);
            verdict.effects |= reading.effects;
            if reading.writes {
                verdict.access = Access::Write;
            }
        }
        verdict
    }
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
