//! The custom settings that functions name in their sources: no catalogue of a server's lists those of a session, so each is
//! asked for by its name.
//!
//! Invariant: a name too many does no harm, for one that is not set has no value. A source that puts a name together is told
//! apart from one that spells it out, and from one that takes it as an argument: the call's text or values show it then.
//!
//! Not seen: a name that a variable holds, or that an argument of the caller's puts together.

use std::collections::BTreeSet;

/// Most names of one database.
const NAMES: usize = 256;

/// Longest that is asked for, as `session` has it.
const LONGEST: usize = 1024;

/// Adds what `source` names to `names`: its arguments, its result and its body, with semicolons between. Returns whether it
/// may set what it does not name, or more than there is room for.
pub(super) fn collect(source: &str, names: &mut BTreeSet<Box<str>>) -> bool {
    let text = source.to_ascii_lowercase();
    let arguments = text.split(';').next().unwrap_or_default();
    let mut unnamed = false;
    for (at, _) in text.match_indices("set") {
        let (before, behind) = (&text[..at], &text[at + 3..]);
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name = match behind.strip_prefix("_config") {
            Some(behind) => called(behind, arguments),
            None => assigned(before, behind),
        };
        match name {
            Name::Spelt(name) if name.contains('.') && name.len() <= LONGEST => {
                if names.len() < NAMES || names.contains(name) {
                    names.insert(name.into());
                } else {
                    unnamed = true;
                }
            }
            Name::Spelt(_) | Name::Elsewhere => {}
            Name::Computed => unnamed = true,
        }
    }
    unnamed
}

enum Name<'t> {
    Spelt(&'t str),
    /// The call says it, or there is none.
    Elsewhere,
    Computed,
}

/// Behind `set_config`.
fn called<'t>(behind: &'t str, arguments: &str) -> Name<'t> {
    let Some(argument) = behind.trim_start().strip_prefix('(') else { return Name::Elsewhere };
    if inside(argument).trim_end().ends_with("true") {
        // To the end of the transaction.
        return Name::Elsewhere;
    }
    let argument = argument.trim_start();
    let quoted = argument.trim_start_matches('\'');
    let (name, rest) = plain(quoted);
    if quoted.len() == argument.len() {
        // An argument of the function's own; a variable may hold anything.
        let own = !name.is_empty() && (name.starts_with('$') || has_word(arguments, name));
        return if own && rest.trim_start().starts_with(',') { Name::Elsewhere } else { Name::Computed };
    }
    let rest = rest.trim_start_matches('\'').trim_start();
    if rest.starts_with(',') || rest.starts_with("::") { Name::Spelt(name) } else { Name::Computed }
}

/// Behind SET, in a statement or in a text that is put together to be executed.
fn assigned<'t>(before: &str, behind: &'t str) -> Name<'t> {
    let mut rest = behind.trim_start();
    if rest.len() == behind.len() {
        return Name::Elsewhere;
    }
    for scope in ["session ", "local "] {
        rest = rest.strip_prefix(scope).unwrap_or(rest).trim_start();
    }
    let (name, rest) = plain(rest.trim_start_matches('"'));
    // UPDATE's SET stands behind a table.
    let executed = before.trim_end().ends_with('\'');
    let open = name.is_empty() || name.ends_with('.') || rest.starts_with('\'') && !rest.starts_with("''");
    if executed && open { Name::Computed } else { Name::Spelt(name) }
}

/// What stands before the parenthesis that closes the one before `text`.
fn inside(text: &str) -> &str {
    let (mut depth, mut quoted) = (0_u32, false);
    let end = text.find(|c: char| {
        quoted ^= c == '\'';
        match c {
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => return true,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        false
    });
    end.map_or("", |end| &text[..end])
}

/// The name that a text begins with, and the rest.
fn plain(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '$'))).unwrap_or(text.len());
    text.split_at(end)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str, unnamed: bool) {
        let mut names = BTreeSet::new();
        assert_eq!(collect(source, &mut names), unnamed, "{source}");
        assert_eq!(names.into_iter().collect::<Vec<_>>().join(" "), expected, "{source}");
    }

    #[test]
    fn names_that_are_spelt_out() {
        check("a text;void;begin perform set_config('App.x', a, false); end", "app.x", false);
        check(
            "a text;void;select pg_catalog.set_config ( 'app.x'::text, a, false), set_config('work_mem', a, true)",
            "app.x",
            false,
        );
        check(
            ";void;begin set app.x = 1; set session app.y to 2; set local \"app.z\" = 3; end",
            "app.x app.y app.z",
            false,
        );
        check("a text;void;begin execute 'set app.x = ' || quote_literal(a); end", "app.x", false);
        check(
            "a text;void;begin execute format('set app.x to %L', a); do 'begin set_config(''app.y'', 1)'; end",
            "app.x app.y",
            false,
        );
        check(
            ";void;update t set v = 1; update offset set x = 2; select set_config('app.x', f('a)', 1), true)",
            "",
            false,
        );
    }

    #[test]
    fn names_that_are_not() {
        check("n text, v text;text;select set_config(n, v, false)", "", false);
        check("text, text;text;select set_config($1, $2, false)", "", false);
        check("n text;text;select set_config('app.' || n, 'v', false)", "", true);
        check("n text;text;select set_config(n || '.x', 'v', false)", "", true);
        check("n text;text;select set_config(n || '.x', 'v', true)", "", false);
        check("n text;text;begin w := 'app.' || n; perform set_config(w, 'v', false); end", "", true);
        check("n text;text;begin execute 'set app.' || n || ' = 1'; end", "", true);
        check("n text;text;begin execute format('set %I = 1', n); execute 'set ' || n || ' = 1'; end", "", true);
        check("n text;text;begin execute format('update t set %I = 1', n); end", "", false);
    }

    #[test]
    fn they_are_bounded() {
        let mut names = BTreeSet::new();
        for n in 0..NAMES {
            assert!(!collect(&format!(";;set a.b{n} = 1"), &mut names));
        }
        assert!(collect(";;set a.c = 1", &mut names) && !collect(";;set a.b7 = 1", &mut names));
        assert_eq!(names.len(), NAMES);
    }
}
