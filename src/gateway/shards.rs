//! Statements on a cluster of several shards that nobody has named a shard for.
//!
//! Invariant: without a policy that can name one, nothing that concerns tables runs; and what no policy can look into runs only
//! where the session's transaction is already. A guess would show or change the wrong rows.
//!
//! Deliberately absent: naming a shard, which is a policy's.

use crate::control::Live;
use crate::policy::{Chain, ReadWriteSplit};
use crate::sql::{Effects, Kind, Shape, Statement, Understood};
use crate::upstream::ErrorReply;
use crate::wasm::Chains;

/// Whether no policy of the chain names shards: there is none but `read-write-split`.
pub(super) fn blind(chain: &Chain) -> bool {
    chain.links().iter().all(|link| link.policy.name() == ReadWriteSplit::NAME)
}

/// What a statement is refused with that would need a shard.
pub(super) fn unnamed(shards: usize) -> ErrorReply {
    ErrorReply::error("0A000", format!("the cluster has {shards} shards, and no policy says which of them the statement concerns"))
        .hint("Put a policy that does, such as tenant-router, into the gateway's policy folder; its log says which it has loaded.")
}

/// The same for what is too long, or of a kind, to be looked into.
pub(super) fn unseen(shards: usize) -> ErrorReply {
    ErrorReply::error(
        "0A000",
        format!("the cluster has {shards} shards, and it cannot be seen which of them this concerns"),
    )
    .hint("Begin a transaction with a statement that names its shard's key, and send this one in it.")
}

/// Whether a text of this shape concerns data, rather than the session or the server.
pub(super) fn concerns_data(shape: &Shape, effects: Effects) -> bool {
    effects.any(Effects::OPAQUE | Effects::CALLS_UNKNOWN) || shape.statements.iter().any(statement_concerns_data)
}

fn statement_concerns_data(statement: &Statement) -> bool {
    let of_the_system = |schema: Option<&str>, name: &str| match schema {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema"),
        None => name.starts_with("pg_"),
    };
    match statement.kind {
        Kind::Select | Kind::Values | Kind::Explain | Kind::Declare | Kind::Prepare | Kind::CopyOut => {
            let mut tables = statement.tables.iter();
            statement.understood != Understood::Parsed
                || tables.any(|table| !of_the_system(table.schema.as_deref(), &table.name))
        }
        Kind::Set
        | Kind::Reset
        | Kind::Show
        | Kind::Begin
        | Kind::Commit
        | Kind::Rollback
        | Kind::Savepoint
        | Kind::Release
        | Kind::RollbackTo
        | Kind::SetTransaction
        | Kind::SetConstraints
        | Kind::Deallocate
        | Kind::Fetch
        | Kind::Close
        | Kind::Listen
        | Kind::Unlisten
        | Kind::Notify
        | Kind::Discard => false,
        _ => true,
    }
}

/// Says of which databases nothing can be told.
pub(super) fn warn_of_blind_chains(live: &Live, chains: &Chains) {
    for (name, database) in &live.config.databases {
        let shards = live.clusters.get(&database.cluster).map_or(0, |cluster| cluster.topology.shards().len());
        if shards > 1 && blind(chains.of(name)) {
            tracing::warn!(
                database = %name,
                cluster = %database.cluster,
                shards,
                "no policy says which shard a statement concerns: statements on tables will be refused"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Analyzer, TextContext};

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let shape = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default()).shape;
        assert_eq!(concerns_data(&shape, shape.effects), expected, "{text}");
    }

    #[test]
    fn what_concerns_data() {
        for text in [
            "SELECT * FROM orders",
            "SELECT 1; INSERT INTO orders VALUES (1)",
            "TABLE s.pg_own",
            "COPY orders TO STDOUT",
            "CREATE TABLE t (n int)",
            "VACUUM",
            "DO $$ BEGIN END $$",
            "CALL p()",
            "EXECUTE p",
            "SELECT * FROM person*",
        ] {
            check(text, true);
        }
        for text in [
            "SELECT 1",
            "SELECT now(), current_setting('search_path')",
            "SET work_mem = '1MB'; SHOW work_mem",
            "BEGIN; SAVEPOINT a; COMMIT",
            "SELECT relname FROM pg_class JOIN pg_catalog.pg_namespace n ON true",
            "SELECT * FROM information_schema.tables",
            "LISTEN a",
            "",
        ] {
            check(text, false);
        }
    }
}
