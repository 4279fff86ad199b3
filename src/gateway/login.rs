//! Who may log in, and with what on the servers.
//!
//! Invariant: a client is let in only if it proved itself here or a server took its password, or if it is on this host and
//! the server trusts the gateway (DESIGN 4.14). Clients that fail cannot tell a wrong password from an unknown user.
//!
//! Deliberately absent: auth_query, rules.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use super::cancel::Arriving;
use super::context::Context;
use super::greet::{Greeted, Refused, who};
use super::{io, private, rerun, starts};
use crate::auth::{
    ClientAuth, ClientAuthError, ClientAuthSetup, ClientMethod, ClientStep, Credentials, Random, ServerAuthError,
    StoredPassword,
};
use crate::control::{Account, Cluster, Live};
use crate::pool::{CheckoutError, ConnectError, Lent, Wish};
use crate::topology::{Node, Role, Standing};
use crate::upstream::{ErrorReply, LoginError, Parameters, Settings};
use crate::wire::backend::write_error;
use crate::wire::frame::HEADER_LEN;
use crate::wire::startup::Startup;

/// `NAMEDATALEN` of PostgreSQL, less the NUL: bytes.
const LONGEST_NAME: usize = 63;

/// A client that was let in.
pub(super) struct LoggedIn {
    pub(super) account: Arc<Account>,
    /// Its start-up settings.
    pub(super) baseline: Arc<Settings>,
    /// What it is told in ParameterStatus.
    pub(super) reported: Arc<Parameters>,
}

/// Lets the client in or says why not. What it must be sent beyond refusals goes to `out`; the part that it must answer
/// is sent at once.
pub(super) async fn log_in(
    greeted: &mut Greeted,
    context: &Arc<Context>,
    worker: usize,
    out: &mut BytesMut,
) -> Result<LoggedIn, Refused> {
    let startup = greeted.startup.clone();
    let Some(user) = startup.parameter("user").filter(|user| !user.is_empty()) else {
        return Err(ErrorReply::fatal("28000", "no PostgreSQL user name specified in startup packet").into());
    };
    let database = startup.parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
    let mut baseline = baseline(&startup)?;
    let cut = cut_name(&mut baseline);
    let baseline = context.settings.intern(baseline);
    let live = context.live.load_full();
    let Some((cluster, dbname)) = live.database(database) else { return Err(no_database(database).into()) };
    let place = Place { live: &live, cluster, database, dbname, user };
    let account = if live.knows_users() {
        place.adopt(configured(greeted, context, &live, user, out).await?)
    } else {
        tried_on_server(greeted, context, &place, worker, out).await?
    };
    if let Some(name) = cut {
        write_error(out, b'N', "NOTICE", "42622", &name, &[]);
    }
    // Another may have taken its place while the client proved who it is.
    let account = cluster.account(database, user).filter(|held| held.is_kin(&account)).unwrap_or(account);
    let reported = greeting(&account, &baseline, greeted, context, worker).await?;
    Ok(LoggedIn { account, baseline, reported })
}

pub(super) fn no_database(name: &str) -> ErrorReply {
    ErrorReply::fatal("3D000", format!("database \"{name}\" does not exist"))
        .hint("The gateway's configuration has neither [databases.<this name>] nor [databases.\"*\"].")
}

/// Where a client wants to go.
struct Place<'a> {
    live: &'a Live,
    cluster: &'a Arc<Cluster>,
    database: &'a str,
    dbname: &'a str,
    user: &'a str,
}

impl Place<'_> {
    fn account(&self, credentials: Credentials) -> Arc<Account> {
        let pool = self.live.config.pool_for(self.database, self.user);
        self.cluster.new_account(self.database, self.dbname, self.user, credentials, &pool)
    }

    /// The account in use if it logs in with the same, else a new one in its place.
    fn adopt(&self, credentials: Credentials) -> Arc<Account> {
        if let Some(account) = self.cluster.account(self.database, self.user)
            && account.credentials == credentials
        {
            return account;
        }
        self.cluster.join(self.account(credentials))
    }
}

/// What logs a user of the configuration in on the servers.
pub(super) async fn configured(
    greeted: &mut Greeted,
    context: &Context,
    live: &Live,
    user: &str,
    out: &mut BytesMut,
) -> Result<Credentials, Refused> {
    let stored = live.users.get(user);
    let trusted = live.config.users.get(user).is_some_and(|user| user.credential.is_none());
    if trusted && !greeted.stream.is_local() {
        return Err(ErrorReply::fatal("28000", format!("user \"{user}\" has no password and is not on this host"))
            .hint("Give the user a password in [users] of the gateway's configuration.")
            .into());
    }
    let method = match (trusted, stored) {
        (true, _) => ClientMethod::Trust,
        (false, Some(stored)) if matches!(stored.credentials(), Credentials::Md5(_)) => ClientMethod::Md5,
        (false, _) => ClientMethod::ScramSha256,
    };
    match exchange(greeted, context, method, stored, out).await? {
        (ClientStep::Accepted(credentials), _) => Ok(credentials),
        _ => Err(no_end()),
    }
}

/// Lets in a client of the console that needs no password.
pub(super) async fn trust(greeted: &mut Greeted, context: &Context, out: &mut BytesMut) -> Result<(), Refused> {
    exchange(greeted, context, ClientMethod::Trust, None, out).await.map(|_| ())
}

/// Lets in a client of the console that proves to know a password; without one to compare with, as if it had been wrong.
pub(super) async fn prove(
    greeted: &mut Greeted,
    context: &Context,
    stored: Option<&StoredPassword>,
    out: &mut BytesMut,
) -> Result<(), Refused> {
    let method = match stored {
        Some(stored) if matches!(stored.credentials(), Credentials::Md5(_)) => ClientMethod::Md5,
        _ => ClientMethod::ScramSha256,
    };
    match exchange(greeted, context, method, stored, out).await? {
        (ClientStep::Accepted(_), _) => Ok(()),
        _ => Err(no_end()),
    }
}

/// A user that only the servers know.
async fn tried_on_server(
    greeted: &mut Greeted,
    context: &Arc<Context>,
    place: &Place<'_>,
    worker: usize,
    out: &mut BytesMut,
) -> Result<Arc<Account>, Refused> {
    let held = place.cluster.account(place.database, place.user);
    let trusted = match &held {
        Some(account) => account.credentials == Credentials::None,
        None => {
            let account = place.account(Credentials::None);
            match any_server(&account, worker, Wish::ANY, context.cancels.arrives(who(greeted, context))).await {
                Ok(lent) => {
                    lent.give_back();
                    place.cluster.join(account);
                    true
                }
                Err(error) if wants_password(&error) => false,
                Err(error) => return Err(connect_refusal(&error).into()),
            }
        }
    };
    if trusted {
        trusted_by_server(greeted, context, place.user, out).await?;
        return Ok(place.adopt(Credentials::None));
    }
    let (credentials, auth) = ask_password(greeted, context, out).await?;
    let account = match held.filter(|account| account.credentials == credentials) {
        Some(account) => Ok(account),
        None => try_password(place, credentials, worker, context.cancels.arrives(who(greeted, context))).await,
    };
    conclude(auth, account, out)
}

/// Lets in a client as which a server trusts the gateway, if it is on this host.
pub(super) async fn trusted_by_server(
    greeted: &mut Greeted,
    context: &Context,
    user: &str,
    out: &mut BytesMut,
) -> Result<(), Refused> {
    if !greeted.stream.is_local() {
        return Err(ErrorReply::fatal("28000", format!("the server trusts this gateway as user \"{user}\", but not its clients"))
            .hint("A server's trust is extended only to clients on the gateway's own host. Name the user with a password in [users].")
            .into());
    }
    exchange(greeted, context, ClientMethod::Trust, None, out).await?;
    Ok(())
}

/// The password that a server is to judge, and what [`conclude`] needs.
pub(super) async fn ask_password(
    greeted: &mut Greeted,
    context: &Context,
    out: &mut BytesMut,
) -> Result<(Credentials, ClientAuth), Refused> {
    if !greeted.stream.is_private() {
        return Err(ErrorReply::fatal(
            "28000",
            "the gateway would have to ask for the password in clear over a connection that is not encrypted",
        )
        .hint("Use TLS ([server] tls and sslmode=require), or name the user in [users] so that SCRAM can be used.")
        .into());
    }
    match exchange(greeted, context, ClientMethod::PasswordOnServer, None, out).await? {
        (ClientStep::TryOnServer(password), auth) => Ok((Credentials::Password(password), auth)),
        _ => Err(no_end()),
    }
}

/// Tells the client what the server made of its password.
pub(super) fn conclude<T>(
    mut auth: ClientAuth,
    opened: Result<T, CheckoutError>,
    out: &mut BytesMut,
) -> Result<T, Refused> {
    let refused = match opened {
        Ok(opened) => {
            auth.conclude(true, out).map_err(|error| client_refusal(&error))?;
            return Ok(opened);
        }
        Err(error) if refused_credentials(&error) => auth.conclude(false, out),
        Err(error) => return Err(connect_refusal(&error).into()),
    };
    match refused {
        Err(error) => Err(client_refusal(&error).into()),
        Ok(_) => Err(no_end()),
    }
}

fn no_end() -> Refused {
    ErrorReply::fatal("XX000", "authentication did not come to an end").into()
}

async fn try_password(
    place: &Place<'_>,
    credentials: Credentials,
    worker: usize,
    seen: Arriving<'_>,
) -> Result<Arc<Account>, CheckoutError> {
    let account = place.account(credentials);
    any_server(&account, worker, Wish::ANY, seen).await?.give_back();
    Ok(place.cluster.join(account))
}

/// Runs one method to its verdict, or to the password that must be tried.
async fn exchange(
    greeted: &mut Greeted,
    context: &Context,
    method: ClientMethod,
    stored: Option<&StoredPassword>,
    out: &mut BytesMut,
) -> Result<(ClientStep, ClientAuth), Refused> {
    let user = greeted.startup.parameter("user").unwrap_or_default().to_owned();
    let session = greeted.id;
    let setup = ClientAuthSetup {
        method,
        user: &user,
        stored,
        end_point: greeted.stream.end_point(),
        mock: &context.mock,
        random: Random::fresh(),
    };
    let (mut auth, mut step) = ClientAuth::start(setup, out);
    while step == ClientStep::Wait {
        io::write(&mut greeted.stream, out).await?;
        let body = password_message(greeted, auth.body_limit()).await?;
        step = auth.on_password_message(&body, out).map_err(|error| {
            tracing::info!(session, user, reason = ?error, "a client failed to log in");
            client_refusal(&error)
        })?;
    }
    Ok((step, auth))
}

/// The body of the client's next 'p' message.
async fn password_message(greeted: &mut Greeted, limit: usize) -> Result<BytesMut, Refused> {
    loop {
        let input = &mut greeted.input;
        if input.first().is_some_and(|tag| *tag != b'p') {
            return Err(ErrorReply::fatal(
                "08P01",
                format!("expected password response, got message type {}", input[0]),
            )
            .into());
        }
        if let Some(word) = input.get(1..HEADER_LEN) {
            let length = u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize;
            if length < 4 || length - 4 > limit {
                return Err(ErrorReply::fatal("08P01", "invalid password packet size").into());
            }
            if input.len() > length {
                let mut frame = input.split_to(length + 1);
                frame.advance(HEADER_LEN);
                return Ok(frame);
            }
        }
        io::read(&mut greeted.stream, input).await?;
    }
}

/// What servers report to a client with these start-up settings; asks one if that is not known yet.
async fn greeting(
    account: &Arc<Account>,
    baseline: &Arc<Settings>,
    greeted: &Greeted,
    context: &Context,
    worker: usize,
) -> Result<Arc<Parameters>, Refused> {
    if let Some(known) = account.greeting(baseline) {
        return Ok(known);
    }
    let syncs = &context.metrics.worker(worker).syncs;
    let seen = context.cancels.arrives(who(greeted, context));
    let mut lent = any_server(account, worker, Wish::ANY, seen).await.map_err(|error| connect_refusal(&error))?;
    let mut synced = private::apply_settings(&mut lent, baseline, syncs).await;
    if let Ok(Some(error)) = &synced
        && rerun::wants_new_process(error)
    {
        lent.give_back();
        let seen = context.cancels.arrives(who(greeted, context));
        lent = any_server(account, worker, Wish::New, seen).await.map_err(|error| connect_refusal(&error))?;
        synced = private::apply_settings(&mut lent, baseline, syncs).await;
    }
    match synced {
        Ok(None) => {}
        Ok(Some(error)) => {
            // What a server would refuse in the start-up packet ends the connection, as there.
            lent.give_back();
            return Err(ErrorReply { severity: "FATAL", ..error }.into());
        }
        Err(error) => return Err(ErrorReply::fatal("08006", error.to_string()).into()),
    }
    let parameters = context.parameters.intern((*lent.upstream.parameters).clone());
    lent.upstream.parameters = Arc::clone(&parameters);
    Box::pin(starts::note(account, &mut lent)).await;
    lent.give_back();
    account.remember_greeting(Arc::clone(baseline), Arc::clone(&parameters));
    Ok(parameters)
}

/// A connection to some node: the primary first, then whoever is up. The client is `_seen` to wait for it.
async fn any_server(
    account: &Arc<Account>,
    worker: usize,
    wish: Wish,
    _seen: Arriving<'_>,
) -> Result<Lent, CheckoutError> {
    let mut nodes: Vec<&Arc<Node>> = account.cluster.topology.nodes().collect();
    nodes.sort_by_key(|node| (node.standing() == Standing::Ejected, node.role() != Role::Primary, node.shard));
    let mut last = CheckoutError::Closed;
    for node in nodes {
        match account.pool(node).checkout(worker, wish).await {
            Ok(lent) => return Ok(lent),
            Err(CheckoutError::Connect(error)) if error.blames_node() => last = CheckoutError::Connect(error),
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

pub(super) fn wants_password(error: &CheckoutError) -> bool {
    let CheckoutError::Connect(error) = error else { return false };
    matches!(&**error, ConnectError::Login { source: LoginError::Auth(ServerAuthError::NoCredentials { .. }), .. })
        || error.refused().is_some_and(|fields| fields.sqlstate.starts_with("28"))
}

fn refused_credentials(error: &CheckoutError) -> bool {
    let CheckoutError::Connect(error) = error else { return false };
    error.refused().is_some_and(|fields| fields.sqlstate.starts_with("28"))
}

/// What a client is told when no server took it.
pub(super) fn connect_refusal(error: &CheckoutError) -> ErrorReply {
    if let CheckoutError::Connect(error) = error {
        if let Some(fields) = error.refused() {
            // The server's own words: a missing database, a closed one, too many connections.
            return ErrorReply {
                severity: "FATAL",
                sqlstate: fields.sqlstate.clone(),
                message: fields.message.clone(),
                hint: fields.hint.clone(),
                routine: fields.routine.clone(),
                verbatim: None,
            };
        }
        return ErrorReply::fatal("08001", error.to_string());
    }
    ErrorReply::fatal("53300", error.to_string())
}

fn client_refusal(error: &ClientAuthError) -> ErrorReply {
    ErrorReply::fatal(error.sqlstate(), error.to_string())
}

/// The settings of a start-up packet: its parameters and what `options` says.
fn baseline(startup: &Startup) -> Result<Settings, ErrorReply> {
    let mut settings = Settings::default();
    if let Some(options) = startup.parameter("options") {
        for (name, value) in options_settings(options)? {
            settings.set(&name, &value);
        }
    }
    for (name, value) in &startup.parameters {
        let ours =
            matches!(name.as_str(), "user" | "database" | "replication" | "options") || name.starts_with("_pq_.");
        if !ours {
            settings.set(name, value);
        }
    }
    Ok(settings)
}

/// The same for those that are only shown; empty if they are refused.
pub(super) fn named(startup: &Startup, context: &Context) -> Arc<Settings> {
    let mut settings = baseline(startup).unwrap_or_default();
    cut_name(&mut settings);
    context.settings.intern(settings)
}

/// Cuts a name that is too long for PostgreSQL as PostgreSQL does (`truncate_identifier`), and says what it says then: the
/// settings are sent to a server later, or not at all if they are those that it had last.
fn cut_name(settings: &mut Settings) -> Option<String> {
    let name = settings.value("application_name").filter(|name| name.len() > LONGEST_NAME)?.to_owned();
    let cut = &name[..name.floor_char_boundary(LONGEST_NAME)];
    settings.set("application_name", cut);
    Some(format!("identifier \"{name}\" will be truncated to \"{cut}\""))
}

/// `-c name=value`, `-cname=value` and `--name=value`, a backslash quoting the next character
/// (`pg_split_opts` and `process_postgres_switches` in PostgreSQL).
fn options_settings(options: &str) -> Result<Vec<(String, String)>, ErrorReply> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words.last_mut().unwrap_or(&mut String::new()).extend(chars.next()),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => words.last_mut().unwrap_or(&mut String::new()).push(c),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c") {
            Some("") => words.next().unwrap_or_default(),
            Some(rest) => rest.to_owned(),
            None => word.strip_prefix("--").unwrap_or_default().to_owned(),
        };
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(ErrorReply::fatal(
                "0A000",
                format!("the option \"{word}\" in the start-up packet is not supported"),
            )
            .hint("Settings are: -c name=value or --name=value."));
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str, expected: Option<&[(&str, &str)]>) {
        let got = options_settings(options).ok();
        let expected =
            expected.map(|pairs| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>());
        assert_eq!(got, expected, "{options}");
    }

    #[test]
    fn options_are_read_as_postgresql_reads_them() {
        check("", Some(&[]));
        check("-c geqo=off", Some(&[("geqo", "off")]));
        check("-cgeqo=off --work-mem=4MB", Some(&[("geqo", "off"), ("work_mem", "4MB")]));
        check(r"-c search_path=a\ b,\\c", Some(&[("search_path", r"a b,\c")]));
        check("-B 100", None);
        check("-c", None);
    }
}
