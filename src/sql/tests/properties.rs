//! Properties over arbitrary bytes and over likely fragments of SQL.

use proptest::prelude::*;

use super::super::*;

type Owned = (TokenKind, u64, u64, Vec<u8>);

fn whole(text: &[u8], conforming: bool) -> Vec<Owned> {
    let mut tokens = Vec::new();
    Lexer::whole(text, conforming, |t| tokens.push((t.kind, t.start, t.end, t.text.to_vec())));
    tokens
}

fn pieces(text: &[u8], conforming: bool, cuts: &[usize]) -> Vec<Owned> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer::new(conforming);
    let mut rest = text;
    for cut in cuts.iter().cycle().take_while(|_| true) {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*cut).clamp(1, rest.len()));
        lexer.push(piece, |t| tokens.push((t.kind, t.start, t.end, t.text.to_vec())));
        rest = tail;
    }
    lexer.finish(|t| tokens.push((t.kind, t.start, t.end, t.text.to_vec())));
    tokens
}

/// What the lexer has rules about, mixed.
fn fragments() -> impl Strategy<Value = String> {
    let one = prop::sample::select(vec![
        "select ",
        "SELECT",
        "insert into t ",
        "update ",
        "delete from ",
        "with a as (",
        "explain ",
        "set ",
        "from t ",
        "where ",
        "for update ",
        "into ",
        "union ",
        "values ",
        "copy ",
        "begin ",
        "case ",
        "end ",
        "atomic ",
        "and ",
        "set_config(",
        "nextval(",
        "a",
        "b1",
        "_x$y",
        "é",
        "\"q",
        "\"",
        "\"\"",
        "'",
        "''",
        "' '",
        "'\n'",
        "' --x\n'",
        "E'",
        "e'\\'",
        "U&'",
        "U&\"",
        "B'01'",
        "x'1F'",
        "N'n'",
        "\\",
        "\\'",
        "$",
        "$$",
        "$a$",
        "$b$",
        "$1",
        "$12a",
        "0",
        "1",
        "12",
        "1.",
        ".5",
        "1.5",
        "1e5",
        "1e",
        "1e+",
        "1e-3",
        "0x1F",
        "0x",
        "0x_",
        "0b12",
        "0o7",
        "1_000",
        "1__0",
        "1..2",
        "+",
        "-",
        "--",
        "--x\n",
        "*",
        "/",
        "/*",
        "*/",
        "/*/",
        "/* pointsman: a=b */",
        "<",
        ">",
        "=",
        "@",
        "@-",
        "<->",
        "!=",
        "::",
        ":=",
        ":",
        ";",
        ",",
        ".",
        "(",
        ")",
        "[",
        "]",
        "{",
        "?",
        "|",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\u{b}",
    ]);
    prop::collection::vec(one, 0..40).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn cutting_changes_no_token(text in fragments(), conforming: bool, cuts in prop::collection::vec(1_usize..9, 1..8)) {
        prop_assert_eq!(whole(text.as_bytes(), conforming), pieces(text.as_bytes(), conforming, &cuts));
    }

    #[test]
    fn nor_of_arbitrary_bytes(text in prop::collection::vec(any::<u8>(), 0..200), conforming: bool, cut in 1_usize..9) {
        prop_assert_eq!(whole(&text, conforming), pieces(&text, conforming, &[cut]));
    }

    #[test]
    fn tokens_are_in_order_and_apart(text in fragments()) {
        let mut last = 0;
        for (kind, start, end, bytes) in whole(text.as_bytes(), true) {
            prop_assert!(last <= start && start < end && end <= text.len() as u64);
            if kind != TokenKind::Error {
                let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                prop_assert_eq!(&bytes[..], &text.as_bytes()[range]);
            }
            last = end;
        }
    }

    #[test]
    fn nothing_panics(text in prop::collection::vec(any::<u8>(), 0..300), conforming: bool) {
        let context = TextContext { standard_conforming_strings: conforming, ..TextContext::default() };
        let analysis = Analyzer::new(1 << 16).analyze(&text, context);
        for i in 0..analysis.literals.len() {
            let _ = analysis.literal(&text, u16::try_from(i).unwrap());
        }
    }

    /// Reading in pieces is never more permissive than reading at once, and agrees on everything but the grammar's part.
    #[test]
    fn a_streamed_text_says_the_same(text in fragments(), cut in 1_usize..9) {
        let context = TextContext::default();
        let mut stream = Stream::new(context);
        text.as_bytes().chunks(cut).for_each(|piece| stream.push(piece));
        let streamed = stream.finish();
        let read = Analyzer::new(1 << 16).analyze(text.as_bytes(), context).shape;
        prop_assert_eq!(streamed.statements.len(), read.statements.len());
        for (a, b) in streamed.statements.iter().zip(&read.statements) {
            prop_assert_eq!(a.kind, b.kind);
            prop_assert_eq!(&a.hints, &b.hints);
            prop_assert_eq!(&a.settings, &b.settings);
            prop_assert_eq!(a.transaction, b.transaction);
            prop_assert_eq!(b.effects.0 & a.effects.0, a.effects.0);
            // What the sketch calls a write stays one.
            prop_assert!(a.access != Access::Write || b.access == Access::Write);
            // What the grammar calls a call, the sketch saw.
            for function in &b.functions {
                prop_assert!(a.functions.contains(function), "{:?} in {}", function, text);
            }
        }
    }

    /// The second text differs in literals only, and must be told the same as if it had come first.
    #[test]
    fn literals_do_not_change_the_shape(a in 0_u32..1000, b in "[a-z']{0,6}", template in 0_usize..6) {
        let quoted = b.replace('\'', "''");
        let texts = [
            format!("SELECT * FROM t WHERE k = {a} AND j = '{quoted}'"),
            format!("INSERT INTO t (k, j) VALUES ({a}, '{quoted}')"),
            format!("UPDATE t SET j = '{quoted}' WHERE k = {a}"),
            format!("SELECT set_config('{quoted}', '{a}', false), {a}"),
            format!("SET app.x = '{quoted}'"),
            format!("SELECT nextval('{quoted}') FROM t WHERE k = {a} -- {quoted}"),
        ];
        let text = &texts[template];
        let shared = Analyzer::new(1 << 20);
        let _ = shared.analyze(texts[template].replace(&a.to_string(), "7").as_bytes(), TextContext::default());
        let got = shared.analyze(text.as_bytes(), TextContext::default());
        let fresh = Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default());
        prop_assert_eq!(&got.literals, &fresh.literals);
        let (x, y) = (&got.shape.statements[0], &fresh.shape.statements[0]);
        prop_assert_eq!(&x.equalities, &y.equalities);
        prop_assert_eq!(&x.settings, &y.settings);
        prop_assert_eq!((x.kind, x.access, x.effects), (y.kind, y.access, y.effects));
        prop_assert_eq!(got.literals.len(), [2, 2, 2, 1, 0, 1][template]);
    }
}
