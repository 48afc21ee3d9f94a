//! What the frames of the broker mean for this side, beside what fe2o3-amqp reads in them.

use enoki_amqp::PeerProperties;

/// One end of a link, as the broker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId {
    pub(crate) channel: u16,
    pub(crate) handle: u32,
}

/// One frame, or a part of one, that means something for this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InboundEvent {
    /// The broker opened the connection. The frame is the last in the output.
    Opened(PeerProperties),
    /// The broker attached the link of this name.
    Attached(LinkId, String),
    /// The last part of a message came in.
    Delivered(LinkId),
    /// The broker has no credit left on this link, and said so.
    Drained(LinkId),
    /// The link is gone.
    Detached(LinkId),
    /// The AMQP session on this channel is gone, with its links.
    SessionEnded(u16),
    /// The broker takes no messages on this connection, or takes them again: it differs from the last.
    Blocked(bool),
}
