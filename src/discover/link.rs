//! How a node is asked: on a connection of the monitor's own, or on one borrowed from a pool.
//!
//! Invariant: whoever stops waiting closes the connection; a borrowed one goes back only clean, which the pool checks.
//! Deliberately absent: what is asked, what follows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::probe::{PLAIN_BEGIN, PLAIN_END, SEARCH_PATH};
use super::{Failure, Source};
use crate::net::Stream;
use crate::pool::{CheckoutError, ConnectError, Server, Wish};
use crate::topology::Node;
use crate::upstream::{self, Answer, Private, Upstream};
use crate::wire::backend::error_fields;

/// What became of a question.
#[derive(Debug)]
pub(super) enum Asked {
    /// One answer a query.
    Answers(Vec<Answer>),
    /// The node is to blame.
    Failed(Failure, String),
    /// The node has no such database.
    NoDatabase,
    /// Nobody could ask, or the node answered that it will not say.
    Unable(String),
}

/// How long a server may take to end a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// The way to one node.
#[derive(Debug)]
pub(super) struct Link {
    worker: usize,
    own: Option<Server>,
    /// The texts prepared on `own`, under their numbers here: planning costs a server more than answering.
    prepared: Vec<Box<str>>,
    /// The reason why the monitor's account was refused was logged.
    warned: bool,
}

enum Broken {
    Io(std::io::Error),
    Protocol(upstream::Error),
    Refused(String),
}

impl Link {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, own: None, prepared: Vec::new(), warned: false }
    }

    /// The next question is asked on a new connection.
    pub(super) fn renew(&mut self) {
        self.own = None;
    }

    /// Ends the monitor's own connection, if there is one, and waits until the server has ended it too.
    pub(super) async fn close(&mut self) {
        let Some(mut server) = self.own.take() else { return };
        self.prepared.clear();
        let end = async {
            let mut out = bytes::BytesMut::new();
            crate::wire::frontend::frame(&mut out, b'X', |_| {});
            server.stream.write_all_buf(&mut out).await?;
            server.stream.flush().await?;
            while server.stream.read_buf(&mut out).await? > 0 {
                out.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        // It is closed in any case.
        let _ = crate::net::timeout(GOODBYE, end).await;
    }

    /// Puts `queries` to `node`, one after the other, and waits for `limit` at most. If that is dropped before its end, or
    /// takes too long, the connection is closed.
    pub(super) async fn ask(
        &mut self,
        source: &dyn Source,
        node: &Arc<Node>,
        dbname: Option<&str>,
        queries: &[&str],
        limit: Duration,
    ) -> Asked {
        let deadline = tokio::time::Instant::now() + limit;
        let own = self.ask_as_itself(source, node, dbname, queries);
        let mut unable = match crate::net::timeout_at(deadline, own).await {
            Ok(Asked::Unable(why)) => why,
            Ok(asked) => return asked,
            Err(_) => return timed_out(limit),
        };
        for pool in source.lenders(node, dbname) {
            let checkout = pool.checkout(self.worker, Wish::ANY);
            tokio::pin!(checkout);
            let lent = tokio::select! {
                lent = &mut checkout => lent,
                () = crate::net::sleep_until(deadline) => {
                    // Still in the queue, this one included: all its connections are in use, and the node is not to blame.
                    if pool.counts().waiting > 0 {
                        return Asked::Unable(format!("no client's connection became free within {limit:?}"));
                    }
                    return timed_out(limit);
                }
            };
            match lent {
                Ok(mut lent) => {
                    let server = &mut *lent;
                    let put = put(&mut server.stream, &mut server.upstream, queries, true);
                    match crate::net::timeout_at(deadline, put).await {
                        Err(_) => return timed_out(limit),
                        Ok(Ok(answers)) => {
                            lent.give_back();
                            return Asked::Answers(answers);
                        }
                        Ok(Err(Broken::Io(error))) => return Asked::Failed(Failure::Lost, error.to_string()),
                        Ok(Err(Broken::Protocol(error))) => unable = error.to_string(),
                        Ok(Err(Broken::Refused(why))) => unable = why,
                    }
                }
                Err(CheckoutError::Connect(error)) if dbname.is_some() && no_database(&error) => {
                    return Asked::NoDatabase;
                }
                Err(CheckoutError::Connect(error)) => match Failure::of(&error) {
                    Some(failure) => return Asked::Failed(failure, error.to_string()),
                    None => unable = error.to_string(),
                },
                Err(error) => unable = error.to_string(),
            }
        }
        Asked::Unable(unable)
    }

    /// On a connection of the monitor's account.
    async fn ask_as_itself(
        &mut self,
        source: &dyn Source,
        node: &Arc<Node>,
        dbname: Option<&str>,
        queries: &[&str],
    ) -> Asked {
        let mut server = match self.own(source, node, dbname).await {
            Some(Ok(server)) => server,
            None => return Asked::Unable("nobody has logged in yet, and there is no monitor account".to_owned()),
            Some(Err(error)) => {
                if let Some(failure) = Failure::of(&error) {
                    return Asked::Failed(failure, error.to_string());
                }
                if dbname.is_some() && no_database(&error) {
                    return Asked::NoDatabase;
                }
                // In a client's database the account may well have no right to connect.
                if dbname.is_none() && !std::mem::replace(&mut self.warned, true) {
                    let cluster = source.name();
                    tracing::warn!(cluster, %error, "the monitor's account cannot log in; probes borrow clients' connections");
                }
                return Asked::Unable(error.to_string());
            }
        };
        let queries: Vec<String> = queries.iter().map(|query| self.execute(query)).collect();
        let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
        match put(&mut server.stream, &mut server.upstream, &queries, false).await {
            Ok(answers) => {
                self.own = Some(server);
                Asked::Answers(answers)
            }
            Err(Broken::Io(error)) => Asked::Failed(Failure::Lost, error.to_string()),
            Err(Broken::Protocol(error)) => Asked::Unable(error.to_string()),
            Err(Broken::Refused(why)) => Asked::Unable(why),
        }
    }

    /// The monitor's own connection, opened if need be. `None`: it has no account.
    async fn own(
        &mut self,
        source: &dyn Source,
        node: &Node,
        dbname: Option<&str>,
    ) -> Option<Result<Server, ConnectError>> {
        if let Some(server) = self.own.take() {
            return Some(Ok(server));
        }
        self.prepared.clear();
        let connector = source.connector(node, dbname)?;
        Some(connector.connect(self.worker, 0).await)
    }

    /// The text that runs `query` on the monitor's own connection, prepared there if it is not yet. Should that fail, the
    /// connection goes, and what is prepared with it.
    fn execute(&mut self, query: &str) -> String {
        if let Some(number) = self.prepared.iter().position(|known| **known == *query) {
            return format!("EXECUTE p{number}");
        }
        let number = self.prepared.len();
        self.prepared.push(query.into());
        // To compile what reads a catalogue takes a hundred times as long as to run it.
        let first = if number == 0 { format!("SET jit = off; SET {SEARCH_PATH}; ") } else { String::new() };
        format!("{first}PREPARE p{number} AS {query}; EXECUTE p{number}")
    }

    /// Waits until the monitor's own connection ends, for ever if there is none. `None`: the server ended it in order.
    /// Cancel-safe.
    pub(super) async fn lost(&mut self) -> Option<Failure> {
        let Some(server) = &mut self.own else { return std::future::pending().await };
        loop {
            let input = &mut server.upstream.input;
            input.reserve(1024);
            match server.stream.read_buf(input).await {
                Ok(read) if read > 0 => {}
                _ => {
                    let in_order = input.first() == Some(&b'E');
                    self.own = None;
                    return (!in_order).then_some(Failure::Lost);
                }
            }
        }
    }
}

fn no_database(error: &ConnectError) -> bool {
    error.refused().is_some_and(|fields| fields.sqlstate == "3D000")
}

fn timed_out(limit: Duration) -> Asked {
    Asked::Failed(Failure::TimedOut, format!("no answer within {limit:?}"))
}

/// Puts queries to a server and awaits the answers. `borrowed`: the settings of its session may be anything.
async fn put(
    stream: &mut Stream,
    upstream: &mut Upstream,
    queries: &[&str],
    borrowed: bool,
) -> Result<Vec<Answer>, Broken> {
    let mut answers = Vec::with_capacity(queries.len());
    let mut text = String::new();
    for query in queries {
        text.clear();
        // Writing to a string does not fail.
        let _ = if borrowed {
            write!(text, "{PLAIN_BEGIN}; SET LOCAL {SEARCH_PATH}; {query}; {PLAIN_END}")
        } else {
            write!(text, "{query}")
        };
        let answer = exchange(stream, upstream, &text).await?;
        if let Some(error) = &answer.error {
            let fields = error_fields(error);
            return Err(Broken::Refused(format!("{} ({})", fields.message, fields.sqlstate)));
        }
        answers.push(answer);
    }
    Ok(answers)
}

async fn exchange(stream: &mut Stream, upstream: &mut Upstream, sql: &str) -> Result<Answer, Broken> {
    let mut private = Private::query(upstream, sql);
    stream.write_all_buf(&mut upstream.output).await.map_err(Broken::Io)?;
    stream.flush().await.map_err(Broken::Io)?;
    loop {
        if let Some(answer) = private.advance(upstream).map_err(Broken::Protocol)? {
            return Ok(answer);
        }
        upstream.input.reserve(8192);
        if stream.read_buf(&mut upstream.input).await.map_err(Broken::Io)? == 0 {
            return Err(Broken::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
