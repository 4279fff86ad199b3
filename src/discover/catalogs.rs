//! What the databases in use define, read from the servers and read again when it may have changed.
//!
//! Invariant: a catalogue that could not be read leaves the last in place; one that says nothing new is not replaced.
//! Deliberately absent: what a catalogue means (`catalog`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::Source;
use super::link::{Asked, Link};
use crate::catalog::{
    Catalog, DEFINITIONS_SQL, DefinitionRow, Definitions, FUNCTIONS_SQL, FunctionRow, RELATIONS_SQL, RelationRow,
    TYPES_SQL,
};
use crate::topology::{Role, Standing, Topology};
use crate::upstream::Column;

/// How often the databases in use are looked through. Changes of the schema within it are taken together.
const LOOK: Duration = Duration::from_secs(1);
/// A catalogue older than this, and than the monitor's interval, is read again: not every change of a schema passes through
/// here.
const STALE: Duration = Duration::from_secs(60);
/// A database whose schema changes all the time is read for at most one part in this many of the time.
const REST: u32 = 5;
/// Longest time for reading one.
const TIMEOUT: Duration = Duration::from_secs(30);
/// First wait after a failed attempt; it doubles up to [`STALE`].
const RETRY: Duration = Duration::from_secs(2);

/// When a database was read and when to read it again.
#[derive(Debug, Default)]
struct Reading {
    /// When, how long it took, and what [`Source::definitions`] said before.
    last: Option<(Instant, Duration, Definitions)>,
    /// After a failure.
    retry: Option<(Instant, Duration)>,
    /// Of the rows: a catalogue that says the same keeps its number, and with it what was concluded from it.
    digest: [u8; 32],
    /// What [`TYPES_SQL`] said.
    types: Option<String>,
}

impl Reading {
    fn due(&self, now: Instant, definitions: Definitions, stale: Duration) -> bool {
        if let Some((at, _)) = self.retry {
            return now >= at;
        }
        self.last.is_none_or(|(read, took, seen)| {
            let age = now.saturating_duration_since(read);
            age >= stale || seen != definitions && age >= took * REST
        })
    }

    /// Returns how long until the next attempt.
    fn failed(&mut self, now: Instant) -> Duration {
        let wait = self.retry.map_or(RETRY, |(_, wait)| (wait * 2).min(STALE));
        self.retry = Some((now + wait, wait));
        wait
    }

    /// Returns whether parameters' types may be chosen otherwise than when this was read before.
    fn types_differ(&mut self, types: String) -> bool {
        self.types.replace(types).is_some_and(|was| Some(was) != self.types)
    }

    /// Returns whether the rows differ from those read before.
    fn succeeded(&mut self, now: Instant, definitions: Definitions, digest: [u8; 32]) -> bool {
        self.last = Some((now, now.elapsed(), definitions));
        self.retry = None;
        std::mem::replace(&mut self.digest, digest) != digest
    }
}

/// Reads what is due, for as long as the cluster is there.
pub(super) async fn run(source: Weak<dyn Source>, wake: Arc<Notify>, worker: usize) {
    let mut readings: HashMap<Box<str>, Reading> = HashMap::new();
    loop {
        {
            let Some(source) = source.upgrade() else { return };
            let definitions = source.definitions();
            let catalogs = source.catalogs();
            let stale = source.config().monitor.interval.max(STALE);
            readings.retain(|dbname, _| catalogs.iter().any(|(name, _)| name == dbname));
            for (dbname, catalog) in catalogs {
                let reading = readings.entry(dbname.clone()).or_default();
                if reading.due(Instant::now(), definitions, stale)
                    && let Some(_guard) = source.vacated().read(&dbname)
                {
                    read(&*source, &dbname, &catalog, reading, definitions, worker).await;
                }
            }
        }
        let _ = crate::net::timeout(LOOK, wake.notified()).await;
    }
}

async fn read(
    source: &dyn Source,
    dbname: &str,
    catalog: &ArcSwap<Catalog>,
    reading: &mut Reading,
    definitions: Definitions,
    worker: usize,
) {
    let started = Instant::now();
    match ask(source, dbname, worker).await {
        Ok(mut rows) => {
            let mut definitions = definitions;
            if reading.types_differ(std::mem::take(&mut rows.types)) {
                // Perhaps by DDL that passed by here.
                source.schema_changed();
                definitions.all += 1;
            }
            if reading.succeeded(started, definitions, rows.digest()) {
                let Rows { functions, defined, relations, .. } = rows;
                tracing::debug!(
                    cluster = source.name(),
                    dbname,
                    functions = functions.len() + defined.len(),
                    relations = relations.len(),
                    "catalogue read"
                );
                let next = Catalog::from_rows(source.next_catalog(), functions, &defined, &relations);
                next.confirm(definitions);
                catalog.store(Arc::new(next));
            } else {
                catalog.load().confirm(definitions);
            }
        }
        Err(Unread::Gone) => {
            tracing::debug!(cluster = source.name(), dbname, "the database is gone");
            source.database_gone(dbname);
        }
        Err(Unread::Failed(reason)) => {
            let first = reading.retry.is_none();
            let wait = reading.failed(started);
            let cluster = source.name();
            if first {
                tracing::warn!(
                    cluster,
                    dbname,
                    reason,
                    "the catalogue could not be read; until it is, functions that PostgreSQL does not ship count as writes"
                );
            } else {
                tracing::debug!(cluster, dbname, reason, ?wait, "the catalogue could not be read again");
            }
        }
    }
}

/// Why there are no rows.
enum Unread {
    /// There is no such database.
    Gone,
    /// In words.
    Failed(String),
}

/// What a server said.
struct Rows {
    functions: Vec<FunctionRow>,
    defined: Vec<DefinitionRow>,
    relations: Vec<RelationRow>,
    types: String,
}

impl Rows {
    /// Of the rows in an order of their own: a server gives them in any.
    fn digest(&self) -> [u8; 32] {
        let own = self.functions.iter().map(|row| digest(0, &[&row.schema, &row.name, &row.volatility]));
        let defined = self.defined.iter().map(|row| {
            let kind = row.kind.to_string();
            digest(1, &[&kind, &row.oid.to_string(), &row.schema, &row.name, &row.detail, &row.source])
        });
        let relations = self.relations.iter().map(|row| {
            let fact = row.fact.to_string();
            digest(2, &[&row.oid.to_string(), &row.schema, &row.name, &fact, &row.detail])
        });
        let mut all: Vec<_> = own.chain(defined).chain(relations).collect();
        all.sort_unstable();
        all.iter().fold(Sha256::new(), Sha256::chain_update).finalize().into()
    }
}

fn digest(kind: u8, fields: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix([kind]);
    for field in fields {
        hash.update((field.len() as u64).to_le_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

async fn ask(source: &dyn Source, dbname: &str, worker: usize) -> Result<Rows, Unread> {
    let Some(node) = best_node(source.topology()) else { return Err(Unread::Failed("no node answers".to_owned())) };
    let queries = [FUNCTIONS_SQL, DEFINITIONS_SQL, RELATIONS_SQL, TYPES_SQL];
    let mut link = Link::new(worker);
    let asked = link.ask(source, node, Some(dbname), &queries, TIMEOUT).await;
    link.close().await;
    match asked {
        Asked::Answers(answers) => {
            let [functions, defined, relations, types] = answers.as_slice() else {
                return Err(Unread::Failed("an answer is missing".to_owned()));
            };
            Ok(Rows {
                functions: functions.rows.iter().filter_map(|row| function(row)).collect(),
                defined: defined.rows.iter().filter_map(|row| definition(row)).collect(),
                relations: relations.rows.iter().filter_map(|row| relation(row)).collect(),
                types: types.rows.iter().flatten().flatten().cloned().collect(),
            })
        }
        Asked::NoDatabase => Err(Unread::Gone),
        Asked::Failed(_, reason) | Asked::Unable(reason) => Err(Unread::Failed(reason)),
    }
}

/// The primary if it is up, else any node that is.
fn best_node(topology: &Topology) -> Option<&Arc<crate::topology::Node>> {
    let up = || topology.nodes().filter(|node| node.standing() == Standing::Up);
    up().find(|node| node.role() == Role::Primary).or_else(|| up().next())
}

fn function(row: &[Column]) -> Option<FunctionRow> {
    match row {
        [Some(schema), Some(name), Some(volatility)] => {
            Some(FunctionRow { schema: schema.clone(), name: name.clone(), volatility: volatility.clone() })
        }
        _ => None,
    }
}

fn definition(row: &[Column]) -> Option<DefinitionRow> {
    match row {
        [Some(kind), Some(oid), Some(schema), Some(name), Some(detail), Some(source)] => Some(DefinitionRow {
            kind: kind.chars().next()?,
            oid: oid.parse().ok()?,
            schema: schema.clone(),
            name: name.clone(),
            detail: detail.clone(),
            source: source.clone(),
        }),
        _ => None,
    }
}

fn relation(row: &[Column]) -> Option<RelationRow> {
    match row {
        [Some(oid), Some(schema), Some(name), Some(fact), detail] => Some(RelationRow {
            oid: oid.parse().ok()?,
            schema: schema.clone(),
            name: name.clone(),
            fact: fact.chars().next()?,
            detail: detail.clone().unwrap_or_default(),
        }),
        _ => None,
    }
}
