//! ALTER ROLE and ALTER DATABASE with SET and RESET: who connects afterwards begins with it, sessions that exist do not change.

use std::fs;

use crate::support::{Gateway, Raw, database, database_on, direct, eventually, message, query, startup};

/// A role of the shared cluster for one test.
fn role(gateway: &Gateway<'_>, database: &str) -> String {
    let name = format!("r_{database}");
    gateway.cluster.primary().psql("postgres", &format!("CREATE ROLE {name} LOGIN")).unwrap();
    gateway.cluster.wait_replayed().unwrap();
    name
}

/// A client, and what it was told of its settings when it logged in.
struct Client {
    raw: Raw,
    told: Vec<(String, String)>,
}

impl Client {
    fn new(gateway: &Gateway<'_>, user: &str, database: &str) -> Self {
        Self::with(gateway, user, database, &[])
    }

    fn with(gateway: &Gateway<'_>, user: &str, database: &str, more: &[(&str, &str)]) -> Self {
        let mut raw = Raw::connect(gateway.port);
        raw.send(&startup(196_608, &[&[("user", user), ("database", database)], more].concat()));
        let told = raw.until(b'Z').iter().filter(|(tag, _)| *tag == b'S').map(|(_, body)| pair(body)).collect();
        Self { raw, told }
    }

    fn told(&self, name: &str) -> &str {
        self.told.iter().find(|(told, _)| told == name).map_or("", |(_, value)| value)
    }

    /// Sends `text`, which must succeed; the first value of the answer.
    #[track_caller]
    fn run(&mut self, text: &str) -> String {
        self.try_run(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_run(&mut self, text: &str) -> Result<String, String> {
        self.raw.send(&query(text));
        let answer = self.raw.until(b'Z');
        if let Some((_, body)) = answer.iter().find(|(tag, _)| *tag == b'E') {
            return Err(String::from_utf8_lossy(body).into_owned());
        }
        let row = answer.iter().find(|(tag, _)| *tag == b'D');
        let value = |body: &[u8]| String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned();
        Ok(row.map_or_else(String::new, |(_, body)| value(body)))
    }
}

/// Name and value of a ParameterStatus.
fn pair(body: &[u8]) -> (String, String) {
    let mut parts = body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The settings that these tests change, in one value.
const ALL: &str = "SELECT concat_ws(' ', current_setting('work_mem'), current_setting('DateStyle'), \
    current_setting('TimeZone'), current_setting('search_path'), current_setting('statement_timeout'), \
    nullif(current_setting('app.tenant', true), ''))";

const SET: &str = "ALTER ROLE %r SET work_mem = '1MB'; ALTER ROLE %r SET DateStyle = 'German'; \
    ALTER ROLE %r SET TimeZone = 'Asia/Tokyo'; ALTER ROLE %r SET search_path = other; \
    ALTER ROLE %r SET statement_timeout = '77s'; ALTER ROLE %r SET app.tenant = 'x'";

const NEW: &str = "1MB German, DMY Asia/Tokyo other 77s x";

#[test]
fn who_connects_afterwards_begins_with_it() {
    afterwards("starts", "transaction");
}

#[test]
fn in_session_pools_too() {
    afterwards("starts_session", "session");
}

fn afterwards(label: &str, mode: &str) {
    let database = database(label);
    let gateway = Gateway::setup().pool(&format!("mode = \"{mode}\"")).start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    let mut old = Client::new(&gateway, &role, &database);
    let before = old.run(ALL);
    assert_ne!(before, NEW);
    admin.run(&SET.replace("%r", &role));
    let mut new = Client::new(&gateway, &role, &database);
    assert_eq!((new.told("DateStyle"), new.told("TimeZone")), ("German, DMY", "Asia/Tokyo"));
    for _ in 0..3 {
        assert_eq!(new.run(ALL), NEW);
        assert_eq!(old.run(ALL), before);
    }
    // What goes back goes back to what the session began with.
    for reset in ["RESET work_mem; RESET ALL", "DISCARD ALL", "BEGIN; SET work_mem = '3MB'; ROLLBACK"] {
        for (client, expected) in [(&mut new, NEW), (&mut old, &*before)] {
            client.run("SET work_mem = '2MB'; SET TimeZone = 'UTC'");
            assert!(client.run(ALL).starts_with("2MB"));
            for statement in reset.split("; ") {
                client.run(statement);
            }
            if reset.starts_with("BEGIN") {
                client.run("RESET ALL");
            }
            assert_eq!(client.run(ALL), expected, "{reset}");
            client.run("BEGIN");
            client.run("SET work_mem = '2MB'");
            client.run("RESET work_mem");
            assert_eq!(client.run(ALL), expected, "RESET in a block");
            client.run("COMMIT");
        }
    }
    // What the start-up message says goes before it.
    let mut named =
        Client::with(&gateway, &role, &database, &[("DateStyle", "SQL, YMD"), ("options", "-c work_mem=5MB")]);
    assert_eq!(named.told("DateStyle"), "SQL, YMD");
    assert_eq!(named.run("SHOW work_mem"), "5MB");
    assert_eq!(named.run("SHOW statement_timeout"), "77s");
    // And it goes as it came.
    admin.run(&format!("ALTER ROLE {role} RESET work_mem"));
    assert_eq!(Client::new(&gateway, &role, &database).run("SHOW work_mem"), before.split(' ').next().unwrap());
    assert_eq!(new.run("SHOW work_mem"), "1MB");
    admin.run(&format!("ALTER ROLE {role} RESET ALL"));
    let mut newest = Client::new(&gateway, &role, &database);
    assert_eq!(newest.told("DateStyle"), old.told("DateStyle"));
    assert_eq!(newest.run(ALL), before);
    assert_eq!(new.run(ALL), NEW);
    assert_eq!(old.run(ALL), before);
}

/// A session's server, left idle by one who began with something else.
#[test]
fn a_session_pools_servers_are_nobodys_that_began_otherwise() {
    let database = database("starts_left");
    let gateway = Gateway::setup().pool("mode = \"session\"\nsize = 2").start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    let mut kept = Client::new(&gateway, &role, &database);
    let before = kept.run("SHOW work_mem");
    for value in ["1MB", "2MB", "3MB"] {
        // One who has left before the change, one who leaves after it.
        Client::new(&gateway, &role, &database).run("SET work_mem = '9MB'");
        let mut leaves = Client::new(&gateway, &role, &database);
        let had = leaves.run("SHOW work_mem");
        admin.run(&format!("ALTER ROLE {role} SET work_mem = '{value}'"));
        leaves.run("SET work_mem = '8MB'");
        leaves.run("RESET work_mem");
        assert_eq!(leaves.run("SHOW work_mem"), had);
        drop(leaves);
        for _ in 0..2 {
            let mut new = Client::new(&gateway, &role, &database);
            assert_eq!(new.run("SHOW work_mem"), value);
            new.run("SET work_mem = '7MB'");
            new.run("DISCARD ALL");
            assert_eq!(new.run("SHOW work_mem"), value);
        }
        kept.run("DISCARD ALL");
        assert_eq!(kept.run("SHOW work_mem"), before);
    }
}

/// On servers of its own: it concerns everybody's sessions.
#[test]
fn what_is_set_for_all_roles_is_for_each() {
    let cluster = pointsman::demo::Cluster::builder().replicas(0).start(|_| {}).unwrap();
    for mode in ["transaction", "session"] {
        let database = database_on(&cluster, &format!("starts_all_{mode}"));
        let gateway = Gateway::in_front_of(&cluster).pool(&format!("mode = \"{mode}\"")).start();
        let role = role(&gateway, &database);
        let mut admin = Client::new(&gateway, "postgres", &database);
        let mut old = [&*role, "demo"].map(|user| Client::new(&gateway, user, &database));
        let before = old[0].run(ALL);
        assert_eq!((old[1].run(ALL), admin.run(ALL)), (before.clone(), before.clone()));
        let style = old[0].told("DateStyle").to_owned();
        admin.run("ALTER ROLE ALL SET work_mem = '1MB'");
        admin.run("ALTER ROLE ALL SET DateStyle = 'German'");
        admin.run("ALTER ROLE ALL SET app.tenant = 'x'");
        let memory = |user: &str| Client::new(&gateway, user, &database).run("SHOW work_mem");
        for user in [&role, "demo", "postgres"] {
            let mut new = Client::new(&gateway, user, &database);
            assert_eq!(new.told("DateStyle"), "German, DMY", "{mode} {user}");
            let begun = new.run(ALL);
            assert!(begun.starts_with("1MB German, DMY") && begun.ends_with(" x"), "{mode} {user}: {begun}");
            new.run("SET work_mem = '5MB'");
            new.run("SET app.tenant = 'y'");
            for reset in ["RESET ALL", "DISCARD ALL"] {
                new.run(reset);
                assert_eq!(new.run(ALL), begun, "{mode} {user}: {reset}");
            }
        }
        for client in old.iter_mut().chain([&mut admin]) {
            assert_eq!(client.run(ALL), before, "{mode}");
        }
        // A role's own word goes before it, and a database's.
        admin.run(&format!("ALTER ROLE {role} SET work_mem = '2MB'"));
        assert_eq!([memory(&role), memory("demo")], ["2MB", "1MB"], "{mode}");
        admin.run("ALTER ROLE ALL SET work_mem = '3MB'");
        assert_eq!([memory(&role), memory("demo")], ["2MB", "3MB"], "{mode}");
        admin.run(&format!("ALTER DATABASE {database} SET work_mem = '4MB'"));
        assert_eq!([memory(&role), memory("demo")], ["2MB", "4MB"], "{mode}");
        admin.run(&format!("ALTER DATABASE {database} RESET work_mem; ALTER ROLE {role} RESET work_mem"));
        assert_eq!([memory(&role), memory("demo")], ["3MB", "3MB"], "{mode}");
        // What is rolled back was not.
        admin.run("BEGIN");
        admin.run("ALTER ROLE ALL RESET ALL");
        admin.run("ROLLBACK");
        assert_eq!(memory("demo"), "3MB", "{mode}");
        admin.run("ALTER ROLE ALL RESET ALL");
        for user in [&role, "demo"] {
            let mut new = Client::new(&gateway, user, &database);
            assert_eq!(new.told("DateStyle"), style, "{mode} {user}");
            assert_eq!(new.run(ALL), before, "{mode} {user}");
        }
        for client in old.iter_mut().chain([&mut admin]) {
            assert_eq!(client.run(ALL), before, "{mode}");
        }
    }
}

/// More clients at once than servers were open when it changed.
#[test]
fn servers_that_old_sessions_need_later_begin_as_theirs_did() {
    let database = database("starts_later");
    let gateway = Gateway::setup().pool("size = 6").start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    admin.run(&format!("ALTER ROLE {role} SET work_mem = '7MB'; ALTER ROLE {role} SET app.tenant = 'old'"));
    let mut old: Vec<Client> = (0..3).map(|_| Client::new(&gateway, &role, &database)).collect();
    let before = old[0].run(ALL);
    assert!(before.starts_with("7MB") && before.ends_with("old"), "{before}");
    admin.run(&SET.replace("%r", &role));
    let mut new: Vec<Client> = (0..3).map(|_| Client::new(&gateway, &role, &database)).collect();
    for _ in 0..2 {
        for (clients, expected) in [(&mut old, &*before), (&mut new, NEW)] {
            for client in clients.iter_mut() {
                client.run("BEGIN");
                client.run("SELECT pg_current_xact_id()");
                client.run("RESET ALL");
                assert_eq!(client.run(ALL), expected);
            }
        }
        for client in old.iter_mut().chain(&mut new) {
            client.run("COMMIT");
        }
    }
}

/// Each way to change it, and the way back.
#[test]
fn for_a_role_a_database_and_both() {
    let database = database("starts_both");
    let gateway = Gateway::start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    let read = "SELECT concat_ws(' ', current_setting('app.a', true), current_setting('app.b', true))";
    for target in [
        format!("ROLE {role}"),
        format!("USER {role}"),
        format!("DATABASE {database}"),
        format!("ROLE {role} IN DATABASE {database}"),
        format!("ROLE ALL IN DATABASE {database}"),
    ] {
        let mut old = Client::new(&gateway, &role, &database);
        assert_eq!(old.run(read), "", "{target}");
        for (change, expected) in
            [("SET app.a = '1'", "1"), ("SET app.b TO '2'", "1 2"), ("RESET app.a", "2"), ("RESET ALL", "")]
        {
            admin.run(&format!("ALTER {target} {change}"));
            assert_eq!(Client::new(&gateway, &role, &database).run(read), expected, "{target} {change}");
        }
        assert_eq!(old.run(read), "", "{target}");
    }
    // Another role's settings are nobody else's, whatever role he takes on.
    admin.run(&format!("ALTER ROLE {role} SET app.a = 'role'"));
    let mut other = Client::new(&gateway, "postgres", &database);
    assert_eq!(other.run(read), "");
    for taken in ["ROLE", "SESSION AUTHORIZATION"] {
        other.run(&format!("SET {taken} {role}"));
        assert_eq!(other.run(read), "", "{taken}");
        other.run(&format!("RESET {taken}"));
    }
    // The rest of ALTER ROLE is as it was.
    admin.run(&format!(
        "ALTER ROLE {role} CONNECTION LIMIT 50; ALTER ROLE {role} PASSWORD 'x'; ALTER ROLE {role} NOCREATEDB"
    ));
    assert_eq!(Client::new(&gateway, &role, &database).run(read), "role");
    admin.run(&format!("ALTER ROLE {role} RENAME TO {role}_2"));
    assert_eq!(Client::new(&gateway, &format!("{role}_2"), &database).run(read), "role");
}

#[test]
fn what_is_rolled_back_changes_nothing_and_what_is_committed_does() {
    let database = database("starts_commit");
    let gateway = Gateway::start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    let value = || Client::new(&gateway, &role, &database).run("SHOW work_mem");
    let before = value();
    let alter = |value: &str| format!("ALTER ROLE {role} SET work_mem = '{value}'");
    admin.run("BEGIN");
    admin.run(&alter("1MB"));
    assert_eq!(value(), before, "not yet");
    admin.run("ROLLBACK");
    assert_eq!(value(), before);
    admin.run("BEGIN");
    admin.run(&alter("1MB"));
    admin.run("SELECT 1");
    admin.run("COMMIT");
    assert_eq!(value(), "1MB", "in a block");
    admin.run(&format!("SELECT 1; {}; SELECT 2", alter("2MB")));
    assert_eq!(value(), "2MB", "among others");
    // Parse, Bind, Execute; the same once more, in one group.
    let parse = |text: &str| message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let run = |text: &str| [parse(text), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    admin.raw.send(&[run(&alter("3MB")), run("SELECT 1"), message(b'S', b"")].concat());
    admin.raw.until(b'Z');
    assert_eq!(value(), "3MB", "in a group");
    admin.raw.send(&[run(&alter("4MB")), message(b'S', b""), query("SELECT 1")].concat());
    admin.raw.until(b'Z');
    admin.raw.until(b'Z');
    assert_eq!(value(), "4MB", "ahead of others");
    admin.raw.send(&[run(&alter("5MB")), run("SELECT 1/0"), message(b'S', b"")].concat());
    admin.raw.until(b'Z');
    assert_eq!(value(), "4MB", "in a group that failed");
    admin.raw.send(&[query(&alter("4200kB")), query("SELECT pg_sleep(5)")].concat());
    admin.raw.until(b'Z');
    assert_eq!(value(), "4200kB", "ahead of what takes long");
    admin.raw.until(b'Z');
    admin.run(&format!("DO $$ BEGIN EXECUTE 'ALTER ROLE {role} SET work_mem = ''6MB'''; END $$"));
    assert_eq!(value(), "6MB", "in a DO");
    admin.run(&format!(
        "CREATE FUNCTION set_it() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN EXECUTE 'ALTER RO' || 'LE {role} SET work_mem = ''7MB'''; END $$"
    ));
    admin.run("SELECT set_it()");
    assert_eq!(value(), "7MB", "in a function");
    admin.run(&format!(
        "UPDATE pg_db_role_setting SET setconfig = '{{work_mem=8MB}}' WHERE setrole = '{role}'::regrole"
    ));
    eventually("an UPDATE of the catalogue", || value() == "8MB");
    // A role may do it for itself.
    let mut own = Client::new(&gateway, &role, &database);
    own.run("ALTER ROLE CURRENT_USER SET work_mem = '9MB'");
    assert_eq!(value(), "9MB");
    assert_eq!(own.run("SHOW work_mem"), "8MB");
}

#[test]
fn what_happens_past_the_gateway_is_seen_and_alter_system_reaches_all() {
    let database = database("starts_past");
    let gateway = Gateway::start();
    let role = role(&gateway, &database);
    let mut old = Client::new(&gateway, &role, &database);
    let before = old.run("SHOW work_mem");
    let primary = gateway.cluster.primary();
    primary.psql("postgres", &format!("ALTER ROLE {role} SET work_mem = '1MB'")).unwrap();
    eventually("the change", || Client::new(&gateway, &role, &database).run("SHOW work_mem") == "1MB");
    assert_eq!(old.run("SHOW work_mem"), before);
    // A server process heeds a new configuration by itself.
    primary.psql("postgres", "ALTER SYSTEM SET geqo_seed = '0.25'").unwrap();
    primary.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually("the new configuration", || {
        old.run("SELECT current_setting('geqo_seed') FROM pg_current_xact_id()") == "0.25"
    });
    primary.psql("postgres", "ALTER SYSTEM RESET geqo_seed").unwrap();
    primary.psql("postgres", "SELECT pg_reload_conf()").unwrap();
}

#[test]
fn together_they_have_no_more_servers_than_one_pool_may() {
    if direct() {
        return;
    }
    let database = database("starts_bound");
    let gateway = Gateway::setup().pool("size = 2\nquery_wait = \"5s\"").start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", "postgres");
    let work = |clients: &mut [Client]| {
        for client in clients.iter_mut() {
            client.run("BEGIN");
            client.run("SELECT pg_current_xact_id()");
        }
        for client in clients {
            client.run("COMMIT");
        }
    };
    let mut generations: Vec<Vec<Client>> = Vec::new();
    for n in 1..=3 {
        admin.run(&format!("ALTER ROLE {role} SET app.n = '{n}'"));
        generations.push((0..2).map(|_| Client::new(&gateway, &role, &database)).collect());
        for _ in 0..2 {
            for (n, clients) in generations.iter_mut().enumerate() {
                work(clients);
                assert_eq!(clients[0].run("SHOW app.n"), (n + 1).to_string());
                eventually("no more than two", || gateway.server_sessions(&database) <= 2);
            }
        }
    }
    // What was at work at the same time is closed soon.
    for clients in &mut generations {
        for client in clients {
            client.run("BEGIN");
            client.run("SELECT pg_current_xact_id()");
        }
    }
    for client in generations.iter_mut().flatten() {
        client.run("COMMIT");
    }
    eventually("as many as one pool may have", || gateway.server_sessions(&database) <= 2);
    // A new configuration is not another beginning.
    let file = gateway.path("pointsman.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("size = 2", "size = 3")).unwrap();
    eventually("the new configuration", || gateway.log().contains("pool.size"));
    for (n, clients) in generations.iter_mut().enumerate() {
        assert_eq!(clients[0].run("SHOW app.n"), (n + 1).to_string());
    }
}

#[test]
fn transactions_begin_as_the_role_has_it() {
    let database = database("starts_transactions");
    let gateway = Gateway::start();
    let role = role(&gateway, &database);
    let mut admin = Client::new(&gateway, "postgres", &database);
    admin.run("CREATE TABLE t (n int); INSERT INTO t VALUES (1); GRANT ALL ON t TO PUBLIC");
    gateway.replicas_serve(&database);
    let mut old = Client::new(&gateway, &role, &database);
    admin.run(&format!("ALTER ROLE {role} SET default_transaction_read_only = on"));
    let mut new = Client::new(&gateway, &role, &database);
    for _ in 0..2 {
        old.run("INSERT INTO t VALUES (2)");
        assert!(new.try_run("INSERT INTO t VALUES (3)").unwrap_err().contains("read-only transaction"));
        assert_eq!(new.run("SHOW transaction_read_only"), "on");
        new.run("BEGIN READ WRITE; INSERT INTO t VALUES (4); COMMIT");
    }
    admin.run(&format!("ALTER ROLE {role} RESET default_transaction_read_only"));
    admin.run(&format!("ALTER ROLE {role} SET default_transaction_isolation = 'serializable'"));
    let mut serializable = Client::new(&gateway, &role, &database);
    for _ in 0..4 {
        assert_eq!(serializable.run("SELECT count(*) FROM t"), "5");
        serializable.run("BEGIN READ ONLY");
        assert_eq!(serializable.run("SELECT count(*) FROM t"), "5");
        assert_eq!(serializable.run("SHOW transaction_isolation"), "serializable");
        serializable.run("COMMIT");
        assert_eq!(old.run("SHOW transaction_isolation"), "read committed");
        serializable.run("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY");
        assert_eq!(serializable.run("SELECT count(*) FROM t"), "5");
        serializable.run("COMMIT");
    }
}

/// What a replica has not replayed it cannot begin with.
#[test]
fn a_replicas_servers_begin_with_it_once_it_is_there() {
    if direct() {
        return;
    }
    let cluster = pointsman::demo::Cluster::builder().replicas(1).start(|_| {}).unwrap();
    let database = database_on(&cluster, "starts_replica");
    for own in ["", "read_your_writes = false"] {
        let gateway = Gateway::in_front_of(&cluster).main(own).start();
        let replay = |what: &str| {
            cluster.replicas()[0].psql("postgres", &format!("SELECT pg_wal_replay_{what}()")).unwrap();
        };
        let mut admin = Client::new(&gateway, "postgres", &database);
        admin.run(&format!("ALTER ROLE demo IN DATABASE {database} RESET ALL"));
        cluster.wait_replayed().unwrap();
        let read = "SELECT concat(current_setting('cluster_name'), ' ', current_setting('app.n', true))";
        eventually("the replica to serve", || Client::new(&gateway, "demo", &database).run(read) == "r1 ");
        let mut old = Client::new(&gateway, "demo", &database);
        replay("pause");
        admin.run(&format!("ALTER ROLE demo IN DATABASE {database} SET app.n = '1'"));
        for _ in 0..5 {
            let mut new = Client::new(&gateway, "demo", &database);
            let seen = new.run(read);
            // Without the promise to read what was written, a replica answers as itself.
            assert!(seen == "primary 1" || (!own.is_empty() && seen == "r1 "), "{seen}");
        }
        replay("resume");
        eventually("the replica to have it", || Client::new(&gateway, "demo", &database).run(read) == "r1 1");
        eventually("each of its servers to have it", || {
            (0..5).all(|_| Client::new(&gateway, "demo", &database).run(read).ends_with(" 1"))
        });
        let seen = old.run(read);
        assert!(seen.ends_with(' '), "{seen}");
    }
}
