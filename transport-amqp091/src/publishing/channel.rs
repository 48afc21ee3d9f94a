//! One publishing channel: the messages that wait to be written on it, and the outcomes of those that were.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use enoki_core::transport::{Outgoing, PublishOutcome};
use lapin::{ChannelState, protocol::AMQPError, types::ShortString};

use super::unconfirmed::UnconfirmedMessages;
use crate::proto::event::Answer;

/// A channel in confirm mode. lapin opens and closes it; the messages on it are written beside lapin.
pub(crate) struct PublishChannel {
    number: u16,
    state: Mutex<State>,
}

/// A message is in `waiting` and in `unconfirmed` once it was taken; written, it is in `unconfirmed` only; answered,
/// its outcome is in `outcomes`, until the sender takes that.
///
/// The channel closes in two steps, and never opens again:
///
/// | | `closed` | `known_to_lapin` | `waiting` | `unconfirmed` |
/// |---|---|---|---|---|
/// | open | `None` | `false` | any | at least those that wait |
/// | the broker's `channel.close` has come | `ByBroker` | `false` | empty | empty: each message has an outcome or never will |
/// | lapin has answered that, or lapin closed it, or the connection is over | `Some` | `true` | empty | those left never have an outcome |
#[derive(Default)]
struct State {
    unconfirmed: UnconfirmedMessages,
    /// The last ones of the messages that were taken, in their order.
    waiting: VecDeque<EncodedMessage>,
    outcomes: Vec<(u64, PublishOutcome)>,
    /// Why nothing is taken and written any more.
    closed: Option<Closed>,
    /// Whether lapin knows that the channel is closed; only then does the sender learn it. lapin reads the broker's
    /// `channel.close` slightly later than this side. If the sender went in between, lapin would close the channel
    /// from this side as well, and give its number to the next channel too soon.
    known_to_lapin: bool,
    /// Whether the broker asked for a pause (`channel.flow`).
    paused: bool,
    /// The sender, while it waits for outcomes or for the end of the channel.
    sender: Option<Waker>,
}

impl State {
    /// Whether lapin may close the channel: it is closed already, or the broker has answered each message.
    fn is_drained(&self) -> bool {
        self.known_to_lapin || (self.closed.is_none() && self.unconfirmed.is_empty())
    }

    fn keep_waker(&mut self, sender: &Waker) {
        if !self.sender.as_ref().is_some_and(|known| known.will_wake(sender)) {
            self.sender = Some(sender.clone());
        }
    }
}

/// A message that waits to be written.
pub(crate) struct EncodedMessage {
    /// Its frames before the body.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

/// Why nothing is written on a channel any more.
#[derive(Debug, Clone)]
pub(crate) enum Closed {
    /// The broker closed the channel. `explained`: it did so for a message that was under way, and that message has
    /// its outcome.
    ByBroker { error: lapin::Error, explained: bool },
    /// This side closed it, or the connection is over.
    Here,
}

impl PublishChannel {
    pub(crate) fn new(number: u16) -> Self {
        Self { number, state: Mutex::default() }
    }

    /// The number of the channel on its connection.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sender's side.
impl PublishChannel {
    /// Whether this message can be taken now. A mandatory message waits for the outcome of another one with the same
    /// message id: the broker names a message that it returns by nothing else.
    pub(crate) fn has_room_for(&self, outgoing: &Outgoing, window: usize) -> bool {
        let state = self.lock();
        let message_id = &outgoing.message.properties.message_id;
        state.closed.is_none()
            && state.unconfirmed.len() + state.outcomes.len() < window
            && !(outgoing.mandatory
                && message_id.as_ref().is_some_and(|id| state.unconfirmed.has(id)))
    }

    /// Takes a message, to be written after those before it; `head` has its frames before the body. `false` if the
    /// channel is closed: then it took nothing.
    pub(crate) fn take(&self, outgoing: &Outgoing, head: Vec<u8>) -> bool {
        let mut state = self.lock();
        if state.closed.is_some() {
            return false;
        }
        state.unconfirmed.sent(outgoing);
        state.waiting.push_back(EncodedMessage { head, body: outgoing.message.body.clone() });
        true
    }

    /// Appends the outcomes that are known; says whether there were any.
    pub(crate) fn outcomes(&self, into: &mut Vec<(u64, PublishOutcome)>) -> bool {
        let mut state = self.lock();
        let any = !state.outcomes.is_empty();
        into.append(&mut state.outcomes);
        any
    }

    /// Waits for outcomes and appends them: `None`. After the last of them it says why there will be no more, once
    /// lapin knows that the channel is closed.
    pub(crate) fn poll_outcomes(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) -> Poll<Option<Closed>> {
        let mut state = self.lock();
        if !state.outcomes.is_empty() {
            into.append(&mut state.outcomes);
            return Poll::Ready(None);
        }
        if let Some(closed) = state.closed.as_ref().filter(|_| state.known_to_lapin) {
            return Poll::Ready(Some(closed.clone()));
        }
        state.keep_waker(cx.waker());
        Poll::Pending
    }

    /// Whether lapin may close the channel: it is closed already, or the broker has answered each message.
    pub(crate) fn is_drained(&self) -> bool {
        self.lock().is_drained()
    }

    /// Waits until lapin may close the channel. Outcomes are thrown away.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        state.outcomes.clear();
        if state.is_drained() {
            return Poll::Ready(());
        }
        state.keep_waker(cx.waker());
        Poll::Pending
    }
}

/// The connection's side. Nothing here wakes the sender but [`wake_sender`](Self::wake_sender) and
/// [`close`](Self::close).
impl PublishChannel {
    /// The next message to be written.
    pub(super) fn next_message(&self) -> Option<EncodedMessage> {
        let mut state = self.lock();
        if state.paused { None } else { state.waiting.pop_front() }
    }

    /// The broker answers one message, or each one up to it.
    pub(super) fn answered(&self, number: u64, multiple: bool, answer: Answer) {
        let mut state = self.lock();
        let State { unconfirmed, outcomes, .. } = &mut *state;
        unconfirmed.answered(number, multiple, answer, outcomes);
    }

    /// The broker returned a message.
    pub(super) fn returned(&self, message_id: &str) {
        self.lock().unconfirmed.returned(message_id);
    }

    /// The broker asks for a pause, or for its end.
    pub(super) fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// The broker closed the channel: messages that wait are never written.
    pub(super) fn closed_by_broker(&self, code: u16, text: &str) {
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
        state.closed = Some(Closed::ByBroker { error, explained });
    }

    /// The channel is closed for lapin, too, or the connection is over. Wakes the sender.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.closed.get_or_insert(Closed::Here);
        state.known_to_lapin = true;
        drop(state);
        self.wake_sender();
    }

    /// Wakes the sender if there are outcomes for it, or if the channel is closed.
    pub(super) fn wake_sender(&self) {
        let mut state = self.lock();
        let sender = match state.outcomes.is_empty() && !state.known_to_lapin {
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
            .field("number", &self.number)
            .field("waiting", &state.waiting.len())
            .field("unconfirmed", &state.unconfirmed.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}
