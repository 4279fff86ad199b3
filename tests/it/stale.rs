//! Settings that a server takes no more, though the session has them: what they name is gone.

use crate::support::{Gateway, Raw, database, direct, message, query, sqlstate, startup, sync};

/// What a Query comes to: its first value, its tag, or the SQLSTATE.
fn say(client: &mut Raw, text: &str) -> String {
    client.send(&query(text));
    tell(&client.until(b'Z'))
}

fn tell(answer: &[(u8, Vec<u8>)]) -> String {
    let text = |body: &[u8]| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
    let of = |wanted: u8| answer.iter().find(|(tag, _)| *tag == wanted).map(|(_, body)| body);
    let error = of(b'E').map(|body| sqlstate(body));
    error
        .or_else(|| of(b'D').map(|body| text(&body[6..])))
        .or_else(|| of(b'C').map(|body| text(body)))
        .unwrap_or_default()
}

/// A role that `demo` may take on, and that goes with the test.
struct Passing<'a>(&'a Gateway<'a>, String);

impl<'a> Passing<'a> {
    fn new(gateway: &'a Gateway<'a>, label: &str) -> Self {
        let role = Self(gateway, format!("passing_{label}"));
        role.sql(&format!("DROP ROLE IF EXISTS {0}", role.1));
        role.come();
        role
    }

    fn come(&self) {
        self.sql(&format!("CREATE ROLE {0}; GRANT {0} TO demo", self.1));
    }

    fn sql(&self, text: &str) {
        self.0.cluster.primary().psql("postgres", text).unwrap();
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.sql(&format!("DROP ROLE IF EXISTS {}", self.1));
    }
}

#[test]
fn a_setting_that_names_what_is_gone_can_be_taken_back() {
    let database = database("stale_setting");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let owner = gateway.cluster.primary();
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    for back in
        ["RESET ALL", "DISCARD ALL", "RESET default_text_search_config", "SET default_text_search_config = 'simple'"]
    {
        owner.psql(&database, "CREATE TEXT SEARCH CONFIGURATION c (copy = simple)").unwrap();
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        assert_eq!(say(&mut client, "SET default_text_search_config = 'public.c'"), "SET");
        assert_eq!(say(&mut client, "SET work_mem = '5MB'"), "SET");
        assert_eq!(say(&mut other, "SHOW work_mem"), "4MB");
        owner.psql(&database, "DROP TEXT SEARCH CONFIGURATION c").unwrap();
        if !direct() {
            client.send(&query("SELECT 1"));
            let answer = client.until(b'Z');
            let error = answer.iter().find(|(tag, _)| *tag == b'E').unwrap();
            assert_eq!(sqlstate(&error.1), "22023");
            let words = String::from_utf8_lossy(&error.1).into_owned();
            assert!(
                words.contains("the session's setting \"default_text_search_config\" cannot be applied any more"),
                "{words}"
            );
            assert!(words.contains("RESET default_text_search_config, or DISCARD ALL"), "{words}");
        }
        for step in ["ROLLBACK", "SET work_mem = '6MB'"] {
            assert_eq!(say(&mut client, step), step.split(' ').next().unwrap());
        }
        if !direct() {
            assert_eq!(say(&mut client, "SELECT 1"), "22023", "it is not forgotten");
            assert_eq!(say(&mut client, "SET work_mem = 'nonsense'"), "22023");
            assert_eq!(say(&mut client, "SELECT 1"), "22023", "nor by what failed");
        }
        // What comes right behind it waits for it.
        client.send(&[query(back), query("SHOW work_mem")].concat());
        let tag = if back == "DISCARD ALL" { back } else { back.split(' ').next().unwrap() };
        assert_eq!(tell(&client.until(b'Z')), tag);
        let expected = if back.ends_with("ALL") { "4MB" } else { "6MB" };
        assert_eq!(tell(&client.until(b'Z')), expected, "{back}");
        assert_eq!(say(&mut other, "SHOW work_mem"), "4MB");
        assert_ne!(say(&mut client, "SHOW default_text_search_config"), "public.c", "{back}");
    }
}

#[test]
fn a_role_that_is_gone_can_be_laid_down() {
    let database = database("stale_role");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    if direct() {
        return;
    }
    let role = Passing::new(&gateway, "role");
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    for back in ["RESET ROLE", "DISCARD ALL", "SET ROLE NONE", "SET ROLE demo"] {
        for gone in [format!("REVOKE {} FROM demo", role.1), format!("DROP ROLE {}", role.1)] {
            let mut client = Raw::log_in(gateway.port, "demo", &database);
            assert_eq!(say(&mut client, &format!("SET ROLE {}", role.1)), "SET");
            assert_eq!(say(&mut other, "SELECT current_user"), "demo");
            role.sql(&gone);
            let refused = say(&mut client, "SELECT current_user");
            assert!(["22023", "42501"].contains(&&*refused), "{gone}: {refused}");
            // It leaves the role alone, and nothing runs without it.
            for step in ["RESET ALL", "SET work_mem = '5MB'", "SET ROLE nosuch"] {
                client.send(&[query(step), query("SELECT current_user")].concat());
                let told = tell(&client.until(b'Z'));
                let expected = if step == "RESET ALL" { "RESET" } else { &*refused };
                assert!([expected, "22023"].contains(&&*told), "{step}: {told}");
                assert_eq!(tell(&client.until(b'Z')), refused, "{step}, {gone}");
            }
            assert_eq!(say(&mut client, "BEGIN"), "BEGIN");
            assert_eq!(say(&mut client, "SET work_mem = '5MB'"), refused);
            assert_eq!(say(&mut client, "ROLLBACK"), "ROLLBACK");
            let tag = if back == "DISCARD ALL" { back } else { back.split(' ').next().unwrap() };
            assert_eq!(say(&mut client, back), tag, "{gone}");
            assert_eq!(say(&mut client, "SELECT current_user"), "demo", "{back}, {gone}");
            role.sql(&format!("DROP ROLE IF EXISTS {}", role.1));
            role.come();
        }
    }
}

/// What is only prepared, only bound, local, or taken back in the same breath, lays no role down.
#[test]
fn a_role_is_laid_down_by_what_takes_place_only() {
    let database = database("stale_undone");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    if direct() {
        return;
    }
    let (role, spare) = (Passing::new(&gateway, "undone"), Passing::new(&gateway, "spare"));
    let parse = |name: &str, text: &str| message(b'P', format!("{name}\0{text}\0\0\0").as_bytes());
    let bind = |portal: &str, name: &str| message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes());
    let execute = |portal: &str| message(b'E', format!("{portal}\0\0\0\0\0").as_bytes());
    let describe = |name: &str| message(b'D', format!("S{name}\0").as_bytes());
    let take = format!("SET ROLE {}", spare.1);
    let run = |name: &str| [bind("", name), execute("")].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a local role", vec![query(&format!("SET LOCAL ROLE {}", spare.1))]),
        ("no role, locally", vec![query("SET LOCAL ROLE NONE")]),
        ("a local user", vec![query("SET LOCAL SESSION AUTHORIZATION demo")]),
        ("a local role, bound", vec![parse("", "SET LOCAL ROLE NONE"), run(""), sync()]),
        ("RESET and ROLLBACK", vec![query("RESET ROLE; ROLLBACK")]),
        ("SET and ROLLBACK", vec![query(&format!("{take}; ROLLBACK"))]),
        ("a Parse of RESET", vec![parse("", "RESET ROLE"), sync()]),
        ("a Parse of SET", vec![parse("", &take), sync()]),
        ("a description of SET", vec![parse("", &take), describe(""), sync()]),
        ("a description of RESET", vec![describe("reset"), sync()]),
        ("a Bind of RESET", vec![bind("", "reset"), sync()]),
        ("a Bind of RESET ahead of another", vec![bind("p", "reset"), run("path"), sync()]),
        ("a Bind of RESET over another", vec![bind("", "reset"), run("path"), sync()]),
        ("a group with ROLLBACK", vec![run("reset"), run("undo"), sync()]),
        ("a group that ends in a Query", vec![run("reset"), query("ROLLBACK"), sync()]),
        ("a group that fails", vec![run("reset"), parse("", "SET ROLE nosuch"), run(""), sync()]),
    ];
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    for (what, frames) in cases {
        let mut client = Raw::log_in(gateway.port, "demo", &database);
        for (name, text) in [("reset", "RESET ROLE"), ("undo", "ROLLBACK"), ("path", "SET search_path = public")] {
            client.send(&[parse(name, text), sync()].concat());
            client.until(b'Z');
        }
        assert_eq!(say(&mut client, &format!("SET ROLE {}", role.1)), "SET");
        assert_eq!(say(&mut client, "SELECT current_user"), role.1);
        assert_eq!(say(&mut other, "SELECT current_user"), "demo");
        role.sql(&format!("REVOKE {} FROM demo", role.1));
        client.send(&frames.concat());
        client.until(b'Z');
        assert_eq!(say(&mut client, "SELECT current_user"), "42501", "{what}");
        // And what drivers do, which prepare it first, gives the role up.
        if what.contains("RESET") {
            client.send(&[parse("", "RESET ROLE"), describe(""), sync()].concat());
            client.until(b'Z');
            client.send(&[run(""), sync()].concat());
            assert_eq!(tell(&client.until(b'Z')), "RESET", "{what}");
            assert_eq!(say(&mut client, "SELECT current_user"), "demo", "{what}");
        }
        role.sql(&format!("GRANT {} TO demo", role.1));
        if !what.contains("RESET") {
            assert_eq!(say(&mut client, "SELECT current_user"), role.1, "{what}");
        }
    }
}

#[test]
fn a_local_value_takes_no_setting_back() {
    let database = database("stale_local");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    if direct() {
        return;
    }
    let owner = gateway.cluster.primary();
    owner.psql(&database, "CREATE TEXT SEARCH CONFIGURATION c (copy = simple)").unwrap();
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let mut client = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(say(&mut client, "SET default_text_search_config = 'public.c'"), "SET");
    assert_eq!(say(&mut other, "SELECT 1"), "1");
    owner.psql(&database, "DROP TEXT SEARCH CONFIGURATION c").unwrap();
    say(&mut client, "SET LOCAL default_text_search_config = 'simple'");
    assert_eq!(say(&mut client, "SHOW default_text_search_config"), "22023");
    assert_eq!(say(&mut client, "SET default_text_search_config = 'simple'"), "SET");
    assert_eq!(say(&mut client, "SHOW default_text_search_config"), "pg_catalog.simple");
}

/// What drivers' pools send when a connection comes back.
#[test]
fn pools_of_drivers_are_rid_of_it() {
    let database = database("stale_pool");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    let owner = gateway.cluster.primary();
    let mut client = Raw::connect(gateway.port);
    owner.psql(&database, "CREATE TEXT SEARCH CONFIGURATION c (copy = simple)").unwrap();
    let user = [("user", "demo"), ("database", &*database), ("options", "-c default_text_search_config=public.c")];
    client.send(&startup(196_608, &user));
    client.until(b'Z');
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    assert_eq!(say(&mut client, "SELECT 1"), "1");
    assert_eq!(say(&mut other, "SELECT 1"), "1");
    owner.psql(&database, "DROP TEXT SEARCH CONFIGURATION c").unwrap();
    let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL; SET work_mem = '5MB'";
    assert_eq!(say(&mut client, reset), "");
    assert_eq!(say(&mut client, "SHOW work_mem"), "5MB");
    assert_eq!(say(&mut client, "SELECT 1"), "1");
    assert_eq!(say(&mut client, "DISCARD ALL"), "DISCARD ALL");
    assert_eq!(say(&mut client, "SELECT 1"), "1");
}

/// RESET and DISCARD go back to the role that a session began with: who may not take it on any more has no other's rights for that.
#[test]
fn a_role_that_a_session_began_with_is_laid_down_by_name() {
    let database = database("stale_begun");
    let gateway = Gateway::setup().pool("size = 1").weights(0, 0).start();
    if direct() {
        return;
    }
    let (role, spare) = (Passing::new(&gateway, "begun"), Passing::new(&gateway, "second"));
    let mut other = Raw::log_in(gateway.port, "demo", &database);
    let begin = || {
        let mut client = Raw::connect(gateway.port);
        let options = format!("-c role={}", role.1);
        client.send(&startup(196_608, &[("user", "demo"), ("database", &*database), ("options", &*options)]));
        client.until(b'Z');
        client
    };
    let user = "SELECT current_user";
    for taken in ["SET ROLE NONE", &format!("SET ROLE {}", spare.1)] {
        let mut client = begin();
        assert_eq!(say(&mut client, user), role.1);
        assert_eq!(say(&mut client, taken), "SET");
        let now = if taken.ends_with("NONE") { "demo" } else { &*spare.1 };
        assert_eq!(say(&mut client, user), now);
        assert_eq!(say(&mut other, user), "demo");
        assert_eq!(say(&mut client, user), now, "{taken}");
        assert_eq!(say(&mut client, "RESET ROLE"), "RESET");
        assert_eq!(say(&mut client, user), role.1, "{taken}");
    }
    let second = format!("SET ROLE {}; RESET ROLE", spare.1);
    for back in ["RESET ROLE", "DISCARD ALL", "RESET ALL", &second] {
        let mut client = begin();
        assert_eq!(say(&mut client, user), role.1);
        assert_eq!(say(&mut other, user), "demo");
        role.sql(&format!("REVOKE {} FROM demo", role.1));
        say(&mut client, back);
        assert_eq!(say(&mut client, user), "42501", "{back}");
        assert_eq!(say(&mut client, "SELECT pg_advisory_unlock_all(), current_user"), "42501", "{back}");
        assert_eq!(say(&mut client, "SELECT pg_advisory_unlock_all() WHERE current_user = 'demo'"), "42501", "{back}");
        assert_eq!(say(&mut client, "SELECT pg_advisory_unlock_all() ;"), "", "{back}");
        assert_eq!(say(&mut client, "SET work_mem = '5MB'"), "42501", "{back}");
        client.send(&query(user));
        let answer = client.until(b'Z');
        let (_, error) = answer.iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert!(String::from_utf8_lossy(error).contains("SET ROLE NONE gives it up"), "{back}");
        assert_eq!(say(&mut client, "SET ROLE NONE"), "SET", "{back}");
        assert_eq!(say(&mut client, user), "demo", "{back}");
        assert_eq!(say(&mut client, "RESET ROLE"), "42501", "{back}");
        assert_eq!(say(&mut client, user), "demo", "{back}");
        role.sql(&format!("GRANT {} TO demo", role.1));
        assert_eq!(say(&mut client, "RESET ROLE"), "RESET", "{back}");
        assert_eq!(say(&mut client, user), role.1, "{back}");
    }
}
