//! What is expected of a server: the answer that each message sent to it will bring, and what the client sees of that.
//!
//! Invariant: an entry holds all that is needed when its answer comes, fails or is skipped.
//!
//! Deliberately absent: the queue ([`super::Upstream`]), reading answers ([`super::deliver`]).

use std::sync::Arc;

use super::{Amended, ErrorReply, Prepared, Receiver, StatementId};

/// What the client sees of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// The answer as it comes.
    Pass,
    /// Nothing of a success; an error still passes.
    Hide,
    /// Nothing of a success; this instead of the server's error.
    Replace(Box<ErrorReply>),
}

/// What the client had under a name until a Parse.
#[derive(Debug, Clone, Default)]
pub enum Replaced {
    /// Nothing, or nothing that a skipped Parse would leave.
    #[default]
    Nothing,
    /// This.
    Statement(Arc<Prepared>),
    /// An unnamed statement too long to be held.
    Long,
}

impl Replaced {
    pub(super) fn restore<R: Receiver>(self, name: &[u8], to: &mut R) {
        match self {
            Self::Nothing => {}
            Self::Statement(statement) => to.close_skipped(name, &statement),
            Self::Long => to.long_parse_kept(),
        }
    }
}

/// The answer that a message sent to the server will bring.
#[derive(Debug, Clone)]
pub enum Expected {
    /// ParseComplete.
    Parse {
        /// The statement under a name of ours or the unnamed one; `None` under a name of the client's own.
        statement: Option<Arc<Prepared>>,
        /// The client's name for it where the client asked; told to the receiver when it fails.
        client_name: Option<Box<[u8]>>,
        /// Whether the server knows it as the unnamed statement.
        unnamed: bool,
        /// The client's statement of that name until now; it stays if the Parse is skipped.
        replaced: Replaced,
        /// What the client sees.
        show: Show,
    },
    /// BindComplete.
    Bind,
    /// CloseComplete; the statement returns to the server's set if the Close is skipped.
    Close {
        /// The statement that goes.
        statement: Option<StatementId>,
        /// What the client sees.
        show: Show,
    },
    /// ParameterDescription, RowDescription or NoData.
    Describe {
        /// The statement, or that of the portal, if it has a name of ours.
        of: Option<Arc<Prepared>>,
    },
    /// CommandComplete, EmptyQueryResponse or PortalSuspended, rows or COPY before it.
    Execute,
    /// CommandComplete of a portal's DEALLOCATE: the client's name, for which something stands there, and what it was.
    Deallocation(Box<[u8]>, Arc<Prepared>),
    /// CommandComplete of a portal that drops all prepared statements: those that the client had.
    DeallocationAll(Vec<(Box<[u8]>, Arc<Prepared>)>),
    /// Nothing from the server: this bare message goes to the client in its place.
    Local {
        /// ParseComplete or CloseComplete; 0 for nothing, where a Query drops the unnamed statement.
        tag: u8,
        /// The client's name for the statement.
        client_name: Box<[u8]>,
        /// The statement parsed or closed, if the session knew it.
        statement: Option<Arc<Prepared>>,
    },
    /// ReadyForQuery.
    Sync,
    /// Everything up to ReadyForQuery.
    Query,
    /// The same, of a Query without effect that stands for a DEALLOCATE of what was prepared through the protocol.
    Deallocate {
        /// The client's name for it.
        client_name: Box<[u8]>,
        /// The statement.
        statement: StatementId,
    },
    /// The same, of a Query that holds statements of the gateway's own among the client's.
    Amended(Box<Amended>),
    /// A message with this tag, of which the client sees nothing: an answer to the gateway's own amidst the client's.
    Own(u8),
    /// The same, of a question: what the text just prepared was read under. It comes as a row, then CommandComplete.
    Reading {
        /// The statement.
        statement: Arc<Prepared>,
        /// The settings asked for.
        asked: Box<[&'static str]>,
    },
    /// The same, of a Describe of this statement: ParameterDescription, then RowDescription or NoData.
    Types(Arc<Prepared>),
    /// FunctionCallResponse, then ReadyForQuery.
    Function,
    /// An error, in place of which the client sees this, then ReadyForQuery: a Query that the server is made to refuse.
    Refused(Box<ErrorReply>),
}

impl Expected {
    /// Of a Parse under a name that stands for no statement known.
    #[must_use]
    pub fn stray_parse(show: Show) -> Self {
        Self::Parse { statement: None, client_name: None, unnamed: false, replaced: Replaced::Nothing, show }
    }

    /// Whether it ends with ReadyForQuery.
    pub(super) fn readies(&self) -> bool {
        matches!(
            self,
            Self::Sync | Self::Query | Self::Deallocate { .. } | Self::Amended(_) | Self::Function | Self::Refused(_)
        )
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Parse { .. } => "ParseComplete",
            Self::Bind => "BindComplete",
            Self::Close { .. } => "CloseComplete",
            Self::Describe { .. } => "RowDescription or NoData",
            Self::Execute | Self::Deallocation(..) | Self::DeallocationAll(_) => "CommandComplete",
            Self::Local { .. } => "nothing",
            Self::Sync => "ReadyForQuery",
            Self::Query | Self::Deallocate { .. } | Self::Amended(_) | Self::Refused(_) => "the answer to a Query",
            Self::Own(_) | Self::Reading { .. } | Self::Types(_) => "the answer to a statement of the gateway's own",
            Self::Function => "the answer to a FunctionCall",
        }
    }
}
