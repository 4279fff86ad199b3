//! Pools of one node, database and user: the one that new sessions use, and those of sessions that began when other settings
//! were set for them.
//!
//! Invariant: together they are to have no more connections than one of them may: who opens one beyond that closes an idle one of
//! another, and what is too many all the same, because all were at work, goes within a second. Deliberately absent: who uses which.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{ConnectError, Connector, Idle, Lent, Pool, Server};
use crate::wire::ErrorFields;

/// The pools, the youngest last.
#[derive(Debug, Default)]
pub struct Kin(Mutex<Vec<Weak<Pool>>>);

impl Kin {
    /// Makes `pool` one of them.
    pub fn add(self: &Arc<Self>, pool: &Arc<Pool>) {
        let mut pools = self.0.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
        // A pool is added once, by whoever made it.
        let _ = pool.kin.set(Arc::clone(self));
    }

    /// Those that are still there.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Pool {
    /// Connections that are opened from now on start with these settings, whatever the servers have set for those that start now;
    /// none is opened ahead any more. The first call counts.
    pub fn start_with(&self, settings: &[(Box<str>, Box<str>)]) {
        self.starts.get_or_init(|| self.connector.clone().with_startup(settings.iter().cloned()));
        self.inner.lock().limits.min_size = 0;
    }

    /// Opens one of those.
    pub(super) fn connect_as_before<'a>(&'a self, starts: &'a Connector, worker: usize, epoch: u64) -> Connecting<'a> {
        Box::pin(async move {
            match starts.connect(worker, epoch).await {
                // A server that refuses one of the values is better than none.
                Err(error) if error.refused().is_some_and(refuses_settings) => {
                    self.connector.connect(worker, epoch).await
                }
                connected => connected,
            }
        })
    }

    /// Lends any idle connection, whoever had it last, if there is one.
    pub fn spare(self: &Arc<Self>) -> Option<Lent> {
        let mut stale = Vec::new();
        let server = self.inner.lock().take_alive(&mut stale, Idle::take_any);
        for server in stale {
            drop(server);
            self.budget.give();
        }
        server.map(|server| self.lend(server))
    }

    /// Closes idle connections of the others until all together are within the bound, or none is idle.
    pub(super) fn make_room(self: &Arc<Self>) {
        let Some(kin) = self.kin.get() else { return };
        let pools = kin.pools();
        if pools.len() < 2 {
            return;
        }
        let size = self.inner.lock().limits.size;
        while pools.iter().map(|pool| pool.inner.lock().open.get()).sum::<usize>() > size {
            if !pools.iter().filter(|pool| !Arc::ptr_eq(pool, self)).any(Self::close_idle) {
                return;
            }
        }
    }

    fn close_idle(self: &Arc<Self>) -> bool {
        let idle = self.inner.lock().idle.take_any();
        let found = idle.is_some();
        drop(idle);
        if found {
            self.closed_one();
        }
        found
    }

    /// The same, once a second: the older ones go first.
    pub(super) fn keep_bound(self: &Arc<Self>) {
        let youngest =
            |kin: &Arc<Kin>| kin.0.lock().last().is_some_and(|last| std::ptr::eq(last.as_ptr(), &raw const **self));
        if self.kin.get().is_some_and(youngest) {
            self.make_room();
        }
    }
}

/// Boxed, so that the futures of what rarely connects so stay small.
type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Server, ConnectError>> + Send + 'a>>;

/// Whether a server has refused what it was to start with, not who wants in.
fn refuses_settings(fields: &ErrorFields) -> bool {
    fields.sqlstate.starts_with("22") || fields.sqlstate.starts_with("42")
}
