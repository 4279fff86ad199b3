//! A model client: a random valid conversation, with what one server says to it when nobody stands between.
//!
//! Invariant: what a piece waits for was counted in the direct run, so that both runs see the same bytes in the same
//! order if they see the same answers.

use bytes::{BufMut, BytesMut};

use super::model::Model;
use super::rng::Rng;
use super::{REFUSED_TEXT, messages};
use crate::wire::frontend;

/// Bytes of the client's, sent when it has received `after` messages (asynchronous ones not counted).
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) after: usize,
}

/// A conversation and its answers.
pub(super) struct Conversation {
    pub(super) pieces: Vec<Piece>,
    pub(super) answers: BytesMut,
}

const NAMES: [&str; 5] = ["", "", "s0", "s1", "s2"];
const PORTALS: [&str; 4] = ["", "", "p0", "p1"];
const SAVEPOINTS: [&str; 2] = ["a", "b"];
const SETTINGS: [&str; 3] = ["app.x", "app.y", "application_name"];

struct Author<'r> {
    rng: &'r mut Rng,
    model: Model,
    pieces: Vec<Piece>,
    answers: BytesMut,
    /// Of the next piece.
    after: usize,
    padding: usize,
    parameters: std::collections::HashMap<String, bool>,
}

/// Writes a conversation of `length` groups. `padding`: the longest comment put into a text.
pub(super) fn converse(rng: &mut Rng, length: usize, padding: usize) -> Conversation {
    let model = Model::new(rng.next());
    let mut author = Author {
        rng,
        model,
        pieces: Vec::new(),
        answers: BytesMut::new(),
        after: 0,
        padding,
        parameters: std::collections::HashMap::new(),
    };
    for _ in 0..length {
        author.group();
        if !author.rng.one_in(3) {
            author.wait();
        }
    }
    author.wait();
    let mut end = BytesMut::new();
    frontend::write_terminate(&mut end);
    author.send(end);
    author.collect();
    Conversation { pieces: author.pieces, answers: author.answers }
}

impl Author<'_> {
    fn send(&mut self, bytes: BytesMut) {
        self.model.input.extend_from_slice(&bytes);
        self.model.run();
        self.pieces.push(Piece { bytes: bytes.to_vec(), after: self.after });
    }

    fn collect(&mut self) {
        self.answers.extend_from_slice(&self.model.output.split());
    }

    fn wait(&mut self) {
        self.collect();
        self.after = messages(&self.answers).count;
    }

    fn group(&mut self) {
        match self.rng.below(20) {
            0..6 => self.simple(),
            6 | 7 => self.block(),
            8..15 => self.extended(),
            15 | 16 => self.copy_simple(),
            17 => self.copy_extended(),
            18 => {
                let mut out = BytesMut::new();
                let fails = self.rng.one_in(3);
                frontend::frame(&mut out, b'F', |out| out.put_u8(u8::from(fails)));
                self.send(out);
            }
            _ => {
                let mut out = BytesMut::new();
                if self.rng.one_in(2) {
                    frontend::write_query(&mut out, REFUSED_TEXT.as_bytes());
                } else {
                    let name = self.rng.of(&NAMES);
                    frontend::write_parse(&mut out, name.as_bytes(), REFUSED_TEXT.as_bytes(), &[0, 0]);
                    for _ in 0..self.rng.below(5) {
                        self.operation(&mut out);
                    }
                    frontend::write_sync(&mut out);
                }
                self.send(out);
            }
        }
    }

    fn text(&mut self, simple: bool) -> String {
        let rng = &mut *self.rng;
        let setting = rng.of(&SETTINGS);
        let savepoint = rng.of(&SAVEPOINTS);
        let value = rng.below(4);
        match rng.below(if simple { 32 } else { 29 }) {
            0..5 => format!("SELECT generate_series(1, {})", rng.below(6)),
            5 => "SELECT missing".into(),
            6 => "SELECT 1/0".into(),
            7 => "SELEC".into(),
            8..10 => format!("SHOW {setting}"),
            10..12 => format!("SET {setting} = 'v{value}'"),
            12 => format!("SET LOCAL {setting} = 'l{value}'"),
            13 => format!("RESET {setting}"),
            14 => "RESET ALL".into(),
            15 | 16 => "BEGIN".into(),
            17 => "START TRANSACTION READ ONLY".into(),
            18 | 19 => "COMMIT".into(),
            20 | 21 => "ROLLBACK".into(),
            22 => format!("SAVEPOINT {savepoint}"),
            23 => format!("ROLLBACK TO {savepoint}"),
            24 => format!("RELEASE {savepoint}"),
            25 => "COPY t TO STDOUT".into(),
            26 => String::new(),
            27 => "DEALLOCATE ALL".into(),
            28 => "DISCARD ALL".into(),
            29 => format!("PREPARE q{} AS SELECT generate_series(1, 2)", rng.below(2)),
            30 => format!("EXECUTE q{}", rng.below(2)),
            _ => format!("DEALLOCATE {}", rng.of(&["q0", "q1", "s0", "s1"])),
        }
    }

    fn pad(&mut self, text: String) -> String {
        // What a text does that is too long to be held is not understood, and no server tells of a setting that no library has
        // defined unless it is asked by name.
        let needs_reading = text.contains("DEALLOCATE s") || text.contains("SET app.");
        if self.padding == 0 || needs_reading || !self.rng.one_in(8) {
            return text;
        }
        format!("/*{}*/ {text}", "x".repeat(self.rng.below(self.padding)))
    }

    fn simple(&mut self) {
        let mut text = self.text(true);
        // Among others in one string it is not understood as what it is.
        while !text.contains("DEALLOCATE s") && self.rng.one_in(4) {
            let next = self.text(true).replace("DEALLOCATE s", "DEALLOCATE q");
            text = format!("{text}; {next}");
        }
        let text = self.pad(text);
        let mut out = BytesMut::new();
        frontend::write_query(&mut out, text.as_bytes());
        self.send(out);
    }

    /// A transaction that is begun, refused and rolled back in part before any server need know of it.
    fn block(&mut self) {
        let mut text = self.rng.of(&["BEGIN", "BEGIN", "START TRANSACTION READ ONLY"]).to_owned();
        for _ in 0..2 + self.rng.below(6) {
            let mut out = BytesMut::new();
            if self.rng.one_in(2) {
                frontend::write_query(&mut out, text.as_bytes());
            } else {
                frontend::write_parse(&mut out, b"", text.as_bytes(), &[0, 0]);
                self.parameters.insert(String::new(), false);
                self.bind(&mut out, "", "");
                execute(&mut out, "", 0);
                frontend::write_sync(&mut out);
            }
            self.send(out);
            if !self.rng.one_in(3) {
                self.wait();
            }
            let savepoint = self.rng.of(&SAVEPOINTS);
            text = match self.rng.below(12) {
                0..3 => format!("SAVEPOINT {savepoint}"),
                3..6 => format!("ROLLBACK TO {savepoint}"),
                6 => format!("RELEASE {savepoint}"),
                7 | 8 => REFUSED_TEXT.to_owned(),
                9 => format!("SET LOCAL {} = 'b'", self.rng.of(&SETTINGS)),
                10 => format!("SHOW {}", self.rng.of(&SETTINGS)),
                _ => self.text(false),
            };
        }
    }

    fn extended(&mut self) {
        let mut out = BytesMut::new();
        for _ in 0..self.rng.below(8) {
            if self.rng.one_in(4) {
                self.usual(&mut out);
            } else {
                self.operation(&mut out);
            }
            if self.rng.one_in(10) {
                frontend::frame(&mut out, b'H', |_| {});
                self.send(out.split());
                if self.rng.one_in(2) {
                    self.wait();
                }
            }
        }
        if self.rng.one_in(6) {
            // It ends the group as a Sync does, unless that has failed.
            match self.rng.below(4) {
                0 => frontend::frame(&mut out, b'F', |out| out.put_u8(u8::from(self.rng.one_in(4)))),
                1 => {
                    // Refused by itself: what stands before it is on its way already.
                    frontend::frame(&mut out, b'H', |_| {});
                    frontend::write_query(&mut out, REFUSED_TEXT.as_bytes());
                }
                _ => {
                    let text = self.text(true);
                    frontend::write_query(&mut out, text.as_bytes());
                }
            }
            for _ in 0..self.rng.below(3) {
                self.operation(&mut out);
            }
        }
        frontend::write_sync(&mut out);
        self.send(out);
    }

    /// What drivers send: Parse, Bind, Describe, Execute.
    fn usual(&mut self, out: &mut BytesMut) {
        let name = self.rng.of(&NAMES);
        let echo = self.rng.one_in(3);
        let text = if echo { "SELECT $1::text".into() } else { self.text(false) };
        let text = if name.is_empty() { self.pad(text) } else { text };
        if !name.is_empty() && self.rng.one_in(2) {
            frontend::write_target(out, b'C', b'S', name.as_bytes());
        }
        frontend::write_parse(out, name.as_bytes(), text.as_bytes(), &[0, 0]);
        self.parameters.insert(name.to_owned(), echo);
        if self.rng.one_in(4) {
            frontend::write_target(out, b'D', b'S', name.as_bytes());
        }
        self.bind(out, "", name);
        if self.rng.one_in(2) {
            frontend::write_target(out, b'D', b'P', b"");
        }
        execute(out, "", 0);
    }

    fn operation(&mut self, out: &mut BytesMut) {
        let name = self.rng.of(&NAMES);
        let portal = self.rng.of(&PORTALS);
        match self.rng.below(12) {
            0..3 => {
                let echo = self.rng.one_in(3);
                let text = if echo { "SELECT $1::text".into() } else { self.text(false) };
                let text = if name.is_empty() { self.pad(text) } else { text };
                self.parameters.insert(name.to_owned(), echo);
                frontend::write_parse(out, name.as_bytes(), text.as_bytes(), &[0, 0]);
            }
            3..6 => {
                let name = if self.rng.one_in(20) { "pm_1" } else { name };
                self.bind(out, portal, name);
            }
            6..9 => {
                let limit = if self.rng.one_in(3) { 1 + self.rng.below(3) as i32 } else { 0 };
                execute(out, portal, limit);
            }
            9 => {
                let name = if self.rng.one_in(20) { "pm_1" } else { name };
                frontend::write_target(out, b'D', b'S', name.as_bytes());
            }
            10 => frontend::write_target(out, b'D', b'P', portal.as_bytes()),
            _ if self.rng.one_in(3) => frontend::write_target(out, b'C', b'P', portal.as_bytes()),
            _ => {
                let name = if self.rng.one_in(4) { self.rng.of(&["pm_1", "n0", "n1", "n2"]) } else { name };
                frontend::write_target(out, b'C', b'S', name.as_bytes());
            }
        }
    }

    fn bind(&mut self, out: &mut BytesMut, portal: &str, name: &str) {
        let mut echo = self.parameters.get(name).copied().unwrap_or(false);
        if self.rng.one_in(30) {
            echo = !echo;
        }
        let mut rest = BytesMut::new();
        rest.put_u16(0);
        rest.put_u16(u16::from(echo));
        if echo {
            let length = if self.rng.one_in(8) { self.rng.below(3000) } else { self.rng.below(9) };
            rest.put_u32(length as u32);
            rest.put_bytes(b'v', length);
        }
        rest.put_u16(0);
        frontend::write_bind_head(out, portal.as_bytes(), name.as_bytes(), rest.len());
        out.extend_from_slice(&rest);
    }

    fn copy_data(&mut self, out: &mut BytesMut) {
        for _ in 0..self.rng.below(5) {
            let most = if self.rng.one_in(5) { 2000 } else { 10 };
            let length = self.rng.below(most);
            frontend::frame(out, b'd', |out| out.put_bytes(b'c', length));
            if self.rng.one_in(6) {
                frontend::frame(out, b'H', |_| {});
            }
        }
        if self.rng.one_in(4) {
            frontend::frame(out, b'f', |out| out.put_slice(b"no more\0"));
        } else {
            frontend::frame(out, b'c', |_| {});
        }
    }

    fn copy_simple(&mut self) {
        let mut text = "COPY t FROM STDIN".to_owned();
        if self.rng.one_in(4) {
            text = format!("{}; {text}", self.text(true).replace("DEALLOCATE s", "DEALLOCATE q"));
        }
        if self.rng.one_in(4) {
            text = format!("{text}; {}", self.text(true).replace("DEALLOCATE s", "DEALLOCATE q"));
        }
        let text = self.pad(text);
        let mut out = BytesMut::new();
        frontend::write_query(&mut out, text.as_bytes());
        self.send(out);
        let eager = self.rng.one_in(2);
        let blind = eager && self.rng.one_in(4);
        while self.model.copying() || blind {
            if !eager {
                self.wait();
            }
            let mut out = BytesMut::new();
            self.copy_data(&mut out);
            self.send(out);
            if blind {
                break;
            }
        }
        while self.model.copying() {
            let mut out = BytesMut::new();
            self.copy_data(&mut out);
            self.send(out);
        }
    }

    fn copy_extended(&mut self) {
        let mut out = BytesMut::new();
        if self.rng.one_in(3) {
            self.usual(&mut out);
        }
        frontend::write_parse(&mut out, b"", b"COPY t FROM STDIN", &[0, 0]);
        self.parameters.insert(String::new(), false);
        self.bind(&mut out, "", "");
        execute(&mut out, "", 0);
        let synced = self.rng.one_in(2);
        if synced {
            frontend::write_sync(&mut out);
        } else if self.rng.one_in(2) {
            frontend::frame(&mut out, b'H', |_| {});
        }
        self.send(out);
        if self.model.copying() {
            if self.rng.one_in(2) {
                self.wait();
            }
            let mut out = BytesMut::new();
            self.copy_data(&mut out);
            if self.rng.one_in(3) {
                self.usual(&mut out);
            }
            frontend::write_sync(&mut out);
            self.send(out);
        } else if !synced {
            let mut out = BytesMut::new();
            frontend::write_sync(&mut out);
            self.send(out);
        }
        // The statement goes: who runs it again unawares sends what no server in COPY takes.
        let mut out = BytesMut::new();
        frontend::write_parse(&mut out, b"", b"SELECT generate_series(1, 2)", &[0, 0]);
        frontend::write_sync(&mut out);
        self.send(out);
    }
}

fn execute(out: &mut BytesMut, portal: &str, limit: i32) {
    frontend::frame(out, b'E', |out| {
        out.put_slice(portal.as_bytes());
        out.put_u8(0);
        out.put_i32(limit);
    });
}
