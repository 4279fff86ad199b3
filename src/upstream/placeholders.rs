//! Custom settings that the library of a procedural language takes away.
//!
//! A process that has not loaded the library takes any name under its prefix and keeps it, value or not, until the library is
//! loaded there: whoever does that, by calling a function, is told of each name that the library does not know
//! (`MarkGUCPrefixReserved` in `guc.c`).
//!
//! Deliberately absent: libraries that are loaded by name, which keeps a session on its server.

/// Prefix, and the settings that it has in PostgreSQL 13 to 18 (`_PG_init` in `pl_handler.c`, `plperl.c`, `pltcl.c`).
const LANGUAGES: [(&str, &[&str]); 4] = [
    ("plpgsql", &["variable_conflict", "print_strict_params", "check_asserts", "extra_warnings", "extra_errors"]),
    ("plperl", &["use_strict", "on_init", "on_plperl_init", "on_plperlu_init"]),
    ("pltcl", &["start_proc"]),
    ("pltclu", &["start_proc"]),
];

/// Whether a process that is told to set this keeps a name of which the next user may be told.
#[must_use]
pub fn leaves_name(setting: &str) -> bool {
    let Some((prefix, name)) = setting.split_once('.') else { return false };
    let language = LANGUAGES.iter().find(|(language, _)| language.eq_ignore_ascii_case(prefix));
    language.is_some_and(|(_, known)| !known.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::leaves_name;

    #[test]
    fn names_that_no_library_knows_are_left() {
        for (setting, expected) in [
            ("plpgsql.no_such", true),
            ("PLpgSQL.No_Such", true),
            ("plpgsql.extra_warnings.x", true),
            ("plpgsql.Extra_Warnings", false),
            ("pltclu.on_init", true),
            ("plperl.use_strict", false),
            ("app.tenant", false),
            ("work_mem", false),
        ] {
            assert_eq!(leaves_name(setting), expected, "{setting}");
        }
    }
}
