//! What is counted of a policy: by the gateway for each generation, and by the policy itself under names of its own.
//!
//! Bound: [`NAMES`] names a policy; lines in the log by a budget that fills with time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::policy::{Decision, Fault, FaultKind, Role};

/// A policy's own counters, at most.
const NAMES: usize = 32;
const NAME_LENGTH: usize = 63;
/// Lines in the log: so many at once, and so many a second.
const LOG_BURST: u32 = 20;

/// One generation's counters; relaxed, for they are for people.
#[derive(Debug, Default)]
pub(super) struct GenerationCounters {
    asked: AtomicU64,
    cached: AtomicU64,
    primary: AtomicU64,
    replica: AtomicU64,
    any: AtomicU64,
    rejected: AtomicU64,
    passed: AtomicU64,
    faults: [AtomicU64; FaultKind::ALL.len()],
    pub(super) instances: AtomicU64,
    pub(super) recycled: AtomicU64,
}

/// A generation's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyCounts {
    /// Calls of `route`, faults among them.
    pub asked: u64,
    /// Decisions that were kept and served again.
    pub cached: u64,
    /// Answers by what they say.
    pub primary: u64,
    /// See `primary`.
    pub replica: u64,
    /// See `primary`.
    pub any: u64,
    /// See `primary`.
    pub rejected: u64,
    /// See `primary`.
    pub passed: u64,
    /// Faults by kind, those that happened.
    pub faults: Vec<(FaultKind, u64)>,
    /// Instances made.
    pub instances: u64,
    /// Instances replaced because their memory was nearly full.
    pub recycled: u64,
}

impl GenerationCounters {
    #[inline]
    pub(super) fn answered(&self, answer: &Result<Decision, Fault>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let counter = match answer {
            Ok(Decision::Route(target)) => match target.role {
                Role::Primary => &self.primary,
                Role::Replica => &self.replica,
                Role::Any => &self.any,
            },
            Ok(Decision::Reject(_)) => &self.rejected,
            Ok(Decision::Pass) => &self.passed,
            Err(fault) => &self.faults[fault.kind as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn served_from_cache(&self) {
        self.cached.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> PolicyCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let faults = FaultKind::ALL.into_iter().map(|kind| (kind, read(&self.faults[kind as usize])));
        PolicyCounts {
            asked: read(&self.asked),
            cached: read(&self.cached),
            primary: read(&self.primary),
            replica: read(&self.replica),
            any: read(&self.any),
            rejected: read(&self.rejected),
            passed: read(&self.passed),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            instances: read(&self.instances),
            recycled: read(&self.recycled),
        }
    }
}

/// What a policy counts itself, over all its generations.
#[derive(Debug)]
pub(super) struct PolicyCounters {
    names: Mutex<Vec<Box<str>>>,
    values: [AtomicU64; NAMES],
    log_budget: AtomicU32,
    log_filled: Mutex<Instant>,
}

impl PolicyCounters {
    pub(super) fn new() -> Self {
        Self {
            names: Mutex::new(Vec::new()),
            values: [const { AtomicU64::new(0) }; NAMES],
            log_budget: AtomicU32::new(LOG_BURST),
            log_filled: Mutex::new(Instant::now()),
        }
    }

    /// The number of a counter; [`u32::MAX`], which counts nothing, for a bad name and one too many.
    pub(super) fn register(&self, name: &str) -> u32 {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(allowed) {
            return u32::MAX;
        }
        let mut names = self.names.lock();
        let position = names.iter().position(|known| **known == *name).or_else(|| {
            (names.len() < NAMES).then(|| {
                names.push(name.into());
                names.len() - 1
            })
        });
        position.and_then(|position| u32::try_from(position).ok()).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&self, counter: u32, by: u64) {
        if let Some(value) = usize::try_from(counter).ok().and_then(|index| self.values.get(index)) {
            value.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Vec<(Box<str>, u64)> {
        let names = self.names.lock();
        names.iter().cloned().zip(&self.values).map(|(name, value)| (name, value.load(Ordering::Relaxed))).collect()
    }

    /// Whether one more line may be written; a burst, then a few a second.
    pub(super) fn may_log(&self) -> bool {
        let take = |budget: u32| budget.checked_sub(1);
        if self.log_budget.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return true;
        }
        // A thread that finds the lock held lets its line go: it must not wait.
        let Some(mut filled) = self.log_filled.try_lock() else { return false };
        if filled.elapsed().as_secs() < 1 {
            return false;
        }
        *filled = Instant::now();
        self.log_budget.store(LOG_BURST / 4, Ordering::Relaxed);
        true
    }
}
