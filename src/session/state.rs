//! What a session's statements do to the server's memory of it: which settings follow, what pins, what must be asked.
//!
//! Invariant: the server is asked what state it holds whenever a statement may have changed it; a name or a value is never
//! guessed from the text of a statement. What cannot be asked or held pins the session.
//!
//! `pg_settings` leaves out custom settings (`GUC_NO_SHOW_ALL`), and no other catalogue has them: the server tells the value
//! of one whose name is known, and nothing else finds it. Hence [`Pins::computed_setting`].
//!
//! Deliberately absent: the text of the questions, and sending them.

use std::sync::Arc;

use super::questions::question;
use super::{Session, What};
use crate::sql::{Effects, Kind, Names, Said, Shape, Statement, folds_constants};
use crate::upstream::{Answer, ErrorReply, Interner, Parameters, Settings, leaves_name};
use crate::wire::TransactionStatus;
use crate::wire::backend::write_error;
use crate::wire::frame::HEADER_LEN;

/// Effects after which the server is asked.
const ASK: Effects = Effects(
    Effects::SETTINGS.0
        | Effects::ALL_SETTINGS.0
        | Effects::TEMPORARY.0
        | Effects::ADVISORY_LOCK.0
        | Effects::HOLD_CURSOR.0
        | Effects::LISTEN.0
        | Effects::UNLISTEN.0
        | Effects::SQL_PREPARE.0
        // With pg_temp first in the search path any CREATE makes something temporary.
        | Effects::DDL.0
        | Effects::COMPUTED_SETTING.0
        | Effects::OPAQUE.0
        | Effects::UNKNOWN.0,
);

/// Effects that may change any setting.
pub(super) const ANY_SETTING: Effects = Effects(Effects::ALL_SETTINGS.0 | Effects::OPAQUE.0 | Effects::UNKNOWN.0);

/// Why a session must keep its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent reasons, each shown by name")]
pub struct Pins {
    /// Temporary objects exist.
    pub temporary: bool,
    /// Session-level advisory locks are held.
    pub advisory_lock: bool,
    /// Cursors WITH HOLD are open.
    pub hold_cursor: bool,
    /// The session listens.
    pub listen: bool,
    /// Statements were prepared with SQL.
    pub sql_prepare: bool,
    /// A library was loaded; to the end of the session, for none is ever unloaded.
    pub load: bool,
    /// currval or lastval was called.
    pub sequence: bool,
    /// A statement too large to be prepared elsewhere is prepared here.
    pub large_statement: bool,
    /// The unnamed statement is one of those.
    pub large_unnamed: bool,
    /// A setting was made under a name that only the server knows; to the end of the session or DISCARD ALL.
    pub computed_setting: bool,
    /// The settings take more than [`SETTINGS_LIMIT`]; to the end of the session or DISCARD ALL.
    pub large_settings: bool,
    /// `standard_conforming_strings` is off: sources of functions are read by it, once for all that the server's process lives. As
    /// long as it is; the server is closed then.
    pub sources: bool,
    /// Something ran that may keep state in the server's process ([`Effects::PROCESS`]). To the end of the session; the server
    /// is closed then, as after LOAD.
    pub process: bool,
    /// Random numbers were seeded (`setseed`, `SET seed`): what `random()` gives next is on this server alone, and no question
    /// tells it. To the end of the session; the server is closed then.
    pub seed: bool,
    /// The question about all this was not answered in time, and is still due.
    pub unanswered: bool,
}

/// Settings by which functions are read when a process meets them first, and stay so (`do_compile` in `pl_comp.c`), with the value
/// that almost everybody has.
const SOURCES: [(&str, &str); 3] = [
    ("standard_conforming_strings", "on"),
    ("plpgsql.print_strict_params", "off"),
    ("plpgsql.variable_conflict", "error"),
];

/// Whether a setting is one of those.
fn reads_sources(setting: &str) -> bool {
    SOURCES.iter().any(|(name, _)| setting.eq_ignore_ascii_case(name))
}

/// Bytes of settings that follow a session from server to server.
pub const SETTINGS_LIMIT: usize = 1 << 20;

/// Names of settings that wait for an audit, and the longest that is asked for. What finds no room pins as
/// [`Pins::computed_setting`].
const TOUCHED: usize = 1024;
const LONGEST_NAME: usize = 1024;

impl Pins {
    /// Whether any reason holds.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Whether the server can be nobody else's any more: no statement undoes what was done there.
    #[must_use]
    pub fn taints(self) -> bool {
        self.load || self.process || self.seed
    }

    /// The names of all reasons, in the order of [`Pins::flags`].
    pub const CAUSES: [&str; 15] = [
        "temporary objects",
        "advisory locks",
        "WITH HOLD cursors",
        "LISTEN",
        "SQL PREPARE",
        "LOAD",
        "currval or lastval",
        "a large prepared statement",
        "a large unnamed statement",
        "a setting under a computed name",
        "large settings",
        "standard_conforming_strings off",
        "state in the server process",
        "seeded random numbers",
        "a question that waits",
    ];

    /// Which of [`Pins::CAUSES`] hold.
    #[must_use]
    pub fn flags(self) -> [bool; Self::CAUSES.len()] {
        [
            self.temporary,
            self.advisory_lock,
            self.hold_cursor,
            self.listen,
            self.sql_prepare,
            self.load,
            self.sequence,
            self.large_statement,
            self.large_unnamed,
            self.computed_setting,
            self.large_settings,
            self.sources,
            self.process,
            self.seed,
            self.unanswered,
        ]
    }

    /// The names of the reasons that hold.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.flags().into_iter().zip(Self::CAUSES).filter_map(|(holds, name)| holds.then_some(name))
    }
}

/// A question to the server about the session's state.
#[derive(Debug)]
pub struct Audit {
    /// One simple query.
    pub sql: String,
    /// Why it is asked.
    effects: Effects,
    /// Whether all settings are asked for, or those only that statements named.
    all: bool,
    /// Something may have been set that no question finds.
    hidden: bool,
    /// The session itself has done so, under a name that only the server knows.
    computed: bool,
    /// The answer also holds what is set for sessions that begin ([`Starts`](super::Starts)).
    pub starts: bool,
}

impl Session {
    /// Notes what a unit about to be forwarded may do; `effects` as the catalogue refined them.
    pub fn note(&mut self, effects: Effects, shape: &Shape) {
        // What is not known may have done that, too.
        self.advances |= effects.any(Effects::SEQUENCE | Effects::UNKNOWN | Effects::OPAQUE);
        self.refolds |= effects.any(Effects::REFOLDS);
        self.leaves_traces |= effects.any(Effects::REREADS);
        // Those are no state of the session's.
        const PASSING: Effects =
            Effects(Effects::SEQUENCE.0 | Effects::TAKES_ADVISORY.0 | Effects::RUNS_TEXT.0 | Effects::SETS_INSIDE.0);
        let effects = Effects(effects.0 & !PASSING.0);
        self.effects |= effects;
        if effects == Effects::NONE {
            return;
        }
        // What is set by itself, outside a transaction, is seen afterwards.
        let alone = shape.statements.len() == 1
            && self.status() == TransactionStatus::Idle
            && !self.deferred.active()
            && self.shapes().count() <= 2;
        for statement in &shape.statements {
            if matches!(statement.kind, Kind::Reset | Kind::Discard) && !self.baseline.is_empty() {
                self.resets |= statement.effects.any(Effects::ALL_SETTINGS)
                    || statement.settings.iter().any(|name| self.baseline.value(name).is_some());
            }
            // All of them, one by one, in `pg_settings`; what RESET leaves is seen afterwards.
            self.refolds |= statement.kind != Kind::Reset
                && statement.kind != Kind::Discard
                && statement.effects.any(Effects::ALL_SETTINGS);
            for name in &statement.settings {
                self.touch(name);
                self.leaves_traces |= !alone && reads_sources(name);
            }
        }
        self.pins.load |= effects.any(Effects::LOAD);
        self.pins.process |= effects.any(Effects::PROCESS);
        self.pins.seed |= effects.any(Effects::SEED);
        self.pins.sequence |= effects.any(Effects::CURRVAL);
        if effects.any(Effects::DDL | Effects::TEMPORARY) {
            // Until others see it, and for as long as there are temporary objects, names may mean something else to this session.
            self.scope.own = self.shared.registry.unique();
        }
    }

    /// Notes a setting that a statement may change, if only until its transaction ends.
    pub fn touch(&mut self, name: &str) {
        self.refolds |= folds_constants(name);
        self.leaves_traces |= leaves_name(name);
        self.ask_for(name);
    }

    /// A setting whose value is to be asked for.
    fn ask_for(&mut self, name: &str) {
        if name.eq_ignore_ascii_case("seed") {
            self.pins.seed = true;
            return;
        }
        // It lays down the role as well (`SetSessionUserId` in `miscinit.c`).
        let more = name.eq_ignore_ascii_case("session_authorization").then_some("role");
        for name in [name].into_iter().chain(more) {
            if self.touched.iter().any(|held| **held == *name) {
                continue;
            }
            // A name that is not ASCII is another one under another client encoding.
            if self.touched.len() < TOUCHED && name.len() <= LONGEST_NAME && name.is_ascii() {
                self.touched.push(name.into());
            } else {
                self.note_computed();
            }
        }
    }

    /// Whether the unit at hand sets a custom setting, which a library on some servers may have reserved the name of.
    #[must_use]
    pub fn sets_custom(&self) -> bool {
        let custom = |statement: &Statement| {
            statement.kind == Kind::Set && statement.settings.iter().any(|name| name.contains('.'))
        };
        self.shapes().any(|shape| shape.statements.iter().any(custom))
    }

    /// Notes a setting of the session's under a name that is not known.
    pub fn note_computed(&mut self) {
        self.effects |= Effects::ALL_SETTINGS | Effects::COMPUTED_SETTING;
    }

    /// Whether the session must keep the server that the unit at hand runs on.
    #[must_use]
    pub fn will_pin(&self) -> bool {
        self.pins.any()
            || self.effects.any(Effects::COMPUTED_SETTING)
            || SOURCES.iter().any(|(name, _)| self.may_set(name))
    }

    /// Whether what was noted since the last audit may change `setting`.
    #[inline]
    #[must_use]
    pub fn may_set(&self, setting: &str) -> bool {
        self.effects.any(Effects::ALL_SETTINGS) || self.touched.iter().any(|name| **name == *setting)
    }

    /// Notes a unit of which nothing is known.
    pub fn note_opaque(&mut self) {
        self.effects |= Effects::OPAQUE;
    }

    /// Reads the words of a text that is too long to be held, as it goes by. Of what it may do, what no question finds is noted
    /// when it has gone. `names` as the database has them.
    pub fn hear(&mut self, names: Arc<Names>) {
        let Some(op) = self.unit.ops.last().filter(|op| matches!(op.what, What::LongQuery | What::LongParse { .. }))
        else {
            return;
        };
        let mut said = Box::new(Said::new(names));
        said.push(&self.input[self.cursor - op.len + HEADER_LEN..self.cursor]);
        self.said = Some(said);
    }

    /// The text that was heard has ended.
    pub(super) fn heard(&mut self) {
        if let Some(effects) = self.said.take().map(|mut said| said.finish()) {
            self.pins.load |= effects.any(Effects::LOAD);
            self.pins.process |= effects.any(Effects::PROCESS);
            self.pins.seed |= effects.any(Effects::SEED);
            self.pins.sequence |= effects.any(Effects::CURRVAL);
        }
    }

    /// Forgets the effects of a unit that was refused before any of it was sent. Those of others, of which the question is still
    /// due, are not told from them.
    pub fn forget_effects(&mut self) {
        if self.pins.unanswered {
            return;
        }
        self.effects = Effects::NONE;
        self.touched.clear();
        self.resets = false;
    }

    /// The server is asked about the session at the end of the transaction at hand.
    pub fn note_listening(&mut self) {
        self.effects |= Effects::UNLISTEN;
    }

    /// A server refuses to set what one of its libraries has reserved the prefix of: that is gone, with the warning that loading
    /// the library brings (`MarkGUCPrefixReserved` in `guc.c`). Returns whether there was any.
    pub fn forget_reserved(&mut self, refused: &ErrorReply) -> bool {
        let named = |name: &&str| name.contains('.') && refused.message.contains(&format!("\"{name}\""));
        let reserved = self.settings.iter().map(|(name, _)| name).find(named).map(str::to_owned);
        let Some(name) = reserved.filter(|_| refused.sqlstate == "42602") else { return false };
        Arc::make_mut(&mut self.settings).remove(&name);
        Arc::make_mut(&mut self.baseline).remove(&name);
        let message = format!("invalid configuration parameter name \"{name}\", removing it");
        let prefix = name.split('.').next().unwrap_or_default();
        let detail = format!("\"{prefix}\" is now a reserved prefix.");
        write_error(&mut self.output, b'N', "WARNING", "42602", &message, &[(b'D', Some(&detail))]);
        true
    }

    /// Effects of what was sent since the last audit.
    #[must_use]
    pub fn effects(&self) -> Effects {
        self.effects
    }

    /// Whether [`Session::audit`] will have a question.
    #[must_use]
    pub fn audit_due(&self) -> bool {
        // A simple query drops the unnamed statement; the server is kept, so that the question can wait.
        let may = !self.pins.large_unnamed;
        let pinned = self.pins.temporary || self.pins.advisory_lock || self.pins.listen;
        may && (self.effects.any(ASK) || (pinned && self.effects != Effects::NONE))
    }

    /// The question to ask now that the session is idle, if there is one.
    pub fn audit(&mut self) -> Option<Audit> {
        if !self.audit_due() {
            if !self.pins.large_unnamed {
                self.forget_effects();
            }
            return None;
        }
        let effects = std::mem::take(&mut self.effects);
        let hidden = effects.any(Effects::OPAQUE | Effects::UNKNOWN);
        let all = hidden || effects.any(Effects::ALL_SETTINGS);
        if all {
            let held = Arc::clone(&self.settings);
            // In no catalogue either.
            for name in held.iter().map(|(name, _)| name).chain(["session_authorization"]) {
                self.ask_for(name);
            }
        }
        let effects = effects | std::mem::take(&mut self.effects);
        let computed = effects.any(Effects::COMPUTED_SETTING);
        let starts = hidden || self.alters_starts;
        let sql = question(&self.touched, all, starts);
        Some(Audit { sql, effects, all, hidden, computed, starts })
    }

    /// There was no answer in time: the question stays due, and the session keeps its server.
    pub fn unanswered(&mut self, audit: &Audit) {
        self.effects |= audit.effects;
        self.pins.unanswered = true;
    }

    /// Takes the server's answer. Returns what is applied on the server now; `None`: that is not known.
    pub fn audited(&mut self, audit: &Audit, answer: &Answer) -> Option<Settings> {
        let mut actual = if audit.all { Settings::default() } else { (*self.settings).clone() };
        for name in self.touched.drain(..) {
            actual.remove(&name.to_ascii_lowercase());
        }
        self.pins.computed_setting |= audit.computed;
        self.pins.unanswered = false;
        let mut size = actual.size();
        for row in &answer.rows {
            match row.as_slice() {
                [flags] => self.take_pins(flags.as_deref().unwrap_or_default()),
                [Some(name), Some(value), source] => {
                    let value = decode(value).filter(|value| size + name.len() + value.len() <= SETTINGS_LIMIT);
                    match value {
                        Some(value)
                            if applies(name, &value, source.as_deref()) || name == "role" && self.began_with_role() =>
                        {
                            size += name.len() + value.len();
                            actual.set(name, value);
                        }
                        Some(_) => {}
                        None => self.pins.large_settings = true,
                    }
                }
                _ => {}
            }
        }
        let resets = std::mem::take(&mut self.resets) || audit.hidden;
        let mut wanted = actual.clone();
        for (name, value) in self.baseline.iter() {
            // RESET leaves a setting that no library has defined empty.
            let reset = |held: &[u8]| resets && held.is_empty() && name.contains('.');
            if wanted.bytes(name).is_none_or(reset) {
                wanted.set(name, value);
            }
        }
        self.settings = Arc::new(wanted);
        self.pins.sources = reads_sources_otherwise(&self.settings);
        (!audit.hidden).then_some(actual)
    }

    /// Brings what the client was told of settings up to what `parameters` says, ahead of a ReadyForQuery that it was not
    /// sent yet.
    pub fn report_before_ready(&mut self, parameters: &mut Arc<Parameters>, interner: &Interner<Parameters>) {
        const READY: &[u8] = b"Z\0\0\0\x05";
        let at = self.output.len().saturating_sub(READY.len() + 1);
        // Only a ReadyForQuery ends in these bytes: every other message that may come after an answer ends in a zero.
        let ready = self.output[at..].starts_with(READY).then(|| self.output.split_off(at));
        self.report(parameters, interner);
        self.output.extend_from_slice(&ready.unwrap_or_default());
    }

    fn take_pins(&mut self, flags: &str) {
        let (flags, names) = flags.split_once(':').map_or((flags, None), |(flags, names)| (flags, Some(names)));
        let channels = |names: &str| names.split(',').filter_map(decode).map(Into::into).collect();
        self.channels = names.map(channels).or_else(|| (!flags.contains('l')).then(Vec::new));
        let flag = |c: char| flags.contains(c);
        self.pins.temporary = flag('t');
        self.temporary_schema = flag('s');
        if !self.pins.temporary {
            self.scope.own = 0;
        }
        self.pins.advisory_lock = flag('a');
        self.pins.hold_cursor = flag('h');
        self.pins.listen = flag('l');
        self.pins.sql_prepare = flag('p');
    }

    pub(super) fn note_completion(&mut self, tag: &[u8]) {
        match tag {
            b"DISCARD ALL" => {
                self.discarded = true;
                // What is noted already may have come behind it in the same pipeline: it is asked for all the same.
                self.pins = Pins {
                    load: self.pins.load,
                    process: self.pins.process,
                    sources: reads_sources_otherwise(&self.baseline),
                    seed: self.pins.seed,
                    sequence: self.effects.any(Effects::CURRVAL),
                    unanswered: self.pins.unanswered,
                    ..Pins::default()
                };
                self.settings = Arc::clone(&self.baseline);
                self.resets = !self.baseline.is_empty();
            }
            // The one that keeps the server may be among them.
            b"CLOSE CURSOR" | b"CLOSE CURSOR ALL" if self.pins.hold_cursor => self.effects |= Effects::HOLD_CURSOR,
            _ => {}
        }
    }
}

/// Whether sources of functions are read under these settings as nobody else's are, once for all that the server's process lives.
pub(super) fn reads_sources_otherwise(settings: &Settings) -> bool {
    SOURCES.iter().any(|(name, usual)| settings.value(name).is_some_and(|value| value != *usual))
}

/// Whether a row of the audit says that the session set something.
fn applies(name: &str, value: &[u8], source: Option<&str>) -> bool {
    match name {
        "role" => value != b"none",
        // What it shows is not its value.
        "seed" => false,
        "session_authorization" => source == Some("changed"),
        // The next transaction's are those of the defaults, whatever is said of the last one's source.
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => false,
        // A setting with a prefix that no library has defined is in no catalogue: what it has, the session gave it.
        _ => source.is_none_or(|source| source == "session"),
    }
}

/// A value in digits, as the questions have it; `None`: it is too large.
pub(super) fn decode(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = hex.as_bytes().chunks_exact(2);
    let odd = !pairs.remainder().is_empty();
    let bytes = pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok());
    if odd { None } else { bytes.collect() }
}
