//! Who PostgreSQL runs as.
//!
//! PostgreSQL refuses root. Started as root, its programs run as `postgres`, or else `nobody`; started as anyone else,
//! as that user. The standard library sets the user between fork and exec and then empties the supplementary groups,
//! so nothing unsafe is needed here.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::{Error, Result};

/// The account that PostgreSQL's programs run under.
#[derive(Debug, Clone)]
pub(super) enum Account {
    /// The caller's own.
    Own,
    /// Another, because the caller is root.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// Chooses the account.
    pub(super) fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some(Self::Other { name: name.into(), uid: id("-u", name)?, gid: id("-g", name)? }))
            .ok_or(Error::NoAccount)
    }

    /// A command that runs under this account, in `directory`, without the caller's PostgreSQL environment.
    pub(super) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        // PGPORT, PGDATA, PGOPTIONS and their like would change what is started.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.current_dir(directory).env("LC_ALL", "C").stdin(std::process::Stdio::null());
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid).env("HOME", directory);
        }
        command
    }

    /// Hands a file or directory to this account.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        if let Self::Other { uid, gid, .. } = self {
            std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                .map_err(Error::io(format!("cannot change the owner of {}", path.display())))?;
        }
        Ok(())
    }

    /// Checks that this account can enter every directory down to `path`.
    pub(super) fn can_reach(&self, path: &Path) -> Result<()> {
        let Self::Other { name, uid, gid } = self else { return Ok(()) };
        for directory in path.ancestors().filter(|directory| !directory.as_os_str().is_empty()) {
            let found = directory.metadata().map_err(Error::io(format!("cannot look at {}", directory.display())))?;
            let shift = match () {
                () if found.uid() == *uid => 6,
                () if found.gid() == *gid => 3,
                () => 0,
            };
            if (found.permissions().mode() >> shift) & 1 == 0 {
                return Err(Error::Unreachable { user: name.clone(), path: directory.to_owned() });
            }
        }
        Ok(())
    }
}

/// A user's number from `id`, which asks whatever name services the system has.
fn id(option: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([option, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok().filter(|id| *id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed");
        let inner = closed.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        // A number that owns nothing here.
        let stranger = Account::Other { name: "stranger".into(), uid: 54_321, gid: 54_321 };
        let refused = stranger.can_reach(&inner).unwrap_err();
        assert!(matches!(refused, Error::Unreachable { path, .. } if path == closed));
        assert!(stranger.can_reach(directory.path()).is_ok());
        assert!(Account::Own.can_reach(&inner).is_ok());
    }
}
