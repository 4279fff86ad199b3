//! The trial: a new generation answers a handful of made-up queries before it answers a real one.
//!
//! Invariant: a component that traps, loops or answers nonsense whatever it is asked never serves. What it decides is
//! not judged: a policy may refuse everything.

use std::sync::Arc;

use crate::policy::{
    Decision, Fault, NoAttributes, NoParameters, NodeFacts, NodeRole, Phase, Query, SessionFacts, ShardFacts,
    TopologyView, Transaction,
};
use crate::sql::{Access, Analysis, Effects, Kind, Shape, Statement, Table, Understood};

/// Asks about each made-up query.
pub(super) fn run(mut ask: impl FnMut(&Query<'_>) -> Result<Decision, Fault>) -> Result<(), Fault> {
    let session = SessionFacts {
        id: 0,
        user: "trial",
        database: "trial",
        client: None,
        application_name: "",
        attributes: &NoAttributes,
        key: 0,
        wrote: false,
    };
    for (number, (text, kind, access, understood)) in (1u128..).zip(SAMPLES) {
        let table = Table { schema: None, name: "trial".into(), access };
        let statement = Statement {
            kind,
            access,
            understood,
            tables: if understood == Understood::Parsed { vec![table] } else { Vec::new() },
            span: (0, u32::try_from(text.len()).unwrap_or(0)),
            ..Statement::default()
        };
        let analysis = Analysis {
            shape: Arc::new(Shape::new(number, std::iter::once(statement).collect())),
            literals: std::iter::empty().collect(),
            standard_conforming_strings: true,
        };
        for transaction in [Transaction::Idle, Transaction::Block { read_only: true, serializable: false, first: true }]
        {
            let query = Query {
                text: text.as_bytes(),
                analysis: &analysis,
                access,
                effects: Effects::NONE,
                phase: Phase::Simple,
                transaction,
                parameters: &NoParameters,
                session: &session,
                topology: &AnyShard,
            };
            ask(&query).map_err(|fault| Fault {
                message: format!("on trial with `{text}`: {}", fault.message).into(),
                ..fault
            })?;
        }
    }
    Ok(())
}

const SAMPLES: [(&str, Kind, Access, Understood); 4] = [
    ("SELECT * FROM trial", Kind::Select, Access::Read, Understood::Parsed),
    ("DELETE FROM trial", Kind::Delete, Access::Write, Understood::Parsed),
    ("SHOW search_path", Kind::Show, Access::Read, Understood::Lexed),
    ("???", Kind::Other, Access::Unknown, Understood::Nothing),
];

/// A cluster in which every shard exists, for the real ones are not known here.
struct AnyShard;

impl TopologyView for AnyShard {
    fn version(&self) -> u64 {
        0
    }

    fn shards(&self) -> u32 {
        u32::MAX
    }

    fn shard(&self, shard: u32) -> Option<ShardFacts<'_>> {
        (shard == 0).then_some(ShardFacts { name: "trial", nodes: 1 })
    }

    fn shard_named(&self, _name: &str) -> Option<u32> {
        Some(0)
    }

    fn node(&self, shard: u32, node: u32) -> Option<NodeFacts<'_>> {
        (shard == 0 && node == 0).then_some(NodeFacts {
            name: "trial",
            role: NodeRole::Primary,
            weight: 1,
            healthy: true,
            lag: None,
            in_flight: 0,
            labels: &[],
        })
    }
}
