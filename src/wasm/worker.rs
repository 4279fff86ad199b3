//! The compile thread: one module at a time, small ones first, large ones last, off every path that someone waits on.
//!
//! Invariant: of several jobs for one policy only the latest is done; the others were overtaken before their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use super::compile::{Compiled, compile};
use super::engine::Engine;
use super::generation::{Ingredients, Loaded};
use super::store::Message;
use crate::policy::{Digest, Fault};

/// Modules of more bytes give way to queries; they take hundreds of milliseconds of a processor and up.
const LARGE: usize = 256 << 10;

/// How much.
const GIVES_WAY: i32 = 5;

/// Modules of no more bytes go before queries, where the system allows that: on a machine whose cores are all busy their few tens
/// of milliseconds of a processor come to half a second otherwise, and somebody waits to see a policy take effect.
const SMALL: usize = 64 << 10;

/// How much.
const GOES_FIRST: i32 = -5;

/// A module that was not seen lately, to be compiled and tried.
pub(super) struct Job {
    pub(super) name: Box<str>,
    /// Of the component alone.
    pub(super) component: [u8; 32],
    pub(super) bytes: Vec<u8>,
    /// What follows the compilation.
    pub(super) load: Box<dyn FnOnce(Arc<Compiled>) -> Ingredients + Send>,
}

/// What became of a job.
pub(super) struct Done {
    pub(super) name: Box<str>,
    pub(super) digest: Digest,
    pub(super) compiled: Result<Arc<Compiled>, String>,
    pub(super) loaded: Option<Result<Arc<Loaded>, Fault>>,
}

/// Runs until the sender of jobs is gone.
pub(super) fn run(engine: &Arc<Engine>, jobs: &Receiver<(Digest, Job)>, done: &Sender<Message>) {
    let mut waiting: BTreeMap<Box<str>, (Digest, Job)> = BTreeMap::new();
    loop {
        if waiting.is_empty() {
            let Ok((digest, job)) = jobs.recv() else { return };
            waiting.insert(job.name.clone(), (digest, job));
        }
        waiting.extend(jobs.try_iter().map(|(digest, job)| (job.name.clone(), (digest, job))));
        let Some((_, (digest, job))) = waiting.pop_first() else { continue };
        let size = job.bytes.len();
        let work = || perform(engine, digest, job);
        let result = if size > LARGE {
            at_niceness(GIVES_WAY, work)
        } else if size > SMALL {
            work()
        } else {
            at_niceness(GOES_FIRST, work)
        };
        if done.send(Message::Done(result)).is_err() {
            return;
        }
    }
}

/// Runs on a thread of another priority: one that has lowered its own may not raise it again, and most may not raise theirs.
fn at_niceness<T: Send>(change: i32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = rustix::process::nice(change) {
                tracing::debug!(%error, "a compilation keeps its priority");
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Compiles and loads, on whatever thread calls.
pub(super) fn perform(engine: &Arc<Engine>, digest: Digest, job: Job) -> Done {
    let Job { name, component, bytes, load } = job;
    let compiled = compile(engine, component, &bytes);
    let loaded = compiled.as_ref().ok().map(|compiled| Loaded::load(engine, load(Arc::clone(compiled))));
    Done { name, digest, compiled, loaded }
}
