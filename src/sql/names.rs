//! Names that mean something by themselves: functions with effects on the session, views about one node, keywords that
//! stand before a parenthesis without being functions.
//!
//! Invariant: every test takes a name that is folded already; a name counts whatever schema it is written with, because
//! a wrong guess here only costs a trip to the primary or an audit. Deliberately absent: volatility (see `catalog`).

use super::analysis::Effects;

/// What a function of this name does to the session or says of the node, beyond its volatility.
/// `set_config` and `current_setting` depend on their arguments: see `sketch`.
pub(crate) fn function_effects(name: &str) -> Effects {
    match name {
        "nextval" | "setval" => Effects::SEQUENCE,
        "currval" | "lastval" => Effects::SEQUENCE | Effects::CURRVAL,
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            Effects::ADVISORY_LOCK | Effects::TAKES_ADVISORY | Effects::NODE_LOCAL
        }
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
            Effects::ADVISORY_LOCK | Effects::NODE_LOCAL
        }
        _ if name.starts_with("pg_advisory_xact_") || name.starts_with("pg_try_advisory_xact_") => {
            Effects::TAKES_ADVISORY | Effects::NODE_LOCAL
        }
        // Connections, slots that may be temporary, origins and backups, which live as long as the session and which
        // DISCARD ALL leaves alone.
        "dblink_connect"
        | "dblink_connect_u"
        | "pg_replication_origin_session_setup"
        | "pg_create_physical_replication_slot"
        | "pg_create_logical_replication_slot"
        | "pg_copy_logical_replication_slot"
        | "pg_copy_physical_replication_slot"
        | "pg_backup_start"
        | "pg_start_backup" => Effects::PROCESS | Effects::NODE_LOCAL,
        "setseed" => Effects::SEED,
        "dblink_disconnect" | "dblink_open" | "dblink_send_query" | "postgres_fdw_get_connections" => {
            Effects::OPAQUE | Effects::NODE_LOCAL
        }
        _ if node_local_function(name) => Effects::NODE_LOCAL,
        _ => Effects::NONE,
    }
}

fn node_local_function(name: &str) -> bool {
    const EXACT: [&str; 34] = [
        "inet_client_addr",
        "inet_client_port",
        "inet_server_addr",
        "inet_server_port",
        "pg_available_wal_summaries",
        "pg_backend_pid",
        "pg_blocking_pids",
        "pg_cancel_backend",
        "pg_conf_load_time",
        "pg_current_logfile",
        "pg_cursor",
        "pg_export_snapshot",
        "pg_get_sequence_data",
        "pg_hba_file_rules",
        "pg_is_in_backup",
        "pg_is_in_recovery",
        "pg_is_wal_replay_paused",
        "pg_isolation_test_session_is_blocked",
        "pg_jit_available",
        "pg_listening_channels",
        "pg_lock_status",
        "pg_log_backend_memory_contexts",
        "pg_notification_queue_usage",
        "pg_postmaster_start_time",
        "pg_prepared_statement",
        "pg_prepared_xact",
        "pg_promote",
        "pg_reload_conf",
        "pg_safe_snapshot_blocking_pids",
        // A standby has what was logged ahead.
        "pg_sequence_last_value",
        "pg_show_all_file_settings",
        "pg_show_all_settings",
        "pg_terminate_backend",
        "pg_trigger_depth",
    ];
    const PREFIXES: [&str; 19] = [
        "pg_backup_",
        "pg_control_",
        "pg_current_wal_",
        "pg_get_backend_memory",
        "pg_get_replication_slots",
        "pg_get_shmem_",
        "pg_get_wal_",
        "pg_last_",
        "pg_logical_",
        "pg_ls_",
        "pg_read_",
        "pg_replication_",
        "pg_stat_",
        "pg_stop_backup",
        "pg_start_backup",
        "pg_switch_wal",
        "pg_wal_replay_",
        // Refused during recovery.
        "pg_walfile_name",
        "pg_get_multixact",
    ];
    (name.starts_with("pg_") || name.starts_with("inet_"))
        && (EXACT.binary_search(&name).is_ok() || PREFIXES.iter().any(|p| name.starts_with(p)))
}

/// Settings in which a standby differs from its primary by its nature. Those that an administrator may set on each node as
/// he likes (`cluster_name`, memory, logging) are not among them.
pub(crate) fn node_local_setting(name: &str) -> bool {
    matches!(
        name,
        "transaction_read_only"
            | "in_hot_standby"
            | "port"
            | "listen_addresses"
            | "unix_socket_directories"
            | "data_directory"
            | "config_file"
            | "hba_file"
            | "ident_file"
            | "external_pid_file"
            | "primary_conninfo"
            | "primary_slot_name"
    )
}

/// Views and tables whose rows are about one node.
pub(crate) fn node_local_relation(name: &str) -> bool {
    name.starts_with("pg_")
        && (name.starts_with("pg_stat_")
            || name.starts_with("pg_statio_")
            || matches!(
                name,
                "pg_locks"
                    | "pg_cursors"
                    | "pg_prepared_statements"
                    | "pg_prepared_xacts"
                    | "pg_settings"
                    | "pg_file_settings"
                    | "pg_hba_file_rules"
                    | "pg_ident_file_mappings"
                    | "pg_replication_slots"
                    | "pg_replication_origin_status"
                    | "pg_sequences"
                    | "pg_backend_memory_contexts"
                    | "pg_shmem_allocations"
                    | "pg_shmem_allocations_numa"
                    | "pg_wait_events"
                    | "pg_aios"
                    | "pg_buffercache"
                    | "pg_config"
            ))
}

/// Functions whose arguments name state or objects: their literals stay in the normalised text.
pub(crate) fn keeps_literals(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b's') => matches!(name, "set_config" | "setval" | "setseed"),
        Some(b'c') => matches!(name, "currval" | "current_setting"),
        Some(b'n') => name == "nextval",
        Some(b'l') => name == "lastval" || name.starts_with("lo_"),
        Some(b'd') => name.starts_with("dblink") || name == "database_to_xml",
        Some(b'q') => name.starts_with("query_to_xml"),
        Some(b'p') => {
            name.starts_with("pg_advisory")
                || name.starts_with("pg_try_advisory")
                || name.starts_with("pg_logical_")
                || name.starts_with("pg_replication_")
                || name.starts_with("pg_create_")
                || name == "pg_notify"
        }
        _ => false,
    }
}

/// Unquoted words that stand before `(` as syntax, a type or a name, and that cannot be a function of a user's.
pub(crate) fn never_a_function(word: &str) -> bool {
    const WORDS: [&str; 93] = [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "between",
        "bigint",
        "bit",
        "boolean",
        "by",
        "case",
        "cast",
        "char",
        "character",
        "check",
        "coalesce",
        "conflict",
        "cube",
        "dec",
        "decimal",
        "default",
        "distinct",
        "do",
        "else",
        "except",
        "exclude",
        "exists",
        "explain",
        "extract",
        "filter",
        "float",
        "for",
        "from",
        "full",
        "generated",
        "greatest",
        "group",
        "grouping",
        "having",
        "identity",
        "ilike",
        "in",
        "include",
        "inner",
        "int",
        "integer",
        "intersect",
        "interval",
        "is",
        "join",
        "key",
        "lateral",
        "least",
        "left",
        "like",
        "limit",
        "local",
        "materialized",
        "nchar",
        "normalize",
        "not",
        "national",
        "nullif",
        "numeric",
        "of",
        "offset",
        "on",
        "only",
        "or",
        "over",
        "overlay",
        "position",
        "precision",
        "primary",
        "real",
        "references",
        "returning",
        "rollup",
        "row",
        "select",
        "sets",
        "similar",
        "some",
        "then",
        "time",
        "timestamp",
        "treat",
        "trim",
        "union",
        "unique",
        "using",
    ];
    const MORE: [&str; 14] = [
        "values",
        "varchar",
        "varying",
        "when",
        "where",
        "window",
        "with",
        "within",
        "xmlelement",
        "xmlforest",
        "xmlparse",
        "xmlroot",
        "xmlserialize",
        "zone",
    ];
    WORDS.contains(&word) || MORE.contains(&word)
}

/// Unquoted, unqualified names that the grammar itself interprets when called: no function of a user's can be meant.
pub(crate) fn syntax_function(name: &str) -> bool {
    matches!(
        name,
        "coalesce"
            | "nullif"
            | "greatest"
            | "least"
            | "grouping"
            | "row"
            | "array"
            | "exists"
            | "cast"
            | "treat"
            | "current_timestamp"
            | "current_time"
            | "localtime"
            | "localtimestamp"
            | "xmlconcat"
            | "xmlelement"
            | "xmlexists"
            | "xmlforest"
            | "xmlparse"
            | "xmlpi"
            | "xmlroot"
            | "xmlserialize"
    )
}

/// Unquoted words that are values, not columns.
pub(crate) fn not_a_column(word: &str) -> bool {
    matches!(
        word,
        "current_user"
            | "session_user"
            | "system_user"
            | "user"
            | "current_role"
            | "current_date"
            | "current_time"
            | "current_timestamp"
            | "current_catalog"
            | "current_schema"
            | "localtime"
            | "localtimestamp"
            | "default"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_by_name() {
        let check = |name, effects: Effects| assert_eq!(function_effects(name), effects, "{name}");
        check("nextval", Effects::SEQUENCE);
        check("pg_advisory_lock", Effects::ADVISORY_LOCK | Effects::TAKES_ADVISORY | Effects::NODE_LOCAL);
        check("pg_advisory_unlock", Effects::ADVISORY_LOCK | Effects::NODE_LOCAL);
        check("pg_try_advisory_xact_lock_shared", Effects::TAKES_ADVISORY | Effects::NODE_LOCAL);
        check("pg_is_in_recovery", Effects::NODE_LOCAL);
        check("pg_terminate_backend", Effects::NODE_LOCAL);
        check("pg_stat_get_activity", Effects::NODE_LOCAL);
        check("pg_sequence_last_value", Effects::NODE_LOCAL);
        check("pg_walfile_name", Effects::NODE_LOCAL);
        check("pg_walfile_name_offset", Effects::NODE_LOCAL);
        check("pg_wal_lsn_diff", Effects::NONE);
        check("lower", Effects::NONE);
        check("pg_typeof", Effects::NONE);
    }

    #[test]
    fn node_local_views() {
        for name in ["pg_stat_activity", "pg_statio_user_tables", "pg_locks", "pg_sequences", "pg_settings"] {
            assert!(node_local_relation(name), "{name}");
        }
        for name in ["pg_stats", "pg_statistic", "pg_class", "pg_sequence", "locks"] {
            assert!(!node_local_relation(name), "{name}");
        }
    }
}
