//! Facts in comments: `/* pointsman: key=value key='v w' */` and sqlcommenter's `/*key='value',key='value'*/`.
//!
//! Invariant: a hint is a fact for a policy and changes nothing here. `traceparent` and `tracestate` are left out: they
//! differ in every statement, no routing depends on them, and they would make every text a shape of its own.
//! Deliberately absent: line comments, and optimiser hints (`/*+ … */`).

use super::lexer::HEAD_LIMIT;

/// Most hints that one comment yields.
const HINT_LIMIT: usize = 32;

/// Calls `sink` with each key and value of one comment token, delimiters included; values are decoded.
/// A comment that is longer than the lexer keeps, or that is not wholly of one of the two forms, has none.
pub(crate) fn parse(comment: &[u8], mut sink: impl FnMut(&str, &str)) {
    // Told by length, so that a text read in pieces has the same hints.
    if comment.len() >= HEAD_LIMIT {
        return;
    }
    let Ok(text) = std::str::from_utf8(comment) else { return };
    let inner = text.trim_start_matches("/*").trim_end_matches("*/").trim();
    let pairs = match inner.strip_prefix("pointsman:") {
        Some(own) => own_pairs(own),
        None => commenter_pairs(inner),
    };
    for (key, value) in pairs.unwrap_or_default().into_iter().take(HINT_LIMIT) {
        if !matches!(key.as_str(), "traceparent" | "tracestate") {
            sink(&key, &value);
        }
    }
}

fn own_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_matches([' ', ',', '\t', '\n', '\r']);
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=')?;
        let (value, tail) = match tail.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'')?,
            None => tail.split_at(tail.find([' ', ',', '\t', '\n', '\r']).unwrap_or(tail.len())),
        };
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        pairs.push((key.to_owned(), value.to_owned()));
        rest = tail.trim_start_matches([' ', ',', '\t', '\n', '\r']);
    }
    Some(pairs)
}

/// <https://google.github.io/sqlcommenter/spec/>: URL-encoded keys and values, quotes escaped by a backslash.
fn commenter_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        let (key, tail) = rest.split_once("='")?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.%~".contains(&b)) {
            return None;
        }
        let bytes = tail.as_bytes();
        let end = (0..bytes.len()).find(|&i| bytes[i] == b'\'' && (i == 0 || bytes[i - 1] != b'\\'))?;
        pairs.push((percent_decoded(key), percent_decoded(&tail[..end].replace("\\'", "'"))));
        rest = tail[end + 1..].trim();
        if rest.is_empty() {
            return Some(pairs);
        }
        rest = rest.strip_prefix(',')?;
    }
}

fn percent_decoded(text: &str) -> String {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i], digit(bytes.get(i + 1)), digit(bytes.get(i + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                i += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(comment: &str, expected: &[(&str, &str)]) {
        let mut got = Vec::new();
        parse(comment.as_bytes(), |k, v| got.push((k.to_owned(), v.to_owned())));
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(got, expected, "{comment}");
    }

    #[test]
    fn both_forms_and_neither() {
        check("/* pointsman: shard=3 node='a b',x=y */", &[("shard", "3"), ("node", "a b"), ("x", "y")]);
        check("/*action='%2Fparam*d',controller='index'*/", &[("action", "/param*d"), ("controller", "index")]);
        check("/*a='it\\'s',traceparent='00-5b'*/", &[("a", "it's")]);
        check("/* just words */", &[]);
        check("/*+ SeqScan(t) */", &[]);
        check("/* pointsman: nonsense */", &[]);
        check("/**/", &[]);
        check("/*a='b' c*/", &[]);
    }
}
