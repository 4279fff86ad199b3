//! The configuration file and what it refers to, from this machine's file system and environment.
//!
//! Invariant: this is the only place that reads them for the configuration; `config` itself
//! names no file system. Deliberately absent: watching for changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, Checked, Problem, Severity, Sources};

/// Largest configuration file, token or password file, in bytes. What is larger is something else.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a configuration file could not be used. Displays as all its problems, one below the other.
#[derive(Debug)]
pub enum ConfigError {
    /// The file itself cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, in the system's words.
        reason: String,
    },
    /// Its content is wrong: at least one error, and the warnings.
    Problems(Vec<Problem>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Problems(problems) => {
                for problem in problems {
                    writeln!(f, "{problem}")?;
                }
                let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
                write!(f, "{errors} {}", if errors == 1 { "error" } else { "errors" })
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads and checks the configuration file at `path`. Blocks on the file system.
///
/// # Errors
/// [`ConfigError`], with every problem found.
pub fn load(path: &Path) -> Result<Checked, ConfigError> {
    let text = read(path).map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason })?;
    config::parse(&text, path, &Machine).map_err(ConfigError::Problems)
}

/// This machine: its file system and the process's environment.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Sources for Machine {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        read(path)
    }

    fn check_file(&self, path: &Path) -> Result<(), String> {
        let metadata = std::fs::File::open(path).and_then(|file| file.metadata());
        match metadata {
            Ok(metadata) if metadata.is_dir() => Err("is a directory, not a file".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }

    fn check_directory(&self, path: &Path) -> Result<(), String> {
        std::fs::read_dir(path).map(drop).map_err(|error| reason(&error))
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| reason(&error))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The common reasons in plain words, the rest in the system's.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotADirectory => "is a file, not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory, not a file".to_owned(),
        _ => error.to_string(),
    }
}
