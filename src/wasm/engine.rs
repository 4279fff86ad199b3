//! The engine that all policies share, and the clock that ends calls which run too long.
//!
//! Invariant: every call into a component happens under an epoch deadline, and the ticker ticks as long as a call may
//! be under way. Epochs count wall time, but a thread that the system took off its core is not a policy that loops:
//! past its deadline a call is measured by the processor time that its thread really used.
//!
//! Deliberately absent: fuel, which costs every call; pools of instances, for each worker keeps its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::types::ComponentInstance;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, OptLevel, Store, UpdateDeadline};

use super::bindings;
use super::compile::{self, Compiled};
use super::host::Host;

/// How often the ticker advances the epoch.
const TICK: Duration = Duration::from_millis(1);

/// Past its deadline a call lives at most so many times its deadline more, however little of the processor its thread got.
const PATIENCE: u32 = 50;

/// The longest deadline that is kept; longer ones are cut.
const LONGEST_DEADLINE: Duration = Duration::from_secs(2);

/// Stack that a component may use; a worker thread has at least 2 MiB.
const STACK: usize = 256 << 10;

/// Wasmtime, set up for short synchronous calls, and its ticker thread, which lives as long as this.
pub(super) struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<Host>,
    /// The policy that is embedded in the gateway.
    pub(super) builtin: Arc<Compiled>,
    /// The type of what a policy exports.
    pub(super) reference: ComponentInstance,
    numbers: AtomicU64,
    ticker: Arc<Ticker>,
    thread: Option<JoinHandle<()>>,
}

struct Ticker {
    /// A call began since the last tick, or passed its deadline.
    busy: AtomicBool,
    /// The longest deadline of any call so far, in ticks. After so many without a sign of one, none is under way.
    longest: AtomicU64,
    /// The thread is parked until the next call.
    resting: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Engine {
    /// Builds the engine and starts the ticker.
    pub(super) fn new() -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .epoch_interruption(true)
            .consume_fuel(false)
            .max_wasm_stack(STACK)
            .cranelift_opt_level(OptLevel::Speed);
        let wasmtime = wasmtime::Engine::new(&config)?;
        let mut linker = Linker::new(&wasmtime);
        bindings::Policy::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
        let (builtin, reference) = compile::builtin(&wasmtime, &linker)?;
        let ticker = Arc::new(Ticker {
            busy: AtomicBool::new(false),
            longest: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let thread = std::thread::Builder::new().name("policy-ticker".into()).spawn({
            let (ticker, engine) = (Arc::clone(&ticker), wasmtime.clone());
            move || ticker.run(&engine)
        })?;
        // Set before anyone can call `touch`.
        drop(ticker.thread.set(thread.thread().clone()));
        Ok(Self { wasmtime, linker, builtin, reference, numbers: AtomicU64::new(1), ticker, thread: Some(thread) })
    }

    /// A number that was not given before: for generations and chains.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A store that ends its calls in time; [`Self::begin`] must come before each.
    pub(super) fn store(&self, host: Host) -> Store<Host> {
        let mut store = Store::new(&self.wasmtime, host);
        let ticker = Arc::clone(&self.ticker);
        store.epoch_deadline_callback(move |mut context| {
            // It may have gone to rest: this thread may have been off the processor for long.
            ticker.touch(1);
            Ok(if context.data_mut().clock.late() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store
    }

    /// Starts the clock of one call.
    #[inline]
    pub(super) fn begin(&self, store: &mut Store<Host>, deadline: Duration) {
        let deadline = deadline.min(LONGEST_DEADLINE);
        let clock = &mut store.data_mut().clock;
        clock.deadline = deadline;
        clock.since = None;
        // The epoch stands anywhere within a tick, so the first look comes within the last tick before the deadline.
        let ticks = u64::try_from(deadline.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).max(1);
        store.set_epoch_deadline(ticks);
        self.ticker.touch(ticks);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ticker.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The ticker runs no foreign code, and a panic in it has been reported already.
            drop(thread.join());
        }
    }
}

impl Ticker {
    /// Tells that a call with a deadline of so many ticks begins. Two loads while calls are frequent.
    #[inline]
    fn touch(&self, ticks: u64) {
        if self.longest.load(Ordering::Relaxed) < ticks {
            self.longest.fetch_max(ticks, Ordering::SeqCst);
        }
        if !self.busy.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Sequentially consistent with `rest`: either it sees `busy` or this sees `resting`.
        self.busy.store(true, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Parks until a call begins.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        while !self.busy.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }

    fn run(&self, engine: &wasmtime::Engine) {
        let mut idle: u64 = 0;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            idle = if self.busy.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
            if idle > self.longest.load(Ordering::SeqCst) {
                self.rest();
                idle = 0;
            }
        }
    }
}

/// The time that one call has.
#[derive(Default)]
pub(super) struct CallClock {
    deadline: Duration,
    /// Processor time of the thread and the moment, when the deadline was first reached.
    since: Option<(Duration, Instant)>,
}

impl CallClock {
    /// Whether a call that has reached its deadline is to end now: once it used as much of the processor again. What it
    /// used before nobody knows, for asking at the start of each call would cost more than most calls.
    fn late(&mut self) -> bool {
        let used = thread_time();
        let now = Instant::now();
        let Some((used_then, then)) = self.since else {
            self.since = Some((used, now));
            return false;
        };
        used.saturating_sub(used_then) >= self.deadline || now.duration_since(then) >= self.deadline * PATIENCE
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
