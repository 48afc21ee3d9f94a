//! Where a sender and the connection's task meet: messages that wait to be written, and what became of
//! those that were.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use enoki_core::transport::{Outgoing, PublishOutcome};
use lapin::{ChannelState, protocol::AMQPError, types::ShortString};

pub(crate) use super::unconfirmed::Answer;
use super::unconfirmed::UnconfirmedMessages;

/// A channel in confirm mode: lapin opens and closes it, and the messages on it pass lapin by.
pub(crate) struct PublishChannel {
    channel: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unconfirmed: UnconfirmedMessages,
    /// Taken, and not yet on their way to the socket.
    waiting: VecDeque<Message>,
    outcomes: Vec<(u64, PublishOutcome)>,
    /// Why nothing is written any more.
    closed: Option<Closed>,
    /// Whether lapin knows of it. It reads what the broker says a moment later: a channel that it had to
    /// close meanwhile would be closed from both sides, and its number given away too soon.
    gone: bool,
    /// Whether the broker asked for a pause (`channel.flow`).
    paused: bool,
    sender: Option<Waker>,
}

impl State {
    fn is_done(&self) -> bool {
        self.gone || (self.closed.is_none() && self.unconfirmed.is_empty())
    }

    fn wakes(&mut self, sender: &Waker) {
        if !self.sender.as_ref().is_some_and(|known| known.will_wake(sender)) {
            self.sender = Some(sender.clone());
        }
    }
}

/// A message that waits to be written.
pub(crate) struct Message {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

/// Why nothing is written any more.
#[derive(Debug, Clone)]
pub(crate) enum Closed {
    /// The broker closed the channel. Whether it was for a message that was under way, and that has its
    /// outcome.
    Broker { error: lapin::Error, explained: bool },
    /// This side closed it, or the connection is over.
    Here,
}

impl PublishChannel {
    pub(crate) fn new(channel: u16) -> Self {
        Self { channel, state: Mutex::default() }
    }

    pub(crate) fn channel(&self) -> u16 {
        self.channel
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sender's side.
impl PublishChannel {
    /// Whether this message can be taken now. One whose id another has waits for that one's outcome:
    /// the broker returns messages by nothing else.
    pub(crate) fn has_room_for(&self, outgoing: &Outgoing, window: usize) -> bool {
        let state = self.lock();
        let message_id = &outgoing.message.properties.message_id;
        state.closed.is_none()
            && state.unconfirmed.len() + state.outcomes.len() < window
            && !(outgoing.mandatory
                && message_id.as_ref().is_some_and(|id| state.unconfirmed.has(id)))
    }

    /// Puts a message behind those before it. `false` if the channel is gone: nothing was taken.
    pub(crate) fn take(&self, outgoing: &Outgoing, head: Vec<u8>) -> bool {
        let mut state = self.lock();
        if state.closed.is_some() {
            return false;
        }
        state.unconfirmed.sent(outgoing);
        state.waiting.push_back(Message { head, body: outgoing.message.body.clone() });
        true
    }

    /// Appends the outcomes that are known; says whether there were any.
    pub(crate) fn outcomes(&self, into: &mut Vec<(u64, PublishOutcome)>) -> bool {
        let mut state = self.lock();
        let any = !state.outcomes.is_empty();
        into.append(&mut state.outcomes);
        any
    }

    /// Waits for outcomes and appends them; says why there will be none, after the last of them, and once
    /// lapin knows it.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) -> Poll<Option<Closed>> {
        let mut state = self.lock();
        if !state.outcomes.is_empty() {
            into.append(&mut state.outcomes);
            return Poll::Ready(None);
        }
        if let Some(closed) = state.closed.as_ref().filter(|_| state.gone) {
            return Poll::Ready(Some(closed.clone()));
        }
        state.wakes(cx.waker());
        Poll::Pending
    }

    /// Whether no message waits for an answer, and lapin may close the channel.
    pub(crate) fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    /// Waits until no message waits for an answer, and lapin may close the channel.
    pub(crate) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        state.outcomes.clear();
        if state.is_done() {
            return Poll::Ready(());
        }
        state.wakes(cx.waker());
        Poll::Pending
    }
}

/// The connection's side.
impl PublishChannel {
    /// The next message to be written.
    pub(crate) fn next(&self) -> Option<Message> {
        let mut state = self.lock();
        if state.paused { None } else { state.waiting.pop_front() }
    }

    pub(crate) fn answered(&self, number: u64, multiple: bool, answer: Answer) {
        let mut state = self.lock();
        let State { unconfirmed, outcomes, .. } = &mut *state;
        unconfirmed.answered(number, multiple, answer, outcomes);
    }

    /// The broker gave a message back.
    pub(crate) fn returned(&self, message_id: &str) {
        self.lock().unconfirmed.returned(message_id);
    }

    /// The broker asks for a pause, or for its end.
    pub(crate) fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// The broker closed the channel. What was not written never will be.
    pub(crate) fn closed(&self, code: u16, text: &str) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        let error = ShortString::try_new(text)
            .ok()
            .and_then(|text| AMQPError::from_id(code, text))
            .map_or_else(
                || lapin::ErrorKind::InvalidChannelState(ChannelState::Closed, "channel.close"),
                lapin::ErrorKind::ProtocolError,
            )
            .into();
        let State { unconfirmed, outcomes, .. } = &mut *state;
        let explained = unconfirmed.fail_on_close(code, text, &error, outcomes);
        state.waiting.clear();
        state.closed = Some(Closed::Broker { error, explained });
    }

    /// The channel is closed for lapin, too, or the connection is over.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.closed.get_or_insert(Closed::Here);
        state.gone = true;
    }

    /// Wakes the sender if there is something for it.
    pub(crate) fn tell(&self) {
        let mut state = self.lock();
        let sender = match state.outcomes.is_empty() && !state.gone {
            true => None,
            false => state.sender.take(),
        };
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl fmt::Debug for PublishChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("PublishChannel")
            .field("channel", &self.channel)
            .field("waiting", &state.waiting.len())
            .field("unanswered", &state.unconfirmed.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}
