//! The log: tracing's events to standard error, as text or JSON, through a filter that can change
//! while the gateway runs.
//!
//! Invariant: standard output stays free for what a command prints. Deliberately absent: log
//! files and rotation; the service manager has them.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log as LogConfig, LogFormat};

/// The environment variable that goes before `log.level`.
pub const LEVEL_VARIABLE: &str = "POINTSMAN_LOG";

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no list of filter directives.
    #[error(
        "{from} {text:?} is no log filter ({reason}); write a level such as \"info\", or \"info,pointsman::wasm=debug\""
    )]
    Filter {
        /// `log.level` or [`LEVEL_VARIABLE`].
        from: &'static str,
        /// The text as given.
        text: String,
        /// tracing-subscriber's words.
        reason: String,
    },
    /// Something else in this process has set a subscriber up.
    #[error("the log was set up twice")]
    Twice,
    /// The subscriber is gone.
    #[error("the log's filter can no longer be changed")]
    Gone,
}

/// The way to change the filter later. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    pinned: bool,
}

impl LogHandle {
    /// Takes a new level into use. Does nothing if [`LEVEL_VARIABLE`] was set at the start: what an
    /// operator asked of this process outlives a reload.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the old filter stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        if self.pinned {
            return Ok(());
        }
        let filter = directives("log.level", level)?;
        self.filter.reload(filter).map_err(|_| LogError::Gone)
    }
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHandle").field("pinned", &self.pinned).finish_non_exhaustive()
    }
}

/// Sets the process's log up, once. `override_level` is [`LEVEL_VARIABLE`]'s value, if it is set.
///
/// # Errors
/// [`LogError::Filter`] or [`LogError::Twice`].
pub fn init(config: &LogConfig, override_level: Option<&str>, colour: bool) -> Result<LogHandle, LogError> {
    let filter = match override_level {
        Some(level) => directives(LEVEL_VARIABLE, level)?,
        None => directives("log.level", &config.level)?,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let set = match config.format {
        LogFormat::Text => registry.with(layer.with_ansi(colour)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(true)).try_init()
        }
    };
    set.map_err(|_| LogError::Twice)?;
    Ok(LogHandle { filter: handle, pinned: override_level.is_some() })
}

/// Whether standard error takes colours: a terminal, and no `NO_COLOR` (<https://no-color.org>: set
/// and not empty).
#[must_use]
pub fn stderr_takes_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

fn directives(from: &'static str, text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| LogError::Filter { from, text: text.to_owned(), reason: error.to_string() })
        // The parser's own events quote statements, literals and all.
        .map(|filter| QUIET.iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive))
}

/// What no level turns on.
const QUIET: [&str; 1] = ["sqlparser=off"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_checked_and_named() {
        assert!(directives("log.level", "info,pointsman::wasm=debug").is_ok());
        let error = directives(LEVEL_VARIABLE, "pointsman=loud").unwrap_err().to_string();
        assert!(error.starts_with("POINTSMAN_LOG \"pointsman=loud\" is no log filter"), "{error}");
    }

    #[test]
    fn a_pinned_level_ignores_reloads() {
        // No subscriber is installed: tests share the process.
        let (layer, filter) = reload::Layer::<EnvFilter, Registry>::new(EnvFilter::new("warn"));
        let handle = LogHandle { filter: filter.clone(), pinned: true };
        handle.set_level("trace").unwrap();
        assert_eq!(filter.with_current(ToString::to_string).unwrap(), "warn");
        let handle = LogHandle { filter: filter.clone(), pinned: false };
        handle.set_level("debug").unwrap();
        assert_eq!(filter.with_current(ToString::to_string).unwrap(), "sqlparser=off,debug");
        assert!(handle.set_level("a=b=c").is_err());
        assert_eq!(filter.with_current(ToString::to_string).unwrap(), "sqlparser=off,debug");
        drop(layer);
    }
}
