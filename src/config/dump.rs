//! How checked values are shown in dumps and differences: as the configuration writes them.
//!
//! Invariant: two different values never look the same, because [`super::diff`] compares what is
//! shown. (`ByteSize` prints 65,537 bytes as "64.0 KiB", so it is not left to itself.)

use std::time::Duration;

use bytesize::ByteSize;
use serde::Serializer;

/// The console's users: under the keys that they are written with.
pub(super) mod console_table {
    use std::collections::BTreeMap;

    use super::super::secret::Credential;
    use super::Serializer;

    pub(in crate::config) fn serialize<S: Serializer>(
        users: &BTreeMap<String, Credential>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("users", users)])
    }
}

/// Sizes: in the largest unit that divides them.
pub(super) mod size_text {
    use super::{ByteSize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(in crate::config) fn serialize<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = value.as_u64();
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
            Some((unit, shift)) => serializer.collect_str(&format_args!("{}{unit}", bytes >> shift)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }
}

/// Permission bits.
pub(super) mod octal_text {
    use super::Serializer;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(in crate::config) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:04o}"))
    }
}

/// Durations.
pub(super) mod humantime_text {
    use super::{Duration, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// Durations that can be off.
pub(super) mod humantime_option {
    use super::{Duration, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::humantime_text::serialize(value, serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

/// Durations that an override may not mention.
pub(super) mod humantime_said {
    use super::{Duration, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::humantime_text::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// Durations that can be off, and that an override may not mention.
pub(super) mod humantime_override {
    use super::{Duration, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference")]
    #[expect(clippy::option_option, reason = "the outer one is `says nothing`, the inner one `off`")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Option<Duration>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::humantime_option::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}
