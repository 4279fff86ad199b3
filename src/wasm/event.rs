//! What the store tells of its work: for the log, for metrics, for the admin interface.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::counters::PolicyCounts;
use crate::policy::Generation;

/// Something happened to a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyEvent {
    /// A generation serves.
    Loaded {
        /// The policy.
        name: Box<str>,
        /// What serves now.
        generation: Generation,
        /// From the moment that its files were read.
        took: Duration,
    },
    /// What is in the folder cannot serve; said once for each content.
    Refused {
        /// The policy.
        name: Box<str>,
        /// The file that is to blame.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        error: Box<str>,
        /// What goes on serving; `None` if nothing of that name ever did.
        serving: Option<Generation>,
    },
    /// Its files are gone, and so is it.
    Removed {
        /// The policy.
        name: Box<str>,
    },
    /// Its files are gone, but a database's chain names it: the last good generation goes on.
    Kept {
        /// The policy.
        name: Box<str>,
    },
    /// It faulted too often and is not asked again.
    Tripped {
        /// The policy.
        name: Box<str>,
        /// What was retired.
        generation: Generation,
        /// What serves in its place; `None` if there is nothing, and its link faults.
        back_to: Option<Generation>,
    },
    /// The folder cannot be read; what serves goes on. Said once.
    Folder {
        /// Which one.
        path: PathBuf,
        /// The system's words.
        error: Box<str>,
    },
}

impl PolicyEvent {
    /// Whether somebody should look.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Self::Loaded { .. } | Self::Removed { .. })
    }
}

impl fmt::Display for PolicyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded { name, generation, took } => {
                write!(f, "policy \"{name}\" loaded: {} in {} ms", Shown(generation), took.as_millis())
            }
            Self::Refused { name, file, error, serving } => {
                write!(f, "policy \"{name}\" not loaded: {}: {error}; ", file.display())?;
                match serving {
                    Some(generation) => write!(f, "{} goes on serving", Shown(generation)),
                    None => write!(f, "there is no earlier version to serve"),
                }
            }
            Self::Removed { name } => write!(f, "policy \"{name}\" removed: its file is gone"),
            Self::Kept { name } => write!(
                f,
                "policy \"{name}\": its file is gone, but a database's chain names it; the last good version goes on. \
                 Put the file back, or take the name out of the configuration"
            ),
            Self::Tripped { name, generation, back_to } => {
                write!(f, "policy \"{name}\": {} failed too often and is not asked again; ", Shown(generation))?;
                match back_to {
                    Some(generation) => write!(f, "{} serves again", Shown(generation)),
                    None => write!(f, "there is no earlier version, so `on_fault` decides; replace its file"),
                }
            }
            Self::Folder { path, error } => {
                write!(f, "policy folder {}: {error}; the loaded policies go on", path.display())
            }
        }
    }
}

/// A generation in a sentence.
struct Shown<'a>(&'a Generation);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Generation { digest, version, .. } = self.0;
        if version.is_empty() { write!(f, "{digest}") } else { write!(f, "version {version} ({digest})") }
    }
}

/// What is known of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Its name.
    pub name: Box<str>,
    /// How it stands.
    pub state: PolicyState,
    /// What serves, if anything does.
    pub generation: Option<Generation>,
    /// When that was loaded.
    pub loaded_at: Option<SystemTime>,
    /// Size of that component in bytes.
    pub size: usize,
    /// What is wrong with the newest content of its files, or why it was retired.
    pub error: Option<Box<str>>,
    /// Of the generation that serves.
    pub counts: PolicyCounts,
    /// What the policy counts itself, over all generations.
    pub own_counts: Vec<(Box<str>, u64)>,
}

/// How a policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyState {
    /// The newest content of its files serves.
    Serving,
    /// An earlier generation serves: the newest was refused, retired or is gone.
    LastGood,
    /// Nothing serves; its link faults.
    Broken,
    /// Nothing serves and no chain has it: it appeared, but could not be loaded.
    Refused,
    /// It is being compiled for the first time.
    Compiling,
}

impl PolicyState {
    /// A word, as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::LastGood => "last_good",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::Compiling => "compiling",
        }
    }
}
