//! PostgreSQL's lexical rules, case by case.

use super::super::*;

/// Tokens as `kind:text`, words and punctuation as they are.
fn lexed(text: &str, conforming: bool) -> String {
    let mut out = Vec::new();
    Lexer::whole(text.as_bytes(), conforming, |t| {
        let text = String::from_utf8_lossy(t.text);
        out.push(match t.kind {
            TokenKind::Word | TokenKind::Punctuation => text.into_owned(),
            kind => format!("{kind:?}:{text}"),
        });
    });
    out.join(" ").replace('\n', "~")
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(lexed(text, true), *expected, "{text}");
    }
}

#[test]
fn names_and_literals() {
    check(&[
        ("a _b c$1 é \"Q\"\"x\" U&\"d\"", "a _b c$1 é QuotedIdent:\"Q\"\"x\" UnicodeIdent:U&\"d\""),
        (
            "'a''b' E'a\\'b' e'\\\\' N'n' n'x'",
            "String:'a''b' EscapeString:E'a\\'b' EscapeString:e'\\\\' NationalString:N'n' NationalString:n'x'",
        ),
        ("B'01''10' X'1f'", "BitString:B'01' String:'10' HexString:X'1f'"),
        ("U&'a''b' u & 'x'", "UnicodeString:U&'a''b' u Operator:& String:'x'"),
        ("'a\\'", "String:'a\\'"),
        ("'a' 'b'", "String:'a' String:'b'"),
        ("'a'\n'b'", "String:'a'~'b'"),
        ("'a' \t--it's\n --x\n'b' c", "String:'a' \t--it's~ --x~'b' c"),
        ("'a' --x", "String:'a'"),
        ("'a' /* */\n'b'", "String:'a' Comment:/* */ String:'b'"),
        ("'a'\n-'b'", "String:'a' Operator:- String:'b'"),
        ("\"a\"\n\"b\"", "QuotedIdent:\"a\" QuotedIdent:\"b\""),
        ("E'a'\n'\\''", "EscapeString:E'a'~'\\''"),
        ("$$a$$ $t$ $$ $x$ $t$ $é$b$é$", "DollarString:$$a$$ DollarString:$t$ $$ $x$ $t$ DollarString:$é$b$é$"),
        ("$a$ $$a$", "DollarString:$a$ $$a$"),
        ("a$$b$$", "a$$b$$"),
        ("$1 $12 $1a", "Parameter:$1 Parameter:$12 Parameter:$1 a"),
        ("$ x", "Error:$ x"),
        ("'open", "Error:'open"),
        ("E'open\\'", "Error:E'open\\'"),
        ("$a$ open $A$", "Error:$a$ open $A$"),
        ("/* /* */", "Error:/* /* */"),
    ]);
    assert_eq!(lexed(r"'a\' b' E'\'' U&'x'", false), r"String:'a\' b' EscapeString:E'\'' Error:U&'x'");
}

#[test]
fn numbers() {
    check(&[
        (
            "1 1.5 .5 1. 1e5 1.5E-3 1.e+5",
            "Integer:1 Decimal:1.5 Decimal:.5 Decimal:1. Decimal:1e5 Decimal:1.5E-3 Decimal:1.e+5",
        ),
        ("0x1F 0o17 0b101 0X_1f", "OddNumber:0x1F OddNumber:0o17 OddNumber:0b101 OddNumber:0X_1f"),
        ("1_000 1_0.5_0 1__0 1_", "OddNumber:1_000 OddNumber:1_0.5_0 Integer:1 __0 Integer:1 _"),
        ("1..2", "Integer:1 .. Integer:2"),
        ("1e 1e+ 1ex", "Integer:1 e Integer:1 e Operator:+ Integer:1 ex"),
        ("123abc 0xg 0b2", "Integer:123 abc Integer:0 xg Integer:0 b2"),
        ("a.1 a.b", "a Decimal:.1 a . b"),
        ("1._5", "Decimal:1. _5"),
    ]);
}

#[test]
fn operators_and_comments() {
    check(&[
        ("a+b a-b", "a Operator:+ b a Operator:- b"),
        ("a=-1", "a Operator:= Operator:- Integer:1"),
        ("a@-1", "a Operator:@- Integer:1"),
        ("a*-+-b", "a Operator:* Operator:- Operator:+ Operator:- b"),
        ("a<->b a->>b", "a Operator:<-> b a Operator:->> b"),
        ("a +-- c\n b", "a Operator:+ b"),
        ("a */* c */ b", "a Operator:* Comment:/* c */ b"),
        ("a::int := x => y", "a :: int := x Operator:=> y"),
        ("/* a /* b */ c */ d", "Comment:/* a /* b */ c */ d"),
        ("/*/ a */", "Comment:/*/ a */"),
        ("/**/a/***/", "Comment:/**/ a Comment:/***/"),
        ("a -- b\rc", "a c"),
        ("a {", "a Error:{"),
        ("a \\ b", "a Error:\\ b"),
    ]);
}

#[test]
fn memory_is_bounded_and_heads_are_kept() {
    let long = format!(
        "/* pointsman: a=b */ '{}' {} \"{}\" $t${}$t$ /*{}*/ x",
        "é".repeat(9_000),
        "w".repeat(9_000),
        "q".repeat(9_000),
        "$x".repeat(9_000),
        "c".repeat(9_000)
    );
    let mut kinds = Vec::new();
    let mut lexer = Lexer::new(true);
    for piece in long.as_bytes().chunks(7) {
        lexer.push(piece, |t| {
            assert!(t.text.len() <= 2048, "{}", t.text.len());
            let from = usize::try_from(t.start).expect("small");
            assert_eq!(t.text, &long.as_bytes()[from..from + t.text.len()]);
            kinds.push((t.kind, t.end - t.start));
        });
    }
    lexer.finish(|t| kinds.push((t.kind, t.end - t.start)));
    let expected = [
        (TokenKind::Comment, 20),
        (TokenKind::String, 18_002),
        (TokenKind::Word, 9_000),
        (TokenKind::QuotedIdent, 9_002),
        (TokenKind::DollarString, 18_006),
        (TokenKind::Comment, 9_004),
        (TokenKind::Word, 1),
    ];
    assert_eq!(kinds, expected);
}
