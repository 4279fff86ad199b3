//! Gateways that pass each other's cancel requests on.
//!
//! Invariant: each number is one gateway's, within what a key has room for; this gateway's own is not among the others'.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::decode::{At, Leaf as _};
use crate::config::leaves::Count;
use crate::config::raw::RawPeers;
use crate::config::types::Peers;

/// The port of a peer whose address names none.
const PEER_PORT: u16 = super::DEFAULT_LISTEN_PORT;

impl Checker<'_, '_> {
    pub(super) fn peers(&mut self, at: &At<RawPeers>) -> Option<Peers> {
        let raw = &at.value;
        if raw.id.is_absent() {
            let help = "write id = 1, and another number for each of the others".to_owned();
            self.problems.error(&at.span, &at.path, "needs an `id`", help);
        }
        let own = raw.id.value().map(|id| id.0);
        let mut nodes = BTreeMap::new();
        for (number, text) in raw.nodes.value().into_iter().flat_map(|nodes| &nodes.0) {
            let Ok(id) = Count::<1, 1023>::from_text(number) else {
                let message = format!("{number:?} is not a number from 1 to 1023");
                let help = "write 2 = \"HOST:PORT\" with that gateway's `id`".to_owned();
                self.problems.error(&text.span, &text.path, message, help);
                continue;
            };
            let Some(address) = self.address(text, PEER_PORT) else { continue };
            if address.port() == 0 {
                self.problems.error(&text.span, &text.path, "port 0 is no gateway's", None);
            }
            if own == Some(id.0) {
                continue;
            }
            if nodes.insert(id.0, address).is_some() {
                let message = format!("another entry stands for {}", id.0);
                self.problems.error(&text.span, &text.path, message, None);
            }
        }
        if nodes.is_empty() && own.is_some() && (raw.nodes.is_absent() || raw.nodes.given().is_some()) {
            let help = "write under [peers.nodes] the others' addresses: 2 = \"HOST:PORT\"".to_owned();
            self.problems.warning(&at.span, &at.path, "names no other gateway", help);
        }
        Some(Peers { id: own?, nodes, tls: self.upstream_tls(&raw.tls), timeout: raw.timeout.get().0 })
    }
}
