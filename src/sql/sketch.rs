//! What tokens alone say of a text: its statements, their kinds and effects, without a grammar and without the text.
//!
//! Invariants: token by token, in memory that does not grow with the text; how the text was cut into pieces changes
//! nothing; what may write is never called a read (a query is `Unknown` here, and only the grammar makes it `Read`).
//!
//! Deliberately absent: tables (but for the commands that `command` reads wholly) and equalities.

use smallvec::SmallVec;

use super::analysis::{Access, Effects, Function, Kind, Statement, Understood};
use super::command::{self, Inner};
use super::hints;
use super::lexer::{Token, TokenKind};
use super::literal;
use super::names;

/// Tokens from a statement's beginning that are kept to interpret it.
const HEAD_TOKENS: usize = 96;
/// Statements of one string that are kept apart; what follows is summed up in one more.
pub(crate) const STATEMENT_LIMIT: usize = 256;
/// Functions and hints kept of a statement; beyond, it counts as calling unknown ones.
const NAME_LIMIT: usize = 256;
/// Bytes of a name or literal that are kept.
const TEXT_LIMIT: usize = 512;

/// One token of a statement's beginning.
#[derive(Debug, Clone)]
pub(crate) struct HeadToken {
    pub(crate) kind: TokenKind,
    /// A word in lower case, a quoted identifier without its quotes, anything else as written.
    pub(crate) text: SmallVec<[u8; 24]>,
}

/// What was seen anywhere in a statement.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) effects: Effects,
    pub(crate) settings: Vec<Box<str>>,
    pub(crate) setting_parameters: SmallVec<[u16; 4]>,
    pub(crate) functions: Vec<Function>,
    /// `SELECT … INTO`, or any INTO; `FOR UPDATE` and its like; a data-modifying command after `AS (`.
    pub(crate) writes: bool,
    pub(crate) into_temporary: bool,
    pub(crate) concurrently: bool,
    pub(crate) pg_settings: bool,
    /// A top-level SELECT, WITH or VALUES behind another command's head.
    pub(crate) query: bool,
    /// The command behind a top-level WITH.
    pub(crate) main: Option<Kind>,
    pub(crate) error: bool,
}

/// The last token, as far as the next one's meaning hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    #[default]
    Other,
    Name,
    Dot,
    Open,
    Close,
    CteOpen,
    Comma,
    Cast,
    As,
    Materialized,
    With,
    Recursive,
    Insert,
    Into,
    For,
    ForNo,
    ForKey,
    Table,
    Begin,
}

/// An argument list of `set_config` or `current_setting`.
#[derive(Debug, Default)]
struct Setting {
    depth: u32,
    reads: bool,
    argument: u32,
    tokens: u32,
    name: Option<Box<str>>,
    /// Its name is the value of this parameter.
    parameter: Option<u16>,
    local: Option<bool>,
}

/// What a token was to its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    Inside,
    /// It ended a statement, which is now the last of `statements`.
    Kept,
    /// It ended nothing, or a statement past the limit.
    Dropped,
}

/// Reads tokens, yields statements.
#[derive(Debug)]
pub(crate) struct Sketcher {
    standard_conforming_strings: bool,
    pub(crate) statements: SmallVec<[Statement; 1]>,
    /// What the grammar may be asked about, one for each of `statements`.
    pub(crate) inner: SmallVec<[Option<Inner>; 1]>,
    head: Vec<HeadToken>,
    tokens: usize,
    scan: Scan,
    hints: Vec<(Box<str>, Box<str>)>,
    depth: u32,
    atomic: u32,
    /// A body that tokens alone may not find the end of.
    body: bool,
    with: bool,
    closed: bool,
    last: Last,
    /// The dotted name at hand: its last two parts, whether the last was quoted, and what stood before it.
    name: SmallVec<[u8; 64]>,
    schema: Option<SmallVec<[u8; 64]>>,
    quoted: bool,
    /// The last token was a `U&"…"`.
    unicode: bool,
    before: Last,
    setting: SmallVec<[Setting; 1]>,
    start: u64,
    end: u64,
}

impl Sketcher {
    pub(crate) fn new(standard_conforming_strings: bool) -> Self {
        Self {
            standard_conforming_strings,
            statements: SmallVec::new(),
            inner: SmallVec::new(),
            head: Vec::new(),
            tokens: 0,
            scan: Scan::default(),
            hints: Vec::new(),
            depth: 0,
            atomic: 0,
            body: false,
            with: false,
            closed: false,
            last: Last::Other,
            name: SmallVec::new(),
            schema: None,
            quoted: false,
            unicode: false,
            before: Last::Other,
            setting: SmallVec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Takes the next token.
    pub(crate) fn token(&mut self, token: &Token<'_>) -> Boundary {
        if token.kind == TokenKind::Comment {
            let hints = &mut self.hints;
            hints::parse(token.text, |key, value| {
                if hints.len() < NAME_LIMIT {
                    hints.push((key.into(), value.into()));
                }
            });
            return Boundary::Inside;
        }
        if token.kind == TokenKind::Punctuation && token.text == b";" && self.depth == 0 && self.atomic == 0 {
            return self.end_statement();
        }
        if self.tokens == 0 {
            self.start = token.start;
        }
        self.tokens += 1;
        self.end = token.end;
        let text = &token.text[..token.text.len().min(TEXT_LIMIT)];
        if !self.setting.is_empty() {
            self.setting_token(token.kind, text);
        }
        if std::mem::take(&mut self.unicode) && text.eq_ignore_ascii_case(b"uescape") {
            self.scan.effects |= Effects::HIDDEN;
        }
        match token.kind {
            TokenKind::Word => self.word(text),
            TokenKind::QuotedIdent => {
                let name = unquoted(text);
                self.name(&name, true);
                self.keep(TokenKind::QuotedIdent, &name);
            }
            TokenKind::UnicodeIdent => {
                self.keep(TokenKind::UnicodeIdent, text);
                // Its escape character may come later.
                self.unicode = true;
                self.scan.effects |= Effects::CALLS_UNKNOWN;
                match std::str::from_utf8(text).ok().and_then(literal::unicode_name) {
                    Some(name) => self.name(name.as_bytes(), true),
                    None => {
                        self.scan.effects |= Effects::HIDDEN;
                        self.last = Last::Other;
                    }
                }
            }
            TokenKind::Punctuation => {
                self.punctuation(text);
                self.keep(TokenKind::Punctuation, text);
            }
            kind => {
                self.scan.error |= kind == TokenKind::Error;
                self.keep(kind, text);
                self.last = Last::Other;
            }
        }
        Boundary::Inside
    }

    fn keep(&mut self, kind: TokenKind, text: &[u8]) {
        if self.head.len() < HEAD_TOKENS {
            self.head.push(HeadToken { kind, text: SmallVec::from_slice(text) });
        }
    }

    fn word(&mut self, text: &[u8]) {
        let mut lower = SmallVec::<[u8; 64]>::from_slice(text);
        lower.make_ascii_lowercase();
        let before = self.last;
        self.name(&lower, false);
        if let Some(last) = self.keyword(&lower, before) {
            self.last = last;
        }
        self.keep(TokenKind::Word, &lower);
    }

    /// What an unquoted word means as a keyword, given what stood before it.
    fn keyword(&mut self, word: &[u8], before: Last) -> Option<Last> {
        let top = self.depth == 0 && !matches!(before, Last::Dot | Last::Comma);
        match word {
            b"as" => return Some(Last::As),
            b"materialized" => return Some(Last::Materialized),
            b"for" => return Some(Last::For),
            b"no" if before == Last::For => return Some(Last::ForNo),
            b"key" if matches!(before, Last::For | Last::ForNo) => return Some(Last::ForKey),
            b"update" | b"share" if matches!(before, Last::For | Last::ForKey) => self.scan.writes = true,
            b"recursive" if before == Last::With => return Some(Last::Recursive),
            b"table" if !matches!(before, Last::With | Last::Recursive) => {
                self.main(Kind::Select, top);
                return Some(Last::Table);
            }
            b"into" => {
                // INSERT INTO and MERGE INTO are judged by their kind or by the CTE that they stand in.
                self.scan.writes = true;
                return Some(if before == Last::Insert { Last::Table } else { Last::Into });
            }
            b"temp" | b"temporary" if before == Last::Into => self.scan.into_temporary = true,
            b"insert" | b"merge" | b"update" | b"delete" => {
                self.scan.writes |= before == Last::CteOpen;
                let kind = match word {
                    b"insert" => Kind::Insert,
                    b"merge" => Kind::Merge,
                    b"update" => Kind::Update,
                    _ => Kind::Delete,
                };
                self.main(kind, top && !matches!(before, Last::With | Last::Recursive));
                if matches!(kind, Kind::Insert | Kind::Merge) {
                    return Some(Last::Insert);
                }
            }
            b"with" => {
                self.with |= top;
                self.scan.query |= top && self.tokens > 1;
                return Some(Last::With);
            }
            b"select" => {
                self.scan.query |= top && self.tokens > 1;
                self.main(Kind::Select, top);
            }
            b"values" => {
                self.scan.query |= top && self.tokens > 1;
                self.main(Kind::Values, top);
            }
            b"concurrently" => self.scan.concurrently = true,
            // Between parentheses it names a parameter.
            b"begin" if self.depth == 0 && self.makes_function() => return Some(Last::Begin),
            b"atomic" if before == Last::Begin => {
                self.atomic = 1;
                self.body = true;
            }
            // Behind AS or a dot they are labels.
            b"case" if self.atomic > 0 && !matches!(before, Last::As | Last::Dot) => self.atomic += 1,
            b"end" if self.atomic > 0 && !matches!(before, Last::As | Last::Dot) => self.atomic -= 1,
            _ => {}
        }
        None
    }

    fn main(&mut self, kind: Kind, top: bool) {
        if top && self.with && self.closed && self.scan.main.is_none() {
            self.scan.main = Some(kind);
        }
    }

    /// `BEGIN ATOMIC` bodies hold semicolons. In any other statement these two words may be a column and its label.
    fn makes_function(&self) -> bool {
        let word = |at: usize| match self.head.get(at) {
            Some(HeadToken { kind: TokenKind::Word, text }) => &text[..],
            _ => b"",
        };
        let object = if (word(1), word(2)) == (b"or", b"replace") { word(3) } else { word(1) };
        word(0) == b"create" && matches!(object, b"function" | b"procedure")
    }

    /// A name or a word that may be one.
    fn name(&mut self, text: &[u8], quoted: bool) {
        if self.last == Last::Dot {
            self.schema = Some(std::mem::replace(&mut self.name, SmallVec::from_slice(text)));
        } else {
            self.before = self.last;
            self.schema = None;
            self.name.clear();
            self.name.extend_from_slice(text);
        }
        self.quoted = quoted;
        self.last = Last::Name;
        if text.starts_with(b"pg_")
            && let Ok(name) = std::str::from_utf8(text)
            && names::node_local_relation(name)
        {
            self.scan.effects |= Effects::NODE_LOCAL;
            self.scan.pg_settings |= name == "pg_settings";
        }
    }

    fn punctuation(&mut self, text: &[u8]) {
        self.last = match text {
            b"(" => {
                self.depth = self.depth.saturating_add(1);
                if self.depth == 1 && self.with && self.last == Last::Close {
                    self.main(Kind::Select, true);
                }
                match self.last {
                    Last::As | Last::Materialized => Last::CteOpen,
                    Last::Name | Last::Other | Last::Begin => {
                        self.call();
                        Last::Open
                    }
                    _ => Last::Open,
                }
            }
            b")" => {
                self.depth = self.depth.saturating_sub(1);
                self.closed |= self.depth == 0 && self.with;
                Last::Close
            }
            b"." => {
                if self.name.starts_with(b"pg_temp") && self.last == Last::Name {
                    self.scan.effects |= Effects::TEMPORARY;
                }
                Last::Dot
            }
            b"," => Last::Comma,
            b"::" => Last::Cast,
            _ => Last::Other,
        };
    }

    /// The name at hand stands before a parenthesis.
    fn call(&mut self) {
        if self.last != Last::Name || self.name.is_empty() {
            return;
        }
        let Ok(name) = std::str::from_utf8(&self.name) else { return };
        match name {
            "set_config" | "current_setting" => {
                let reads = name == "current_setting";
                if self.setting.len() < 8 {
                    self.setting.push(Setting { depth: self.depth, reads, ..Setting::default() });
                } else {
                    self.scan.effects |=
                        Effects::SETTINGS | Effects::ALL_SETTINGS | Effects::COMPUTED_SETTING | Effects::NODE_LOCAL;
                }
            }
            "setseed" => {
                self.scan.effects |= Effects::SETTINGS;
                self.scan.settings.push("seed".into());
            }
            _ => self.scan.effects |= names::function_effects(name),
        }
        let qualified = self.schema.is_some();
        if matches!(self.before, Last::Table | Last::Into | Last::As | Last::With | Last::Recursive | Last::Cast)
            || (!qualified && !self.quoted && names::never_a_function(name))
        {
            return;
        }
        let schema = self.schema.as_ref().and_then(|s| std::str::from_utf8(s).ok());
        let function = Function { schema: schema.map(literal::fold_quoted), name: literal::fold_quoted(name) };
        if self.scan.functions.len() >= NAME_LIMIT {
            self.scan.effects |= Effects::CALLS_UNKNOWN | Effects::RUNS_TEXT;
        } else if !self.scan.functions.contains(&function) {
            self.scan.functions.push(function);
        }
    }

    /// Follows the arguments of `set_config(name, value, is_local)` and `current_setting(name)`.
    fn setting_token(&mut self, kind: TokenKind, text: &[u8]) {
        let Some(setting) = self.setting.last_mut() else { return };
        let own = self.depth == setting.depth;
        match (kind, text) {
            (TokenKind::Punctuation, b")") if own => {
                if let Some(setting) = self.setting.pop() {
                    self.setting_done(&setting);
                }
                return;
            }
            (TokenKind::Punctuation, b",") if own => {
                setting.argument += 1;
                setting.tokens = 0;
                return;
            }
            _ => setting.tokens += 1,
        }
        match (setting.argument, setting.tokens) {
            (0, 1) if kind != TokenKind::Punctuation => {
                let name = literal::decode_string(text, self.standard_conforming_strings);
                setting.name = name.map(|n| n.to_ascii_lowercase().into_boxed_str());
                let number = text.strip_prefix(b"$").filter(|_| kind == TokenKind::Parameter);
                setting.parameter = number.and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
            }
            // More than a constant, unless it is a constant's cast to text.
            (0, 2) if text == b"::" => {}
            (0, 3) if text.eq_ignore_ascii_case(b"text") => {}
            (0, _) => (setting.name, setting.parameter) = (None, None),
            (2, 1) => {
                setting.local = match text.to_ascii_lowercase().as_slice() {
                    b"true" | b"'true'" | b"'t'" | b"'on'" => Some(true),
                    b"false" | b"'false'" | b"'f'" | b"'off'" => Some(false),
                    _ => None,
                };
            }
            (2, _) => setting.local = None,
            _ => {}
        }
        if !setting.reads && memchr::memmem::find(text, b"pg_temp").is_some() {
            self.scan.effects |= Effects::TEMPORARY;
        }
    }

    fn setting_done(&mut self, setting: &Setting) {
        let effects = &mut self.scan.effects;
        if setting.reads {
            if setting.name.as_deref().is_none_or(names::node_local_setting) {
                *effects |= Effects::NODE_LOCAL;
            }
            return;
        }
        *effects |= match setting.local {
            Some(true) => Effects::LOCAL_SETTINGS,
            Some(false) => Effects::SETTINGS,
            None => Effects::SETTINGS | Effects::LOCAL_SETTINGS,
        };
        match (&setting.name, setting.parameter) {
            (Some(name), _) if self.scan.settings.len() < NAME_LIMIT => self.scan.settings.push(name.clone()),
            (None, Some(number)) if self.scan.setting_parameters.len() < NAME_LIMIT => {
                *effects |= Effects::ALL_SETTINGS;
                self.scan.setting_parameters.push(number);
            }
            _ if setting.local == Some(true) => *effects |= Effects::ALL_SETTINGS,
            _ => *effects |= Effects::ALL_SETTINGS | Effects::COMPUTED_SETTING,
        }
    }

    fn end_statement(&mut self) -> Boundary {
        if self.tokens == 0 {
            // Nothing stands between two semicolons. Hints wait for the next statement.
            return Boundary::Dropped;
        }
        for setting in std::mem::take(&mut self.setting) {
            self.setting_done(&setting);
        }
        let mut statement = Statement { understood: Understood::Lexed, ..Statement::default() };
        let complete = self.tokens == self.head.len();
        let inner = command::interpret(&self.head, complete, std::mem::take(&mut self.scan), &mut statement);
        statement.hints = std::mem::take(&mut self.hints);
        if std::mem::take(&mut self.body) {
            // What stands behind its end may have been taken for a part of it.
            statement.effects |= Effects::OPAQUE;
        }
        let clip = |offset: u64| u32::try_from(offset).unwrap_or(u32::MAX);
        statement.span = (clip(self.start), clip(self.end));
        self.head.clear();
        self.tokens = 0;
        self.depth = 0;
        self.atomic = 0;
        self.with = false;
        self.closed = false;
        self.last = Last::Other;
        self.name.clear();
        self.schema = None;
        if self.statements.len() < STATEMENT_LIMIT {
            self.statements.push(statement);
            self.inner.push(inner);
            return Boundary::Kept;
        }
        self.sum_up(&statement);
        Boundary::Dropped
    }

    /// Adds a statement past the limit to the one that stands for all of them.
    fn sum_up(&mut self, statement: &Statement) {
        if self.statements.len() == STATEMENT_LIMIT {
            self.statements.push(Statement {
                access: Access::Read,
                understood: Understood::Lexed,
                span: statement.span,
                ..Statement::default()
            });
            self.inner.push(None);
        }
        let Some(sum) = self.statements.last_mut() else { return };
        // Its functions and settings are not kept.
        sum.access = sum.access.stronger(statement.access).stronger(Access::Unknown);
        sum.effects |= statement.effects | Effects::CALLS_UNKNOWN | Effects::RUNS_TEXT;
        if !statement.settings.is_empty() || !statement.setting_parameters.is_empty() {
            sum.effects |= Effects::ALL_SETTINGS | Effects::COMPUTED_SETTING;
        }
        if statement.understood == Understood::Nothing {
            sum.understood = Understood::Nothing;
        }
        sum.span.1 = statement.span.1;
    }

    /// The end of the text.
    pub(crate) fn finish(&mut self) -> Boundary {
        let ended = self.end_statement();
        // A comment behind the last semicolon belongs to what stands before it.
        let hints = std::mem::take(&mut self.hints);
        if let Some(last) = self.statements.last_mut() {
            last.hints.extend(hints);
        }
        ended
    }
}

/// The name between the quotes of a possibly cut `"…"`.
fn unquoted(text: &[u8]) -> SmallVec<[u8; 64]> {
    let inner = text.strip_prefix(b"\"").unwrap_or(text);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut name = SmallVec::with_capacity(inner.len());
    let mut quote = false;
    for &byte in inner {
        quote = byte == b'"' && !quote;
        if !quote {
            name.push(byte);
        }
    }
    name
}
