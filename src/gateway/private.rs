//! The gateway's own exchanges on a server that is held: settings, audits, the begin of a deferred transaction.
//!
//! Invariant: the server has answered everything before and everything after.
//! Deliberately absent: what is asked and what the answer means.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::io;
use crate::net;
use crate::observe::Counter;
use crate::pool::{Lent, Server, ShutGate};
use crate::upstream::{Answer, Error, ErrorReply, Prepared, Private, Settings, Within, leaves_name, value_sql};
use crate::wire::{TransactionStatus, backend};

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
    ask_in(lent, sql.as_ref(), Patience::WhileIn)
}

fn ask_in<'a>(lent: &'a mut Lent, sql: &'a [u8], patience: Patience) -> Asking<'a> {
    Box::pin(async move {
        let private = Private::query(&mut lent.upstream, sql);
        complete(lent, private, patience).await
    })
}

/// Ends a group, in which nothing runs.
///
/// Not cancel-safe, as [`ask`].
pub(super) fn sync(lent: &mut Lent) -> Asking<'_> {
    Box::pin(async move {
        let private = Private::sync(&mut lent.upstream);
        complete(lent, private, Patience::WhileIn).await
    })
}

/// Awaits the rest of an answer that nobody is to see.
///
/// Not cancel-safe, as [`ask`].
pub(super) fn hear_out(lent: &mut Lent) -> Asking<'_> {
    Box::pin(complete(lent, Private::default(), Patience::WhileIn))
}

/// Why a server is not waited for any longer.
pub(super) const GIVEN_UP: &str = "the node is out, and does not answer";

/// How long a server is waited for that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until its node is out.
    WhileIn,
    /// As a client would wait: it answered a moment ago, and what it knows of the session no other server does.
    Endless,
}

/// Ahead of the gateway's own statements where the session's defaults may stand in their way: a standby refuses SERIALIZABLE, and
/// on a primary that waits for what others write, if it is READ ONLY DEFERRABLE (`GetSafeSnapshot` in `predicate.c`). Statements in
/// one simple query are in one transaction; this takes no snapshot.
const PLAIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;";

/// That, where it is needed.
fn plain(lent: &Lent) -> &'static str {
    let primary = lent.pool().node.role() == crate::topology::Role::Primary;
    // Reported since PostgreSQL 14; before, nothing tells.
    let read_only = lent.upstream.parameters.value(b"default_transaction_read_only") != Some(b"off");
    if primary && !read_only { "" } else { PLAIN }
}

/// Ahead of what is run again, behind [`PLAIN`].
const UNLIMITED: &str = "SET LOCAL statement_timeout = 0;SET LOCAL lock_timeout = 0;";

async fn complete(lent: &mut Lent, mut private: Private, patience: Patience) -> Result<Answer, PrivateError> {
    let pool = Arc::clone(lent.pool());
    let Server { stream, upstream, gate, .. } = &mut **lent;
    loop {
        if let Some(answer) = private.advance(upstream)? {
            return Ok(answer);
        }
        if !upstream.output.is_empty() {
            io::write(stream, &mut upstream.output).await?;
        }
        let mut read = pin!(io::read(stream, &mut upstream.input));
        poll_fn(|task| {
            let polled = read.as_mut().poll(task);
            if polled.is_pending() {
                gate.watch(task.waker());
                if patience == Patience::WhileIn && pool.node.given_up() {
                    return Poll::Ready(Err(std::io::Error::other(GIVEN_UP)));
                }
            }
            polled
        })
        .await?;
    }
}

/// Runs statements that return no more than a row, and leaves the client's unnamed statement and portal as they are: see
/// [`Private::run`].
///
/// Not cancel-safe, as [`ask`].
pub(super) fn run<'a>(lent: &'a mut Lent, texts: &'a [&'a str]) -> Asking<'a> {
    run_in(lent, texts, Patience::WhileIn)
}

fn run_in<'a>(lent: &'a mut Lent, texts: &'a [&'a str], patience: Patience) -> Asking<'a> {
    Box::pin(async move {
        let private = Private::run(&mut lent.upstream, texts);
        complete(lent, private, patience).await
    })
}

/// Prepares statements that clients know: with the result that they were told of, and with constants that mean what they meant
/// when they were prepared first. `Some`: one cannot be prepared any more, or would return something else; PostgreSQL refuses such
/// a statement with the same words (`RevalidateCachedQuery` in `plancache.c`). `within`: what the transaction may have set otherwise than
/// `settings` say.
///
/// Not cancel-safe, as [`ask`].
pub(super) fn confirm<'a>(
    lent: &'a mut Lent,
    statements: &'a [Arc<Prepared>],
    settings: &'a Arc<Settings>,
    within: Within,
) -> Pin<Box<dyn Future<Output = Result<Option<ErrorReply>, PrivateError>> + Send + 'a>> {
    Box::pin(async move {
        let (misread, plain): (Vec<_>, Vec<_>) = statements.iter().cloned().partition(|statement| {
            statement.may_be_misread(settings, within) || statement.is_read_elsewhere(settings, within)
        });
        for one in misread.chunks(1) {
            if let Some(refused) = confirm_as_read(lent, one, settings, within).await? {
                return Ok(Some(refused));
            }
        }
        if plain.is_empty() { Ok(None) } else { confirm_now(lent, &plain, settings).await }
    })
}

/// The same for one whose constants, or whose names where nobody knows what it returns, would mean something else under the settings
/// at hand: it is prepared under those that it was read under, which hold no longer than that, whatever becomes of the client's transaction.
async fn confirm_as_read(
    lent: &mut Lent,
    statement: &[Arc<Prepared>],
    settings: &Arc<Settings>,
    within: Within,
) -> Result<Option<ErrorReply>, PrivateError> {
    let elsewhere = statement.iter().filter(|statement| statement.is_read_elsewhere(settings, within));
    let names: Vec<_> = elsewhere.flat_map(|statement| statement.names_to_set(settings, within)).collect();
    let mut read_under = Arc::clone(settings);
    for (name, value) in &names {
        let read_under = Arc::make_mut(&mut read_under);
        match value {
            Some(value) => read_under.set(name, *value),
            None => read_under.remove(name),
        }
    }
    let set: Vec<String> = statement
        .iter()
        .flat_map(|statement| statement.constants(settings))
        .chain(names)
        .map(|(name, value)| {
            let value = value.map_or_else(|| "NULL".into(), value_sql);
            format!("pg_catalog.set_config('{name}',{value},true)")
        })
        .collect();
    let set = format!("SELECT {}", set.join(","));
    let (begin, end) = if lent.upstream.status() == TransactionStatus::Idle {
        (["BEGIN ISOLATION LEVEL READ COMMITTED", &set], &["ROLLBACK"][..])
    } else {
        (["SAVEPOINT pm_", &set], &["ROLLBACK TO pm_", "RELEASE pm_"][..])
    };
    let begun = run(lent, &begin).await?;
    let mut refused = error_of(&begun).map(|refused| verbatim(refused, &begun));
    if refused.is_none() {
        refused = confirm_now(lent, statement, &read_under).await?;
    }
    let ended = run(lent, end).await?;
    Ok(refused.or_else(|| error_of(&ended)))
}

/// The same under the settings at hand.
async fn confirm_now(
    lent: &mut Lent,
    statements: &[Arc<Prepared>],
    settings: &Arc<Settings>,
) -> Result<Option<ErrorReply>, PrivateError> {
    let private = Private::describe(&mut lent.upstream, statements, settings);
    let answer = complete(lent, private, Patience::WhileIn).await?;
    if let Some(refused) = error_of(&answer) {
        return Ok(Some(verbatim(refused, &answer)));
    }
    let changed: Vec<_> = statements
        .iter()
        .zip(&answer.described)
        .filter(|(statement, shape)| !statement.learn_columns(shape))
        .map(|(statement, _)| Arc::clone(statement))
        .collect();
    if changed.is_empty() {
        return Ok(None);
    }
    lent.upstream.mark_outdated();
    let private = Private::close(&mut lent.upstream, &changed);
    complete(lent, private, Patience::WhileIn).await?;
    let changed = ErrorReply::error("0A000", "cached plan must not change result type");
    Ok(Some(changed.routine("RevalidateCachedQuery")))
}

/// A refusal of the client's own text, as the server put it.
fn verbatim(refused: ErrorReply, answer: &Answer) -> ErrorReply {
    ErrorReply { verbatim: answer.error.clone().map(Box::new), ..refused }
}

/// How often a question is asked that cancel requests hit, and how long those are waited for that are on their way.
const ATTEMPTS: usize = 20;
const ON_THEIR_WAY: Duration = Duration::from_secs(1);

/// How long the client may wait for its answer because of a question that waits for what others have locked.
const BEARABLE: Duration = Duration::from_secs(1);

/// Keeps the client's cancel requests from a server on which nothing of the client's runs: one had hit a question. Cancel-safe.
async fn undisturbed(lent: &Lent) -> ShutGate {
    tracing::debug!(node = %lent.pool().node.spec.name, "a question was hit and is asked again");
    let shut = lent.gate.shut();
    let _ = net::timeout(ON_THEIR_WAY, lent.gate.emptied()).await;
    shut
}

/// The same, and ends the transaction that was hit. `false`: there was one, and what ends it may have been hit as well.
async fn ready_again(lent: &mut Lent, shut: &mut Option<ShutGate>, patience: Patience) -> Result<bool, PrivateError> {
    if shut.is_none() {
        *shut = Some(undisturbed(lent).await);
    }
    let idle = lent.upstream.status() == TransactionStatus::Idle;
    if !idle {
        run_in(lent, &["ROLLBACK"], patience).await?;
    }
    Ok(idle)
}

/// Asks for state of the session outside a transaction. Neither the session's own time-outs nor a cancel request of its client's
/// keeps it from being answered, nor that the node is out; what others have locked does, for as long as they have. `sql` ends with a
/// semicolon; rows whose first column is the name of a setting have its value in hexadecimal digits behind.
pub(super) fn ask_whatever_it_takes<'a>(lent: &'a mut Lent, sql: &'a str) -> Asking<'a> {
    Box::pin(async move { insist(lent, sql, None).await })
}

/// The same ahead of an answer that the client waits for: `None`, where it would wait too long. Then nothing was asked.
///
/// Not cancel-safe, as [`ask`].
pub(super) fn ask_in_time<'a>(
    lent: &'a mut Lent,
    sql: &'a str,
) -> Pin<Box<dyn Future<Output = Result<Option<Answer>, PrivateError>> + Send + 'a>> {
    Box::pin(async move {
        let answer = insist(lent, sql, Some(BEARABLE)).await?;
        Ok((!hit(&answer)).then_some(answer))
    })
}

/// Asks until it is answered; within `limit` each time, if there is one: what takes longer is cancelled, and not asked again.
async fn insist(lent: &mut Lent, sql: &str, limit: Option<Duration>) -> Result<Answer, PrivateError> {
    let plain = plain(lent);
    let (mut answer, mut late) = ask_once(lent, &format!("{plain}{sql}"), limit).await?;
    let mut shut = None;
    for _ in 0..ATTEMPTS {
        if late || !hit(&answer) {
            break;
        }
        if !ready_again(lent, &mut shut, Patience::Endless).await? {
            continue;
        }
        // A utility statement takes some ten microseconds: the least time-out is a millisecond.
        let shown = ask_in(lent, b"SHOW statement_timeout;SHOW lock_timeout", Patience::Endless).await?;
        let [[Some(statement)], [Some(lock)]] = [0, 1].map(|row| shown.rows.get(row).map_or(&[][..], Vec::as_slice))
        else {
            continue;
        };
        (answer, late) = ask_once(lent, &format!("{plain}{UNLIMITED}{sql}"), limit).await?;
        for row in &mut answer.rows {
            let [Some(name), Some(value), ..] = row.as_mut_slice() else { continue };
            let own = match name.as_str() {
                "statement_timeout" => statement,
                "lock_timeout" => lock,
                _ => continue,
            };
            *value = own.bytes().map(|byte| format!("{byte:02x}")).collect();
        }
    }
    Ok(answer)
}

/// Asks once. `true`: it took longer than `limit` and was cancelled.
async fn ask_once(lent: &mut Lent, sql: &str, limit: Option<Duration>) -> Result<(Answer, bool), PrivateError> {
    let Some(limit) = limit else { return Ok((ask_in(lent, sql.as_bytes(), Patience::Endless).await?, false)) };
    let (target, gate) = (Arc::clone(&lent.target), Arc::clone(&lent.gate));
    let mut asking = ask_in(lent, sql.as_bytes(), Patience::Endless);
    if let Ok(answer) = net::timeout(limit, asking.as_mut()).await {
        return Ok((answer?, false));
    }
    let on_its_way = gate.enter();
    let (cancelled, answer) = tokio::join!(target.connector.cancel(&target.key, &on_its_way), asking);
    let answer = answer?;
    if let Err(error) = cancelled {
        tracing::warn!(%error, "a question of the gateway's own could not be cancelled");
    }
    // What came behind the answer has hit nothing once one Sync has passed.
    sync(lent).await?;
    let late = hit(&answer);
    Ok((answer, late))
}

/// Runs a statement of the gateway's own outside a transaction, as [`run`] does, behind an answer of the client's: neither
/// its time-outs nor a cancel request keeps it from that.
pub(super) fn run_whatever_it_takes<'a>(lent: &'a mut Lent, text: &'a str, patience: Patience) -> Asking<'a> {
    Box::pin(async move {
        let [statement_timeout, lock_timeout] = ["SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0"];
        let begin = ["BEGIN ISOLATION LEVEL READ COMMITTED", statement_timeout, lock_timeout, text, "COMMIT"];
        let first = if plain(lent).is_empty() { &begin[3..4] } else { &begin };
        let mut answer = run_in(lent, first, patience).await?;
        let mut shut = None;
        for _ in 0..ATTEMPTS {
            if !hit(&answer) {
                break;
            }
            if !ready_again(lent, &mut shut, patience).await? {
                continue;
            }
            answer = run_in(lent, &begin, patience).await?;
        }
        Ok(answer)
    })
}

/// Whether a cancel request or a time-out ended it.
fn hit(answer: &Answer) -> bool {
    let ended = |error: &bytes::BytesMut| ["57014", "55P03"].contains(&&*backend::error_fields(error).sqlstate);
    answer.error.as_ref().is_some_and(ended)
}

/// What [`ask`] gives.
pub(super) type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, PrivateError>> + Send + 'a>>;

/// Makes the server's settings those of `wanted`; counts in `syncs` if that takes a statement. `Some`: the server refused one, and none was changed.
pub(super) async fn apply_settings(
    lent: &mut Lent,
    wanted: &Arc<Settings>,
    syncs: &Counter,
) -> Result<Option<ErrorReply>, PrivateError> {
    bring_settings(lent, wanted, syncs, None).await
}

/// The same behind an answer of the client's: as [`run_whatever_it_takes`].
pub(super) async fn apply_whatever_it_takes(
    lent: &mut Lent,
    wanted: &Arc<Settings>,
    syncs: &Counter,
    patience: Patience,
) -> Result<Option<ErrorReply>, PrivateError> {
    bring_settings(lent, wanted, syncs, Some(patience)).await
}

async fn bring_settings(
    lent: &mut Lent,
    wanted: &Arc<Settings>,
    syncs: &Counter,
    behind: Option<Patience>,
) -> Result<Option<ErrorReply>, PrivateError> {
    let patience = behind.unwrap_or(Patience::WhileIn);
    let same = lent.upstream.settings.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, wanted) || applied == wanted);
    if !same {
        syncs.one();
        // Behind an answer it is looked at afterwards whether they may stay, being the session's own.
        let stay = behind.is_some() && lent.upstream.plans.own;
        let replans = !stay && !lent.upstream.plans.suit(wanted);
        let discard = if replans { "DISCARD PLANS;" } else { "" };
        let plain = plain(lent);
        let sql = format!("{plain}{discard}{}", wanted.transition(lent.upstream.settings.as_deref()));
        lent.upstream.spoiled |= wanted.iter().any(|(name, _)| leaves_name(name));
        let mut answer = ask_in(lent, sql.as_bytes(), patience).await?;
        // The time-outs of whoever had the server before may have been too short for this.
        let held = lent.upstream.settings.as_ref();
        let timeout = held.is_none_or(|settings| {
            ["statement_timeout", "lock_timeout"].iter().any(|name| settings.bytes(name).is_some())
        });
        // What the client cancels ahead of its statement is cancelled with that.
        let attempts = if behind.is_some() { ATTEMPTS } else { usize::from(timeout) };
        let mut shut = None;
        for _ in 0..attempts {
            if !hit(&answer) {
                break;
            }
            if behind.is_some() && shut.is_none() {
                shut = Some(undisturbed(lent).await);
            }
            lent.upstream.settings = None;
            let sql = format!("{plain}{UNLIMITED}{discard}{}", wanted.transition(None));
            answer = ask_in(lent, sql.as_bytes(), patience).await?;
        }
        if let Some(reply) = error_of(&answer) {
            if replans {
                lent.upstream.plans_may_be_gone();
            }
            return Ok(Some(reply));
        }
        if replans {
            lent.upstream.plans_discarded(wanted);
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
    reply.routine = fields.routine;
    Some(reply)
}
