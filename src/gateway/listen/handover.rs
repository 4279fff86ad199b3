//! From a session's server to the shared connection, and back for a statement that concerns channels.
//!
//! Invariant: after [`Conversation::follow_channels`] each channel of the session is heard from one place: the shared
//! connection, or the server that it keeps. A hand-over that fails at any step leaves the session on its server.
//!
//! Deliberately absent: what a statement does to channels; the server is asked.

use super::super::drive::{Conversation, End};
use super::super::private;
use super::super::pump::Event;
use super::{CHANNELS, Channel, Listeners, Next, Ticket};
use crate::config::PoolMode;
use crate::pool::Lent;
use crate::session::{Pins, channel_sql};
use crate::sql::Kind;
use crate::topology::{Role, Writes};
use crate::upstream::ErrorReply;
use crate::wire::TransactionStatus;
use crate::wire::backend::{self, frames};

/// Bytes of notifications that are put out at once.
const CHUNK: usize = 16 << 10;

/// Words without which no statement's text is about the channels that a session has.
const WORDS: [&[u8]; 2] = [b"unlisten", b"pg_listening_channels"];

impl Conversation {
    /// Tells the client what it has to hear, if it is idle.
    pub(in super::super) fn hear(&mut self, task: &std::task::Context<'_>) -> Option<Event> {
        self.ear.as_ref()?.mailbox.watch(task.waker());
        if !self.may_hear() {
            return None;
        }
        let ear = self.ear.as_deref_mut()?;
        if let Some(reason) = ear.mailbox.overflowed() {
            return Some(Event::Deaf(reason));
        }
        while self.session.output.len() < CHUNK {
            match ear.mailbox.next() {
                Next::Frame(frame) if self.session.notify(&frame) => ear.told = true,
                Next::Frame(_) => {
                    let reason = "a notification has characters that the session's client_encoding has not";
                    return Some(Event::Deaf(reason.into()));
                }
                Next::Nothing | Next::Ended(_) => break,
            }
        }
        None
    }

    /// Whether [`Conversation::hear`] has more to tell at once.
    pub(in super::super) fn hears_more(&self) -> bool {
        self.ear.as_ref().is_some_and(|ear| ear.mailbox.waits()) && self.session.output.is_empty() && self.may_hear()
    }

    /// What the client was notified of is committed: before its next unit, reads of the session's are made to find that.
    pub(in super::super) fn see_what_was_told(&mut self) {
        let topology = &self.account.cluster.topology;
        if let Some(ear) = &mut self.ear {
            ear.join(topology, &mut self.writes);
        }
        // While a server is kept that notifies, reads run there.
        if self.held.is_none() && std::mem::take(&mut self.session.notified) {
            self.writes.join(&Writes::everywhere(topology));
        }
    }

    fn may_hear(&self) -> bool {
        let resting = self.held.as_ref().is_none_or(|lent| self.settled && lent.upstream.at_frame_edge());
        resting && self.session.rests()
    }

    /// Whether the unit at hand may be about the channels that the session has on the shared connection.
    pub(in super::super) fn concerns_channels(&self) -> bool {
        if self.ear.is_none() || self.shown {
            return false;
        }
        // What is listened to inside a transaction is listed only behind it: its first statement finds all of them.
        let begins = self.session.shapes().any(|shape| shape.statements.iter().any(|s| s.kind == Kind::Begin));
        let first = self.held.is_none() && self.session.deferred.active();
        first || begins || self.session.unit().opaque() || self.names_channels()
    }

    fn names_channels(&self) -> bool {
        self.session.parts().any(|part| WORDS.iter().any(|word| contains(part.text, word)))
    }

    /// Makes the server that is held listen to all channels of the session, before a unit that concerns them. `Some`: the
    /// unit is refused with this.
    pub(in super::super) async fn show_channels(&mut self) -> Result<Option<ErrorReply>, private::PrivateError> {
        let Some(lent) = &self.held else { return Ok(None) };
        let reason = if lent.pool().node.role() != Role::Primary {
            "the transaction or session is on a replica, where nothing listens"
        } else if self.session.in_group() {
            "the pipeline that it stands in began with something else"
        } else {
            match lent.upstream.status() {
                TransactionStatus::Failed => return Ok(None),
                TransactionStatus::Active => "its transaction began in the middle of a pipeline",
                TransactionStatus::Idle => "",
            }
        };
        if !reason.is_empty() {
            // What is not understood is no worse than a function whose text is not known.
            return Ok(self.names_channels().then(|| refusal(reason)));
        }
        let Some(mut lent) = self.held.take() else { return Ok(None) };
        let shown = self.show_channels_on(&mut lent).await;
        self.held = Some(lent);
        shown
    }

    /// The same on a server that is in no transaction.
    pub(in super::super) async fn show_channels_on(
        &mut self,
        lent: &mut Lent,
    ) -> Result<Option<ErrorReply>, private::PrivateError> {
        let Some(ear) = &self.ear else { return Ok(None) };
        let names = ear.channels.iter().filter_map(|(channel, _)| std::str::from_utf8(channel).ok());
        let sql: String = names.map(|name| format!("LISTEN {};", channel_sql(name))).collect();
        let answer = private::ask(lent, &sql).await?;
        let refused = private::error_of(&answer);
        if refused.is_none() {
            self.shown = true;
            self.session.note_listening();
        }
        Ok(refused)
    }

    /// After an audit: what the server was found to listen to goes to the shared connection, what the session no longer
    /// listens to is given up there.
    pub(in super::super) async fn follow_channels(&mut self) -> Result<(), End> {
        // What it listens to now is all that the session listens to.
        self.shown |= std::mem::take(&mut self.session.discarded);
        let found = self.session.channels.take();
        let Some(found) = found else {
            if self.ear.is_some() && self.shown {
                return Err(self.cannot_audit("the session listens to too many channels"));
            }
            return Ok(());
        };
        if self.account.mode == PoolMode::Session || (found.is_empty() && self.ear.is_none()) {
            return Ok(());
        }
        if self.shown
            && let Some(ear) = &mut self.ear
        {
            ear.leave(|channel, _| !found.iter().any(|held| **held == *channel));
            self.ear.take_if(|ear| ear.channels.is_empty());
        }
        self.session.elsewhere = self.ear.as_ref().map(|ear| ear.names()).unwrap_or_default();
        let new: Vec<Channel> = found.iter().filter(|name| !self.session.elsewhere.contains(*name)).cloned().collect();
        if !new.is_empty() && !self.hand_over(&new).await? {
            return Ok(());
        }
        self.shown = false;
        if !found.is_empty() {
            self.listen_no_more().await?;
        }
        self.session.pins.listen = false;
        Ok(())
    }

    /// Moves `new`, which the server that is held listens to, to the shared connection. `false`: it stays there.
    async fn hand_over(&mut self, new: &[Channel]) -> Result<bool, End> {
        let Some(lent) = &self.held else { return Ok(false) };
        let only = Pins { listen: false, ..self.session.pins } == Pins::default();
        let held = self.ear.as_ref().map_or(0, |ear| ear.channels.len());
        let node = std::sync::Arc::clone(&lent.pool().node);
        let can = node.role() == Role::Primary
            && self.session.hears_all_texts()
            && new.iter().all(|name| std::str::from_utf8(name).is_ok())
            && held + new.len() <= CHANNELS;
        if !only || !can {
            return Ok(false);
        }
        let ticket: Ticket = rand::random();
        let joined =
            Listeners::join(&self.context, &self.account, &node, self.worker, &mut self.ear, ticket, new).await;
        if let Err(reason) = joined {
            tracing::debug!(session = self.id, reason, "a session that listens keeps its server");
            return Ok(false);
        }
        let marker = channel_sql(&self.context.listeners.marker);
        let Some(lent) = &mut self.held else { return Ok(false) };
        let before = lent.upstream.overheard.split();
        self.session.take_notifications(&before);
        let sql = format!("LISTEN {marker};NOTIFY {marker}, '{ticket:x}';");
        let asked = private::ask_whatever_it_takes(lent, &sql).await.map(|answer| private::error_of(&answer));
        let heard = lent.upstream.overheard.split();
        let mut passed = false;
        for frame in frames(&heard) {
            let told = backend::notification(frame).ok();
            let own = told.is_some_and(|told| told.channel == self.context.listeners.marker.as_bytes());
            passed |= own && told.is_some_and(|told| told.payload == format!("{ticket:x}").as_bytes());
            // From here on the shared connection brings it.
            if !passed && !own {
                self.session.take_notifications(frame);
            }
        }
        if passed {
            self.session.elsewhere = self.ear.as_ref().map(|ear| ear.names()).unwrap_or_default();
            if let Some(trace) = &mut self.trace {
                trace.handed_over(&mut self.session, new.len());
            }
            return Ok(true);
        }
        Listeners::withdraw(&mut self.ear, ticket);
        let forgotten = match asked {
            Ok(_) => private::ask_whatever_it_takes(lent, &format!("UNLISTEN {marker};")).await,
            Err(error) => Err(error),
        };
        match forgotten {
            Ok(answer) if answer.error.is_none() => {
                let heard = lent.upstream.overheard.split();
                for frame in frames(&heard) {
                    let own =
                        |told: backend::Notification<'_>| told.channel == self.context.listeners.marker.as_bytes();
                    if !backend::notification(frame).is_ok_and(own) {
                        self.session.take_notifications(frame);
                    }
                }
                Ok(false)
            }
            Ok(_) => Err(self.cannot_audit("the server does not forget a channel")),
            Err(error) => Err(self.cannot_audit(&error.to_string())),
        }
    }

    /// The shared connection brings all: the server forgets the session's channels. One that does not is closed.
    async fn listen_no_more(&mut self) -> Result<(), End> {
        let Some(lent) = &mut self.held else { return Ok(()) };
        let forgotten = private::ask_whatever_it_takes(lent, "UNLISTEN *").await;
        lent.upstream.overheard.clear();
        if !forgotten.is_ok_and(|answer| answer.error.is_none()) {
            lent.upstream.mark_broken();
            let pinned = Pins { listen: false, ..self.session.pins } != Pins::default();
            if pinned {
                return Err(self.cannot_audit("the server does not forget its channels"));
            }
        }
        Ok(())
    }
}

fn refusal(reason: &str) -> ErrorReply {
    ErrorReply::error("0A000", format!("what the session listens to cannot be asked or changed here: {reason}"))
        .hint("Send the statement by itself, outside of a transaction.")
}

/// Whether `text` contains `word`, which is in lower case, in whatever case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}
