//! Session settings as values: what a client wants set, what a server has set, what a server reports.
//!
//! Invariants: sets are immutable and shared; two clients with equal settings hold the same allocation where the interner
//! made it, so that the usual comparison is one of pointers. What is sent is ASCII whatever the values are, so that it
//! means the same under every client encoding.
//!
//! Deliberately absent: what a setting means.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

/// Settings of a session that differ from the server's own: name (lower case) to value. Values are UTF-8; those of a
/// database of encoding SQL_ASCII, which knows no characters, may be any bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings(BTreeMap<Box<str>, Box<[u8]>>);

impl Settings {
    /// The value of `name`, if it is text.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// The value of `name`.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|value| &**value)
    }

    /// Sets `name`, folded to lower case.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.0.insert(name.to_ascii_lowercase().into(), value.as_ref().into());
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The SQL that makes a server with `from` applied into one with `self` applied; `None`: unknown, all is reset first.
    /// One string for one simple query, so that it is one implicit transaction and fails as a whole.
    #[must_use]
    pub fn transition(&self, from: Option<&Self>) -> String {
        let mut sql = String::new();
        let nothing = Self::default();
        let from = from.unwrap_or_else(|| {
            sql.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
            &nothing
        });
        // Identity comes last to be taken on and first to be laid down: the rights to the other settings hang on it, also
        // where both have the same one.
        let identity = ["role", "session_authorization"];
        let others = |set: &Self| set.0.len() - identity.iter().filter(|n| set.bytes(n).is_some()).count();
        let same = |(name, value): (&str, &[u8])| identity.contains(&name) || from.bytes(name) == Some(value);
        let more = others(self) != others(from) || !self.iter().all(same);
        let changes = |name| from.bytes(name) != self.bytes(name) || (more && self.bytes(name).is_some());
        let changes_user = changes("session_authorization");
        let changes_role = changes_user || changes("role");
        if changes_role {
            sql.push_str("RESET ROLE;");
        }
        if changes_user {
            sql.push_str("RESET SESSION AUTHORIZATION;");
        }
        for (name, _) in from.iter().filter(|(n, _)| !identity.contains(n) && self.bytes(n).is_none()) {
            let _ = write!(sql, "RESET {};", quote_identifier_path(name));
        }
        // The value does not come back: the client encoding of that moment may have no characters for it.
        let set = |sql: &mut String, name: &str, value: &[u8]| {
            let _ = write!(sql, "SELECT pg_catalog.set_config({},{},false) IS NULL;", literal(name), value_sql(value));
        };
        // A time-out holds from the next statement on, of the same string: it comes last.
        let timeout = "statement_timeout";
        for (name, value) in self.iter().filter(|(n, v)| !identity.contains(n) && from.bytes(n) != Some(*v)) {
            if name != timeout {
                set(&mut sql, name, value);
            }
        }
        if changes_role {
            let mut take_on = |words, setting, name: &[u8]| {
                let _ = match std::str::from_utf8(name) {
                    Ok(name) if name.is_ascii() => write!(sql, "SET {words} {};", quote_identifier(name)),
                    _ => write!(sql, "SELECT pg_catalog.set_config('{setting}',{},false) IS NULL;", value_sql(name)),
                };
            };
            if let Some(user) = self.bytes("session_authorization").filter(|_| changes_user) {
                take_on("SESSION AUTHORIZATION", "session_authorization", user);
            }
            if let Some(role) = self.bytes("role") {
                take_on("ROLE", "role", role);
            }
        }
        if let Some(value) = self.bytes(timeout).filter(|value| from.bytes(timeout) != Some(*value)) {
            set(&mut sql, timeout, value);
        }
        sql
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Settings {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(iter: I) -> Self {
        let mut settings = Self::default();
        for (name, value) in iter {
            settings.set(name, value);
        }
        settings
    }
}

/// A string constant that means the same with `standard_conforming_strings` on and off.
#[must_use]
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    out.push_str("E'");
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

/// An expression of ASCII characters for a setting's value: under every client encoding it means the same.
#[must_use]
pub fn value_sql(value: &[u8]) -> String {
    let encoding = match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => return literal(text),
        Ok(_) => "'UTF8'",
        Err(_) => "pg_catalog.getdatabaseencoding()",
    };
    let mut sql = String::from("pg_catalog.convert_from(pg_catalog.decode('");
    for byte in value {
        let _ = write!(sql, "{byte:02x}");
    }
    let _ = write!(sql, "','hex'),{encoding})");
    sql
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A setting's name may have a prefix: `app.tenant`.
fn quote_identifier_path(name: &str) -> String {
    name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".")
}

/// What ParameterStatus said: name as the server spells it, to value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Parameters(BTreeMap<Box<[u8]>, Box<[u8]>>);

impl Parameters {
    /// The value of `name`.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(name).map(|value| &**value)
    }

    /// Sets `name`.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.0.insert(name.into(), value.into());
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }
}

/// Makes equal values share one allocation.
#[derive(Debug)]
pub struct Interner<T>(Mutex<HashSet<Arc<T>>>);

impl<T: Eq + std::hash::Hash> Default for Interner<T> {
    fn default() -> Self {
        Self(Mutex::new(HashSet::new()))
    }
}

impl<T: Eq + std::hash::Hash> Interner<T> {
    /// The shared allocation equal to `value`. Values that nobody else holds are dropped when 1,024 have gathered.
    pub fn intern(&self, value: T) -> Arc<T> {
        let mut set = self.0.lock();
        if let Some(found) = set.get(&value) {
            return Arc::clone(found);
        }
        if set.len() >= 1024 {
            set.retain(|held| Arc::strong_count(held) > 1);
        }
        let made = Arc::new(value);
        // Past the bound a value is simply not shared.
        if set.len() < 65_536 {
            set.insert(Arc::clone(&made));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: Option<&[(&str, &str)]>, to: &[(&str, &str)], expected: &str) {
        let from = from.map(|pairs| pairs.iter().copied().collect::<Settings>());
        let to: Settings = to.iter().copied().collect();
        assert_eq!(to.transition(from.as_ref()), expected);
        crate::sql::qualified::assert_qualified(expected);
    }

    #[test]
    fn a_transition_says_only_what_differs() {
        check(Some(&[]), &[], "");
        check(Some(&[("a", "1")]), &[("a", "1")], "");
        check(
            Some(&[("a", "1")]),
            &[("B", "it's \\")],
            "RESET \"a\";SELECT pg_catalog.set_config(E'b',E'it''s \\\\',false) IS NULL;",
        );
        check(Some(&[("app.x", "1")]), &[], "RESET \"app\".\"x\";");
        check(Some(&[("role", "x")]), &[], "RESET ROLE;");
        check(
            Some(&[]),
            &[("role", "a\"b"), ("a", "1")],
            "RESET ROLE;SELECT pg_catalog.set_config(E'a',E'1',false) IS NULL;SET ROLE \"a\"\"b\";",
        );
        check(None, &[], "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
        check(
            Some(&[]),
            &[("a", "\u{e9}"), ("role", "\u{e9}")],
            "RESET ROLE;\
             SELECT pg_catalog.set_config(E'a',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false) IS NULL;\
             SELECT pg_catalog.set_config('role',pg_catalog.convert_from(pg_catalog.decode('c3a9','hex'),'UTF8'),false) IS NULL;",
        );
        // The role may not have the right to the other settings.
        check(Some(&[("a", "1"), ("role", "x")]), &[("role", "x")], "RESET ROLE;RESET \"a\";SET ROLE \"x\";");
        check(
            Some(&[("session_authorization", "u")]),
            &[("a", "1"), ("role", "x"), ("session_authorization", "u")],
            "RESET ROLE;RESET SESSION AUTHORIZATION;SELECT pg_catalog.set_config(E'a',E'1',false) IS NULL;\
             SET SESSION AUTHORIZATION \"u\";SET ROLE \"x\";",
        );
        check(Some(&[("role", "x"), ("session_authorization", "u")]), &[("session_authorization", "u")], "RESET ROLE;");
        let mut settings = Settings::default();
        settings.set("a", [0xe9]);
        assert_eq!(settings.value("a"), None);
        assert!(
            settings.transition(Some(&Settings::default())).contains("'e9','hex'),pg_catalog.getdatabaseencoding())")
        );
    }
}
