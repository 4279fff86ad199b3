//! TLS towards clients and towards servers, in each mode.

use std::process::Command;

use crate::support::{Certificates, Gateway, Setup, database, direct, run, succeed};

/// Certificates beside the configuration, under the names that the tests use.
fn with_files(setup: Setup<'static>) -> Setup<'static> {
    let certificates = Certificates::shared();
    setup
        .file("server.crt", &certificates.server)
        .file("server.key", &certificates.server_key)
        .file("ca.crt", &certificates.ca)
        .file("other-ca.crt", &certificates.other_ca)
        .file("client.crt", &certificates.client)
        .file("client.key", &certificates.client_key)
}

/// Whether psql gets in with these connection settings, and its error otherwise.
fn enter(gateway: &Gateway<'_>, database: &str, settings: &str) -> Result<String, String> {
    let mut command = crate::support::tool("psql");
    let connection =
        format!("host=localhost hostaddr=127.0.0.1 port={} user=demo dbname={database} {settings}", gateway.port);
    let output = run(command.args(["-XqAt", "-c", "SELECT 'in'", &connection]));
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What each client setting leads to: `Ok` or a word of its error.
fn check(gateway: &Gateway<'_>, database: &str, cases: &[(&str, Result<(), &str>)]) {
    for (settings, expected) in cases {
        let settings = settings.replace("DIR", &gateway.path("").display().to_string());
        match (enter(gateway, database, &settings), expected) {
            (Ok(word), Ok(())) => assert_eq!(word, "in", "{settings}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{settings}: {error}"),
            (got, _) => panic!("{settings}: {got:?}, not {expected:?}\n{}", gateway.log()),
        }
    }
}

#[test]
fn preferred_by_the_gateway() {
    let database = database("tls_prefer");
    let gateway = with_files(Gateway::setup())
        .server("tls = { mode = \"prefer\", cert = \"server.crt\", key = \"server.key\" }")
        .start();
    check(
        &gateway,
        &database,
        &[
            ("sslmode=disable", Ok(())),
            ("sslmode=prefer", Ok(())),
            ("sslmode=require", Ok(())),
            ("sslmode=verify-full sslrootcert=DIR/ca.crt", Ok(())),
            ("sslmode=verify-full sslrootcert=DIR/other-ca.crt", Err("certificate verify failed")),
        ],
    );
}

#[test]
fn required_by_the_gateway() {
    if direct() {
        return;
    }
    let database = database("tls_require");
    let gateway = with_files(Gateway::setup())
        .server("tls = { mode = \"require\", cert = \"server.crt\", key = \"server.key\" }")
        .start();
    check(&gateway, &database, &[("sslmode=disable", Err("TLS")), ("sslmode=require", Ok(()))]);
}

#[test]
fn absent() {
    if direct() {
        return;
    }
    let database = database("tls_absent");
    let gateway = Gateway::start();
    check(&gateway, &database, &[("sslmode=prefer", Ok(())), ("sslmode=require", Err("server does not support SSL"))]);
}

#[test]
fn client_certificates() {
    if direct() {
        return;
    }
    let database = database("tls_client");
    let gateway = with_files(Gateway::setup())
        .server("tls = { mode = \"require\", cert = \"server.crt\", key = \"server.key\", client_ca = \"ca.crt\" }")
        .start();
    // libpq refuses a key that others may read.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(gateway.path("client.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(enter(&gateway, &database, "sslmode=require").is_err());
    check(&gateway, &database, &[("sslmode=require sslcert=DIR/client.crt sslkey=DIR/client.key", Ok(()))]);
}

#[test]
fn towards_servers() {
    if direct() {
        return;
    }
    let database = database("tls_upstream");
    let encrypted = |tls: &str| {
        let gateway = with_files(Gateway::setup()).main(&format!("tls = {tls}")).start();
        let output =
            run(gateway.psql(&database).args(["-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    assert_eq!(encrypted("{ mode = \"disable\" }").as_deref(), Ok("f"));
    assert_eq!(encrypted("{ mode = \"prefer\" }").as_deref(), Ok("t"));
    assert_eq!(encrypted("{ mode = \"require\" }").as_deref(), Ok("t"));
    assert_eq!(encrypted("{ mode = \"verify-ca\", ca = \"ca.crt\" }").as_deref(), Ok("t"));
    assert_eq!(encrypted("{ mode = \"verify-full\", ca = \"ca.crt\" }").as_deref(), Ok("t"));
}

#[test]
fn a_server_that_cannot_prove_itself_gets_no_clients() {
    if direct() {
        return;
    }
    let database = database("tls_distrust");
    let gateway = with_files(Gateway::setup())
        .server("client_login_timeout = \"3s\"")
        .pool("query_wait = \"2s\"")
        .main("tls = { mode = \"verify-full\", ca = \"other-ca.crt\" }")
        .start_without_servers();
    let error = enter(&gateway, &database, "sslmode=disable").unwrap_err();
    assert!(!error.contains("timeout expired"), "{error}");
}

/// A socket that is full when the last bytes are written: TLS takes them all and keeps some for later.
#[test]
fn what_tls_holds_back_goes_out_when_the_socket_has_room() {
    if direct() {
        return;
    }
    let database = database("tls_full");
    let gateway = with_files(Gateway::setup())
        .server("tls = { mode = \"require\", cert = \"server.crt\", key = \"server.key\" }")
        .start();
    let url = format!("{}?sslmode=require", gateway.url(&database));
    let finish = |script: &str| {
        let mut shell = Command::new("timeout");
        shell.args([
            "60",
            "sh",
            "-ec",
            script,
            "sh",
            crate::support::tool("psql").get_program().to_str().unwrap(),
            &url,
        ]);
        succeed(&mut shell)
    };
    // A client that begins to read late.
    for mebibytes in [8, 12, 16] {
        let sql = format!("COPY (SELECT repeat('x', 1023) FROM generate_series(1, {mebibytes} * 1024)) TO STDOUT");
        let count = finish(&format!("\"$1\" -XqAt \"$2\" -c \"{sql}\" | {{ sleep 0.5; wc -c; }}"));
        assert_eq!(count.trim(), (mebibytes << 20).to_string());
    }
    // A server that is slow to read: each row takes it a while.
    gateway.query(&database, "CREATE TABLE slow (s text)");
    gateway.query(
        &database,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$",
    );
    gateway.query(&database, "CREATE TRIGGER wait BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait()");
    for rows in [200, 230, 260] {
        let row = "for (i = 0; i < 6; i++) s = s s; for (n = 0; n < rows; n++) print s";
        let rows_of_text = format!("awk -v rows={rows} 'BEGIN {{ s = sprintf(\"%01023d\", 0); {row} }}'");
        finish(&format!("{rows_of_text} | \"$1\" -XqAt \"$2\" -c 'COPY slow FROM STDIN'"));
        // Another session may read from a replica, which may lag.
        let count = gateway.cluster.primary().psql(&database, "SELECT count(*) FROM slow").unwrap();
        assert_eq!(count, rows.to_string());
        gateway.query(&database, "TRUNCATE slow");
    }
}
