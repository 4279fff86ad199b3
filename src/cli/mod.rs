//! The commands: arguments in, exit code out.
//!
//! Invariant: standard output carries what was asked for (a reference, a check's answer), standard
//! error everything else; exit code 0 is success, 1 a failure while running, 2 a wrong command
//! line or configuration. `anyhow` lives only here.

pub mod args;
mod check;
mod demo;
mod files;
mod run;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use self::args::{Cli, Command, ConfigCommand};
use crate::config::{self, Config, Log, LogFormat};
use crate::control::config_file::{self, ConfigError};
use crate::observe::log::{self, LogError, LogHandle};

/// It failed while running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; clap's own code for the former.
const WRONG_INPUT: u8 = 2;

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_INPUT) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => run_demo(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::check(&args),
        Command::Config(ConfigCommand::Reference) => print(&config::reference()),
        Command::Config(ConfigCommand::Schema) => print(&config::schema()),
        Command::Completions { shell } => print(&completions(shell)),
    };
    result.unwrap_or_else(|error| fail(&error))
}

/// Reads the configuration and logs its warnings; the log must be set up.
///
/// # Errors
/// [`ConfigError`], which [`main`] tells with exit code 2.
pub(crate) fn load_config(path: &Path) -> anyhow::Result<Config> {
    let checked = config_file::load(path)?;
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    Ok(checked.config)
}

/// What `run` begins with: the configuration, then the log as it says, then the configuration's
/// warnings in that log.
///
/// # Errors
/// [`ConfigError`] and a log level that is none.
pub(crate) fn begin(args: &args::RunArgs) -> anyhow::Result<(Config, LogHandle)> {
    let checked = config_file::load(&args.config)?;
    let log = init_log(&checked.config.log, args.log.as_deref())?;
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    Ok((checked.config, log))
}

/// Sets the log up: once, before the first event. `level` goes before the configuration's.
///
/// # Errors
/// A level that is none.
pub(crate) fn init_log(config: &Log, level: Option<&str>) -> anyhow::Result<LogHandle> {
    Ok(log::init(config, level, log::stderr_takes_colour())?)
}

/// The demo has its own output; of the gateway's log it shows warnings unless asked for more.
fn run_demo(args: &args::DemoArgs) -> anyhow::Result<()> {
    let quiet = Log { format: LogFormat::Text, level: "warn".to_owned() };
    let level = std::env::var(log::LEVEL_VARIABLE).ok();
    init_log(&quiet, level.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the runtime did not start")?.block_on(demo::run(args))
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pointsman", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes to standard output. A reader that has had enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Tells the error and gives its exit code.
fn fail(error: &anyhow::Error) -> ExitCode {
    let (red, plain) = if log::stderr_takes_colour() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let wrong_configuration = error.chain().find_map(|cause| cause.downcast_ref::<ConfigError>());
    let text = match wrong_configuration {
        Some(error @ ConfigError::Unreadable { .. }) => {
            format!(
                "{red}error:{plain} {error}\n    name the configuration with --config FILE; pointsman run --help shows the smallest one"
            )
        }
        // Each of its lines names the file and says "error" itself.
        Some(error @ ConfigError::Problems(_)) => format!("{error}"),
        None => format!("{red}error:{plain} {}", chain(error)),
    };
    let _ = writeln!(io::stderr(), "{text}");
    let wrong_level = matches!(error.downcast_ref(), Some(LogError::Filter { .. }));
    ExitCode::from(if wrong_configuration.is_some() || wrong_level { WRONG_INPUT } else { FAILED })
}

/// The error and its causes in one line, without a cause that the one before it already told.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !last.contains(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{colon}{cause}");
        }
        last = cause;
    }
    text
}
