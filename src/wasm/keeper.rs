//! The store's mind: what each policy's files are, what serves, and what to do about a change.
//!
//! Invariant: one thread owns it. A unit's newest content is handled once, whatever becomes of it, so that a broken
//! file is reported once and a retired generation is not loaded again by the next look.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;

use super::compile::{self, Compiled, sha256};
use super::counters::{PolicyCounters, PolicyCounts};
use super::engine::Engine;
use super::event::{PolicyEvent, PolicyState, PolicyStatus};
use super::folder::{Change, Folder};
use super::generation::{Ingredients, Loaded, Notice, WasmPolicy};
use super::settings;
use super::store::{Chains, Message, Observer, StoreConfig, StoreError};
use super::worker::{self, Done, Job};
use crate::policy::{Chain, Digest, Link, OnFault, ReadWriteSplit};

/// Compiled modules that were seen lately: so many, and so many bytes of their files.
const KEPT_MODULES: usize = 8;
const KEPT_BYTES: usize = 64 << 20;

const BUILTIN: &str = ReadWriteSplit::NAME;

/// What readers share with the store's thread.
pub(super) struct Shared {
    pub(super) chains: ArcSwap<Chains>,
    entries: Mutex<BTreeMap<Box<str>, Entry>>,
}

/// A policy as the status shows it.
#[derive(Clone)]
pub(super) struct Entry {
    state: PolicyState,
    serving: Option<Arc<Loaded>>,
    error: Option<Box<str>>,
    own_counters: Arc<PolicyCounters>,
}

impl Shared {
    pub(super) fn status(&self) -> Vec<PolicyStatus> {
        let entries = self.entries.lock().clone();
        let status = |(name, entry): (Box<str>, Entry)| {
            let serving = entry.serving.as_ref();
            PolicyStatus {
                name,
                state: entry.state,
                generation: serving.map(|loaded| loaded.generation.clone()),
                loaded_at: serving.map(|loaded| loaded.loaded_at),
                size: serving.map_or(0, |loaded| loaded.compiled().size),
                error: entry.error,
                counts: serving.map_or_else(PolicyCounts::default, |loaded| loaded.counters.read()),
                own_counts: entry.own_counters.read(),
            }
        };
        entries.into_iter().map(status).collect()
    }
}

/// One policy.
struct Unit {
    /// What serves, and the generation to go back to.
    candidates: Vec<Arc<Loaded>>,
    /// The newest content of its files; `None` while there is none.
    handled: Option<Digest>,
    /// Its module is being compiled.
    compiling: Option<(Digest, Instant)>,
    error: Option<Box<str>>,
    /// It has a link even if nothing of it can serve: it was there at the start, or has served.
    expected: bool,
    own_counters: Arc<PolicyCounters>,
}

impl Unit {
    fn new() -> Self {
        Self {
            candidates: Vec::new(),
            handled: None,
            compiling: None,
            error: None,
            expected: false,
            own_counters: Arc::new(PolicyCounters::new()),
        }
    }

    fn serving(&self) -> Option<&Arc<Loaded>> {
        self.candidates.iter().find(|candidate| !candidate.is_tripped())
    }

    fn entry(&self) -> Entry {
        let serving = self.serving();
        let newest = serving.is_some_and(|loaded| Some(loaded.generation.digest) == self.handled);
        let state = match serving {
            Some(_) if newest || self.compiling.is_some() => PolicyState::Serving,
            Some(_) => PolicyState::LastGood,
            None if self.compiling.is_some() => PolicyState::Compiling,
            None if self.expected => PolicyState::Broken,
            None => PolicyState::Refused,
        };
        Entry {
            state,
            serving: serving.cloned(),
            error: self.error.clone(),
            own_counters: Arc::clone(&self.own_counters),
        }
    }
}

/// The store's state, on its thread.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    engine: Arc<Engine>,
    config: StoreConfig,
    limits: Arc<super::limits::Limits>,
    observer: Observer,
    /// What happened, told once readers can see it.
    events: Vec<PolicyEvent>,
    messages: Sender<Message>,
    jobs: Sender<(Digest, Job)>,
    folder: Option<Folder>,
    folder_error: bool,
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    units: BTreeMap<Box<str>, Unit>,
    /// The most recently used last.
    modules: VecDeque<Arc<Compiled>>,
    /// During the first look everything is done at once, on the caller's thread.
    starting: bool,
}

impl Keeper {
    pub(super) fn new(
        engine: Arc<Engine>,
        config: StoreConfig,
        observer: Observer,
        messages: Sender<Message>,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = channel();
        std::thread::Builder::new().name("policy-compile".into()).spawn({
            let (engine, messages) = (Arc::clone(&engine), messages.clone());
            move || worker::run(&engine, &queue, &messages)
        })?;
        let chain = Arc::new(Chain::new(engine.next_number(), Vec::new()));
        let chains = Chains { default: chain, by_database: std::collections::HashMap::default() };
        let shared = Arc::new(Shared { chains: ArcSwap::from_pointee(chains), entries: Mutex::default() });
        let mut keeper = Self {
            shared,
            engine,
            limits: Arc::new(config.limits.clone()),
            folder: None,
            config,
            observer,
            events: Vec::new(),
            messages,
            jobs,
            folder_error: false,
            watcher: None,
            units: BTreeMap::new(),
            modules: VecDeque::new(),
            starting: true,
        };
        keeper.open_folder();
        Ok(keeper)
    }

    /// Loads everything before anyone asks.
    pub(super) fn first_look(&mut self) {
        self.builtin_without_files();
        self.look(Duration::ZERO);
        self.starting = false;
        self.publish();
    }

    /// The built-in policy as it is without files of its name in the folder.
    fn builtin_without_files(&mut self) {
        let change = Change { name: BUILTIN.into(), component: None, settings: None };
        self.change(change);
    }

    fn open_folder(&mut self) {
        let limits = &self.config.limits;
        let directory = self.config.directory.clone();
        self.folder = directory.map(|path| Folder::new(path, limits.file, limits.settings));
        self.watcher = None;
    }

    /// An event named these files.
    pub(super) fn touched(&mut self, files: &[Box<str>]) {
        let now = Instant::now();
        if let Some(folder) = &mut self.folder {
            for file in files {
                folder.touch(file, now);
            }
        }
    }

    /// Looks at the folder and does what is due; returns when to look again.
    pub(super) fn look(&mut self, quiet: Duration) -> Option<Instant> {
        self.watch();
        let folder = self.folder.as_mut()?;
        let now = Instant::now();
        match folder.scan(now, quiet) {
            Ok(scan) => {
                self.folder_error = false;
                for change in scan.changes {
                    self.change(change);
                }
                self.publish_if_changed();
                scan.next
            }
            Err(error) => {
                if !std::mem::replace(&mut self.folder_error, true) {
                    let path = folder.path().to_owned();
                    self.events.push(PolicyEvent::Folder { path, error: error.to_string().into() });
                    self.publish_if_changed();
                }
                Some(now + super::folder::RESCAN)
            }
        }
    }

    /// Watches the folder, and watches anew if it is another than before. Without a watch the rescans still find all.
    fn watch(&mut self) {
        use std::os::unix::fs::MetadataExt as _;
        let Some(folder) = &self.folder else { return };
        let Ok(metadata) = std::fs::metadata(folder.path()) else {
            self.watcher = None;
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        let messages = self.messages.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            let files = match event {
                // Our own reading must not wake us.
                Ok(event) => match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => event.paths,
                    EventKind::Access(_) => return,
                    _ => event.paths,
                },
                Err(_) => Vec::new(),
            };
            let name = |path: PathBuf| Some(path.file_name()?.to_str()?.into());
            // The store may be gone; then nobody needs to know.
            drop(messages.send(Message::Touched(files.into_iter().filter_map(name).collect())));
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(folder.path(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        self.watcher = match watcher {
            Ok(watcher) => Some((watcher, identity)),
            Err(error) => {
                tracing::debug!(%error, "the policy folder cannot be watched; it is looked at every two seconds");
                None
            }
        };
    }

    /// A unit's files changed and kept still.
    fn change(&mut self, change: Change) {
        let Change { name, component, settings } = change;
        let began = Instant::now();
        if component.is_none() && &*name != BUILTIN {
            let serves = self.units.get(&name).is_some_and(|unit| unit.handled.is_some());
            if settings.is_some() && !serves {
                self.unused_settings(&name);
            }
            return self.gone(&name);
        }
        let unit = self.units.entry(name.clone()).or_insert_with(Unit::new);
        unit.expected |= self.starting;
        let content = |part: Option<&Result<Vec<u8>, String>>| match part {
            None => [0; 32],
            Some(Ok(bytes)) => sha256(bytes),
            Some(Err(error)) => sha256(error.as_bytes()),
        };
        let module = match &component {
            Some(component) => content(Some(component)),
            None => self.engine.builtin.digest,
        };
        let digest = Digest(sha256(&[module, content(settings.as_ref())].concat()));
        if unit.handled == Some(digest) {
            return;
        }
        unit.handled = Some(digest);
        unit.compiling = None;
        let json = match settings {
            None => Ok("{}".to_owned()),
            Some(Ok(bytes)) => settings::to_json(&bytes),
            Some(Err(error)) => Err(error),
        };
        let json = match json {
            Ok(json) => json,
            Err(error) => return self.refuse(&name, "toml", &error),
        };
        let bytes = match component {
            None => Vec::new(),
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return self.refuse(&name, "wasm", &error),
        };
        let ingredients = self.ingredients(&name, digest, json);
        let known = if module == self.engine.builtin.digest {
            Some(Arc::clone(&self.engine.builtin))
        } else {
            self.module(&module)
        };
        if let Some(compiled) = known {
            return match Loaded::load(&self.engine, ingredients(compiled)) {
                Ok(loaded) => self.serve(&name, loaded, began),
                Err(fault) => self.refuse_fault(&name, &fault),
            };
        }
        if let Err(error) = compile::look(&bytes) {
            return self.refuse(&name, "wasm", &error);
        }
        if let Some(unit) = self.units.get_mut(&name) {
            unit.compiling = Some((digest, began));
        }
        let job = Job { name, component: module, bytes, load: Box::new(ingredients) };
        if self.starting {
            let done = worker::perform(&self.engine, digest, job);
            self.done(done);
        } else {
            // The compile thread lives as long as this sender.
            drop(self.jobs.send((digest, job)));
            self.show();
        }
    }

    fn ingredients(
        &self,
        name: &str,
        digest: Digest,
        json: String,
    ) -> impl FnOnce(Arc<Compiled>) -> Ingredients + Send + use<> {
        let name: Arc<str> = name.into();
        let own_counters = self
            .units
            .get(&*name)
            .map_or_else(|| Arc::new(PolicyCounters::new()), |unit| Arc::clone(&unit.own_counters));
        let limits = Arc::clone(&self.limits);
        let spares = self.config.workers.max(1);
        let messages = Mutex::new(self.messages.clone());
        let notify = move |notice| drop(messages.lock().send(Message::Notice(notice)));
        move |compiled| Ingredients {
            name,
            compiled,
            settings: json.into(),
            digest,
            limits,
            own_counters,
            spares,
            notify: Arc::new(notify),
        }
    }

    /// A module seen lately.
    fn module(&mut self, digest: &[u8; 32]) -> Option<Arc<Compiled>> {
        let position = self.modules.iter().position(|compiled| compiled.digest == *digest)?;
        let compiled = self.modules.remove(position)?;
        self.modules.push_back(Arc::clone(&compiled));
        Some(compiled)
    }

    fn remember(&mut self, compiled: Arc<Compiled>) {
        self.modules.push_back(compiled);
        let mut bytes: usize = self.modules.iter().map(|compiled| compiled.size).sum();
        while self.modules.len() > KEPT_MODULES || (bytes > KEPT_BYTES && self.modules.len() > 1) {
            bytes -= self.modules.pop_front().map_or(0, |compiled| compiled.size);
        }
    }

    /// The compile thread is through with a module.
    pub(super) fn done(&mut self, done: Done) {
        let Done { name, digest, compiled, loaded } = done;
        let wanted = self.units.get(&name).and_then(|unit| unit.compiling);
        let error = match compiled {
            Ok(compiled) => {
                self.remember(compiled);
                None
            }
            Err(error) => Some(error),
        };
        // Another content came meanwhile, or the file went: what was compiled stays known, and that is all.
        let Some((_, began)) = wanted.filter(|(wanted, _)| *wanted == digest) else { return };
        if let Some(unit) = self.units.get_mut(&name) {
            unit.compiling = None;
        }
        match (error, loaded) {
            (Some(error), _) => self.refuse(&name, "wasm", &error),
            (None, Some(Ok(loaded))) => self.serve(&name, loaded, began),
            (None, Some(Err(fault))) => self.refuse_fault(&name, &fault),
            (None, None) => {}
        }
        self.publish_if_changed();
    }

    /// A generation is ready.
    fn serve(&mut self, name: &str, loaded: Arc<Loaded>, began: Instant) {
        let generation = loaded.generation.clone();
        let Some(unit) = self.units.get_mut(name) else { return };
        // The one to go back to is the one that served until now; those before it can go.
        let before = unit.serving().cloned();
        unit.candidates = std::iter::once(loaded).chain(before).collect();
        unit.error = None;
        unit.expected = true;
        self.events.push(PolicyEvent::Loaded { name: name.into(), generation, took: began.elapsed() });
    }

    fn refuse_fault(&mut self, name: &str, fault: &crate::policy::Fault) {
        use crate::policy::FaultKind;
        match fault.kind {
            FaultKind::Declared => {
                self.refuse(name, "toml", &format!("the policy refuses its settings: {}", fault.message));
            }
            _ => self.refuse(name, "wasm", &fault.to_string()),
        }
    }

    fn refuse(&mut self, name: &str, ending: &str, error: &str) {
        let file = format!("{name}.{ending}");
        let file = self.config.directory.as_ref().map_or_else(|| PathBuf::from(&file), |folder| folder.join(&file));
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.error = Some(error.into());
        let serving = unit.serving().map(|loaded| loaded.generation.clone());
        self.events.push(PolicyEvent::Refused { name: name.into(), file, error: error.into(), serving });
    }

    /// There are settings, and nothing that they are for.
    fn unused_settings(&mut self, name: &str) {
        let file = PathBuf::from(format!("{name}.toml"));
        let file = self.config.directory.as_ref().map_or_else(|| file.clone(), |folder| folder.join(&file));
        let error = format!("there is no {name}.wasm beside it").into();
        self.events.push(PolicyEvent::Refused { name: name.into(), file, error, serving: None });
    }

    /// A unit's component is gone.
    fn gone(&mut self, name: &str) {
        let named = self.config.chains.values().flatten().any(|named| **named == *name);
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.handled.is_none() {
            return;
        }
        unit.handled = None;
        unit.compiling = None;
        if named {
            unit.error = Some("its file is gone".into());
            self.events.push(PolicyEvent::Kept { name: name.into() });
        } else {
            self.units.remove(name);
            self.events.push(PolicyEvent::Removed { name: name.into() });
        }
    }

    /// A worker thread reports.
    pub(super) fn notice(&mut self, notice: Notice) {
        let (Notice::SpareTaken(id) | Notice::Tripped(id)) = notice;
        let owner = self.units.iter_mut().find_map(|(name, unit)| {
            let position = unit.candidates.iter().position(|candidate| candidate.generation.id == id)?;
            Some((name.clone(), unit, position))
        });
        let Some((name, unit, position)) = owner else { return };
        match notice {
            Notice::SpareTaken(_) => {
                // A failure shows again, with its reason, when a worker needs the instance.
                drop(unit.candidates[position].refill(1));
            }
            Notice::Tripped(_) => {
                let generation = unit.candidates.remove(position).generation.clone();
                unit.error = Some(format!("{} failed too often and was retired", generation.digest).into());
                let back_to = unit.serving().map(|loaded| loaded.generation.clone());
                self.events.push(PolicyEvent::Tripped { name, generation, back_to });
                self.publish();
            }
        }
    }

    /// Another configuration.
    pub(super) fn reconfigure(&mut self, config: StoreConfig) {
        let before = std::mem::replace(&mut self.config, config);
        let reload = before.limits != self.config.limits || before.workers != self.config.workers;
        if before.directory != self.config.directory || reload {
            self.limits = Arc::new(self.config.limits.clone());
            self.open_folder();
        }
        if reload {
            for unit in self.units.values_mut() {
                unit.handled = unit.handled.map(|_| Digest::NATIVE);
            }
        }
        if before.directory != self.config.directory || reload {
            self.starting = false;
            self.builtin_without_files();
        }
        if before.directory != self.config.directory {
            let names: Vec<Box<str>> = self.units.keys().filter(|name| ***name != *BUILTIN).cloned().collect();
            let present = |name: &str| {
                let folder = self.config.directory.as_ref();
                folder.is_some_and(|folder| folder.join(format!("{name}.wasm")).is_file())
            };
            let gone: Vec<Box<str>> = names.into_iter().filter(|name| !present(name)).collect();
            for name in gone {
                self.gone(&name);
            }
        }
        self.publish();
    }

    /// Brings what the status shows up to date.
    fn show(&self) {
        *self.shared.entries.lock() = self.units.iter().map(|(name, unit)| (name.clone(), unit.entry())).collect();
    }

    /// Every change has its event, so that nothing is swapped for nothing.
    fn publish_if_changed(&mut self) {
        if !self.starting && !self.events.is_empty() {
            self.publish();
        }
    }

    /// Builds the chains anew, swaps them in, and tells what happened.
    fn publish(&mut self) {
        let link = |name: &str| {
            let candidates = self.units.get(name).map(|unit| unit.candidates.clone()).unwrap_or_default();
            // Behind the built-in policy stands the same rule in native code.
            let on_fault = if name == BUILTIN { OnFault::Pass } else { self.config.on_fault };
            Link { policy: Arc::new(WasmPolicy::new(name.into(), candidates)), on_fault }
        };
        let linked = |(name, unit): &(&str, &Unit)| {
            *name != BUILTIN && (unit.expected || unit.serving().is_some()) && unit.handled.is_some()
        };
        let names = self.units.iter().map(|(name, unit)| (&**name, unit)).filter(linked).map(|(name, _)| name);
        let links = names.chain(std::iter::once(BUILTIN)).map(link).collect();
        let default = Arc::new(Chain::new(self.engine.next_number(), links));
        let by_database = self.config.chains.iter().map(|(database, names)| {
            let links = names.iter().map(|name| link(name)).collect();
            (database.clone(), Arc::new(Chain::new(self.engine.next_number(), links)))
        });
        let chains = Chains { default, by_database: by_database.collect() };
        self.shared.chains.store(Arc::new(chains));
        self.show();
        for event in self.events.drain(..) {
            (self.observer)(&event);
        }
    }
}
