//! The configuration: raw -> checked, once; difference; reference and schema.
//!
//! Invariant: the rest of the gateway sees only checked values ([`Config`]), and every problem is
//! told with file, line, column, key path, what was expected and what to write.
//!
//! Deliberately absent: the file system and the environment. [`parse`] takes the text, and what
//! the text refers to (files, environment variables) comes through [`Sources`].

mod address;
mod check;
mod decode;
mod diff;
mod dump;
mod leaves;
mod problem;
mod raw;
mod reference;
mod secret;
mod shape;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::check::Checker;
use self::decode::{Raw as _, Reader};
use self::problem::Problems;
use self::raw::RawConfig;

pub use address::Address;
pub use diff::{Change, diff, needs_restart};
pub use problem::{Problem, Severity};
pub use reference::{reference, schema};
pub use secret::{Credential, HIDDEN, Secret};
pub use types::{
    Admin, Breaker, ClientCertificate, Cluster, Config, Database, Ejection, Keepalive, Log, LogFormat, Monitor,
    MonitorAccount, Node, OnFault, Peers, Policies, Pool, PoolMode, PoolOverrides, RoleSetting, Runtime, Server,
    ServerTls, ServerTlsMode, Shard, UpstreamTls, UpstreamTlsMode, User,
};

/// What a configuration may refer to outside its own text. Errors complete "PATH: …".
pub trait Sources {
    /// The value of an environment variable; `None` also if it is not UTF-8.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a small text file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> Result<String, String>;
    /// Whether a file can be read.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn check_file(&self, path: &Path) -> Result<(), String>;
    /// Whether a directory can be listed.
    ///
    /// # Errors
    /// Why it cannot be listed.
    fn check_directory(&self, path: &Path) -> Result<(), String>;
}

/// A configuration that can be used, and what is doubtful about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Warnings in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a configuration. `origin` is the file's path: problems name it, and relative
/// paths in the text begin in its directory.
///
/// # Errors
/// Every problem that was found, warnings included, in the order of the file; at least one of them
/// is an error. If the text is not TOML, only what is wrong with its syntax.
pub fn parse(text: &str, origin: &Path, sources: &dyn Sources) -> Result<Checked, Vec<Problem>> {
    let mut problems = Problems::new(text, origin.display().to_string());
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in syntax {
            // The message names what is expected and never quotes the text.
            problems.error(&error.span().unwrap_or(0..0), "", error.message(), None);
        }
        return Err(problems.into_sorted());
    }
    let span = document.span();
    let document = Spanned::new(span, DeValue::Table(document.into_inner()));
    let raw = RawConfig::read(&document, &mut Reader::new(&mut problems)).unwrap_or_default();
    let base = origin.parent().unwrap_or(Path::new(""));
    let config = Checker { problems: &mut problems, base, sources }.config(&raw);
    if problems.any_error() {
        return Err(problems.into_sorted());
    }
    Ok(Checked { config, warnings: problems.into_sorted() })
}
