//! What waits for a transaction's first statement: a SET LOCAL that may fail does not, and fails where it stands.

use crate::support::{Gateway, Raw, database, message, query, sqlstate};

/// What a Query comes to: the command tag or the SQLSTATE, and the transaction's status behind it.
fn say(client: &mut Raw, text: &str) -> String {
    client.send(&query(text));
    tell(&client.until(b'Z'))
}

/// The same as a group of its own.
fn say_extended(client: &mut Raw, text: &str) -> String {
    let parse = message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    client.send(&[parse, message(b'B', &[0; 8]), message(b'E', &[0; 5]), message(b'S', b"")].concat());
    tell(&client.until(b'Z'))
}

fn tell(answer: &[(u8, Vec<u8>)]) -> String {
    let text = |body: &[u8]| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
    let told = answer.iter().filter_map(|(tag, body)| match tag {
        b'E' => Some(sqlstate(body)),
        b'D' => Some(format!("[{}]", text(&body[6..]))),
        b'C' if body.starts_with(b"SELECT") => None,
        b'C' | b'Z' => Some(text(body)),
        _ => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_set_local_that_fails_fails_where_it_stands() {
    let database = database("local_fails");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut direct = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    for steps in [
        &["begin", "set local work_mem='abc'", "commit"][..],
        &["begin", "savepoint a", "set local role nosuch", "rollback to a", "select 1", "commit"],
        &["begin", "set local nosuch_setting=1", "select 1", "rollback"],
        &["begin", "set local shared_buffers=1000", "rollback"],
        &["begin", "set local log_statement='all'", "rollback"],
        &["begin", "set local statement_timeout='5 years'", "rollback"],
        &["begin", "savepoint s", "set local transaction_isolation='serializable'", "rollback"],
        &["begin", "savepoint s", "set transaction isolation level serializable", "rollback"],
        &["begin", "savepoint s", "release s", "set transaction isolation level serializable", "commit"],
        &["begin read only", "savepoint s", "set transaction read write", "rollback"],
        &["begin", "set local app.user='x'", "rollback"],
        &["begin", "set local \"app.no-such\"='x'", "rollback"],
        &["begin", "set local app.a='x', 'y'", "rollback"],
        &["begin", "savepoint user", "rollback"],
        &["begin", "savepoint a b", "rollback"],
        &["begin", "savepoint a", "release a b", "rollback"],
        &["begin", "set local default_text_search_config='nosuch'", "rollback"],
        // And those that do not fail mean what they say.
        &["begin", "set local role demo", "select current_user", "commit"],
        &["begin", "set local transaction_isolation='serializable'", "show transaction_isolation", "commit"],
        &[
            "begin",
            "set local work_mem='5MB'",
            "savepoint a",
            "set local app.a=-5",
            "rollback to a",
            "show work_mem",
            "commit",
        ],
        &["begin", "set local search_path='', \"B\", c", "show search_path", "commit"],
        &["begin", "set local statement_timeout='5 min'", "show statement_timeout", "commit"],
        &["begin", "set local app.a='ü'", "select current_setting('app.a')", "commit"],
    ] {
        for step in steps {
            assert_eq!(say(&mut client, step), say(&mut direct, step), "{step} of {steps:?}");
        }
        for step in steps {
            assert_eq!(say_extended(&mut client, step), say_extended(&mut direct, step), "{step} of {steps:?}");
        }
    }
}

/// No server is needed, so that the first statement can choose one.
#[test]
fn what_cannot_fail_waits() {
    let database = database("local_waits");
    let gateway = Gateway::setup().pool("size = 1\nquery_wait = \"5s\"").start();
    if crate::support::direct() {
        return;
    }
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    // The only server is taken.
    assert_eq!(say(&mut other, "begin"), "BEGIN T");
    assert_eq!(say(&mut other, "select pg_current_xact_id() is not null"), "[t] T");
    for step in ["begin", "set local app.tenant = 'ac''me'", "set local search_path to acme, public", "savepoint a"] {
        let tag = step.split(' ').next().unwrap_or_default().to_uppercase();
        assert_eq!(say(&mut client, step), format!("{tag} T"));
    }
    assert_eq!(say(&mut other, "commit"), "COMMIT I");
    assert_eq!(say(&mut client, "select current_setting('app.tenant')"), "[ac'me] T");
    assert_eq!(say(&mut client, "rollback"), "ROLLBACK I");
}

/// Whatever is taken for certain here is what the server takes.
#[test]
fn names_and_values_at_the_edges() {
    let database = database("local_edges");
    let gateway = Gateway::setup().pool("size = 1").start();
    let mut direct = Raw::log_in(gateway.cluster.primary().port(), "demo", &database);
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    // None is so short that it may end the session of a slow machine.
    let times = [
        "0",
        "'0'",
        "2147483647",
        "2147483648",
        "'24d'",
        "'25d'",
        "'596h'",
        "'597h'",
        "'1 min'",
        "'1min '",
        "-1",
        "90000.5",
        "0300000",
        "'0300000'",
        "'08'",
        "'5S'",
        "''",
        "5s",
        "s",
    ];
    let sizes = [
        "63",
        "64",
        "'64kB'",
        "'63kB'",
        "'1TB'",
        "'2TB'",
        "'1 GB'",
        "'1gb'",
        "2147483647",
        "'2097151MB'",
        "'1023kB'",
        "1024",
    ];
    let switches = [
        "on", "ON", "'off'", "true", "False", "yes", "NO", "1", "0", "'1'", "2", "maybe", "'On'", "t", "\"off\"",
        "on, off", "user", "$$on$$", "E'on'",
    ];
    let words = [
        "on",
        "local",
        "'remote_apply'",
        "REMOTE_WRITE",
        "'LOCAL'",
        "auto",
        "force_generic_plan",
        "hex",
        "escape",
        "partition",
        "notice",
        "DEBUG",
        "'debug6'",
        "true",
    ];
    let numbers = [
        "0",
        "1",
        "1024",
        "1025",
        "10000",
        "10001",
        "-1",
        "1.1",
        "'1.5'",
        "1e3",
        "'1.'",
        "'.5'",
        ".5",
        "'1.1.1'",
        "2147483648",
        "'0'",
        "x",
    ];
    let values = [
        "'it''s'", "a", "A_b", "user", "left", "true", "on", "off", "-5", "+5", "1.5e3", "''", "\"x\"", "\"\"",
        "E'a\\n'", "$$a$$", "'a' 'b'", "'a'\n'b'", "a, b", "b'1'", "N'x'", "null", "U&'x'", "- 5", "a.b", "(a)", "'ü'",
    ];
    let names = [
        "app.a",
        "App.\"B\"",
        "app.user",
        "app.left",
        "app.between",
        "app.\"user\"",
        "a.b.c",
        "app.a$",
        "app._1",
        "app.1",
        "\"app.x\"",
        "\"app.x-y\"",
        "\"ap p\".x",
        "app.\"\"",
        ".a",
        "app.ü",
        "plpgsql.extra_warnings",
        "plpgsql.nosuch",
    ];
    let each = |names: &[&str], values: &[&str]| -> Vec<String> {
        names.iter().flat_map(|name| values.iter().map(move |value| format!("set local {name} = {value}"))).collect()
    };
    let texts = [
        each(&["statement_timeout", "lock_timeout"], &times[..2]),
        each(&["idle_in_transaction_session_timeout"], &times),
        each(&["work_mem", "maintenance_work_mem", "logical_decoding_work_mem"], &sizes),
        each(&["enable_sort", "row_security", "jit", "geqo", "transform_null_equals"], &switches),
        each(
            &["synchronous_commit", "constraint_exclusion", "plan_cache_mode", "bytea_output", "client_min_messages"],
            &words,
        ),
        each(
            &[
                "join_collapse_limit",
                "max_parallel_workers",
                "default_statistics_target",
                "random_page_cost",
                "jit_above_cost",
            ],
            &numbers,
        ),
        each(&["app.a", "search_path"], &values),
        each(&names, &["'x'"]),
    ];
    for text in texts.concat() {
        for step in ["begin", &text, "rollback"] {
            assert_eq!(say(&mut client, step), say(&mut direct, step), "{step} of {text}");
        }
    }
}
