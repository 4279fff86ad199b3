//! What the source of a function in SQL or PL/pgSQL says of what it may do, by its tokens.
//!
//! Invariant: state that a call leaves in the session comes from a word found here or from something that the source
//! names; a source that may run what it does not spell out is said to hide. What a word is (a column, a variable, a
//! function) is not told apart: each may be any.
//!
//! Deliberately absent: what the names stand for (`closure`).

use std::collections::HashSet;

use super::conduct::text_effects;
use crate::sql::{Effects, Lexer, Token, TokenKind, sets_inside, unicode_name, unquoted_name, word_name};

/// What a source says.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Identifiers, folded, and operators.
    pub(super) names: HashSet<Box<str>>,
    /// Those of them that stand where a cast names its type.
    pub(super) casts: HashSet<Box<str>>,
    /// Words in its strings, folded and as they are spelled, if it may make statements of those.
    pub(super) said: HashSet<Box<str>>,
    /// It may change the session by a statement of its own, or run something that its text does not spell out.
    pub(super) leaves_state: bool,
    /// It makes statements of strings.
    pub(super) executes: bool,
    /// What it does by statements of its own that no question finds.
    pub(super) effects: Effects,
}

/// Reads a source.
pub(super) fn screen(source: &str) -> Source {
    let mut read = Source::default();
    // What a backslash in a string means is up to the session that calls it.
    for standard_conforming_strings in [true, false] {
        if standard_conforming_strings || source.contains('\\') {
            let mut reader =
                Reader { source: &mut read, last: Last::Start, sets: false, seeds: false, cast: false, loads: false };
            Lexer::whole(source.as_bytes(), standard_conforming_strings, |token| reader.token(&token));
        }
    }
    read.effects |= sets_inside(source);
    read.executes |= read.names.iter().any(|name| text_effects(name) != Effects::NONE);
    if read.names.contains("set_config") && read.said.contains("seed") {
        read.effects |= Effects::SEED;
    }
    if !read.executes {
        read.said.clear();
    }
    if read.names.contains("pg_settings") && read.names.contains("update") {
        read.leaves_state = true;
    }
    read
}

/// Where a name stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind a dot.
    Attribute,
    /// Behind `::` or AS, its schema in between or not.
    Cast,
    Elsewhere,
}

/// The names in any text: identifiers as PostgreSQL folds them, and operators; `false` where one cannot be told.
pub(super) fn each_name(text: &[u8], mut visit: impl FnMut(&str, Place)) -> bool {
    let mut told = true;
    for standard_conforming_strings in [true, false] {
        if standard_conforming_strings || text.contains(&b'\\') {
            let mut place = Place::Elsewhere;
            let mut cast = false;
            Lexer::whole(text, standard_conforming_strings, |token| {
                if token.kind == TokenKind::Comment {
                    return;
                }
                // Of `::a.b` each part may be the type, of `a.b` the last may be an attribute.
                let here = if cast { Place::Cast } else { place };
                told &= name(&token, &mut |name| visit(name, here));
                place = if token.text == b"." { Place::Attribute } else { Place::Elsewhere };
                cast = begins_cast(&token) || cast && continues_cast(&token);
            });
        }
    }
    told
}

fn name(token: &Token<'_>, visit: &mut impl FnMut(&str)) -> bool {
    let Ok(text) = std::str::from_utf8(token.text) else { return !is_name(token.kind) };
    match token.kind {
        TokenKind::Word => visit(&word_name(text)),
        TokenKind::QuotedIdent => visit(&unquoted_name(text)),
        TokenKind::Operator => visit(text),
        TokenKind::UnicodeIdent => {
            if let Some(name) = unicode_name(text) {
                visit(&name);
            }
            return false;
        }
        TokenKind::Error => return false,
        _ => {}
    }
    true
}

fn begins_cast(token: &Token<'_>) -> bool {
    token.text == b"::" || token.text.eq_ignore_ascii_case(b"as")
}

/// The type may have a schema.
fn continues_cast(token: &Token<'_>) -> bool {
    token.text == b"." || is_name(token.kind)
}

/// A name that cannot be decoded.
fn lost(token: &Token<'_>) -> bool {
    token.kind == TokenKind::UnicodeIdent && std::str::from_utf8(token.text).ok().and_then(unicode_name).is_none()
}

fn is_name(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Word | TokenKind::QuotedIdent | TokenKind::UnicodeIdent)
}

fn is_string(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::NationalString
            | TokenKind::DollarString
    )
}

/// What may be a name in any text, folded and as it is spelled.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = Box<str>> {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
    text.split(move |byte| !name(byte))
        .flat_map(parts)
        .filter(|word| !word.is_empty())
        .filter_map(|word| std::str::from_utf8(word).ok())
        .flat_map(|word| {
            let folded = word.to_ascii_lowercase();
            let spelled = (folded != word).then(|| word.into());
            std::iter::once(folded.into()).chain(spelled)
        })
}

/// A word, and what stands between its dollars: those may be part of the name, or of the quote before it.
fn parts(word: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::once(word).chain(word.split(|byte| *byte == b'$').filter(move |part| part.len() < word.len()))
}

/// The last token, as far as the next one's meaning hangs on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// A statement may begin here.
    Start,
    /// CREATE, and what may stand between it and TEMPORARY; INTO.
    Create,
    With,
    Dot,
    /// A `U&"…"`, whose escape character may come.
    Unicode,
    Other,
}

struct Reader<'s> {
    source: &'s mut Source,
    last: Last,
    /// The last token was a SET that began a statement.
    sets: bool,
    /// The next token may name the type of a cast.
    cast: bool,
    /// So it was, or SESSION or LOCAL behind one.
    seeds: bool,
    /// The last token was a LOAD that may have begun a statement.
    loads: bool,
}

impl Reader<'_> {
    fn token(&mut self, token: &Token<'_>) {
        if token.kind == TokenKind::Comment {
            return;
        }
        let Source { names, casts, said, leaves_state, effects, .. } = &mut *self.source;
        if std::mem::take(&mut self.loads) && is_string(token.kind) {
            *effects |= Effects::PROCESS;
        }
        let cast = self.cast;
        self.cast = begins_cast(token) || cast && continues_cast(token);
        let told = name(token, &mut |name| {
            *leaves_state |= name.starts_with("pg_temp");
            if cast {
                casts.insert(name.into());
            }
            if !names.contains(name) {
                names.insert(name.into());
            }
        });
        *leaves_state |= !told;
        if is_string(token.kind) {
            said.extend(words(token.text));
        }
        if self.last == Last::Unicode && token.text.eq_ignore_ascii_case(b"uescape") || !told && lost(token) {
            *effects |= Effects::HIDDEN;
        }
        let last = std::mem::replace(&mut self.last, Last::Other);
        let sets = std::mem::take(&mut self.sets);
        match token.kind {
            TokenKind::Word => self.word(&token.text.to_ascii_lowercase(), last, sets),
            TokenKind::Punctuation if token.text == b";" => self.last = Last::Start,
            TokenKind::Punctuation if token.text == b"." => self.last = Last::Dot,
            TokenKind::UnicodeIdent => self.last = Last::Unicode,
            // The end of a label.
            TokenKind::Operator if token.text == b">>" => self.last = Last::Start,
            _ => self.source.leaves_state |= sets,
        }
    }

    fn word(&mut self, word: &[u8], last: Last, sets: bool) {
        // What a transaction's end undoes is no state.
        let local = matches!(word, b"local" | b"constraints" | b"transaction");
        let begins = last == Last::Start
            && matches!(
                word,
                b"reset" | b"listen" | b"unlisten" | b"load" | b"discard" | b"prepare" | b"deallocate" | b"do"
            );
        let temporary = last == Last::Create && matches!(word, b"temp" | b"temporary");
        let hold = last == Last::With && word == b"hold";
        let execute = last != Last::Dot && word == b"execute";
        self.source.executes |= execute;
        self.loads = begins && word == b"load";
        let seeds = std::mem::take(&mut self.seeds);
        if seeds && word == b"seed" {
            self.source.effects |= Effects::SEED;
        }
        self.source.leaves_state |= sets && !local || begins || temporary || hold || execute;
        self.sets = last == Last::Start && word == b"set";
        self.seeds = self.sets || seeds && matches!(word, b"session" | b"local");
        self.last = match word {
            _ if last == Last::Dot => Last::Other,
            b"begin" | b"then" | b"else" | b"loop" => Last::Start,
            b"create" | b"into" => Last::Create,
            b"or" | b"replace" | b"local" | b"global" if last == Last::Create => Last::Create,
            b"with" => Last::With,
            _ => Last::Other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, leaves_state: bool) {
        assert_eq!(screen(source).leaves_state, leaves_state, "{source}");
    }

    #[test]
    fn sources_that_leave_nothing() {
        check("begin new.updated_at = now(); return new; end", false);
        check("UPDATE t SET a = 1 WHERE b; UPDATE ONLY t AS x SET (a, b) = (1, 2)", false);
        check("insert into t values (1) on conflict (id) do update set a = 1", false);
        check("begin if a then update t set b = 1; else delete from t; end if; end", false);
        check("merge into t using s on true when matched then update set a = 1", false);
        check("begin set local work_mem = '1MB'; set constraints all deferred; end", false);
        check("begin for r in select 1 loop x := r.execute; end loop; raise notice 'execute set reset'; end", false);
        check("select reset, load, hold, temp, prepare from t -- set role x", false);
        check("alter table t set (fillfactor = 10); create table u (a int); notify c", false);
        check("declare c cursor for select 1; begin open c; close c; end", false);
    }

    #[test]
    fn sources_that_may_leave_state() {
        for source in [
            "set role x",
            "select 1; SET search_path = a",
            "select '--'; set role x",
            "begin if a then set role x; end if; end",
            "begin for r in select 1 for update loop set role x; end loop; end",
            "begin <<a>> set role x; end",
            "begin case a when 1 then set session authorization x; else reset all; end case; end",
            "begin set \"my.x\" = 'y'; end",
            "begin /* update t */ set x to 1; end",
            "begin listen c; end",
            "begin unlisten *; exception when others then load 'x'; end",
            "begin execute 'sel' || 'ect 1'; end",
            "begin return query execute a; end",
            "begin do $$ begin end $$; end",
            "create temp table t (a int)",
            "create or replace local temporary view t as select 1",
            "select 1 into temp t",
            "create table pg_temp.t (a int)",
            "create table \"pg_temp_3\".t (a int)",
            "declare c cursor with hold for select 1",
            "prepare a as select 1",
            "update pg_settings set setting = '1'",
            "select U&\"set\\005fconfig\"('a', 'b', false)",
            "select '\\'; set role x; --'",
            "select 'unterminated",
        ] {
            check(source, true);
        }
    }

    #[test]
    fn places_of_names() {
        let mut found = Vec::new();
        let text = br#"select a . /* x */ b, c::d.e, cast(f as "G") +== 'h' from i"#;
        assert!(each_name(text, |name, place| found.push((name.to_owned(), place))));
        let at = |name: &str| found.iter().find(|(found, _)| found == name).map(|(_, place)| *place);
        for (name, place) in [
            ("a", Place::Elsewhere),
            ("b", Place::Attribute),
            ("c", Place::Elsewhere),
            ("d", Place::Cast),
            ("e", Place::Cast),
            ("f", Place::Elsewhere),
            ("G", Place::Cast),
            ("+==", Place::Elsewhere),
            ("i", Place::Elsewhere),
        ] {
            assert_eq!(at(name), Some(place), "{name}");
        }
        assert_eq!(at("h"), None);
        assert!(!each_name(br#"select U&"\0061""#, |_, _| {}));
    }

    #[test]
    fn strings_count_where_statements_are_made_of_them() {
        let said = |source: &str| {
            let mut said: Vec<_> = screen(source).said.into_iter().collect();
            said.sort();
            said
        };
        assert!(said("begin raise notice 'pg_advisory_lock failed'; perform r.execute; end").is_empty());
        let source = "begin execute 'select F(1)' using $$x.\"y\"$$, 'z$z'; end";
        assert_eq!(said(source), ["$$", "$$x", "1", "F", "f", "select", "x", "y", "z", "z$z"].map(Box::from));
    }

    #[test]
    fn names_are_folded() {
        let read = screen("select Foo(\"Bar\"\"x\"), a.\"b\" === c::d");
        for name in ["foo", "Bar\"x", "a", "b", "c", "d", "==="] {
            assert!(read.names.contains(name), "{name}");
        }
        assert!(!read.names.contains("Foo"));
        assert!(read.casts.contains("d") && read.casts.len() == 1, "{:?}", read.casts);
    }
}
