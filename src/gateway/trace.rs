//! What a session that asks for it is told of each of its statements: `SET pointsman.trace = on`.
//!
//! Invariant: a trace names kinds, tables, policies and nodes, never a literal or a value. Its notices stand between two
//! messages of the server's; where they cannot yet, they wait. A session that does not trace pays for one test a unit.
//!
//! Deliberately absent: decisions.

use std::fmt::Write as _;
use std::time::Instant;

use bytes::{BufMut as _, BytesMut};

use crate::policy::{Answer, Chain, Decision, Digest, Role, Shards, Target};
use crate::session::{Part, Session};
use crate::sql::{Access, Kind, Statement, Understood};
use crate::topology::Node;
use crate::upstream::{ErrorReply, Settings};
use crate::wire::TransactionStatus;
use crate::wire::frontend::frame;

/// The setting that turns it on.
const SETTING: &str = "pointsman.trace";

/// Tables named in a notice; further ones are counted.
const TABLES: usize = 8;

/// Whether a session with these settings traces.
fn wanted(settings: &Settings) -> bool {
    let value = settings.value(SETTING).unwrap_or_default();
    ["on", "true", "yes", "1"].iter().any(|on| value.eq_ignore_ascii_case(on))
}

/// Begins or ends a session's trace as its settings say now.
pub(super) fn follow(trace: &mut Option<Box<Trace>>, settings: &Settings) {
    let wanted = wanted(settings);
    if wanted != trace.is_some() {
        *trace = wanted.then(|| Box::new(Trace::new()));
    }
}

/// A session's trace: what is known so far of the unit at hand.
#[derive(Debug)]
pub(super) struct Trace {
    since: Instant,
    /// One a statement: what was understood and who decided what.
    parts: Vec<String>,
    /// What changed the policy's target.
    reasons: Vec<&'static str>,
    /// The server was there before the unit.
    kept: bool,
    /// Notices that came while a message of the server's was half delivered.
    waiting: BytesMut,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), parts: Vec::new(), reasons: Vec::new(), kept: false, waiting: BytesMut::new() }
    }

    /// A unit begins.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
        self.parts.clear();
        self.reasons.clear();
        self.kept = false;
    }

    /// A statement of the unit was decided.
    pub(super) fn decided(&mut self, part: &Part<'_>, access: Access, chain: &Chain, answer: &Answer) {
        let policy = chain.origin(answer);
        let generation = policy.generation();
        let mut text = understood(part, access);
        let _ = write!(text, "policy {}", policy.name());
        if !generation.version.is_empty() {
            let _ = write!(text, " {}", generation.version);
        }
        match generation.digest {
            Digest::NATIVE => text.push_str(" (built in)"),
            digest => {
                let _ = write!(text, " ({digest})");
            }
        }
        let _ = match &answer.decision {
            Decision::Route(target) => write!(text, " decided {}", Shown(target)),
            Decision::Reject(rejection) => write!(text, " refused it with {}", rejection.sqlstate),
            Decision::Pass => write!(text, " passed"),
        };
        if answer.cached {
            text.push_str(", as before");
        }
        if let Some(fault) = &answer.fault {
            let faulty = chain.links().get(usize::from(fault.0)).map_or("", |link| link.policy.name());
            let _ = write!(text, "; policy {faulty} failed: {}", fault.1);
        }
        self.parts.push(text);
    }

    /// The unit has something of which nothing is known.
    pub(super) fn opaque(&mut self) {
        self.parts.push("not understood: the primary".to_owned());
    }

    /// The unit goes where the session's server is, whatever the policy says. `status` is that server's.
    pub(super) fn kept(&mut self, session: &Session, status: TransactionStatus, busy: bool) {
        self.kept = true;
        if status != TransactionStatus::Idle {
            self.reason("in transaction");
        } else if session.pins.any() {
            self.reason("pinned");
            session.pins.names().for_each(|cause| self.reason(cause));
        } else {
            self.reason(if busy { "with what is in flight" } else { "session pooling" });
        }
    }

    /// Something sends the unit elsewhere than the policy said, or binds it to where it is.
    pub(super) fn reason(&mut self, reason: &'static str) {
        self.reasons.push(reason);
    }

    /// The unit goes to `node`. `edge`: what the client was sent so far ends between two messages.
    pub(super) fn sent(&mut self, session: &mut Session, node: &Node, shard: &str, target: Role, edge: bool) {
        if self.parts.is_empty() {
            // A Sync, the end of a COPY: nothing was decided.
            return;
        }
        let role = match node.role() {
            crate::topology::Role::Primary => "primary",
            crate::topology::Role::Replica => "replica",
            crate::topology::Role::Unknown => "node",
        };
        if target == Role::Replica && node.role() != crate::topology::Role::Replica && !self.kept {
            self.reason("no fit replica");
        }
        let message = format!("{role} \"{}\" of shard \"{shard}\"", node.spec.name);
        self.tell(session, message, edge);
    }

    /// The gateway itself answers the unit, from byte `from` of the session's output on.
    pub(super) fn local(&mut self, session: &mut Session, from: usize) {
        let answer = session.output.split_off(from.min(session.output.len()));
        self.tell(session, "answered by the gateway".to_owned(), true);
        session.output.unsplit(answer);
    }

    /// The session's channels have gone from its server to the shared connection; its output ends between two messages.
    pub(super) fn handed_over(&mut self, session: &mut Session, channels: usize) {
        let message = format!("notifications of {channels} more channels come through the shared connection");
        notice(&mut session.output, &message, "");
    }

    /// The unit is refused.
    pub(super) fn refused(&mut self, session: &mut Session, reply: &ErrorReply, edge: bool) {
        self.tell(session, format!("refused by the gateway with {}", reply.sqlstate), edge);
    }

    /// Hands over what waited; the session's output ends between two messages.
    pub(super) fn flush(&mut self, session: &mut Session) {
        if !self.waiting.is_empty() {
            session.output.extend_from_slice(&self.waiting.split());
        }
    }

    fn tell(&mut self, session: &mut Session, mut message: String, edge: bool) {
        if !self.reasons.is_empty() {
            let _ = write!(message, " ({})", self.reasons.join(", "));
        }
        let _ = write!(message, ", {} us", self.since.elapsed().as_micros());
        if edge {
            self.flush(session);
            notice(&mut session.output, &message, &self.parts.join("\n"));
        } else {
            notice(&mut self.waiting, &message, &self.parts.join("\n"));
        }
    }
}

/// What the gateway makes of a statement.
fn understood(part: &Part<'_>, access: Access) -> String {
    let statements = &part.analysis.shape.statements;
    let mut text = String::new();
    for (index, statement) in statements.iter().enumerate() {
        let _ = write!(text, "{}{}", if index == 0 { "" } else { "; " }, command(statement.kind));
        match statement.understood {
            Understood::Parsed => {}
            Understood::Lexed => text.push_str(" (by its words alone)"),
            Understood::Nothing => text.push_str(" (not understood)"),
        }
        tables(&mut text, statement);
    }
    if statements.is_empty() {
        text.push_str("empty");
    }
    let access = match access {
        Access::Read => "reads",
        Access::Write => "may write",
        Access::Unknown => "access unknown",
    };
    let _ = write!(text, ", {access}: ");
    text
}

fn tables(text: &mut String, statement: &Statement) {
    let mut names: Vec<_> = statement
        .tables
        .iter()
        .map(|table| match &table.schema {
            Some(schema) => format!("{schema}.{}", table.name),
            None => table.name.to_string(),
        })
        .collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(TABLES);
    names.truncate(TABLES);
    if !names.is_empty() {
        let _ = write!(text, " of {}", names.join(", "));
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
}

/// A command's name in lower case, words apart.
fn command(kind: Kind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push(' ');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// A target in a sentence.
struct Shown<'a>(&'a Target);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Target { role, shards, labels, max_lag, .. } = self.0;
        f.write_str(match role {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Any => "any node",
        })?;
        match shards {
            Shards::Default => {}
            Shards::One(shard) => write!(f, " of shard {}", shard.0)?,
            Shards::Many(shards) => write!(f, " of {} shards", shards.len())?,
            Shards::All => f.write_str(" of all shards")?,
        }
        for (label, value) in labels.as_deref().unwrap_or_default() {
            write!(f, ", {label} = {value}")?;
        }
        max_lag.map_or(Ok(()), |lag| write!(f, ", at most {lag:?} behind"))
    }
}

/// Appends a NoticeResponse.
fn notice(out: &mut BytesMut, message: &str, detail: &str) {
    frame(out, b'N', |out| {
        let fields = [(b'S', "NOTICE"), (b'V', "NOTICE"), (b'C', "00000"), (b'M', message), (b'D', detail)];
        for (kind, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.put_u8(kind);
            if kind == b'M' {
                out.put_slice(b"pointsman: ");
            }
            // A NUL inside would end the field early.
            out.extend(value.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend;

    #[test]
    fn the_setting_is_a_boolean() {
        for (value, expected) in
            [("on", true), ("TRUE", true), ("1", true), ("yes", true), ("off", false), ("0", false), ("", false)]
        {
            let mut settings = Settings::default();
            settings.set(SETTING, value);
            assert_eq!(wanted(&settings), expected, "{value}");
        }
        assert!(!wanted(&Settings::default()));
    }

    #[test]
    fn a_notice_is_a_whole_message() {
        let mut out = BytesMut::new();
        notice(&mut out, "a\0b", "");
        assert_eq!((out[0], out.len()), (b'N', 1 + u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize));
        let fields = backend::error_fields(&out);
        assert_eq!((fields.severity.as_str(), fields.sqlstate.as_str()), ("NOTICE", "00000"));
        assert_eq!((fields.message.as_str(), fields.detail), ("pointsman: a b", None));
    }

    #[test]
    fn commands_are_words() {
        for (kind, expected) in [(Kind::Select, "select"), (Kind::CopyIn, "copy in"), (Kind::Ddl, "ddl")] {
            assert_eq!(command(kind), expected);
        }
    }
}
