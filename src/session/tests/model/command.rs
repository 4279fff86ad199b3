//! What the texts of the simulation mean.
//!
//! Invariant: a text that the simulated clients or the gateway do not send is a syntax error.
//! Deliberately absent: what a command does (`run`).

/// The SQLSTATE of an error.
pub(super) struct Failure(pub(super) &'static str);

pub(super) type Done = Result<(), Failure>;

/// What a text does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Rows(usize),
    Echo,
    /// In parse analysis.
    Fails(&'static str),
    FailsAtExecute,
    Show(String),
    Set {
        local: bool,
        name: String,
        value: String,
    },
    Reset(String),
    ResetAll,
    Begin(&'static str),
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    CopyIn,
    CopyOut(usize),
    Prepare(String, String),
    Execute(String),
    Deallocate(String),
    DeallocateAll,
    DiscardAll,
    Unlisten,
    AuditPins,
    AuditNamed(Vec<String>),
    AuditAll,
    AuditRole,
}

/// The commands of a query string; comments are left out.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Failure> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.split(';').map(str::trim).filter(|text| !text.is_empty()).map(command).collect()
}

fn command(text: &str) -> Result<Command, Failure> {
    let unquoted = |text: &str| text.trim().trim_start_matches('E').trim_matches(['\'', '"']).to_owned();
    let own = |text: &str| text.trim().to_owned();
    if text.starts_with("SELECT pg_catalog.concat(") {
        return Ok(Command::AuditPins);
    }
    if text.starts_with("SELECT n, ") {
        let list = text.split_once("ARRAY[").and_then(|(_, rest)| rest.split_once(']')).expect("an array").0;
        return Ok(Command::AuditNamed(list.split(',').map(unquoted).collect()));
    }
    if text.starts_with("SELECT pg_catalog.lower(name)") {
        return Ok(Command::AuditAll);
    }
    if text.starts_with("SELECT '',") {
        return Ok(Command::AuditNamed(Vec::new()));
    }
    if text.starts_with("SELECT CASE WHEN pg_catalog.sum(") {
        // What a text was read under: nothing that the session would understand.
        return Ok(Command::Rows(1));
    }
    if text.starts_with("SELECT 'role'") {
        return Ok(Command::AuditRole);
    }
    if let Some(rest) = text.strip_prefix("SELECT pg_catalog.set_config(") {
        let mut parts = rest.trim_end_matches(" IS NULL").trim_end_matches(')').split(',');
        let (name, value) = (parts.next().map(unquoted), parts.next().map(unquoted));
        return Ok(Command::Set { local: false, name: name.expect("a name"), value: value.expect("a value") });
    }
    if let Some(rest) = text.strip_prefix("SELECT generate_series(1, ") {
        return Ok(Command::Rows(rest.trim_end_matches(')').parse().expect("a number")));
    }
    if let Some(rest) = text.strip_prefix("PREPARE ") {
        let (name, text) = rest.split_once(" AS ").expect("PREPARE … AS …");
        return Ok(Command::Prepare(own(name), own(text)));
    }
    if let Some(rest) = text.strip_prefix("SET ") {
        let local = rest.starts_with("LOCAL ");
        let (name, value) = rest.trim_start_matches("LOCAL ").split_once(" = ").expect("SET … = …");
        return Ok(Command::Set { local, name: own(name), value: unquoted(value) });
    }
    if let Some(name) = text.strip_prefix("ROLLBACK TO SAVEPOINT ") {
        return Ok(Command::RollbackTo(own(name)));
    }
    if let Some(rest) = text.strip_prefix("COPY t TO STDOUT") {
        return Ok(Command::CopyOut(rest.len() + 3));
    }
    Ok(match text {
        "SELECT $1::text" => Command::Echo,
        "SELECT 1/0" => Command::FailsAtExecute,
        "SELECT missing" => Command::Fails("42703"),
        "SELECT refused" => Command::Fails(super::super::REFUSED_STATE),
        "BEGIN" => Command::Begin("BEGIN"),
        "START TRANSACTION READ ONLY" => Command::Begin("START TRANSACTION"),
        "COMMIT" => Command::Commit,
        "ROLLBACK" => Command::Rollback,
        "COPY t FROM STDIN" => Command::CopyIn,
        "RESET ALL" => Command::ResetAll,
        "RESET ROLE" | "RESET SESSION AUTHORIZATION" => Command::Reset("role".to_owned()),
        "DEALLOCATE ALL" => Command::DeallocateAll,
        "DISCARD ALL" => Command::DiscardAll,
        _ => {
            let (head, name) = text.rsplit_once(' ').unwrap_or((text, ""));
            match head {
                "SHOW" => Command::Show(own(name)),
                "RESET" => Command::Reset(name.replace('"', "")),
                "SAVEPOINT" => Command::Savepoint(own(name)),
                "ROLLBACK TO" => Command::RollbackTo(own(name)),
                "RELEASE" => Command::Release(own(name)),
                "EXECUTE" => Command::Execute(own(name)),
                "DEALLOCATE" => Command::Deallocate(own(name)),
                "UNLISTEN" => Command::Unlisten,
                _ => return Err(Failure("42601")),
            }
        }
    })
}
