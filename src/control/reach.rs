//! How others are reached: addresses and TLS as the configuration says them, and the peers.
//!
//! Invariant: certificates were read when the configuration was put to work, not when they are needed.
//! Deliberately absent: connecting.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{self, Address, UpstreamTlsMode};
use crate::net::{ClientTls, ClientTlsFiles, NetError, ServerAddress, TlsMode};

/// The gateways that pass each other's cancel requests on.
#[derive(Debug)]
pub struct Peers {
    /// This gateway's number, not 0.
    pub id: u32,
    /// The others, by number.
    pub nodes: BTreeMap<u32, ServerAddress>,
    /// TLS towards them.
    pub tls: ClientTls,
    /// For one request.
    pub timeout: Duration,
}

impl Peers {
    pub(super) fn new(config: &config::Peers) -> Result<Self, NetError> {
        let nodes = config.nodes.iter().map(|(id, address)| (*id, server_address(address))).collect();
        Ok(Self { id: config.id, nodes, tls: client_tls(&config.tls)?, timeout: config.timeout })
    }
}

pub(super) fn client_tls(config: &config::UpstreamTls) -> Result<ClientTls, NetError> {
    let mode = match config.mode {
        UpstreamTlsMode::Disable => TlsMode::Disable,
        UpstreamTlsMode::Prefer => TlsMode::Prefer,
        UpstreamTlsMode::Require => TlsMode::Require,
        UpstreamTlsMode::VerifyCa => TlsMode::VerifyCa,
        UpstreamTlsMode::VerifyFull => TlsMode::VerifyFull,
    };
    let files = ClientTlsFiles {
        ca: config.ca.clone(),
        cert: config.client.as_ref().map(|client| client.cert.clone()),
        key: config.client.as_ref().map(|client| client.key.clone()),
    };
    ClientTls::load(mode, &files)
}

pub(super) fn server_address(address: &Address) -> ServerAddress {
    match address {
        Address::Tcp { host, port } => ServerAddress::tcp(host.as_str(), *port),
        Address::Unix { directory, port } => ServerAddress::unix(directory, *port),
    }
}
