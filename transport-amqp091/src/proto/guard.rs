//! Keeps from lapin what would end it, its connection, or the whole process. Pure.
//!
//! lapin follows nested tables without a limit, on a thread of 2 MiB: a message of six kilobytes ends
//! the process of whoever consumes it. A short string that is not UTF-8 ends the connection, again and
//! again, as the broker delivers the message anew. It gathers bodies of any size. So everything that a
//! broker sends passes here first. What lapin can read it gets as it is; for the rest:
//!
//! | what came | what lapin gets |
//! |---|---|
//! | a message whose properties or headers cannot be read, or go too deep | its body, and a placeholder for the header that says why |
//! | a message for an exchange or with a key that is not UTF-8 | the same, and `?` for the bytes that are not |
//! | a message whose body is too large | no body, and a placeholder for the header that says why |
//! | any other text that is not UTF-8, such as a reason that RabbitMQ cut within a character | `?` for the bytes that are not |
//! | a frame that is too large, or that is none | an error, which ends the connection |
//!
//! An answer to `basic.cancel` that nothing asked for is left out, too.
//!
//! What the broker says of published messages goes to their sender ([`PublishChannel`]) in place of lapin:
//! answers, and messages that nobody gets. lapin pairs a returned message with whichever answer comes
//! next, which is wrong as soon as several are under way.
//!
//! The consumer turns a placeholder into [`Delivered::undecodable`](enoki_core::transport::Delivered), and
//! rejects the delivery; the broker still has the original. A publisher may write a placeholder itself:
//! its own message is then rejected, and no other.
//!
//! What passes, lapin's parser accepts; the tests hold the guard to that.

mod buffer;
mod header;
mod method;
mod table;

use std::{borrow::Cow, error::Error, fmt, io, sync::Arc};

use lapin::{
    protocol::constants::FRAME_END,
    types::{AMQPValue, FieldTable},
};

use self::{buffer::Buffer, header::ContentHeader};
use crate::{
    proto::{
        decode::Cursor,
        encode::OVERHEAD,
        peer_properties::{self, PeerProperties},
    },
    publishing::channel::{Answer, PublishChannel},
};

/// Looks at what came in before lapin does.
#[derive(Debug)]
pub(crate) struct Guard {
    max_body: u64,
    buffer: Buffer,
    /// Why nothing follows what is in the buffer.
    failed: Option<FrameFault>,
    /// How much is left of a frame that is passed on, or left out, as it comes.
    left: usize,
    wanted: bool,
    /// What is special about the content that follows, on the few channels where something is.
    content: Vec<(u16, Content)>,
    greeting: Option<PeerProperties>,
    /// Whether anything came after the greeting.
    answered: bool,
    /// The channels that messages are published on.
    publish_channels: Vec<Arc<PublishChannel>>,
    /// The channels on which lapin cancels a consumer, until the broker's answer.
    cancels: Vec<u16>,
    /// Whether something was kept from lapin since it last got something.
    withheld: bool,
    /// Whether the broker asks for no messages.
    blocked: bool,
}

/// What is special about the content that follows on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Its header belongs to a delivery that cannot be read.
    Unreadable(MessageFault),
    /// Its header belongs to a returned message.
    Returned,
    /// So many bytes of its body are still to be left out.
    Body(u64),
}

impl Guard {
    /// A guard for one connection.
    pub(crate) fn new(max_body: usize) -> Self {
        Self {
            max_body: u64::try_from(max_body).unwrap_or(u64::MAX),
            buffer: Buffer::default(),
            failed: None,
            left: 0,
            wanted: true,
            content: Vec::new(),
            greeting: None,
            answered: false,
            publish_channels: Vec::new(),
            cancels: Vec::new(),
            withheld: false,
            blocked: false,
        }
    }

    /// From now on the broker's answers on this channel go there.
    pub(crate) fn attach(&mut self, publish_channel: Arc<PublishChannel>) {
        self.detach(publish_channel.channel());
        self.publish_channels.push(publish_channel);
    }

    /// lapin cancels the consumer of this channel, and expects one answer.
    ///
    /// RabbitMQ up to 4.0 answers twice when the queue is replicated and goes at the same moment; with the
    /// second answer lapin would give up the connection.
    pub(crate) fn cancels(&mut self, channel: u16) {
        self.cancels.push(channel);
    }

    /// The channel is gone.
    pub(crate) fn detach(&mut self, channel: u16) {
        self.cancels.retain(|other| *other != channel);
        if let Some(at) = self
            .publish_channels
            .iter()
            .position(|publish_channel| publish_channel.channel() == channel)
        {
            let publish_channel = self.publish_channels.swap_remove(at);
            publish_channel.stop();
            publish_channel.tell();
        }
    }

    /// The channels that messages are published on.
    pub(crate) fn publish_channels(&self) -> &[Arc<PublishChannel>] {
        &self.publish_channels
    }

    /// The one with this number.
    pub(crate) fn publish_channel(&self, channel: u16) -> Option<&Arc<PublishChannel>> {
        self.publish_channels.iter().find(|publish_channel| publish_channel.channel() == channel)
    }

    /// Whether the broker asks for no messages (`connection.blocked`).
    pub(crate) fn blocked(&self) -> bool {
        self.blocked
    }

    /// How much lapin has not taken.
    pub(crate) fn ready(&self) -> usize {
        self.buffer.ready()
    }

    /// Whether something was kept from lapin since it last got something.
    pub(crate) fn withheld(&self) -> bool {
        self.withheld
    }

    /// Shows lapin that the broker is alive, if nothing else does. The broker sends no heartbeats while it
    /// has something else to say, and lapin would give it up.
    pub(crate) fn show_life(&mut self) {
        if self.left == 0 || !self.wanted {
            self.buffer.insert(&A_HEARTBEAT);
        }
        self.withheld = false;
    }

    /// Why nothing more will be handed on.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Room for bytes from the socket.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buffer.room()
    }

    /// So many bytes came.
    pub(crate) fn came(&mut self, count: usize) {
        self.buffer.came(count);
        if let Err(broken) = self.judge() {
            // What came before it is still handed on.
            self.failed = Some(broken);
        }
        self.publish_channels.iter().for_each(|publish_channel| publish_channel.tell());
    }

    /// Hands on what lapin may read; an error after the last of it.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.buffer.take(out);
        match &self.failed {
            Some(broken) if count == 0 && !out.is_empty() => Err(broken.clone().into()),
            _ => Ok(count),
        }
    }

    /// Who the broker said it is, once it has.
    pub(crate) fn greeting(&self) -> Option<&PeerProperties> {
        self.greeting.as_ref()
    }

    /// Whether anything came after the greeting.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    fn judge(&mut self) -> Result<(), FrameFault> {
        loop {
            if self.left > 0 && !self.stream()? {
                return Ok(());
            }
            let first = self.greeting.is_none();
            let Some(frame) = Frame::begins(self.buffer.pending(), first)? else { return Ok(()) };
            match frame.kind {
                METHOD | HEADER => {
                    let Some(whole) = self.buffer.pending().get(..frame.length) else {
                        return Ok(());
                    };
                    check_end(whole)?;
                    if frame.kind == METHOD {
                        self.method(&frame)?;
                    } else {
                        self.header(&frame)?;
                    }
                }
                BODY => {
                    self.wanted = self.wants(&frame);
                    self.left = frame.length;
                }
                HEARTBEAT => {
                    self.wanted = true;
                    self.left = frame.length;
                }
                // The broker speaks another version, and hangs up after saying which.
                _ => self.buffer.pass(frame.length),
            }
            self.answered = !first;
            self.greeting.get_or_insert_default();
        }
    }

    /// Passes on, or leaves out, as much as is there of a frame; says whether that is all of it.
    fn stream(&mut self) -> Result<bool, FrameFault> {
        let mut count = self.left.min(self.buffer.pending().len());
        self.left -= count;
        let ended = match self.left {
            0 => check_end(self.buffer.pending().get(..count).unwrap_or_default()),
            _ => Ok(()),
        };
        if ended.is_err() {
            count -= 1;
        }
        if self.wanted {
            self.buffer.pass(count);
        } else {
            self.buffer.drop(count);
            self.withheld = true;
        }
        ended.map(|()| self.left == 0)
    }

    fn method(&mut self, frame: &Frame) -> Result<(), FrameFault> {
        // Whatever was to follow on the channel is not what follows.
        self.expected(frame.channel);
        let Some(bytes) = self.buffer.pending_mut().get_mut(..frame.length) else { return Ok(()) };
        if self.greeting.is_none() {
            self.greeting = Some(peer_properties::read(bytes));
        }
        let found = method::check(bytes.get_mut(7..frame.length - 1).unwrap_or_default())?;
        if found.method == method::TUNE && found.frame_max.is_some_and(|max| max < FRAME_MIN) {
            return Err(FrameFault::from(format!(
                "a proposal for frames of less than {FRAME_MIN} bytes"
            )));
        }
        match found.method {
            method::ACK | method::NACK | method::RETURN => {
                if found.method == method::RETURN {
                    self.expect(frame.channel, Content::Returned);
                } else {
                    self.answer(frame, found.method);
                }
                self.buffer.drop(frame.length);
                self.withheld = true;
                return Ok(());
            }
            method::CANCEL_OK => match self.cancels.iter().position(|on| *on == frame.channel) {
                Some(at) => {
                    self.cancels.swap_remove(at);
                }
                None => {
                    self.buffer.drop(frame.length);
                    self.withheld = true;
                    return Ok(());
                }
            },
            method::DELIVER | method::GET_OK if found.repaired => {
                self.expect(frame.channel, Content::Unreadable(MessageFault::NotUtf8));
            }
            method::CLOSE | method::FLOW => self.tell_outlet(frame, found.method),
            method::CLOSE_OK => self.detach(frame.channel),
            method::BLOCKED => self.blocked = true,
            method::UNBLOCKED => self.blocked = false,
            _ => {}
        }
        self.buffer.pass(frame.length);
        Ok(())
    }

    /// The arguments of a method that was found sound.
    fn arguments(&self, frame: &Frame) -> Cursor<'_> {
        Cursor::new(self.buffer.pending().get(11..frame.length).unwrap_or_default())
    }

    /// `basic.ack` or `basic.nack`.
    fn answer(&self, frame: &Frame, method: (u16, u16)) {
        let mut arguments = self.arguments(frame);
        let answer = if method == method::ACK { Answer::Ack } else { Answer::Nack };
        if let Some(publish_channel) = self.publish_channel(frame.channel)
            && let (Some(number), Some(bits)) = (arguments.long_long(), arguments.byte())
        {
            publish_channel.answered(number, bits & 1 == 1, answer);
        }
    }

    /// `channel.close` or `channel.flow`.
    fn tell_outlet(&self, frame: &Frame, method: (u16, u16)) {
        let mut arguments = self.arguments(frame);
        let Some(publish_channel) = self.publish_channel(frame.channel) else { return };
        if method == method::FLOW {
            publish_channel.pause(arguments.byte() == Some(0));
        } else if let (Some(code), Some(text)) = (arguments.short(), arguments.short_string()) {
            publish_channel.closed(code, &String::from_utf8_lossy(text));
        }
    }

    fn header(&mut self, frame: &Frame) -> Result<(), FrameFault> {
        let expected = self.expected(frame.channel);
        let bytes = self.buffer.pending().get(7..frame.length - 1).unwrap_or_default();
        let header = ContentHeader::read(bytes).ok_or("a content header that is too short")?;
        if expected == Some(Content::Returned) {
            let Some(message_id) = header.message_id() else {
                // It would pass for another one, and that for published.
                return Err(FrameFault::from("a returned message that nothing identifies"));
            };
            if let Some(publish_channel) = self.publish_channel(frame.channel) {
                publish_channel.returned(&String::from_utf8_lossy(message_id));
            }
            let body = header.body;
            self.buffer.drop(frame.length);
            self.leave_out(frame.channel, body);
            return Ok(());
        }
        let large = header.body > self.max_body;
        let fault = match (expected, header.check()) {
            (Some(Content::Unreadable(fault)), _) | (_, Err(fault)) => fault,
            (_, Ok(())) if large => MessageFault::TooLarge,
            (_, Ok(())) => {
                self.buffer.pass(frame.length);
                return Ok(());
            }
        };
        let body = header.body;
        let left = if large { 0 } else { body };
        let other = header.placeholder(frame.channel, left, fault, header.message_id());
        self.buffer.replace(frame.length, &other);
        if large {
            self.leave_out(frame.channel, body);
        }
        Ok(())
    }

    /// Nobody wants the body that follows.
    fn leave_out(&mut self, channel: u16, body: u64) {
        if body > 0 {
            self.expect(channel, Content::Body(body));
        }
    }

    /// Whether lapin gets this part of a body.
    fn wants(&mut self, frame: &Frame) -> bool {
        let Some(Content::Body(left)) = self.expected(frame.channel) else { return true };
        let left = left.saturating_sub(u64::try_from(frame.length - OVERHEAD).unwrap_or(u64::MAX));
        if left > 0 {
            self.expect(frame.channel, Content::Body(left));
        }
        false
    }

    fn expect(&mut self, channel: u16, content: Content) {
        self.expected(channel);
        self.content.push((channel, content));
    }

    fn expected(&mut self, channel: u16) -> Option<Content> {
        let at = self.content.iter().position(|(other, _)| *other == channel)?;
        Some(self.content.swap_remove(at).1)
    }
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: u8,
    channel: u16,
    length: usize,
}

impl Frame {
    /// The frame that begins here, once its beginning is whole.
    fn begins(bytes: &[u8], first: bool) -> Result<Option<Self>, FrameFault> {
        let none = || Err(FrameFault::from("what is no frame of AMQP 0-9-1"));
        let kind = match bytes.first() {
            None => return Ok(None),
            Some(kind @ (&METHOD | &HEADER | &BODY | &HEARTBEAT)) => *kind,
            Some(b'A') if first => {
                return match bytes.first_chunk::<8>() {
                    None => Ok(None),
                    Some([b'A', b'M', b'Q', b'P', 0, ..]) => {
                        Ok(Some(Self { kind: b'A', channel: 0, length: 8 }))
                    }
                    Some(_) => none(),
                };
            }
            Some(_) => return none(),
        };
        let Some([_, c0, c1, l0, l1, l2, l3]) = bytes.first_chunk() else { return Ok(None) };
        let channel = u16::from_be_bytes([*c0, *c1]);
        let payload = u32::from_be_bytes([*l0, *l1, *l2, *l3]);
        match usize::try_from(payload).ok().and_then(|payload| payload.checked_add(OVERHEAD)) {
            Some(length) if length <= FRAME_MAX as usize => {
                Ok(Some(Self { kind, channel, length }))
            }
            _ => Err(FrameFault::from(format!(
                "a frame of {payload} bytes, where {FRAME_MAX} are the most"
            ))),
        }
    }
}

/// Looks at the last byte of a frame.
fn check_end(frame: &[u8]) -> Result<(), FrameFault> {
    if frame.last() == Some(&FRAME_END) { Ok(()) } else { Err("a frame without its end".into()) }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// Tables and lists inside each other, too many.
    TooDeep,
    /// A name or text that is not UTF-8.
    NotUtf8,
    /// Lengths that do not fit, or types that do not exist.
    Malformed,
    /// A body of more than the limit.
    TooLarge,
}

impl MessageFault {
    const ALL: [Self; 4] = [Self::TooDeep, Self::NotUtf8, Self::Malformed, Self::TooLarge];

    /// The fault that the headers of a placeholder name; `None` for those of a message.
    pub(crate) fn from_headers(headers: &FieldTable) -> Option<Self> {
        match (headers.inner().len(), headers.inner().get(PLACEHOLDER)) {
            (1, Some(AMQPValue::ShortShortUInt(code))) => {
                Self::ALL.get(usize::from(*code)).copied()
            }
            _ => None,
        }
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "headers nested more than {MAX_DEPTH} levels deep"),
            Self::NotUtf8 => {
                f.write_str("an exchange, routing key, property or header name is not UTF-8")
            }
            Self::Malformed => f.write_str("malformed properties or headers"),
            Self::TooLarge => f.write_str("the body exceeds the limit `max_body`"),
        }
    }
}

/// What no frame of a sane broker is. Ends the connection.
#[derive(Debug, Clone)]
pub(crate) struct FrameFault(Cow<'static, str>);

impl FrameFault {
    /// The guard's part in an error of the socket.
    pub(crate) fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl<S: Into<Cow<'static, str>>> From<S> for FrameFault {
    fn from(what: S) -> Self {
        Self(what.into())
    }
}

impl From<FrameFault> for io::Error {
    fn from(broken: FrameFault) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

impl Error for FrameFault {}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker sent {}", self.0)
    }
}

/// The largest frame that is agreed on: what RabbitMQ proposes. OutboundEvent here, so that a broker that
/// proposes none or gigabytes does not decide how much memory this side takes.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// The smallest frame that a side has to take (§4.2.3). With less, bodies would fall to pieces.
const FRAME_MIN: u32 = 4096;

/// Tables and lists inside each other, the headers themselves among them. Twice what `enoki` itself
/// publishes; other clients may go further.
const MAX_DEPTH: usize = 64;

/// The only header of a placeholder.
const PLACEHOLDER: &str = "x-enoki-unreadable";

/// The frames' types (§4.2.3).
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// A frame that says nothing.
const A_HEARTBEAT: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

#[cfg(test)]
mod tests;
