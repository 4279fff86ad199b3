//! The reference (Markdown) and the JSON schema, both from the shapes of the raw tables.
//!
//! Invariant: nothing here knows a key; what it says of one comes from its declaration.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::decode::Raw as _;
use super::diff::needs_restart;
use super::raw::RawConfig;
use super::shape::{FieldShape, Shape, TableShape};

/// The JSON schema (draft 2020-12) of the configuration file, pretty-printed, with a final line break.
#[must_use]
pub fn schema() -> String {
    let mut schema = RawConfig::shape().schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("pointsman.toml");
    let mut text = pretty(&schema);
    text.push('\n');
    text
}

/// The reference as Markdown.
#[must_use]
pub fn reference() -> String {
    let out = String::from(
        "# Configuration\n\n\
         <!-- Written by `pointsman config reference`. Do not edit: change the doc comments in src/config/raw.rs. -->\n\n\
         The file is TOML. Durations are texts such as `\"30s\"` or `\"250ms\"`, sizes texts such as `\"64KiB\"`. \
         Relative paths begin in the file's directory. An unknown key is an error. The file is reloaded when it \
         changes and on SIGHUP; keys marked *restart* take effect at the next start.\n\n\
         The smallest configuration:\n\n\
         ```toml\n[clusters.main]\nprimary  = \"db-0.internal:5432\"\nreplicas = [\"db-1.internal:5432\", \"db-2.internal:5432\"]\n```\n\n\
         `pointsman check --config FILE` says what is wrong with a file, and what it would run.\n",
    );
    let mut writer = Writer { out, described: Vec::new() };
    if let Shape::Table(root) = RawConfig::shape() {
        for field in &root.fields {
            writer.section(field.key, &field.doc, &field.shape);
        }
    }
    writer.out
}

struct Writer {
    out: String,
    /// Tables whose keys stand under a heading already: what they are for, and that heading.
    described: Vec<(String, String)>,
}

impl Writer {
    /// A heading for each table, its keys, then the tables within it.
    fn section(&mut self, path: &str, doc: &str, shape: &Shape) {
        match shape {
            Shape::Table(table) => self.table(path, doc, table),
            Shape::Map { key, of } => self.section(&format!("{path}.{key}"), doc, of),
            Shape::List(of) => self.section(&format!("{path}[]"), doc, of),
            Shape::Either(shapes) => {
                for shape in shapes {
                    self.section(path, doc, shape);
                }
            }
            Shape::Leaf { .. } | Shape::Choice(_) => {}
        }
    }

    fn table(&mut self, path: &str, doc: &str, table: &TableShape) {
        let heading = format!("`{path}`");
        // `write!` to a String cannot fail, here and below.
        let _ = write!(self.out, "\n## {heading}\n\n");
        let doc = if table.doc.starts_with(doc.trim_end_matches('.')) { "" } else { doc };
        for text in [doc, &table.doc].into_iter().filter(|text| !text.is_empty()) {
            let _ = write!(self.out, "{text}\n\n");
        }
        if let Some((_, first)) = self.described.iter().find(|(of, _)| *of == table.doc) {
            let _ = writeln!(self.out, "Its keys are those of {first}.");
            return;
        }
        self.described.push((table.doc.clone(), heading));
        for field in &table.fields {
            self.field(path, field);
        }
        for field in &table.fields {
            self.section(&format!("{path}.{}", field.key), &field.doc, &field.shape);
        }
    }

    fn field(&mut self, path: &str, field: &FieldShape) {
        let _ = write!(self.out, "- **`{}`**: {}", field.key, kind(&field.shape));
        if let Some(default) = field.default {
            let bare = matches!(field.shape.schema()["type"].as_str(), Some("integer" | "boolean"));
            let default = if bare { default.to_owned() } else { format!("{default:?}") };
            let _ = write!(self.out, "; default `{default}`");
        }
        if needs_restart(&format!("{path}.{}", field.key)) {
            self.out.push_str("; *restart*");
        }
        let _ = writeln!(self.out, ".\n  {}", field.doc);
        if let Shape::Choice(words) = &field.shape {
            for (word, meaning) in words {
                let _ = writeln!(self.out, "  - `\"{word}\"`: {meaning}");
            }
        }
    }
}

/// What to call a value, in a few words.
fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Leaf { expected, .. } => expected.clone(),
        Shape::Choice(_) => "one of the words below".to_owned(),
        Shape::Table(_) => "a table".to_owned(),
        Shape::Map { of, .. } => format!("a table of names, each {}", kind(of)),
        Shape::List(of) => format!("a list, each entry {}", kind(of)),
        Shape::Either(shapes) => {
            let mut kinds: Vec<String> = shapes.iter().map(kind).collect();
            kinds.dedup();
            let listed = kinds.iter().any(|kind| kind.starts_with("a list"));
            kinds.join(if listed { ", or " } else { " or " })
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value always prints")
}
