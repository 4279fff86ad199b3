//! Notifications on their way to a client that may hear of some channels from elsewhere than from its server.
//!
//! Invariant: a channel that is heard elsewhere is not heard from the session's server as well. What is heard elsewhere
//! comes in UTF-8 (or as it is, where the database knows no characters) and reaches the client in its own encoding or not
//! at all.
//!
//! Deliberately absent: who hears elsewhere.

use std::fmt::Write as _;

use super::Session;
use crate::wire::TransactionStatus;
use crate::wire::backend::{self, frames};

/// How a text of the gateway's becomes one of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    AsItIs,
    Latin1,
    /// Only ASCII is the same in it.
    Other,
}

impl Session {
    /// Whether the client waits for nothing and is in nothing: a server would tell it of notifications now.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.status == TransactionStatus::Idle
            && !self.in_group
            && !self.skip_to_sync
            && self.streaming == 0
            && self.unit.is_empty()
            && !self.deferred.active()
    }

    /// Whether notifications can be told to the client whatever their texts are.
    #[must_use]
    pub fn hears_all_texts(&self) -> bool {
        self.script() != Script::Other
    }

    /// Puts out what NotificationResponse messages of the session's server say, but for channels heard elsewhere.
    pub fn take_notifications(&mut self, bytes: &[u8]) {
        for frame in frames(bytes) {
            let heard = backend::notification(frame).is_ok_and(|told| self.hears_from_server(told.channel));
            if heard {
                self.notified = true;
                self.output.extend_from_slice(frame);
            }
        }
    }

    /// Puts out a NotificationResponse that was heard elsewhere. `false`: its text has no form in the client's encoding.
    pub fn notify(&mut self, frame: &[u8]) -> bool {
        let Ok(told) = backend::notification(frame) else { return true };
        let plain = told.channel.is_ascii() && told.payload.is_ascii();
        match self.script() {
            _ if plain => self.output.extend_from_slice(frame),
            Script::AsItIs => self.output.extend_from_slice(frame),
            Script::Latin1 => {
                let (Some(channel), Some(payload)) = (to_latin1(told.channel), to_latin1(told.payload)) else {
                    return false;
                };
                backend::write_notification(&mut self.output, told.process, &channel, &payload);
            }
            Script::Other => return false,
        }
        true
    }

    /// Whether the session hears of a channel, named in the client's encoding, from its server.
    pub(super) fn hears_from_server(&self, channel: &[u8]) -> bool {
        if self.elsewhere.is_empty() {
            return true;
        }
        let latin1;
        let name = if !channel.is_ascii() && self.script() == Script::Latin1 {
            latin1 = channel.iter().map(|byte| char::from(*byte)).collect::<String>();
            latin1.as_bytes()
        } else {
            channel
        };
        !self.elsewhere.iter().any(|held| **held == *name)
    }

    fn script(&self) -> Script {
        let said = |name: &[u8]| self.reported.value(name).unwrap_or_default();
        let server = said(b"server_encoding");
        match said(b"client_encoding") {
            _ if server == b"SQL_ASCII" => Script::AsItIs,
            b"UTF8" => Script::AsItIs,
            b"SQL_ASCII" if server == b"UTF8" => Script::AsItIs,
            b"LATIN1" => Script::Latin1,
            _ => Script::Other,
        }
    }
}

/// A channel's name as an identifier of ASCII characters, which mean the same under every client encoding.
#[must_use]
pub fn channel_sql(name: &str) -> String {
    let mut sql = String::from(if name.is_ascii() { "\"" } else { "U&\"" });
    for c in name.chars() {
        match c {
            '"' => sql.push_str("\"\""),
            '\\' if !name.is_ascii() => sql.push_str("\\\\"),
            c if c.is_ascii() => sql.push(c),
            c => {
                // Writing to a String cannot fail.
                let _ = write!(sql, "\\+{:06x}", u32::from(c));
            }
        }
    }
    sql.push('"');
    sql
}

fn to_latin1(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_in_ascii() {
        for (name, expected) in [
            ("news", "\"news\""),
            ("a \"b\"\\", "\"a \"\"b\"\"\\\""),
            ("für\\\"", "U&\"f\\+0000fcr\\\\\"\"\""),
            ("🚂", "U&\"\\+01f682\""),
        ] {
            assert_eq!(channel_sql(name), expected);
        }
    }

    #[test]
    fn latin1_has_no_more_than_its_own_characters() {
        assert_eq!(to_latin1("ä".as_bytes()), Some(vec![0xe4]));
        assert_eq!(to_latin1("€".as_bytes()), None);
        assert_eq!(to_latin1(&[0xe4]), None);
    }
}
