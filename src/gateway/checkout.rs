//! A server for a unit: a node is chosen, its pool asked, another tried where a node does not answer.
//!
//! Invariant: nothing of the unit was sent before, so that any other node may take it. What the client sends meanwhile is kept, up
//! to the session's limits; one that goes away leaves the queue.
//!
//! Deliberately absent: which nodes will do (`route`), the queue (`pool`).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::drive::{Conversation, End};
use super::io;
use super::login::connect_refusal;
use super::private::PrivateError;
use super::route::Route;
use super::settle::FINISH;
use crate::discover::Failure;
use crate::net::{self, Stream};
use crate::policy::Role;
use crate::pool::{CheckoutError, ConnectError, Lent, Pool, Wish};
use crate::session::Session;
use crate::topology::{Conditions, Position};
use crate::upstream::ErrorReply;

/// How often who waits for a replica looks whether it is out.
const LOOK: Duration = Duration::from_millis(500);

/// How many servers in a row may be lost before a unit was sent, until it fails: those that were idle while a server started anew
/// or an administrator ended them are lost together.
const TRIES: u32 = 3;

/// How a wait for a server ended.
enum Waited {
    Lent(Result<Lent, CheckoutError>),
    /// The node is out.
    NodeOut,
    /// By the client's cancel request.
    Cancelled,
    ClientGone,
}

impl Conversation {
    /// Waits for a server. The outer error ends the session, the inner one the unit.
    pub(super) async fn checkout(
        &mut self,
        route: &Route,
        replayed: Option<Position>,
    ) -> Result<Result<Lent, ErrorReply>, End> {
        let nodes = self.account.cluster.topology.nodes().count();
        let mut last = None;
        let mut primary_only = false;
        for _ in 0..=nodes {
            let mut conditions =
                Conditions { replayed, keeps_turn: !self.session.unit().executes(), ..route.conditions() };
            // What a policy leaves open the configuration says.
            conditions.max_lag = conditions.max_lag.or(self.account.cluster.config.max_lag);
            if primary_only {
                conditions = Conditions { replica: false, any: false, ..conditions };
            }
            let node = match self.account.cluster.topology.choose(&conditions) {
                Ok(node) => Arc::clone(node),
                Err(error) => return Ok(Err(ErrorReply::error("57P03", error.to_string()))),
            };
            let pool = Arc::clone(self.account.pool(&node));
            let wish = self.home.wish(&self.session);
            if let Some(lent) = pool.idle(self.worker, wish) {
                return Ok(Ok(lent));
            }
            // Boxed, so that the future stays small: it is moved for each unit, and most find an idle server.
            let lent = match Box::pin(self.wait_for_server(&pool, wish)).await {
                Waited::Lent(lent) => lent,
                Waited::NodeOut => continue,
                Waited::Cancelled => {
                    return Ok(Err(cancelled()));
                }
                // Nothing of the unit was sent.
                Waited::ClientGone if self.half_closed => return Err(End::Tell(overdue(false))),
                Waited::ClientGone => return Err(End::Quiet),
            };
            match lent {
                Ok(lent) => {
                    node.answered();
                    return Ok(Ok(lent));
                }
                Err(CheckoutError::Connect(error)) if error.blames_node() => {
                    // Nothing was sent: another node may take it.
                    // The monitor tells once that the node is out; this would be a line a statement.
                    tracing::debug!(session = self.id, node = %node.spec.name, %error, "a node did not answer");
                    let only = route.target.role == Role::Primary || node.role() == crate::topology::Role::Primary;
                    if let Some(failure) = Failure::of(&error) {
                        self.account.cluster.report_failure(&node, failure);
                    }
                    last = Some(CheckoutError::Connect(error));
                    if only {
                        break;
                    }
                }
                Err(CheckoutError::Connect(error))
                    if node.role() == crate::topology::Role::Replica && !primary_only && may_be_new(&error) =>
                {
                    primary_only = true;
                    last = Some(CheckoutError::Connect(error));
                }
                Err(error) => {
                    last = Some(error);
                    break;
                }
            }
        }
        let error = last.unwrap_or(CheckoutError::Closed);
        let mut reply = connect_refusal(&error);
        reply.severity = "ERROR";
        Ok(Err(reply))
    }

    /// A server was lost before anything of the unit was sent, for the `lost`th time: it had no effect, and another server may take
    /// it. Returns whether the unit has failed instead.
    pub(super) fn gives_up(&mut self, error: &PrivateError, lost: u32) -> bool {
        self.shown = false;
        self.handle.rests();
        self.counters().lost_servers.one();
        tracing::debug!(session = self.id, %error, "a server was lost before the statement was sent to it");
        if lost < TRIES {
            return false;
        }
        self.chain = None;
        self.refuse(
            &ErrorReply::error("08006", error.to_string())
                .hint("Nothing was executed; the statement can be sent again."),
        );
        true
    }

    async fn wait_for_server(&mut self, pool: &Arc<Pool>, wish: Wish) -> Waited {
        let since = Instant::now();
        let waiting = self.handle.waiting();
        let waited = tokio::select! {
            biased;
            lent = pool.checkout(self.worker, wish) => Waited::Lent(lent),
            () = out(pool) => Waited::NodeOut,
            () = waiting.cancelled() => Waited::Cancelled,
            () = client_gone(&mut self.client, &mut self.session, &mut self.half_closed) => Waited::ClientGone,
        };
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tally.worker(self.worker).waited.add(micros);
        waited
    }
}

/// Resolves when the pool's node is a replica that is out.
async fn out(pool: &Pool) {
    if pool.node.role() != crate::topology::Role::Replica {
        return std::future::pending().await;
    }
    while !pool.node.given_up() {
        net::sleep(LOOK).await;
    }
}

/// Whether a replica may only not have heard yet of the database, the role or its rights.
fn may_be_new(error: &ConnectError) -> bool {
    error.refused().is_some_and(|fields| matches!(&*fields.sqlstate, "3D000" | "28000" | "28P01" | "42501"))
}

/// Resolves when the client's connection breaks, or a while after its end: a client that has said all that it has to say may
/// still await the answer, one that vanished must not keep its place for long. Keeps what is sent meanwhile, up to the
/// session's limits.
async fn client_gone(client: &mut Stream, session: &mut Session, half_closed: &mut bool) {
    let broken = poll_fn(|task| {
        loop {
            if *half_closed {
                return Poll::Ready(false);
            }
            let room = session.room();
            if room == 0 {
                return Poll::Pending;
            }
            session.input.reserve(room.min(io::CHUNK));
            match tokio_util::io::poll_read_buf(Pin::new(&mut *client), task, &mut session.input) {
                Poll::Ready(Ok(read)) => *half_closed = read == 0,
                Poll::Ready(Err(_)) => return Poll::Ready(true),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    if !broken.await {
        net::sleep(FINISH).await;
    }
}

/// What a statement is answered that was cancelled before a server could say so.
pub(super) fn cancelled() -> ErrorReply {
    ErrorReply::error("57014", "canceling statement due to user request")
}

/// What a client is told that will send no more and whose answer takes too long.
pub(super) fn overdue(may_have_written: bool) -> ErrorReply {
    let (sqlstate, hint) = if may_have_written {
        (
            "08007",
            "Whether the statement in flight takes effect is not known. Keep the connection open until it has ended.",
        )
    } else {
        ("57014", "Keep the connection open in both directions until the answer has come.")
    };
    ErrorReply::fatal(sqlstate, "the answer took too long for a client that will send no more").hint(hint)
}
