//! The layers under fuzz, by the paths that they have in `pointsman`.
#![allow(dead_code, unused_imports, reason = "each layer is here whole, whatever the targets use of it")]

#[path = "../src/sql/mod.rs"]
pub mod sql;
#[path = "../src/wire/mod.rs"]
pub mod wire;
