//! Start-up packets: no bytes make the reader panic, it never takes more than it was given, and what it read is
//! written back as it was.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pointsman::wire::startup::{self, Packet};

fuzz_target!(|data: &[u8]| {
    let Ok(Some((packet, taken))) = startup::read(data) else { return };
    assert!(taken <= data.len() && taken <= startup::MAX_STARTUP);
    let mut again = BytesMut::new();
    match packet {
        Packet::Startup(startup) if startup.version >> 16 == 3 => {
            let pairs: Vec<(&str, &str)> =
                startup.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            startup::write(&mut again, startup.version, &pairs);
        }
        Packet::Cancel(key) => startup::write_cancel(&mut again, &key),
        Packet::Ssl => startup::write_ssl_request(&mut again),
        _ => return,
    }
    assert_eq!(again, &data[..taken]);
});
