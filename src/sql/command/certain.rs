//! Which SET LOCAL cannot fail, whatever server runs it: those may wait for a transaction's first statement.
//!
//! Invariant: `true` only where every PostgreSQL since 13 takes the name and the value from anybody, and says nothing of it. What
//! is not listed here runs on a server at once.
//!
//! Deliberately absent: what hangs on catalogues (roles, configurations, tablespaces), on the place in the transaction
//! (`transaction_isolation`) or on the process (`temp_buffers`); characters that the database may lack (`session::local`).
//!
//! Source: `guc_tables.c`; `valid_custom_variable_name`, `parse_int` and `parse_bool` in `guc.c`; `flatten_set_variable_args` in
//! `guc_funcs.c`; `generic_set` and `ColId` in `gram.y`.

use super::HeadToken;
use crate::sql::folding::folds_constants;
use crate::sql::lexer::TokenKind;

/// Longest name that is not cut with a NOTICE, in bytes.
const NAME_LIMIT: usize = 63;
/// Longest literal that is looked at, in bytes: what is kept of a longer one is not all of it.
const VALUE_LIMIT: usize = 500;

/// Prefixes that a library may have reserved in one server's process and not in another's: those of PostgreSQL's own, and of
/// the extensions that are met most. A library may also refuse values.
const OF_LIBRARIES: &str = "age anon auth_delay auto_explain basic_archive citus columnar credcheck cron duckdb hll hnsw hypopg isn \
    ivfflat orafce oracle passwordcheck paradedb pg_hint_plan pg_net pg_partman_bgw pg_prewarm pg_repack \
    pg_squeeze pg_stat_kcache pg_stat_monitor pg_stat_statements pg_trgm pg_wait_sampling pgaudit pgcrypto \
    pglogical pgroonga plperl plpgsql plpgsql_check plprofiler plpython plpython3 plr pltcl pltclu plv8 postgis \
    postgres_fdw rum sepgsql set_user timescaledb";

/// `reserved_keyword` of `gram.y`: neither names nor values without quotes.
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create \
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable \
    desc distinct do else end except false fetch for foreign from grant group having in initially intersect into \
    lateral leading limit localtime localtimestamp not null offset on only or order placing primary references \
    returning select session_user some symmetric system_user table then to trailing true union unique user using \
    variadic when where window with";

/// `type_func_name_keyword`: values, but no names without quotes.
const TYPE_NAMES: &str = "authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull join left \
    like natural notnull outer overlaps right similar tablesample verbose";

/// What a setting takes.
enum Takes {
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    Integer(u64, u64),
    /// Milliseconds, or with a unit.
    Time,
    /// From so many kB up, or with a unit.
    Memory(u64),
    /// Any number that is not negative.
    Cost,
    Names,
    /// Any one value.
    Anything,
}

/// Whether `SET LOCAL name = values` cannot fail. `name` is the lower-case name of the tokens `named`.
pub(super) fn cannot_fail(name: &str, named: &[HeadToken], values: &[HeadToken]) -> bool {
    if !named.iter().all(is_column_name) {
        return false;
    }
    if folds_constants(name) {
        // The plans that the server has may have to go first.
        return false;
    }
    let Some(takes) = takes(name) else { return false };
    if let Takes::Names = takes {
        let separated = |(at, token): (usize, &HeadToken)| {
            if at % 2 == 1 { *token.text == *b"," } else { is_value(token) && !is_number(token) }
        };
        return values.len() % 2 == 1 && values.iter().enumerate().all(separated);
    }
    let (value, negative) = match values {
        [value] => (value, false),
        [sign, value] if *sign.text == *b"-" && is_number(value) => (value, true),
        _ => return false,
    };
    if !is_value(value) && !is_number(value) && !is_switch(value) {
        return false;
    }
    if let Takes::Anything = takes {
        return true;
    }
    let Some(text) = plain(value).filter(|_| !negative) else { return false };
    match takes {
        Takes::Boolean => ["on", "off", "true", "false", "yes", "no", "1", "0"].contains(&&*text),
        Takes::Word(words) => words.contains(&&*text),
        Takes::Integer(least, most) => integer(&text).is_some_and(|number| (least..=most).contains(&number)),
        Takes::Time => {
            quantity(&text, value.kind, &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
                .is_some_and(|time| time <= INT_MAX)
        }
        Takes::Memory(least) => {
            quantity(&text, value.kind, &[("kB", 1), ("MB", 1 << 10), ("GB", 1 << 20), ("TB", 1 << 30)])
                .is_some_and(|size| (least..=INT_MAX).contains(&size))
        }
        Takes::Cost => {
            let digit = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            text.len() < 16
                && text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(digit)
                && text.matches('.').count() < 2
        }
        Takes::Names | Takes::Anything => true,
    }
}

const INT_MAX: u64 = i32::MAX as u64;

fn takes(name: &str) -> Option<Takes> {
    if name.contains('.') {
        let prefix = name.split('.').next().unwrap_or_default();
        return (name.split('.').all(is_identifier) && !OF_LIBRARIES.split(' ').any(|known| known == prefix))
            .then_some(Takes::Anything);
    }
    Some(match name {
        "search_path" => Takes::Names,
        "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => Takes::Time,
        "work_mem" | "logical_decoding_work_mem" => Takes::Memory(64),
        "maintenance_work_mem" => Takes::Memory(1024),
        "synchronous_commit" => Takes::Word(&["on", "off", "local", "remote_write", "remote_apply", "true", "false"]),
        "constraint_exclusion" => Takes::Word(&["on", "off", "partition", "true", "false"]),
        "plan_cache_mode" => Takes::Word(&["auto", "force_generic_plan", "force_custom_plan"]),
        "bytea_output" => Takes::Word(&["hex", "escape"]),
        "client_min_messages" => Takes::Word(&["debug", "log", "notice", "warning", "error"]),
        "join_collapse_limit" | "from_collapse_limit" => Takes::Integer(1, INT_MAX),
        "max_parallel_workers_per_gather" | "max_parallel_workers" | "max_parallel_maintenance_workers" => {
            Takes::Integer(0, 1024)
        }
        "default_statistics_target" => Takes::Integer(1, 10_000),
        "random_page_cost"
        | "seq_page_cost"
        | "cpu_tuple_cost"
        | "cpu_index_tuple_cost"
        | "cpu_operator_cost"
        | "parallel_setup_cost"
        | "parallel_tuple_cost"
        | "jit_above_cost"
        | "jit_inline_above_cost"
        | "jit_optimize_above_cost" => Takes::Cost,
        "enable_bitmapscan"
        | "enable_gathermerge"
        | "enable_hashagg"
        | "enable_hashjoin"
        | "enable_incremental_sort"
        | "enable_indexonlyscan"
        | "enable_indexscan"
        | "enable_material"
        | "enable_mergejoin"
        | "enable_nestloop"
        | "enable_parallel_append"
        | "enable_parallel_hash"
        | "enable_partition_pruning"
        | "enable_partitionwise_aggregate"
        | "enable_partitionwise_join"
        | "enable_seqscan"
        | "enable_sort"
        | "enable_tidscan"
        | "geqo"
        | "jit"
        | "row_security"
        | "array_nulls"
        | "check_function_bodies"
        | "quote_all_identifiers"
        | "synchronize_seqscans"
        | "parallel_leader_participation"
        | "transform_null_equals" => Takes::Boolean,
        _ => return None,
    })
}

/// A name without quotes, or with: `ColId`, or what stands between two such.
fn is_column_name(token: &HeadToken) -> bool {
    match token.kind {
        TokenKind::Word => is_free(token) && !is_word_of(TYPE_NAMES, token),
        TokenKind::QuotedIdent => (1..=NAME_LIMIT).contains(&token.text.len()),
        _ => *token.text == *b".",
    }
}

/// A value of a kind that needs no number: `NonReservedWord_or_Sconst`.
fn is_value(token: &HeadToken) -> bool {
    match token.kind {
        TokenKind::Word => is_free(token),
        TokenKind::QuotedIdent => (1..=NAME_LIMIT).contains(&token.text.len()),
        _ => plain(token).is_some(),
    }
}

/// TRUE, FALSE and ON are reserved, and values all the same.
fn is_switch(token: &HeadToken) -> bool {
    token.kind == TokenKind::Word && is_word_of("true false on", token)
}

fn is_number(token: &HeadToken) -> bool {
    matches!(token.kind, TokenKind::Integer | TokenKind::Decimal) && token.text.len() < 16
}

fn is_free(token: &HeadToken) -> bool {
    token.text.len() <= NAME_LIMIT && !is_word_of(RESERVED, token)
}

fn is_word_of(words: &str, token: &HeadToken) -> bool {
    words.split(' ').any(|word| word.as_bytes() == &*token.text)
}

/// A part of a custom setting's name.
fn is_identifier(part: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let more = |byte: u8| start(byte) || byte.is_ascii_digit() || byte == b'$';
    part.bytes().next().is_some_and(start) && part.bytes().all(more)
}

/// What a word, a number or a string says, where that needs no reading of escapes.
fn plain(token: &HeadToken) -> Option<String> {
    let text = std::str::from_utf8(&token.text).ok()?;
    let inner = match token.kind {
        TokenKind::Word => return Some(text.to_owned()),
        _ if is_number(token) => return Some(text.to_owned()),
        TokenKind::String if text.len() <= VALUE_LIMIT => text.strip_prefix('\'')?.strip_suffix('\'')?,
        _ => return None,
    };
    // A quote within: two of them, or a literal that goes on.
    (!inner.contains(['\\', '\n', '\r']) && !inner.replace("''", "").contains('\'')).then(|| inner.replace("''", "'"))
}

/// A plain number, without the zeros that would make it an octal one in a string.
fn integer(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0');
    if plain && text.len() < 12 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A number, of the first unit or in a string with its own.
fn quantity(text: &str, kind: TokenKind, units: &[(&str, u64)]) -> Option<u64> {
    if kind != TokenKind::String {
        return integer(text);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[end..].trim_start_matches(' ');
    let factor = units.iter().find(|(name, _)| *name == unit || unit.is_empty())?.1;
    integer(&text[..end])?.checked_mul(factor)
}

/// Whether a name may stand without quotes where PostgreSQL wants a `ColId`, as savepoints' do.
pub(super) fn is_name(token: &HeadToken) -> bool {
    matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdent) && is_column_name(token)
}

#[cfg(test)]
mod tests {
    use crate::sql::tests::analyze;

    #[test]
    fn what_may_wait() {
        for (certain, texts) in [
            (
                true,
                &[
                    "SET LOCAL app.tenant = 'it''s'",
                    "set local App.\"user\".a$1 to -5",
                    "SET LOCAL app.tenant = acme -- so",
                    "SET /* so */ LOCAL app.tenant TO on;",
                    "SET LOCAL app.tenant = 'sch\u{f6}n'",
                    "SET LOCAL search_path = a, \"B\", 'c d', ''",
                    "SET LOCAL search_path TO public",
                    "SET LOCAL statement_timeout = 5000",
                    "SET LOCAL statement_timeout = '5 s'",
                    "SET LOCAL lock_timeout = '0'",
                    "SET LOCAL idle_in_transaction_session_timeout TO '24d'",
                    "SET LOCAL work_mem = 64",
                    "SET LOCAL work_mem TO '64MB'",
                    "SET LOCAL enable_seqscan = OFF",
                    "SET LOCAL jit = 0",
                    "SET LOCAL synchronous_commit TO 'off'",
                    "SET LOCAL random_page_cost = 1.1",
                ][..],
            ),
            (
                false,
                &[
                    "SET app.tenant = 'x'",
                    "SET LOCAL app.tenant = 'a', 'b'",
                    "SET LOCAL app.tenant = user",
                    "SET LOCAL app.user = 'x'",
                    "SET LOCAL \"app.no-such\" = 'x'",
                    "SET LOCAL app.1a = 'x'",
                    "SET LOCAL \"\".a = 'x'",
                    "SET LOCAL app. = 'x'",
                    "SET LOCAL app.tenant = E'\\xff'",
                    "SET LOCAL app.tenant = 'x' y",
                    "SET LOCAL app.tenant = $1",
                    "SET LOCAL app.tenant =",
                    "SET LOCAL plpgsql.no_such = 'x'",
                    "SET LOCAL search_path = 1",
                    "SET LOCAL search_path = a,",
                    "SET LOCAL search_path = a b",
                    "SET LOCAL statement_timeout = -1",
                    "SET LOCAL statement_timeout = '25d'",
                    "SET LOCAL statement_timeout = '5 years'",
                    "SET LOCAL statement_timeout = 2147483648",
                    "SET LOCAL work_mem = 63",
                    "SET LOCAL work_mem = 'abc'",
                    "SET LOCAL work_mem = '64mb'",
                    "SET LOCAL work_mem = '010'",
                    "SET LOCAL enable_seqscan = maybe",
                    "SET LOCAL random_page_cost = -1",
                    "SET LOCAL temp_buffers = 100",
                    "SET LOCAL nosuch_setting = 1",
                    "SET LOCAL shared_buffers = 1",
                    "SET LOCAL log_statement = 'all'",
                    "SET LOCAL role = nosuch",
                    "SET LOCAL ROLE nosuch",
                    "SET LOCAL TIME ZONE 'nowhere'",
                    "SET LOCAL transaction_isolation = 'serializable'",
                    "SET LOCAL work_mem TO DEFAULT",
                ],
            ),
        ] {
            for text in texts {
                let shape = analyze(text).shape;
                assert_eq!(shape.statements.first().is_some_and(|statement| statement.certain), certain, "{text}");
            }
        }
        for (text, whole) in [("SAVEPOINT user", false), ("SAVEPOINT a b", false), ("SAVEPOINT \"user\"", true)] {
            assert_eq!(analyze(text).shape.statements[0].transaction.unwrap().whole, whole, "{text}");
        }
    }
}
