//! The gateway's own exchanges on a server that is held: settings, audits, the begin of a deferred transaction.
//!
//! Invariant: the server has answered everything before and everything after.
//! Deliberately absent: what is asked and what the answer means.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::io;
use crate::observe::Counter;
use crate::pool::{Lent, Server};
use crate::upstream::{Answer, Error, ErrorReply, Private, Settings};
use crate::wire::backend;

/// Why a private exchange failed: the connection is lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    #[error("the connection to the server was lost: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Protocol(#[from] Error),
}

/// Asks `sql` as one simple query. Boxed, so that the futures of what rarely asks stay small: they are moved for each unit.
///
/// Not cancel-safe: the connection must be closed when the future is dropped, which [`Lent`]'s drop sees to.
pub(super) fn ask<'a>(lent: &'a mut Lent, sql: &'a (impl AsRef<[u8]> + ?Sized)) -> Asking<'a> {
    let sql = sql.as_ref();
    Box::pin(async move {
        let Server { stream, upstream, .. } = &mut **lent;
        let mut private = Private::query(upstream, sql);
        loop {
            if let Some(answer) = private.advance(upstream)? {
                return Ok(answer);
            }
            if !upstream.output.is_empty() {
                io::write(stream, &mut upstream.output).await?;
            }
            io::read(stream, &mut upstream.input).await?;
        }
    })
}

/// What [`ask`] gives.
pub(super) type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, PrivateError>> + Send + 'a>>;

/// Makes the server's settings those of `wanted`; counts in `syncs` if that takes a statement. `Some`: the server refused one, and none was changed.
pub(super) async fn apply_settings(
    lent: &mut Lent,
    wanted: &Arc<Settings>,
    syncs: &Counter,
) -> Result<Option<ErrorReply>, PrivateError> {
    let same = lent.upstream.settings.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, wanted) || applied == wanted);
    if !same {
        syncs.one();
        let sql = wanted.transition(lent.upstream.settings.as_deref());
        let answer = ask(lent, &sql).await?;
        if let Some(reply) = error_of(&answer) {
            return Ok(Some(reply));
        }
    }
    lent.upstream.settings = Some(Arc::clone(wanted));
    Ok(None)
}

/// The error in an answer, as the client would see it.
pub(super) fn error_of(answer: &Answer) -> Option<ErrorReply> {
    let fields = backend::error_fields(answer.error.as_ref()?);
    let mut reply = ErrorReply::error(fields.sqlstate, fields.message);
    reply.hint = fields.hint;
    Some(reply)
}
