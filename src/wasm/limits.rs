//! What a component may use, and the check that it uses no more.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// The bounds of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Time for one decision, at most two seconds. A call that is not back by then, and uses as much of the processor
    /// again, is ended; one whose thread is off the processor is not to blame.
    pub deadline: Duration,
    /// Time to start an instance and take the settings; not on the data path.
    pub configure_deadline: Duration,
    /// Memory of one instance, in bytes; each worker thread has one.
    pub memory: usize,
    /// Bytes that one call may hand to the gateway: an answer, a log message.
    pub answer: usize,
    /// The largest file that is compiled, in bytes.
    pub file: u64,
    /// The largest settings file, in bytes.
    pub settings: u64,
    /// So many faults within the window end a generation.
    pub faults: u32,
    /// See `faults`.
    pub fault_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(2),
            configure_deadline: Duration::from_millis(500),
            memory: 16 << 20,
            answer: 64 << 10,
            file: 32 << 20,
            settings: 4 << 20,
            faults: 3,
            fault_window: Duration::from_secs(60),
        }
    }
}

/// An instance has at most so many table entries, over all its tables.
const TABLE_ENTRIES: usize = 100_000;
/// Core instances, memories and tables that one component may be made of. Components from composed tools need several.
const INSTANCES: usize = 20;
const TABLES: usize = 20;
const MEMORIES: usize = 8;

/// Counts what one instance uses, and remembers what it was refused.
pub(super) struct Meter {
    limit: usize,
    memory: usize,
    table_entries: usize,
    pub(super) refused: Option<Box<str>>,
}

impl Meter {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, memory: 0, table_entries: 0, refused: None }
    }

    /// Three quarters of the memory are in use: time for a fresh instance, before the policy meets the bound.
    #[inline]
    pub(super) fn nearly_full(&self) -> bool {
        self.memory > self.limit / 4 * 3
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.limit {
            self.refused = Some(format!("it asked for {total} bytes of memory, the bound is {}", self.limit).into());
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_entries.saturating_sub(current).saturating_add(desired);
        if total > TABLE_ENTRIES {
            self.refused = Some(format!("it asked for {total} table entries, the bound is {TABLE_ENTRIES}").into());
            return Ok(false);
        }
        self.table_entries = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}
