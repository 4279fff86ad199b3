//! A Unix socket file and its lock, by PostgreSQL's habit (`CreateSocketLockFile` in `src/backend/utils/init/miscinit.c`,
//! `Lock_AF_UNIX` in `src/backend/libpq/pqcomm.c`): `DIR/.s.PGSQL.PORT` with `DIR/.s.PGSQL.PORT.lock` beside it, whose first line is a process id.
//!
//! Invariant: a socket is taken over only when nobody listens on it; both files go with the holder, unless someone else put new ones there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::NetError;

/// `sun_path` of Linux and the BSDs holds 108 or 104 bytes with the NUL.
const MAX_PATH: usize = 103;
/// A stale lock is removed and tried again this often, as in PostgreSQL, lest two starters fight for ever.
const ATTEMPTS: u32 = 100;

/// The two files. Dropping it removes them.
#[derive(Debug)]
pub(super) struct SocketFiles {
    socket: PathBuf,
    socket_id: Option<(u64, u64)>,
    lock: PathBuf,
    lock_id: Option<(u64, u64)>,
}

impl SocketFiles {
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for (path, id) in [(&self.socket, self.socket_id), (&self.lock, self.lock_id)] {
            if id.is_some() && file_id(path) == id {
                // Nothing can be done about a failure, and the next start copes with what is left.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Locks and binds the socket for `port` in `directory` with the permission bits `mode`. The caller sets the listener up further.
pub(super) fn bind(
    directory: &Path,
    port: u16,
    mode: u32,
    backlog: i32,
) -> Result<(UnixListener, SocketFiles), NetError> {
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    if socket.as_os_str().len() > MAX_PATH {
        return Err(NetError::Settings(format!(
            "the Unix socket path \"{}\" is longer than {MAX_PATH} bytes; choose a shorter directory",
            socket.display()
        )));
    }
    let lock = directory.join(format!(".s.PGSQL.{port}.lock"));
    let failed = |source: io::Error| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "; create the directory first",
            io::ErrorKind::PermissionDenied => "; the directory must be writable for the user that runs this",
            _ => "",
        };
        NetError::Bind { address: socket.display().to_string(), source, hint }
    };

    let mut files = SocketFiles { socket: socket.clone(), socket_id: None, lock: lock.clone(), lock_id: None };
    take_lock(&socket, &lock, directory, port, failed)?;
    files.lock_id = file_id(&lock);
    if is_listening(&socket) {
        // Someone who keeps no lock file.
        return Err(NetError::SocketInUse { path: socket, holder: "another process listens there".to_owned() });
    }
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = listen(&socket, backlog).map_err(failed)?;
    files.socket_id = file_id(&socket);
    fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok((listener, files))
}

fn listen(socket: &Path, backlog: i32) -> io::Result<UnixListener> {
    let raw = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    raw.bind(&socket2::SockAddr::unix(socket)?)?;
    raw.listen(backlog)?;
    raw.set_nonblocking(true)?;
    Ok(raw.into())
}

fn take_lock(
    socket: &Path,
    lock: &Path,
    directory: &Path,
    port: u16,
    failed: impl Fn(io::Error) -> NetError,
) -> Result<(), NetError> {
    for _ in 0..ATTEMPTS {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(lock) {
            Ok(mut file) => {
                let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
                let home = std::env::current_dir().unwrap_or_default();
                // PostgreSQL's lines: process id, data directory, start time, port, socket directory.
                let text =
                    format!("{}\n{}\n{started}\n{port}\n{}\n", std::process::id(), home.display(), directory.display());
                return file.write_all(text.as_bytes()).map_err(|error| {
                    let _ = fs::remove_file(lock);
                    failed(error)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        if let Some(pid) = living_holder(lock).map_err(&failed)?
            && (is_listening(socket) || !socket.exists())
        {
            let holder = format!("the lock file {} belongs to process {pid}", lock.display());
            return Err(NetError::SocketInUse { path: socket.to_owned(), holder });
        }
        if is_listening(socket) {
            let holder = "another process listens there".to_owned();
            return Err(NetError::SocketInUse { path: socket.to_owned(), holder });
        }
        match fs::remove_file(lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Err(failed(io::Error::other("its lock file keeps coming back")))
}

/// The process named in the lock file, if it lives and is neither this one nor its parent: after a restart of a container the
/// same small numbers come again, and PostgreSQL reasons likewise.
fn living_holder(lock: &Path) -> io::Result<Option<i32>> {
    let text = match fs::read_to_string(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // PostgreSQL writes a standalone backend's number negative.
    let Some(number) = text.lines().next().and_then(|line| line.trim().trim_start_matches('-').parse::<i32>().ok())
    else {
        return Ok(None);
    };
    let Some(pid) = rustix::process::Pid::from_raw(number) else { return Ok(None) };
    if pid == rustix::process::getpid() || Some(pid) == rustix::process::getppid() {
        return Ok(None);
    }
    match rustix::process::test_kill_process(pid) {
        Err(rustix::io::Errno::SRCH) => Ok(None),
        _ => Ok(Some(number)),
    }
}

/// Whether someone accepts connections there. Never waits: a full backlog answers "would block", which counts as yes.
fn is_listening(socket: &Path) -> bool {
    let attempt = || {
        let probe = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        probe.connect(&socket2::SockAddr::unix(socket)?)
    };
    attempt().err().is_none_or(|error: io::Error| {
        !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
        )
    })
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
