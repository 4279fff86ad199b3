//! What waits for a transaction's first statement: a SET LOCAL that may fail does not, and fails where it stands.

use crate::support::{Gateway, Raw, database, message, sqlstate};

/// What a Query comes to: the command tag or the SQLSTATE, and the transaction's status behind it.
fn say(client: &mut Raw, text: &str) -> String {
    client.send(&message(b'Q', &[text.as_bytes(), b"\0"].concat()));
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
