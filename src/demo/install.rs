//! Where PostgreSQL's programs are.
//!
//! Debian keeps the server's programs out of `PATH`, Homebrew keeps old versions out of it, and `pg_config` may belong
//! to another version than the server's. So a directory counts only if it holds all programs needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, Result};

/// What a directory must hold to be taken.
const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
/// Directories below which versions lie, with what stands between: `ROOT/VERSION/SUFFIX`.
const ROOTS: [(&str, &str); 6] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/usr/libexec", ""),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/usr/local", "bin"),
];

/// An installation of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Install {
    bin: PathBuf,
}

impl Install {
    /// Looks in `POINTSMAN_PG_BIN`, in `PATH`, where `pg_config` points, and where distributions put it; of several
    /// versions in one place the highest is taken.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], with the command that installs it.
    pub fn find() -> Result<Self> {
        if let Some(named) = std::env::var_os("POINTSMAN_PG_BIN") {
            return Self::at(PathBuf::from(named)).ok_or_else(not_installed);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(pg_config())
            .chain(ROOTS.iter().flat_map(|(root, suffix)| versions(Path::new(root), suffix)))
            .find_map(Self::at)
            .ok_or_else(not_installed)
    }

    fn at(bin: PathBuf) -> Option<Self> {
        NEEDED.iter().all(|name| bin.join(name).is_file()).then_some(Self { bin })
    }

    /// The path of one program. One that is not beside the server is left to `PATH` (client packages of some
    /// distributions put `psql` and `pgbench` elsewhere).
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let beside = self.bin.join(name);
        if beside.is_file() { beside } else { PathBuf::from(name) }
    }
}

fn not_installed() -> Error {
    Error::NotInstalled { hint: install_hint("postgresql") }
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// `root/*/suffix` for each entry whose name speaks of PostgreSQL or is a version, the highest version first.
fn versions(root: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let ours = name.starts_with("postgresql") || name.starts_with("pgsql") || root.ends_with("postgresql");
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            ours.then(|| (digits.parse().unwrap_or(0), entry.path().join(suffix)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The command that installs PostgreSQL's server, its clients and pgbench with this system's package manager.
#[must_use]
pub fn install_hint(what: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let command = if has("apt-get") {
        "sudo apt-get install postgresql postgresql-contrib"
    } else if has("dnf") {
        "sudo dnf install postgresql-server postgresql-contrib"
    } else if has("apk") {
        "sudo apk add postgresql postgresql-contrib postgresql-client"
    } else if has("brew") {
        "brew install postgresql@17"
    } else {
        return format!("install {what} with this system's package manager");
    };
    format!("`{command}` installs it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("postgresql");
        for version in ["9", "13", "17", "15"] {
            std::fs::create_dir_all(root.join(version).join("bin")).unwrap();
        }
        let found = versions(&root, "bin");
        assert_eq!(found.first(), Some(&root.join("17/bin")));
        assert_eq!(found.last(), Some(&root.join("9/bin")));
    }

    #[test]
    fn a_directory_without_the_programs_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Install::at(directory.path().to_owned()).is_none());
        for name in NEEDED {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(Install::at(directory.path().to_owned()).is_some());
    }
}
