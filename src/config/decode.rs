//! From TOML values to raw types, with every problem on the way, not only the first.
//!
//! serde stops at the first error and knows no key path, so the raw tables read themselves: the
//! `table!` macro makes a struct, its reader, its list of keys and its [`Shape`] from one
//! declaration, doc comments and defaults included.
//!
//! Invariant: `None` from a reader means that a problem was recorded. Deliberately absent: what
//! keys mean together; that is `check/`.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, Span, nearest};
use super::shape::{Shape, listed};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
    pub(super) path: String,
}

/// A key of a table that may be absent, or present and wrong (which was recorded).
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    state: State<T>,
    default: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum State<T> {
    Absent,
    Wrong,
    Given(At<T>),
}

impl<T> Field<T> {
    pub(super) fn absent(default: Option<&'static str>) -> Self {
        Self { state: State::Absent, default }
    }

    pub(super) fn put(&mut self, value: Option<At<T>>) {
        self.state = value.map_or(State::Wrong, State::Given);
    }

    /// What is written and right.
    pub(super) fn given(&self) -> Option<&At<T>> {
        match &self.state {
            State::Given(at) => Some(at),
            State::Absent | State::Wrong => None,
        }
    }

    /// Whether the key is not there at all; a wrong one was complained of already.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }

    /// The value alone.
    pub(super) fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }
}

impl<T: Leaf> Field<T> {
    /// What is written, else the default. Only for fields that declare one.
    pub(super) fn get(&self) -> T {
        match &self.state {
            State::Given(at) => at.value.clone(),
            State::Absent | State::Wrong => {
                let text = self.default.expect("`get` is for fields that declare a default");
                T::from_text(text).expect("declared defaults are valid: every test parses them all")
            }
        }
    }
}

/// What a TOML value can be read as.
pub(super) trait Raw: Sized {
    /// Reads it, or records what is wrong.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self>;
    /// What may be written.
    fn shape() -> Shape;
}

/// A single value that has a text form; the default of a key is given in this form too.
pub(super) trait Leaf: Sized + Clone {
    /// Which TOML types are taken.
    const TAKES: Takes;
    /// Reads the text form. The error completes "expected …".
    fn from_text(text: &str) -> Result<Self, LeafError>;
    /// What may be written.
    fn leaf_shape() -> Shape;
}

/// Which TOML types a [`Leaf`] takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    Text,
    Integer,
    TextOrInteger,
    Boolean,
}

/// Why a text is not a leaf's.
#[derive(Debug)]
pub(super) enum LeafError {
    /// Not what was expected: say what was.
    Unexpected,
    /// Something better to say: message and help.
    Because(String, Option<String>),
}

impl<T: Leaf> Raw for T {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = match (value.get_ref(), T::TAKES) {
            (DeValue::String(text), Takes::Text | Takes::TextOrInteger) => text.to_string(),
            (DeValue::Integer(number), Takes::Integer | Takes::TextOrInteger) => {
                i128::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.to_string(), |number| number.to_string())
            }
            (DeValue::Boolean(truth), Takes::Boolean) => truth.to_string(),
            _ => {
                reader.unexpected(value, &Self::shape());
                return None;
            }
        };
        match T::from_text(&text) {
            Ok(leaf) => Some(leaf),
            Err(LeafError::Unexpected) => {
                let message = format!("expected {}", Self::shape().expected());
                reader.error(&value.span(), message, None);
                None
            }
            Err(LeafError::Because(message, help)) => {
                reader.error(&value.span(), message, help);
                None
            }
        }
    }

    fn shape() -> Shape {
        Self::leaf_shape()
    }
}

/// An array.
#[derive(Clone, Debug)]
pub(super) struct List<T>(pub(super) Vec<At<T>>);

impl<T: Raw> Raw for List<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            reader.unexpected(value, &Self::shape());
            return None;
        };
        let before = array.len();
        let mut list = Vec::with_capacity(before);
        for (index, entry) in array.iter().enumerate() {
            list.extend(reader.within(&format!("[{index}]"), |reader| reader.at::<T>(entry)));
        }
        (list.len() == before).then_some(Self(list))
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// One value, or an array of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany<T>(pub(super) Vec<At<T>>);

impl<T: Raw> Raw for OneOrMany<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => List::read(value, reader).map(|list| Self(list.0)),
            _ => reader.at(value).map(|one| Self(vec![one])),
        }
    }

    fn shape() -> Shape {
        Shape::Either(vec![T::shape(), List::<T>::shape()])
    }
}

/// A table whose keys the user makes up. The place of an entry is that of its key.
#[derive(Clone, Debug)]
pub(super) struct Map<T>(pub(super) BTreeMap<String, At<T>>);

impl<T: Raw> Raw for Map<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let table = reader.table(value, &Self::shape())?;
        let mut map = BTreeMap::new();
        for (key, value) in table {
            let segment = segment(key.get_ref());
            let read = reader.within(&segment, |reader| {
                let path = reader.path.clone();
                T::read(value, reader).map(|value| At { value, span: key.span(), path })
            });
            map.extend(read.map(|at| (key.get_ref().to_string(), at)));
        }
        (map.len() == table.len()).then_some(Self(map))
    }

    fn shape() -> Shape {
        Shape::Map { key: "NAME", of: Box::new(T::shape()) }
    }
}

/// Where the reader stands, and what it has found.
pub(super) struct Reader<'p, 't> {
    problems: &'p mut Problems<'t>,
    path: String,
}

impl<'p, 't> Reader<'p, 't> {
    pub(super) fn new(problems: &'p mut Problems<'t>) -> Self {
        Self { problems, path: String::new() }
    }

    /// Reads a value and notes where it stands.
    pub(super) fn at<T: Raw>(&mut self, value: &Spanned<DeValue<'_>>) -> Option<At<T>> {
        let (span, path) = (value.span(), self.path.clone());
        T::read(value, self).map(|value| At { value, span, path })
    }

    /// Reads the value of a known key.
    pub(super) fn field<T: Raw>(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<At<T>> {
        self.within(&segment(key), |reader| reader.at(value))
    }

    /// The table that `value` must be.
    pub(super) fn table<'v, 'i>(&mut self, value: &'v Spanned<DeValue<'i>>, shape: &Shape) -> Option<&'v DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.unexpected(value, shape);
        None
    }

    /// Complains of a key that no table of this kind has.
    pub(super) fn unknown_key(&mut self, key: &str, span: &Span, known: &[&str], later: &[(&str, &str)]) {
        let (message, help) = if let Some((_, instead)) = later.iter().find(|(word, _)| *word == key) {
            ("is not in this version yet".to_owned(), (*instead).to_owned())
        } else if let Some(near) = nearest(key, known.iter().copied()) {
            ("is no key of this table".to_owned(), format!("did you mean `{near}`?"))
        } else {
            let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
            ("is no key of this table".to_owned(), format!("its keys are {}", listed(&known, "and")))
        };
        self.within(&segment(key), |reader| reader.error(span, message, Some(help)));
    }

    /// Complains of a value of the wrong type, without quoting it: it may be a secret.
    pub(super) fn unexpected(&mut self, value: &Spanned<DeValue<'_>>, shape: &Shape) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.error(&value.span(), format!("expected {}, found {found}", shape.expected()), None);
    }

    /// Complains at the present path.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>, help: Option<String>) {
        let path = self.path.clone();
        self.problems.error(span, &path, message, help);
    }

    fn within<T>(&mut self, segment: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if !self.path.is_empty() && !segment.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(segment);
        let result = f(self);
        self.path.truncate(length);
        result
    }
}

/// A key as it is written in a path: bare if TOML lets it.
pub(super) fn segment(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// Declares a raw table: a struct of [`Field`]s, its reader and its [`Shape`]. `= "text"` gives a
/// default in the leaf's text form; `later` names keys that are refused for now, and what to write.
macro_rules! table {
    (
        $(#[doc = $doc:expr])*
        $name:ident {
            $( $(#[doc = $field_doc:expr])* $field:ident : $type:ty $(= $default:literal)? ),* $(,)?
        }
        $(later { $($later:literal => $instead:literal),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            $( $(#[doc = $field_doc])* pub(super) $field: Field<$type>, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: Field::absent(table!(@default $($default)?)), )* }
            }
        }

        impl Raw for $name {
            fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
                let table = reader.table(value, &Self::shape())?;
                let mut raw = Self::default();
                for (key, value) in table {
                    let name = key.get_ref().as_ref();
                    $( if name == stringify!($field) {
                        raw.$field.put(reader.field(name, value));
                        continue;
                    } )*
                    let known = &[$(stringify!($field)),*];
                    reader.unknown_key(name, &key.span(), known, &[$($(($later, $instead)),*)?]);
                }
                Some(raw)
            }

            fn shape() -> Shape {
                Shape::Table(TableShape {
                    doc: doc(&[$($doc),*]),
                    fields: vec![$( FieldShape {
                        key: stringify!($field),
                        doc: doc(&[$($field_doc),*]),
                        default: table!(@default $($default)?),
                        shape: <$type>::shape(),
                    } ),*],
                })
            }
        }
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
}
pub(super) use table;
