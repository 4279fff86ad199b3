//! The metrics' names, kinds and meanings: what `/metrics` exposes and docs/metrics.md lists.
//!
//! Invariant: a released name keeps its meaning. Names follow Prometheus's convention: base units, `_total` (added when
//! written) on what only grows. Deliberately absent: values.

use std::fmt::Write as _;

/// How a metric's value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Times in buckets.
    Histogram,
}

/// One metric, whatever the values of its labels.
#[derive(Debug)]
pub struct Family {
    /// Without a counter's `_total`.
    pub name: &'static str,
    /// How its value moves.
    pub kind: Kind,
    /// The labels' names.
    pub labels: &'static [&'static str],
    /// One line.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help]
        pub const $constant: Family =
            Family { name: concat!("pointsman_", $name), kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order in which they are exposed.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD = Gauge "build_info" ["version"] "Always 1; the version is the label.";
    STARTED = Gauge "start_time_seconds" [] "When the process started, in seconds since 1970.";

    CLIENTS = Gauge "clients" [] "Connections of clients, those that log in among them.";
    CLIENTS_LIMIT = Gauge "clients_limit" [] "Most connections of clients (server.max_clients).";
    ACCEPTED = Counter "clients_accepted" [] "Connections accepted, cancel requests among them.";
    REFUSED = Counter "clients_refused" ["reason"] "Connections that did not become sessions: too_many_clients, login_timeout, authentication, database, protocol, server, gone.";
    SESSIONS = Gauge "sessions" ["state"] "Sessions by what they do: idle (no server), waiting (for a server), active (a statement or transaction has a server), pinned (keeps its server between transactions).";
    PINNED = Gauge "sessions_pinned" ["cause"] "Sessions that must keep their server, by cause; one session may have several.";
    LISTEN_CONNECTIONS = Gauge "listen_connections" [] "Server connections that listen for several sessions each; they count in server_connections.";
    LISTEN_SESSIONS = Gauge "listen_sessions" [] "Sessions that hear of notifications through such a connection and so keep no server for LISTEN.";
    LISTEN_CHANNELS = Gauge "listen_channels" [] "Channels that such connections listen to.";
    RECEIVED = Counter "client_received_bytes" [] "Bytes that clients sent after their log-in.";
    SENT = Counter "client_sent_bytes" [] "Bytes sent to clients after their log-in.";

    STATEMENTS = Counter "statements" ["cluster", "shard", "node", "target"] "Statements sent to a node, by the role that was decided: primary, replica, any. A pipeline up to its Sync counts as one.";
    STATEMENTS_PINNED = Counter "statements_pinned" [] "Those of them that went to a server that their session must keep, whatever the causes; session pooling is none.";
    PINNED_CAUSES = Counter "statements_pinned_causes" ["cause"] "The same by cause; one statement may have several.";
    LOCAL = Counter "local_answers" [] "Statements answered by the gateway itself, such as the BEGIN of a transaction that waits for its first statement.";
    REJECTED = Counter "rejected" ["class"] "Statements answered with an error of the gateway's own, by the SQLSTATE's class.";
    AUDITS = Counter "session_audits" [] "Questions to servers about the state that a session left there.";
    SYNCS = Counter "session_syncs" [] "Times that a session's settings had to be brought to a server ahead of its statement.";
    RERUNS = Counter "reads_run_again" [] "Reads that failed on a replica for the replica's own sake, or lost their connection to it, and ran again on the primary; the client saw nothing of it.";
    LOST = Counter "servers_lost" [] "Server connections lost while a session held them.";
    CANCELS = Counter "cancels" [] "Cancel requests received.";
    CANCELS_FORWARDED = Counter "cancels_forwarded" ["result"] "Those of them for another gateway's session: passed on to it (success), or not (failure).";
    ANALYSES = Counter "analyses" ["result"] "Texts of statements looked up: exact (known text), shape (known but for its literals), miss (parsed).";
    ANALYSIS_BYTES = Gauge "analysis_cache_bytes" [] "Bytes held by the cache of analyses.";

    SERVERS = Gauge "server_connections" [] "Server connections open or being opened, in all pools.";
    SERVERS_LIMIT = Gauge "server_connections_limit" [] "Most server connections (max_server_connections).";
    POOL = Gauge "pool_connections" ["cluster", "shard", "node", "database", "user", "state"] "Server connections of a pool: idle, or lent (being opened included).";
    POOL_WAITING = Gauge "pool_waiting_clients" ["cluster", "shard", "node", "database", "user"] "Sessions that wait for a connection of a pool.";
    CHECKOUT_WAITS = Histogram "checkout_wait_seconds" ["cluster", "shard", "node"] "How long those sessions waited for a connection that had to.";
    CHECKOUT_TIMEOUTS = Counter "checkout_timeouts" ["cluster", "shard", "node"] "Waits that ended with pool.query_wait.";
    CHECKOUT_FULL = Counter "checkout_queue_full" ["cluster", "shard", "node"] "Sessions turned away because pool.max_queue others waited.";
    CHECKOUT_RESERVE = Counter "checkout_reserve" ["cluster", "shard", "node"] "Connections above pool.size that were opened for those who had waited for pool.reserve_after.";
    CONNECTS = Histogram "server_connect_seconds" ["cluster", "shard", "node"] "How long opening a server connection took, log-in included.";
    CONNECT_FAILURES = Counter "server_connect_failures" ["cluster", "shard", "node"] "Server connections that could not be opened.";

    NODE_UP = Gauge "node_up" ["cluster", "shard", "node"] "1 if the node is used, 0 if it is left out until it answers again.";
    NODE_ROLE = Gauge "node_role" ["cluster", "shard", "node", "role"] "1 for the role that the node has: primary, replica, unknown.";
    NODE_LAG = Gauge "node_replay_lag_seconds" ["cluster", "shard", "node"] "How far a replica is behind; absent while it is not known.";
    NODE_WEIGHT = Gauge "node_weight" ["cluster", "shard", "node"] "The node's share of the reads.";
    NODE_FAILURES = Gauge "node_failures" ["cluster", "shard", "node"] "Failures in a row.";
    NODE_IN_FLIGHT = Gauge "node_in_flight" ["cluster", "shard", "node"] "Connections to the node that are lent now.";

    RELOADS = Counter "config_reloads" ["result"] "Times the configuration was read again: success, failure.";
    POLICY_LOADS = Counter "policy_loads" ["result"] "Policies loaded (success), refused or retired by their breaker (failure).";
    POLICY = Gauge "policy_info" ["policy", "version", "digest", "state"] "Always 1 for each policy; state is serving, last_good, broken, refused or compiling.";
    POLICY_CALLS = Counter "policy_calls" ["policy"] "Calls of the generation that serves.";
    POLICY_CACHED = Counter "policy_cached" ["policy"] "Decisions of the generation that serves that were kept and served again.";
    POLICY_DECISIONS = Counter "policy_decisions" ["policy", "decision"] "Answers of the generation that serves: primary, replica, any, reject, pass.";
    POLICY_FAULTS = Counter "policy_faults" ["policy", "kind"] "Faults of the generation that serves, by kind.";
    POLICY_OWN = Counter "policy_own" ["policy", "counter"] "What a policy counts itself, over all its generations.";
}

/// The reference, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener (`[admin] listen`) gives these in the OpenMetrics text format.\n\
         This page is generated from `src/observe/families.rs`; a test says when it is stale.\n\n\
         Counters of nodes and pools start again at zero when a reload rebuilds their cluster; those of a policy when a new \
         generation serves.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for Family { name, kind, labels, help } in ALL {
        let (suffix, kind) = match kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}{suffix}` | {kind} | {} | {help} |", labels.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_reference_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("POINTSMAN_RENEW").is_some() {
            std::fs::write(file, reference()).unwrap();
        }
        let checked_in = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            checked_in == reference(),
            "docs/metrics.md is stale; renew it: POINTSMAN_RENEW=1 cargo test --release --lib the_reference_is_current"
        );
    }

    #[test]
    fn names_follow_the_convention() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is there twice");
        for Family { name, kind, help, .. } in ALL {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the suffix is added");
            assert!(help.ends_with('.') && !help.contains(['\n', '|', '\\']), "{name}: {help}");
            assert_eq!(
                *kind == Kind::Histogram,
                name.ends_with("_wait_seconds") || name.ends_with("connect_seconds"),
                "{name}"
            );
        }
    }
}
