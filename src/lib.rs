//! Pointsman: a PostgreSQL wire-protocol gateway whose routing is a hot-reloaded WebAssembly policy.
//!
//! The modules in the order of their layers; an import goes to a lower layer or a named sibling, never up:
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 0 | [`wire`] | frames and messages as bytes |
//! | 0 | [`sql`] | text to syntax |
//! | 0 | [`config`] | the configuration, read and checked |
//! | 1 | [`topology`] | nodes as values, the choice of one |
//! | 1 | [`catalog`] | what a database's functions and relations are known to do |
//! | 1 | [`policy`] | query, decision, chain |
//! | 1 | [`auth`] | authentication in both roles |
//! | 1 | [`session`] | the client's side of the protocol |
//! | 1 | [`upstream`] | the server's side of the protocol |
//! | 2 | [`net`] | sockets and TLS |
//! | 2 | [`pool`] | server connections |
//! | 2 | [`discover`] | which node is the primary, which are alive, how far each has come |
//! | 2 | [`wasm`] | the policy host |
//! | 2 | [`discover`] | probes, roles, lag, positions |
//! | 2 | [`observe`] | logs and metrics |
//! | 3 | [`control`] | the live snapshot |
//! | 4 | [`gateway`] | accept and drive |
//! | 4 | [`admin`] | metrics, health, status |
//! | 4 | [`demo`] | a real PostgreSQL cluster for the demo and the tests |
//! | 4 | [`cli`] | arguments in, exit code out |
//!
//! ARCHITECTURE.md tells the life of a query and the invariants.

pub mod admin;
pub mod auth;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod discover;
pub mod gateway;
pub mod net;
pub mod observe;
pub mod policy;
pub mod pool;
pub mod session;
pub mod sql;
pub mod topology;
pub mod upstream;
pub mod wasm;
pub mod wire;
