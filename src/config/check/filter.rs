//! The form of log filter directives (tracing-subscriber's `EnvFilter`): `LEVEL` or `TARGET=LEVEL`,
//! with commas between. Span and field filters (`[…]`) are let through unchecked.

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Whether `text` is a list of directives; if not, which one is wrong.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.contains('[') {
        return Ok(());
    }
    for directive in text.split(',').map(str::trim) {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (Some(target), Some(level)),
            // A target alone means all of it, but a word that is no level is far more often a typing error.
            None if directive.contains("::") => (Some(directive), None),
            None => (None, Some(directive)),
        };
        let level_known = level.is_none_or(|level| LEVELS.contains(&level.to_ascii_lowercase().as_str()));
        if !level_known || target.is_some_and(|target| target.is_empty() || target.contains(char::is_whitespace)) {
            return Err(format!("{directive:?} is no filter directive"));
        }
    }
    Ok(())
}
