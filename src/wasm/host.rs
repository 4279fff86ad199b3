//! What a component may ask: the imported interfaces of `wit/`, answered from memory alone.
//!
//! Invariant: no function here blocks, reads a file or takes a lock that a slow thread could hold, for epochs do not
//! end host calls. Whoever asks for a group of facts that the manifest does not name is ended: kept decisions rely on it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::bindings::pointsman::policy::{hashes, host, parameters, session, statement, topology, types};
use super::counters::PolicyCounters;
use super::current::Current;
use super::engine::CallClock;
use super::limits::Meter;
use crate::policy::value::{Decoded, decode};
use crate::policy::{Bound, Needs, NodeRole, Query, hash, value};
use crate::sql::{Literal, Operand, Statement};

/// Text and bound values are handed over in pieces of this many bytes.
const PIECE: usize = 64 << 10;
/// A log line is cut to this many bytes.
const LOG_LINE: usize = 1024;
/// The coarse clock's step in milliseconds.
const CLOCK_STEP: u64 = 10;

/// What belongs to one instance on the host's side.
pub(super) struct Host {
    pub(super) current: Current,
    pub(super) clock: CallClock,
    pub(super) meter: Meter,
    pub(super) needs: Needs,
    name: Arc<str>,
    counters: Arc<PolicyCounters>,
}

/// A component asked for what it may not have.
#[derive(Debug)]
pub(super) struct Breach(pub(super) &'static str);

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Breach {}

impl Host {
    pub(super) fn new(name: Arc<str>, counters: Arc<PolicyCounters>, meter: Meter) -> Self {
        Self { current: Current::default(), clock: CallClock::default(), meter, needs: Needs::NONE, name, counters }
    }

    /// The query in hand, for a getter of that group.
    fn ask(&self, group: Needs) -> wasmtime::Result<&Query<'_>> {
        if !self.needs.all(group) {
            return Err(Breach(match group {
                Needs::TEXT => "it asked for the text, which its manifest does not name among its needs",
                Needs::SHAPE => "it asked for tables, functions or equalities, which its manifest does not name",
                Needs::VALUES => "it asked for literals or bound values, which its manifest does not name",
                Needs::SESSION => "it asked about the session, which its manifest does not name",
                Needs::TOPOLOGY => "it asked about the topology, which its manifest does not name",
                Needs::LOAD => "it asked about lag or load, which its manifest does not name",
                Needs::HINTS => "it asked for hints, which its manifest does not name",
                _ => "it asked for what its manifest does not name",
            })
            .into());
        }
        let query = self.current.get();
        query
            .ok_or_else(|| Breach("it asked about a query while there was none: in `configure` or at its start").into())
    }
}

/// Calls `visit` for every item of all statements, with the statement's position.
fn flattened<'q, T: 'q>(
    query: &'q Query<'_>,
    of: impl Fn(&'q Statement) -> &'q [T],
) -> impl Iterator<Item = (u32, &'q T)> {
    (0u32..)
        .zip(&query.analysis.shape.statements)
        .flat_map(move |(position, statement)| of(statement).iter().map(move |item| (position, item)))
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn value_of(decoded: Decoded<'_>) -> types::Value {
    match decoded {
        Decoded::Null => types::Value::Null,
        Decoded::Text(text) => types::Value::Text(text.into_owned()),
        Decoded::Unknown => types::Value::Unknown,
    }
}

/// The value of `$number` as text.
fn parameter(query: &Query<'_>, number: u32) -> types::Value {
    query.parameters.parameter(number).map_or(types::Value::Unknown, |parameter| value_of(decode(&parameter)))
}

impl types::Host for Host {}

impl statement::Host for Host {
    fn text_length(&mut self) -> wasmtime::Result<u64> {
        Ok(self.ask(Needs::TEXT)?.text.len() as u64)
    }

    fn text(&mut self, offset: u64, length: u32) -> wasmtime::Result<Vec<u8>> {
        let text = self.ask(Needs::TEXT)?.text;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(PIECE);
        Ok(text[start..].iter().take(length).copied().collect())
    }

    fn tables(&mut self) -> wasmtime::Result<Vec<statement::Table>> {
        let tables = flattened(self.ask(Needs::SHAPE)?, |statement| &statement.tables);
        Ok(tables
            .map(|(statement, table)| statement::Table {
                statement,
                schema: owned(table.schema.as_deref()),
                name: table.name.to_string(),
                access: table.access as u32,
            })
            .collect())
    }

    fn functions(&mut self) -> wasmtime::Result<Vec<statement::Function>> {
        let functions = flattened(self.ask(Needs::SHAPE)?, |statement| &statement.functions);
        Ok(functions
            .map(|(statement, function)| statement::Function {
                statement,
                schema: owned(function.schema.as_deref()),
                name: function.name.to_string(),
            })
            .collect())
    }

    fn equalities(&mut self) -> wasmtime::Result<Vec<statement::Equality>> {
        let query = self.ask(Needs::SHAPE)?;
        let mut equalities = Vec::new();
        let mut first_table = 0;
        for (position, statement) in (0u32..).zip(&query.analysis.shape.statements) {
            equalities.extend(statement.equalities.iter().map(|equality| statement::Equality {
                statement: position,
                table: equality.table.map(|table| first_table + u32::from(table)),
                column: equality.column.to_string(),
                parameter: match equality.value {
                    Operand::Parameter(number) => u32::from(number),
                    Operand::Literal(_) | Operand::Constant(_) => 0,
                },
            }));
            first_table += u32::try_from(statement.tables.len()).unwrap_or(u32::MAX);
        }
        Ok(equalities)
    }

    fn equality_value(&mut self, index: u32) -> wasmtime::Result<types::Value> {
        let query = self.ask(Needs::VALUES)?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some((_, equality)) = flattened(query, |statement| &statement.equalities).nth(index) else {
            return Ok(types::Value::Unknown);
        };
        Ok(match &equality.value {
            Operand::Parameter(number) => parameter(query, u32::from(*number)),
            Operand::Literal(index) => match query.analysis.literal(query.text, *index) {
                Some(Literal::Number(text)) => types::Value::Text(text.to_owned()),
                Some(Literal::String(text)) => types::Value::Text(text.into_owned()),
                None => types::Value::Unknown,
            },
            Operand::Constant(text) if text.eq_ignore_ascii_case("null") => types::Value::Null,
            Operand::Constant(text) => types::Value::Text(text.to_string()),
        })
    }

    fn hints(&mut self) -> wasmtime::Result<Vec<statement::Hint>> {
        let hints = flattened(self.ask(Needs::HINTS)?, |statement| &statement.hints);
        Ok(hints
            .map(|(statement, (key, value))| statement::Hint {
                statement,
                key: key.to_string(),
                value: value.to_string(),
            })
            .collect())
    }
}

impl parameters::Host for Host {
    fn raw(&mut self, number: u32) -> wasmtime::Result<Option<parameters::Parameter>> {
        let parameter = self.ask(Needs::VALUES)?.parameters.parameter(number);
        Ok(parameter.map(|parameter| parameters::Parameter {
            format: parameter.format as u32,
            type_oid: parameter.type_oid,
            bytes: match parameter.value {
                Bound::Bytes(bytes) => Some(bytes.iter().take(PIECE).copied().collect()),
                Bound::Null | Bound::Streamed => None,
            },
        }))
    }

    fn decoded(&mut self, number: u32) -> wasmtime::Result<types::Value> {
        Ok(parameter(self.ask(Needs::VALUES)?, number))
    }
}

impl session::Host for Host {
    fn id(&mut self) -> wasmtime::Result<u64> {
        Ok(self.ask(Needs::SESSION)?.session.id)
    }

    fn user(&mut self) -> wasmtime::Result<String> {
        Ok(self.ask(Needs::SESSION)?.session.user.to_owned())
    }

    fn database(&mut self) -> wasmtime::Result<String> {
        Ok(self.ask(Needs::SESSION)?.session.database.to_owned())
    }

    fn address(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.ask(Needs::SESSION)?.session.client.map(|address| address.to_string()))
    }

    fn application_name(&mut self) -> wasmtime::Result<String> {
        Ok(self.ask(Needs::SESSION)?.session.application_name.to_owned())
    }

    fn attribute(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(owned(self.ask(Needs::SESSION)?.session.attributes.attribute(&name)))
    }

    fn attributes(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        let mut push = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        self.ask(Needs::SESSION)?.session.attributes.each(&mut push);
        Ok(all)
    }
}

impl topology::Host for Host {
    fn shards(&mut self) -> wasmtime::Result<u32> {
        Ok(self.ask(Needs::TOPOLOGY)?.topology.shards())
    }

    fn shard_name(&mut self, shard: u32) -> wasmtime::Result<Option<String>> {
        Ok(self.ask(Needs::TOPOLOGY)?.topology.shard(shard).map(|shard| shard.name.to_owned()))
    }

    fn shard_named(&mut self, name: String) -> wasmtime::Result<Option<u32>> {
        Ok(self.ask(Needs::TOPOLOGY)?.topology.shard_named(&name))
    }

    fn nodes(&mut self, shard: u32) -> wasmtime::Result<Vec<topology::Node>> {
        let topology = self.ask(Needs::TOPOLOGY)?.topology;
        let count = topology.shard(shard).map_or(0, |shard| shard.nodes);
        let nodes = (0..count).filter_map(|node| topology.node(shard, node));
        Ok(nodes
            .map(|node| topology::Node {
                name: node.name.to_owned(),
                role: match node.role {
                    NodeRole::Unknown => 0,
                    NodeRole::Primary => 1,
                    NodeRole::Replica => 2,
                },
                weight: node.weight,
                healthy: node.healthy,
                labels: node.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            })
            .collect())
    }

    fn node_load(&mut self, shard: u32, node: u32) -> wasmtime::Result<Option<topology::Load>> {
        let node = self.ask(Needs::LOAD)?.topology.node(shard, node);
        Ok(node.map(|node| topology::Load {
            lag: node.lag.map(|lag| u32::try_from(lag.as_millis()).unwrap_or(u32::MAX)),
            in_flight: node.in_flight,
        }))
    }
}

impl hashes::Host for Host {
    fn partition_int(&mut self, value: i64) -> wasmtime::Result<u64> {
        Ok(hash::partition_int(value))
    }

    fn partition_text(&mut self, value: String) -> wasmtime::Result<u64> {
        Ok(hash::partition_text(&value))
    }

    fn partition_uuid(&mut self, value: String) -> wasmtime::Result<Option<u64>> {
        Ok(value::parse_uuid(&value).map(|bytes| hash::partition_uuid(&bytes)))
    }
}

impl host::Host for Host {
    fn counter(&mut self, name: String) -> wasmtime::Result<u32> {
        Ok(self.counters.register(&name))
    }

    fn count(&mut self, counter: u32, by: u64) -> wasmtime::Result<()> {
        self.counters.add(counter, by);
        Ok(())
    }

    fn log(&mut self, level: u32, mut message: String) -> wasmtime::Result<()> {
        if !self.counters.may_log() {
            return Ok(());
        }
        message.truncate(message.floor_char_boundary(LOG_LINE));
        let policy = &*self.name;
        match level {
            0 => tracing::error!(target: "pointsman::policy", policy, "{message}"),
            1 => tracing::warn!(target: "pointsman::policy", policy, "{message}"),
            2 => tracing::info!(target: "pointsman::policy", policy, "{message}"),
            _ => tracing::debug!(target: "pointsman::policy", policy, "{message}"),
        }
        Ok(())
    }

    fn now(&mut self) -> wasmtime::Result<u64> {
        if !self.needs.all(Needs::CLOCK) {
            return Err(Breach("it asked for the time, which its manifest does not name").into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        Ok(now - now % CLOCK_STEP)
    }
}
