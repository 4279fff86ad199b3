//! The policy folder: which files changed, and are quiet enough to be read.
//!
//! Invariant: `NAME.wasm` and `NAME.toml` are one unit, handed over only after both kept still for [`QUIET`], and
//! only if they looked the same before and after they were read. An empty component is somebody's half-done write,
//! never a removal. A folder that cannot be listed tells nothing about its files.
//!
//! Deliberately absent: threads and watching; the store calls [`Folder::scan`] when something may have changed, and
//! every [`RESCAN`] in any case, for network file systems and bind mounts miss events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::policy::ReadWriteSplit;

/// A unit is read after so long without a change.
pub(super) const QUIET: Duration = Duration::from_millis(50);
/// The folder is looked at at least this often.
pub(super) const RESCAN: Duration = Duration::from_secs(2);
/// An empty component is waited for this long before it is reported.
const EMPTY_PATIENCE: Duration = Duration::from_secs(2);
/// A file this young may change again without its times showing it.
const YOUNG: Duration = Duration::from_secs(2);

/// A folder and what is known of its units.
pub(super) struct Folder {
    path: PathBuf,
    largest_component: u64,
    largest_settings: u64,
    units: BTreeMap<Box<str>, Known>,
}

/// One unit, as last seen.
#[derive(Default)]
struct Known {
    stamps: Stamps,
    /// When the stamps last changed, or an event named the unit; `None` once it was handed over.
    since: Option<Instant>,
    /// Handed over while young: to be read once more then.
    again: Option<Instant>,
}

/// Of the component and of the settings.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Stamps {
    component: Option<Stamp>,
    settings: Option<Stamp>,
}

/// What tells that a file is another than before, without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A unit that changed and kept still.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: Box<str>,
    /// The component's bytes; `None` if there is no such file.
    pub(super) component: Option<Result<Vec<u8>, String>>,
    /// The settings' text; `None` if there is no such file.
    pub(super) settings: Option<Result<Vec<u8>, String>>,
}

/// What a look at the folder found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// In name order.
    pub(super) changes: Vec<Change>,
    /// When to look again.
    pub(super) next: Option<Instant>,
}

impl Folder {
    pub(super) fn new(path: PathBuf, largest_component: u64, largest_settings: u64) -> Self {
        Self { path, largest_component, largest_settings, units: BTreeMap::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An event named this file: whatever its times say, it may be another.
    pub(super) fn touch(&mut self, file: &str, now: Instant) {
        if let Some((name, _)) = unit_of(file)
            && let Some(known) = self.units.get_mut(name)
        {
            known.since = Some(now);
        }
    }

    /// Looks at every file, and hands over the units that changed and have kept still for `quiet`.
    pub(super) fn scan(&mut self, now: Instant, quiet: Duration) -> io::Result<Scan> {
        let seen = self.list()?;
        let names: BTreeSet<Box<str>> = seen.keys().chain(self.units.keys()).cloned().collect();
        let mut scan = Scan { changes: Vec::new(), next: Some(now + RESCAN) };
        for name in names {
            let stamps = seen.get(&name).copied().unwrap_or_default();
            let known = self.units.entry(name.clone()).or_default();
            if known.stamps != stamps {
                known.stamps = stamps;
                known.since = Some(now);
            }
            let since = match known.since {
                Some(since) => since,
                None if known.again.is_some_and(|again| again <= now) => now.checked_sub(quiet).unwrap_or(now),
                None => continue,
            };
            known.again = None;
            let empty = stamps.component.is_some_and(|stamp| stamp.size == 0);
            // Without a quiet time the caller wants to know now, at the start above all.
            let due = since + if empty && !quiet.is_zero() { EMPTY_PATIENCE } else { quiet };
            if now < due {
                known.since = Some(since);
                scan.next = scan.next.min(Some(due));
                continue;
            }
            let change = self.read(&name, stamps);
            let after = self.stamps(&name);
            let Some(known) = self.units.get_mut(&name) else { continue };
            if after != stamps {
                // It changed while it was read: wait until it is quiet again.
                known.stamps = after;
                known.since = Some(now);
                scan.next = scan.next.min(Some(now + quiet.max(QUIET)));
                continue;
            }
            known.since = None;
            known.again = is_young(stamps).then(|| now + YOUNG);
            if stamps == Stamps::default() {
                self.units.remove(&name);
            }
            scan.changes.push(change);
        }
        Ok(scan)
    }

    fn list(&self) -> io::Result<BTreeMap<Box<str>, Stamps>> {
        let mut seen: BTreeMap<Box<str>, Stamps> = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let file = entry?.file_name();
            let Some((name, _)) = file.to_str().and_then(unit_of) else { continue };
            if !seen.contains_key(name) {
                let stamps = self.stamps(name);
                if stamps != Stamps::default() {
                    seen.insert(name.into(), stamps);
                }
            }
        }
        Ok(seen)
    }

    /// Symbolic links are followed; what is no file, or went meanwhile, is not there. A link that leads nowhere is there and
    /// cannot be read: somebody meant something by it.
    fn stamps(&self, name: &str) -> Stamps {
        let stamp = |ending: &str| {
            let path = self.path.join(format!("{name}.{ending}"));
            match std::fs::metadata(&path) {
                Ok(metadata) => metadata.is_file().then(|| Stamp::of(&metadata)),
                Err(_) => std::fs::symlink_metadata(&path).ok().map(|link| Stamp::of(&link)),
            }
        };
        Stamps { component: stamp("wasm"), settings: stamp("toml") }
    }

    fn read(&self, name: &str, stamps: Stamps) -> Change {
        let read = |ending: &str, stamp: Option<Stamp>, largest: u64| {
            let size = stamp?.size;
            if size > largest {
                return Some(Err(format!("it is {size} bytes long, more than the {largest} that are accepted")));
            }
            Some(std::fs::read(self.path.join(format!("{name}.{ending}"))).map_err(|error| error.to_string()))
        };
        Change {
            name: name.into(),
            component: read("wasm", stamps.component, self.largest_component),
            settings: read("toml", stamps.settings, self.largest_settings),
        }
    }
}

/// Files of a folder that look like policies or their settings and are not taken, each with the reason; sorted.
///
/// # Errors
/// When the folder cannot be listed.
pub fn ignored(directory: &Path) -> io::Result<Vec<(String, &'static str)>> {
    let mut ignored = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let reason = match unit_of(&file) {
            None if Path::new(&file).extension().is_some_and(|ending| ending == "wasm") => {
                "the name of a policy's file is of letters, digits, `-`, `_` and `.`, and does not begin with a point"
            }
            None => continue,
            Some((ReadWriteSplit::NAME, "toml")) => continue,
            Some((name, "toml")) if std::fs::symlink_metadata(directory.join(format!("{name}.wasm"))).is_err() => {
                "there is no policy beside these settings"
            }
            Some((_, "wasm")) if std::fs::metadata(entry.path()).is_ok_and(|metadata| !metadata.is_file()) => {
                "it is not a file"
            }
            Some(_) => continue,
        };
        ignored.push((file, reason));
    }
    ignored.sort_unstable();
    Ok(ignored)
}

/// The unit that a file belongs to, and its ending. Hidden files belong to none: editors and copies leave them.
fn unit_of(file: &str) -> Option<(&str, &str)> {
    let (name, ending) = file.rsplit_once('.')?;
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let named = !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.chars().all(allowed);
    (named && matches!(ending, "wasm" | "toml")).then_some((name, ending))
}

fn is_young(stamps: Stamps) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let young = |stamp: Option<Stamp>| {
        stamp.is_some_and(|stamp| {
            let newest = u64::try_from(stamp.modified.0.max(stamp.changed.0)).unwrap_or(0);
            newest + YOUNG.as_secs() >= now
        })
    };
    young(stamps.component) || young(stamps.settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (file, unit) in [
            ("a.wasm", Some("a")),
            ("10-tenant.toml", Some("10-tenant")),
            ("a.b.wasm", Some("a.b")),
            (".a.wasm", None),
            ("a.wasm.tmp", None),
            ("a.wasm~", None),
            (".wasm", None),
            ("a b.wasm", None),
            ("..data", None),
            ("wasm", None),
        ] {
            assert_eq!(unit_of(file).map(|unit| unit.0), unit, "{file}");
        }
    }

    struct Fixture {
        directory: tempfile::TempDir,
        folder: Folder,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let folder = Folder::new(directory.path().into(), 1000, 100);
            Self { directory, folder, now: Instant::now() }
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.directory.path().join(file), text).unwrap();
        }

        /// Names and contents handed over after so many more milliseconds.
        fn after(&mut self, milliseconds: u64) -> Vec<(String, Option<String>, Option<String>)> {
            self.now += Duration::from_millis(milliseconds);
            let text = |part: Option<Result<Vec<u8>, String>>| {
                part.map(|part| part.map_or_else(|error| error, |bytes| String::from_utf8(bytes).unwrap()))
            };
            let scan = self.folder.scan(self.now, QUIET).unwrap();
            let changes = scan.changes.into_iter();
            changes.map(|change| (change.name.into(), text(change.component), text(change.settings))).collect()
        }
    }

    fn change(name: &str, component: Option<&str>, settings: Option<&str>) -> (String, Option<String>, Option<String>) {
        (name.into(), component.map(Into::into), settings.map(Into::into))
    }

    #[test]
    fn a_unit_is_taken_when_it_is_quiet() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.after(0), []);
        fixture.write("a.wasm", "one");
        assert_eq!(fixture.after(0), []);
        assert_eq!(fixture.after(40), []);
        fixture.write("a.toml", "x = 1");
        assert_eq!(fixture.after(10), [], "the settings made it restless again");
        assert_eq!(fixture.after(50), [change("a", Some("one"), Some("x = 1"))]);
        std::fs::remove_file(fixture.directory.path().join("a.toml")).unwrap();
        assert_eq!(fixture.after(1), []);
        assert_eq!(fixture.after(50), [change("a", Some("one"), None)]);
        std::fs::remove_file(fixture.directory.path().join("a.wasm")).unwrap();
        assert_eq!(fixture.after(1), []);
        assert_eq!(fixture.after(50), [change("a", None, None)]);
        assert_eq!(fixture.after(5000), []);
    }

    #[test]
    fn empty_is_not_removed_and_large_is_not_read() {
        let mut fixture = Fixture::new();
        fixture.write("a.wasm", "");
        fixture.write("b.wasm", &"x".repeat(1001));
        assert_eq!(fixture.after(0), []);
        let large = "it is 1001 bytes long, more than the 1000 that are accepted";
        assert_eq!(fixture.after(100), [change("b", Some(large), None)]);
        fixture.write("a.wasm", "now");
        assert_eq!(fixture.after(0), []);
        assert_eq!(fixture.after(50), [change("a", Some("now"), None)]);
        fixture.write("a.wasm", "");
        assert_eq!(fixture.after(0), []);
        assert_eq!(fixture.after(1000), [], "an empty file is waited for");
        let found = fixture.after(1000);
        assert!(found.contains(&change("a", Some(""), None)), "{found:?}");
        assert!(found.contains(&change("b", Some(large), None)), "it was young, so it is read once more: {found:?}");
    }

    #[test]
    fn a_folder_that_is_gone_says_nothing() {
        let mut fixture = Fixture::new();
        fixture.write("a.wasm", "one");
        fixture.after(0);
        assert_eq!(fixture.after(50).len(), 1);
        let elsewhere = fixture.directory.path().with_extension("elsewhere");
        std::fs::rename(fixture.directory.path(), &elsewhere).unwrap();
        assert!(fixture.folder.scan(fixture.now, QUIET).is_err());
        std::fs::rename(&elsewhere, fixture.directory.path()).unwrap();
    }
}
