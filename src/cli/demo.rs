//! `pointsman demo`: a real PostgreSQL primary and replicas on this machine, and the gateway in front of them.
//!
//! Invariant: however it ends, nothing of it stays, but for policies that someone put into a directory that they named.
//! The servers run in processes of their own, the gateway in this one, from the generated `pointsman.toml` as
//! `pointsman run` would take it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::demo::{Cluster, is_free};

/// The first line of the generated configuration, by which a later demo knows that it may replace the file.
const MARK: &str = "# Made by `pointsman demo`.";
/// The longest directory of a Unix socket: its address holds 107 bytes, the socket's own name included.
const LONGEST_DIRECTORY: usize = 107 - "/.s.PGSQL.65535".len();
/// The most replicas that the demo starts.
const MAX_REPLICAS: u16 = 16;

/// Options of `pointsman demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many streaming replicas to start
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_REPLICAS)))]
    pub replicas: u16,
    /// The port that clients connect to
    #[arg(long, default_value_t = 6432, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// The port of the dashboard, /metrics and /healthz
    #[arg(long, default_value_t = 9632, value_parser = clap::value_parser!(u16).range(1..))]
    pub admin_port: u16,
    /// The port of the primary; replica n listens on the nth port after it
    #[arg(long, default_value_t = 5440, value_parser = clap::value_parser!(u16).range(1..))]
    pub node_port: u16,
    /// Where data, configuration, policies and the Unix socket lie [default: a temporary directory]
    #[arg(long)]
    pub directory: Option<PathBuf>,
}

/// Runs the demo until SIGINT or SIGTERM.
///
/// # Errors
/// When a port is taken, PostgreSQL cannot be started, or the gateway does not start. The message says what to change.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    check_ports(args)?;
    let cluster = tokio::select! {
        started = start_cluster(args) => started?,
        // The servers' watchdog takes down what was started.
        () = stop.wanted() => return Ok(()),
    };
    let files = Files::write(args, &cluster)?;
    let gateway = start_gateway(&files.configuration).await?;
    println!("{}", welcome(args, &files));

    tokio::select! {
        () = stop.wanted() => {}
        never = tell_of_servers(&cluster) => match never {},
    }
    eprintln!("\nstopping");
    tokio::select! {
        () = gateway.shutdown() => {}
        () = stop.wanted() => {}
    }
    // In the order of their drops: the files, the servers, the directory.
    Ok(())
}

/// Says which servers end and start, for ever. To ask is also what lets an ended process go.
async fn tell_of_servers(cluster: &Cluster) -> std::convert::Infallible {
    let mut runs: Vec<bool> = cluster.nodes().iter().map(|_| true).collect();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        for (node, ran) in cluster.nodes().iter().zip(&mut runs) {
            if std::mem::replace(ran, node.pid().is_some()) && !*ran {
                let log = node.log_file();
                eprintln!("server {} on port {} has ended; its log: {}", node.name(), node.port(), log.display());
            }
        }
    }
}

/// The gateway in this process, from the generated file.
async fn start_gateway(configuration: &Path) -> anyhow::Result<crate::gateway::GatewayHandle> {
    let config = super::load_config(configuration)?;
    crate::gateway::Gateway::start(config, configuration).await.context("the gateway did not start")
}

/// Starts the servers on a thread of their own (it blocks for seconds) and tells their progress.
async fn start_cluster(args: &Args) -> anyhow::Result<Cluster> {
    let mut builder = Cluster::builder().replicas(args.replicas).base_port(args.node_port);
    if let Some(directory) = &args.directory {
        builder = builder.directory(directory);
    }
    let (sender, started) = tokio::sync::oneshot::channel();
    // Not `spawn_blocking`: the runtime would wait for it when the demo is interrupted.
    std::thread::spawn(move || {
        let _ = sender.send(builder.start(|step| eprintln!("  {step}")));
    });
    eprintln!("starting PostgreSQL: a primary and {} replicas", args.replicas);
    Ok(started.await.context("the thread that starts PostgreSQL ended early")??)
}

/// Says which option to change before anything is started.
fn check_ports(args: &Args) -> anyhow::Result<()> {
    let last = args.node_port.checked_add(args.replicas);
    let Some(last) = last else {
        bail!("--node-port {} leaves no ports for {} replicas", args.node_port, args.replicas)
    };
    let nodes = args.node_port..=last;
    for (option, port) in [("--port", args.port), ("--admin-port", args.admin_port)] {
        ensure!(
            !nodes.contains(&port),
            "{option} {port} is among the servers' ports {} to {last}: choose another with {option} or --node-port",
            args.node_port
        );
    }
    ensure!(args.port != args.admin_port, "--port and --admin-port are both {}: choose another for one", args.port);
    let all = [(args.port, "--port"), (args.admin_port, "--admin-port")].into_iter();
    let busy = all.chain(nodes.map(|port| (port, "--node-port"))).find(|(port, _)| !is_free(*port));
    if let Some((port, option)) = busy {
        bail!("port {port} is in use: choose another with {option}");
    }
    Ok(())
}

/// What the demo writes beside the servers' data. Dropping it removes that.
struct Files {
    configuration: PathBuf,
    policies: PathBuf,
    /// Where the gateway's Unix socket is, unless the path is too long for one.
    socket: Option<PathBuf>,
}

impl Files {
    fn write(args: &Args, cluster: &Cluster) -> anyhow::Result<Self> {
        let configuration = cluster.directory().join("pointsman.toml");
        if let Ok(text) = std::fs::read_to_string(&configuration) {
            ensure!(
                text.starts_with(MARK),
                "{} was not made by the demo: choose another --directory",
                configuration.display()
            );
        }
        let directory = std::path::absolute(cluster.directory())?;
        let socket = (directory.as_os_str().len() <= LONGEST_DIRECTORY).then_some(directory);
        let text = configuration_text(args, socket.is_some());
        std::fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
        let policies = cluster.directory().join("policies");
        std::fs::create_dir_all(&policies).with_context(|| format!("cannot make {}", policies.display()))?;
        Ok(Self { configuration, policies, socket })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.configuration);
        // Fails, as it should, when policies are in it. A temporary directory goes as a whole.
        let _ = std::fs::remove_dir(&self.policies);
    }
}

/// `socket`: clients can come through a Unix socket in the file's directory, too.
fn configuration_text(args: &Args, socket: bool) -> String {
    let socket = if socket { ", \".\"" } else { "" };
    let mut text = format!(
        "{MARK} `pointsman run --config FILE` takes it as it is.\n\n\
         [server]\nlisten = [\"127.0.0.1:{}\"{socket}]\ndrain_timeout = \"2s\"\n\n\
         [admin]\nlisten = \"127.0.0.1:{}\"\n\n\
         # Every *.wasm file in this folder is a link of the chain; the built-in read-write-split ends it.\n\
         [policies]\ndirectory = \"policies\"\n\n\
         [clusters.main]\n\
         primary = {{ name = \"primary\", address = \"127.0.0.1:{}\" }}\n",
        args.port, args.admin_port, args.node_port
    );
    text.push_str("# Replica n takes n shares of the reads.\nreplicas = [\n");
    for n in 1..=args.replicas {
        let _ =
            writeln!(text, "  {{ name = \"r{n}\", address = \"127.0.0.1:{}\", weight = {n} }},", args.node_port + n);
    }
    text.push_str("]\n\n[clusters.main.monitor]\nuser = \"postgres\"\n");
    text
}

fn welcome(args: &Args, files: &Files) -> String {
    let url = format!("postgres://demo@127.0.0.1:{}/demo", args.port);
    let mut text = format!("\nThe gateway is ready:\n\n    {url}\n\nTry\n");
    let mut try_it = |what: &str, command: &str| {
        let _ = writeln!(text, "  {what}\n    {command}");
    };
    try_it(
        "which server answers? Reads go to the replicas, replica n taking n shares; writes to the primary",
        &format!("for i in 1 2 3 4 5 6; do psql {url} -Atc \"SELECT current_setting('cluster_name')\"; done"),
    );
    try_it(
        "why does a statement go where it goes?",
        &format!("psql {url} -c 'SET pointsman.trace = on' -c 'SELECT 1'"),
    );
    if let Some(directory) = &files.socket {
        try_it(
            "who is connected, and why does a session keep its server? SHOW HELP lists the tables",
            &format!("psql -h {} -p {} pointsman -c 'SHOW CLIENTS'", directory.display(), args.port),
        );
    }
    try_it("some load", &format!("pgbench -i -s 10 -q '{url}' && pgbench -c 16 -T 10 -M prepared '{url}'"));
    try_it("your own routing: a policy dropped in here is taken at once", &format!("{}/", files.policies.display()));
    let _ = write!(
        text,
        "\nDashboard      http://127.0.0.1:{admin}/\nMetrics        http://127.0.0.1:{admin}/metrics\n\
         Configuration  {}\n\nCtrl-C stops and removes everything.",
        files.configuration.display(),
        admin = args.admin_port
    );
    text
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next of either. Cancel-safe.
    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(port: u16, admin_port: u16, node_port: u16) -> Args {
        Args { replicas: 2, port, admin_port, node_port, directory: None }
    }

    #[test]
    fn ports_are_checked_by_option() {
        let free = crate::demo::free_ports(6).unwrap();
        let check = |args: &Args, expected: &str| {
            let found = check_ports(args).map_or_else(|error| error.to_string(), |()| String::new());
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found:?}, not {expected:?}");
        };
        check(&args(free, free + 1, free + 2), "");
        check(&args(free, free, free + 2), "both");
        check(&args(free + 3, free, free + 2), "among the servers' ports");
        check(&args(free, free + 1, u16::MAX), "leaves no ports");
        let _taken = std::net::TcpListener::bind(("127.0.0.1", free + 4)).unwrap();
        check(
            &args(free, free + 1, free + 2),
            &format!("port {} is in use: choose another with --node-port", free + 4),
        );
        check(&args(free + 4, free + 1, free + 5), &format!("port {} is in use: choose another with --port", free + 4));
    }

    #[test]
    fn the_configuration_weights_replicas_one_to_two() {
        let text = configuration_text(&args(6432, 9632, 5440), true);
        assert!(text.starts_with(MARK) && text.contains("listen = [\"127.0.0.1:6432\", \".\"]\n"));
        assert!(text.contains("{ name = \"r1\", address = \"127.0.0.1:5441\", weight = 1 }"));
        assert!(text.contains("{ name = \"r2\", address = \"127.0.0.1:5442\", weight = 2 }"));
        assert!(text.parse::<toml::Table>().is_ok());
        assert!(configuration_text(&args(6432, 9632, 5440), false).contains("listen = [\"127.0.0.1:6432\"]\n"));
    }
}
