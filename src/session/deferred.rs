//! A transaction that has begun for the client and on no server yet.
//!
//! Invariant: only statements that are wholly understood and cannot fail by themselves wait here, so that the client was
//! told nothing that will not hold; all of it runs ahead of the first statement that needs a server. A SET LOCAL that may fail is
//! such a statement itself.
//!
//! Deliberately absent: the answers (`local`).

use super::Limits;
use crate::sql::{Effects, Kind, Shape, Statement};

/// A statement that parses anywhere and fails in any transaction.
const FAIL: &[u8] = b"ROLLBACK TO SAVEPOINT \"pointsman: an earlier statement was refused\"";

/// Transaction control statements that wait for a transaction's first statement.
#[derive(Debug, Default)]
pub struct Deferred {
    texts: Vec<Box<[u8]>>,
    bytes: usize,
    savepoints: Vec<Box<str>>,
    /// Names of what it sets.
    settings: Vec<Box<str>>,
    read_only: Option<bool>,
    serializable: Option<bool>,
    /// A statement was refused; only the end of the transaction is accepted.
    failed: bool,
}

/// What a statement means for a deferred transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It opens one.
    Begin,
    /// It joins what waits; its command tag.
    Join(&'static str),
    /// It ends the transaction; its command tag.
    End(&'static str),
    /// It brings a failed transaction back to a savepoint.
    Return,
    /// It is refused: the transaction has failed.
    Refuse,
}

impl Deferred {
    /// Whether a transaction waits.
    #[must_use]
    pub fn active(&self) -> bool {
        !self.texts.is_empty()
    }

    /// READ ONLY, as far as said.
    #[must_use]
    pub fn read_only(&self) -> Option<bool> {
        self.read_only
    }

    /// ISOLATION LEVEL SERIALIZABLE, as far as said.
    #[must_use]
    pub fn serializable(&self) -> Option<bool> {
        self.serializable
    }

    /// Whether a statement of it was refused.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Marks the transaction as failed: a statement was refused before any server saw it.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// What must run before the first statement, as one simple query. If the transaction has failed, the query's last
    /// statement fails as well.
    #[must_use]
    pub fn prelude(&self) -> Option<Vec<u8>> {
        if self.texts.is_empty() {
            return None;
        }
        let mut texts: Vec<&[u8]> = self.texts.iter().map(|text| &**text).collect();
        if self.failed {
            texts.push(FAIL);
        }
        // In the client's encoding, as they came. A newline ends a comment that a text may end with.
        Some(texts.join(&b"\n;\n"[..]))
    }

    /// Whether it sets one of some settings.
    pub(super) fn sets(&self, some: impl Fn(&str) -> bool) -> bool {
        self.settings.iter().any(|name| some(name))
    }

    /// A server has answered the prelude: nothing waits any more. Returns the names of what that has set.
    pub fn begun(&mut self) -> Vec<Box<str>> {
        std::mem::take(self).settings
    }

    /// What a text of `len` bytes whose shape is `shape` means here; `None`: it needs a server.
    pub(super) fn step(&self, shape: &Shape, len: usize, limits: Limits) -> Option<Step> {
        let [statement] = shape.statements.as_slice() else {
            // An empty text is not refused, and of several statements the first may end the transaction.
            let refused = shape.statements.first().is_some_and(|first| !leaves_failure(first));
            return (self.failed && refused).then_some(Step::Refuse);
        };
        let room = self.texts.len() < limits.deferred && self.bytes + len <= limits.deferred_bytes;
        if !self.active() {
            let begin =
                room && statement.kind == Kind::Begin && statement.transaction.is_some_and(|t| t.whole && !t.chain);
            return begin.then_some(Step::Begin);
        }
        if let Some(tag) = ending(statement) {
            return Some(Step::End(if self.failed { "ROLLBACK" } else { tag }));
        }
        let known = statement.object.as_ref().is_some_and(|name| self.savepoints.contains(name));
        let whole = statement.transaction.is_some_and(|t| t.whole);
        if self.failed {
            return match statement.kind {
                Kind::RollbackTo if whole && known && room => Some(Step::Return),
                _ if leaves_failure(statement) => None,
                _ => Some(Step::Refuse),
            };
        }
        if !room {
            return None;
        }
        match statement.kind {
            // In a subtransaction it fails.
            Kind::SetTransaction if whole && self.savepoints.is_empty() => Some(Step::Join("SET")),
            Kind::Set if statement.certain && statement.effects == Effects::LOCAL_SETTINGS => Some(Step::Join("SET")),
            Kind::Savepoint if whole => Some(Step::Join("SAVEPOINT")),
            Kind::Release if whole && known => Some(Step::Join("RELEASE")),
            Kind::RollbackTo if whole && known => Some(Step::Join("ROLLBACK")),
            _ => None,
        }
    }

    /// Takes part in the transaction; `text` is the whole query string.
    pub(super) fn apply(&mut self, step: Step, statement: &Statement, text: &[u8]) {
        match step {
            Step::Begin | Step::Join(_) => {
                if let Some(transaction) = statement.transaction {
                    self.read_only = transaction.read_only.or(self.read_only);
                    self.serializable = transaction.serializable.or(self.serializable);
                }
                match (statement.kind, &statement.object) {
                    (Kind::Savepoint, Some(name)) => self.savepoints.push(name.clone()),
                    (Kind::Release, Some(name)) => {
                        if let Some(at) = self.savepoints.iter().rposition(|held| held == name) {
                            self.savepoints.truncate(at);
                        }
                    }
                    (Kind::RollbackTo, Some(name)) => self.roll_back_to(name),
                    _ => {}
                }
                self.settings.extend(statement.settings.iter().cloned());
                self.hold(text);
            }
            Step::Return => {
                self.failed = false;
                if let Some(name) = &statement.object {
                    self.roll_back_to(name);
                }
                self.hold(text);
            }
            Step::End(_) => *self = Self::default(),
            Step::Refuse => self.failed = true,
        }
    }

    fn hold(&mut self, text: &[u8]) {
        self.bytes += text.len();
        self.texts.push(text.into());
    }

    /// The savepoint stays, those behind it go.
    fn roll_back_to(&mut self, name: &str) {
        if let Some(at) = self.savepoints.iter().rposition(|held| **held == *name) {
            self.savepoints.truncate(at + 1);
        }
    }
}

/// Whether a server runs it in a failed transaction (`IsTransactionExitStmt` in `postgres.c`).
fn leaves_failure(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Commit | Kind::Rollback | Kind::RollbackTo | Kind::PrepareTransaction)
}

fn ending(statement: &Statement) -> Option<&'static str> {
    let plain = statement.transaction.is_some_and(|t| t.whole && !t.chain);
    match statement.kind {
        Kind::Commit if plain => Some("COMMIT"),
        Kind::Rollback if plain => Some("ROLLBACK"),
        _ => None,
    }
}
