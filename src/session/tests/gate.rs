//! Sessions and servers face to face, driven as `gateway::drive` and `gateway::pump` drive them, without sockets.
//!
//! Invariant: bytes move only in chunks that the seed chooses; what is checked after each step is what the relays promise.

use std::fmt::Write as _;

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::client::Conversation;
use super::model::Model;
use super::rng::Rng;
use super::{REFUSED_STATE, REFUSED_TEXT, messages};
use crate::session::{LocalAnswer, Pull, Session, Shared};
use crate::sql::Effects;
use crate::upstream::{Answer, Copy, ErrorReply, Interner, Parameters, Private, Scope, Settings, Upstream};
use crate::wire::frame::frontend_header;
use crate::wire::startup::CancelKey;
use crate::wire::{TransactionStatus, backend};

/// Most bytes that one step moves.
const CHUNK: usize = 700;

struct Server {
    up: Upstream,
    model: Model,
    lent: bool,
}

struct Client {
    session: Session,
    conversation: Conversation,
    /// Pieces sent so far, and bytes of the next one.
    sent: usize,
    part: usize,
    received: BytesMut,
    held: Option<usize>,
    settled: bool,
    blocked: bool,
    /// Waits for a server.
    waiting: bool,
    ended: bool,
}

/// Everything that one seed runs.
pub(super) struct Gate {
    clients: Vec<Client>,
    servers: Vec<Server>,
    rng: Rng,
    interner: Interner<Parameters>,
    /// Every step that moves bytes is told.
    traces: bool,
}

impl Gate {
    pub(super) fn new(
        mut rng: Rng,
        shared: &Arc<Shared>,
        conversations: Vec<Conversation>,
        servers: usize,
        prepared: usize,
    ) -> Self {
        let mut parameters = Parameters::default();
        parameters.set(b"application_name", b"");
        let parameters = Arc::new(parameters);
        let settings = Arc::new(Settings::default());
        let clients = conversations
            .into_iter()
            .map(|conversation| Client {
                session: Session::new(Arc::clone(shared), Arc::clone(&settings), Arc::clone(&parameters)),
                conversation,
                sent: 0,
                part: 0,
                received: BytesMut::new(),
                held: None,
                settled: false,
                blocked: false,
                waiting: false,
                ended: false,
            })
            .collect();
        let servers = (0..servers)
            .map(|_| Server {
                up: Upstream::new(
                    Arc::clone(&parameters),
                    CancelKey { pid: 0, secret: [].into() },
                    prepared,
                    Arc::clone(&settings),
                ),
                model: Model::new(rng.next()),
                lent: false,
            })
            .collect();
        Self { clients, servers, rng, interner: Interner::default(), traces: std::env::var_os("SIM_TRACE").is_some() }
    }

    /// Runs to the end.
    pub(super) fn run(&mut self) {
        let mut idle_steps = 0;
        while self.clients.iter().any(|client| !client.ended) {
            let before = self.progress();
            let at = self.rng.below(self.clients.len());
            self.step(at);
            idle_steps = if self.progress() == before { idle_steps + 1 } else { 0 };
            assert!(idle_steps < 2_000, "stuck: {}\n{}", self.describe(), self.differences());
        }
        for client in &self.clients {
            let (got, wanted) = (messages(&client.received), messages(&client.conversation.answers));
            assert!(got.list == wanted.list, "the answers differ from those of one server\n{}", self.differences());
        }
        for server in &self.servers {
            assert!(!server.lent && server.up.idle(), "a server that is not idle went back");
        }
    }

    fn progress(&self) -> usize {
        let clients = self.clients.iter().map(|c| {
            c.sent * 1_000_003 + c.part + c.received.len() * 31 + c.session.input.len() * 7 + usize::from(c.ended) * 17
        });
        let servers = self.servers.iter().map(|s| {
            s.model.input.len() * 13 + s.model.output.len() * 11 + s.up.output.len() * 5 + s.up.input.len() * 3
        });
        clients.sum::<usize>().wrapping_add(servers.sum())
    }

    /// The last answers that each client got, and what one server said from there on.
    fn differences(&self) -> String {
        let mut text = String::new();
        for client in &self.clients {
            let (got, wanted) = (messages(&client.received).list, messages(&client.conversation.answers).list);
            let same = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
            let from = same.saturating_sub(8);
            let part = |list: &[String]| list[from.min(list.len())..(same + 5).min(list.len())].join(" | ");
            if got == wanted && client.ended {
                continue;
            }
            let _ = writeln!(
                text,
                "differs at {same} of {}\n  got {}\n  wanted {}",
                wanted.len(),
                part(&got),
                part(&wanted)
            );
            for piece in &client.conversation.pieces {
                let _ = writeln!(text, "  sent after {}: {}", piece.after, spoken(&piece.bytes));
            }
        }
        text
    }

    fn describe(&self) -> String {
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|c| {
                format!(
                    "client: piece {}/{} received {:?} held {:?} settled {} blocked {} ended {} input {:?} unit {:?} in_group {}",
                    c.sent,
                    c.conversation.pieces.len(),
                    messages(&c.received).list.len(),
                    c.held,
                    c.settled,
                    c.blocked,
                    c.ended,
                    c.session.input,
                    c.session.unit(),
                    c.session.in_group(),
                )
            })
            .collect();
        let servers: Vec<_> = self.servers.iter().map(|s| format!("server: lent {} {:?}", s.lent, s.up)).collect();
        format!("{clients:#?}\n{servers:#?}")
    }

    fn step(&mut self, at: usize) {
        if self.clients[at].ended {
            return;
        }
        if self.must_settle_first(at) {
            self.settle(at);
            return self.check(at);
        }
        match self.rng.below(5) {
            0 => self.client_writes(at),
            1 => {
                let client = &mut self.clients[at];
                let step = self.rng.below(CHUNK) + 1;
                let step = step.min(client.session.output.len());
                client.received.extend_from_slice(&client.session.output.split_to(step));
            }
            2 => {
                if let Some(held) = self.clients[at].held {
                    self.server_reads(held);
                    self.servers[held].model.run();
                }
            }
            3 => self.deliver(at),
            _ => self.pump(at),
        }
        self.check(at);
    }

    /// Nothing is in flight, and the server held is in no transaction.
    fn may_settle(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let rests = |up: &Upstream| up.quiet() && up.status() == TransactionStatus::Idle;
        !client.settled
            && !client.session.in_group()
            && !client.session.streaming()
            && client.held.is_some_and(|held| rests(&self.servers[held].up))
    }

    /// What is asked is asked before the client has its ReadyForQuery, so that a setting that comes back is told ahead.
    fn must_settle_first(&self, at: usize) -> bool {
        self.clients[at].session.audit_due() && self.may_settle(at)
    }

    /// The client's socket: what it sends goes into the session's input as far as there is room.
    fn client_writes(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(piece) = client.conversation.pieces.get(client.sent) else { return };
        if messages(&client.received).count < piece.after {
            return;
        }
        let room = client.session.room();
        let left = &piece.bytes[client.part..];
        let step = (self.rng.below(CHUNK) + 1).min(left.len()).min(room);
        if self.traces {
            eprintln!("client {at} writes {}", spoken(&left[..step]));
        }
        client.session.input.extend_from_slice(&left[..step]);
        client.part += step;
        if client.part == piece.bytes.len() {
            client.part = 0;
            client.sent += 1;
        }
    }

    fn server_reads(&mut self, held: usize) {
        let server = &mut self.servers[held];
        let step = (self.rng.below(CHUNK) + 1).min(server.up.output.len());
        if self.traces {
            eprintln!("server {held} reads {}", spoken(&server.up.output[..step]));
        }
        server.model.input.extend_from_slice(&server.up.output.split_to(step));
    }

    fn deliver(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(held) = client.held else { return };
        if !client.session.output.is_empty() {
            return;
        }
        let server = &mut self.servers[held];
        let step = (self.rng.below(CHUNK) + 1).min(server.model.output.len());
        if step == 0 {
            return;
        }
        if self.traces {
            eprintln!("client {at} gets {:?} from {held}", server.model.output[..step].escape_ascii().to_string());
        }
        server.up.input.extend_from_slice(&server.model.output.split_to(step));
        if let Err(error) = server.up.deliver(&mut client.session) {
            panic!("deliver: {error}\n{}", self.describe());
        }
    }

    fn pump(&mut self, at: usize) {
        if self.may_settle(at) {
            return self.settle(at);
        }
        let client = &mut self.clients[at];
        let (copy, busy, room) = match client.held {
            Some(held) => {
                let up = &self.servers[held].up;
                (up.copy(), up.unready() > 0, up.output.is_empty())
            }
            None => (Copy::None, false, true),
        };
        if (client.blocked && busy) || client.session.input.is_empty() {
            return;
        }
        client.blocked = false;
        match client.session.pull(copy, busy) {
            Pull::Unit => {
                if self.traces {
                    eprintln!("client {at} unit {}", client.session.unit().brief());
                }
                self.unit(at);
            }
            Pull::Terminate => self.finish(at),
            Pull::Violation(error) => panic!("violation: {error}\n{}", self.describe()),
            Pull::Stream if room => {
                let up = &mut self.servers[client.held.expect("a stream has a server")].up;
                if client.session.streaming() {
                    client.session.stream(up);
                } else {
                    client.session.forward(up);
                }
            }
            Pull::Stream | Pull::Wait => {}
        }
    }

    fn unit(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.session.scope = Scope { account: 1, ..Scope::default() };
        if client.held.is_none() && client.session.answer_locally() == LocalAnswer::Answered {
            return;
        }
        let decided = decide(&mut client.session);
        let admits = !self.rng.one_in(4);
        let Some(held) = client.held else {
            return match decided {
                Ok(()) => self.begin(at),
                Err(reply) => client.session.refuse(&reply),
            };
        };
        let up = &mut self.servers[held].up;
        let busy = up.unready() > 0;
        match decided {
            Ok(()) if busy && !admits => client.blocked = true,
            Err(_) if busy => client.blocked = true,
            Ok(()) => {
                client.settled = false;
                client.session.forward(up);
            }
            Err(reply) => {
                client.settled = false;
                client.session.refuse_on(up, reply);
            }
        }
    }

    fn begin(&mut self, at: usize) {
        let free: Vec<_> = (0..self.servers.len()).filter(|&i| !self.servers[i].lent).collect();
        if free.is_empty() {
            // Nothing was taken from the unit: it is found again.
            self.clients[at].blocked = false;
            self.clients[at].waiting = true;
            return;
        }
        let held = free[self.rng.below(free.len())];
        let client = &mut self.clients[at];
        let server = &mut self.servers[held];
        assert!(server.up.idle(), "a server is lent that is not idle: {:?}", server.up);
        assert_eq!(server.up.status(), TransactionStatus::Idle);
        server.lent = true;
        client.waiting = false;
        server.up.prepared.enter(client.session.scope);
        let wanted = Arc::clone(&client.session.settings);
        if server.up.settings.as_ref() != Some(&wanted) {
            let sql = wanted.transition(server.up.settings.as_deref());
            let answer = ask(server, &sql, &mut self.rng);
            assert!(answer.error.is_none(), "{sql}");
            server.up.settings = Some(wanted);
        }
        let failed = client.session.deferred.failed();
        if let Some(prelude) = client.session.deferred.prelude() {
            client.session.deferred.begun();
            let prelude = String::from_utf8(prelude).expect("the clients speak UTF-8");
            let answer = ask(server, &prelude, &mut self.rng);
            let wanted = if failed { TransactionStatus::Failed } else { TransactionStatus::Active };
            assert_eq!((answer.error.is_some(), answer.status), (failed, wanted), "{prelude}");
        }
        client.session.report(&mut server.up.parameters, &self.interner);
        client.session.forward(&mut server.up);
        client.held = Some(held);
        client.settled = false;
    }

    fn settle(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let held = client.held.expect("settled with a server");
        let server = &mut self.servers[held];
        if let Some(audit) = client.session.audit() {
            let answer = ask(server, &audit.sql, &mut self.rng);
            assert!(answer.error.is_none());
            let overheard = server.up.overheard.split();
            client.session.take_notifications(&overheard);
            server.up.settings = client.session.audited(&audit, &answer).map(Arc::new);
        }
        let wanted = Arc::clone(&client.session.settings);
        if let Some(applied) = server.up.settings.clone().filter(|applied| *applied != wanted) {
            let answer = ask(server, &wanted.transition(Some(&applied)), &mut self.rng);
            assert!(answer.error.is_none());
            server.up.settings = Some(wanted);
            client.session.report_before_ready(&mut server.up.parameters, &self.interner);
        }
        if client.session.pins.any() {
            client.settled = true;
            return;
        }
        client.held = None;
        server.lent = false;
        assert!(server.up.idle(), "a server that is not idle went back: {:?}", server.up);
    }

    /// The client said goodbye: what it left on a server goes.
    fn finish(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.ended = true;
        client.received.extend_from_slice(&client.session.output.split());
        let Some(held) = client.held.take() else { return };
        let server = &mut self.servers[held];
        assert!(server.up.quiet() && !client.session.in_group(), "conversations end between two groups");
        if server.up.status() != TransactionStatus::Idle {
            ask(server, "ROLLBACK", &mut self.rng);
        }
        let answer = ask(server, "DISCARD ALL", &mut self.rng);
        assert!(answer.error.is_none());
        server.lent = false;
    }

    fn check(&self, at: usize) {
        let client = &self.clients[at];
        let limits = client.session.limits();
        let most = limits.hold.max(limits.statement) + limits.hold + 64;
        assert!(client.session.input.len() <= most, "{} bytes wait", client.session.input.len());
        if let Some(held) = client.held {
            assert!(self.servers[held].lent, "a server is used that was not lent");
            assert!(!self.servers[held].up.broken());
        }
    }
}

/// A private exchange from end to end.
fn ask(server: &mut Server, sql: &str, rng: &mut Rng) -> Answer {
    let mut private = Private::query(&mut server.up, sql);
    loop {
        if let Some(answer) = private.advance(&mut server.up).expect("the protocol") {
            return answer;
        }
        let step = (rng.below(CHUNK) + 1).min(server.up.output.len());
        server.model.input.extend_from_slice(&server.up.output.split_to(step));
        server.model.run();
        let step = (rng.below(CHUNK) + 1).min(server.model.output.len());
        server.up.input.extend_from_slice(&server.model.output.split_to(step));
    }
}

/// What `gateway::route` does, for one shard and a policy that refuses one text.
fn decide(session: &mut Session) -> Result<(), ErrorReply> {
    let mut noted = Vec::new();
    let mut refused = false;
    for part in session.parts() {
        refused |= part.text == REFUSED_TEXT.as_bytes();
        if part.analysis.shape.effects != Effects::NONE {
            noted.push(Arc::clone(&part.analysis.shape));
        }
    }
    if refused {
        return Err(ErrorReply::error(REFUSED_STATE, "the policy says no"));
    }
    let opaque = session.unit().opaque();
    for shape in noted {
        session.note(shape.effects, &shape);
    }
    if opaque {
        session.note_opaque();
    }
    Ok(())
}

/// What a client sends, in short.
fn spoken(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Ok(Some(header)) = frontend_header(bytes) {
        let (frame, rest) = bytes.split_at(header.len.min(bytes.len()));
        let shown: String = frame[5..].escape_ascii().to_string().chars().take(60).collect();
        let _ = write!(text, "{}({shown}) ", char::from(header.tag));
        bytes = rest;
    }
    text
}

/// Reads the SQLSTATE of an ErrorResponse.
pub(super) fn sqlstate(frame: &[u8]) -> String {
    backend::error_fields(frame).sqlstate
}

/// Takes the whole messages off the front of `bytes`.
pub(super) fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let header = crate::wire::frame::backend_header(bytes).expect("frames")?;
    if bytes.len() < header.len {
        return None;
    }
    let (frame, _) = bytes.split_at(header.len);
    bytes.advance(header.len);
    Some(frame)
}
