//! Routing keys: values that compare as PostgreSQL compares them under the key's type, however they were written.

use crate::bindings::pointsman::policy::hashes;

/// The type of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// smallint, integer or bigint.
    Int,
    /// text or varchar, under a deterministic collation.
    Text,
    /// uuid.
    Uuid,
}

impl KeyType {
    /// By name: `int`, `text` or `uuid`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "int" => Some(Self::Int),
            "text" => Some(Self::Text),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// The one way to write a value; `None` if it is not of this type.
    pub fn normal(self, value: &str) -> Option<String> {
        match self {
            Self::Int => value.trim_ascii().parse::<i64>().ok().map(|value| value.to_string()),
            Self::Text => Some(value.to_owned()),
            Self::Uuid => normal_uuid(value),
        }
    }

    /// The row hash of PostgreSQL's hash partitioning for a value in its normal form. The partition's remainder is
    /// this modulo the number of partitions.
    pub fn partition_hash(self, normal: &str) -> Option<u64> {
        match self {
            Self::Int => normal.parse().ok().map(hashes::partition_int),
            Self::Text => Some(hashes::partition_text(normal)),
            Self::Uuid => hashes::partition_uuid(normal),
        }
    }
}

/// 32 hexadecimal digits of any case; a hyphen may follow each group of four, braces may stand around the whole.
fn normal_uuid(value: &str) -> Option<String> {
    let inner = match value.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => value,
    };
    let mut normal = String::with_capacity(36);
    let mut digits = 0;
    let mut hyphen = false;
    for character in inner.chars() {
        if character == '-' {
            if hyphen || digits == 0 || digits == 32 || digits % 4 != 0 {
                return None;
            }
            hyphen = true;
            continue;
        }
        if !character.is_ascii_hexdigit() || digits == 32 {
            return None;
        }
        if matches!(digits, 8 | 12 | 16 | 20) {
            normal.push('-');
        }
        normal.push(character.to_ascii_lowercase());
        digits += 1;
        hyphen = false;
    }
    (digits == 32).then_some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (of, value, normal) in [
            (KeyType::Int, "42", Some("42")),
            (KeyType::Int, " 042 ", Some("42")),
            (KeyType::Int, "-7", Some("-7")),
            (KeyType::Int, "+7", Some("7")),
            (KeyType::Int, "4.2", None),
            (KeyType::Int, "1e3", None),
            (KeyType::Int, "9223372036854775808", None),
            (KeyType::Int, "", None),
            (KeyType::Text, " 042 ", Some(" 042 ")),
            (KeyType::Uuid, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
            (KeyType::Uuid, "{a0ee-bc999c0b4ef8bb6d6bb9bd380a11}", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
            (KeyType::Uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a1", None),
            (KeyType::Uuid, "a0e-ebc999c0b4ef8bb6d6bb9bd380a11", None),
        ] {
            assert_eq!(of.normal(value).as_deref(), normal, "{of:?} {value:?}");
        }
    }
}
