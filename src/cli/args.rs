//! The command line, declared. What `--help` says stands here and nowhere else.
//!
//! Invariant: only commands that exist are listed. Deliberately absent: what they do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A PostgreSQL gateway whose routing is a WebAssembly policy
///
/// Applications connect to it as to PostgreSQL. Writes go to the primary, reads to the replicas,
/// unless a policy of yours says otherwise.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  pointsman demo                            try it: a real primary, two replicas, the gateway
  pointsman check --config pointsman.toml   is the configuration right, and what would run?
  pointsman run --config pointsman.toml     the gateway

Environment:
  POINTSMAN_CONFIG   the configuration file, if --config is not given
  POINTSMAN_LOG      the log's level, before `log.level`: info, debug, info,pointsman::wasm=debug
  NO_COLOR           no colours

Exit codes: 0 all is well, 1 it failed while running, 2 the command line or the configuration is wrong.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Try it out: a real PostgreSQL primary with replicas, and the gateway in front of them
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Say what is wrong with a configuration, or what it would run
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// The configuration's reference and schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Completions for a shell, to standard output
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Options of `pointsman demo`; they are declared beside what they steer.
pub use super::demo::Args as DemoArgs;

const RUN_HELP: &str = "\
The smallest configuration:
  [clusters.main]
  primary  = \"db-0:5432\"
  replicas = [\"db-1:5432\", \"db-2:5432\"]

Then: psql -h 127.0.0.1 -p 6432 -U USER DATABASE

Signals: SIGHUP reloads the configuration (so does a change of the file); SIGTERM and Ctrl-C let
transactions end (`server.drain_timeout`) and stop, a second one stops at once.
All keys: pointsman config reference";

const DEMO_HELP: &str = "\
Examples:
  pointsman demo                                    then: psql -h 127.0.0.1 -p 6432 -U demo demo
  pointsman demo --replicas 5 --port 7000
  pointsman demo --directory ./demo                 keeps your policies in ./demo/policies

Ctrl-C stops everything and removes it.";

const CHECK_HELP: &str = "\
Examples:
  pointsman check --config pointsman.toml
  pointsman check --config pointsman.toml --format json | jq .problems

Each problem is FILE:LINE:COLUMN, the key, what is wrong and what to write. Exit code 2 if there is
an error; warnings alone are 0.";

const COMPLETIONS_HELP: &str = "\
Examples:
  pointsman completions bash > /etc/bash_completion.d/pointsman
  pointsman completions zsh  > \"${fpath[1]}/_pointsman\"
  pointsman completions fish > ~/.config/fish/completions/pointsman.fish";

/// Options of `pointsman run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", env = "POINTSMAN_CONFIG", default_value = "pointsman.toml")]
    pub config: PathBuf,
    /// The log's level, before `log.level` of the configuration
    #[arg(long, value_name = "LEVEL", env = "POINTSMAN_LOG")]
    pub log: Option<String>,
}

/// Options of `pointsman check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", env = "POINTSMAN_CONFIG", default_value = "pointsman.toml")]
    pub config: PathBuf,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub format: CheckFormat,
}

/// The form of `check`'s answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people
    Text,
    /// For machines: { "ok", "problems", "config" }
    Json,
}

/// `pointsman config …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Every key of the configuration file, as Markdown
    Reference,
    /// A JSON schema of the configuration file, for editors
    Schema,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_a_file_and_a_level() {
        let cli = Cli::try_parse_from(["pointsman", "run", "--config", "p.toml", "--log", "debug"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.config, PathBuf::from("p.toml"));
        assert_eq!(args.log.as_deref(), Some("debug"));
    }

    #[test]
    fn wrong_usage_is_exit_code_2_and_help_is_0() {
        for (words, code) in [
            (vec!["pointsman"], 2),
            (vec!["pointsman", "rum"], 2),
            (vec!["pointsman", "check", "--format", "xml"], 2),
            (vec!["pointsman", "policy", "inspect"], 2),
            (vec!["pointsman", "--help"], 0),
            (vec!["pointsman", "--version"], 0),
        ] {
            let error = Cli::try_parse_from(&words).unwrap_err();
            assert_eq!(error.exit_code(), code, "{words:?}");
        }
    }
}
