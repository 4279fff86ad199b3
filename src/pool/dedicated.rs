//! A server connection that one client has to itself, outside every pool.
//!
//! Invariant: it counts in the budget as long as it lives, and is closed when its client goes.
//! Deliberately absent: lending it to anybody else.

use std::sync::Arc;

use super::{Budget, CheckoutError, Connector, Server};

/// An open connection with a place in the budget.
#[derive(Debug)]
pub struct Dedicated {
    /// The connection.
    pub server: Server,
    _place: Place,
}

impl Dedicated {
    /// Opens one, watched by the runtime that this runs on. If the budget is used up, an idle connection of some pool makes
    /// room.
    ///
    /// # Errors
    /// [`CheckoutError::NoRoom`], or the connection could not be opened.
    pub async fn open(budget: &Arc<Budget>, connector: &Connector, worker: usize) -> Result<Self, CheckoutError> {
        let place = Place::take(budget).ok_or(CheckoutError::NoRoom)?;
        let server = connector.connect(worker, 0).await.map_err(Arc::new)?;
        Ok(Self { server, _place: place })
    }
}

/// A place in the budget.
#[derive(Debug)]
struct Place(Arc<Budget>);

impl Place {
    fn take(budget: &Arc<Budget>) -> Option<Self> {
        budget.take_or_evict().then(|| Self(Arc::clone(budget)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give();
    }
}
