//! The publishing channels of one connection: who writes next, and which of them a frame of the broker is about.

use std::sync::Arc;

use super::channel::{EncodedMessage, PublishChannel};
use crate::proto::event::InboundEvent;

/// The channels of one connection that messages are published on.
#[derive(Debug, Default)]
pub(crate) struct PublishChannels {
    /// No two have the same number. A channel is here from the moment its sender opens until `channel.close-ok`
    /// has passed, from whichever side.
    channels: Vec<Arc<PublishChannel>>,
    /// Whether the broker reads no messages from this connection (`connection.blocked`). While it is set no channel
    /// has its turn.
    blocked: bool,
    /// The index of the channel that has its turn next. An index without a channel stands for 0.
    turn: usize,
}

impl PublishChannels {
    /// Adds a channel. From now on the broker's answers on it go there.
    pub(crate) fn attach(&mut self, channel: Arc<PublishChannel>) {
        self.detach(channel.number());
        self.channels.push(channel);
    }

    /// Removes the channel of this number, which is closed on both sides.
    pub(crate) fn detach(&mut self, number: u16) {
        if let Some(at) = self.channels.iter().position(|channel| channel.number() == number) {
            self.channels.swap_remove(at).close();
        }
    }

    /// lapin closes the channel of this number: no message may follow on it.
    pub(crate) fn close(&self, number: u16) {
        if let Some(channel) = self.find(number) {
            channel.close();
        }
    }

    /// The connection is over.
    pub(crate) fn close_all(&self) {
        self.channels.iter().for_each(|channel| channel.close());
    }

    /// Gives an event of the broker to the channel that it is about. [`wake_senders`](Self::wake_senders) has to
    /// follow, once for all events that came together.
    pub(crate) fn apply(&mut self, event: InboundEvent) {
        match event {
            InboundEvent::Confirm { channel, number, multiple, answer } => {
                if let Some(channel) = self.find(channel) {
                    channel.answered(number, multiple, answer);
                }
            }
            InboundEvent::Returned { channel, message_id } => {
                if let Some(channel) = self.find(channel) {
                    channel.returned(&message_id);
                }
            }
            InboundEvent::Flow { channel, active } => {
                if let Some(channel) = self.find(channel) {
                    channel.pause(!active);
                }
            }
            InboundEvent::ChannelClosed { channel, code, text } => {
                if let Some(channel) = self.find(channel) {
                    channel.closed_by_broker(code, &text);
                }
            }
            InboundEvent::ChannelCloseOk { channel } => self.detach(channel),
            InboundEvent::Blocked(blocked) => self.blocked = blocked,
            InboundEvent::LeftOut => {}
        }
    }

    /// Wakes each sender that can go on.
    pub(crate) fn wake_senders(&self) {
        self.channels.iter().for_each(|channel| channel.wake_sender());
    }

    /// Takes messages from the channels in turn, until no channel has one or `most` bytes are written.
    /// `write` writes a message of the channel of this number and returns its bytes, of which there is at least one.
    pub(crate) fn take_turns(
        &mut self,
        most: usize,
        mut write: impl FnMut(u16, EncodedMessage) -> usize,
    ) {
        if self.blocked {
            return;
        }
        let (mut written, mut without) = (0, 0);
        while written < most && without < self.channels.len() {
            let Some(channel) = self.channels.get(self.turn) else {
                self.turn = 0;
                continue;
            };
            let before = written;
            while written < before + SHARE
                && let Some(message) = channel.next_message()
            {
                written += write(channel.number(), message);
            }
            without = if written > before { 0 } else { without + 1 };
            self.turn += 1;
        }
    }

    fn find(&self, number: u16) -> Option<&PublishChannel> {
        self.channels.iter().find(|channel| channel.number() == number).map(|channel| &**channel)
    }
}

/// How many bytes a channel writes in one turn; the last message of a turn may have any size.
const SHARE: usize = 16 * 1024;
