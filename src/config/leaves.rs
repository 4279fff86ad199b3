//! The single values of the configuration: texts, numbers, durations, sizes, words.
//!
//! Invariant: a leaf that was read is within its bounds. Deliberately absent: bare numbers for
//! durations; seconds and milliseconds look alike, so the unit is written.

use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::decode::{At, Field, Leaf, LeafError, Raw, Reader, Takes, table};
use super::shape::{FieldShape, Shape, TableShape, doc};
use super::types::{LogFormat, OnFault, PoolMode, RoleSetting, Runtime, ServerTlsMode, UpstreamTlsMode};

/// A text that is not empty.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

impl Leaf for Text {
    const TAKES: Takes = Takes::Text;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        if text.is_empty() {
            return Err(LeafError::Because("is empty".to_owned(), None));
        }
        Ok(Self(text.to_owned()))
    }

    fn leaf_shape() -> Shape {
        leaf("a text in quotes", json!({ "type": "string", "minLength": 1 }))
    }
}

impl Leaf for bool {
    const TAKES: Takes = Takes::Boolean;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        text.parse().map_err(|_| LeafError::Unexpected)
    }

    fn leaf_shape() -> Shape {
        leaf("true or false", json!({ "type": "boolean" }))
    }
}

/// An integer within bounds, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// As a length. No target with pointers under 32 bits runs the gateway.
    pub(super) fn size(self) -> usize {
        self.0 as usize
    }
}

impl<const MIN: u32, const MAX: u32> Leaf for Count<MIN, MAX> {
    const TAKES: Takes = Takes::Integer;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or(LeafError::Unexpected)
    }

    fn leaf_shape() -> Shape {
        leaf(&format!("an integer from {MIN} to {MAX}"), json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

/// A duration above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Duration);

impl Leaf for Time {
    const TAKES: Takes = Takes::Text;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(LeafError::Unexpected),
        }
    }

    fn leaf_shape() -> Shape {
        leaf(r#"a duration such as "30s" or "250ms""#, json!({ "type": "string", "examples": ["30s", "250ms", "1h"] }))
    }
}

/// A duration above zero, or `"off"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeOrOff(pub(super) Option<Duration>);

impl Leaf for TimeOrOff {
    const TAKES: Takes = Takes::Text;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        if text == "off" {
            return Ok(Self(None));
        }
        Time::from_text(text).map(|time| Self(Some(time.0)))
    }

    fn leaf_shape() -> Shape {
        leaf(r#"a duration such as "30s", or "off""#, json!({ "type": "string", "examples": ["30s", "10m", "off"] }))
    }
}

/// A number of bytes above zero: `"64KiB"`, `"16MiB"`, or a plain integer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) ByteSize);

impl Leaf for Size {
    const TAKES: Takes = Takes::TextOrInteger;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(Self(size)),
            _ => Err(LeafError::Unexpected),
        }
    }

    fn leaf_shape() -> Shape {
        leaf(
            r#"a size such as "64KiB" or "16MiB""#,
            json!({ "type": ["string", "integer"], "examples": ["64KiB", "16MiB"] }),
        )
    }
}

/// Permission bits as `chmod` takes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permissions(pub(super) u32);

impl Leaf for Permissions {
    const TAKES: Takes = Takes::Text;

    fn from_text(text: &str) -> Result<Self, LeafError> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or(LeafError::Unexpected)
    }

    fn leaf_shape() -> Shape {
        leaf(r#"octal permissions such as "0770""#, json!({ "type": "string", "pattern": "^[0-7]{3,4}$" }))
    }
}

/// A secret as it is written: the text itself, or where to find it.
#[derive(Clone, Debug)]
pub(super) enum RawSecret {
    Literal(super::Secret),
    Env(At<Text>),
    File(At<Text>),
}

table! {
    /// Where to find a secret; exactly one of the two.
    SecretSource {
        /// The environment variable that holds it.
        env: Text,
        /// The file that holds it; one line break at the end is dropped.
        file: Text,
    }
}

impl Raw for RawSecret {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Literal(super::Secret::new(text))),
            DeValue::Table(_) => {
                let source = SecretSource::read(value, reader)?;
                if source.env.is_absent() == source.file.is_absent() {
                    let help = r#"write { env = "NAME" } or { file = "PATH" }"#;
                    reader.error(&value.span(), "needs exactly one of `env` and `file`", Some(help.to_owned()));
                    return None;
                }
                let env = source.env.given().cloned().map(Self::Env);
                env.or_else(|| source.file.given().cloned().map(Self::File))
            }
            _ => {
                reader.unexpected(value, &Self::shape());
                None
            }
        }
    }

    fn shape() -> Shape {
        let literal = leaf("a text in quotes", json!({ "type": "string" }));
        let source = leaf(
            r#"{ env = "NAME" } or { file = "PATH" }"#,
            json!({ "anyOf": [
                { "type": "object", "properties": { "env": { "type": "string" } }, "required": ["env"], "additionalProperties": false },
                { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"], "additionalProperties": false },
            ] }),
        );
        Shape::Either(vec![literal, source])
    }
}

fn leaf(expected: &str, schema: Value) -> Shape {
    Shape::Leaf { expected: expected.to_owned(), schema }
}

/// Declares the words of an enum: each with its value and its meaning.
macro_rules! words {
    (
        $type:ty { $($word:literal => $value:expr, $meaning:literal;)* }
    ) => {
        impl Leaf for $type {
            const TAKES: Takes = Takes::Text;

            fn from_text(text: &str) -> Result<Self, LeafError> {
                match text {
                    $($word => Ok($value),)*
                    _ => Err(LeafError::Unexpected),
                }
            }

            fn leaf_shape() -> Shape {
                Shape::Choice(vec![$(($word, $meaning)),*])
            }
        }
    };
}

words! { Runtime {
    "per-core" => Self::PerCore, "one single-threaded runtime per worker; a session stays on its worker";
    "multi-thread" => Self::MultiThread, "one runtime over all workers; sessions move between them";
} }

/// `disable` besides the modes of [`ServerTlsMode`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientTlsMode(pub(super) Option<ServerTlsMode>);

words! { ClientTlsMode {
    "disable" => Self(None), "no TLS";
    "prefer" => Self(Some(ServerTlsMode::Prefer)), "TLS for the clients that ask for it";
    "require" => Self(Some(ServerTlsMode::Require)), "TCP clients without TLS are refused";
} }

words! { UpstreamTlsMode {
    "disable" => Self::Disable, "never TLS";
    "prefer" => Self::Prefer, "TLS if the server has it, its certificate unchecked";
    "require" => Self::Require, "TLS, the certificate unchecked unless `ca` is given";
    "verify-ca" => Self::VerifyCa, "TLS, and `ca` must have signed the certificate";
    "verify-full" => Self::VerifyFull, "and the certificate must bear the host's name";
} }

words! { OnFault {
    "reject" => Self::Reject, "the client gets an error";
    "primary" => Self::Primary, "the statement goes to the primary";
    "pass" => Self::Pass, "the next policy of the chain decides";
} }

words! { PoolMode {
    "session" => Self::Session, "a server connection for as long as the client is connected";
    "transaction" => Self::Transaction, "a server connection for one transaction";
    "statement" => Self::Statement, "a server connection for one statement; transaction blocks are refused";
} }

words! { RoleSetting {
    "auto" => Self::Auto, "ask the server";
    "primary" => Self::Primary, "believed to be the primary until asked";
    "replica" => Self::Replica, "believed to be a replica until asked";
} }

words! { LogFormat {
    "text" => Self::Text, "one line an event, for people";
    "json" => Self::Json, "one JSON object an event, for machines";
} }
