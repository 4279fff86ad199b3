//! Buffers, and small reads and writes of the phases before and after the drive loop.
//!
//! Invariant: what is read is bounded by what the caller asks for.
//! Deliberately absent: time limits; the caller sets one over the whole phase.

use std::cell::RefCell;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::net::Stream;

/// Bytes asked of a socket at once.
pub(super) const CHUNK: usize = 16 << 10;

/// Writes all of `out` and empties it.
pub(super) async fn write(stream: &mut Stream, out: &mut BytesMut) -> std::io::Result<()> {
    if !out.is_empty() || stream.unflushed() {
        stream.write_all_buf(out).await?;
        stream.flush().await?;
    }
    out.clear();
    Ok(())
}

/// Reads at least one byte more into `input`.
pub(super) async fn read(stream: &mut Stream, input: &mut BytesMut) -> std::io::Result<()> {
    input.reserve(1024);
    if stream.read_buf(input).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

thread_local! {
    /// A worker's own slot: empty buffers of [`CHUNK`] bytes, so that idle sessions hold none and busy ones allocate none.
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Most empty buffers that a worker keeps.
const KEPT: usize = 64;

/// The worker's empty buffers.
pub(super) struct Buffers;

impl Buffers {
    /// Gives an empty `buffer` room, if it has none.
    pub(super) fn lend(buffer: &mut BytesMut) {
        if buffer.capacity() < CHUNK / 2 {
            *buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(CHUNK));
        }
    }

    /// Takes an empty `buffer`'s room away, if it is worth keeping.
    pub(super) fn take_back(buffer: &mut BytesMut) {
        let mut taken = std::mem::take(buffer);
        taken.clear();
        // What was consumed from the front comes back only by a reservation.
        if taken.capacity() < CHUNK && !taken.try_reclaim(CHUNK) {
            return;
        }
        if taken.capacity() <= 2 * CHUNK {
            BUFFERS.with_borrow_mut(|kept| {
                if kept.len() < KEPT {
                    kept.push(taken);
                }
            });
        }
    }
}
