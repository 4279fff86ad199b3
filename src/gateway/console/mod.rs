//! The console: a database of the gateway's own name that shows what goes on, for psql, drivers and dashboards.
//!
//! Invariant: it only reads, and no session waits for it but for the moment that its own state is read. It costs sessions
//! nothing but what they publish anyway.
//!
//! Who may come: processes of the gateway's own user, or root's, through its Unix socket, under any name; and the users of
//! [console.users], by their passwords. Nobody else.
//!
//! Deliberately absent: commands; what the tables hold (`tables`), how they are written (`command`).

mod command;
mod stats;
mod tables;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::cancel::Handle;
use super::context::Context;
use super::greet::{Greeted, Refused};
use super::{io, login};
use crate::net::{Peer, Stream};
use crate::upstream::{ErrorReply, Parameters};
use crate::wire::frame::{HEADER_LEN, Malformed};
use crate::wire::startup::Startup;
use crate::wire::{TransactionStatus, backend, frontend};
use command::Command;

/// The names that clients ask for. A database that the configuration lists under one of them goes before.
const NAMES: [&str; 2] = ["pointsman", "pgbouncer"];

/// Longest message of a client's, in bytes.
const LONGEST: usize = 64 << 10;

/// Most statements, and most portals, of one client.
const MOST: usize = 64;

/// Rows are sent when they take so many bytes.
const CHUNK: usize = 64 << 10;

/// Whether a client asks for the console.
pub(super) fn wanted(startup: &Startup, context: &Context) -> bool {
    let user = startup.parameter("user").unwrap_or_default();
    let database = startup.parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
    NAMES.contains(&database) && !context.live.load().config.databases.contains_key(database)
}

/// Lets a client in; what it is told in ParameterStatus.
pub(super) async fn open(
    greeted: &mut Greeted,
    context: &Context,
    out: &mut BytesMut,
) -> Result<Arc<Parameters>, Refused> {
    let user = greeted.startup.parameter("user").unwrap_or_default().to_owned();
    let own = rustix::process::geteuid().as_raw();
    let live = context.live.load_full();
    if matches!(greeted.stream.peer(), Peer::UnixClient { uid, .. } if *uid == own || *uid == 0) {
        login::trust(greeted, context, out).await?;
    } else if live.console_users.is_empty() {
        return Err(ErrorReply::fatal("28000", format!("user \"{user}\" may not use the console"))
            .hint("Name the user, with a password, under [console.users]; or come through the gateway's Unix socket as its own system user. If a database of that name is meant, list it under [databases].")
            .into());
    } else {
        login::prove(greeted, context, live.console_users.get(&user), out).await?;
    }
    tracing::info!(session = greeted.id, user, peer = %greeted.stream.peer(), "a console session begins");
    let mut reported = Parameters::default();
    let version = concat!(env!("CARGO_PKG_VERSION"), "/pointsman");
    for (name, value) in [
        ("server_version", version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        reported.set(name.as_bytes(), value.as_bytes());
    }
    Ok(Arc::new(reported))
}

/// Serves a console client to its end.
pub(super) async fn serve(mut stream: Stream, mut input: BytesMut, context: &Arc<Context>, handle: &Handle) {
    let mut talk = Talk::new(context);
    let mut drain = context.on_drain();
    loop {
        let served = tokio::select! {
            served = talk.message(&mut stream, &mut input) => served,
            // The sender lives as long as the context.
            _ = drain.wait_for(|drain| *drain) => {
                Err(Some(ErrorReply::fatal("57P01", "terminating connection due to administrator command")))
            }
        };
        handle.shows(talk.status);
        match served {
            Ok(()) => {}
            Err(reply) => {
                if let Some(reply) = reply {
                    reply.write(&mut talk.out);
                    // It may be gone already.
                    let _ = crate::net::timeout(super::settle::FINISH, io::write(&mut stream, &mut talk.out)).await;
                }
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
                return;
            }
        }
    }
}

/// A portal: what it shows, and in which formats.
type Portal = (Command, Vec<u16>);

/// One client's side of the protocol.
struct Talk {
    context: Arc<Context>,
    status: TransactionStatus,
    /// An extended message failed: what follows is left out up to the Sync.
    skips: bool,
    statements: HashMap<Bytes, Command>,
    portals: HashMap<Bytes, Portal>,
    out: BytesMut,
}

/// Why the conversation ends: with a last word or without.
type Ended = Option<ErrorReply>;

impl Talk {
    fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            status: TransactionStatus::Idle,
            skips: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            out: BytesMut::new(),
        }
    }

    /// Reads one message and answers it.
    async fn message(&mut self, stream: &mut Stream, input: &mut BytesMut) -> Result<(), Ended> {
        let length = loop {
            if let Some(head) = input.get(1..HEADER_LEN) {
                let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
                if !(4..LONGEST).contains(&length) {
                    return Err(Some(ErrorReply::fatal("08P01", "invalid message length")));
                }
                if input.len() > length {
                    break length + 1;
                }
            }
            io::read(stream, input).await.map_err(|_| None)?;
        };
        let frame = input.split_to(length).freeze();
        let answered = match frame[0] {
            b'X' => return Err(None),
            b'S' => {
                self.skips = false;
                self.ready();
                Ok(())
            }
            b'Q' => {
                self.skips = false;
                let answered = self.query(&frame, stream).await?;
                if let Err(reply) = answered {
                    self.fail(&reply);
                }
                self.ready();
                Ok(())
            }
            _ if self.skips => Ok(()),
            b'P' => self.parse(&frame),
            b'B' => self.bind(&frame),
            b'D' => self.describe(&frame),
            b'E' => self.execute(&frame, stream).await?,
            b'C' => self.close(&frame),
            b'H' => Ok(()),
            other => {
                return Err(Some(ErrorReply::fatal("08P01", format!("invalid frontend message type {other}"))));
            }
        };
        if let Err(reply) = answered {
            self.skips = true;
            self.fail(&reply);
        }
        // Groups are short here: what is answered is sent.
        if matches!(frame[0], b'S' | b'Q' | b'H') || self.out.len() >= CHUNK {
            io::write(stream, &mut self.out).await.map_err(|_| None)?;
        }
        Ok(())
    }

    fn ready(&mut self) {
        // An implicit transaction's portals end with it.
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        backend::write_ready(&mut self.out, self.status);
    }

    fn fail(&mut self, reply: &ErrorReply) {
        if self.status == TransactionStatus::Active {
            self.status = TransactionStatus::Failed;
        }
        reply.write(&mut self.out);
    }

    async fn query(&mut self, frame: &[u8], stream: &mut Stream) -> Result<Result<(), ErrorReply>, Ended> {
        let text = match frontend::query(frame) {
            Ok(text) => String::from_utf8_lossy(text).into_owned(),
            Err(error) => return Ok(Err(malformed(&error))),
        };
        let statements = command::statements(&text);
        for statement in &statements {
            let command = match command::read(statement) {
                Ok(Command::Empty) if statements.len() > 1 => continue,
                Ok(command) => command,
                Err(reply) => return Ok(Err(reply)),
            };
            if let Err(reply) = self.permitted(command) {
                return Ok(Err(reply));
            }
            if let Command::Show(show) = command {
                command::write_description(&mut self.out, tables::columns(show), &[]);
            }
            if let Err(reply) = self.run(command, &[], stream).await? {
                return Ok(Err(reply));
            }
        }
        Ok(Ok(()))
    }

    /// In a failed transaction nothing is known but its end.
    fn permitted(&self, command: Command) -> Result<(), ErrorReply> {
        let ends = matches!(command, Command::Commit | Command::Rollback | Command::Empty);
        if self.status == TransactionStatus::Failed && !ends {
            let words = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(ErrorReply::error("25P02", words));
        }
        Ok(())
    }

    /// Runs a command up to its CommandComplete.
    async fn run(
        &mut self,
        command: Command,
        formats: &[u16],
        stream: &mut Stream,
    ) -> Result<Result<(), ErrorReply>, Ended> {
        if let Err(reply) = self.permitted(command) {
            return Ok(Err(reply));
        }
        let tag = match command {
            Command::Empty => {
                backend::write_bare(&mut self.out, b'I');
                return Ok(Ok(()));
            }
            Command::Show(show) => {
                for row in tables::rows(show, &self.context) {
                    command::write_row(&mut self.out, &row, formats);
                    if self.out.len() >= CHUNK {
                        io::write(stream, &mut self.out).await.map_err(|_| None)?;
                    }
                }
                "SHOW"
            }
            Command::Begin => {
                self.status = TransactionStatus::Active;
                "BEGIN"
            }
            Command::Commit if self.status != TransactionStatus::Failed => {
                self.status = TransactionStatus::Idle;
                "COMMIT"
            }
            Command::Commit | Command::Rollback => {
                self.status = TransactionStatus::Idle;
                "ROLLBACK"
            }
            Command::Deallocate(tag) => {
                self.statements.clear();
                tag
            }
            Command::Ignored(tag) => tag,
        };
        backend::write_complete(&mut self.out, tag);
        Ok(Ok(()))
    }

    fn parse(&mut self, frame: &[u8]) -> Result<(), ErrorReply> {
        let parse = frontend::parse(frame).map_err(|error| malformed(&error))?;
        let text = String::from_utf8_lossy(parse.text);
        let command = match &command::statements(&text)[..] {
            [one] => command::read(one)?,
            _ => {
                let words = "cannot insert multiple commands into a prepared statement";
                return Err(ErrorReply::error("42601", words));
            }
        };
        self.permitted(command)?;
        let name = Bytes::copy_from_slice(parse.name);
        if !name.is_empty() && self.statements.contains_key(&name) {
            let words = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(&name));
            return Err(ErrorReply::error("42P05", words));
        }
        bounded(&self.statements, &name)?;
        self.statements.insert(name, command);
        backend::write_bare(&mut self.out, b'1');
        Ok(())
    }

    fn bind(&mut self, frame: &[u8]) -> Result<(), ErrorReply> {
        let bind = frontend::bind(frame).map_err(|error| malformed(&error))?;
        let command = *self.statements.get(bind.statement).ok_or_else(|| no_statement(bind.statement))?;
        self.permitted(command)?;
        let formats = result_formats(bind.rest, command)?;
        let portal = Bytes::copy_from_slice(bind.portal);
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            let words = format!("cursor \"{}\" already exists", String::from_utf8_lossy(&portal));
            return Err(ErrorReply::error("42P03", words));
        }
        bounded(&self.portals, &portal)?;
        self.portals.insert(portal, (command, formats));
        backend::write_bare(&mut self.out, b'2');
        Ok(())
    }

    fn describe(&mut self, frame: &[u8]) -> Result<(), ErrorReply> {
        let target = frontend::target(frame).map_err(|error| malformed(&error))?;
        let (command, formats) = if target.kind == b'S' {
            let command = self.statements.get(target.name).ok_or_else(|| no_statement(target.name))?;
            (*command, &[][..])
        } else {
            let (command, formats) = self.portals.get(target.name).ok_or_else(|| no_portal(target.name))?;
            (*command, &formats[..])
        };
        if matches!(command, Command::Show(_)) {
            self.permitted(command)?;
        }
        if target.kind == b'S' {
            // ParameterDescription: there are none.
            frontend::frame(&mut self.out, b't', |out| out.put_u16(0));
        }
        match command {
            Command::Show(show) => command::write_description(&mut self.out, tables::columns(show), formats),
            _ => backend::write_bare(&mut self.out, b'n'),
        }
        Ok(())
    }

    /// The limit on rows is not heeded: all come at once.
    async fn execute(&mut self, frame: &[u8], stream: &mut Stream) -> Result<Result<(), ErrorReply>, Ended> {
        let body = &frame[HEADER_LEN..];
        let Some(end) = body.iter().position(|byte| *byte == 0) else {
            return Ok(Err(malformed(&Malformed::Body("Execute"))));
        };
        let Some((command, formats)) = self.portals.get(&body[..end]).cloned() else {
            return Ok(Err(no_portal(&body[..end])));
        };
        self.run(command, &formats, stream).await
    }

    fn close(&mut self, frame: &[u8]) -> Result<(), ErrorReply> {
        let target = frontend::target(frame).map_err(|error| malformed(&error))?;
        if target.kind == b'S' {
            self.statements.remove(target.name);
        } else {
            self.portals.remove(target.name);
        }
        backend::write_bare(&mut self.out, b'3');
        Ok(())
    }
}

fn malformed(error: &Malformed) -> ErrorReply {
    ErrorReply::error("08P01", error.to_string())
}

fn no_statement(name: &[u8]) -> ErrorReply {
    ErrorReply::error("26000", format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn no_portal(name: &[u8]) -> ErrorReply {
    ErrorReply::error("34000", format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn bounded<T>(named: &HashMap<Bytes, T>, name: &Bytes) -> Result<(), ErrorReply> {
    if named.len() < MOST || named.contains_key(name) {
        return Ok(());
    }
    Err(ErrorReply::error("53400", format!("the console keeps {MOST} statements and portals for a client, no more")))
}

/// The result formats of a Bind, behind its parameters, of which no command has any. Errors as PostgreSQL tells them
/// (`exec_bind_message`, `PortalSetResultFormat`, `printtup_prepare_info`).
fn result_formats(rest: &[u8], command: Command) -> Result<Vec<u16>, ErrorReply> {
    let Some((formats, values, results)) = bind_counts(rest) else { return Err(malformed(&Malformed::Body("Bind"))) };
    let violation = |words: String| Err(ErrorReply::error("08P01", words));
    if formats > 1 && formats != values {
        return violation(format!("bind message has {formats} parameter formats but {values} parameters"));
    }
    if values > 0 {
        return violation(format!("bind message supplies {values} parameters, but the statement requires 0"));
    }
    let Command::Show(show) = command else { return Ok(results) };
    let columns = tables::columns(show).len();
    if results.len() > 1 && results.len() != columns {
        let count = results.len();
        return violation(format!("bind message has {count} result formats but query has {columns} columns"));
    }
    match results.iter().find(|format| **format > 1) {
        Some(format) => Err(ErrorReply::error("22023", format!("unsupported format code: {format}"))),
        None => Ok(results),
    }
}

/// How many parameter formats and parameters a Bind has, and its result formats.
fn bind_counts(rest: &[u8]) -> Option<(u16, u16, Vec<u16>)> {
    fn word(bytes: &[u8]) -> Option<(u16, &[u8])> {
        let (word, rest) = bytes.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*word), rest))
    }
    let (formats, rest) = word(rest)?;
    let (values, mut rest) = word(rest.get(2 * usize::from(formats)..)?)?;
    for _ in 0..values {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail.get(usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0)..)?;
    }
    let (count, rest) = word(rest)?;
    let results: Vec<u16> = rest.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
    (results.len() == usize::from(count) && rest.len() == 2 * results.len()).then_some((formats, values, results))
}

/// What the console says it knows.
fn help() -> impl Iterator<Item = (&'static str, &'static str)> {
    command::TABLES.iter().map(|(name, _, what)| (*name, *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_formats_stand_behind_the_parameters() {
        let version = Command::Show(command::Show::Version);
        let lists = Command::Show(command::Show::Lists);
        for (rest, command, expected) in [
            (&[0, 0, 0, 0, 0, 0][..], version, Ok(vec![])),
            (&[0, 0, 0, 0, 0, 1, 0, 1], version, Ok(vec![1])),
            (&[0, 1, 0, 1, 0, 0, 0, 1, 0, 0], version, Ok(vec![0])),
            (&[0, 0, 0, 0, 0, 2, 0, 0, 0, 1], lists, Ok(vec![0, 1])),
            (&[0, 0, 0, 0, 0, 2, 0, 0, 0, 1], version, Err("08P01")),
            (&[0, 0, 0, 0, 0, 2, 0, 0, 0, 2], lists, Err("22023")),
            (&[0, 0, 0, 0, 0, 1, 255, 255], lists, Err("22023")),
            (&[0, 0, 0, 0, 0, 2, 0, 7, 0, 7], Command::Begin, Ok(vec![7, 7])),
            // Parameters.
            (&[0, 1, 0, 1, 0, 2, 0, 0, 0, 1, b'x', 255, 255, 255, 255, 0, 1, 0, 1], version, Err("08P01")),
            (&[0, 2, 0, 1, 0, 1, 0, 0, 0, 0], version, Err("08P01")),
            // Cut short, or too long.
            (&[0, 0, 0, 0, 0, 2, 0, 1], lists, Err("08P01")),
            (&[0, 0, 0, 1, 0, 0, 0, 9], version, Err("08P01")),
            (&[0, 0, 0, 0, 0, 0, 0], version, Err("08P01")),
            (&[0], version, Err("08P01")),
        ] {
            let told = result_formats(rest, command);
            let told = told.as_ref().map(Vec::as_slice).map_err(|reply| &*reply.sqlstate);
            assert_eq!(told, expected.as_deref().map_err(|code| *code), "{rest:?}");
        }
    }
}
