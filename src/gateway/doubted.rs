//! Statements that a server is asked about ahead of a unit which uses them.
//!
//! Invariant: the unit is refused as a whole only where its first message uses what is refused. Otherwise nothing is lost by the
//! question, the client's transaction included: what was found out is told in its place.
//!
//! Deliberately absent: which statements those are (`session`), how one is asked about (`private`).

use std::slice;
use std::sync::Arc;

use super::private::{self, PrivateError};
use crate::pool::Lent;
use crate::session::Session;
use crate::upstream::{ErrorReply, Prepared, Settings, Within};
use crate::wire::TransactionStatus;

/// Makes the server hold statements as clients know them. `Some`: the unit at hand is refused.
///
/// Not cancel-safe, as [`private::ask`].
pub(super) async fn confirm(
    lent: &mut Lent,
    session: &mut Session,
    doubtful: &[Arc<Prepared>],
) -> Result<Option<ErrorReply>, PrivateError> {
    let (settings, within) = (Arc::clone(&session.settings), session.within());
    session.asks_about(doubtful, &mut lent.upstream);
    if doubtful.len() == 1 && !session.comes_after_others(doubtful) {
        return private::confirm(lent, doubtful, &settings, within).await;
    }
    if confirm_apart(lent, doubtful, &settings, within).await?.is_none() {
        return Ok(None);
    }
    // The first of them counts: what stands behind it will be skipped.
    for one in doubtful {
        let refused = confirm_apart(lent, slice::from_ref(one), &settings, within).await?;
        if let Some(refused) = refused {
            if !session.comes_after_others(slice::from_ref(one)) {
                return Ok(Some(refused));
            }
            session.foresee(one, refused);
            break;
        }
    }
    Ok(None)
}

/// The same, such that a refusal does not fail the transaction that the client is in.
async fn confirm_apart(
    lent: &mut Lent,
    statements: &[Arc<Prepared>],
    settings: &Arc<Settings>,
    within: Within,
) -> Result<Option<ErrorReply>, PrivateError> {
    if lent.upstream.status() == TransactionStatus::Idle {
        return private::confirm(lent, statements, settings, within).await;
    }
    let begun = private::run(lent, &["SAVEPOINT pm_"]).await?;
    if let Some(refused) = private::error_of(&begun) {
        return Ok(Some(refused));
    }
    let refused = private::confirm(lent, statements, settings, within).await?;
    let end = if refused.is_some() { &["ROLLBACK TO pm_", "RELEASE pm_"][..] } else { &["RELEASE pm_"] };
    let ended = private::run(lent, end).await?;
    Ok(refused.or_else(|| private::error_of(&ended)))
}
