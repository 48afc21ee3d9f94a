//! Judges each frame that the broker sends, before lapin reads it. `docs/design/12-guard.md` says why.
//!
//! lapin follows nested tables without a limit, on a thread of 2 MiB: a message of six kilobytes ends the process
//! that consumes it. A short string that is not UTF-8 ends the connection, again and again, since the broker
//! delivers the message anew. lapin gathers bodies of any size. So lapin gets a frame as it is only if it can
//! read it:
//!
//! | the broker sends | lapin gets |
//! |---|---|
//! | a message whose properties or headers cannot be read, or go too deep | its body, and a placeholder header that names the fault |
//! | a message for an exchange or with a key that is not UTF-8 | the same, and `?` for each byte that is not part of a character |
//! | a message whose body is too large | no body, and a placeholder header that names the fault |
//! | any other text that is not UTF-8, such as a reason that RabbitMQ cut within a character | `?` for each byte that is not part of a character |
//! | an answer to a published message, or a returned message | nothing; the publisher gets an [`InboundEvent`] |
//! | an answer to `basic.cancel` that lapin does not expect | nothing |
//! | a frame that is too large, or cannot be read at all | nothing; a [`FrameFault`] ends the connection |
//!
//! The consumer turns a placeholder into [`Delivered::undecodable`](enoki_core::transport::Delivered) and rejects
//! the delivery; the broker still has the original. A publisher may write a placeholder itself: then its own
//! message is rejected, and no other.
//!
//! *The invariant:* lapin's parser accepts each frame that passes. The tests compare the guard with that parser.

mod header;
mod method;
mod table;

use self::header::ContentHeader;
use super::{
    decode::Cursor,
    event::{Answer, InboundEvent},
    fault::{FrameFault, MessageFault},
    frame::{FrameHead, OVERHEAD, payload},
    methods::{
        BASIC_ACK, BASIC_CANCEL_OK, BASIC_DELIVER, BASIC_GET_OK, BASIC_NACK, BASIC_RETURN,
        CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW, CONNECTION_BLOCKED, CONNECTION_TUNE,
        CONNECTION_UNBLOCKED,
    },
};
use crate::limits::FRAME_MIN;

/// Judges the frames of one connection, each once and in the broker's order.
#[derive(Debug)]
pub(super) struct Guard {
    /// lapin gets no body of more bytes than this.
    max_body: u64,
    /// What is special about the content that follows on a channel. A channel is here at most once: from the
    /// frame that says so until the next frame on that channel. Few channels are here at any time.
    expected: Vec<(u16, Content)>,
    /// A channel is here once for each `basic.cancel` of lapin's on it that the broker has not answered. A
    /// channel that has closed is not here.
    cancels: Vec<u16>,
}

/// What is special about the content that follows on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Its header belongs to a delivery that cannot be read.
    Unreadable(MessageFault),
    /// Its header belongs to a returned message.
    Returned,
    /// So many bytes of its body are still to come, and lapin gets none of them. Never 0.
    BodyLeftOut(u64),
}

/// The guard's answer for one frame.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) event: Option<InboundEvent>,
}

/// Which bytes lapin gets for a frame.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The frame, in which the guard may have put `?` in place of bytes.
    Pass,
    /// No bytes.
    LeaveOut,
    /// This frame in its place.
    Replace(Vec<u8>),
}

impl Judgement {
    fn pass(event: Option<InboundEvent>) -> Self {
        Self { verdict: Verdict::Pass, event }
    }

    fn leave_out(event: Option<InboundEvent>) -> Self {
        Self { verdict: Verdict::LeaveOut, event }
    }
}

impl Guard {
    /// A guard for one connection.
    pub(super) fn new(max_body: usize) -> Self {
        Self {
            max_body: u64::try_from(max_body).unwrap_or(u64::MAX),
            expected: Vec::new(),
            cancels: Vec::new(),
        }
    }

    /// lapin cancels the consumer of this channel, and expects one answer.
    ///
    /// RabbitMQ up to 4.0 answers twice when the queue is replicated and is deleted at the same moment. With the
    /// second answer lapin would give up the connection.
    pub(super) fn expect_cancel_ok(&mut self, channel: u16) {
        self.cancels.push(channel);
    }

    /// The channel is closed on both sides: no answer follows on it.
    pub(super) fn channel_closed(&mut self, channel: u16) {
        self.cancels.retain(|other| *other != channel);
    }

    /// Judges a whole method frame. Puts a `?` in place of each byte of a text that is not UTF-8.
    pub(super) fn method(
        &mut self,
        channel: u16,
        frame: &mut [u8],
    ) -> Result<Judgement, FrameFault> {
        // This frame comes in place of the content that was expected on the channel.
        self.take_expected(channel);
        let payload = frame.len().checked_sub(1).and_then(|end| frame.get_mut(7..end));
        let found = method::check(payload.unwrap_or_default())?;
        if found.method == CONNECTION_TUNE && found.frame_max.is_some_and(|max| max < FRAME_MIN) {
            return Err(FrameFault::from(format!(
                "a proposal for frames of less than {FRAME_MIN} bytes"
            )));
        }
        let mut arguments = Cursor::new(frame.get(11..).unwrap_or_default());
        Ok(match found.method {
            BASIC_ACK => Judgement::leave_out(confirm(channel, Answer::Ack, arguments)),
            BASIC_NACK => Judgement::leave_out(confirm(channel, Answer::Nack, arguments)),
            BASIC_RETURN => {
                self.expect(channel, Content::Returned);
                Judgement::leave_out(None)
            }
            BASIC_CANCEL_OK => match self.cancels.iter().position(|on| *on == channel) {
                Some(at) => {
                    self.cancels.swap_remove(at);
                    Judgement::pass(None)
                }
                None => Judgement::leave_out(None),
            },
            BASIC_DELIVER | BASIC_GET_OK if found.repaired => {
                self.expect(channel, Content::Unreadable(MessageFault::NotUtf8));
                Judgement::pass(None)
            }
            CHANNEL_CLOSE => Judgement::pass(channel_closed(channel, arguments)),
            CHANNEL_CLOSE_OK => {
                self.channel_closed(channel);
                Judgement::pass(Some(InboundEvent::ChannelCloseOk { channel }))
            }
            CHANNEL_FLOW => {
                let active = arguments.byte() != Some(0);
                Judgement::pass(Some(InboundEvent::Flow { channel, active }))
            }
            CONNECTION_BLOCKED => Judgement::pass(Some(InboundEvent::Blocked(true))),
            CONNECTION_UNBLOCKED => Judgement::pass(Some(InboundEvent::Blocked(false))),
            _ => Judgement::pass(None),
        })
    }

    /// Judges a whole content header frame.
    pub(super) fn header(&mut self, channel: u16, frame: &[u8]) -> Result<Judgement, FrameFault> {
        let expected = self.take_expected(channel);
        let header =
            ContentHeader::read(payload(frame)).ok_or("a content header that is too short")?;
        if expected == Some(Content::Returned) {
            let Some(message_id) = header.message_id() else {
                // Without an id this side cannot tell which message was returned, and the broker's answer would
                // confirm it.
                return Err(FrameFault::from("a returned message that nothing identifies"));
            };
            let message_id = String::from_utf8_lossy(message_id).into_owned();
            self.leave_out_body(channel, header.body);
            return Ok(Judgement::leave_out(Some(InboundEvent::Returned { channel, message_id })));
        }
        let large = header.body > self.max_body;
        let fault = match (expected, header.check()) {
            (Some(Content::Unreadable(fault)), _) | (_, Err(fault)) => fault,
            (_, Ok(())) if large => MessageFault::TooLarge,
            (_, Ok(())) => return Ok(Judgement::pass(None)),
        };
        let body = if large { 0 } else { header.body };
        let placeholder = header.placeholder(channel, body, fault, header.message_id());
        if large {
            self.leave_out_body(channel, header.body);
        }
        Ok(Judgement { verdict: Verdict::Replace(placeholder), event: None })
    }

    /// Whether lapin gets this part of a body.
    pub(super) fn passes_body(&mut self, head: &FrameHead) -> bool {
        let Some(Content::BodyLeftOut(left)) = self.take_expected(head.channel) else {
            return true;
        };
        let part = u64::try_from(head.length - OVERHEAD).unwrap_or(u64::MAX);
        self.leave_out_body(head.channel, left.saturating_sub(part));
        false
    }

    /// lapin gets nothing of the body that follows, which has so many bytes.
    fn leave_out_body(&mut self, channel: u16, body: u64) {
        if body > 0 {
            self.expect(channel, Content::BodyLeftOut(body));
        }
    }

    fn expect(&mut self, channel: u16, content: Content) {
        self.take_expected(channel);
        self.expected.push((channel, content));
    }

    fn take_expected(&mut self, channel: u16) -> Option<Content> {
        let at = self.expected.iter().position(|(other, _)| *other == channel)?;
        Some(self.expected.swap_remove(at).1)
    }
}

/// The event of `basic.ack` or `basic.nack`: the number of a message (8 bytes), and a bit for `multiple`.
fn confirm(channel: u16, answer: Answer, mut arguments: Cursor<'_>) -> Option<InboundEvent> {
    let (number, bits) = (arguments.long_long()?, arguments.byte()?);
    Some(InboundEvent::Confirm { channel, number, multiple: bits & 1 == 1, answer })
}

/// The event of `channel.close`: a reply code (2 bytes), and a text.
fn channel_closed(channel: u16, mut arguments: Cursor<'_>) -> Option<InboundEvent> {
    let (code, text) = (arguments.short()?, arguments.short_string()?);
    let text = String::from_utf8_lossy(text).into_owned();
    Some(InboundEvent::ChannelClosed { channel, code, text })
}
