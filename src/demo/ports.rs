//! Ports on loopback: is one free, and which ones are.
//!
//! Free ports are sought below the range from which systems take ports for outgoing connections (32768 on Linux), so
//! that a node that is stopped and started again still finds its own. A port that is free now can be taken a moment
//! later: whoever binds it retries with others.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

use super::{Error, Result};

/// Where ports are sought.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
/// How many places are tried before giving up.
const ATTEMPTS: usize = 500;

/// Whether `port` can be bound on 127.0.0.1 and on all addresses.
///
/// A listener on all addresses does not always hinder one on 127.0.0.1, so both are tried.
#[must_use]
pub fn is_free(port: u16) -> bool {
    [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].into_iter().all(|address| TcpListener::bind((address, port)).is_ok())
}

/// The first of `count` free ports in a row, drawn at random.
///
/// # Errors
/// [`Error::NoPorts`] when no such run was found.
pub fn free_ports(count: u16) -> Result<u16> {
    let mut random = rand::rng();
    for _ in 0..ATTEMPTS {
        let first = random.random_range(RANGE.start..RANGE.end - count);
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    Err(Error::NoPorts(usize::from(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_port_is_not_free() {
        let first = free_ports(2).unwrap();
        assert!(RANGE.contains(&first) && is_free(first + 1));
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
    }
}
