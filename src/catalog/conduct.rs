//! What running something may do, and what PostgreSQL's own functions and those of well-known extensions do.
//!
//! Invariant: what is not listed as harmless is worse. Deliberately absent: functions of users (`screen`).

use crate::sql::{Effects, function_effects};

/// What running something may do. Ordered: the worst of several is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Conduct {
    /// Nothing is changed.
    #[default]
    Harmless,
    /// It may write, and leaves nothing in the session that anybody else could see.
    Known,
    /// It may write and may leave state in the session.
    Unknown,
}

/// [`Conduct`] and what else it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) conduct: Conduct,
    pub(super) effects: Effects,
}

impl Outcome {
    pub(super) const UNKNOWN: Self = Self { conduct: Conduct::Unknown, effects: Effects::NONE };

    /// Of what is perhaps run by what may do anything in any case: that nobody need know of it by name.
    pub(super) fn taken(self) -> Self {
        Self { conduct: Conduct::Harmless, effects: Effects(self.effects.0 & Effects::HIDDEN.0) }
    }

    /// Both happen.
    pub(super) fn with(self, other: Self) -> Self {
        Self { conduct: self.conduct.max(other.conduct), effects: self.effects | other.effects }
    }
}

/// One of PostgreSQL's own, called by a statement: `sql` knows by name what state such a one leaves.
pub(super) fn called_by_name(name: &str, volatile: bool) -> Conduct {
    if runs_queries(name) {
        Conduct::Unknown
    } else if assigns_transaction_id(name) || volatile && !harmless(name) {
        Conduct::Known
    } else {
        Conduct::Harmless
    }
}

/// One of PostgreSQL's own, called where no statement names it: in a view, a trigger, a function.
pub(super) fn called_inside(name: &str, volatile: bool) -> Outcome {
    let conduct = match called_by_name(name, volatile) {
        Conduct::Known if !leaves_nothing(name) => Conduct::Unknown,
        conduct => conduct,
    };
    Outcome { conduct, effects: function_effects(name) | text_effects(name) }
}

/// Of those that run what they are given as text.
pub(super) fn text_effects(name: &str) -> Effects {
    if runs_queries(name) || runs_text(name) { Effects::RUNS_TEXT } else { Effects::NONE }
}

/// Of extensions, declared stable.
fn runs_text(name: &str) -> bool {
    name.starts_with("crosstab") || matches!(name, "connectby" | "xpath_table")
}

/// PostgreSQL's own that read all relations of a schema, or all that there are.
pub(super) fn reads_all(name: &str) -> bool {
    name.starts_with("schema_to_xml") || name.starts_with("database_to_xml")
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

/// Volatile ones of PostgreSQL's own that write or signal, and whose work is done when the transaction is. `nextval` is here as
/// well: whoever calls `currval` or `lastval`, which are not, is told of its own values only.
fn leaves_nothing(name: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "RI_FKey_",
        "brin_",
        "lo_",
        "pg_advisory_xact_",
        "pg_stat_",
        "pg_try_advisory_xact_",
        "suppress_redundant_updates_trigger",
        "tsvector_update_trigger",
    ];
    matches!(
        name,
        "currtid2"
            | "gin_clean_pending_list"
            | "loread"
            | "lowrite"
            | "nextval"
            | "pg_cancel_backend"
            | "pg_current_xact_id"
            | "pg_export_snapshot"
            | "pg_logical_emit_message"
            | "pg_notify"
            | "pg_terminate_backend"
            | "setval"
            | "txid_current"
            | "unique_key_recheck"
    ) || PREFIXES.iter().any(|p| name.starts_with(p))
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

/// What may do anything, also in the server's process.
pub(super) const PROCESS: Outcome = Outcome { conduct: Conduct::Unknown, effects: Effects::PROCESS };

/// Volatile functions of well-known extensions, written in C: they yield something new each time, are triggers, or keep
/// connections in the process.
pub(super) fn of_extension(name: &str) -> Option<Outcome> {
    let conduct = match name {
        "dblink_connect" | "dblink_connect_u" => return Some(PROCESS),
        "gen_random_bytes"
        | "gen_random_uuid"
        | "gen_salt"
        | "normal_rand"
        | "pgp_pub_encrypt"
        | "pgp_pub_encrypt_bytea"
        | "pgp_sym_encrypt"
        | "pgp_sym_encrypt_bytea"
        | "uuid_generate_v1"
        | "uuid_generate_v1mc"
        | "uuid_generate_v4" => Conduct::Harmless,
        "autoinc" | "insert_username" | "lo_manage" | "moddatetime" | "triggered_change_notification" => Conduct::Known,
        _ => return None,
    };
    Some(Outcome { conduct, effects: Effects::NONE })
}
