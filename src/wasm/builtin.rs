//! The default policy, embedded, so that the gateway builds and runs without a WebAssembly tool chain.
//!
//! Its source is `plugins/read-write-split`; `plugins/build.sh --check` tells when this artifact is stale.

/// The component `read-write-split`.
pub const READ_WRITE_SPLIT: &[u8] = include_bytes!("../../plugins/artifacts/read-write-split.wasm");
