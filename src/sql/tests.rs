//! Statements and what is expected of them, texts that want to do harm, and the lexer against itself.

use super::*;

mod hostile;
mod memory;
mod properties;
mod statements;
mod tokens;

pub(super) fn analyze(text: &str) -> Analysis {
    Analyzer::new(1 << 20).analyze(text.as_bytes(), TextContext::default())
}

/// One statement as one line: `KIND access understood | tables | functions | equalities | effects …`.
pub(super) fn line(text: &str) -> String {
    let analysis = analyze(text);
    let lines: Vec<String> = analysis.shape.statements.iter().map(|s| describe(&analysis, text, s)).collect();
    lines.join(" ;; ")
}

fn describe(analysis: &Analysis, text: &str, s: &Statement) -> String {
    let mut out = format!("{:?} {:?}", s.kind, s.access);
    if s.understood != Understood::Parsed {
        out.push_str(if s.understood == Understood::Lexed { " Lexed" } else { " Nothing" });
    }
    let name = |schema: &Option<Box<str>>, name: &str| match schema {
        Some(schema) => format!("{schema}.{name}"),
        None => name.to_owned(),
    };
    let mut add = |label: &str, list: Vec<String>| {
        if !list.is_empty() {
            out.push_str(&[" | ", label, " ", &list.join(" ")].concat());
        }
    };
    add(
        "of",
        s.tables.iter().map(|t| name(&t.schema, &t.name) + if t.access == Access::Write { "!" } else { "" }).collect(),
    );
    add("calls", s.functions.iter().map(|f| name(&f.schema, &f.name)).collect());
    add(
        "where",
        s.equalities
            .iter()
            .map(|e| {
                let table = e.table.map_or("?".to_owned(), |t| t.to_string());
                let value = match &e.value {
                    Operand::Literal(i) => match analysis.literal(text.as_bytes(), *i) {
                        Some(Literal::Number(n)) => n.to_owned(),
                        Some(Literal::String(s)) => format!("'{s}'"),
                        None => "undecodable".to_owned(),
                    },
                    Operand::Parameter(n) => format!("${n}"),
                    Operand::Constant(c) => format!("<{c}>"),
                };
                format!("{table}.{}={value}", e.column)
            })
            .collect(),
    );
    add("effects", effects(s.effects));
    add("settings", s.settings.iter().map(ToString::to_string).collect());
    add("named by", s.setting_parameters.iter().map(|n| format!("${n}")).collect());
    add("object", s.object.iter().map(ToString::to_string).collect());
    add("hints", s.hints.iter().map(|(k, v)| format!("{k}={v}")).collect());
    if let Some(t) = s.transaction {
        let mut said = Vec::new();
        said.extend(t.read_only.map(|r| if r { "read-only" } else { "read-write" }.to_owned()));
        said.extend(t.serializable.map(|r| if r { "serializable" } else { "weaker" }.to_owned()));
        said.extend(t.chain.then(|| "chain".to_owned()));
        said.push(if t.whole { "whole" } else { "part" }.to_owned());
        add("transaction", said);
    }
    out
}

fn effects(effects: Effects) -> Vec<String> {
    const NAMES: [(&str, Effects); 20] = [
        ("settings", Effects::SETTINGS),
        ("all-settings", Effects::ALL_SETTINGS),
        ("temporary", Effects::TEMPORARY),
        ("advisory", Effects::ADVISORY_LOCK),
        ("hold", Effects::HOLD_CURSOR),
        ("listen", Effects::LISTEN),
        ("load", Effects::LOAD),
        ("sequence", Effects::SEQUENCE),
        ("prepare", Effects::SQL_PREPARE),
        ("drops-prepared", Effects::DROPS_PREPARED),
        ("outside", Effects::OUTSIDE_TRANSACTION),
        ("ddl", Effects::DDL),
        ("opaque", Effects::OPAQUE),
        ("unlisten", Effects::UNLISTEN),
        ("local", Effects::LOCAL_SETTINGS),
        ("discard-all", Effects::DISCARD_ALL),
        ("node", Effects::NODE_LOCAL),
        ("unknown-calls", Effects::CALLS_UNKNOWN),
        ("unknown-runs", Effects::RUNS_UNKNOWN),
        ("computed-setting", Effects::COMPUTED_SETTING),
    ];
    NAMES.iter().filter(|(_, e)| effects.any(*e)).map(|(n, _)| (*n).to_owned()).collect()
}
