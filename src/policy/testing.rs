//! Queries made by hand, and policies with a fixed answer, for tests.

use std::sync::Arc;

use super::*;
use crate::sql::{Access, Analysis, Effects, Function, Shape, Statement, Table, Understood};

/// A query in the making.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) text: Vec<u8>,
    pub(crate) statement: Statement,
    pub(crate) literals: Vec<(u32, u32)>,
    pub(crate) fingerprint: u128,
    pub(crate) access: Access,
    pub(crate) effects: Effects,
    pub(crate) phase: Phase,
    pub(crate) transaction: Transaction,
    pub(crate) parameters: Vec<Owned>,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) application_name: String,
    pub(crate) session_key: u64,
    pub(crate) wrote: bool,
    pub(crate) topology: TestTopology,
}

/// A parameter that owns its value; `None` is NULL.
#[derive(Clone, Debug)]
pub(crate) struct Owned(pub(crate) Format, pub(crate) u32, pub(crate) Option<Vec<u8>>);

impl Parameters for Vec<Owned> {
    fn count(&self) -> u32 {
        u32::try_from(self.len()).unwrap()
    }

    fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
        let Owned(format, type_oid, value) = self.get(usize::try_from(number).unwrap().checked_sub(1)?)?;
        let value = value.as_deref().map_or(Bound::Null, Bound::Bytes);
        Some(Parameter { format: *format, type_oid: *type_oid, value })
    }
}

/// A topology of shards `s0`, `s1` … with a primary and a replica each.
#[derive(Clone, Debug)]
pub(crate) struct TestTopology {
    pub(crate) version: u64,
    pub(crate) names: Vec<String>,
    pub(crate) labels: Vec<(Box<str>, Box<str>)>,
}

impl TopologyView for TestTopology {
    fn version(&self) -> u64 {
        self.version
    }

    fn shards(&self) -> u32 {
        u32::try_from(self.names.len()).unwrap()
    }

    fn shard(&self, shard: u32) -> Option<ShardFacts<'_>> {
        self.names.get(usize::try_from(shard).unwrap()).map(|name| ShardFacts { name, nodes: 2 })
    }

    fn node(&self, shard: u32, node: u32) -> Option<NodeFacts<'_>> {
        self.shard(shard)?;
        let role = *[NodeRole::Primary, NodeRole::Replica].get(usize::try_from(node).unwrap())?;
        let name = if node == 0 { "db-0" } else { "db-1" };
        let lag = Some(std::time::Duration::from_millis(u64::from(node) * 40));
        Some(NodeFacts { name, role, weight: 1, healthy: true, lag, in_flight: 3, labels: &self.labels })
    }
}

impl Case {
    pub(crate) fn of(access: Access) -> Self {
        Self {
            text: b"SELECT 1".to_vec(),
            statement: Statement { access, understood: Understood::Parsed, ..Statement::default() },
            literals: Vec::new(),
            fingerprint: 1,
            access,
            effects: Effects::NONE,
            phase: Phase::Simple,
            transaction: Transaction::Idle,
            parameters: Vec::new(),
            attributes: Vec::new(),
            application_name: "psql".into(),
            session_key: 0,
            wrote: false,
            topology: TestTopology {
                version: 1,
                names: vec!["s0".into(), "s1".into()],
                labels: vec![("zone".into(), "a".into())],
            },
        }
    }

    pub(crate) fn transaction(self, transaction: Transaction) -> Self {
        Self { transaction, ..self }
    }

    pub(crate) fn effects(self, effects: Effects) -> Self {
        Self { effects, ..self }
    }

    pub(crate) fn fingerprint(self, fingerprint: u128) -> Self {
        Self { fingerprint, ..self }
    }

    pub(crate) fn session_key(self, session_key: u64) -> Self {
        Self { session_key, ..self }
    }

    pub(crate) fn wrote(self) -> Self {
        Self { wrote: true, ..self }
    }

    pub(crate) fn topology_version(mut self, version: u64) -> Self {
        self.topology.version = version;
        self
    }

    pub(crate) fn table(mut self, schema: Option<&str>, name: &str) -> Self {
        let access = self.access;
        self.statement.tables.push(Table { schema: schema.map(Into::into), name: name.into(), access });
        self
    }

    pub(crate) fn function(mut self, name: &str) -> Self {
        self.statement.functions.push(Function { schema: None, name: name.into() });
        self
    }

    /// Hands the query to `ask`.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Query<'_>) -> T) -> T {
        let shape = Shape::new(self.fingerprint, std::iter::once(self.statement.clone()).collect());
        let analysis = Analysis {
            shape: Arc::new(shape),
            literals: self.literals.iter().copied().collect(),
            standard_conforming_strings: true,
        };
        let session = SessionFacts {
            id: 1,
            user: "app",
            database: "shop",
            client: None,
            application_name: &self.application_name,
            attributes: &self.attributes,
            key: self.session_key,
            wrote: self.wrote,
        };
        ask(&Query {
            text: &self.text,
            analysis: &analysis,
            access: self.access,
            effects: self.effects,
            phase: self.phase,
            transaction: self.transaction,
            parameters: &self.parameters,
            session: &session,
            topology: &self.topology,
        })
    }
}

/// A policy that always says the same.
pub(crate) struct Fixed {
    answer: Result<Decision, Fault>,
    generation: Generation,
    manifest: Manifest,
}

impl Fixed {
    pub(crate) fn new(answer: Result<Decision, Fault>) -> Self {
        let generation = Generation { id: 1, digest: Digest::NATIVE, version: "".into() };
        Self { answer, generation, manifest: Manifest::default() }
    }

    pub(crate) fn promising(self, manifest: Manifest) -> Self {
        Self { manifest, ..self }
    }
}

impl Policy for Fixed {
    fn route(&self, _query: &Query<'_>) -> Result<Decision, Fault> {
        self.answer.clone()
    }

    fn name(&self) -> &'static str {
        "fixed"
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn manifest(&self) -> Manifest {
        self.manifest
    }
}
