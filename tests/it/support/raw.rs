//! A client that says exactly the bytes it is told to.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A TCP connection in the PostgreSQL protocol, byte by byte.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream }
    }

    /// Connects and logs in without a password; ready for a query.
    pub(crate) fn log_in(port: u16, user: &str, database: &str) -> Self {
        let mut raw = Self::connect(port);
        raw.send(&startup(196_608, &[("user", user), ("database", database)]));
        let answer = raw.until(b'Z');
        assert!(answer.iter().any(|(tag, body)| *tag == b'R' && body == &[0, 0, 0, 0]), "{answer:?}");
        raw
    }

    /// Sends bytes. A peer that has closed already is no failure here: the answer tells.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends `bytes` again and again without reading, until the peer takes nothing for a second or has taken `limit` bytes.
    /// How many it took.
    pub(crate) fn flood(&mut self, bytes: &[u8], limit: usize) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut sent = 0;
        while sent < limit {
            match self.stream.write(&bytes[sent % bytes.len()..]) {
                Ok(taken) => sent += taken,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("after {sent} bytes: {error}"),
            }
        }
        self.stream.set_write_timeout(Some(DEADLINE)).unwrap();
        sent
    }

    /// Says that nothing more will be sent.
    pub(crate) fn close_writing(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next message; none when the peer has closed.
    pub(crate) fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).unwrap_or_else(|| panic!("a length of {length} bytes"))];
        self.fill(&mut body)?;
        Some((head[0], body))
    }

    /// Messages up to the first with `tag`.
    #[track_caller]
    pub(crate) fn until(&mut self, tag: u8) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let message = self.message().unwrap_or_else(|| panic!("closed before {}, after {messages:?}", tag as char));
            let last = message.0 == tag;
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// What a Query comes to: the first value of its first row, the SQLSTATE of its error, or nothing.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.send(&query(text));
        self.first()
    }

    /// Lets one of two others begin a transaction on the server that this client used last, of two that there are.
    pub(crate) fn leaves_server_to(&mut self, others: &mut [Self; 2]) {
        let pid = self.ask("SELECT pg_backend_pid()");
        let [one, other] = others;
        assert_eq!(one.ask("BEGIN"), "");
        if one.ask("SELECT pg_backend_pid()") != pid {
            assert_eq!(other.ask("BEGIN"), "");
            assert_eq!(other.ask("SELECT pg_backend_pid()"), pid);
            assert_eq!(one.ask("COMMIT"), "");
        }
    }

    /// The same of what is to be answered up to the next ReadyForQuery.
    #[track_caller]
    pub(crate) fn first(&mut self) -> String {
        let answer = self.until(b'Z');
        if let Some((_, error)) = answer.iter().find(|(tag, _)| *tag == b'E') {
            return sqlstate(error);
        }
        let row = answer.iter().find(|(tag, _)| *tag == b'D');
        row.map(|(_, row)| String::from_utf8_lossy(&row[6..]).into_owned()).unwrap_or_default()
    }

    /// All messages until the peer closes.
    pub(crate) fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        std::iter::from_fn(|| self.message()).collect()
    }

    /// One byte, as the answer to a request for TLS; none when the peer has closed.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Some(byte[0])
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {DEADLINE:?}")
            }
            Err(_) => None,
        }
    }
}

/// A start-up packet.
pub(crate) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    [(body.len() as u32 + 4).to_be_bytes().to_vec(), body].concat()
}

/// A message with its tag and length.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// A Query.
pub(crate) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

/// A Sync.
pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// The SQLSTATE of an ErrorResponse.
pub(crate) fn sqlstate(body: &[u8]) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"C"))
        .map(|code| String::from_utf8_lossy(code).into_owned())
        .unwrap_or_default()
}
