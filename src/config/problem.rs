//! What is wrong with a configuration, said so that it can be put right.
//!
//! Invariant: a problem names file, line, column and key path, and never quotes the line it stands
//! on, because that line may hold a password.
//!
//! Deliberately absent: colours and summaries; whoever prints adds them.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// A place in the text, as byte offsets.
pub(super) type Span = Range<usize>;

/// How grave a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong. Displays as `FILE:LINE:COLUMN: error: KEY.PATH: message`, and the help
/// on a line of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// The file as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// `clusters.main.replicas[1].weight`; empty for the file as a whole and for syntax.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to write.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n    {help}"),
            None => Ok(()),
        }
    }
}

/// Collects problems while one text is read and checked.
pub(super) struct Problems<'t> {
    text: &'t str,
    file: String,
    found: Vec<(usize, Problem)>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str, file: String) -> Self {
        Self { text, file, found: Vec::new() }
    }

    /// Adds an error.
    pub(super) fn error(
        &mut self,
        span: &Span,
        path: &str,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.add(Severity::Error, span, path, message.into(), help.into());
    }

    /// Adds a warning.
    pub(super) fn warning(
        &mut self,
        span: &Span,
        path: &str,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.add(Severity::Warning, span, path, message.into(), help.into());
    }

    /// Whether an error was found.
    pub(super) fn any_error(&self) -> bool {
        self.found.iter().any(|(_, problem)| problem.severity == Severity::Error)
    }

    /// All of them in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }

    fn add(&mut self, severity: Severity, span: &Span, path: &str, message: String, help: Option<String>) {
        let (line, column) = position(self.text, span.start);
        let file = self.file.clone();
        let path = path.to_owned();
        let problem = Problem { severity, file, line, column, path, message, help };
        self.found.push((span.start, problem));
    }
}

/// Line and column, both from 1, of a byte offset; an offset past the end is the end.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The word of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, with `-` and `_` counted as the same.
fn distance(a: &str, b: &str) -> usize {
    let same = |c: char| if c == '-' { '_' } else { c.to_ascii_lowercase() };
    let b: Vec<char> = b.chars().map(same).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().map(same).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
