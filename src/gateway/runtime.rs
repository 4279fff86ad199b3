//! The runtime's shape, behind one seam: a current-thread runtime per core, or tokio's multi-thread runtime.
//!
//! Invariant: a session is spawned once and never moves by our hand; nothing above this module knows the shape.
//! Deliberately absent: what runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Runtime, Server};
use crate::net;

/// A thread's stack, in bytes: the parser's bounds are measured against it.
const STACK: usize = 8 << 20;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Makes a session's future on the worker that it will live on.
type Make = Box<dyn FnOnce(usize) -> Task + Send>;

/// The threads that sessions run on.
#[derive(Debug)]
pub(super) struct Workers {
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    PerCore {
        spawner: Spawner,
        first: Handle,
        stops: Vec<oneshot::Sender<()>>,
        threads: Vec<std::thread::JoinHandle<()>>,
    },
    MultiThread {
        runtime: tokio::runtime::Runtime,
        count: usize,
    },
}

/// Starts sessions.
#[derive(Debug, Clone)]
pub(super) struct Spawner(Spawn);

#[derive(Debug, Clone)]
enum Spawn {
    PerCore(Arc<[Worker]>),
    MultiThread(Handle),
}

#[derive(Debug)]
struct Worker {
    sender: mpsc::UnboundedSender<Job>,
    load: Arc<AtomicUsize>,
}

struct Job {
    make: Make,
    load: Load,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// Counts a session on its worker while it lives.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts as many threads as the configuration says, or the machine has cores. Called on the runtime that accepts, which
    /// lends its timers.
    pub(super) fn start(config: &Server) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = config.workers.unwrap_or(cores).max(1);
        let shape = match config.runtime {
            Runtime::MultiThread => {
                let runtime = Builder::new_multi_thread()
                    .worker_threads(count)
                    .thread_stack_size(STACK)
                    .thread_name("pointsman")
                    .enable_all()
                    .build()?;
                Shape::MultiThread { runtime, count }
            }
            Runtime::PerCore => per_core(count, &Handle::current())?,
        };
        Ok(Self { shape })
    }

    /// How many runtimes server connections can belong to.
    pub(super) fn count(&self) -> usize {
        match &self.shape {
            Shape::PerCore { threads, .. } => threads.len(),
            // One runtime, whatever its threads.
            Shape::MultiThread { .. } => 1,
        }
    }

    /// How many threads sessions run on.
    pub(super) fn threads(&self) -> usize {
        match &self.shape {
            Shape::PerCore { threads, .. } => threads.len(),
            Shape::MultiThread { count, .. } => *count,
        }
    }

    /// A runtime that sessions run on, and its number, for what works beside them.
    pub(super) fn first(&self) -> (Handle, usize) {
        match &self.shape {
            Shape::PerCore { first, .. } => (first.clone(), 0),
            Shape::MultiThread { runtime, .. } => (runtime.handle().clone(), 0),
        }
    }

    pub(super) fn spawner(&self) -> Spawner {
        match &self.shape {
            Shape::PerCore { spawner, .. } => spawner.clone(),
            Shape::MultiThread { runtime, count } => {
                tracing::debug!(threads = count, "sessions run on one multi-thread runtime");
                Spawner(Spawn::MultiThread(runtime.handle().clone()))
            }
        }
    }

    /// Ends the threads; what still runs on them is dropped.
    pub(super) async fn stop(self) {
        let join = tokio::task::spawn_blocking(move || match self.shape {
            Shape::PerCore { stops, threads, .. } => {
                for stop in stops {
                    // A worker that is gone already needs no word.
                    let _ = stop.send(());
                }
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a worker panicked");
                    }
                }
            }
            Shape::MultiThread { runtime, .. } => runtime.shutdown_background(),
        });
        let _ = join.await;
    }
}

fn per_core(count: usize, timers: &Handle) -> io::Result<Shape> {
    let (mut workers, mut stops, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = None;
    for number in 0..count {
        let (sender, jobs) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        // No timers: `net::timers` says why.
        let runtime = Builder::new_current_thread().enable_io().build()?;
        first.get_or_insert_with(|| runtime.handle().clone());
        let timers = timers.clone();
        let thread =
            std::thread::Builder::new().name(format!("pointsman-{number}")).stack_size(STACK).spawn(move || {
                net::borrow_timers(timers);
                runtime.block_on(work(number, jobs, stopped));
            })?;
        workers.push(Worker { sender, load: Arc::default() });
        stops.push(stop);
        threads.push(thread);
    }
    let first = first.ok_or_else(|| io::Error::other("no worker was started"))?;
    Ok(Shape::PerCore { spawner: Spawner(Spawn::PerCore(workers.into())), first, stops, threads })
}

/// One worker: starts what it is sent until it is stopped.
async fn work(number: usize, mut jobs: mpsc::UnboundedReceiver<Job>, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            job = jobs.recv() => {
                let Some(Job { make, load }) = job else { return };
                let task = make(number);
                tokio::spawn(async move {
                    task.await;
                    drop(load);
                });
            }
            _ = &mut stopped => return,
        }
    }
}

impl Spawner {
    /// Starts a session on the worker with the fewest.
    pub(super) fn spawn<F>(&self, make: impl FnOnce(usize) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match &self.0 {
            Spawn::PerCore(workers) => {
                let Some(worker) = workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else {
                    return;
                };
                worker.load.fetch_add(1, Ordering::Relaxed);
                let load = Load(Arc::clone(&worker.load));
                let job = Job { make: Box::new(move |number| Box::pin(make(number))), load };
                if worker.sender.send(job).is_err() {
                    tracing::error!("a worker is gone; the client is turned away");
                }
            }
            Spawn::MultiThread(handle) => {
                handle.spawn(async move { make(0).await });
            }
        }
    }
}
