//! What may be written, as values: from these come the reference, the JSON schema and the list of
//! known keys.
//!
//! Invariant: a shape is made by the same macro that makes the reader of the same table, so that
//! neither can drift from the other. Deliberately absent: recursion; no table contains itself.

use serde_json::{Value, json};

/// What may be written in one place.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A single value: what to call it, and its JSON schema.
    Leaf { expected: String, schema: Value },
    /// One of a few words, each with its meaning.
    Choice(Vec<(&'static str, &'static str)>),
    /// A table with known keys.
    Table(TableShape),
    /// A table with keys that the user makes up; the name stands for one.
    Map { key: &'static str, of: Box<Shape> },
    /// An array.
    List(Box<Shape>),
    /// Any of these.
    Either(Vec<Shape>),
}

/// A table with known keys.
#[derive(Clone, Debug)]
pub(super) struct TableShape {
    /// What the table is for.
    pub(super) doc: String,
    /// Its keys in the order of the reference.
    pub(super) fields: Vec<FieldShape>,
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct FieldShape {
    pub(super) key: &'static str,
    pub(super) doc: String,
    pub(super) default: Option<&'static str>,
    pub(super) shape: Shape,
}

impl Shape {
    /// The JSON schema of this shape.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Leaf { schema, .. } => schema.clone(),
            Self::Choice(words) => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                json!({ "type": "string", "enum": words })
            }
            Self::Table(table) => table.schema(),
            Self::Map { of, .. } => {
                json!({ "type": "object", "additionalProperties": of.schema() })
            }
            Self::List(of) => json!({ "type": "array", "items": of.schema() }),
            Self::Either(shapes) => {
                json!({ "anyOf": shapes.iter().map(Self::schema).collect::<Vec<_>>() })
            }
        }
    }

    /// What to call it in an error and in the reference.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Leaf { expected, .. } => expected.clone(),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                listed(&words, "or")
            }
            Self::Table(_) | Self::Map { .. } => "a table".to_owned(),
            Self::List(of) => format!("a list, each entry {}", of.expected()),
            Self::Either(shapes) => {
                let all: Vec<String> = shapes.iter().map(Self::expected).collect();
                all.join(", or ")
            }
        }
    }
}

impl TableShape {
    fn schema(&self) -> Value {
        let properties: serde_json::Map<String, Value> = self
            .fields
            .iter()
            .map(|field| {
                let mut schema = field.shape.schema();
                schema["description"] = json!(field.doc);
                if let Some(default) = field.default {
                    schema["default"] = default_value(default, &schema);
                }
                (field.key.to_owned(), schema)
            })
            .collect();
        json!({
            "type": "object",
            "description": self.doc,
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

/// The default as JSON: a number or a truth value where the schema says so, else a text.
fn default_value(default: &str, schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("integer" | "boolean") => serde_json::from_str(default).unwrap_or_else(|_| json!(default)),
        _ => json!(default),
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., end] => format!("{} {last} {end}", rest.join(", ")),
    }
}

/// A doc comment's lines as one text: paragraphs stay, line ends within them go.
pub(super) fn doc(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() {
            text.push_str("\n\n");
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    text.trim().to_owned()
}
