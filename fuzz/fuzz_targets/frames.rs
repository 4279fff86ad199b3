//! Frames of both sides: no bytes make a reader panic, no accepted length exceeds its limit, and what was read is
//! written back as it was.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pointsman::wire::{backend, frame, frontend};

fuzz_target!(|data: &[u8]| {
    from_client(data);
    from_server(data);
});

fn from_client(mut bytes: &[u8]) {
    while let Ok(Some(header)) = frame::frontend_header(bytes) {
        assert!(header.len >= frame::HEADER_LEN && header.len <= frame::LARGE_LIMIT + 1);
        let Some((whole, rest)) = bytes.split_at_checked(header.len) else {
            // A Bind is read from a prefix of it.
            let _ = if bytes.len() >= frame::HEADER_LEN { frontend::bind(bytes).is_ok() } else { false };
            return;
        };
        let mut again = BytesMut::new();
        match header.tag {
            b'Q' => {
                if let Ok(text) = frontend::query(whole) {
                    frontend::write_query(&mut again, text);
                    assert_eq!(again, whole);
                }
            }
            b'P' => {
                if let Ok(parse) = frontend::parse(whole) {
                    frontend::write_parse(&mut again, parse.name, parse.text, parse.types);
                    assert_eq!(again, whole);
                }
            }
            b'B' => {
                if let Ok(bind) = frontend::bind(whole) {
                    frontend::write_bind_head(&mut again, bind.portal, bind.statement, bind.rest.len());
                    again.extend_from_slice(bind.rest);
                    assert_eq!(again, whole);
                }
            }
            b'D' | b'C' => {
                if let Ok(target) = frontend::target(whole) {
                    frontend::write_target(&mut again, header.tag, target.kind, target.name);
                    assert_eq!(again, whole);
                }
            }
            _ => {}
        }
        bytes = rest;
    }
}

fn from_server(mut bytes: &[u8]) {
    while let Ok(Some(header)) = frame::backend_header(bytes) {
        let Some((whole, rest)) = bytes.split_at_checked(header.len) else { return };
        match header.tag {
            b'E' | b'N' => {
                let _ = backend::error_fields(whole);
            }
            b'S' => {
                if let Ok((name, value)) = backend::parameter_status(whole) {
                    let mut again = BytesMut::new();
                    backend::write_parameter_status(&mut again, name, value);
                    assert_eq!(again, whole);
                }
            }
            b'D' => {
                if let Ok(columns) = backend::data_row(whole) {
                    let held: usize = columns.iter().flatten().map(|value| value.len()).sum();
                    assert!(held <= whole.len());
                }
            }
            _ => {}
        }
        bytes = rest;
    }
}
