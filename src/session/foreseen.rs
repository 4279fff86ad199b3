//! What is known ahead of a unit: that it uses, behind others, a statement which will be refused.
//!
//! Invariant: it is told where the statement is used. What stands ahead of that takes place and is answered, what stands behind it is
//! skipped up to the Sync. It holds for the unit at hand on the server that was asked, and goes with either.
//!
//! Deliberately absent: asking (`gateway::doubted`).

use std::sync::Arc;

use super::{Session, What};
use crate::upstream::{ErrorReply, Prepared, StatementId};
use crate::wire::frame::{HEADER_LEN, cstr};
use crate::wire::frontend;

/// A statement that will be refused, and the words.
#[derive(Debug)]
pub(super) struct Foreseen {
    statement: StatementId,
    reply: ErrorReply,
    /// The portal bound last that executes it by SQL.
    portal: Option<Box<[u8]>>,
}

impl Session {
    /// The unit at hand will be refused where it uses a statement.
    pub fn foresee(&mut self, statement: &Arc<Prepared>, reply: ErrorReply) {
        self.unit.foreseen = Some(Box::new(Foreseen { statement: statement.id, reply, portal: None }));
    }

    /// Another server is asked.
    pub fn foresee_nothing(&mut self) {
        self.unit.foreseen = None;
    }

    /// What the unit at hand will be refused with.
    #[must_use]
    pub fn foreseen(&self) -> Option<&ErrorReply> {
        self.unit.foreseen.as_deref().map(|foreseen| &foreseen.reply)
    }

    /// What a message is refused with by the gateway. What a server has said of its text it says again in its place, unless what
    /// stands ahead has changed that; not where the text is another's, which executes it.
    pub(super) fn refusal<'a>(&self, what: &What, frame: &[u8], foreseen: &'a mut Foreseen) -> Option<&'a ErrorReply> {
        let executes = self.executed_by(what).is_some_and(|one| one.id == foreseen.statement);
        let refused = match what {
            // Its Execute is what fails.
            What::Bind { .. } if executes || foreseen.portal.is_some() => {
                let portal = frontend::bind(frame).ok()?.portal;
                foreseen.portal.take_if(|held| **held == *portal);
                if executes {
                    foreseen.portal = Some(portal.into());
                }
                !executes && foreseen.says(what)
            }
            What::Execute => {
                let portal = || frame.get(HEADER_LEN..).and_then(cstr).map(|(name, _)| name);
                foreseen.portal.as_deref().is_some_and(|held| portal() == Some(held))
            }
            What::Query(_) => executes,
            _ => foreseen.says(what),
        };
        refused.then_some(&foreseen.reply)
    }

    /// Whether a message fails if a statement does.
    pub(super) fn fails_with(&self, what: &What, id: StatementId) -> bool {
        let executes = || matches!(what, What::Query(_)) && self.executed_by(what).is_some_and(|one| one.id == id);
        what.names(id) || executes()
    }
}

impl Foreseen {
    /// Whether the gateway itself refuses a Bind or a Describe.
    fn says(&self, what: &What) -> bool {
        self.reply.verbatim.is_none() && what.names(self.statement)
    }
}

impl What {
    /// Whether it is a Bind or a Describe of the statement.
    fn names(&self, id: StatementId) -> bool {
        match self {
            Self::Bind { statement: Some(one), .. } | Self::DescribeStatement { statement: Some(one) } => one.id == id,
            _ => false,
        }
    }
}
