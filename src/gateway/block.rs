//! What transaction a unit's statements run in: the one that it begins in, and those that it opens or changes itself.
//!
//! Invariant: `read_only` only where nothing in the unit can make it otherwise: on a standby the mistake is an error that
//! the client would not see on the primary.
//!
//! Deliberately absent: what the transaction's server is.

use super::route::ISOLATION;
use crate::policy::Transaction;
use crate::sql::{Effects, Kind, Shape, Statement};

/// The setting that makes the transactions of a session READ ONLY.
pub(super) const READ_ONLY: &str = "default_transaction_read_only";

/// What BEGIN takes from the session's settings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Defaults {
    pub(super) read_only: bool,
    pub(super) serializable: bool,
}

/// The transaction of a unit's statements, all of them taken together, that begins in `outer`: a unit goes to one server,
/// so that one BEGIN in it, wherever it stands, counts for all of it. `first`: no server is held.
pub(super) fn through<'a>(
    shapes: impl Iterator<Item = &'a Shape> + Clone,
    outer: Transaction,
    mut defaults: Defaults,
    first: bool,
) -> Transaction {
    let statements = || shapes.clone().flat_map(|shape| &shape.statements);
    if !statements().any(concerns_transactions) {
        return outer;
    }
    let open = |read_only, serializable| Transaction::Block { read_only, serializable, first };
    let mut block = outer;
    for statement in statements() {
        let named = |name: &str| {
            statement.effects.any(Effects::ALL_SETTINGS) || statement.settings.iter().any(|held| **held == *name)
        };
        if named(READ_ONLY) {
            defaults.read_only = false;
        }
        defaults.serializable |= named(ISOLATION);
        let said = statement.transaction.unwrap_or_default();
        let next = match statement.kind {
            Kind::Begin => open(
                said.whole && said.read_only.unwrap_or(defaults.read_only),
                said.serializable.unwrap_or(defaults.serializable),
            ),
            // READ WRITE; SERIALIZABLE; SNAPSHOT, whose transaction may run on the primary.
            Kind::SetTransaction if !said.whole || said.read_only == Some(false) || said.serializable == Some(true) => {
                open(false, said.serializable == Some(true))
            }
            _ if named("transaction_read_only") || named("transaction_isolation") => open(false, false),
            _ => continue,
        };
        block = stricter(block, next);
    }
    block
}

/// The cheap look that most units end with.
fn concerns_transactions(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Begin | Kind::SetTransaction)
        || (statement.effects.any(Effects::SETTINGS | Effects::LOCAL_SETTINGS | Effects::ALL_SETTINGS)
            && statement.settings.iter().any(|name| name.starts_with("transaction_")))
}

/// What both allow.
fn stricter(one: Transaction, other: Transaction) -> Transaction {
    match (one, other) {
        (Transaction::Idle, block) | (block, Transaction::Idle) => block,
        (
            Transaction::Block { read_only, serializable, first },
            Transaction::Block { read_only: also_read_only, serializable: or_serializable, .. },
        ) => Transaction::Block {
            read_only: read_only && also_read_only,
            serializable: serializable || or_serializable,
            first,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Analyzer, TextContext};

    const IDLE: Transaction = Transaction::Idle;
    const READS: Transaction = Transaction::Block { read_only: true, serializable: false, first: true };
    const WRITES: Transaction = Transaction::Block { read_only: false, serializable: false, first: true };

    fn check(texts: &[&str], outer: Transaction, defaults: Defaults, expected: Transaction) {
        let analyzer = Analyzer::new(1 << 20);
        let context = TextContext::new(true, "UTF8");
        let analyses: Vec<_> = texts.iter().map(|text| analyzer.analyze(text.as_bytes(), context)).collect();
        let shapes = analyses.iter().map(|analysis| &*analysis.shape);
        assert_eq!(through(shapes, outer, defaults, true), expected, "{texts:?} in {outer:?}");
    }

    #[test]
    fn a_unit_that_opens_a_transaction_belongs_to_it() {
        for (texts, outer, expected) in [
            (&["SELECT 1"][..], IDLE, IDLE),
            (&["SELECT 1"], READS, READS),
            (&["SELECT 1; COMMIT"], IDLE, IDLE),
            (&["BEGIN", "SELECT 1"], IDLE, WRITES),
            (&["SELECT 1", "BEGIN"], IDLE, WRITES),
            (&["BEGIN; SELECT 1"], IDLE, WRITES),
            (&["SELECT 1; BEGIN"], IDLE, WRITES),
            (&["START TRANSACTION; SET LOCAL search_path = a; SELECT 1"], IDLE, WRITES),
            (&["BEGIN READ WRITE; SELECT 1"], IDLE, WRITES),
            (&["BEGIN READ ONLY; SELECT 1; COMMIT"], IDLE, READS),
            (&["BEGIN READ ONLY; SELECT 1; COMMIT; BEGIN"], IDLE, WRITES),
            (&["BEGIN READ ONLY nonsense; SELECT 1"], IDLE, WRITES),
            (&["BEGIN READ ONLY; SET TRANSACTION READ WRITE; SELECT 1"], IDLE, WRITES),
            (&["COMMIT; BEGIN; SELECT 1"], READS, WRITES),
            (&["COMMIT; BEGIN READ ONLY; SELECT 1"], WRITES, WRITES),
            (&["SET TRANSACTION SNAPSHOT '00000003-00000002-1'"], READS, WRITES),
            (&["SET TRANSACTION READ WRITE"], READS, WRITES),
            (&["SET TRANSACTION READ ONLY"], READS, READS),
            (&["SET transaction_read_only = off"], READS, WRITES),
            (&["SELECT set_config('transaction_read_only', 'off', true)"], READS, WRITES),
            (&["SET LOCAL work_mem = '1MB'"], READS, READS),
        ] {
            check(texts, outer, Defaults::default(), expected);
        }
        let serializable = Transaction::Block { read_only: true, serializable: true, first: true };
        check(&["BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY; SELECT 1"], IDLE, Defaults::default(), serializable);
    }

    #[test]
    fn the_sessions_defaults_count_unless_the_unit_sets_them() {
        let read_only = Defaults { read_only: true, serializable: false };
        check(&["BEGIN", "SELECT 1"], IDLE, read_only, READS);
        check(&["BEGIN READ WRITE; SELECT 1"], IDLE, read_only, WRITES);
        check(&["SET default_transaction_read_only = off; BEGIN; SELECT 1"], IDLE, read_only, WRITES);
        check(&["SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; BEGIN"], IDLE, read_only, {
            // The isolation level may have been set as well.
            Transaction::Block { read_only: false, serializable: true, first: true }
        });
        let serializable = Transaction::Block { read_only: true, serializable: true, first: true };
        check(&["BEGIN READ ONLY"], IDLE, Defaults { read_only: false, serializable: true }, serializable);
    }
}
