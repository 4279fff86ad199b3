//! A policy's settings file: TOML for people, JSON for components, which every language reads.

use serde_json::Value;

/// The JSON of a TOML text; an error names the line.
pub(super) fn to_json(toml: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(toml).map_err(|error| {
        let line = toml[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: not UTF-8")
    })?;
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })?;
    Ok(Value::Object(object(table)).to_string())
}

fn object(table: toml::Table) -> serde_json::Map<String, Value> {
    table.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        // JSON has no infinities: as text they at least arrive.
        toml::Value::Float(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
        }
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        toml::Value::Array(list) => Value::Array(list.into_iter().map(json).collect()),
        toml::Value::Table(table) => Value::Object(object(table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translation() {
        for (toml, json) in [
            ("", "{}"),
            ("a = 1\nb = \"ä\"\nc = [1.5, true]", r#"{"a":1,"b":"ä","c":[1.5,true]}"#),
            ("[t]\nx = 2024-01-02", r#"{"t":{"x":"2024-01-02"}}"#),
            ("a = inf", r#"{"a":"inf"}"#),
        ] {
            let found: Value = serde_json::from_str(&to_json(toml.as_bytes()).unwrap()).unwrap();
            assert_eq!(found, serde_json::from_str::<Value>(json).unwrap(), "{toml}");
        }
        assert!(to_json(b"a = 1\nb =\n").unwrap_err().starts_with("line 2: "));
        assert!(to_json(b"a = 1\n\xff").unwrap_err().starts_with("line 2: "));
    }
}
