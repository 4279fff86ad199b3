//! The query that a call is about, lent to the component's host for the time of the call.
//!
//! Invariant: the pointer is set only inside [`lend`], which holds the borrow that it stands for, and cleared before
//! `lend` returns, by a panic too. A store's data must be `'static`, so the borrow's lifetime cannot be told to the
//! compiler; this file is the whole of what it does not check.

#![expect(unsafe_code, reason = "a Store's data is 'static, a query lives for one call; see the module's invariant")]

use std::ptr::NonNull;

use wasmtime::Store;

use super::host::Host;
use crate::policy::Query;

/// The query in hand, if a call is under way.
#[derive(Default)]
pub(super) struct Current(Option<NonNull<Query<'static>>>);

// SAFETY: the pointer is followed only between the two ends of `lend`, which stays on one thread, for it holds the
// only borrow of the store; at any other time it is `None`.
unsafe impl Send for Current {}

impl Current {
    /// The query, for as long as this borrow.
    pub(super) fn get(&self) -> Option<&Query<'_>> {
        // SAFETY: set only while `lend` holds the reference that it was made from. `Query` is covariant, and the
        // result's lifetime is that of `self`, which ends before `lend` does, for `self` lives in the lent store.
        self.0.map(|query| unsafe { query.as_ref() })
    }
}

/// Calls `call` with the store, whose host sees the query meanwhile.
pub(super) fn lend<T>(store: &mut Store<Host>, query: &Query<'_>, call: impl FnOnce(&mut Store<Host>) -> T) -> T {
    struct Lent<'s>(&'s mut Store<Host>);
    impl Drop for Lent<'_> {
        fn drop(&mut self) {
            self.0.data_mut().current.0 = None;
        }
    }
    store.data_mut().current.0 = Some(NonNull::from(query).cast());
    let lent = Lent(store);
    call(lent.0)
}
