//! Cancel requests to a server, or to a gateway that forwards them.
//!
//! Invariant: success means that the other side has closed the connection, as PostgreSQL does once the signal was sent.
//! Absent: which key, and what becomes of a request that failed.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect::{ServerAddress, connect};
use super::error::NetError;
use super::timers::timeout;
use super::tls_client::ClientTls;
use crate::wire::startup::{CancelKey, write_cancel};

/// Sends a cancel request and waits until the other side has closed. `limit` bounds the whole. `sends` is called when the request
/// may be on its way from now on, whatever is returned.
///
/// # Errors
/// It cannot be reached in time, or it answered, as it does to refuse a connection.
pub async fn cancel(
    address: &ServerAddress,
    tls: &ClientTls,
    key: &CancelKey,
    limit: Duration,
    sends: impl FnOnce(),
) -> Result<(), NetError> {
    let send = async {
        let failed = |source| NetError::Connect { address: address.to_string(), source };
        let mut stream = connect(address, tls, limit).await?;
        let mut request = BytesMut::new();
        write_cancel(&mut request, key);
        sends();
        stream.write_all_buf(&mut request).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        match stream.read_buf(&mut request).await {
            Ok(read) if read > 0 => Err(failed(io::Error::other("it answered a cancel request instead of closing"))),
            // Closed; what an error here says does not matter any more.
            _ => Ok(()),
        }
    };
    let timed_out =
        |_| NetError::Timeout { address: address.to_string(), what: "end of a cancel request", after: limit };
    timeout(limit, send).await.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
}
