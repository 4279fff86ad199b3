//! What is known of functions by name.
//!
//! Invariant: a name that stands for several functions is as volatile as the worst of them, over all schemas unless the
//! statement names one; a name that is not known is volatile. Deliberately absent: argument types, the search path.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::queries::FunctionRow;

/// What calling a function of some name may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Conduct {
    /// Immutable, stable, or volatile without changing anything.
    Harmless,
    /// One of PostgreSQL's own that changes data or state, all of whose effects `sql` knows by name.
    Known,
    /// Anything.
    Unknown,
}

/// The functions of one database.
#[derive(Debug)]
pub(super) struct Functions {
    by_name: HashMap<Box<str>, Overloads, RandomState>,
    /// PostgreSQL 16 or later, whose grammar has JSON constructors.
    json_syntax: bool,
}

/// What each schema has under one name.
type Overloads = SmallVec<[(Schema, Conduct); 1]>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Schema {
    Catalog,
    Other(Box<str>),
}

impl Functions {
    pub(super) fn builtin() -> Self {
        let mut functions = Self { by_name: HashMap::default(), json_syntax: false };
        for line in include_str!("builtin.txt").lines().filter(|l| !l.starts_with('#')) {
            if let Some((name, volatility)) = line.split_once(' ') {
                functions.add("pg_catalog", name, volatility);
            }
        }
        functions
    }

    pub(super) fn from_rows(rows: impl IntoIterator<Item = FunctionRow>) -> Self {
        let mut functions = Self { by_name: HashMap::default(), json_syntax: false };
        for row in rows {
            functions.add(&row.schema, &row.name, &row.volatility);
        }
        functions.json_syntax = functions.by_name.contains_key("any_value");
        functions
    }

    fn add(&mut self, schema: &str, name: &str, volatility: &str) {
        let catalog = schema == "pg_catalog";
        let volatile = volatility.is_empty() || volatility.contains('v');
        let conduct = match (catalog, volatile) {
            (true, _) if runs_queries(name) => Conduct::Unknown,
            (true, _) if assigns_transaction_id(name) => Conduct::Known,
            (true, true) if harmless(name) => Conduct::Harmless,
            (true, true) => Conduct::Known,
            (false, true) => Conduct::Unknown,
            (_, false) => Conduct::Harmless,
        };
        let schema = if catalog { Schema::Catalog } else { Schema::Other(schema.into()) };
        self.by_name.entry(name.into()).or_default().push((schema, conduct));
    }

    pub(super) fn conduct(&self, schema: Option<&str>, name: &str) -> Conduct {
        let Some(known) = self.by_name.get(name) else {
            let syntax = self.json_syntax && schema.is_none() && json_constructor(name);
            return if syntax { Conduct::Harmless } else { Conduct::Unknown };
        };
        let matches = |of: &Schema| match (schema, of) {
            (None, _) => true,
            (Some(schema), Schema::Catalog) => schema == "pg_catalog",
            (Some(schema), Schema::Other(of)) => schema == &**of,
        };
        known.iter().filter(|(of, _)| matches(of)).map(|(_, conduct)| *conduct).max().unwrap_or(Conduct::Unknown)
    }
}

/// PostgreSQL's own that run a query given as text or read whatever relation is named, views included.
fn runs_queries(name: &str) -> bool {
    matches!(name, "ts_stat" | "ts_rewrite")
        || name.starts_with("query_to_xml")
        || name.starts_with("cursor_to_xml")
        || name.starts_with("table_to_xml")
        || name.starts_with("schema_to_xml")
        || name.starts_with("database_to_xml")
}

/// Stable by declaration, and yet refused on a standby.
fn assigns_transaction_id(name: &str) -> bool {
    matches!(name, "txid_current" | "pg_current_xact_id")
}

/// Volatile ones of PostgreSQL's own that change nothing that anyone could see. Those that tell of one node are here too:
/// `sql` marks them `NODE_LOCAL`.
///
/// Not here: `setseed`, because what `random()` yields next on that one server is state of the session.
fn harmless(name: &str) -> bool {
    const PREFIXES: [&str; 8] =
        ["pg_control_", "pg_current_wal_", "pg_get_", "pg_last_", "pg_ls_", "pg_read_", "pg_show_", "pg_stat_get_"];
    matches!(
        name,
        "amvalidate"
            | "array_sample"
            | "array_shuffle"
            | "bernoulli"
            | "clock_timestamp"
            | "current_query"
            | "gen_random_uuid"
            | "pg_blocking_pids"
            | "pg_collation_actual_version"
            | "pg_current_logfile"
            | "pg_database_collation_actual_version"
            | "pg_database_size"
            | "pg_hba_file_rules"
            | "pg_ident_file_mappings"
            | "pg_indexes_size"
            | "pg_is_in_recovery"
            | "pg_is_wal_replay_paused"
            | "pg_isolation_test_session_is_blocked"
            | "pg_jit_available"
            | "pg_lock_status"
            | "pg_notification_queue_usage"
            | "pg_partition_ancestors"
            | "pg_partition_tree"
            | "pg_prepared_xact"
            | "pg_relation_size"
            | "pg_safe_snapshot_blocking_pids"
            | "pg_sequence_last_value"
            | "pg_sleep"
            | "pg_sleep_for"
            | "pg_sleep_until"
            | "pg_stat_file"
            | "pg_stat_have_stats"
            | "pg_table_size"
            | "pg_tablespace_size"
            | "pg_total_relation_size"
            | "pg_xact_commit_timestamp"
            | "pg_xact_commit_timestamp_origin"
            | "pg_xact_status"
            | "random"
            | "random_normal"
            | "system"
            | "timeofday"
            | "txid_status"
            | "uuidv4"
            | "uuidv7"
    ) || PREFIXES.iter().any(|p| name.starts_with(p))
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

/// Whether this function of PostgreSQL's own, volatile, changes nothing: for what views call.
pub(super) fn harmless_builtin(schema: &str, name: &str) -> bool {
    schema == "pg_catalog" && harmless(name) && !runs_queries(name)
}
