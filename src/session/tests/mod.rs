//! The session's tests: a seeded simulation of clients, gateway and servers, and tables of single cases.
//!
//! `SIM_SEED=n` runs one seed, `SIM_SEEDS=n` that many from `SIM_FIRST` on; a failure prints its seed. `SIM_TRACE=1` tells each
//! step.
//!
//! The model's answers were compared with those of PostgreSQL 15, conversation by conversation. It differs where a portal that
//! ran and returns no rows is used again (`Model::execute`) and where a statement without columns is described in a failed
//! transaction (`Model::describe`).

mod client;
mod gate;
mod model;
mod rng;

use std::sync::Arc;

use super::{Limits, Shared};
use crate::sql::Analyzer;
use crate::upstream::Registry;
use gate::{Gate, next_frame, sqlstate};
use rng::Rng;

/// What the policy of the simulation refuses, and how. The model's server refuses it likewise.
const REFUSED_TEXT: &str = "SELECT refused";
const REFUSED_STATE: &str = "42501";

/// What a client received, without what a server may say at any time.
struct Messages {
    list: Vec<String>,
    count: usize,
}

fn messages(mut bytes: &[u8]) -> Messages {
    let mut list = Vec::new();
    let mut failed = false;
    let mut reported = std::collections::BTreeMap::new();
    while let Some(frame) = next_frame(&mut bytes) {
        match frame[0] {
            b'N' => {
                let state = sqlstate(frame);
                if state != "00000" {
                    list.push(format!("N {state}"));
                }
            }
            b'S' => {
                let (name, value) = crate::wire::backend::parameter_status(frame).expect("a ParameterStatus");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                reported.insert(text(name), text(value));
                reported.retain(|_, value| !value.is_empty());
            }
            // Which of several reasons is told there depends on who refused the block's first statement.
            b'E' if failed => list.push("E in a failed block".to_owned()),
            b'E' => list.push(format!("E {}", sqlstate(frame))),
            b'Z' => {
                failed = frame[5] == b'E';
                list.push(format!("Z {} {reported:?}", char::from(frame[5])));
            }
            tag => {
                list.push(format!("{} {:?}", char::from(tag), bytes::Bytes::copy_from_slice(&frame[5..])));
            }
        }
    }
    let count = list.len();
    Messages { list, count }
}

fn simulate(seed: u64) {
    let mut rng = Rng::new(seed);
    let hold = [96, 300, 4096, 64 << 10][rng.below(4)];
    let statement = hold.max([200, 1000, 1 << 20][rng.below(3)]);
    let padding = [0, 500, 3000][rng.below(3)];
    let shared = Arc::new(Shared {
        analyzer: Analyzer::new(1 << 20),
        registry: Registry::default(),
        // No client has more than three names; what they close has more.
        limits: Limits {
            hold,
            statement,
            prepared: if seed.is_multiple_of(2) { 3 } else { 1000 },
            ..Limits::default()
        },
    });
    let clients = 1 + rng.below(3);
    let servers = 1 + rng.below(3);
    let length = 1 + rng.below(12);
    let conversations = (0..clients).map(|_| client::converse(&mut rng, length, padding)).collect();
    let prepared = 1 + rng.below(4);
    Gate::new(rng, &shared, conversations, servers, prepared).run();
}

#[test]
fn a_name_that_finds_no_room_is_believed_to_be_there() {
    let mut names = super::names::Names::default();
    names.insert(b"a", 1);
    assert!(names.contains(b"a") && !names.contains(b"b") && !names.contains(b""));
    names.insert(b"c", 1);
    assert!(names.contains(b"b"));
    let mut others = super::names::Names::default();
    others.take(&mut names, 0);
    assert!(names.is_empty() && others.contains(b"a"));
    others.clear();
    assert!(others.is_empty());
}

#[test]
fn clients_see_what_one_server_would_show_them() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        return simulate(seed);
    }
    let seeds = number("SIM_SEEDS").unwrap_or(4_000);
    let first = number("SIM_FIRST").unwrap_or(0);
    let failed = (first..first + seeds).find(|seed| std::panic::catch_unwind(|| simulate(*seed)).is_err());
    assert_eq!(failed, None, "replay with SIM_SEED={}", failed.unwrap_or_default());
}
