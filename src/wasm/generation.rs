//! One loaded policy, asked from every worker thread, and the breaker that retires it.
//!
//! Invariant: each thread asks an instance of its own, which nobody else touches; a faulted one is dropped before the
//! next call. After [`Limits::faults`] faults within the window a generation is never asked again.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::compile::Compiled;
use super::counters::{GenerationCounters, PolicyCounters};
use super::engine::Engine;
use super::host::Host;
use super::instance::Instance;
use super::limits::{Limits, Meter};
use super::trial;
use crate::policy::{Decision, Digest, Fault, FaultKind, Generation, Manifest, Policy, Query};

/// One loaded policy with its settings.
#[expect(clippy::struct_field_names, reason = "a loaded policy says when it was loaded")]
pub(super) struct Loaded {
    pub(super) name: Arc<str>,
    pub(super) generation: Generation,
    pub(super) manifest: Manifest,
    pub(super) loaded_at: SystemTime,
    pub(super) counters: GenerationCounters,
    pub(super) own_counters: Arc<PolicyCounters>,
    engine: Arc<Engine>,
    compiled: Arc<Compiled>,
    settings: Arc<str>,
    limits: Arc<Limits>,
    /// How long starting and configuring took: a policy with large settings may take longer than a decision.
    start: Duration,
    breaker: Breaker,
    spares: Mutex<Vec<Instance>>,
    /// Told when a spare was taken or the breaker opened.
    notify: Arc<dyn Fn(Notice) + Send + Sync>,
}

/// What a generation tells the store, from a worker thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// A spare instance was taken.
    SpareTaken(u64),
    /// It will not be asked again.
    Tripped(u64),
}

/// What a load needs.
pub(super) struct Ingredients {
    pub(super) name: Arc<str>,
    pub(super) compiled: Arc<Compiled>,
    /// JSON.
    pub(super) settings: Arc<str>,
    pub(super) digest: Digest,
    pub(super) limits: Arc<Limits>,
    pub(super) own_counters: Arc<PolicyCounters>,
    /// Instances to have ready: one for each worker.
    pub(super) spares: usize,
    pub(super) notify: Arc<dyn Fn(Notice) + Send + Sync>,
}

struct Slot {
    /// Also its identity: an address is not given out again while somebody points at it.
    owner: Weak<Loaded>,
    instance: Instance,
}

thread_local! {
    /// This worker's instances, one for each generation that it has asked and that still lives.
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

impl Loaded {
    /// Starts, configures and tries a component. It serves nobody yet.
    pub(super) fn load(engine: &Arc<Engine>, from: Ingredients) -> Result<Arc<Self>, Fault> {
        let Ingredients { name, compiled, settings, digest, limits, own_counters, spares, notify } = from;
        let began = Instant::now();
        let host = Host::new(Arc::clone(&name), Arc::clone(&own_counters), Meter::new(limits.memory));
        let (mut first, version, manifest) = Instance::start(engine, &compiled.pre, host, &settings, &limits)?;
        let start = began.elapsed();
        trial::run(|query| first.route(engine, limits.deadline, query))?;
        let loaded = Arc::new(Self {
            name,
            generation: Generation { id: engine.next_number(), digest, version },
            manifest,
            loaded_at: SystemTime::now(),
            counters: GenerationCounters::default(),
            own_counters,
            engine: Arc::clone(engine),
            compiled,
            settings,
            start,
            breaker: Breaker::new(limits.faults, limits.fault_window),
            limits,
            spares: Mutex::new(Vec::with_capacity(spares)),
            notify,
        });
        loaded.refill(spares)?;
        Ok(loaded)
    }

    /// Makes spare instances until there are `count`.
    pub(super) fn refill(&self, count: usize) -> Result<(), Fault> {
        while self.spares.lock().len() < count {
            let instance = self.instance(self.limits.configure_deadline)?;
            self.spares.lock().push(instance);
        }
        Ok(())
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.breaker.is_open()
    }

    pub(super) fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    fn instance(&self, deadline: Duration) -> Result<Instance, Fault> {
        let host = Host::new(Arc::clone(&self.name), Arc::clone(&self.own_counters), Meter::new(self.limits.memory));
        let limits = Limits { configure_deadline: deadline, ..(*self.limits).clone() };
        let (instance, _, manifest) = Instance::start(&self.engine, &self.compiled.pre, host, &self.settings, &limits)?;
        if manifest != self.manifest {
            return Err(Fault::new(FaultKind::Answer, "its manifest differs from one start to the next"));
        }
        self.counters.instances.fetch_add(1, Ordering::Relaxed);
        Ok(instance)
    }

    /// An instance for this thread: a spare one, or one made now.
    #[cold]
    fn take(self: &Arc<Self>) -> Result<Instance, Fault> {
        let spare = self.spares.lock().pop();
        (self.notify)(Notice::SpareTaken(self.generation.id));
        match spare {
            Some(instance) => Ok(instance),
            // On the data path: no longer than the first start took, with room for a busy machine.
            None => self.instance(self.limits.deadline.max(self.start * 4)),
        }
    }

    /// Asks this thread's instance.
    #[inline]
    fn ask(self: &Arc<Self>, query: &Query<'_>) -> Result<Decision, Fault> {
        SLOTS.with(|slots| {
            let Ok(mut slots) = slots.try_borrow_mut() else {
                return Err(Fault::new(FaultKind::Host, "a policy was asked from within a policy"));
            };
            let owner = Arc::as_ptr(self);
            let known = slots.iter().position(|slot| slot.owner.as_ptr() == owner);
            let position = if let Some(position) = known {
                position
            } else {
                // A generation that nobody holds any more leaves with the first call of another.
                slots.retain(|slot| slot.owner.strong_count() > 0);
                slots.push(Slot { owner: Arc::downgrade(self), instance: self.take()? });
                slots.len() - 1
            };
            let instance = &mut slots[position].instance;
            let asked = catch_unwind(AssertUnwindSafe(|| instance.route(&self.engine, self.limits.deadline, query)));
            let answer = asked.unwrap_or_else(|_| Err(Fault::new(FaultKind::Host, "the host of the policy panicked")));
            if answer.is_err() {
                slots.swap_remove(position);
            } else if slots[position].instance.is_worn() {
                self.counters.recycled.fetch_add(1, Ordering::Relaxed);
                slots.swap_remove(position);
            }
            answer
        })
    }

    #[inline]
    fn route(self: &Arc<Self>, query: &Query<'_>) -> Result<Decision, Fault> {
        let answer = self.ask(query);
        self.counters.answered(&answer);
        answer
    }

    /// Counts a fault; `true` if the breaker had opened already, so that this fault need not reach anyone.
    #[cold]
    fn faulted(&self) -> bool {
        match self.breaker.fault(Instant::now()) {
            Verdict::Counted => false,
            Verdict::Opened => {
                (self.notify)(Notice::Tripped(self.generation.id));
                false
            }
            Verdict::WasOpen => true,
        }
    }
}

/// A policy as a link of a chain: its newest generation, and those to go back to, the best first.
pub(super) struct WasmPolicy {
    name: Arc<str>,
    candidates: SmallVec<[Arc<Loaded>; 2]>,
    manifest: Manifest,
    /// Shown when every candidate is retired.
    none: Generation,
}

impl WasmPolicy {
    /// A link of these generations; without any it faults always, so that a policy that never loaded is not passed by.
    pub(super) fn new(name: Arc<str>, candidates: impl IntoIterator<Item = Arc<Loaded>>) -> Self {
        let candidates: SmallVec<[Arc<Loaded>; 2]> = candidates.into_iter().collect();
        let manifest = candidates.iter().fold(
            Manifest { needs: crate::policy::Needs::NONE, depends: crate::policy::Depends::Statement },
            |all, one| Manifest {
                needs: all.needs.with(one.manifest.needs),
                depends: all.depends.max(one.manifest.depends),
            },
        );
        Self { name, candidates, manifest, none: Generation { id: 0, digest: Digest::NATIVE, version: "".into() } }
    }

    fn effective(&self) -> Option<&Arc<Loaded>> {
        self.candidates.iter().find(|candidate| !candidate.is_tripped())
    }
}

impl Policy for WasmPolicy {
    #[inline]
    fn route(&self, query: &Query<'_>) -> Result<Decision, Fault> {
        for candidate in &self.candidates {
            if candidate.is_tripped() {
                continue;
            }
            match candidate.route(query) {
                Err(_) if candidate.faulted() => {}
                answer => return answer,
            }
        }
        Err(Fault::new(FaultKind::Unavailable, "no generation of it is fit to be asked"))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn generation(&self) -> &Generation {
        self.effective().map_or(&self.none, |loaded| &loaded.generation)
    }

    fn manifest(&self) -> Manifest {
        self.manifest
    }

    fn served_from_cache(&self) {
        if let Some(loaded) = self.effective() {
            loaded.counters.served_from_cache();
        }
    }
}

/// Counts faults within a window, and opens for good.
struct Breaker {
    open: AtomicBool,
    limit: usize,
    window: Duration,
    recent: Mutex<Vec<Instant>>,
}

enum Verdict {
    Counted,
    Opened,
    WasOpen,
}

impl Breaker {
    fn new(limit: u32, window: Duration) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
        Self { open: AtomicBool::new(false), limit, window, recent: Mutex::new(Vec::new()) }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn fault(&self, now: Instant) -> Verdict {
        let mut recent = self.recent.lock();
        if self.is_open() {
            return Verdict::WasOpen;
        }
        recent.retain(|then| now.saturating_duration_since(*then) < self.window);
        recent.push(now);
        if recent.len() < self.limit {
            return Verdict::Counted;
        }
        self.open.store(true, Ordering::Relaxed);
        Verdict::Opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_at_the_limit_within_the_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let breaker = Breaker::new(3, Duration::from_secs(60));
        for (seconds, open) in [(0, false), (30, false), (61, false), (80, true)] {
            breaker.fault(at(seconds));
            assert_eq!(breaker.is_open(), open, "{seconds}");
        }
        assert!(matches!(breaker.fault(at(81)), Verdict::WasOpen));
    }
}
