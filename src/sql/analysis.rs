//! What is known of a statement from its text alone: the values that `sql` produces and every layer above reads.
//!
//! Invariant: a value here never claims more than the text proves. `Access::Read` holds only together with the
//! functions listed in [`Statement::functions`], whose volatility the catalogue knows and this module does not; a
//! statement that was not parsed is `Access::Unknown`, which nobody may treat as a read.
//!
//! Deliberately absent: name resolution, volatility, anything that needs a server.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

/// One text as a client sent it: its shape, shared by all texts that differ only in literals, and this text's literals.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// Shared by every text with the same normalised form.
    pub shape: Arc<Shape>,
    /// Byte ranges of the literals that the normalised form dropped, in order of appearance in this text. A range
    /// covers the whole token, quotes and prefix included; [`Analysis::literal`] decodes it.
    pub literals: SmallVec<[(u32, u32); 8]>,
    /// Whether a backslash in a plain `'…'` was an ordinary character when this text was read.
    pub standard_conforming_strings: bool,
}

impl Analysis {
    /// The value of literal `index` of this analysis, read from `text`, which must be the text that was analysed.
    ///
    /// `None` where there is no such literal, where it is not a number or a string that can be decoded without more
    /// context (`U&''`, `B''`, `X''`), or where its bytes are not UTF-8.
    #[must_use]
    pub fn literal<'t>(&self, text: &'t [u8], index: u16) -> Option<Literal<'t>> {
        let &(start, end) = self.literals.get(usize::from(index))?;
        super::literal::decode(text.get(start as usize..end as usize)?, self.standard_conforming_strings)
    }
}

/// A literal's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal<'t> {
    /// As written: digits with an optional fraction and exponent, or PostgreSQL 16's `0x1F` and `1_000`. No sign.
    Number(&'t str),
    /// Decoded: escapes and doubled quotes resolved, continued parts joined.
    String(Cow<'t, str>),
}

/// What all texts of one normalised form have in common. Made by [`Shape::new`].
#[derive(Debug, Default)]
pub struct Shape {
    /// Keyed 128-bit hash of the normalised text: equal for texts that differ only in literals.
    pub fingerprint: u128,
    /// The statements of the string, in order; empty for an empty query.
    pub statements: SmallVec<[Statement; 1]>,
    /// Union of the statements' effects.
    pub effects: Effects,
    /// The strongest access of all statements: `Write` over `Unknown` over `Read`. `Read` for an empty query.
    pub access: Access,
    /// Where the catalogue keeps its last verdict on this shape.
    pub memo: Memo,
}

impl Shape {
    /// A shape of these statements, with the union of their effects and the strongest access.
    #[must_use]
    pub fn new(fingerprint: u128, statements: SmallVec<[Statement; 1]>) -> Self {
        let effects = statements.iter().fold(Effects::NONE, |all, one| all | one.effects);
        let access = statements.iter().fold(Access::Read, |all, one| all.stronger(one.access));
        Self { fingerprint, statements, effects, access, memo: Memo::default() }
    }

    /// Bytes of heap that this shape holds, roughly: what a cache counts.
    #[must_use]
    pub fn weight(&self) -> usize {
        let names = |list: &[Box<str>]| list.iter().map(|n| n.len() + 16).sum::<usize>();
        self.statements
            .iter()
            .map(|s| {
                size_of::<Statement>()
                    + s.tables.iter().map(|t| size_of::<Table>() + t.name.len() + 24).sum::<usize>()
                    + s.functions.iter().map(|f| size_of::<Function>() + f.name.len() + 24).sum::<usize>()
                    + s.equalities.iter().map(|e| size_of::<Equality>() + e.column.len() + 8).sum::<usize>()
                    + s.hints.iter().map(|(k, v)| k.len() + v.len() + 32).sum::<usize>()
                    + names(&s.settings)
            })
            .sum::<usize>()
            + size_of::<Self>()
    }
}

/// One 64-bit word that a layer above may keep beside a shape, so that a hot statement costs it one load.
/// Races are harmless: a reader sees one whole word or another.
#[derive(Debug, Default)]
pub struct Memo(AtomicU64);

impl Memo {
    /// The word last kept; 0 at first.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Keeps a word.
    pub fn store(&self, word: u64) {
        self.0.store(word, Ordering::Relaxed);
    }
}

/// One statement of a query string.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// The command, by its leading keywords.
    pub kind: Kind,
    /// By syntax alone; see the module's invariant.
    pub access: Access,
    /// How far the text was understood.
    pub understood: Understood,
    /// Tables named anywhere in the statement, common table expressions left out. One entry for each place that names
    /// one, so that each can be asked for its own equalities: a table that stands in two branches is here twice.
    pub tables: Vec<Table>,
    /// Functions called anywhere in the statement, deduplicated. Where the grammar could not take the statement: every
    /// name before a parenthesis, so a superset.
    pub functions: Vec<Function>,
    /// `column = constant or $n` conditions that hold for every row read or written.
    pub equalities: Vec<Equality>,
    /// Hints (`/* pointsman: key=value */`) and sqlcommenter keys. Facts for the policy, never an override.
    pub hints: Vec<(Box<str>, Box<str>)>,
    /// What session state the statement touches or may touch.
    pub effects: Effects,
    /// Names of settings that `SET`, `RESET` or `set_config` with a constant name touches; lower case. `setseed` touches
    /// `seed`.
    pub settings: Vec<Box<str>>,
    /// Numbers of the parameters that name a setting, as in `set_config($1, …)`.
    pub setting_parameters: SmallVec<[u16; 4]>,
    /// A SET LOCAL that fails on no server, provided that the database has its characters.
    pub certain: bool,
    /// For transaction control only.
    pub transaction: Option<Transaction>,
    /// The name in PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH, CLOSE, LISTEN, UNLISTEN, NOTIFY, SAVEPOINT, RELEASE,
    /// ROLLBACK TO, and the setting in SHOW. `*` or `all` where the statement means all of them (unquoted only).
    pub object: Option<Box<str>>,
    /// Byte range of the statement in the text that produced this shape.
    pub span: (u32, u32),
}

/// The command, by its leading keywords. What a variant leaves open, the other fields of [`Statement`] say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "each variant is the SQL command of that name")]
#[repr(u8)]
pub enum Kind {
    #[default]
    Other = 0,
    Select = 1,
    Insert = 2,
    Update = 3,
    Delete = 4,
    Merge = 5,
    Values = 6,
    /// COPY … FROM.
    CopyIn = 7,
    /// COPY … TO.
    CopyOut = 8,
    Call = 9,
    Do = 10,
    Explain = 11,
    Set = 12,
    Reset = 13,
    Show = 14,
    /// BEGIN and START TRANSACTION.
    Begin = 15,
    /// COMMIT and END.
    Commit = 16,
    /// ROLLBACK and ABORT.
    Rollback = 17,
    Savepoint = 18,
    /// RELEASE SAVEPOINT.
    Release = 19,
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo = 20,
    /// SET TRANSACTION.
    SetTransaction = 21,
    PrepareTransaction = 22,
    /// COMMIT PREPARED and ROLLBACK PREPARED.
    FinishPrepared = 23,
    SetConstraints = 24,
    Prepare = 25,
    Execute = 26,
    Deallocate = 27,
    Declare = 28,
    /// FETCH and MOVE.
    Fetch = 29,
    /// CLOSE of a cursor.
    Close = 30,
    Listen = 31,
    Unlisten = 32,
    Notify = 33,
    Lock = 34,
    Discard = 35,
    Load = 36,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT, REFRESH MATERIALIZED VIEW.
    Maintenance = 37,
    /// CREATE, ALTER, DROP, COMMENT, GRANT, REVOKE, TRUNCATE, SECURITY LABEL, IMPORT, REASSIGN.
    Ddl = 38,
}

impl Kind {
    /// Whether PostgreSQL takes a snapshot before it runs such a statement, in every case (`PlannedStmtRequiresSnapshot` in
    /// `pquery.c`).
    #[must_use]
    pub const fn takes_snapshot(self) -> bool {
        self.is_read_under_snapshot()
            || matches!(
                self,
                Self::CopyIn | Self::CopyOut | Self::Call | Self::Do | Self::Prepare | Self::Execute | Self::Ddl
            )
    }

    /// Whether it takes one even to prepare such a statement (`analyze_requires_snapshot` in `analyze.c`).
    #[must_use]
    pub const fn is_read_under_snapshot(self) -> bool {
        matches!(
            self,
            Self::Select
                | Self::Insert
                | Self::Update
                | Self::Delete
                | Self::Merge
                | Self::Values
                | Self::Explain
                | Self::Declare
        )
    }
}

/// Whether a statement may change data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Access {
    /// Not understood; treated as a write wherever it matters.
    #[default]
    Unknown = 0,
    /// Changes nothing, provided that the functions it calls do not.
    Read = 1,
    /// May change data, take row locks, or needs a node that takes writes.
    Write = 2,
}

impl Access {
    /// The stronger of two: `Write` over `Unknown` over `Read`.
    #[must_use]
    pub const fn stronger(self, other: Self) -> Self {
        match (self, other) {
            (Self::Write, _) | (_, Self::Write) => Self::Write,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Read, Self::Read) => Self::Read,
        }
    }
}

/// How far a statement was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Understood {
    /// Neither grammar nor lexer: not UTF-8, an encoding with ASCII trail bytes, unterminated.
    #[default]
    Nothing = 0,
    /// By the lexer alone: kind, hints and effects, no tables.
    Lexed = 1,
    /// By the grammar.
    Parsed = 2,
}

/// A table named in a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// As written, folded as PostgreSQL folds it.
    pub schema: Option<Box<str>>,
    /// As written, folded as PostgreSQL folds it.
    pub name: Box<str>,
    /// `Write` for a target of INSERT, UPDATE, DELETE, MERGE, COPY FROM, or of FOR UPDATE/SHARE.
    pub access: Access,
}

/// A function called in a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// As written, folded as PostgreSQL folds it.
    pub schema: Option<Box<str>>,
    /// As written, folded as PostgreSQL folds it.
    pub name: Box<str>,
}

/// `column = value` that must hold for every row that the statement reads or writes of that table.
/// An INSERT of several rows yields one equality per row and column: all of them hold, each for its row; a column that
/// has a value other than a constant in any row yields none. An UPDATE that also assigns the column a constant yields
/// both. Nothing is taken from OR, NOT, an outer join's ON, or a branch of UNION, INTERSECT and EXCEPT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Equality {
    /// Index into [`Statement::tables`] where the column's table is certain; `None` where it is not.
    pub table: Option<u16>,
    /// Folded as PostgreSQL folds it.
    pub column: Box<str>,
    /// What the column equals.
    pub value: Operand,
}

/// The constant side of an equality.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Index into [`Analysis::literals`].
    Literal(u16),
    /// `$n`, counted from 1; also through a cast to text, uuid or an integer type, so a value that is not of that
    /// type as it stands (a bound `5.7` under `$1::int`) must be refused by whoever reads it.
    Parameter(u16),
    /// A constant that normalisation kept in the text (TRUE, NULL and their like).
    Constant(Box<str>),
}

/// What a transaction control statement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Transaction {
    /// READ ONLY (`true`), READ WRITE (`false`), neither.
    pub read_only: Option<bool>,
    /// ISOLATION LEVEL SERIALIZABLE (`true`), another level (`false`), none named.
    pub serializable: Option<bool>,
    /// AND CHAIN.
    pub chain: bool,
    /// START TRANSACTION, which is completed as such, rather than BEGIN.
    pub start: bool,
    /// Nothing in the statement was left uninterpreted; only then may a gateway answer it by itself.
    pub whole: bool,
}

/// A set of effects on session state, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects(pub u32);

impl Effects {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// SET, RESET, set_config, SET ROLE, SET SESSION AUTHORIZATION: a setting of the session may change.
    pub const SETTINGS: Self = Self(1);
    /// All settings may change at once: RESET ALL, DISCARD ALL, set_config with a name that is not a constant.
    pub const ALL_SETTINGS: Self = Self(1 << 1);
    /// CREATE TEMPORARY, SELECT INTO TEMP, `pg_temp.`: temporary objects.
    pub const TEMPORARY: Self = Self(1 << 2);
    /// Session-level advisory locks.
    pub const ADVISORY_LOCK: Self = Self(1 << 3);
    /// DECLARE … WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 4);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 5);
    /// LOAD.
    pub const LOAD: Self = Self(1 << 6);
    /// nextval, setval, currval, lastval: currval and lastval depend on it.
    pub const SEQUENCE: Self = Self(1 << 7);
    /// PREPARE at SQL level, or EXECUTE and DEALLOCATE of such a statement.
    pub const SQL_PREPARE: Self = Self(1 << 8);
    /// DEALLOCATE ALL, DISCARD ALL: prepared statements of the server go. (DISCARD PLANS keeps the statements.)
    pub const DROPS_PREPARED: Self = Self(1 << 9);
    /// Cannot run inside a transaction block or a pipeline: VACUUM, CREATE DATABASE, CREATE INDEX CONCURRENTLY …
    /// And what may be unable to: CALL and DO, whose bodies may commit.
    pub const OUTSIDE_TRANSACTION: Self = Self(1 << 10);
    /// Changes the catalogue: plans and cached descriptions may be stale afterwards.
    pub const DDL: Self = Self(1 << 11);
    /// Not understood, and its tokens may create session state that nothing here names.
    pub const OPAQUE: Self = Self(1 << 12);
    /// UNLISTEN.
    pub const UNLISTEN: Self = Self(1 << 13);
    /// SET LOCAL: a setting until the end of the transaction only.
    pub const LOCAL_SETTINGS: Self = Self(1 << 14);
    /// DISCARD ALL.
    pub const DISCARD_ALL: Self = Self(1 << 15);
    /// Asks about the node itself: pg_stat_*, pg_locks, advisory locks, pg_backend_pid and their like.
    pub const NODE_LOCAL: Self = Self(1 << 16);
    /// A user-defined or unknown function, CALL, DO: may do any of the above inside.
    pub const CALLS_UNKNOWN: Self = Self(1 << 17);
    /// Runs something that no call in the text shows and that may do any of the above: a trigger, a default, a view.
    pub const RUNS_UNKNOWN: Self = Self(1 << 18);
    /// What may do anything, called or not.
    pub const UNKNOWN: Self = Self(Self::CALLS_UNKNOWN.0 | Self::RUNS_UNKNOWN.0);
    /// A setting of the session may change under a name that neither the text nor a bound value shows: no question to a
    /// server finds a custom one.
    pub const COMPUTED_SETTING: Self = Self(1 << 19);
    /// currval, lastval: tells what this session's nextval gave.
    pub const CURRVAL: Self = Self(1 << 20);
    /// May keep in the server's process what no question finds and no statement takes back: C code that belongs to no extension,
    /// the connections of dblink, the shared dictionaries of PL/Perl, PL/Python and PL/Tcl, temporary replication slots,
    /// a session's replication origin, a base backup between its start and its stop.
    pub const PROCESS: Self = Self(1 << 21);
    /// Takes an advisory lock, the session's or the transaction's: one that is taken on a standby keeps nobody out elsewhere.
    pub const TAKES_ADVISORY: Self = Self(1 << 22);
    /// Seeds `random()`, in what it runs as well: what comes next is this server's alone.
    pub const SEED: Self = Self(1 << 23);
    /// May run a text that it is given, or was not understood: what the words of its constants and bound values may do counts.
    pub const RUNS_TEXT: Self = Self(1 << 24);
    /// May set, if only while it runs, what plans are made of ([`folds_constants`](super::folds_constants)).
    pub const REFOLDS: Self = Self(1 << 25);
    /// May set, if only while it runs, how sources of functions are read ([`reads_sources`](super::reads_sources)): what it calls first
    /// stays in the server's process as it was read then.
    pub const REREADS: Self = Self(1 << 26);
    /// Both: what sets something inside of what is called.
    pub const SETS_INSIDE: Self = Self(Self::REFOLDS.0 | Self::REREADS.0);
    /// What counts wherever it is found: what pins, what a replica must not be asked for, and what others must not meet.
    pub const FOUND: Self = Self(
        Self::PROCESS.0 | Self::SEED.0 | Self::CURRVAL.0 | Self::TAKES_ADVISORY.0 | Self::LOAD.0 | Self::SETS_INSIDE.0,
    );
    /// What a name that cannot be read may stand for.
    pub const HIDDEN: Self = Self(Self::PROCESS.0 | Self::SEED.0 | Self::TAKES_ADVISORY.0 | Self::SETS_INSIDE.0);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is in the set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Effects {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl std::ops::BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
