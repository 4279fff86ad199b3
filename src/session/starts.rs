//! What the servers' catalogue sets for sessions that begin: by role, by database, by both (`pg_db_role_setting`).
//!
//! PostgreSQL applies it once, when a session starts (`process_settings` in `postinit.c`). Invariant: the questions are ASCII and
//! cannot fail for what a name or a value holds, so that they can be put beside any other; they mean the same under every search path.
//!
//! Deliberately absent: asking, and what follows from an answer.

use crate::upstream::{Answer, Settings, literal, value_sql};

/// All of it, for any database and role: rows of four columns, the last a hash of the settings. Names are told as the bytes that they
/// are, in digits; NULL stands for all databases, or all roles.
pub(super) const STARTS_SQL: &str = "SELECT '', \
(SELECT pg_catalog.encode(CAST(pg_catalog.replace(CAST(d.datname AS pg_catalog.text), pg_catalog.chr(92), \
pg_catalog.repeat(pg_catalog.chr(92), 2)) AS pg_catalog.bytea), 'hex') \
FROM pg_catalog.pg_database d WHERE d.oid OPERATOR(pg_catalog.=) s.setdatabase), \
(SELECT pg_catalog.encode(CAST(pg_catalog.replace(CAST(r.rolname AS pg_catalog.text), pg_catalog.chr(92), \
pg_catalog.repeat(pg_catalog.chr(92), 2)) AS pg_catalog.bytea), 'hex') \
FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) s.setrole), \
CAST(pg_catalog.hashtextextended(CAST(s.setconfig AS pg_catalog.text), 0) AS pg_catalog.text) \
FROM pg_catalog.pg_db_role_setting s;";

/// What a primary said is set for sessions that begin.
#[derive(Debug, Default)]
pub struct Starts(Vec<Row>);

#[derive(Debug)]
struct Row {
    /// In digits, as the next.
    database: Option<Box<str>>,
    role: Option<Box<str>>,
    hash: Box<str>,
}

impl Starts {
    /// The question alone.
    pub const SQL: &str = STARTS_SQL;

    /// From an answer that holds the rows, among others perhaps.
    #[must_use]
    pub fn read(answer: &Answer) -> Self {
        let row = |row: &Vec<Option<String>>| match row.as_slice() {
            [_, database, role, Some(hash)] => {
                let name = |name: &Option<String>| name.as_deref().map(Into::into);
                Some(Row { database: name(database), role: name(role), hash: hash.as_str().into() })
            }
            _ => None,
        };
        Self(answer.rows.iter().filter_map(row).collect())
    }

    /// What concerns a user in a database, in a form that can only be compared. Empty: nothing.
    #[must_use]
    pub fn of(&self, database: &str, user: &str) -> Box<str> {
        let is = |held: &Option<Box<str>>, digits: &str| held.as_deref().is_none_or(|held| held == digits);
        let (database, user) = (digits(database), digits(user));
        let concerned = self.0.iter().filter(|row| is(&row.database, &database) && is(&row.role, &user));
        let mark = |row: &Row| {
            let kind = |held: &Option<Box<str>>| if held.is_some() { '1' } else { '0' };
            format!("{}{}{};", kind(&row.database), kind(&row.role), row.hash)
        };
        let mut marks: Vec<_> = concerned.map(mark).collect();
        marks.sort_unstable();
        marks.concat().into()
    }

    /// Asks a server what it started with: each setting that the catalogue has for `user` in `database`, and each of `more`. Three
    /// columns: name, value in digits, what the user may set: `t`.
    #[must_use]
    pub fn values_sql<'a>(database: &str, user: &str, more: impl Iterator<Item = &'a str>) -> String {
        let more: Vec<_> = more.filter(|name| name.is_ascii()).map(literal).collect();
        let (database, user) = (value_sql(database.as_bytes()), value_sql(user.as_bytes()));
        // The value that RESET gives: what the session has set since does not count. A setting that no library has defined is in no
        // catalogue; empty is the nearest to none that a session can begin with.
        format!(
            "SELECT n, pg_catalog.encode(pg_catalog.convert_to(v, \
             CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), 'hex'), may FROM (SELECT n, \
             CASE WHEN p.name IS NOT NULL THEN p.reset_val \
             WHEN pg_catalog.strpos(n, '.') OPERATOR(pg_catalog.>) 0 THEN COALESCE(pg_catalog.current_setting(n, true), '') END AS v, \
             CASE WHEN p.context IS NULL OR p.context OPERATOR(pg_catalog.=) 'user' \
             OR p.context OPERATOR(pg_catalog.=) 'superuser' \
             AND (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {user}) THEN 't' END AS may \
             FROM (SELECT pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) AS n FROM pg_catalog.pg_db_role_setting s, \
             pg_catalog.unnest(s.setconfig) AS c \
             WHERE s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, \
             (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) {database})]) \
             AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, \
             (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {user})]) \
             UNION SELECT pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[])) AS a \
             LEFT JOIN pg_catalog.pg_settings p ON pg_catalog.lower(p.name) OPERATOR(pg_catalog.=) n) AS b WHERE v IS NOT NULL;",
            more.join(",")
        )
    }

    /// Takes the answer of a server on which `applied` was set since, if that is known: of a setting that no library has defined it
    /// tells the session's value.
    #[must_use]
    pub fn values(answer: &Answer, applied: Option<&Settings>) -> Settings {
        let mut values = Settings::default();
        for row in &answer.rows {
            let [Some(name), Some(value), Some(_)] = row.as_slice() else { continue };
            let own = !name.contains('.') || applied.is_some_and(|applied| applied.bytes(name).is_none());
            // The start-up message ends a value with a zero byte, which no value holds.
            if own && let Some(value) = super::state::decode(value) {
                values.set(name, value);
            }
        }
        values
    }
}

fn digits(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::qualified::assert_qualified;

    #[test]
    fn a_search_path_changes_nothing() {
        assert_qualified(Starts::SQL);
        assert_qualified(&Starts::values_sql("a", "b", ["c", "d.e"].into_iter()));
    }

    fn starts(rows: &[[Option<&str>; 3]]) -> Starts {
        let row = |[database, role, hash]: &[Option<&str>; 3]| {
            [Some(""), *database, *role, *hash].iter().map(|column| column.map(str::to_owned)).collect()
        };
        Starts::read(&Answer { rows: rows.iter().map(row).collect(), ..Answer::default() })
    }

    #[test]
    fn rows_concern_whom_they_name() {
        // "a" and "b" in digits.
        let (a, b) = (Some("61"), Some("62"));
        let all = starts(&[[None, None, Some("1")], [a, None, Some("2")], [None, b, Some("3")], [a, b, Some("4")]]);
        assert_eq!(&*all.of("a", "b"), "001;013;102;114;");
        assert_eq!(&*all.of("a", "a"), "001;102;");
        assert_eq!(&*all.of("b", "b"), "001;013;");
        assert_eq!(&*all.of("x", "x"), "001;");
        assert_eq!(&*starts(&[]).of("a", "b"), "");
        // Set for the role, not for the database.
        assert_ne!(starts(&[[None, a, Some("1")]]).of("a", "a"), starts(&[[a, None, Some("1")]]).of("a", "a"));
    }

    #[test]
    fn what_the_user_may_not_set_and_what_the_session_has_set_is_left_out() {
        let row = |name: &str, value: &str, may: bool| {
            vec![Some(name.to_owned()), Some(value.to_owned()), may.then(|| "t".to_owned())]
        };
        let rows = vec![row("work_mem", "3634", true), row("log_statement", "61", false), row("app.a", "62", true)];
        let answer = Answer { rows, ..Answer::default() };
        let names = |applied: Option<&Settings>| {
            Starts::values(&answer, applied).iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(&Settings::default())), ["app.a", "work_mem"]);
        assert_eq!(names(Some(&[("app.a", "x")].into_iter().collect())), ["work_mem"]);
        assert_eq!(names(None), ["work_mem"]);
    }
}
