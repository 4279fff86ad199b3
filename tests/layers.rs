//! The layers of `src/`: an import goes to a lower layer or to a named sibling, never up, and the two lowest layers know
//! no runtime, no policy host, no file system and no clock.
//!
//! It reads the sources as text, without comments and tests: what a line names is what it may name. So it also sees
//! paths that are not in a `use`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Module, layer, siblings of the same layer that it may name. The design says why each stands where it does.
const LAYERS: &[(&str, u8, &[&str])] = &[
    ("wire", 0, &[]),
    ("sql", 0, &[]),
    ("config", 0, &[]),
    ("topology", 1, &["policy"]),
    ("catalog", 1, &[]),
    ("policy", 1, &["catalog"]),
    ("auth", 1, &[]),
    ("session", 1, &["policy", "auth", "catalog", "topology", "upstream"]),
    ("upstream", 1, &["auth"]),
    ("net", 2, &[]),
    ("wasm", 2, &["observe"]),
    ("pool", 2, &["net", "observe"]),
    ("discover", 2, &["net", "pool", "observe"]),
    ("observe", 2, &[]),
    ("control", 3, &[]),
    ("gateway", 4, &["admin"]),
    ("admin", 4, &[]),
    ("demo", 4, &[]),
    ("cli", 4, &["gateway", "admin", "demo"]),
];

/// What layers 0 and 1 must not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "wasmtime::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "rustix::",
    "mio::",
];

#[test]
fn imports_go_down() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (file, text) in &sources {
        let Some(own) = module(file) else { continue };
        let (_, layer, siblings) = entry(&own);
        for (number, line) in text {
            for named in named_modules(line) {
                let Some((_, other, _)) = LAYERS.iter().find(|(name, ..)| *name == named) else { continue };
                let allowed = named == own || *other < layer || (*other == layer && siblings.contains(&named.as_str()));
                if !allowed {
                    wrong.push(format!(
                        "{}:{number}: {own} (layer {layer}) names {named} (layer {other})",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_lowest_layers_do_no_io() {
    let mut wrong = Vec::new();
    for (file, text) in &sources() {
        let Some(own) = module(file) else { continue };
        if entry(&own).1 > 1 {
            continue;
        }
        for (number, line) in text {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {own} names {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Files that never run on a worker, whose runtime has no timers, and the one that lends them.
const WITH_TIMERS: &[&str] = &[
    "net/timers.rs",
    "admin/serve.rs",
    "cli/demo.rs",
    "gateway/accept.rs",
    "gateway/context.rs",
    "gateway/mod.rs",
    "gateway/reload.rs",
];

#[test]
fn what_runs_on_a_worker_borrows_its_timers() {
    let mut wrong = Vec::new();
    for (file, text) in &sources() {
        if WITH_TIMERS.iter().any(|with| file.ends_with(with)) {
            continue;
        }
        for (number, line) in text {
            for (at, _) in line.match_indices("tokio::time::") {
                let named = top_level_names(line[at + "tokio::time::".len()..].trim_start_matches('{'));
                for name in named.iter().filter(|name| *name != "Instant") {
                    wrong.push(format!("{}:{number}: tokio::time::{name} instead of net::{name}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn bindgen_s_types_stay_in_the_policy_host_and_anyhow_in_the_binary() {
    let mut wrong = Vec::new();
    for (file, text) in &sources() {
        let own = module(file).unwrap_or_default();
        for (number, line) in text {
            if line.contains("wasmtime::") && own != "wasm" {
                wrong.push(format!("{}:{number}: wasmtime outside wasm/", file.display()));
            }
            if line.contains("anyhow") && !matches!(own.as_str(), "cli" | "") {
                wrong.push(format!("{}:{number}: anyhow outside the binary", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut silent = Vec::new();
    for file in rust_files(&root().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let tests = file.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("tests"));
        if !text.starts_with("//!") && !tests {
            silent.push(file.display().to_string());
        }
    }
    assert!(silent.is_empty(), "no //! at the head of\n{}\n", silent.join("\n"));
}

/// `crate::NAME` and `pointsman::NAME`, also inside braces on one line.
fn named_modules(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "pointsman::"] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                found.extend(top_level_names(list));
            } else {
                found.push(identifier(rest));
            }
        }
    }
    found
}

/// The first names of `a::b, c::{d, e}, f}`.
fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && depth == 0 && !character.is_whitespace() => {
                names.push(identifier(&list[at..]));
                start = false;
            }
            _ => {}
        }
        if depth < 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn entry(module: &str) -> (&'static str, u8, &'static [&'static str]) {
    *LAYERS
        .iter()
        .find(|(name, ..)| *name == module)
        .unwrap_or_else(|| panic!("src/{module} has no layer: name it in ARCHITECTURE.md and in tests/layers.rs"))
}

/// The top module of a file; none for lib.rs and main.rs, which name all.
fn module(file: &Path) -> Option<String> {
    let below = file.strip_prefix(root().join("src")).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// Each file's lines of code, by line number: no comments, nothing from `#[cfg(test)]` on, no files of tests.
/// A `use` that spans lines is joined into its first.
fn sources() -> BTreeMap<PathBuf, Vec<(usize, String)>> {
    let mut sources = BTreeMap::new();
    for file in rust_files(&root().join("src")) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let below_tests = file.components().any(|part| part.as_os_str() == "tests");
        if name == "tests" || name == "testing" || below_tests {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim() == "#[cfg(test)]" {
                break;
            }
            // A raw string with quotes in it: treated as one literal to the end of the line.
            let line = line.split_once("r#\"").map_or(line, |(before, _)| before);
            let bare = without_strings(line);
            let code = bare.split("//").next().unwrap_or_default().trim();
            let goes_on = open;
            if code.starts_with("use ") || code.starts_with("pub use ") || code.starts_with("pub(crate) use ") {
                open = true;
            }
            open = open && !code.ends_with(';');
            match lines.last_mut() {
                Some((_, last)) if goes_on => last.push_str(code),
                _ => lines.push((index + 1, code.to_owned())),
            }
        }
        sources.insert(file, lines);
    }
    sources
}

/// A line with its string literals emptied: log targets look like paths. Literals that span lines stay.
fn without_strings(line: &str) -> String {
    let (mut bare, mut inside, mut escaped) = (String::new(), false, false);
    for character in line.chars() {
        if !inside {
            bare.push(character);
        }
        if character == '"' && !escaped {
            inside = !inside;
        }
        escaped = character == '\\' && !escaped;
    }
    bare
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_line_s_modules_are_found() {
    let check = |line: &str, expected: &[&str]| assert_eq!(named_modules(line), expected, "{line}");
    check("use crate::wire::Frame;", &["wire"]);
    check("use crate::{wire::{a, b}, sql, net::x};", &["wire", "sql", "net"]);
    check("let a: crate::pool::Pool = pointsman::net::b();", &["pool", "net"]);
    check("mod crate_like;", &[]);
}
