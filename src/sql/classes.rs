//! Character classes of PostgreSQL's `scan.l`, one table look-up each.
//!
//! Invariant: bytes from 0x80 are parts of identifiers and nothing else, as in PostgreSQL, whatever the encoding.
//! Deliberately absent: Unicode.

const SPACE: u8 = 1;
const IDENT_START: u8 = 1 << 1;
const IDENT_PART: u8 = 1 << 2;
const DIGIT: u8 = 1 << 3;
const OPERATOR: u8 = 1 << 4;
const TAG_PART: u8 = 1 << 5;

const TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        // Below 256 by the loop's condition.
        #[expect(clippy::cast_possible_truncation, reason = "i < 256")]
        let byte = i as u8;
        table[i] = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => IDENT_START | IDENT_PART | TAG_PART,
            b'0'..=b'9' => DIGIT | IDENT_PART | TAG_PART,
            b'$' => IDENT_PART,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        i += 1;
    }
    table
};

macro_rules! class {
    ($($name:ident $bit:ident)*) => { $(
        #[inline]
        pub(super) const fn $name(byte: u8) -> bool { TABLE[byte as usize] & $bit != 0 }
    )* };
}

class! {
    is_space SPACE
    is_ident_start IDENT_START
    is_ident_part IDENT_PART
    is_digit DIGIT
    is_operator OPERATOR
    is_tag_part TAG_PART
}
