//! Settings of a session's that its next server refuses.
//!
//! Invariant: the client is told which one it is, and can take it back; nothing else runs without it.
//! Deliberately absent: what the session makes of that (`session::lacking`); what another server would take (`rerun`).

use std::sync::Arc;

use super::drive::Conversation;
use super::private::{self, PrivateError};
use super::rerun;
use crate::config::PoolMode;
use crate::observe::Counter;
use crate::pool::Lent;
use crate::upstream::{ErrorReply, Settings};

/// Settings of one session that are left out, and those that are tried one by one.
const LEFT_OUT: usize = 8;
const TRIED: usize = 64;

/// Who the user is.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// SQLSTATE classes of a refusal: what is set may not be what is wrong in others.
const OF_A_VALUE: [&str; 4] = ["22", "42", "55", "0A"];

impl Conversation {
    /// The server has refused (`reply`) what the session has set. A unit that only sets and resets goes on without what is refused,
    /// `None`; any other is told which it is.
    ///
    /// Not cancel-safe, as [`private::ask`].
    pub(super) async fn leave_out(
        &mut self,
        lent: &mut Lent,
        mut reply: ErrorReply,
    ) -> Result<Option<ErrorReply>, PrivateError> {
        let goes_on = self.account.mode != PoolMode::Session && self.session.only_sets();
        let mut wanted = (*self.session.settings).clone();
        let mut names: Vec<Box<str>> = Vec::new();
        while names.len() < LEFT_OUT && !rerun::wants_new_process(&reply) {
            let syncs = &self.tally.worker(self.worker).syncs;
            let Some(name) = refused_one(lent, &wanted, &reply, syncs).await? else { break };
            let identity = IDENTITY.contains(&&*name);
            if !goes_on || identity && !self.session.sets_only_identity() {
                return Ok(Some(told(&name, &reply, self.session.began_as(&name))));
            }
            wanted.remove(&name);
            names.push(name);
            let Some(next) = private::apply_settings(lent, &Arc::new(wanted.clone()), syncs).await? else {
                self.session.lack(&names);
                lent.upstream.settings = Some(Arc::clone(&self.session.settings));
                return Ok(None);
            };
            reply = next;
        }
        Ok(Some(reply))
    }
}

/// Which of `wanted` a server has refused.
async fn refused_one(
    lent: &mut Lent,
    wanted: &Settings,
    reply: &ErrorReply,
    syncs: &Counter,
) -> Result<Option<Box<str>>, PrivateError> {
    if !OF_A_VALUE.iter().any(|class| reply.sqlstate.starts_with(class)) {
        return Ok(None);
    }
    // The first name in quotes is the setting's own, or the role's.
    let quoted = reply.message.split('"').nth(1);
    let of_role = || IDENTITY.into_iter().find(|name| wanted.value(name).is_some_and(|role| quoted == Some(role)));
    let named = quoted.filter(|name| !IDENTITY.contains(name) && wanted.bytes(name).is_some());
    if let Some(name) = named.or_else(of_role) {
        return Ok(Some(name.into()));
    }
    for (name, value) in wanted.iter().take(TRIED) {
        let mut one = Settings::default();
        one.set(name, value);
        if private::apply_settings(lent, &Arc::new(one), syncs).await?.is_some() {
            return Ok(Some(name.into()));
        }
    }
    Ok(None)
}
/// What the client is told of a setting that is refused.
fn told(name: &str, reply: &ErrorReply, began_as: bool) -> ErrorReply {
    let hint = match name {
        "role" if began_as => "SET ROLE NONE gives it up; RESET and DISCARD go back to it.".to_owned(),
        _ if began_as => "SET SESSION AUTHORIZATION gives it up; RESET and DISCARD go back to it.".to_owned(),
        "role" => gives_up("RESET ROLE"),
        "session_authorization" => gives_up("RESET SESSION AUTHORIZATION"),
        _ => gives_up(&format!("RESET {name}")),
    };
    let message = format!("the session's setting \"{name}\" cannot be applied any more: {}", reply.message);
    let mut told = ErrorReply::error(reply.sqlstate.clone(), message).hint(hint);
    told.routine.clone_from(&reply.routine);
    told
}

fn gives_up(reset: &str) -> String {
    format!("{reset}, or DISCARD ALL, gives it up; the session goes on without it then.")
}
