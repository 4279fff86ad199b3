//! Cancel requests for sessions of other gateways.
//!
//! With [peers] in the configuration a session's process id names its gateway: bit 31 is 0, since drivers read a signed number,
//! the ten bits below are the gateway's number, the rest and the whole secret are random. Whoever is asked to cancel a session
//! that is not its own passes the request on to the gateway that the process id names, with bit 31 set.
//!
//! Invariant: a request with that bit is never passed on, so that none goes in circles, whatever the tables say. A client that
//! sets the bit itself gets what it would get from the gateway that it asks.
//!
//! Deliberately absent: what becomes of a request for a session of this gateway (`cancel`).

use super::context::Context;
use crate::control::Peers;
use crate::net;
use crate::wire::startup::CancelKey;

/// Requests on their way to peers at a time; further ones wait for as long as theirs may take.
pub(super) const FORWARDS: usize = 64;

/// The request came from a peer.
const FORWARDED: u32 = 1 << 31;

/// Where a gateway's number stands.
const ID_SHIFT: u32 = 21;
const ID_MASK: u32 = (1 << 10) - 1;

/// A process id from 32 random bits: of gateway `id`, or of one that has no peers. May be taken already; 0 is none.
pub(super) fn process_id(id: Option<u32>, random: u32) -> u32 {
    match id {
        Some(id) => (id & ID_MASK) << ID_SHIFT | random >> (u32::BITS - ID_SHIFT),
        None => random >> 1,
    }
}

/// The gateway that a process id names.
fn gateway_of(pid: u32) -> u32 {
    pid >> ID_SHIFT & ID_MASK
}

/// Carries out a client's or a peer's request. Returns when whoever runs the statement has taken it.
pub(super) async fn cancel(context: &Context, key: &CancelKey) {
    context.metrics.cancels.one();
    let forwarded = key.pid & FORWARDED != 0;
    let key = CancelKey { pid: key.pid & !FORWARDED, secret: key.secret.clone() };
    if context.cancels.cancel(&key).await {
        return;
    }
    let Some(peers) = context.live.load().peers.clone() else { return };
    let id = gateway_of(key.pid);
    if id == peers.id || id == 0 {
        // It is over, or began before there were peers.
        return;
    }
    if forwarded {
        context.metrics.cancels_stranded.one();
        tracing::warn!(
            peer = id,
            own = peers.id,
            "a peer sent a cancel request that is not for here: see [peers.nodes] there"
        );
        return;
    }
    match forward(context, &peers, id, key).await {
        Ok(()) => context.metrics.cancels_forwarded.one(),
        Err(reason) => {
            context.metrics.cancels_stranded.one();
            tracing::warn!(peer = id, %reason, "a cancel request for another gateway's session could not be passed on");
        }
    }
}

async fn forward(context: &Context, peers: &Peers, id: u32, key: CancelKey) -> Result<(), String> {
    let Some(address) = peers.nodes.get(&id) else { return Err("[peers.nodes] has no such number".to_owned()) };
    let begun = tokio::time::Instant::now();
    let Ok(place) = net::timeout(peers.timeout, context.forwards.acquire()).await else {
        return Err(format!("{FORWARDS} others were on their way for {:?}", peers.timeout));
    };
    let left = peers.timeout.saturating_sub(begun.elapsed());
    let marked = CancelKey { pid: key.pid | FORWARDED, ..key };
    let sent = net::cancel(address, &peers.tls, &marked, left, || {}).await;
    drop(place);
    sent.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_names_its_gateway_and_is_positive() {
        for random in [0, 1, 0x1234_5678, 0x8000_0000, u32::MAX] {
            for id in [1, 2, 512, 1023] {
                let pid = process_id(Some(id), random);
                assert_eq!((gateway_of(pid), pid & FORWARDED), (id, 0), "{random:x}");
                assert_ne!(pid, 0);
                assert_eq!(gateway_of(pid | FORWARDED), id);
            }
            assert_eq!(process_id(None, random) & FORWARDED, 0);
        }
    }

    #[test]
    fn all_other_bits_are_random() {
        let differ = |id| process_id(id, 0) ^ process_id(id, u32::MAX);
        assert_eq!(differ(Some(7)), (1 << ID_SHIFT) - 1);
        assert_eq!(differ(None), u32::MAX >> 1);
    }
}
