//! What the console tells of the past: counters by database; and what of the configuration tools ask for.
//!
//! Invariant: only what was counted is told. PgBouncer's columns for times spent in queries and transactions, for messages of one
//! kind and for averages over a period are left out, as nothing here measures them.
//!
//! Deliberately absent: counters of nodes and policies, which the metrics have.

use std::sync::Arc;
use std::time::Duration;

use super::command::{Kind, Value};
use super::tables::{Row, mode};
use crate::config::Config;
use crate::gateway::context::Context;
use crate::observe::{Counter, Tally, Worker};

use Kind::{Number, Text};

pub(super) const STATS: &[(&str, Kind)] = &[
    ("database", Text),
    ("total_xact_count", Number),
    ("total_query_count", Number),
    ("total_received", Number),
    ("total_sent", Number),
    ("total_wait_time", Number),
];

/// The same under the names that PgBouncer gives them there.
pub(super) const TOTALS: &[(&str, Kind)] = &[
    ("database", Text),
    ("xact_count", Number),
    ("query_count", Number),
    ("bytes_received", Number),
    ("bytes_sent", Number),
    ("wait_time", Number),
];

pub(super) const CONFIG: &[(&str, Kind)] = &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];

/// A row for each database that sessions came to since the gateway started.
pub(super) fn stats(context: &Context) -> Vec<Row> {
    let row = |(name, tally): (Box<str>, Arc<Tally>)| {
        let sum = |of: fn(&Worker) -> &Counter| tally.sum(of);
        vec![
            (&*name).into(),
            sum(|worker| &worker.transactions).into(),
            (sum(|worker| &worker.statements) + sum(|worker| &worker.local)).into(),
            sum(|worker| &worker.received).into(),
            sum(|worker| &worker.sent).into(),
            sum(|worker| &worker.waited).into(),
        ]
    };
    context.metrics.databases().into_iter().map(row).collect()
}

/// Settings that mean the same with PgBouncer, under its names and in its units; all can be changed without a restart.
pub(super) fn config(config: &Config) -> Vec<Row> {
    let (pool, server) = (&config.pool, &config.server);
    let off = |time: Option<Duration>| seconds(time.unwrap_or_default());
    let rows = [
        ("client_login_timeout", seconds(server.client_login_timeout), "60"),
        ("default_pool_size", pool.size.to_string(), "20"),
        ("max_client_conn", server.max_clients.to_string(), "10000"),
        ("min_pool_size", pool.min_size.to_string(), "0"),
        ("pool_mode", mode(pool.mode).to_owned(), "transaction"),
        ("query_wait_timeout", off(pool.query_wait), "120"),
        ("reserve_pool_size", pool.reserve_size.to_string(), "0"),
        ("reserve_pool_timeout", seconds(pool.reserve_after), "5"),
        ("server_connect_timeout", seconds(pool.connect_timeout), "15"),
        ("server_idle_timeout", off(pool.idle_timeout), "600"),
        ("server_lifetime", off(pool.lifetime), "3600"),
    ];
    let row = |(key, value, default): (&str, String, &str)| -> Row {
        vec![Value::from(key), value.into(), default.into(), "yes".into()]
    };
    rows.into_iter().map(row).collect()
}

fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_a_configuration_that_says_nothing() {
        let text = "[clusters.main]\nprimary = \"a\"\n";
        let parsed = crate::config::parse(text, "/p.toml".as_ref(), &crate::control::config_file::Machine);
        let rows = config(&parsed.unwrap().config);
        assert_eq!(rows.len(), 11);
        for row in rows {
            assert_eq!(row[1], row[2], "{row:?}");
        }
    }
}
