//! SQL text to facts: the lexer, the sketch that tokens alone allow, the grammar behind bounds, and the cache over them.
//!
//! Invariant: no text reaches the grammar that could exhaust a stack or a millisecond; what the grammar did not take is
//! never a read. Deliberately absent: what a name means on a server (that is `catalog`), and any routing.

mod analysis;
mod cache;
mod classes;
mod command;
mod equality;
mod folding;
mod hints;
mod lexer;
mod literal;
mod moment;
mod names;
mod normal;
mod parse;
#[cfg(test)]
pub(crate) mod qualified;
mod read;
mod said;
mod sketch;
mod stream;
mod tokens;
mod tree;

pub use analysis::{
    Access, Analysis, Effects, Equality, Function, Kind, Literal, Memo, Operand, Shape, Statement, Table, Transaction,
    Understood,
};
pub use cache::{Analyzer, CacheStats, TextContext};
pub use folding::{FOLDING, OUTPUT, folds_constants, reads_sources, sets_folding, sets_inside};
pub use lexer::{Lexer, Token, TokenKind};
pub use moment::names_moment;
pub use read::statement_spans;
pub use said::{Names, Said};
pub use stream::Stream;

pub(crate) use literal::{fold_word as word_name, unicode_name, unquoted_name};
pub(crate) use names::{function_effects, node_local_relation};

#[cfg(test)]
mod tests;
