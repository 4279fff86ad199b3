//! Integration tests: the real `pointsman` binary in front of real PostgreSQL, spoken to by real clients.
//!
//! One binary, so that one cluster serves all tests; each test has a database and a gateway of its own, and they run in
//! parallel. With `POINTSMAN_TEST_DIRECT=1` the same tests speak to PostgreSQL itself, which checks the tests: what
//! fails there is the test's fault. What only a gateway can do is left out then. With `POINTSMAN_TEST_LAG=120ms` the shared
//! cluster's replicas lag so far behind: a test that reads in one session what another wrote fails each time, not now and then.

mod acceptance;
mod admin;
mod admission;
mod auth;
mod bulk;
mod cancel;
mod clients;
mod console;
mod constants;
mod deferred;
mod demo;
mod drivers;
mod executed;
mod groups;
mod hostile;
mod keys;
mod leaks;
mod listen;
mod peers;
mod plans;
mod pooling;
mod process;
mod questions;
mod redefined;
mod reload;
mod replicas;
mod replication;
mod reset;
mod said;
mod shards;
mod stale;
mod starts;
mod support;
mod tls;
mod tools;
mod twin;
mod unnamed;
