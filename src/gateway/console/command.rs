//! The console's commands, and its tables on the wire.
//!
//! Invariant: what is not a known command is an error that says what is known. Deliberately absent: what the tables hold.

use bytes::{BufMut as _, BytesMut};

use crate::sql::{Lexer, TokenKind};
use crate::upstream::ErrorReply;
use crate::wire::frontend::frame;

/// What can be shown: its name, and what it tells.
pub(super) const TABLES: [(&str, Show, &str); 12] = [
    ("CLIENTS", Show::Clients, "sessions: state, transaction, server, why it is kept"),
    ("SERVERS", Show::Servers, "server connections, lent ones and idle ones"),
    ("POOLS", Show::Pools, "a row for each database and user"),
    ("DATABASES", Show::Databases, "what clients may ask for, as the configuration says"),
    ("NODES", Show::Nodes, "the servers: role, health, lag"),
    ("USERS", Show::Users, "the users of the configuration"),
    ("STATS", Show::Stats, "what was counted for each database since the start"),
    ("STATS_TOTALS", Show::StatsTotals, "the same, under other names"),
    ("CONFIG", Show::Config, "what of the configuration PgBouncer has, too"),
    ("LISTS", Show::Lists, "how many there are of each"),
    ("VERSION", Show::Version, "of the gateway"),
    ("HELP", Show::Help, "this"),
];

/// A table of the console's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Clients,
    Servers,
    Pools,
    Databases,
    Nodes,
    Users,
    Stats,
    StatsTotals,
    Config,
    Lists,
    Version,
    Help,
}

/// One statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing but blanks.
    Empty,
    Show(Show),
    /// What drivers say around their statements: it changes nothing but what ReadyForQuery tells.
    Begin,
    Commit,
    Rollback,
    /// The client's statements go; the tag.
    Deallocate(&'static str),
    /// SET, RESET and their like: taken and forgotten; the tag.
    Ignored(&'static str),
}

/// The statements of a text, without comments, their words and marks in upper case with a blank between.
pub(super) fn statements(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    Lexer::whole(text.as_bytes(), true, |token| match token.kind {
        TokenKind::Comment => {}
        TokenKind::Punctuation if token.text == b";" => parts.push(String::new()),
        _ => {
            let part = parts.last_mut().map(|part| (part.is_empty(), part));
            if let Some((first, part)) = part {
                part.push_str(if first { "" } else { " " });
                part.push_str(&String::from_utf8_lossy(token.text).to_ascii_uppercase());
            }
        }
    });
    while parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    parts
}

/// Reads one of [`statements`].
pub(super) fn read(text: &str) -> Result<Command, ErrorReply> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    Ok(match (words.next(), words.next(), words.next()) {
        (None, ..) => Command::Empty,
        (Some("SHOW"), None, _) => Command::Show(Show::Help),
        (Some("SHOW"), Some(name), None) => {
            let known = TABLES.iter().find(|(known, ..)| *known == name);
            Command::Show(known.ok_or_else(|| unknown(text))?.1)
        }
        (Some("BEGIN"), ..) | (Some("START"), Some("TRANSACTION"), _) => Command::Begin,
        (Some("COMMIT" | "END"), ..) => Command::Commit,
        (Some("ROLLBACK" | "ABORT"), ..) => Command::Rollback,
        (Some("SET"), Some(_), _) => Command::Ignored("SET"),
        (Some("RESET"), Some(_), _) => Command::Ignored("RESET"),
        (Some("DISCARD"), Some("ALL"), None) => Command::Deallocate("DISCARD ALL"),
        (Some("DEALLOCATE"), Some("ALL"), None) => Command::Deallocate("DEALLOCATE ALL"),
        // With what else drivers reset a session.
        (Some("CLOSE"), Some("ALL"), None) => Command::Ignored("CLOSE CURSOR ALL"),
        (Some("UNLISTEN"), Some("*"), None) => Command::Ignored("UNLISTEN"),
        (Some("SELECT"), Some("PG_ADVISORY_UNLOCK_ALL"), Some("(")) => Command::Ignored("SELECT 0"),
        (
            Some("KILL" | "PAUSE" | "RESUME" | "RELOAD" | "SHUTDOWN" | "SUSPEND" | "DISABLE" | "ENABLE" | "RECONNECT"),
            ..,
        ) => {
            return Err(ErrorReply::error("0A000", "the console only reads").hint(
                "The configuration is reloaded when its file changes and on SIGHUP; SIGTERM stops the gateway.",
            ));
        }
        _ => return Err(unknown(text)),
    })
}

fn unknown(text: &str) -> ErrorReply {
    let begin: String = text.trim().chars().take(40).collect();
    ErrorReply::error("42601", format!("the console does not know \"{begin}\""))
        .hint("SHOW HELP lists what it knows; it is no database.")
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
}

/// A column's value; of [`Kind::Number`] in a column of that kind, or null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Null,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The result formats that a Bind asks for: none is text, one is for all columns.
pub(super) fn is_binary(formats: &[u16], column: usize) -> bool {
    let format = if formats.len() == 1 { formats.first() } else { formats.get(column) };
    format == Some(&1)
}

/// Writes a RowDescription.
pub(super) fn write_description(out: &mut BytesMut, columns: &[(&str, Kind)], formats: &[u16]) {
    frame(out, b'T', |out| {
        out.put_u16(columns.len() as u16);
        for (index, (name, kind)) in columns.iter().enumerate() {
            out.put_slice(name.as_bytes());
            out.put_u8(0);
            // No table, no place in one.
            out.put_u32(0);
            out.put_u16(0);
            // `TEXTOID` and `INT8OID` of `pg_type.dat`.
            let (oid, length) = match kind {
                Kind::Text => (25, -1),
                Kind::Number => (20, 8),
            };
            out.put_u32(oid);
            out.put_i16(length);
            out.put_i32(-1);
            out.put_u16(u16::from(is_binary(formats, index)));
        }
    });
}

/// Writes a DataRow.
pub(super) fn write_row(out: &mut BytesMut, row: &[Value], formats: &[u16]) {
    frame(out, b'D', |out| {
        out.put_u16(row.len() as u16);
        for (index, value) in row.iter().enumerate() {
            match value {
                Value::Null => out.put_i32(-1),
                Value::Number(number) if is_binary(formats, index) => {
                    out.put_i32(8);
                    out.put_i64(*number);
                }
                Value::Number(number) => put_text(out, &number.to_string()),
                Value::Text(text) => put_text(out, text),
            }
        }
    });
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::data_row;

    #[test]
    fn commands_are_read_in_any_case() {
        for (text, expected) in [
            ("", Command::Empty),
            (" ; ", Command::Empty),
            ("show clients", Command::Show(Show::Clients)),
            ("  SHOW\n Pools ;", Command::Show(Show::Pools)),
            ("SHOW", Command::Show(Show::Help)),
            ("show help", Command::Show(Show::Help)),
            ("BEGIN READ ONLY", Command::Begin),
            ("start transaction", Command::Begin),
            ("end", Command::Commit),
            ("Abort", Command::Rollback),
            ("SET application_name = 'x'", Command::Ignored("SET")),
            ("DISCARD ALL", Command::Deallocate("DISCARD ALL")),
            ("deallocate all", Command::Deallocate("DEALLOCATE ALL")),
            ("/* a; */ SHOW /* b */ lists -- c", Command::Show(Show::Lists)),
            ("SELECT pg_advisory_unlock_all()", Command::Ignored("SELECT 0")),
        ] {
            let [statement] = &statements(text)[..] else { panic!("{text}") };
            assert_eq!(read(statement).ok(), Some(expected), "{text}");
        }
        for (name, show, _) in TABLES {
            assert_eq!(read(&format!("SHOW {name}")).ok(), Some(Command::Show(show)));
        }
        for (text, sqlstate) in
            [("SELECT 1", "42601"), ("SHOW NOTHING", "42601"), ("SHOW CLIENTS X", "42601"), ("RELOAD", "0A000")]
        {
            assert_eq!(read(text).unwrap_err().sqlstate, sqlstate, "{text}");
        }
    }

    #[test]
    fn a_text_may_hold_several() {
        assert_eq!(statements("SHOW LISTS; ;SHOW POOLS;"), ["SHOW LISTS", "", "SHOW POOLS"]);
        assert_eq!(statements(" ; "), [""]);
    }

    #[test]
    fn rows_are_written_in_the_formats_asked_for() {
        let row = [Value::from("é"), Value::from(7_u64), Value::Null];
        for (formats, number) in [
            (&[][..], &b"7"[..]),
            (&[0], b"7"),
            (&[1], &[0, 0, 0, 0, 0, 0, 0, 7]),
            (&[0, 1, 0], &[0, 0, 0, 0, 0, 0, 0, 7]),
        ] {
            let mut out = BytesMut::new();
            write_row(&mut out, &row, formats);
            assert_eq!(data_row(&out).unwrap(), [Some("é".as_bytes()), Some(number), None], "{formats:?}");
        }
    }
}
