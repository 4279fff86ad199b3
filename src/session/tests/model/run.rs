//! What the commands of the simulation do to the model's server.
//!
//! Invariant: settings, statements and the transaction change as PostgreSQL changes them, rolled back or not.
//! Deliberately absent: messages and when they are answered (`model`).

use bytes::{BufMut, BytesMut};

use super::command::{Command, Failure, commands};
use super::{Block, Model, Statement, Values};
use crate::wire::{backend, frontend};

impl Model {
    /// Whether the portal was suspended.
    pub(super) fn run_command(
        &mut self,
        command: &Command,
        values: &[u8],
        limit: usize,
        sent: &mut usize,
    ) -> Result<bool, Failure> {
        let out = &mut self.pending;
        let tag = match command {
            Command::Rows(_) | Command::Echo | Command::Show(_) => {
                let (all, value) = match command {
                    Command::Rows(rows) => (*rows, None),
                    Command::Show(name) => {
                        (1, Some(self.values.set.get(name).cloned().unwrap_or_default().into_bytes()))
                    }
                    _ => (1, Some(values.to_vec())),
                };
                let upto = all.min(sent.saturating_add(limit));
                let first = *sent;
                for row in first..upto {
                    let text = value.clone().unwrap_or_else(|| row.to_string().into_bytes());
                    data_row(out, &[Some(&text)]);
                }
                *sent = upto;
                if upto - first == limit && limit > 0 {
                    return Ok(true);
                }
                if matches!(command, Command::Show(_)) { "SHOW".to_owned() } else { format!("SELECT {}", upto - first) }
            }
            Command::FailsAtExecute => return Err(Failure("22012")),
            Command::Fails(state) => return Err(Failure(state)),
            Command::Set { local, name, value } => {
                if *local {
                    if self.block == Block::Implicit && !self.several {
                        warning(out, "25P01");
                    }
                    let before = self.values.set.get(name).cloned();
                    self.values.before_local.entry(name.clone()).or_insert(before);
                } else {
                    self.values.before_local.remove(name);
                }
                self.values.set.insert(name.clone(), value.clone());
                self.ever.insert(name.clone());
                "SET".to_owned()
            }
            Command::Reset(name) => {
                self.values.before_local.remove(name);
                self.values.set.remove(name);
                "RESET".to_owned()
            }
            Command::ResetAll => {
                self.values = Values::default();
                "RESET".to_owned()
            }
            Command::Begin(tag) => {
                if self.block == Block::Explicit {
                    warning(out, "25001");
                }
                self.block = Block::Explicit;
                (*tag).to_owned()
            }
            Command::Commit => match self.block {
                Block::Implicit => {
                    warning(out, "25P01");
                    self.commit();
                    "COMMIT".to_owned()
                }
                Block::Failed => {
                    self.abort();
                    "ROLLBACK".to_owned()
                }
                _ => {
                    self.commit();
                    "COMMIT".to_owned()
                }
            },
            Command::Rollback => {
                if self.block == Block::Implicit {
                    warning(out, "25P01");
                }
                self.abort();
                "ROLLBACK".to_owned()
            }
            Command::Savepoint(_) | Command::RollbackTo(_) | Command::Release(_)
                if !matches!(self.block, Block::Explicit | Block::Failed) =>
            {
                return Err(Failure("25P01"));
            }
            Command::Savepoint(name) => {
                self.savepoints.push((name.clone(), self.values.clone()));
                "SAVEPOINT".to_owned()
            }
            Command::RollbackTo(name) => {
                let at = self.savepoint(name)?;
                self.savepoints.truncate(at + 1);
                self.values = self.savepoints[at].1.clone();
                self.block = Block::Explicit;
                self.portals.retain(|_, portal| portal.depth <= at);
                "ROLLBACK".to_owned()
            }
            Command::Release(name) => {
                let at = self.savepoint(name)?;
                self.savepoints.truncate(at);
                for portal in self.portals.values_mut() {
                    portal.depth = portal.depth.min(at);
                }
                "RELEASE".to_owned()
            }
            Command::CopyIn => {
                frontend::frame(out, b'G', |out| out.put_slice(&[0, 0, 1, 0, 0]));
                self.flush();
                return Ok(false);
            }
            Command::CopyOut(rows) => {
                frontend::frame(out, b'H', |out| out.put_slice(&[0, 0, 1, 0, 0]));
                for row in 0..*rows {
                    frontend::frame(out, b'd', |out| out.put_slice(format!("{row}\n").as_bytes()));
                }
                backend::write_bare(out, b'c');
                format!("COPY {rows}")
            }
            Command::Prepare(name, text) => {
                if self.statements.contains_key(name.as_bytes()) {
                    return Err(Failure("42P05"));
                }
                let command = commands(text)?.pop();
                self.statements.insert(name.clone().into_bytes(), Statement { command, sql: true });
                "PREPARE".to_owned()
            }
            Command::Execute(name) => {
                let statement = self.statements.get(name.as_bytes()).cloned().ok_or(Failure("26000"))?;
                let Some(command) = statement.command else { return Err(Failure("26000")) };
                return self.run_command(&command, values, limit, sent);
            }
            Command::Deallocate(name) => {
                self.statements.remove(name.as_bytes()).ok_or(Failure("26000"))?;
                "DEALLOCATE".to_owned()
            }
            Command::DeallocateAll => {
                self.statements.retain(|name, _| name.is_empty());
                "DEALLOCATE ALL".to_owned()
            }
            Command::DiscardAll => {
                if self.block == Block::Explicit || self.pipelined {
                    return Err(Failure("25001"));
                }
                self.statements.retain(|name, _| name.is_empty());
                self.values = Values::default();
                self.commit();
                "DISCARD ALL".to_owned()
            }
            Command::Unlisten => "UNLISTEN".to_owned(),
            Command::AuditPins => {
                let prepared = self.statements.values().any(|statement| statement.sql);
                data_row(out, &[Some(if prepared { b"p" } else { b"" })]);
                "SELECT 1".to_owned()
            }
            Command::AuditNamed(names) => {
                for name in names {
                    let value = self.values.set.get(name);
                    let known =
                        value.is_some() || matches!(name.as_str(), "application_name") || self.ever.contains(name);
                    let text = value.cloned().unwrap_or_default();
                    let source: Option<&[u8]> = match (name.as_str(), value) {
                        ("application_name", Some(_)) => Some(b"session"),
                        ("application_name", None) => Some(b"default"),
                        _ => None,
                    };
                    let hex = hex(&text);
                    data_row(out, &[Some(name.as_bytes()), known.then_some(hex.as_bytes()), source]);
                }
                format!("SELECT {}", names.len())
            }
            Command::AuditAll => {
                if let Some(value) = self.values.set.get("application_name") {
                    data_row(out, &[Some(b"application_name"), Some(hex(value).as_bytes()), Some(b"session")]);
                }
                "SELECT 1".to_owned()
            }
            Command::AuditRole => {
                data_row(out, &[Some(b"role"), Some(hex("none").as_bytes()), None]);
                "SELECT 1".to_owned()
            }
        };
        backend::write_complete(&mut self.pending, &tag);
        Ok(false)
    }

    pub(super) fn savepoint(&self, name: &str) -> Result<usize, Failure> {
        self.savepoints.iter().rposition(|(held, _)| held == name).ok_or(Failure("3B001"))
    }
}

/// A setting's value as an audit asks for it.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn warning(out: &mut BytesMut, sqlstate: &str) {
    backend::write_error(out, b'N', "WARNING", sqlstate, "so to speak", &[]);
}

pub(super) fn row_description(out: &mut BytesMut, columns: u16) {
    frontend::frame(out, b'T', |out| {
        out.put_u16(columns);
        for _ in 0..columns {
            out.put_slice(b"c\0");
            out.put_slice(&[0; 18]);
        }
    });
}

fn data_row(out: &mut BytesMut, columns: &[Option<&[u8]>]) {
    frontend::frame(out, b'D', |out| {
        out.put_u16(columns.len() as u16);
        for column in columns {
            match column {
                Some(value) => {
                    out.put_u32(value.len() as u32);
                    out.put_slice(value);
                }
                None => out.put_i32(-1),
            }
        }
    });
}
