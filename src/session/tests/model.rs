//! A small model of PostgreSQL's side of the protocol, for the simulation.
//!
//! Invariant: what is modelled follows `postgres.c`: when messages are skipped, what ends a transaction, when prepared
//! statements, portals and settings live and die, what is flushed when.
//!
//! Deliberately absent: tables, types, locks, everything that the protocol does not show; what texts mean (`command`) and what
//! running them does (`run`).

mod command;
mod run;

use std::collections::{BTreeMap, HashMap};

use bytes::{Buf, BufMut, BytesMut};

use super::rng::Rng;
use crate::wire::frame::{HEADER_LEN, frontend_header};
use crate::wire::{TransactionStatus, backend, frontend};
use command::{Command, Done, Failure, commands};
use run::row_description;

#[derive(Debug, Clone)]
struct Statement {
    command: Option<Command>,
    sql: bool,
}

#[derive(Debug, Clone)]
struct Portal {
    command: Option<Command>,
    values: Vec<u8>,
    sent: usize,
    /// How many savepoints stood when it was made.
    depth: usize,
}

/// Settings as they were, and those that SET LOCAL will bring back.
#[derive(Debug, Clone, Default)]
struct Values {
    set: BTreeMap<String, String>,
    before_local: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Block {
    None,
    /// Of a query string or a pipeline.
    Implicit,
    Explicit,
    Failed,
}

struct CopyIn {
    rows: usize,
    rest: Option<Vec<Command>>,
}

/// One server process.
pub(super) struct Model {
    pub(super) input: BytesMut,
    /// What the client may read.
    pub(super) output: BytesMut,
    pending: BytesMut,
    rng: Rng,
    statements: HashMap<Vec<u8>, Statement>,
    portals: HashMap<Vec<u8>, Portal>,
    values: Values,
    at_begin: Values,
    savepoints: Vec<(String, Values)>,
    block: Block,
    pipelined: bool,
    /// A query string of several commands runs.
    several: bool,
    skipping: bool,
    copy: Option<CopyIn>,
    reported: Option<String>,
    ever: std::collections::BTreeSet<String>,
    /// The connection was told to end.
    pub(super) ended: bool,
    /// Query strings and Executes that ran.
    pub(super) ran: usize,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            pending: BytesMut::new(),
            rng: Rng::new(seed),
            statements: HashMap::new(),
            portals: HashMap::new(),
            values: Values::default(),
            at_begin: Values::default(),
            savepoints: Vec::new(),
            block: Block::None,
            pipelined: false,
            several: false,
            skipping: false,
            copy: None,
            reported: None,
            ever: std::collections::BTreeSet::new(),
            ended: false,
            ran: 0,
        }
    }

    /// Handles every whole message that has arrived.
    pub(super) fn run(&mut self) {
        while !self.ended {
            let Some(header) = frontend_header(&self.input).expect("the gateway sends frames") else { return };
            if self.input.len() < header.len {
                return;
            }
            let frame = self.input.split_to(header.len);
            self.message(header.tag, &frame);
            if self.rng.one_in(8) {
                self.flush();
            }
        }
    }

    /// Whether it waits for COPY data.
    pub(super) fn copying(&self) -> bool {
        self.copy.is_some()
    }

    fn flush(&mut self) {
        self.output.extend_from_slice(&self.pending);
        self.pending.clear();
    }

    fn message(&mut self, tag: u8, frame: &[u8]) {
        if self.copy.is_some() {
            return self.copy_message(tag, frame);
        }
        if self.rng.one_in(12) {
            backend::write_error(&mut self.pending, b'N', "NOTICE", "00000", "by the way", &[]);
        }
        if self.skipping && !matches!(tag, b'S' | b'X') {
            return;
        }
        let result = match tag {
            b'Q' => {
                self.statements.remove(&b""[..]);
                let text = String::from_utf8_lossy(frontend::query(frame).expect("a Query")).into_owned();
                self.ran += 1;
                match commands(&text) {
                    // An error in the grammar comes before anything runs.
                    Err(failure) => self.fail(&failure),
                    Ok(list) if list.is_empty() => backend::write_bare(&mut self.pending, b'I'),
                    Ok(list) => return self.simple(list),
                }
                self.end_implicit();
                return self.ready();
            }
            b'F' => {
                let failed = frame.get(HEADER_LEN) == Some(&1);
                if self.block == Block::Failed {
                    self.fail(&Failure("25P02"));
                } else if failed {
                    self.fail(&Failure("42883"));
                } else {
                    frontend::frame(&mut self.pending, b'V', |out| out.put_i32(-1));
                }
                self.end_implicit();
                return self.ready();
            }
            b'P' => self.parse(frame),
            b'B' => self.bind(frame),
            b'D' => self.describe(frame),
            b'E' => self.execute(frame),
            b'C' => {
                let target = frontend::target(frame).expect("a Close");
                if target.kind == b'S' {
                    self.statements.remove(target.name);
                } else {
                    self.portals.remove(target.name);
                }
                backend::write_bare(&mut self.pending, b'3');
                Ok(())
            }
            b'H' => {
                self.flush();
                Ok(())
            }
            b'S' => {
                self.skipping = false;
                self.end_implicit();
                return self.ready();
            }
            b'X' => {
                self.ended = true;
                Ok(())
            }
            b'd' | b'c' | b'f' => Ok(()),
            other => panic!("message {other:?}"),
        };
        if let Err(failure) = result {
            self.fail(&failure);
            self.skipping = true;
        }
    }

    fn ready(&mut self) {
        self.pipelined = false;
        self.several = false;
        let name = self.values.set.get("application_name").cloned();
        if name != self.reported {
            backend::write_parameter_status(
                &mut self.pending,
                b"application_name",
                name.clone().unwrap_or_default().as_bytes(),
            );
            self.reported = name;
        }
        let status = match self.block {
            Block::None | Block::Implicit => TransactionStatus::Idle,
            Block::Explicit => TransactionStatus::Active,
            Block::Failed => TransactionStatus::Failed,
        };
        backend::write_ready(&mut self.pending, status);
        self.flush();
    }

    fn fail(&mut self, failure: &Failure) {
        backend::write_error(&mut self.pending, b'E', "ERROR", failure.0, "it failed", &[]);
        self.flush();
        match self.block {
            Block::Explicit => {
                // What was set is rolled back now, not when the client says ROLLBACK.
                self.block = Block::Failed;
                self.values = self.savepoints.last().map_or(&self.at_begin, |(_, values)| values).clone();
            }
            Block::Implicit => self.abort(),
            Block::None | Block::Failed => {}
        }
        if self.block == Block::None {
            self.portals.clear();
        }
    }

    fn begin_implicit(&mut self) {
        if self.block == Block::None {
            self.block = Block::Implicit;
            self.at_begin = self.values.clone();
        }
    }

    fn end_implicit(&mut self) {
        if self.block == Block::Implicit {
            self.commit();
        }
        if self.block == Block::None {
            self.portals.clear();
        }
    }

    fn commit(&mut self) {
        for (name, value) in std::mem::take(&mut self.values.before_local) {
            match value {
                Some(value) => self.values.set.insert(name, value),
                None => self.values.set.remove(&name),
            };
        }
        self.finish();
    }

    fn abort(&mut self) {
        self.values = std::mem::take(&mut self.at_begin);
        self.finish();
    }

    fn finish(&mut self) {
        self.block = Block::None;
        self.savepoints.clear();
        self.portals.clear();
    }

    fn simple(&mut self, list: Vec<Command>) {
        let mut list = list.into_iter();
        self.several |= list.len() > 1;
        while let Some(command) = list.next() {
            self.pipelined = self.several;
            let copies = matches!(command, Command::CopyIn);
            let result = self.allowed(&command).and_then(|()| {
                self.begin_implicit();
                if !matches!(command, Command::Fails(_)) {
                    // What passes parse analysis gets the unnamed portal.
                    self.portals.remove(&b""[..]);
                }
                if let Some(rows) = self.description(&command) {
                    row_description(&mut self.pending, rows);
                }
                self.run_command(&command, b"", usize::MAX, &mut 0).map(|_| ())
            });
            if let Err(failure) = result {
                self.fail(&failure);
                return self.ready();
            }
            if copies {
                self.copy = Some(CopyIn { rows: 0, rest: Some(list.collect()) });
                return;
            }
        }
        self.end_implicit();
        self.ready();
    }

    fn copy_message(&mut self, tag: u8, _: &[u8]) {
        let Some(mut copy) = self.copy.take() else { return };
        match tag {
            b'd' => copy.rows += 1,
            b'S' | b'H' => {}
            b'c' => {
                backend::write_complete(&mut self.pending, &format!("COPY {}", copy.rows));
                match copy.rest {
                    Some(rest) if rest.is_empty() => {
                        self.end_implicit();
                        self.ready();
                    }
                    Some(rest) => self.simple(rest),
                    None => {}
                }
                return;
            }
            b'f' => {
                self.fail(&Failure("57014"));
                if copy.rest.is_some() {
                    self.ready();
                } else {
                    self.skipping = true;
                }
                return;
            }
            other => panic!("message {:?} during COPY", char::from(other)),
        }
        self.copy = Some(copy);
    }

    fn parse(&mut self, frame: &[u8]) -> Done {
        let parse = frontend::parse(frame).expect("a Parse");
        if parse.name.is_empty() {
            self.statements.remove(&b""[..]);
        }
        let mut list = commands(&String::from_utf8_lossy(parse.text))?;
        if list.len() > 1 {
            return Err(Failure("42601"));
        }
        let command = list.pop();
        if let Some(command) = &command {
            self.allowed(command)?;
        }
        if let Some(Command::Fails(state)) = command {
            return Err(Failure(state));
        }
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            return Err(Failure("42P05"));
        }
        self.begin_implicit();
        self.statements.insert(parse.name.into(), Statement { command, sql: false });
        backend::write_bare(&mut self.pending, b'1');
        Ok(())
    }

    fn bind(&mut self, frame: &[u8]) -> Done {
        let bind = frontend::bind(frame).expect("a Bind");
        let statement = self.statements.get(bind.statement).cloned().ok_or(self.missing("26000"))?;
        let mut rest = bind.rest;
        assert_eq!(rest.get_u16(), 0, "formats");
        let count = rest.get_u16();
        let wanted = u16::from(statement.command == Some(Command::Echo));
        if count != wanted {
            return Err(self.missing("08P01"));
        }
        let mut values = Vec::new();
        if count == 1 {
            let length = rest.get_i32() as usize;
            values = rest[..length].to_vec();
            rest.advance(length);
        }
        assert_eq!(rest, [0, 0], "result formats");
        if self.block == Block::Failed && (count > 0 || statement.command.is_none()) {
            return Err(Failure("25P02"));
        }
        if let Some(command) = &statement.command {
            self.allowed(command)?;
        }
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            return Err(Failure("42P03"));
        }
        self.begin_implicit();
        self.portals.insert(
            bind.portal.into(),
            Portal { command: statement.command, values, sent: 0, depth: self.savepoints.len() },
        );
        backend::write_bare(&mut self.pending, b'2');
        Ok(())
    }

    fn describe(&mut self, frame: &[u8]) -> Done {
        let target = frontend::target(frame).expect("a Describe");
        let command = if target.kind == b'S' {
            self.statements.get(target.name).ok_or(self.missing("26000"))?.command.clone()
        } else {
            self.portals.get(target.name).ok_or(self.missing("34000"))?.command.clone()
        };
        if let Some(command) = &command {
            // PostgreSQL refuses only what has columns. The gateway may have to prepare the statement first, on a server that
            // has not seen it, and there that is refused whatever it is.
            self.allowed(command)?;
        }
        if target.kind == b'S' {
            let count = u16::from(command == Some(Command::Echo));
            frontend::frame(&mut self.pending, b't', |out| {
                out.put_u16(count);
                for _ in 0..count {
                    out.put_u32(25);
                }
            });
        }
        match command.and_then(|command| self.description(&command)) {
            Some(columns) => row_description(&mut self.pending, columns),
            None => backend::write_bare(&mut self.pending, b'n'),
        }
        Ok(())
    }

    fn execute(&mut self, frame: &[u8]) -> Done {
        let end = frame.len() - 4;
        let name = &frame[HEADER_LEN..end - 1];
        let limit = i32::from_be_bytes(frame[end..].try_into().expect("four bytes"));
        let limit = if limit <= 0 { usize::MAX } else { limit as usize };
        let mut portal = self.portals.get(name).cloned().ok_or(self.missing("34000"))?;
        self.ran += 1;
        let Some(command) = portal.command.clone() else {
            backend::write_bare(&mut self.pending, b'I');
            return Ok(());
        };
        self.allowed(&command)?;
        let rows = matches!(command, Command::Rows(_) | Command::Echo | Command::Show(_));
        self.begin_implicit();
        let values = std::mem::take(&mut portal.values);
        let suspended = self.run_command(&command, &values, limit, &mut portal.sent)?;
        portal.values = values;
        self.pipelined = true;
        if suspended {
            backend::write_bare(&mut self.pending, b's');
        }
        if !rows {
            // On a server it stays until the transaction ends and cannot be run again. That it cannot is what is modelled: the
            // gateway may have run it by itself, and then another SQLSTATE says so.
            self.portals.remove(name);
        } else if let Some(held) = self.portals.get_mut(name) {
            *held = portal;
        }
        if matches!(command, Command::CopyIn) {
            self.copy = Some(CopyIn { rows: 0, rest: None });
        }
        Ok(())
    }

    /// What is wrong with a name or a count. In a failed block PostgreSQL looks at these first; the gateway, which may have
    /// refused the block's first statement by itself, does not know them, and one error is as good as another there.
    fn missing(&self, state: &'static str) -> Failure {
        Failure(if self.block == Block::Failed { "25P02" } else { state })
    }

    /// In a failed block only its end is allowed.
    fn allowed(&self, command: &Command) -> Done {
        match command {
            Command::Commit | Command::Rollback | Command::RollbackTo(_) => Ok(()),
            _ if self.block == Block::Failed => Err(Failure("25P02")),
            _ => Ok(()),
        }
    }

    fn description(&self, command: &Command) -> Option<u16> {
        match command {
            Command::Rows(_) | Command::Echo | Command::Show(_) | Command::FailsAtExecute => Some(1),
            Command::AuditPins => Some(1),
            Command::AuditNamed(_) | Command::AuditAll | Command::AuditRole => Some(3),
            Command::Execute(name) => self.statements.get(name.as_bytes()).map(|_| 1),
            _ => None,
        }
    }
}
