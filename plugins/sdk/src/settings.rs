//! A policy's settings: the TOML file beside the component, which the gateway hands over as JSON.

use std::time::Duration;

/// The settings, by name at the top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(Vec<(String, Json)>);

/// A JSON value. Numbers stay as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// As written.
    Number(String),
    /// Decoded.
    String(String),
    /// `[…]`
    Array(Vec<Json>),
    /// `{…}`, in order.
    Object(Vec<(String, Json)>),
}

impl Settings {
    /// Reads a JSON object.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.as_bytes(), depth: 0 };
        match reader.value()? {
            Json::Object(entries) if reader.space().is_empty() => Ok(Self(entries)),
            _ => Err("the settings are not one JSON object".into()),
        }
    }

    /// An error that names the first setting which is not among `names`.
    pub fn only(&self, names: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => Err(format!("`{name}` is not a setting of this policy; it knows {}", names.join(", "))),
            None => Ok(()),
        }
    }

    /// A setting, if it is there.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A string, if it is there.
    pub fn string(&self, name: &str) -> Result<Option<&str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` must be a string")),
        }
    }

    /// `true` or `false`, if it is there.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(format!("`{name}` must be true or false")),
        }
    }

    /// A list of strings; empty if it is not there.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("`{name}` must be a list of strings, such as {name} = [\"one\", \"two\"]");
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Json::Array(list)) => list
                .iter()
                .map(|value| match value {
                    Json::String(text) => Ok(text.clone()),
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// A table of strings, such as `[tenants]`; empty if it is not there. Numbers count as strings.
    pub fn table(&self, name: &str) -> Result<Vec<(&str, &str)>, String> {
        let wrong = || format!("`{name}` must be a table of strings, such as [{name}] key = \"value\"");
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Json::Object(entries)) => entries
                .iter()
                .map(|(key, value)| match value {
                    Json::String(text) | Json::Number(text) => Ok((key.as_str(), text.as_str())),
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// A duration such as `"250ms"`, `"5s"`, `"2min"` or `"1h"`, if it is there.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            _ => 0u64,
        };
        let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
        match total.filter(|_| milliseconds != 0) {
            Some(total) => Ok(Some(Duration::from_millis(total))),
            None => Err(format!("`{name}` must be a duration such as \"250ms\", \"5s\" or \"2min\", not \"{text}\"")),
        }
    }
}

/// A reader of JSON; small, because every policy carries it.
struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    fn space(&mut self) -> &'a [u8] {
        self.rest = self.rest.trim_ascii_start();
        self.rest
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.space().strip_prefix(token.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("malformed JSON: `{token}` expected")) }
    }

    fn value(&mut self) -> Result<Json, String> {
        self.depth += 1;
        if self.depth > 64 {
            return Err("the settings are nested too deeply".into());
        }
        let value = match self.space().first() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.text().map(Json::String),
            Some(b'-' | b'0'..=b'9') => Ok(self.number()),
            _ if self.eat("true") => Ok(Json::Bool(true)),
            _ if self.eat("false") => Ok(Json::Bool(false)),
            _ if self.eat("null") => Ok(Json::Null),
            _ => Err("malformed JSON: a value expected".into()),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Json, String> {
        self.expect("{")?;
        let mut entries = Vec::new();
        if self.eat("}") {
            return Ok(Json::Object(entries));
        }
        loop {
            let key = self.text()?;
            self.expect(":")?;
            entries.push((key, self.value()?));
            if !self.eat(",") {
                self.expect("}")?;
                return Ok(Json::Object(entries));
            }
        }
    }

    fn array(&mut self) -> Result<Json, String> {
        self.expect("[")?;
        let mut list = Vec::new();
        if self.eat("]") {
            return Ok(Json::Array(list));
        }
        loop {
            list.push(self.value()?);
            if !self.eat(",") {
                self.expect("]")?;
                return Ok(Json::Array(list));
            }
        }
    }

    fn number(&mut self) -> Json {
        let end = self.rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        Json::Number(String::from_utf8_lossy(number).into_owned())
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut text = Vec::new();
        loop {
            match self.take()? {
                b'"' => return String::from_utf8(text).map_err(|_| "malformed JSON: not UTF-8".into()),
                b'\\' => {
                    let character = match self.take()? {
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        other => char::from(other),
                    };
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                byte => text.push(byte),
            }
        }
    }

    /// What follows `\u`; surrogates come in pairs.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hexadecimal()?;
        let code = if (0xD800..0xDC00).contains(&first) {
            self.expect("\\u")?;
            let second = self.hexadecimal()?;
            0x1_0000 + ((first - 0xD800) << 10) + (second.wrapping_sub(0xDC00) & 0x3FF)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| "malformed JSON: a lone surrogate".into())
    }

    fn hexadecimal(&mut self) -> Result<u32, String> {
        (0..4).try_fold(0, |code, _| {
            let digit = char::from(self.take()?).to_digit(16);
            digit.map(|digit| code << 4 | digit).ok_or_else(|| "malformed JSON: four digits after \\u expected".into())
        })
    }

    fn take(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or("malformed JSON: it ends in a string")?;
        self.rest = rest;
        Ok(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let settings = Settings::parse(
            r#" {"a": "x\n\u00e4\ud83d\ude00\"", "b": ["one", "two"], "c": {"k": "v", "n": 42}, "d": "250ms", "e": true, "f": [], "g": {}, "h": -1.5e3, "i": null} "#,
        )
        .unwrap();
        assert_eq!(settings.string("a"), Ok(Some("x\nä😀\"")));
        assert_eq!(settings.strings("b").unwrap(), ["one", "two"]);
        assert_eq!(settings.table("c").unwrap(), [("k", "v"), ("n", "42")]);
        assert_eq!(settings.duration("d"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(settings.flag("e"), Ok(Some(true)));
        assert_eq!(settings.strings("f"), Ok(vec![]));
        assert_eq!(settings.table("g"), Ok(vec![]));
        assert_eq!(settings.get("h"), Some(&Json::Number("-1.5e3".into())));
        assert_eq!(settings.get("i"), Some(&Json::Null));
        assert_eq!(settings.string("missing"), Ok(None));
        assert!(settings.strings("a").unwrap_err().contains("`a` must be a list"));
        assert!(settings.only(&["a"]).unwrap_err().contains("`b` is not a setting"));
    }

    #[test]
    fn malformed() {
        for text in [
            "",
            "{",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":\"",
            "{\"a\":\"\\u12\"}",
            "{} x",
            "{\"a\":\"\\ud800\"}",
        ] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
        assert!(Settings::parse(&format!("{{\"a\":{}", "[".repeat(100_000))).is_err());
        for text in ["5", "s", "5 weeks", "99999999999999999999s", "18446744073709551615h"] {
            let settings = Settings::parse(&format!("{{\"d\":\"{text}\"}}")).unwrap();
            assert!(settings.duration("d").is_err(), "{text}");
        }
    }
}
