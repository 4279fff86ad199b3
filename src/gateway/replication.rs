//! Replication connections: pg_basebackup, pg_receivewal, pg_recvlogical, standbys, subscriptions.
//!
//! Invariant: such a client has a server connection to itself, to a primary, from its log-in to its end, whatever the pool's
//! mode is; what either says after that is passed on as it is. It counts in the budget.
//!
//! Deliberately absent: routing, policies, session state. A gateway that stops ends such connections at once: they have no end
//! of their own to wait for, and those who replicate connect again.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;

use super::cancel::Handle;
use super::context::Context;
use super::greet::{Greeted, Refused};
use super::{io, login};
use crate::auth::Credentials;
use crate::net::Stream;
use crate::pool::{CheckoutError, Dedicated};
use crate::topology::Conditions;
use crate::upstream::{ErrorReply, Parameters};
use crate::wire::startup::Startup;

/// Bytes relayed at once, each way.
const CHUNK: usize = 64 << 10;

/// What `replication` in a start-up packet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The cluster as a whole; the database that is named does not matter to the server.
    Physical,
    /// One database.
    Logical,
}

/// A replication client's server connection.
#[derive(Debug)]
pub(super) struct Replication {
    connection: Dedicated,
    /// What the client sent ahead of its first ReadyForQuery.
    pub(super) early: BytesMut,
}

/// What the start-up packet asks for (`ProcessStartupPacket` in `postmaster.c`).
///
/// # Errors
/// 22023: a value that PostgreSQL does not know.
pub(super) fn wanted(startup: &Startup) -> Result<Option<Kind>, ErrorReply> {
    let Some(value) = startup.parameter("replication") else { return Ok(None) };
    match boolean(value) {
        _ if value == "database" => Ok(Some(Kind::Logical)),
        Some(true) => Ok(Some(Kind::Physical)),
        Some(false) => Ok(None),
        None => Err(ErrorReply::fatal("22023", format!("invalid value for parameter \"replication\": \"{value}\""))
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")),
    }
}

/// As `parse_bool_with_len` of PostgreSQL: any beginning that is not that of two words.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    match () {
        () if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some(true),
        () if text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        () => None,
    }
}

/// Lets a replication client in and opens its server connection.
pub(super) async fn open(
    kind: Kind,
    greeted: &mut Greeted,
    context: &Context,
    worker: usize,
    out: &mut BytesMut,
) -> Result<Replication, Refused> {
    let startup = greeted.startup.clone();
    let Some(user) = startup.parameter("user").filter(|user| !user.is_empty()) else {
        return Err(ErrorReply::fatal("28000", "no PostgreSQL user name specified in startup packet").into());
    };
    let name = startup.parameter("database").filter(|name| !name.is_empty());
    // As in pg_hba.conf: what replicates physically is in the database "replication".
    let database = match kind {
        Kind::Logical => name.unwrap_or(user),
        Kind::Physical => "replication",
    };
    let live = context.live.load_full();
    let Some((cluster, dbname)) = live.database(database) else {
        let refused = login::no_database(database);
        return Err(match kind {
            Kind::Logical => refused,
            Kind::Physical => refused.hint(
                "Physical replication names no database: [databases.replication] with `cluster` says whose servers are meant.",
            ),
        }
        .into());
    };
    if cluster.topology.shards().len() > 1 {
        return Err(ErrorReply::fatal(
            "0A000",
            format!("cluster \"{}\" has several shards, and a replication connection concerns one", cluster.name),
        )
        .hint("Connect to the shard's own servers, or give each shard a cluster and a database of its own as well.")
        .into());
    }
    let node = cluster.topology.choose(&Conditions::default());
    let node = node.map_err(|error| ErrorReply::fatal("57P03", error.to_string()))?;
    let pool = live.config.pool_for(database, user);
    let own = |name: &str| matches!(name, "user" | "database") || name.starts_with("_pq_.");
    let more: Vec<(Box<str>, Box<str>)> = startup
        .parameters
        .iter()
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect();
    let connect = async |credentials: Credentials| {
        let connector = cluster.connector(node, user, dbname, credentials, &pool).with_startup(more.iter().cloned());
        let opened = Dedicated::open(&context.budget, &connector, worker).await;
        if let Err(CheckoutError::Connect(error)) = &opened
            && let Some(failure) = crate::discover::Failure::of(error)
        {
            cluster.report_failure(node, failure);
        }
        opened
    };
    let connection = if live.knows_users() {
        let credentials = login::configured(greeted, context, &live, user, out).await?;
        connect(credentials).await.map_err(|error| login::connect_refusal(&error))?
    } else {
        match connect(Credentials::None).await {
            Ok(connection) => {
                login::trusted_by_server(greeted, context, user, out).await?;
                connection
            }
            Err(error) if login::wants_password(&error) => {
                let (credentials, auth) = login::ask_password(greeted, context, out).await?;
                login::conclude(auth, connect(credentials).await, out)?
            }
            Err(error) => return Err(login::connect_refusal(&error).into()),
        }
    };
    tracing::info!(session = greeted.id, user, ?kind, node = %node.spec.name, "a replication connection begins");
    Ok(Replication { connection, early: BytesMut::new() })
}

impl Replication {
    /// What the server reported.
    pub(super) fn reported(&self) -> Arc<Parameters> {
        Arc::clone(&self.connection.server.upstream.parameters)
    }

    /// Passes bytes both ways until either side ends or the gateway stops.
    pub(super) async fn relay(mut self, mut client: Stream, context: &Context, handle: &Handle, id: u64) {
        let server = &mut self.connection.server;
        handle.runs(&server.gate, &server.target);
        let mut drain = context.on_drain();
        let relayed = async {
            io::write(&mut client, &mut server.upstream.input).await?;
            io::write(&mut server.stream, &mut self.early).await?;
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server.stream, CHUNK, CHUNK).await
        };
        tokio::select! {
            ended = relayed => match ended {
                Ok((received, sent)) => tracing::info!(session = id, received, sent, "a replication connection ended"),
                Err(error) => tracing::info!(session = id, %error, "a replication connection ended"),
            },
            // The sender lives as long as the context.
            _ = drain.wait_for(|drain| *drain) => tracing::info!(session = id, "a replication connection is ended: the gateway stops"),
        }
        handle.rests();
        // Either may be gone already.
        let _ = client.shutdown().await;
        let _ = server.stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replication_asks_for() {
        let check = |value: &str, expected: Result<Option<Kind>, ()>| {
            let startup = Startup { version: 196_608, parameters: vec![("replication".to_owned(), value.to_owned())] };
            assert_eq!(wanted(&startup).map_err(|_| ()), expected, "{value}");
        };
        for value in ["true", "T", "on", "yes", "y", "1"] {
            check(value, Ok(Some(Kind::Physical)));
        }
        for value in ["false", "f", "OFF", "of", "no", "n", "0"] {
            check(value, Ok(None));
        }
        check("database", Ok(Some(Kind::Logical)));
        for value in ["", "o", "Database", "2", "trueish"] {
            check(value, Err(()));
        }
    }
}
