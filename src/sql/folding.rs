//! Settings that decide what values PostgreSQL makes of a text once, when it is prepared or planned, for all its uses.
//!
//! Invariant: a name too many costs a plan made anew, one too few shows a session what another's settings made.
//!
//! Deliberately absent: `backslash_quote`, which makes errors only; functions that are STABLE, which nothing is folded of.

use super::analysis::Effects;

/// Settings that decide what a constant is that is written as text, or what a comparison with NULL means; and those that
/// [`OUTPUT`] lists.
pub const FOLDING: [&str; 11] = [
    "array_nulls",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "quote_all_identifiers",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Of those, the ones that functions declared IMMUTABLE look at (`byteaout`, `float8out`, `quote_ident`): they decide what a plan
/// holds, whatever the text looks like.
pub const OUTPUT: [&str; 3] = ["bytea_output", "extra_float_digits", "quote_all_identifiers"];

/// Whether plans made under another value of `setting` may have other constants.
#[must_use]
pub fn folds_constants(setting: &str) -> bool {
    FOLDING.iter().any(|name| setting.eq_ignore_ascii_case(name))
}

/// Whether functions, or their sources, are read otherwise under another value of `setting`: all of PL/pgSQL's own count, also those
/// that do not exist, of which the next user is warned.
#[must_use]
pub fn reads_sources(setting: &str) -> bool {
    let prefix = setting.split('.').next().unwrap_or_default();
    ["standard_conforming_strings", "plpgsql"].iter().any(|name| prefix.eq_ignore_ascii_case(name))
}

/// Whether `source`, the source of a function or a text that was not understood, may set one of the former for a while: by SET, which
/// may stand in a string, or by `set_config`.
#[must_use]
pub fn sets_folding(source: &str) -> bool {
    sets(source, folds_constants, true)
}

/// What it may set inside of what is called, by name.
#[must_use]
pub fn sets_inside(source: &str) -> Effects {
    let effect = |some: fn(&str) -> bool, effect| if sets(source, some, false) { effect } else { Effects::NONE };
    effect(folds_constants, Effects::REFOLDS) | effect(reads_sources, Effects::REREADS)
}

/// `unnamed`: what a variable or an argument names, which is not known, counts.
fn sets(source: &str, some: fn(&str) -> bool, unnamed: bool) -> bool {
    let text = source.to_ascii_lowercase();
    text.match_indices("set").any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + 3..]);
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            return false;
        }
        match behind.strip_prefix("_config") {
            Some(behind) => {
                let Some(argument) = skip(behind).strip_prefix('(') else { return false };
                let argument = skip(argument);
                let name = argument.trim_start_matches('\'');
                if name.len() == argument.len() { unnamed } else { some(word(name)) }
            }
            None => assigns(behind, some),
        }
    })
}

/// Whether what follows SET is such a setting. UPDATE's SET may be taken for one, and does no harm.
fn assigns(behind: &str, some: fn(&str) -> bool) -> bool {
    let mut rest = skip(behind);
    if rest.len() == behind.len() {
        return false;
    }
    for scope in ["session", "local"] {
        if word(rest) == scope {
            rest = skip(&rest[scope.len()..]);
        }
    }
    let name = word(rest.trim_start_matches('"'));
    let second = || word(skip(&rest[name.len().min(rest.len())..]));
    let zone = || name == "time" && second() == "zone" && some("timezone");
    some(name) || zone() || name == "xml" && second() == "option" && some("xmloption")
}

/// What stands behind white space and comments.
fn skip(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let behind = if rest.starts_with("/*") {
            rest.split_once("*/").map(|(_, behind)| behind)
        } else if rest.starts_with("--") {
            rest.split_once('\n').map(|(_, behind)| behind)
        } else {
            None
        };
        match behind {
            Some(behind) => rest = behind.trim_start(),
            None => return rest,
        }
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sets_them_for_a_while_is_seen() {
        let check = |source: &str, expected| assert_eq!(sets_folding(source), expected, "{source}");
        check("BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', true); END", true);
        check("PERFORM set_config( 'app.a', 'timezone', true)", false);
        check("PERFORM set_config(name, 'x', true)", true);
        check("SET LOCAL datestyle = 'SQL'", true);
        check("set session time  zone 'UTC'", true);
        check("EXECUTE 'SET TIME ZONE ' || z", true);
        check("SET \"timezone\" TO x", true);
        check("UPDATE t SET at = now() AT TIME ZONE 'UTC'", false);
        check("UPDATE t SET a = timezone('UTC', now())", false);
        check("select offset_timezone, reset from t", false);
        check("set xml option document", true);
        check("SET", false);
        check("set/* for now */local -- all\n timezone = 'UTC'", true);
        check("set local standard_conforming_strings = off", false);
    }

    #[test]
    fn how_sources_are_read_is_seen() {
        let check = |source: &str, expected| assert_eq!(sets_inside(source), expected, "{source}");
        check("set local standard_conforming_strings = off", Effects::REREADS);
        check("select set_config('plpgsql.variable_conflict', 'use_column', true)", Effects::REREADS);
        check("SET plpgsql.no_such TO 1; SET TIME ZONE 3", Effects::SETS_INSIDE);
        check("select set_config('app.plpgsql', 'x', true)", Effects::NONE);
        check("update plpgsql set a = 1", Effects::NONE);
        check("perform set_config(name, value, true)", Effects::NONE);
    }

    #[test]
    fn outputs_are_among_them() {
        assert!(folds_constants("TimeZone") && !folds_constants("client_encoding"));
        assert!(OUTPUT.iter().all(|name| folds_constants(name)));
    }
}
