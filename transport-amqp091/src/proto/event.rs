//! The events that frames of the broker mean for this side. lapin gets most of these frames as well.

/// One frame, or a part of one, that means something for this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InboundEvent {
    /// The broker answers the message of this number on this channel, or (`multiple`) each message up to that
    /// number which has no answer yet (`basic.ack`, `basic.nack`). lapin does not get the frame.
    Confirm { channel: u16, number: u64, multiple: bool, answer: Answer },
    /// The broker returns a mandatory message that reached no queue (`basic.return`). Its answer follows later.
    /// lapin gets no frame of it.
    Returned { channel: u16, message_id: String },
    /// The broker asks for a pause on this channel, or for its end (`channel.flow`).
    Flow { channel: u16, active: bool },
    /// The broker closes the channel (`channel.close`); lapin will answer.
    ChannelClosed { channel: u16, code: u16, text: String },
    /// The broker has closed the channel as lapin asked for (`channel.close-ok`).
    ChannelCloseOk { channel: u16 },
    /// The broker reads no messages from this connection, or does so again (`connection.blocked`,
    /// `connection.unblocked`).
    Blocked(bool),
    /// Bytes were kept from lapin that mean nothing else.
    LeftOut,
}

impl InboundEvent {
    /// Whether lapin did not get the bytes behind this event.
    pub(crate) fn is_left_out(&self) -> bool {
        matches!(self, Self::Confirm { .. } | Self::Returned { .. } | Self::LeftOut)
    }
}

/// How the broker answers a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `basic.ack`: it has the message, or has returned it before.
    Ack,
    /// `basic.nack`: it refused the message.
    Nack,
}
