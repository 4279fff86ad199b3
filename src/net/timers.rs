//! Time limits and sleeps on a worker, whose runtime has no timers of its own.
//!
//! A runtime with timers looks at them each time it goes to sleep and each time it wakes, twice a transaction where there is
//! little to do. Sessions at work need none: so the timers of log-ins, queues and the monitor live on the runtime that
//! accepts, which wakes the worker when one of them is due.
//!
//! Invariant: whatever may run on a worker takes its timers from here; tokio's own functions panic there, and
//! `tests/layers.rs` finds them.
//! Deliberately absent: clocks; `Instant::now` is the same on every thread.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, Timeout};

thread_local! {
    /// A worker's own slot: the runtime that has timers. `None` on threads whose own runtime has them.
    static LENDER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// This thread takes its timers from `lender` from now on, which must outlive what runs here.
pub fn borrow_timers(lender: Handle) {
    LENDER.with_borrow_mut(|slot| *slot = Some(lender));
}

/// As [`tokio::time::timeout`].
pub fn timeout<F: Future>(limit: Duration, work: F) -> Timeout<F> {
    with_timers(|| tokio::time::timeout(limit, work))
}

/// As [`tokio::time::timeout_at`].
pub fn timeout_at<F: Future>(deadline: Instant, work: F) -> Timeout<F> {
    with_timers(|| tokio::time::timeout_at(deadline, work))
}

/// As [`tokio::time::sleep`].
pub fn sleep(duration: Duration) -> Sleep {
    with_timers(|| tokio::time::sleep(duration))
}

/// As [`tokio::time::sleep_until`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    with_timers(|| tokio::time::sleep_until(deadline))
}

/// A timer belongs to the runtime that is current when it is made, wherever it is awaited.
fn with_timers<T>(make: impl FnOnce() -> T) -> T {
    LENDER.with_borrow(|lender| {
        let _current = lender.as_ref().map(Handle::enter);
        make()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_timers_borrows_them() {
        let lender = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let handle = lender.handle().clone();
        let worker = std::thread::spawn(move || {
            borrow_timers(handle);
            let own = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            own.block_on(async {
                sleep(Duration::from_millis(1)).await;
                assert!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await.is_err());
                assert!(timeout(Duration::from_mins(1), async {}).await.is_ok());
            });
        });
        worker.join().unwrap();
    }
}
