//! A client's first packets: TLS, cancel, start-up; then log-in, then the drive loop.
//!
//! Invariant: all of it is over within `client_login_timeout`, and holds at most one start-up packet of memory.
//! Deliberately absent: who may log in (`login`).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf as _, BytesMut};

use super::cancel::{Handle, Who};
use super::context::{Admission, Context};
use super::drive::Conversation;
use super::replication::{self, Replication};
use super::route::ISOLATION;
use super::{console, drive, io, login, peers};
use crate::control::Account;
use crate::net::{self, Accepted, Stream};
use crate::observe::Refusal;
use crate::session::Session;
use crate::upstream::ErrorReply;
use crate::wire::startup::{self, PROTOCOL_3_0, PROTOCOL_3_2, Packet, Startup};
use crate::wire::{Malformed, TransactionStatus, backend};

/// The newest minor version spoken.
const NEWEST: u32 = PROTOCOL_3_2;

/// Why a client was not let in.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is told, then the connection ends.
    Tell(ErrorReply),
    /// The connection ends.
    Silent(std::io::Error),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Silent(error)
    }
}

impl From<ErrorReply> for Refused {
    fn from(reply: ErrorReply) -> Self {
        Self::Tell(reply)
    }
}

impl From<Malformed> for Refused {
    fn from(error: Malformed) -> Self {
        Self::Tell(ErrorReply::fatal("08P01", error.to_string()))
    }
}

/// A client that has said what it wants.
pub(super) struct Greeted {
    /// The session's number.
    pub(super) id: u64,
    pub(super) stream: Stream,
    pub(super) input: BytesMut,
    pub(super) startup: Startup,
}

/// Serves one connection to its end.
///
/// Its log-in is a future of its own, on the heap, and gone with all that it held when the session begins.
pub(super) fn greet(accepted: Accepted, context: Arc<Context>, worker: usize) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(let_in(accepted, Arc::clone(&context), worker));
    async move {
        let Some(Guest { id, handle, came, _admission }) = opening.await else { return };
        match came {
            Came::Session(conversation) => drive::drive(conversation).await,
            Came::Console(visit) => {
                let Visit { stream, early } = *visit;
                Box::pin(console::serve(stream, early, &context, &handle)).await;
            }
            Came::Replication(stream, replication) => {
                Box::pin(replication.relay(*stream, &context, &handle, id)).await;
            }
        }
        context.cancels.forget(&handle);
        tracing::debug!(session = id, "over");
    }
}

/// A client that was let in.
struct Guest {
    id: u64,
    handle: Arc<Handle>,
    came: Came,
    _admission: Admission,
}

/// What it came for.
enum Came {
    Session(Box<Conversation>),
    Console(Box<Visit>),
    Replication(Box<Stream>, Box<Replication>),
}

/// A client of the console, with what it sent ahead.
struct Visit {
    stream: Stream,
    early: BytesMut,
}

/// `None`: it has served its purpose, was turned away, or left.
async fn let_in(accepted: Accepted, context: Arc<Context>, worker: usize) -> Option<Guest> {
    let stream = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a client left before it was greeted");
            return None;
        }
    };
    let peer = stream.peer().to_string();
    let id = context.session_id();
    context.metrics.accepted.one();
    let Some(admission) = context.admit() else {
        context.metrics.refused(Refusal::TooMany);
        turn_away(id, stream, &too_many()).await;
        return None;
    };
    let limit = context.live.load().config.server.client_login_timeout;
    let Ok(opened) = net::timeout(limit, open(id, stream, &context, worker, admission.beyond)).await else {
        context.metrics.refused(Refusal::TimedOut);
        tracing::info!(session = id, %peer, "a client did not finish its log-in within {limit:?}");
        return None;
    };
    let (stream, handle, opened) = opened?;
    let came = match opened {
        Opened::Session(session, account) => {
            tracing::debug!(session = id, %peer, user = %account.user, database = %account.database, "logged in");
            let known = Arc::clone(&handle);
            Came::Session(Conversation::new(stream, *session, account, context, known, worker, id))
        }
        Opened::Console(early) => Came::Console(Box::new(Visit { stream, early })),
        Opened::Replication(replication) => Came::Replication(Box::new(stream), replication),
    };
    Some(Guest { id, handle, came, _admission: admission })
}

/// What a client may come for.
enum Opened {
    Session(Box<Session>, Arc<Account>),
    Replication(Box<Replication>),
    /// With what the client sent ahead.
    Console(BytesMut),
}

/// `beyond`: there are as many clients as may be, and only the console and what asks for a cancel comes in.
async fn open(
    id: u64,
    stream: Stream,
    context: &Arc<Context>,
    worker: usize,
    beyond: bool,
) -> Option<(Stream, Arc<Handle>, Opened)> {
    let mut greeted = match first_packets(id, stream, context).await {
        Ok(greeted) => greeted?,
        Err((stream, refused)) => {
            end(id, context, stream, refused).await;
            return None;
        }
    };
    if beyond && !console::wanted(&greeted.startup, context) {
        end(id, context, Some(greeted.stream), too_many().into()).await;
        return None;
    }
    match log_in(&mut greeted, context, worker).await {
        Ok((handle, opened)) => Some((greeted.stream, handle, opened)),
        Err(refused) => {
            end(id, context, Some(greeted.stream), refused).await;
            None
        }
    }
}

async fn end(id: u64, context: &Context, stream: Option<Stream>, refused: Refused) {
    context.metrics.refused(match &refused {
        Refused::Tell(reply) => Refusal::of(&reply.sqlstate),
        Refused::Silent(_) => Refusal::Gone,
    });
    match (stream, refused) {
        (Some(stream), Refused::Tell(reply)) => turn_away(id, stream, &reply).await,
        (_, Refused::Tell(reply)) => tracing::debug!(session = id, reason = %reply.message, "a client was refused"),
        (_, Refused::Silent(error)) => tracing::debug!(session = id, %error, "a client left before it was logged in"),
    }
}

async fn turn_away(id: u64, mut stream: Stream, reply: &ErrorReply) {
    tracing::info!(session = id, peer = %stream.peer(), sqlstate = %reply.sqlstate, reason = %reply.message, "a client was refused");
    let mut out = BytesMut::new();
    reply.write(&mut out);
    // The client may be gone already.
    let _ = io::write(&mut stream, &mut out).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
}

fn too_many() -> ErrorReply {
    ErrorReply::fatal("53300", "sorry, too many clients already")
        .hint("The gateway's limit is max_clients in [server].")
}

/// Everything up to the StartupMessage. `Ok(None)`: the connection has served its purpose.
async fn first_packets(
    id: u64,
    mut stream: Stream,
    context: &Arc<Context>,
) -> Result<Option<Greeted>, (Option<Stream>, Refused)> {
    let (tls, required) = {
        let live = context.live.load();
        let mode = live.config.server.tls.as_ref().map(|tls| tls.mode);
        (live.tls.clone(), mode == Some(crate::config::ServerTlsMode::Require))
    };
    let mut input = BytesMut::with_capacity(1024);
    let mut asked_gss = false;
    loop {
        if input.first() == Some(&0x16) && !stream.is_tls() {
            let Some(tls) = &tls else {
                return Err((None, Refused::Silent(std::io::Error::other("direct TLS, but TLS is not configured"))));
            };
            let direct = tls.accept_direct(stream, &input).await;
            stream = direct.map_err(|error| (None, Refused::Silent(std::io::Error::other(error))))?;
            input.clear();
        }
        let (packet, len) = match startup::read(&input) {
            Ok(Some(read)) => read,
            Ok(None) => {
                if let Err(error) = io::read(&mut stream, &mut input).await {
                    return Err((None, error.into()));
                }
                continue;
            }
            // Not a client of PostgreSQL's, or one that gave up before it began (node-postgres says Terminate then):
            // as PostgreSQL does, nothing is said.
            Err(error @ Malformed::Length { .. }) => {
                return Err((None, Refused::Silent(std::io::Error::other(error))));
            }
            Err(error) => return Err((Some(stream), error.into())),
        };
        input.advance(len);
        match packet {
            Packet::Cancel(key) => {
                peers::cancel(context, &key).await;
                return Ok(None);
            }
            Packet::Ssl if !stream.is_tls() => {
                let usable = tls.as_ref().filter(|_| !matches!(stream.peer(), net::Peer::UnixClient { .. }));
                match usable {
                    Some(tls) => {
                        let secured = tls.accept_after_request(stream, &input).await;
                        stream = secured.map_err(|error| (None, Refused::Silent(std::io::Error::other(error))))?;
                        input.clear();
                    }
                    None => refuse_request(&mut stream).await.map_err(|error| (None, error.into()))?,
                }
            }
            Packet::GssEnc if !asked_gss => {
                asked_gss = true;
                refuse_request(&mut stream).await.map_err(|error| (None, error.into()))?;
            }
            Packet::Ssl | Packet::GssEnc => return Err((Some(stream), Malformed::Body("startup").into())),
            Packet::Startup(startup) => {
                if required && !stream.is_tls() && !matches!(stream.peer(), net::Peer::UnixClient { .. }) {
                    let reply = ErrorReply::fatal("28000", "this gateway takes TLS connections only")
                        .hint("Connect with sslmode=require, or set [server] tls mode to \"prefer\".");
                    return Err((Some(stream), reply.into()));
                }
                return Ok(Some(Greeted { id, stream, input, startup }));
            }
        }
    }
}

async fn refuse_request(stream: &mut Stream) -> std::io::Result<()> {
    let mut out = BytesMut::from(&b"N"[..]);
    io::write(stream, &mut out).await
}

async fn log_in(
    greeted: &mut Greeted,
    context: &Arc<Context>,
    worker: usize,
) -> Result<(Arc<Handle>, Opened), Refused> {
    let version = greeted.startup.version;
    if version >> 16 != 3 {
        let message =
            format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", version >> 16, version & 0xffff);
        return Err(ErrorReply::fatal("0A000", message).into());
    }
    let mut out = BytesMut::new();
    let options: Vec<_> = greeted
        .startup
        .parameters
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    // 3.1 was never a protocol: clients that ask for it, or for more than there is, are told what there is.
    let spoken = if version >= NEWEST { NEWEST } else { PROTOCOL_3_0 };
    if version > NEWEST || version == PROTOCOL_3_0 + 1 || !options.is_empty() {
        backend::write_negotiate(&mut out, spoken, &options);
    }
    let mut who = who(greeted, context);
    let (opened, reported) = match replication::wanted(&greeted.startup)? {
        None if console::wanted(&greeted.startup, context) => {
            who.kind = "A";
            (Opened::Console(BytesMut::new()), console::open(greeted, context, &mut out).await?)
        }
        None => {
            let login::LoggedIn { account, baseline, reported } =
                login::log_in(greeted, context, worker, &mut out).await?;
            who.baseline = Arc::clone(&baseline);
            let mut session = Session::new(Arc::clone(&context.session), baseline, Arc::clone(&reported));
            let isolation = account.beginning.values().and_then(|values| values.value(ISOLATION));
            session.begins_serializable = isolation == Some("serializable");
            (Opened::Session(Box::new(session), account), reported)
        }
        Some(kind) => {
            who.kind = "R";
            let replication = replication::open(kind, greeted, context, worker, &mut out).await?;
            let reported = replication.reported();
            (Opened::Replication(Box::new(replication)), reported)
        }
    };
    let id = context.live.load().peers.as_ref().map(|peers| peers.id);
    let handle = context.cancels.register(spoken == PROTOCOL_3_2, id, who);
    for (name, value) in reported.iter() {
        backend::write_parameter_status(&mut out, name, value);
    }
    backend::write_key(&mut out, handle.key.pid, &handle.key.secret);
    backend::write_ready(&mut out, TransactionStatus::Idle);
    if let Err(error) = io::write(&mut greeted.stream, &mut out).await {
        context.cancels.forget(&handle);
        return Err(error.into());
    }
    let early = std::mem::take(&mut greeted.input);
    let opened = match opened {
        Opened::Session(mut session, account) => {
            session.input = early;
            Opened::Session(session, account)
        }
        Opened::Replication(mut replication) => {
            replication.early = early;
            Opened::Replication(replication)
        }
        Opened::Console(_) => Opened::Console(early),
    };
    Ok((handle, opened))
}

/// What a client says of itself.
pub(super) fn who(greeted: &Greeted, context: &Context) -> Who {
    let user = greeted.startup.parameter("user").unwrap_or_default();
    let database = greeted.startup.parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
    Who {
        id: greeted.id,
        kind: "C",
        user: user.into(),
        database: database.into(),
        peer: greeted.stream.peer().clone(),
        tls: greeted.stream.tls_version(),
        since: SystemTime::now(),
        baseline: login::named(&greeted.startup, context),
    }
}
