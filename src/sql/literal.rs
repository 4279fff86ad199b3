//! The value of one literal token.
use super::analysis::Literal;

pub(super) fn decode(_token: &[u8], _standard_conforming_strings: bool) -> Option<Literal<'_>> {
    None
}
