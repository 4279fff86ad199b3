//! The value of one literal or identifier token, and how PostgreSQL folds names.
//!
//! Invariant: a value is given only where it is the one that PostgreSQL would read. Deliberately absent: `U&` forms,
//! whose escape character stands in another token, and bit strings.

use std::borrow::Cow;

use super::analysis::Literal;
use super::classes::is_space;

/// PostgreSQL truncates identifiers to `NAMEDATALEN - 1` bytes.
const NAME_LIMIT: usize = 63;

/// Decodes one whole literal token, as the lexer cut it out. `None` where the module says so or it is not UTF-8.
pub(crate) fn decode(token: &[u8], standard_conforming_strings: bool) -> Option<Literal<'_>> {
    match token {
        [b'0'..=b'9' | b'.', ..] => std::str::from_utf8(token).ok().map(Literal::Number),
        [b'\'', ..] => quoted(token, !standard_conforming_strings),
        [b'n' | b'N', b'\'', ..] => quoted(&token[1..], !standard_conforming_strings),
        [b'e' | b'E', b'\'', ..] => quoted(&token[1..], true),
        [b'$', ..] => {
            let tag = memchr::memchr(b'$', &token[1..])? + 2;
            let body = token.get(tag..token.len().checked_sub(tag)?)?;
            std::str::from_utf8(body).ok().map(|s| Literal::String(Cow::Borrowed(s)))
        }
        _ => None,
    }
}

/// As [`decode`], for strings only.
pub(crate) fn decode_string(token: &[u8], standard_conforming_strings: bool) -> Option<Cow<'_, str>> {
    match decode(token, standard_conforming_strings) {
        Some(Literal::String(s)) => Some(s),
        _ => None,
    }
}

fn quoted(token: &[u8], escapes: bool) -> Option<Literal<'_>> {
    let inner = token.get(1..token.len().checked_sub(1)?)?;
    let plain = memchr::memchr(b'\'', inner).is_none() && !(escapes && memchr::memchr(b'\\', inner).is_some());
    if plain {
        return std::str::from_utf8(inner).ok().map(|s| Literal::String(Cow::Borrowed(s)));
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\'' if rest.first() == Some(&b'\'') => {
                value.push(b'\'');
                rest = &rest[1..];
            }
            // Between the parts of a literal that goes on after a newline.
            b'\'' => rest = next_part(rest)?,
            b'\\' if escapes => rest = escape(rest, &mut value)?,
            other => value.push(*other),
        }
    }
    String::from_utf8(value).ok().map(|s| Literal::String(Cow::Owned(s)))
}

/// What follows the quote that opens the next part.
fn next_part(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        match rest {
            [b'\'', tail @ ..] => return Some(tail),
            [b'-', b'-', tail @ ..] => {
                let n = memchr::memchr2(b'\n', b'\r', tail)?;
                rest = &tail[n..];
            }
            [byte, tail @ ..] if is_space(*byte) => rest = tail,
            _ => return None,
        }
    }
}

/// One escape, past its backslash (`scan.l`, state `xe`).
fn escape<'t>(rest: &'t [u8], value: &mut Vec<u8>) -> Option<&'t [u8]> {
    let (&first, tail) = rest.split_first()?;
    let digits = |from: &[u8], most: usize, radix: u32| {
        from.iter().take(most).take_while(|b| char::from(**b).is_digit(radix)).count()
    };
    let number = |from: &[u8], radix: u32| {
        from.iter().fold(0_u32, |n, b| n * radix + char::from(*b).to_digit(radix).unwrap_or(0))
    };
    match first {
        b'b' => value.push(8),
        b'f' => value.push(12),
        b'n' => value.push(b'\n'),
        b'r' => value.push(b'\r'),
        b't' => value.push(b'\t'),
        b'v' => value.push(11),
        b'0'..=b'7' => {
            let n = digits(rest, 3, 8);
            // PostgreSQL keeps the low byte of `\777`; zero is refused.
            let byte = u8::try_from(number(&rest[..n], 8) & 0xff).ok().filter(|b| *b != 0)?;
            value.push(byte);
            return Some(&rest[n..]);
        }
        b'x' if digits(tail, 2, 16) > 0 => {
            let n = digits(tail, 2, 16);
            value.push(u8::try_from(number(&tail[..n], 16)).ok().filter(|b| *b != 0)?);
            return Some(&tail[n..]);
        }
        b'u' | b'U' => {
            let n = if first == b'u' { 4 } else { 8 };
            if digits(tail, n, 16) != n {
                return None;
            }
            let mut code = number(&tail[..n], 16);
            let mut after = &tail[n..];
            if (0xD800..0xDC00).contains(&code) {
                // A surrogate pair: the second half must follow as another escape.
                let low = after.strip_prefix(b"\\u").filter(|t| digits(t, 4, 16) == 4)?;
                let second = number(&low[..4], 16);
                if !(0xDC00..0xE000).contains(&second) {
                    return None;
                }
                code = 0x1_0000 + ((code - 0xD800) << 10) + (second - 0xDC00);
                after = &low[4..];
            }
            let c = char::from_u32(code).filter(|c| *c != '\0')?;
            value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(after);
        }
        other => value.push(other),
    }
    Some(tail)
}

/// The name that an unquoted word stands for: lower case, cut to 63 bytes.
pub(crate) fn fold_word(word: &str) -> Box<str> {
    truncate(word).to_ascii_lowercase().into_boxed_str()
}

/// The name that a quoted identifier stands for, given what is between its quotes, doubled ones undone already.
pub(crate) fn fold_quoted(name: &str) -> Box<str> {
    truncate(name).into()
}

/// The name that a token `"…"` stands for.
pub(crate) fn unquoted_name(token: &str) -> Box<str> {
    fold_quoted(&unquote(token))
}

/// The name that a token `U&"…"` stands for with a backslash as its escape character; none where that cannot be told.
pub(crate) fn unicode_name(token: &str) -> Option<Box<str>> {
    let quoted = unquote(token.get(2..)?);
    let mut name = String::with_capacity(quoted.len());
    let mut rest = &*quoted;
    while let Some(at) = rest.find('\\').filter(|_| name.len() < NAME_LIMIT) {
        name.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        if let Some(behind) = escape.strip_prefix('\\') {
            name.push('\\');
            rest = behind;
            continue;
        }
        let (digits, long) = escape.strip_prefix('+').map_or((escape, 4), |digits| (digits, 6));
        let digits = (digits.get(..long)?, digits.get(long..)?);
        name.push(char::from_u32(u32::from_str_radix(digits.0, 16).ok()?)?);
        rest = digits.1;
    }
    name.push_str(rest);
    Some(fold_quoted(&name))
}

/// What stands between the quotes of `"…"`, doubled quotes undone.
pub(crate) fn unquote(token: &str) -> Cow<'_, str> {
    let inner = token.strip_prefix('"').unwrap_or(token);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) }
}

/// Cut to 63 bytes at a character's edge, as `truncate_identifier` does.
fn truncate(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_LIMIT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(token: &str, value: Option<&str>) {
        let got = decode(token.as_bytes(), true);
        let got = got.as_ref().map(|l| match l {
            Literal::Number(s) => *s,
            Literal::String(s) => s.as_ref(),
        });
        assert_eq!(got, value, "{token}");
    }

    #[test]
    fn values() {
        check("12", Some("12"));
        check("'it''s'", Some("it's"));
        check(r"'a\n'", Some(r"a\n"));
        check(r"E'a\n\t\\\'\x41\101\u00e9'", Some("a\n\t\\'AAé"));
        check(r"E'\uD83D\uDE00'", Some("😀"));
        check(r"E'\uD83D'", None);
        check(r"E'\000'", None);
        check(r"E'\xff'", None);
        check("'a'\n  'b'", Some("ab"));
        check("'a' -- it's\n 'b''c'", Some("ab'c"));
        check("$$a'b$$", Some("a'b"));
        check("$x$a$$b$x$", Some("a$$b"));
        check("N'x'", Some("x"));
        check("U&'x'", None);
        check("B'01'", None);
        check("''", Some(""));
    }

    #[test]
    fn backslashes_escape_where_strings_do_not_conform() {
        assert_eq!(decode(br"'a\'b'", false), Some(Literal::String(Cow::Borrowed("a'b"))));
    }

    #[test]
    fn names() {
        assert_eq!(&*fold_word("FooBär"), "foobär");
        assert_eq!(fold_word(&"É".repeat(40)).len(), 62);
        assert_eq!(unquote("\"a\"\"B\""), "a\"B");
    }
}
