//! Exchanges of the gateway's own on a server connection: settings, audits, BEGIN. No client sees them; notifications that
//! come in between are kept for the client in [`Upstream::overheard`].
//!
//! Invariant: one is begun only on a connection that has answered everything before.
//! Deliberately absent: what is asked.

use std::sync::Arc;

use bytes::BytesMut;

use super::{Error, Expected, Prepared, Receiver, Replaced, Settings, Show, Upstream};
use crate::wire::frame::backend_header;
use crate::wire::{TransactionStatus, backend, frontend};

/// Most bytes that the answer to a private exchange may have. That to an audit, the one that clients can make long, is
/// bounded by its question.
const LIMIT: usize = 8 << 20;

/// Collects the answer to a private exchange.
///
/// By default, of one that a client began.
#[derive(Debug, Default)]
pub struct Private {
    bytes: BytesMut,
    ready: Option<TransactionStatus>,
    /// Descriptions are asked for.
    describes: bool,
}

/// One column of a row: its text, or NULL.
pub type Column = Option<String>;

/// What came back.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    /// All rows of all statements, in order.
    pub rows: Vec<Vec<Column>>,
    /// The frame of the first ErrorResponse.
    pub error: Option<BytesMut>,
    /// What each described statement returns, see [`backend::row_shape`]; empty for one that returns nothing.
    pub described: Vec<Box<[u8]>>,
    /// The transaction status afterwards.
    pub status: TransactionStatus,
}

impl Receiver for Private {
    fn output(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
    fn ready(&mut self, status: TransactionStatus) {
        self.ready = Some(status);
    }
}

impl Upstream {
    /// Runs a statement of the gateway's own that returns no row, within the group that is open. It leaves the unnamed statement
    /// and the unnamed portal as they are; an error of it is the group's.
    pub fn run_within<R: Receiver>(&mut self, text: &str, to: &mut R) {
        self.ask_within(text, Expected::Own(b'C'), to);
    }

    /// The same for one that may return rows; `done`: what its Execute brings.
    pub fn ask_within<R: Receiver>(&mut self, text: &str, done: Expected, to: &mut R) {
        const NAME: &[u8] = Private::NAME;
        let close = |upstream: &mut Self, to: &mut R, kind| {
            frontend::write_target(&mut upstream.output, b'C', kind, NAME);
            upstream.expect(Expected::Close { statement: None, show: Show::Hide }, to);
        };
        // One that failed was left.
        close(self, to, b'S');
        frontend::write_parse(&mut self.output, NAME, text.as_bytes(), &[0, 0]);
        self.expect(Expected::stray_parse(Show::Hide), to);
        // No formats, no values.
        frontend::write_bind_head(&mut self.output, NAME, NAME, 6);
        self.output.extend_from_slice(&[0; 6]);
        self.expect(Expected::Own(b'2'), to);
        frontend::frame(&mut self.output, b'E', |out| {
            out.extend_from_slice(NAME);
            out.extend_from_slice(&[0; 5]);
        });
        self.expect(done, to);
        close(self, to, b'P');
        close(self, to, b'S');
    }
}

impl Private {
    /// The name of a statement, and of its portal, that runs in an exchange of the gateway's own.
    pub const NAME: &[u8] = b"pm_";

    /// Sends `sql` as a simple query.
    pub fn query(upstream: &mut Upstream, sql: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        let mut private = Self::default();
        frontend::write_query(&mut upstream.output, sql.as_ref());
        upstream.expect(Expected::Query, &mut private);
        private
    }

    /// Runs statements that return no more than a row, one after the other. Unlike [`Private::query`] it leaves the unnamed
    /// statement and the unnamed portal as they are, and may be begun inside a transaction of the client's.
    pub fn run(upstream: &mut Upstream, texts: &[&str]) -> Self {
        let mut private = Self::default();
        let to = &mut private;
        for text in texts {
            upstream.run_within(text, to);
        }
        frontend::write_sync(&mut upstream.output);
        upstream.expect(Expected::Sync, to);
        private
    }

    /// Prepares statements that the server lacks under names of ours, and asks what they return.
    pub fn describe(upstream: &mut Upstream, statements: &[Arc<Prepared>], settings: &Arc<Settings>) -> Self {
        let mut private = Self { describes: true, ..Self::default() };
        let to = &mut private;
        for statement in statements {
            if upstream.prepared.touch(statement.id) {
                upstream.close(statement.id, to);
            }
            for victim in upstream.prepared.victims() {
                upstream.close(victim, to);
            }
            let name = statement.id.name();
            frontend::write_parse(&mut upstream.output, &name, &statement.text, statement.settled_types());
            let parse = Expected::Parse {
                statement: Some(Arc::clone(statement)),
                client_name: None,
                unnamed: false,
                replaced: Replaced::Nothing,
                show: Show::Hide,
            };
            upstream.expect(parse, to);
            upstream.prepared.parsed_under(statement.id, Arc::clone(settings));
            frontend::write_target(&mut upstream.output, b'D', b'S', &name);
            upstream.expect(Expected::Describe { of: None }, to);
        }
        frontend::write_sync(&mut upstream.output);
        upstream.expect(Expected::Sync, to);
        private
    }

    /// Lets the server forget statements that have names of ours.
    pub fn close(upstream: &mut Upstream, statements: &[Arc<Prepared>]) -> Self {
        let mut private = Self::default();
        for statement in statements {
            upstream.close(statement.id, &mut private);
        }
        frontend::write_sync(&mut upstream.output);
        upstream.expect(Expected::Sync, &mut private);
        private
    }

    /// Sends a lone Sync.
    pub fn sync(upstream: &mut Upstream) -> Self {
        let mut private = Self::default();
        frontend::write_sync(&mut upstream.output);
        upstream.expect(Expected::Sync, &mut private);
        private
    }

    /// Takes what the server has sent. `Some` when the exchange is complete.
    ///
    /// # Errors
    /// A violation of the protocol, or an answer over 8 MiB.
    pub fn advance(&mut self, upstream: &mut Upstream) -> Result<Option<Answer>, Error> {
        upstream.deliver(self)?;
        if self.bytes.len() > LIMIT {
            upstream.mark_broken();
            return Err(Error::TooLarge { tag: 'D', len: self.bytes.len() });
        }
        let Some(status) = self.ready.filter(|_| upstream.quiet()) else { return Ok(None) };
        let mut answer = Answer { status, ..Answer::default() };
        while let Some(header) = backend_header(&self.bytes)? {
            if header.len > self.bytes.len() {
                break;
            }
            let frame = self.bytes.split_to(header.len);
            match header.tag {
                b'D' => answer.rows.push(
                    backend::data_row(&frame)?
                        .into_iter()
                        .map(|column| column.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
                        .collect(),
                ),
                b'E' if answer.error.is_none() => answer.error = Some(frame),
                b'T' if self.describes => answer.described.push(backend::row_shape(&frame)?),
                b'n' if self.describes => answer.described.push(Box::default()),
                b'A' => upstream.overheard.extend_from_slice(&frame),
                _ => {}
            }
        }
        Ok(Some(answer))
    }
}
