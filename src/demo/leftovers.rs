//! A cluster's directory, and how nothing is left behind in it.
//!
//! Two independent means:
//! * a watchdog, a small shell script whose standard input is a pipe from us: when we end, by whatever signal, it reads
//!   end of file, stops the servers and removes the data;
//! * a lock file, held by us and by the watchdog: the system releases it when both are gone, so the next start knows a
//!   directory that nobody holds, stops what still runs in it and takes it over. While the watchdog of a starter that
//!   died is still at work, the next start waits for it.
//!
//! A process is signalled only if its working directory is the data directory that names it (PostgreSQL changes into
//! its data directory), so a recycled process number is never hit.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{Error, Result};

/// Marks a directory as ours; locked while its cluster lives.
const LOCK: &str = ".pointsman-lock";
/// The directory, below ours, that holds one data directory a node.
pub(super) const NODES: &str = "nodes";
/// How the temporary directories of clusters begin.
const PREFIX: &str = "pointsman-";
/// How long a server may take to stop when told to do so at once.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long the watchdog of a starter that died may take.
const WATCHDOG_DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(10);

/// Ends the servers when the pipe to its starter closes. `$1` is the directory, `$2` what to remove then. Its standard
/// output is the lock file: it writes nothing there, but holds the lock as long as it lives.
const WATCHDOG: &str = r#"
read -r word
[ "$word" = done ] && exit 0
mine() {
    if [ -e /proc/self/cwd ]; then [ "$(readlink "/proc/$1/cwd")" = "$2" ]
    else ps -o command= -p "$1" | grep -qF -- "$2"; fi
}
pids=""
for data in "$1"/*/; do
    data=${data%/}
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || continue
    pid=${pid#-}
    case $pid in '' | *[!0-9]*) continue ;; esac
    mine "$pid" "$data" && kill -QUIT "$pid" && pids="$pids $pid"
done
for pid in $pids; do
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -eq 100 ] && kill -KILL "$pid"
        [ $tries -gt 150 ] && break
        sleep 0.1
    done
done
rm -rf -- "$2" 2>/dev/null || rm -rf -- "$2"
exit 0
"#;

/// A directory that a live cluster holds. Dropping it removes the cluster's data; the servers must have stopped.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// Removed whole, because it was made here and nobody named it.
    temporary: bool,
    /// Was not there before: removed as well if nothing of the user's is in it.
    made: bool,
    watchdog: Option<(Child, ChildStdin)>,
    lock: File,
}

impl Home {
    /// Takes `named`, or makes a temporary directory, and stops what an earlier cluster left in it.
    ///
    /// # Errors
    /// [`Error::InUse`] when a live cluster holds it, [`Error::Foreign`] when it holds files of someone else's.
    pub(super) fn take(named: Option<&Path>) -> Result<Self> {
        sweep(&std::env::temp_dir());
        let path = match named {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("{PREFIX}{:016x}", rand::random::<u64>())),
        };
        let made = !path.exists();
        std::fs::create_dir_all(&path).map_err(Error::io(format!("cannot make {}", path.display())))?;
        // The watchdog compares with what the system reports as a working directory: no symbolic links.
        let path = path.canonicalize().map_err(Error::io(format!("cannot resolve {}", path.display())))?;
        let lock = match lock(&path)? {
            Some(lock) => lock,
            None if path.join(NODES).exists() => return Err(Error::Foreign(path)),
            None => make_lock(&path)?,
        };
        stop_strays(&path.join(NODES));
        remove(&path.join(NODES))?;
        let nodes = path.join(NODES);
        std::fs::create_dir(&nodes).map_err(Error::io(format!("cannot make {}", nodes.display())))?;
        let mut home = Self { path, temporary: named.is_none(), made, watchdog: None, lock };
        home.watchdog = Some(home.watch()?);
        Ok(home)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets other users enter the directory if it was made here, whatever the umask: PostgreSQL may run as one.
    pub(super) fn open_to_others(&self) -> Result<()> {
        if self.temporary {
            std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o755))
                .map_err(Error::io(format!("cannot open {} to PostgreSQL", self.path.display())))?;
        }
        Ok(())
    }

    fn watch(&self) -> Result<(Child, ChildStdin)> {
        let removed = if self.temporary { self.path.clone() } else { self.path.join(NODES) };
        let lock = self.lock.try_clone().map_err(Error::io("cannot share the lock"))?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "pointsman-watchdog"])
            .arg(self.path.join(NODES))
            .arg(removed)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(lock))
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C in a terminal reaches us, and we stop the servers in order.
            .process_group(0)
            .spawn()
            .map_err(Error::io("cannot start /bin/sh as the cluster's watchdog"))?;
        let pipe = child
            .stdin
            .take()
            .ok_or_else(|| Error::io("the watchdog has no pipe")(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok((child, pipe))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let removed = if self.temporary { self.path.clone() } else { self.path.join(NODES) };
        let _ = remove(&removed);
        if !self.temporary {
            let _ = std::fs::remove_file(self.path.join(LOCK));
        }
        if self.made {
            // Fails, as it should, when something else is in it.
            let _ = std::fs::remove_dir(&self.path);
        }
        if let Some((mut child, mut pipe)) = self.watchdog.take() {
            let _ = pipe.write_all(b"done\n");
            drop(pipe);
            let _ = child.wait();
        }
    }
}

/// Locks the lock file of `path`: none if there is no lock file. Waits for the watchdog of a holder that died.
fn lock(path: &Path) -> Result<Option<File>> {
    let name = path.join(LOCK);
    let start = Instant::now();
    loop {
        let mut file = match File::options().read(true).write(true).open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot open the lock file in {}", path.display()))(error)),
        };
        match file.try_lock() {
            Ok(()) => {
                // The watchdog removes a temporary directory, and we may have opened its file before that.
                let same = name.metadata().is_ok_and(|now| file.metadata().is_ok_and(|ours| now.ino() == ours.ino()));
                if !same {
                    continue;
                }
                sign(&mut file, path)?;
                return Ok(Some(file));
            }
            Err(TryLockError::WouldBlock) if holder_died(&mut file) && start.elapsed() < WATCHDOG_DEADLINE => {
                std::thread::sleep(POLL);
            }
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::io(format!("cannot lock {}", path.display()))(error)),
        }
    }
}

/// Writes our process number into the lock file.
fn sign(file: &mut File, path: &Path) -> Result<()> {
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(Error::io(format!("cannot write the lock file in {}", path.display())))
}

/// Whether the process that signed the lock file is gone.
fn holder_died(file: &mut File) -> bool {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).is_ok();
    let pid = text.parse().ok().filter(|_| read).and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Makes a lock file that nobody ever sees unlocked: locked under a name of its own, then renamed.
fn make_lock(path: &Path) -> Result<File> {
    let draft = path.join(format!("{LOCK}.{}", std::process::id()));
    let failed = || Error::io(format!("cannot make the lock file in {}", path.display()));
    let mut file = File::create(&draft).map_err(failed())?;
    file.lock().map_err(failed())?;
    sign(&mut file, path)?;
    std::fs::rename(&draft, path.join(LOCK)).map_err(failed())?;
    Ok(file)
}

/// Takes down what clusters that were killed left in `directory` (normally their watchdogs did it already).
fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
        if ours && let Ok(Some(_lock)) = lock(&path) {
            stop_strays(&path.join(NODES));
            let _ = remove(&path);
        }
    }
}

/// Stops every server whose data directory lies in `nodes` and waits for its end.
fn stop_strays(nodes: &Path) {
    for entry in std::fs::read_dir(nodes).into_iter().flatten().flatten() {
        let data = entry.path();
        let Some(pid) = postmaster(&data) else { continue };
        let _ = rustix::process::kill_process(pid, Signal::QUIT);
        let start = Instant::now();
        while postmaster(&data) == Some(pid) && start.elapsed() < STOP_DEADLINE {
            std::thread::sleep(POLL);
        }
        if postmaster(&data) == Some(pid) {
            kill_tree(pid);
        }
    }
}

/// The process that serves `data`, if its process file names one that is alive and works there.
pub(super) fn postmaster(data: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    // The number is negative while initdb runs it without a postmaster.
    let pid = text.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?;
    let works_there = if Path::new("/proc/self/cwd").exists() {
        std::fs::read_link(format!("/proc/{pid}/cwd")).ok()? == data
    } else {
        let output = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).contains(data.to_str()?)
    };
    works_there.then(|| Pid::from_raw(pid)).flatten()
}

/// Kills a server's processes at once, as a power cut would: the children first, which else would finish what they do.
pub(super) fn kill_tree(pid: Pid) {
    // Stopped, it starts no further children while they are counted.
    let _ = rustix::process::kill_process(pid, Signal::STOP);
    for child in children(pid) {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// The processes whose parent is `pid`. Empty where there is no /proc.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let child: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything; the state and the parent follow its last parenthesis.
            let parent: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == pid.as_raw_nonzero().get()).then(|| Pid::from_raw(child)).flatten()
        })
        .collect()
}

/// Removes a directory and all in it; tries again while a program that is just dying still writes into it.
fn remove(path: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && start.elapsed() < STOP_DEADLINE => {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(Error::io(format!("cannot remove {}", path.display()))(error)),
            Ok(()) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cluster");
        let home = Home::take(Some(&path)).unwrap();
        assert!(matches!(Home::take(Some(&path)), Err(Error::InUse(_))));
        drop(home);
        assert!(!path.exists());
        let home = Home::take(Some(&path)).unwrap();
        std::fs::write(path.join("theirs"), "").unwrap();
        drop(home);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_stranger_s_data_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let precious = root.path().join(NODES).join("precious");
        std::fs::create_dir_all(&precious).unwrap();
        assert!(matches!(Home::take(Some(root.path())), Err(Error::Foreign(_))));
        assert!(precious.exists());
    }

    #[test]
    fn the_watchdog_acts_when_its_starter_vanishes() {
        let mut home = Home::take(None).unwrap();
        let path = home.path().to_owned();
        let (mut child, pipe) = home.watchdog.take().unwrap();
        drop(pipe);
        assert!(child.wait().unwrap().success());
        assert!(!path.exists());
    }

    #[test]
    fn a_process_number_that_is_not_the_server_s_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(postmaster(root.path()), None);
    }
}
