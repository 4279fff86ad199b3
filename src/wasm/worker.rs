//! The compile thread: one module at a time, large ones at low priority, off every path that someone waits on.
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

/// How much. A small module does not: at lower priority than the queries on a machine whose cores are all busy, its few tens
/// of milliseconds of a processor would come to seconds.
const NICENESS: i32 = 5;

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
        let large = job.bytes.len() > LARGE;
        let result = if large { give_way(|| perform(engine, digest, job)) } else { perform(engine, digest, job) };
        if done.send(Message::Done(result)).is_err() {
            return;
        }
    }
}

/// Runs on a thread of lower priority: a thread that has lowered its own may not raise it again.
fn give_way<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = rustix::process::nice(NICENESS) {
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
