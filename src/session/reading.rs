//! What a statement was read under that was prepared where its session's settings may not have been those that hold: within a
//! transaction that has set some, or behind what sets them in the same group. PostgreSQL keeps what it made of the text then,
//! whatever is set afterwards; so the server is asked right behind the Parse.
//!
//! Invariants: only what has taken a snapshot is followed by a question, so that the transaction may still do what it could;
//! a statement of which that is not told stays one that nobody knows about.
//!
//! Deliberately absent: utility statements, whose Parse takes no snapshot; what comes of it on other servers (`upstream::prepared`, `gateway::private`).

use std::fmt::Write as _;
use std::sync::Arc;

use super::Session;
use super::state::{ANY_SETTING, decode};
use crate::sql::{Effects, folds_constants};
use crate::upstream::{Expected, Prepared, Upstream, Within, read_under};

/// Bytes of all values together that are told.
const TOLD: usize = 256 << 10;

impl Session {
    /// What the transaction at hand may have set otherwise than the session's settings say.
    #[inline]
    #[must_use]
    pub fn within(&self) -> Within {
        let constants = self.refolds || self.deferred.sets(folds_constants);
        Within { constants, path: self.may_have_set("search_path") }
    }

    /// Whether the transaction at hand has set the search path, as far as its statements say so.
    pub(super) fn sets_path(&self) -> bool {
        let path = |name: &str| name.eq_ignore_ascii_case("search_path");
        self.effects.any(Effects::ALL_SETTINGS)
            || self.touched.iter().any(|name| path(name))
            || self.deferred.sets(path)
    }

    /// Whether something since the server was last asked about settings may have changed this one.
    fn may_have_set(&self, setting: &str) -> bool {
        let same = |name: &str| name.eq_ignore_ascii_case(setting);
        self.effects.any(ANY_SETTING) || self.touched.iter().any(|name| same(name)) || self.deferred.sets(same)
    }

    /// Asks what the statement, whose Parse was sent right now, is read under.
    pub(super) fn ask_what_it_is_read_under(&mut self, up: &mut Upstream, statement: Arc<Prepared>) {
        let asked: Box<[&'static str]> = read_under().filter(|name| self.may_have_set(name)).collect();
        let sql = question(&asked);
        up.ask_within(&sql, Expected::Reading { statement, asked }, self);
    }

    /// The server has told: of the settings asked for, those that were set.
    pub(super) fn settle(&mut self, statement: &Prepared, asked: &[&'static str], told: &[u8]) {
        let mut settings = (*self.settings).clone();
        for name in asked {
            settings.remove(name);
        }
        for pair in String::from_utf8_lossy(told).split_terminator(',') {
            let Some((name, value)) = pair.split_once(' ') else { return };
            let Some(value) = decode(value) else { return };
            settings.set(name, value);
        }
        statement.settle(&settings);
    }
}

/// Of the settings `asked` for those that the session has set, in one row: names and values, those in digits.
fn question(asked: &[&str]) -> String {
    let mut names = String::new();
    for name in asked {
        // Writing to a string does not fail.
        let _ = write!(names, "{}'{name}'", if names.is_empty() { "" } else { "," });
    }
    format!(
        "SELECT CASE WHEN pg_catalog.sum(pg_catalog.octet_length(v)) OPERATOR(pg_catalog.>) {TOLD} THEN NULL ELSE \
         pg_catalog.concat(pg_catalog.string_agg(pg_catalog.concat(n, ' ', pg_catalog.encode(pg_catalog.convert_to(v, \
         CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), \
         'hex')), ',')) END \
         FROM (SELECT n, pg_catalog.current_setting(n) AS v FROM pg_catalog.unnest(ARRAY[{names}]::pg_catalog.text[]) AS n) AS a \
         WHERE CASE WHEN n OPERATOR(pg_catalog.=) 'role' THEN v OPERATOR(pg_catalog.<>) 'none' \
         WHEN n OPERATOR(pg_catalog.=) 'session_authorization' THEN (v OPERATOR(pg_catalog.=) \
         (SELECT b.usename FROM pg_catalog.pg_stat_activity b WHERE b.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())\
         ::pg_catalog.text) IS NOT TRUE ELSE EXISTS (SELECT FROM pg_catalog.pg_settings s \
         WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) n AND s.source OPERATOR(pg_catalog.=) 'session') END"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_changes_nothing() {
        let all: Vec<_> = read_under().collect();
        crate::sql::qualified::assert_qualified(&question(&all));
    }
}
