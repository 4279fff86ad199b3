//! The policies that serve: from the folder's files to chains, without ever stopping.
//!
//! Invariant: readers see whole [`Chains`], swapped in one step. What cannot be loaded changes nothing but its own
//! status. A policy that was there at the start and could not be loaded is a link that faults, never a gap.
//!
//! Deliberately absent: anything on the data path, which reads [`PolicyStore::chains`] and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::engine::Engine;
use super::event::{PolicyEvent, PolicyStatus};
use super::keeper::{Keeper, Shared};
use super::limits::Limits;
use crate::policy::{Chain, OnFault};

/// What the store is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The folder; `None` for the built-in policy alone.
    pub directory: Option<PathBuf>,
    /// Of every link but the built-in one.
    pub on_fault: OnFault,
    /// Of every policy.
    pub limits: Limits,
    /// How many threads ask: so many instances of each policy are made before it serves.
    pub workers: usize,
    /// Databases with a chain of their own, and the policies in it.
    pub chains: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: None,
            on_fault: OnFault::default(),
            limits: Limits::default(),
            workers: 1,
            chains: BTreeMap::new(),
        }
    }
}

/// The chains of one moment.
#[derive(Debug)]
pub struct Chains {
    pub(super) default: Arc<Chain>,
    pub(super) by_database: HashMap<Box<str>, Arc<Chain>>,
}

impl Chains {
    /// The chain of a database. Whoever holds it sees the same generations until it lets go.
    #[must_use]
    pub fn of(&self, database: &str) -> &Arc<Chain> {
        if self.by_database.is_empty() {
            return &self.default;
        }
        self.by_database.get(database).unwrap_or(&self.default)
    }

    /// Every chain, the default one first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Chain>> {
        std::iter::once(&self.default).chain(self.by_database.values())
    }
}

/// The store could not start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Wasmtime could not be set up on this machine.
    #[error("the policy engine cannot run here: {0}")]
    Engine(String),
    /// The embedded policy could not be loaded with the settings in the folder.
    #[error("the built-in policy cannot be loaded: {0}")]
    Builtin(String),
    /// A thread could not be started.
    #[error("a thread of the policy store cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What happens when; called on the store's own threads, so it should be quick.
pub type Observer = Arc<dyn Fn(&PolicyEvent) + Send + Sync>;

/// Holds the policies, watches their files, and keeps the chains up to date.
pub struct PolicyStore {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What wakes the store's thread.
pub(super) enum Message {
    /// Something happened to these files of the folder; none named: look at all.
    Touched(Vec<Box<str>>),
    Done(super::worker::Done),
    Notice(super::generation::Notice),
    Reconfigure(Box<StoreConfig>, Sender<()>),
    Rescan(Sender<()>),
    Stop,
}

impl PolicyStore {
    /// Loads what is in the folder, and goes on watching it. Returns when the first chains are ready, which takes as
    /// long as their policies take to compile; what cannot be loaded is told to the observer.
    ///
    /// # Errors
    /// When Wasmtime, a thread or the built-in policy cannot start; never because of a file in the folder.
    pub fn start(config: StoreConfig, observer: Observer) -> Result<Self, StoreError> {
        let engine = Engine::new().map_err(|error| StoreError::Engine(format!("{error:#}")))?;
        let (messages, inbox) = channel();
        let mut keeper = Keeper::new(Arc::new(engine), config, observer, messages.clone())?;
        keeper.first_look();
        let shared = Arc::clone(&keeper.shared);
        let thread = std::thread::Builder::new().name("policy-store".into()).spawn(move || serve(keeper, &inbox))?;
        Ok(Self { shared, messages, thread: Some(thread) })
    }

    /// Looks at the folder no more. What serves goes on serving.
    pub fn stop(&self) {
        // The thread may have stopped before.
        drop(self.messages.send(Message::Stop));
    }

    /// The chains, to be loaded whenever a transaction begins.
    #[must_use]
    pub fn chains(&self) -> &ArcSwap<Chains> {
        &self.shared.chains
    }

    /// Every policy, by name.
    #[must_use]
    pub fn status(&self) -> Vec<PolicyStatus> {
        self.shared.status()
    }

    /// Takes another configuration; returns when the chains follow it. New modules may still be compiling then.
    pub fn reconfigure(&self, config: StoreConfig) {
        self.ask(|done| Message::Reconfigure(Box::new(config), done));
    }

    /// Looks at the folder at once, without waiting for files to be quiet; returns when that is done. New modules may
    /// still be compiling then.
    pub fn rescan(&self) {
        self.ask(Message::Rescan);
    }

    fn ask(&self, message: impl FnOnce(Sender<()>) -> Message) {
        let (done, answer) = channel();
        if self.messages.send(message(done)).is_ok() {
            // An error means that the store is gone, and nothing is left to wait for.
            let _ = answer.recv();
        }
    }
}

impl Drop for PolicyStore {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for PolicyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyStore").field("chains", &self.shared.chains.load()).finish_non_exhaustive()
    }
}

/// The store's thread: waits for messages, and for the moment when the folder is to be looked at.
fn serve(mut keeper: Keeper, inbox: &Receiver<Message>) {
    let mut look_at = Some(Instant::now());
    loop {
        let message = match look_at {
            Some(moment) => match inbox.recv_timeout(moment.saturating_duration_since(Instant::now())) {
                Ok(message) => Some(message),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            },
            None => match inbox.recv() {
                Ok(message) => Some(message),
                Err(_) => return,
            },
        };
        let mut look = message.is_none();
        // Whatever else has come meanwhile belongs to the same look: storms are coalesced here.
        for message in message.into_iter().chain(inbox.try_iter()) {
            match message {
                Message::Stop => return,
                Message::Touched(files) => {
                    keeper.touched(&files);
                    look = true;
                }
                Message::Done(done) => keeper.done(done),
                Message::Notice(notice) => keeper.notice(notice),
                Message::Reconfigure(config, done) => {
                    keeper.reconfigure(*config);
                    look_at = keeper.look(std::time::Duration::ZERO);
                    drop(done);
                }
                Message::Rescan(done) => {
                    look_at = keeper.look(std::time::Duration::ZERO);
                    drop(done);
                }
            }
        }
        if look {
            look_at = keeper.look(super::folder::QUIET);
        }
    }
}
