//! The console: who may come in, and what it shows of sessions at work.

use std::collections::HashMap;
use std::process::Command;

use tokio_postgres::{Client, NoTls};

use crate::support::{
    Gateway, Raw, database, direct, eventually, fail, message, run, sqlstate, startup, succeed, tool,
};

/// A console user, and nobody else's business.
const USERS: &str = "[console.users.ops]\npassword = \"open sesame\"\n";

/// The same, where the test is the client: it is asked for the password in a form that is easily given.
const MD5: &str = "[console.users.ops]\npassword = \"md5e6ee93f7715b79d2fc946844dcee48e9\"\n";

/// psql at the console, over TCP as `ops`.
fn psql(gateway: &Gateway<'_>, name: &str, sql: &str) -> Command {
    let mut command = tool("psql");
    let url = format!("postgres://ops@127.0.0.1:{}/{name}", gateway.port);
    command.env("PGPASSWORD", "open sesame").args(["-XqA", "-F", "|", "-P", "footer=off", "-c", sql, &url]);
    command
}

/// A table of the console's, each row by its columns' names.
fn show(gateway: &Gateway<'_>, table: &str) -> Vec<HashMap<String, String>> {
    let text = succeed(&mut psql(gateway, "pointsman", &format!("SHOW {table}")));
    let mut lines = text.lines().map(|line| line.split('|').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().expect("psql prints the columns first");
    lines.map(|values| names.iter().cloned().zip(values).collect()).collect()
}

/// What SHOW CLIENTS says of the client that calls itself `name`.
#[track_caller]
fn client(gateway: &Gateway<'_>, name: &str) -> HashMap<String, String> {
    let mut found = show(gateway, "CLIENTS");
    found.retain(|row| row["application_name"] == name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// State, transaction and pins of a client.
#[track_caller]
fn conduct(gateway: &Gateway<'_>, name: &str) -> [String; 3] {
    let row = client(gateway, name);
    ["state", "transaction", "pins"].map(|column| row[column].clone())
}

async fn named(gateway: &Gateway<'_>, database: &str, name: &str) -> Client {
    let url = format!("{}?application_name={name}", gateway.url(database));
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_shown_with_what_they_do_and_why_they_keep_their_server() {
    if direct() {
        return;
    }
    let database = database("console");
    let gateway = Gateway::setup().pool("size = 4").more(USERS).start();
    let session = named(&gateway, &database, "worker").await;
    session.batch_execute("SELECT 1").await.unwrap();
    eventually("it to be idle", || conduct(&gateway, "worker") == ["idle", "none", ""]);
    let row = client(&gateway, "worker");
    assert_eq!(
        (row["type"].as_str(), row["user"].as_str(), row["database"].as_str()),
        ("C", "demo", database.as_str())
    );
    assert_eq!((row["addr"].as_str(), row["node"].as_str(), row["link"].as_str()), ("127.0.0.1", "", ""));
    assert!(row["port"].parse::<u16>().unwrap() > 0 && row["connect_time"].ends_with(" UTC"), "{row:?}");

    for (sql, cause, undo) in [
        ("CREATE TEMP TABLE mine (n int)", "temporary objects", "DROP TABLE mine"),
        ("SELECT pg_advisory_lock(7)", "advisory locks", "SELECT pg_advisory_unlock(7)"),
        ("PREPARE one AS SELECT 1", "SQL PREPARE", "DEALLOCATE one"),
        ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9); COMMIT", "WITH HOLD cursors", "CLOSE c"),
    ] {
        session.batch_execute(sql).await.unwrap();
        eventually(cause, || conduct(&gateway, "worker") == ["pinned", "none", cause]);
        let row = client(&gateway, "worker");
        assert_eq!(row["node"], "primary", "{row:?}");
        // The server that it keeps, by its process and from the other side.
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        assert_eq!(row["remote_pid"], pid.to_string());
        eventually("the server to be kept again", || client(&gateway, "worker")["state"] == "pinned");
        let server = show(&gateway, "SERVERS").into_iter().find(|server| server["link"] == row["ptr"]);
        let server = server.unwrap_or_else(|| panic!("no server of {row:?}"));
        assert_eq!((&server["ptr"], server["state"].as_str()), (&row["link"], "pinned"));
        session.batch_execute(undo).await.unwrap();
        eventually("it to be idle again", || conduct(&gateway, "worker") == ["idle", "none", ""]);
    }
    session.batch_execute("CREATE TEMP TABLE mine (n int); SELECT pg_advisory_lock(7)").await.unwrap();
    eventually("both", || client(&gateway, "worker")["pins"] == "temporary objects, advisory locks");
    session.batch_execute("DROP TABLE mine; SELECT pg_advisory_unlock(7)").await.unwrap();

    // Transactions: one that waits for its first statement, one at work, one that failed.
    session.batch_execute("BEGIN").await.unwrap();
    eventually("BEGIN alone", || conduct(&gateway, "worker") == ["idle", "open", ""]);
    session.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    eventually("a transaction", || conduct(&gateway, "worker") == ["active", "open", ""]);
    session.batch_execute("SELECT 1/0").await.unwrap_err();
    eventually("a failed one", || conduct(&gateway, "worker") == ["active", "failed", ""]);
    session.batch_execute("ROLLBACK").await.unwrap();
    eventually("its end", || conduct(&gateway, "worker") == ["idle", "none", ""]);
    drop(session);
    eventually("it to be gone", || show(&gateway, "CLIENTS").iter().all(|row| row["application_name"] != "worker"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_seen_to_wait() {
    if direct() {
        return;
    }
    let database = database("console_wait");
    let gateway = Gateway::setup().pool("size = 1").more(USERS).start();
    let (holder, waiter) = (named(&gateway, &database, "holder").await, named(&gateway, &database, "waiter").await);
    holder.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let waiting = tokio::spawn(async move { waiter.batch_execute("SELECT pg_current_xact_id()").await });
    eventually("a second's wait", || {
        let row = client(&gateway, "waiter");
        row["state"] == "waiting" && row["wait"].parse::<u64>().unwrap() >= 1
    });
    let pools = show(&gateway, "POOLS");
    let pool = pools.iter().find(|pool| pool["database"] == database).unwrap();
    assert_eq!((pool["user"].as_str(), pool["cl_waiting"].as_str(), pool["sv_active"].as_str()), ("demo", "1", "1"));
    assert!(pool["maxwait"].parse::<u64>().unwrap() >= 1 && pool["pool_mode"] == "transaction", "{pool:?}");
    assert_eq!(client(&gateway, "holder")["wait"], "0");
    holder.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
    let databases = show(&gateway, "DATABASES");
    assert_eq!((databases.len(), databases[0]["name"].as_str(), databases[0]["pool_size"].as_str()), (1, "*", "1"));
    let nodes = show(&gateway, "NODES");
    let roles: Vec<_> = nodes.iter().map(|node| (node["node"].as_str(), node["role"].as_str())).collect();
    assert_eq!(roles, [("primary", "primary"), ("r1", "replica"), ("r2", "replica")]);
    assert!(show(&gateway, "SERVERS").iter().any(|server| server["state"] == "idle"));
    let lists: HashMap<_, _> =
        show(&gateway, "LISTS").into_iter().map(|row| (row["list"].clone(), row["items"].clone())).collect();
    assert_eq!((lists["databases"].as_str(), lists["pools"].as_str()), ("1", "1"), "{lists:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_speak_to_it_in_either_protocol() {
    if direct() {
        return;
    }
    let gateway = Gateway::setup().more(USERS).start();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(gateway.port).user("ops").password("open sesame").dbname("pgbouncer");
    config.application_name("ops' own");
    let (mut client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // Extended, with results in binary.
    let statement = client.prepare("SHOW CLIENTS").await.unwrap();
    for _ in 0..3 {
        let rows = client.query(&statement, &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].get::<_, &str>("type"), rows[0].get::<_, i64>("wait")), ("A", 0));
        assert!(rows[0].get::<_, i64>("id") > 0 && rows[0].get::<_, Option<i64>>("remote_pid").is_none());
    }
    drop(statement);
    let own = show(&gateway, "CLIENTS").into_iter().find(|row| row["application_name"] == "ops' own");
    assert_eq!(own.map(|row| row["type"].clone()).as_deref(), Some("A"));
    // What it does not know is an error, and the session goes on; in a transaction, as everywhere.
    for (sql, code) in [("SELECT 1", "42601"), ("SHOW nothing", "42601"), ("RELOAD", "0A000")] {
        for error in [client.query(sql, &[]).await.map(|_| ()), client.batch_execute(sql).await] {
            assert_eq!(error.unwrap_err().code().unwrap().code(), code, "{sql}");
        }
    }
    let transaction = client.transaction().await.unwrap();
    assert_eq!(transaction.query("SHOW VERSION", &[]).await.unwrap().len(), 1);
    transaction.batch_execute("SELECT 1").await.unwrap_err();
    let error = transaction.batch_execute("SHOW VERSION").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02");
    transaction.rollback().await.unwrap();
    // Simple, several in one string.
    client.batch_execute("SET application_name = 'x'; SHOW LISTS; SHOW POOLS;").await.unwrap();
    client.simple_query("").await.unwrap();
    let help = succeed(&mut psql(&gateway, "pgbouncer", "SHOW HELP"));
    for word in ["SHOW CLIENTS", "SHOW SERVERS", "SHOW NODES"] {
        assert!(help.contains(word), "{help}");
    }
    let error = fail(&mut psql(&gateway, "pointsman", "DROP TABLE x"));
    assert!(error.contains("SHOW HELP"), "{error}");
}

#[test]
fn only_who_is_named_or_at_home_comes_in() {
    if direct() {
        return;
    }
    let database = database("console_who");
    let refused = |gateway: &Gateway<'_>, user: &str, password: &str| {
        let url = format!("postgres://{user}@127.0.0.1:{}/pointsman", gateway.port);
        let output = run(tool("psql").env("PGPASSWORD", password).args(["-XqAtc", "SHOW VERSION", &url]));
        assert!(!output.status.success(), "{user} came in");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // Nobody is named: over TCP nobody comes in, whoever the servers would let in.
    let gateway = Gateway::setup().socket().start();
    for user in ["demo", "postgres", "ops"] {
        assert!(refused(&gateway, user, "x").contains("may not use the console"));
    }
    // Through the socket the gateway's own system user does, under any name.
    let directory = gateway.path("").display().to_string();
    for name in ["pointsman", "pgbouncer"] {
        let url = format!("host={directory} port={} user=anybody dbname={name}", gateway.port);
        let version = succeed(tool("psql").args(["-XqAtc", "SHOW VERSION", &url]));
        assert_eq!(version, concat!("Pointsman ", env!("CARGO_PKG_VERSION")));
    }
    let gateway = Gateway::setup().more(USERS).start();
    for (user, password) in [("ops", "wrong"), ("demo", "open sesame"), ("postgres", "")] {
        let error = refused(&gateway, user, password);
        assert!(error.contains("password"), "{user}: {error}");
    }
    assert_eq!(show(&gateway, "VERSION").len(), 1);
    // A console user is no user of the servers'.
    let url = format!("postgres://ops@127.0.0.1:{}/{database}", gateway.port);
    fail(tool("psql").env("PGPASSWORD", "open sesame").args(["-XqAtc", "SELECT 1", &url]));
    // A database of that name goes before.
    let own = format!("[databases.pgbouncer]\ndbname = \"{database}\"\n{USERS}");
    let gateway = Gateway::setup().more(&own).start();
    assert_eq!(gateway.query("pgbouncer", "SELECT current_database()"), database);
    assert_eq!(show(&gateway, "VERSION").len(), 1);
}

#[test]
fn malformed_messages_are_told_and_harm_nobody_else() {
    if direct() {
        return;
    }
    let gateway = Gateway::setup()
        .socket()
        .more("[console.users.ops]\npassword = \"md5a3556571e93b0d20722ba62be61e8c2d\"\n")
        .start();
    let url = format!("host={} port={} user=x dbname=pointsman", gateway.path("").display(), gateway.port);
    // Without the right password there is nothing to be had.
    let mut raw = Raw::connect(gateway.port);
    raw.send(&startup(196_608, &[("user", "ops"), ("database", "pointsman")]));
    assert_eq!(raw.message().map(|(tag, _)| tag), Some(b'R'));
    raw.send(&message(b'Q', b"SHOW CLIENTS\0"));
    let answer = raw.rest();
    assert!(answer.iter().all(|(tag, body)| *tag == b'E' && sqlstate(body).starts_with("08")), "{answer:?}");
    for bytes in [&b"Q\x7f\xff\xff\xff"[..], b"Q\0\0\0\x03", &message(b'Q', b"SHOW"), &message(b'y', b"")] {
        let mut socket =
            std::os::unix::net::UnixStream::connect(gateway.path(&format!(".s.PGSQL.{}", gateway.port))).unwrap();
        std::io::Write::write_all(&mut socket, &startup(196_608, &[("user", "x"), ("database", "pointsman")])).unwrap();
        std::io::Write::write_all(&mut socket, bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut answer).unwrap();
        assert!(answer.windows(5).any(|word| word == b"08P01"), "{bytes:?}: {:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(succeed(tool("psql").args(["-XqAtc", "SHOW LISTS", &url])).lines().count(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_ins_that_wait_are_counted_as_they_are_shown() {
    if direct() {
        return;
    }
    let database = database("console_arrive");
    let gateway = Gateway::setup().pool("size = 1").more(USERS).start();
    let holder = named(&gateway, &database, "holder").await;
    let idle = named(&gateway, &database, "holder").await;
    holder.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    // What it is to be greeted with must be asked of a server, as nobody began with this before.
    let url = format!("{}?application_name=newcomer", gateway.url(&database));
    let coming = tokio::spawn(async move { tokio_postgres::connect(&url, NoTls).await.map(|_| ()) });
    let counts = || {
        let rows = show(&gateway, "POOLS");
        let row = rows.into_iter().find(|row| row["database"] == database && row["user"] == "demo").unwrap();
        ["cl_active", "cl_waiting", "sv_active", "sv_login"].map(|column| row[column].clone())
    };
    eventually("a second's wait", || {
        show(&gateway, "CLIENTS").iter().any(|row| {
            row["application_name"] == "newcomer"
                && row["state"] == "waiting"
                && row["wait"].parse::<u64>().unwrap() >= 1
        })
    });
    // Who rests counts as active, as with PgBouncer.
    assert_eq!(counts(), ["2", "1", "1", "0"]);
    let shown = show(&gateway, "CLIENTS").into_iter().filter(|row| row["database"] == database).count();
    assert_eq!(shown, 3);
    let lists: HashMap<_, _> =
        show(&gateway, "LISTS").into_iter().map(|row| (row["list"].clone(), row["items"].clone())).collect();
    // With the console's own client, who rests.
    let clients = ["free_clients", "used_clients", "login_clients"].map(|list| lists[list].as_str());
    assert_eq!(clients, ["2", "1", "1"]);
    holder.batch_execute("COMMIT").await.unwrap();
    coming.await.unwrap().unwrap();
    eventually("it to be gone", || counts() == ["2", "0", "0", "0"]);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_database_is_counted_apart() {
    if direct() {
        return;
    }
    let (one, other) = (database("console_stats"), database("console_stats2"));
    let gateway = Gateway::setup().pool("size = 1").more(USERS).start();
    let (holder, waiter) = (named(&gateway, &one, "holder").await, named(&gateway, &one, "waiter").await);
    let stats = |name: &str| {
        let found = show(&gateway, "STATS").into_iter().find(|row| row["database"] == name);
        let found = found.unwrap_or_else(|| panic!("no row of {name}"));
        let totals = show(&gateway, "STATS_TOTALS").into_iter().find(|row| row["database"] == name).unwrap();
        let number = |row: &HashMap<String, String>, column: &str| row[column].parse::<u64>().unwrap();
        [
            ("total_xact_count", "xact_count"),
            ("total_query_count", "query_count"),
            ("total_received", "bytes_received"),
            ("total_sent", "bytes_sent"),
            ("total_wait_time", "wait_time"),
        ]
        .map(|(column, same)| {
            assert_eq!(number(&found, column), number(&totals, same), "{column}");
            number(&found, column)
        })
    };
    assert_eq!(stats(&one)[..4], [0, 0, 0, 0]);
    // BEGIN is answered by the gateway: a query, and no transaction of its own.
    for sql in ["SELECT 1", "BEGIN", "SELECT pg_current_xact_id()"] {
        holder.batch_execute(sql).await.unwrap();
    }
    eventually("two to be counted", || stats(&one)[..2] == [1, 3]);
    let waiting = tokio::spawn(async move { waiter.batch_execute("SELECT pg_current_xact_id()").await });
    eventually("a second's wait", || client(&gateway, "waiter")["wait"] != "0");
    holder.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
    eventually("four to be counted", || stats(&one)[..2] == [3, 5]);
    let [_, _, received, sent, waited] = stats(&one);
    assert!(received > 50 && sent > 50 && (1_000_000..60_000_000).contains(&waited), "{received} {sent} {waited}");
    // Three in one write, one of them in error; another database's clients count elsewhere.
    let mut raw = Raw::log_in(gateway.port, "demo", &other);
    let queries = ["SELECT 1", "SELECT 1/0", "SELECT 2; SELECT 3"];
    raw.send(&queries.map(|text| message(b'Q', &[text.as_bytes(), b"\0"].concat())).concat());
    for _ in queries {
        raw.until(b'Z');
    }
    eventually("three to be counted", || stats(&other)[..2] == [3, 3]);
    assert_eq!(stats(&one)[..4], [3, 5, received, sent]);
    // What an exporter of PgBouncer's figures reads.
    let config = show(&gateway, "CONFIG");
    let limit = config.iter().find(|row| row["key"] == "max_client_conn").unwrap();
    assert_eq!((limit["value"].as_str(), limit["changeable"].as_str()), ("10000", "yes"));
    let size = config.iter().find(|row| row["key"] == "default_pool_size").unwrap();
    assert_eq!((size["value"].as_str(), size["default"].as_str()), ("1", "20"));
    for row in show(&gateway, "LISTS") {
        assert!(row["items"].parse::<f64>().is_ok(), "{row:?}");
    }
}

/// A client of the console's that speaks the protocol itself.
fn raw(gateway: &Gateway<'_>) -> Raw {
    let mut raw = Raw::connect(gateway.port);
    let startup = startup(196_608, &[("user", "ops"), ("database", "pointsman"), ("application_name", "by hand")]);
    raw.send(&startup);
    let (_, asked) = raw.message().expect("it asks for the password");
    let salt = asked[4..8].try_into().expect("with a salt");
    let proof = postgres_protocol::authentication::md5_hash(b"ops", b"open sesame", salt);
    raw.send(&message(b'p', &[proof.as_bytes(), b"\0"].concat()));
    raw.until(b'Z');
    raw
}

/// What it answers to some messages, up to its ReadyForQuery.
fn answer(raw: &mut Raw, messages: &[&[u8]]) -> (String, Vec<(u8, Vec<u8>)>) {
    raw.send(&messages.concat());
    let answer = raw.until(b'Z');
    (answer.iter().map(|(tag, _)| char::from(*tag)).collect(), answer)
}

#[test]
fn a_failed_transaction_hears_of_nothing_but_its_error() {
    if direct() {
        return;
    }
    let gateway = Gateway::setup().more(MD5).start();
    let mut raw = raw(&gateway);
    let sync = message(b'S', b"");
    let query = |text: &str| message(b'Q', &[text.as_bytes(), b"\0"].concat());
    let (tags, _) = answer(&mut raw, &[&message(b'P', b"lists\0SHOW LISTS\0\0\0"), &sync]);
    assert_eq!(tags, "1Z");
    assert_eq!(answer(&mut raw, &[&query("BEGIN")]).0, "CZ");
    assert_eq!(answer(&mut raw, &[&query("SELECT 1")]).0, "EZ");
    for messages in [
        vec![query("SHOW LISTS")],
        vec![query("SHOW LISTS; SHOW VERSION")],
        vec![message(b'P', b"\0SHOW LISTS\0\0\0"), sync.clone()],
        vec![message(b'D', b"Slists\0"), sync.clone()],
        vec![message(b'B', b"\0lists\0\0\0\0\0\0\0"), sync.clone()],
    ] {
        let (tags, told) = answer(&mut raw, &messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!((tags.as_str(), &*sqlstate(&told[0].1)), ("EZ", "25P02"), "{messages:?}");
        assert_eq!(told[1].1, b"E");
    }
    assert_eq!(answer(&mut raw, &[&query("ROLLBACK; SHOW VERSION")]).0, "CTDCZ");
}

#[test]
fn rows_come_in_the_formats_that_bind_asks_for() {
    if direct() {
        return;
    }
    let gateway = Gateway::setup().more(MD5).start();
    let mut raw = raw(&gateway);
    let lists = message(b'P', b"\0SHOW LISTS\0\0\0");
    let bind = |formats: &[u16]| {
        let words: Vec<u8> = formats.iter().flat_map(|format| format.to_be_bytes()).collect();
        let count = (formats.len() as u16).to_be_bytes();
        message(b'B', &[b"\0\0\0\0\0\0", &count[..], &words].concat())
    };
    let (describe, execute, sync) = (message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b""));
    let one = 1_i64.to_be_bytes();
    for (formats, told, expected) in [
        (&[][..], [0, 0], &b"1"[..]),
        (&[0], [0, 0], b"1"),
        (&[1], [1, 1], &one),
        (&[0, 1], [0, 1], &one),
        (&[1, 0], [1, 0], b"1"),
    ] {
        let (tags, messages) = answer(&mut raw, &[&lists, &bind(formats), &describe, &execute, &sync]);
        assert!(tags.starts_with("12TDD") && tags.ends_with("DCZ"), "{formats:?}: {tags}");
        // Two columns, whose formats are the last two bytes of each.
        let description = &messages[2].1;
        let first = 2 + "list\0".len() + 18;
        assert_eq!([description[first - 1], description[description.len() - 1]], told, "{formats:?}");
        let row = [&b"\0\x02\0\0\0\x09databases"[..], &(expected.len() as u32).to_be_bytes(), expected].concat();
        assert_eq!(messages[3].1, row, "{formats:?}");
    }
    for (formats, code) in [(&[2][..], "22023"), (&[0, 9], "22023"), (&[0, 0, 0], "08P01")] {
        let (tags, messages) = answer(&mut raw, &[&lists, &bind(formats), &describe, &execute, &sync]);
        assert_eq!((tags.as_str(), &*sqlstate(&messages[1].1)), ("1EZ", code), "{formats:?}");
    }
    let parameter = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0");
    let (tags, messages) = answer(&mut raw, &[&lists, &parameter, &execute, &sync]);
    assert_eq!((tags.as_str(), &*sqlstate(&messages[1].1)), ("1EZ", "08P01"));
    // And it goes on.
    assert!(answer(&mut raw, &[&message(b'Q', b"SHOW LISTS\0")]).0.starts_with("TD"));
}

/// When there are as many clients as may be, the console tells who they are, and what they run can be cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lets_in_when_nobody_else_comes_in() {
    if direct() {
        return;
    }
    let database = database("console_crowded");
    let gateway = Gateway::setup().server("max_clients = 2").more(USERS).start();
    let (sleeper, _other) = (named(&gateway, &database, "sleeper").await, named(&gateway, &database, "other").await);
    let token = sleeper.cancel_token();
    let asleep = tokio::spawn(async move { sleeper.batch_execute("SELECT pg_sleep(60)").await });
    eventually("the sleeper to be asleep", || client(&gateway, "sleeper")["state"] == "active");
    let refused = tokio_postgres::connect(&gateway.url(&database), NoTls).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("53300"), "{refused:?}");
    token.cancel_query(NoTls).await.unwrap();
    let cancelled = asleep.await.unwrap().unwrap_err();
    assert_eq!(cancelled.code().map(tokio_postgres::error::SqlState::code), Some("57014"), "{cancelled:?}");
}
