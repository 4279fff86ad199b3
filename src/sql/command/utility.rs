//! Commands without expressions: settings, transactions, cursors, locks, channels.
//!
//! Invariant: as the parent's: a transaction command is `whole` only where every token was interpreted.

use super::{Reader, certain, done, unknown};
use crate::sql::analysis::{Access, Effects, Function, Kind, Statement, Table, Transaction, Understood};

impl Reader<'_> {
    /// Commands without expressions.
    pub(super) fn utility(&mut self, first: &str, s: &mut Statement) {
        match first {
            "set" => self.set(s),
            "reset" => self.reset(s),
            "show" => self.show(s),
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
                self.transaction(first, s);
            }
            "execute" => {
                s.kind = Kind::Execute;
                // What it runs was judged when it was prepared, and is not kept.
                s.effects |= Effects::SQL_PREPARE | Effects::CALLS_UNKNOWN;
                s.object = self.name();
            }
            "deallocate" => {
                done(s, Kind::Deallocate, Access::Read, Effects::SQL_PREPARE);
                self.eat("prepare");
                let all = self.word(0) == "all";
                s.object = self.name();
                if all {
                    s.effects |= Effects::DROPS_PREPARED;
                }
            }
            "fetch" | "move" => {
                // Its query was judged when the cursor was declared.
                done(s, Kind::Fetch, Access::Read, Effects::NONE);
                s.object = self.last_name();
            }
            "close" => {
                done(s, Kind::Close, Access::Read, Effects::NONE);
                s.object = self.name();
            }
            "listen" | "notify" => {
                let listen = first == "listen";
                let effects = if listen { Effects::LISTEN } else { Effects::NONE };
                // Neither works on a standby.
                done(s, if listen { Kind::Listen } else { Kind::Notify }, Access::Write, effects);
                s.object = self.name();
            }
            "unlisten" => {
                done(s, Kind::Unlisten, Access::Read, Effects::UNLISTEN);
                s.object = if self.is_mark(b"*") { Some("*".into()) } else { self.name() };
            }
            "lock" => {
                done(s, Kind::Lock, Access::Write, Effects::NONE);
                self.eat("table");
                self.tables(s);
            }
            "discard" => {
                done(s, Kind::Discard, Access::Read, Effects::NONE);
                s.effects |= match self.word(0) {
                    "all" => {
                        Effects::DISCARD_ALL
                            | Effects::SETTINGS
                            | Effects::ALL_SETTINGS
                            | Effects::DROPS_PREPARED
                            | Effects::UNLISTEN
                            | Effects::OUTSIDE_TRANSACTION
                    }
                    "temp" | "temporary" => Effects::TEMPORARY,
                    "sequences" => Effects::SEQUENCE,
                    "plans" => Effects::NONE,
                    _ => Effects::OPAQUE,
                };
                s.object = self.name();
            }
            "load" => done(s, Kind::Load, Access::Read, Effects::LOAD),
            "call" => {
                done(s, Kind::Call, Access::Write, Effects::CALLS_UNKNOWN | Effects::OUTSIDE_TRANSACTION);
                if let Some((schema, name)) = self.qualified() {
                    s.object = Some(name.clone());
                    s.functions.push(Function { schema, name });
                }
            }
            "do" => done(s, Kind::Do, Access::Write, Effects::CALLS_UNKNOWN | Effects::OUTSIDE_TRANSACTION),
            "vacuum" | "cluster" | "reindex" => {
                done(s, Kind::Maintenance, Access::Write, Effects::OUTSIDE_TRANSACTION);
            }
            "analyze" | "analyse" | "checkpoint" | "refresh" => {
                done(s, Kind::Maintenance, Access::Write, Effects::NONE);
                if first == "refresh" {
                    s.effects |= Effects::CALLS_UNKNOWN;
                }
            }
            _ => {
                let _ = unknown(s);
            }
        }
    }

    /// `[ONLY] name [*], …`
    pub(super) fn tables(&mut self, s: &mut Statement) {
        loop {
            self.eat("only");
            let Some((schema, name)) = self.qualified() else { return };
            s.tables.push(Table { schema, name, access: Access::Write });
            self.eat_mark(b"*");
            if !self.eat_mark(b",") {
                return;
            }
        }
    }

    fn last_name(&mut self) -> Option<Box<str>> {
        self.at = self.head.len().checked_sub(1)?;
        self.name()
    }

    fn set(&mut self, s: &mut Statement) {
        let local = self.eat("local");
        let session = !local && self.word(0) == "session" && self.word(1) != "authorization" && self.eat("session");
        if self.eat("constraints") && !local && !session {
            done(s, Kind::SetConstraints, Access::Read, Effects::NONE);
            return;
        }
        if self.eat("transaction") {
            done(s, Kind::SetTransaction, Access::Read, Effects::NONE);
            let mut t = Transaction::default();
            let some = self.modes(&mut t);
            t.whole = some && self.done() && !local && !session;
            s.transaction = Some(t);
            return;
        }
        let effects = if local { Effects::LOCAL_SETTINGS } else { Effects::SETTINGS };
        done(s, Kind::Set, Access::Read, effects);
        if !local && self.eat_all(&["characteristics", "as", "transaction"]) {
            let mut t = Transaction::default();
            t.whole = self.modes(&mut t) && self.done();
            s.transaction = Some(t);
            s.settings.extend(
                ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"]
                    .map(Into::into),
            );
            return;
        }
        let from = self.at;
        if let Some(name) = self.setting_name() {
            let to = self.at;
            if self.eat("to") || self.eat_mark(b"=") {
                if self.word(0) == "default" {
                    s.kind = Kind::Reset;
                }
                s.certain =
                    local && self.complete && certain::cannot_fail(&name, &self.head[from..to], &self.head[self.at..]);
            }
            s.settings.push(name);
        } else {
            s.understood = Understood::Lexed;
            s.effects |= Effects::ALL_SETTINGS | Effects::COMPUTED_SETTING;
        }
        if self.head.iter().any(|t| memchr::memmem::find(&t.text, b"pg_temp").is_some()) {
            // Tables made without a schema would be temporary.
            s.effects |= Effects::TEMPORARY;
        }
    }

    /// A setting's name, or the words that stand for one.
    fn setting_name(&mut self) -> Option<Box<str>> {
        let special = if self.eat_all(&["time", "zone"]) {
            "timezone"
        } else if self.eat_all(&["session", "authorization"]) {
            "session_authorization"
        } else if self.eat_all(&["transaction", "isolation", "level"]) {
            "transaction_isolation"
        } else if self.eat_all(&["xml", "option"]) {
            "xmloption"
        } else {
            let value_follows = !matches!(self.head.get(self.at + 1).map(|t| &t.text[..]), Some(b"=" | b"to" | b"."));
            match self.word(0) {
                "names" if value_follows || self.at + 1 == self.head.len() => "client_encoding",
                "schema" if value_follows => "search_path",
                _ => "",
            }
        };
        if !special.is_empty() {
            return Some(special.into());
        }
        let mut name = self.name()?.to_ascii_lowercase();
        while self.eat_mark(b".") {
            name.push('.');
            name.push_str(&self.name()?.to_ascii_lowercase());
        }
        Some(name.into_boxed_str())
    }

    fn reset(&mut self, s: &mut Statement) {
        done(s, Kind::Reset, Access::Read, Effects::SETTINGS);
        if self.eat("all") {
            s.effects |= Effects::ALL_SETTINGS;
            return;
        }
        match self.setting_name() {
            Some(name) => s.settings.push(name),
            None => {
                s.understood = Understood::Lexed;
                s.effects |= Effects::ALL_SETTINGS;
            }
        }
    }

    fn show(&mut self, s: &mut Statement) {
        // Many settings tell one node from another: in_hot_standby, transaction_read_only, port …
        done(s, Kind::Show, Access::Read, Effects::NODE_LOCAL);
        s.object = self.setting_name();
    }

    /// Transaction modes up to the end; whether there was at least one.
    fn modes(&mut self, t: &mut Transaction) -> bool {
        let mut some = false;
        loop {
            if self.eat_all(&["isolation", "level"]) {
                if self.eat("serializable") {
                    t.serializable = Some(true);
                } else if self.eat_all(&["read", "committed"])
                    || self.eat_all(&["read", "uncommitted"])
                    || self.eat_all(&["repeatable", "read"])
                {
                    t.serializable = Some(false);
                } else {
                    return false;
                }
            } else if self.eat_all(&["read", "only"]) {
                t.read_only = Some(true);
            } else if self.eat_all(&["read", "write"]) {
                t.read_only = Some(false);
            } else if !(self.eat("deferrable") || self.eat_all(&["not", "deferrable"])) {
                return some;
            }
            some = true;
            if self.eat_mark(b",") {
                // A comma promises another mode.
                some = false;
            }
        }
    }

    /// A savepoint's name; whether it is one wherever it is read.
    fn savepoint(&mut self, s: &mut Statement) -> bool {
        let is_name = self.head.get(self.at).is_some_and(certain::is_name);
        s.object = self.name();
        is_name && s.object.is_some()
    }

    fn transaction(&mut self, first: &str, s: &mut Statement) {
        let mut t = Transaction { start: first == "start", ..Transaction::default() };
        let kind = match first {
            "begin" | "start" => {
                let open = if first == "begin" {
                    self.eat_any(&["work", "transaction"]);
                    true
                } else {
                    self.eat("transaction")
                };
                let before = self.at;
                let modes = self.modes(&mut t);
                t.whole = open && (modes || self.at == before);
                Kind::Begin
            }
            "savepoint" => {
                t.whole = self.savepoint(s);
                Kind::Savepoint
            }
            "release" => {
                self.eat("savepoint");
                t.whole = self.savepoint(s);
                Kind::Release
            }
            _ => {
                let commit = matches!(first, "commit" | "end");
                if matches!(first, "commit" | "rollback") && self.eat("prepared") {
                    done(s, Kind::FinishPrepared, Access::Write, Effects::OUTSIDE_TRANSACTION);
                    return;
                }
                self.eat_any(&["work", "transaction"]);
                if first == "rollback" && self.eat("to") {
                    self.eat("savepoint");
                    t.whole = self.savepoint(s);
                    Kind::RollbackTo
                } else {
                    t.whole = true;
                    if self.eat("and") {
                        t.chain = !self.eat("no");
                        t.whole = self.eat("chain");
                    }
                    if commit { Kind::Commit } else { Kind::Rollback }
                }
            }
        };
        t.whole &= self.done();
        done(s, kind, Access::Read, Effects::NONE);
        s.transaction = Some(t);
    }
}
