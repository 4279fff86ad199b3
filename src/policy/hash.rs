//! PostgreSQL's hash partitioning, so that a policy can find the shard that `FOR VALUES WITH (MODULUS m, REMAINDER r)` means.
//!
//! Source: PostgreSQL's `src/common/hashfn.c` (Bob Jenkins' lookup3) and `compute_partition_hash_value` in
//! `partitioning/partbounds.c`. Checked against PostgreSQL 15's own functions; see the tests.
//!
//! Deliberately absent: types other than integers, text with a deterministic collation, and uuid.

/// The seed that hash partitioning hands to every type's extended hash function (`HASH_PARTITION_SEED`).
pub const PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// The row hash of a table that is partitioned by one integer column; smallint, integer and bigint agree.
/// The partition is the one whose remainder is this modulo its modulus.
#[must_use]
pub fn partition_int(value: i64) -> u64 {
    combine(0, int_extended(value, PARTITION_SEED))
}

/// As [`partition_int`], for one column of type text or varchar.
#[must_use]
pub fn partition_text(value: &str) -> u64 {
    combine(0, bytes_extended(value.as_bytes(), PARTITION_SEED))
}

/// As [`partition_int`], for one column of type uuid, its bytes in the order they are written.
#[must_use]
pub fn partition_uuid(value: &[u8; 16]) -> u64 {
    combine(0, bytes_extended(value, PARTITION_SEED))
}

/// `hash_combine64`: folds the hash of one more key column into a row's hash.
#[must_use]
pub fn combine(row: u64, column: u64) -> u64 {
    let added = column.wrapping_add(0x49A0_F4DD_15E5_A8E3).wrapping_add(row << 54).wrapping_add(row >> 7);
    row ^ added
}

/// `hashint8extended`, which equals `hashint4extended` and `hashint2extended` for values that fit.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the halves of the word are meant")]
pub fn int_extended(value: i64, seed: u64) -> u64 {
    let low = value as u32;
    let high = (value >> 32) as u32;
    let folded = low ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(folded);
    state.finish()
}

/// `hash_bytes_extended`: `hashtextextended` under a deterministic collation, and `uuid_hash_extended`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "PostgreSQL hashes the length modulo 2^32, and values are shorter")]
pub fn bytes_extended(bytes: &[u8], seed: u64) -> u64 {
    let mut state = State::new(bytes.len() as u32, seed);
    let (chunks, rest) = bytes.as_chunks::<12>();
    for chunk in chunks {
        state.add(chunk);
        state.mix();
    }
    // The lowest byte of `c` is reserved for the length, so the last bytes move up by one.
    let mut tail = [0u8; 12];
    for (index, byte) in rest.iter().enumerate() {
        tail[if index < 8 { index } else { index + 1 }] = *byte;
    }
    state.add(&tail);
    state.finish()
}

/// lookup3's three words.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the seed are meant")]
    fn new(length: u32, seed: u64) -> Self {
        let start = 0x9E37_79B9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self { a: start, b: start, c: start };
        if seed != 0 {
            state.a = state.a.wrapping_add((seed >> 32) as u32);
            state.b = state.b.wrapping_add(seed as u32);
            state.mix();
        }
        state
    }

    fn add(&mut self, chunk: &[u8; 12]) {
        let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
        self.a = self.a.wrapping_add(word(0));
        self.b = self.b.wrapping_add(word(4));
        self.c = self.c.wrapping_add(word(8));
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        for (one, two) in [(4, 6), (16, 19)] {
            let three = if one == 4 { 8 } else { 4 };
            *a = a.wrapping_sub(*c) ^ c.rotate_left(one);
            *c = c.wrapping_add(*b);
            *b = b.wrapping_sub(*a) ^ a.rotate_left(two);
            *a = a.wrapping_add(*c);
            *c = c.wrapping_sub(*b) ^ b.rotate_left(three);
            *b = b.wrapping_add(*a);
        }
    }

    fn finish(self) -> u64 {
        let Self { mut a, mut b, mut c } = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        u64::from(b) << 32 | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 15 answers to `SELECT hashint8extended(v, 8816678312871386365)`; the seed is [`PARTITION_SEED`].
    #[test]
    fn column_hashes() {
        for (value, expected) in [
            (0, -4_403_592_609_991_167_795_i64),
            (1, 5_968_994_663_651_403_477),
            (42, 7_363_975_540_656_877_951),
            (-1, -5_017_072_347_659_237_694),
            (-7, -7_298_374_200_968_567_817),
            (i64::from(i32::MAX), -6_050_265_599_104_649_060),
            (i64::from(i32::MIN), 4_938_542_303_000_433_043),
            (1 << 31, 4_938_542_303_000_433_043),
            (i64::MAX, 4_938_542_303_000_433_043),
            (i64::MIN, -6_050_265_599_104_649_060),
        ] {
            assert_eq!(int_extended(value, PARTITION_SEED).cast_signed(), expected, "{value}");
        }
        // hashtextextended(v COLLATE "C", …)
        for (value, expected) in [
            ("", -5_700_645_584_453_517_373_i64),
            ("a", -6_705_225_459_120_232_837),
            ("acme", -3_006_037_837_944_560_592),
            ("elevenbytes", 3_534_269_422_329_101_377),
            ("twelve bytes", 1_551_002_018_851_372_083),
            ("thirteen char", -8_394_117_280_085_282_049),
            ("ein längerer Text mit Umlauten", -9_036_000_821_597_393_268),
            (&"x".repeat(100), 894_331_291_974_510_311),
        ] {
            assert_eq!(bytes_extended(value.as_bytes(), PARTITION_SEED).cast_signed(), expected, "{value}");
        }
        let uuid = crate::policy::value::parse_uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").unwrap();
        assert_eq!(bytes_extended(&uuid, PARTITION_SEED).cast_signed(), 424_513_190_990_560_493);
    }

    /// The remainder for which `satisfies_hash_partition('t', 97, remainder, v)` holds in PostgreSQL 15.
    #[test]
    fn partitions() {
        for (value, remainder) in [(0, 18), (1, 30), (42, 43), (-1, 2), (-7, 94), (1 << 31, 87), (i64::MIN, 20)] {
            assert_eq!(partition_int(value) % 97, remainder, "{value}");
        }
        for (value, remainder) in [
            ("", 40),
            ("a", 52),
            ("acme", 7),
            ("elevenbytes", 86),
            ("twelve bytes", 76),
            ("thirteen char", 77),
            ("ein längerer Text mit Umlauten", 52),
        ] {
            assert_eq!(partition_text(value) % 97, remainder, "{value}");
        }
        for (value, remainder) in
            [("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 68), ("00000000-0000-0000-0000-000000000000", 75)]
        {
            let bytes = crate::policy::value::parse_uuid(value).unwrap();
            assert_eq!(partition_uuid(&bytes) % 97, remainder, "{value}");
        }
    }
}
