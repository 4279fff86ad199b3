//! Who gets in: users that the configuration names, users that the servers know, and nobody else.

use crate::support::{Gateway, PASSWORD, PASSWORD_USERS, database, direct, fail, run, succeed, tool};

/// psql as `user`.
fn psql(gateway: &Gateway<'_>, user: &str, database: &str, password: Option<&str>) -> std::process::Command {
    let mut command = tool("psql");
    command.args(["-XqAtw", "-c", "SELECT current_user", &gateway.url_for(user, database)]);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command
}

#[test]
fn trust_from_loopback_as_the_servers_trust() {
    let database = database("auth_trust");
    let gateway = Gateway::start();
    assert_eq!(succeed(&mut psql(&gateway, "demo", &database, None)), "demo");
}

#[test]
fn passwords_are_tried_on_the_servers() {
    let database = database("auth_tried");
    let gateway = Gateway::start();
    for user in PASSWORD_USERS {
        assert_eq!(succeed(&mut psql(&gateway, user, &database, Some(PASSWORD))), user);
        let refused = fail(&mut psql(&gateway, user, &database, Some("wrong")));
        assert!(refused.contains("password authentication failed"), "{user}: {refused}");
        // Right once more: the failure has left nothing behind, and neither has the success.
        assert_eq!(succeed(&mut psql(&gateway, user, &database, Some(PASSWORD))), user);
        let refused = fail(&mut psql(&gateway, user, &database, None));
        assert!(refused.contains("password"), "{user}: {refused}");
    }
    let refused = fail(&mut psql(&gateway, "nobody_knows", &database, Some("x")));
    assert!(refused.contains("nobody_knows"), "{refused}");
}

#[test]
fn configured_users_prove_their_password_by_scram() {
    if direct() {
        return;
    }
    let database = database("auth_configured");
    let quoted = toml::Value::String(PASSWORD.into()).to_string();
    let users: String = PASSWORD_USERS.iter().map(|user| format!("[users.{user}]\npassword = {quoted}\n")).collect();
    let gateway = Gateway::setup().more(&users).start();
    for user in PASSWORD_USERS {
        assert_eq!(succeed(&mut psql(&gateway, user, &database, Some(PASSWORD))), user);
        let mut scram_only = psql(&gateway, user, &database, Some(PASSWORD));
        // libpq 16 and later can insist; earlier ones do not know the variable and ignore it.
        assert_eq!(succeed(scram_only.env("PGREQUIREAUTH", "scram-sha-256")), user);
        let refused = fail(&mut psql(&gateway, user, &database, Some("wrong")));
        assert!(refused.contains("password authentication failed"), "{user}: {refused}");
    }
    // The configuration names users, so others stay out, with the same words as for a wrong password.
    let refused = fail(&mut psql(&gateway, "demo", &database, Some("x")));
    assert!(refused.contains("password authentication failed for user \"demo\""), "{refused}");
    assert!(!gateway.log().contains(PASSWORD), "the password is in the log");
}

#[test]
fn a_database_that_is_not_there_is_said_to_be_so() {
    let gateway = Gateway::start();
    let output = run(tool("psql").args(["-XqAtw", "-c", "SELECT 1", &gateway.url("no_such_database")]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("database \"no_such_database\" does not exist"), "{error}");
}
