//! stub of the catalogue: signatures are final, bodies follow.
use crate::sql::{Access, Effects, Shape};

/// What syntax and catalogue together say of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `Read` only if nothing that the text names may write.
    pub access: Access,
    /// The syntax's effects and those of the functions and relations named.
    pub effects: Effects,
}

/// What is known of one database's functions and relations.
#[derive(Debug)]
pub struct Catalog {}

/// One row of [`FUNCTIONS_SQL`].
#[derive(Debug, Clone)]
pub struct FunctionRow {
    /// `pg_namespace.nspname`.
    pub schema: String,
    /// `pg_proc.proname`.
    pub name: String,
    /// The volatilities of all overloads, each of `i`, `s`, `v` at most once, in any order.
    pub volatility: String,
}

/// One row of [`RELATIONS_SQL`]: a fact that makes a relation more than a plain table.
#[derive(Debug, Clone)]
pub struct RelationRow {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `pg_namespace.nspname`.
    pub schema: String,
    /// `pg_class.relname`.
    pub name: String,
    /// `f`: calls the volatile function named in `detail`; `u`: unlogged; `e`: foreign; `n`: needs its own node;
    /// `v`: reads the relation whose oid is in `detail`.
    pub fact: char,
    /// See `fact`; empty where it needs none.
    pub detail: String,
}

/// Query for [`FunctionRow`]s, three columns of text.
pub const FUNCTIONS_SQL: &str = "";
/// Query for [`RelationRow`]s, five columns of text.
pub const RELATIONS_SQL: &str = "";

impl Catalog {
    /// PostgreSQL 15's own functions and views only: what holds until a server was asked.
    #[must_use]
    pub fn builtin(generation: u64) -> Self {
        let _ = generation;
        Self {}
    }

    /// From the rows of [`FUNCTIONS_SQL`] and [`RELATIONS_SQL`], both asked in the same database.
    /// `generation` must differ from that of every other catalogue in the process (1 to 2^36).
    pub fn from_rows(
        generation: u64,
        functions: impl IntoIterator<Item = FunctionRow>,
        relations: impl IntoIterator<Item = RelationRow>,
    ) -> Self {
        let _ = (generation, functions.into_iter().count(), relations.into_iter().count());
        Self {}
    }

    /// The number it was made with.
    #[must_use]
    pub fn generation(&self) -> u64 {
        0
    }

    /// What `shape` may do, given what its names stand for here. One load for a shape judged before.
    #[must_use]
    pub fn judge(&self, shape: &Shape) -> Verdict {
        Verdict { access: shape.access, effects: shape.effects }
    }

    /// [`Catalog::judge`]'s access.
    #[must_use]
    pub fn access(&self, shape: &Shape) -> Access {
        self.judge(shape).access
    }
}
