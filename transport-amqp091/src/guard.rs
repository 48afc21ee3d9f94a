//! Keeps from lapin what would end it, its connection, or the whole process. Pure.
//!
//! lapin follows nested tables without a limit, on a thread of 2 MiB: a message of six kilobytes ends
//! the process of whoever consumes it. A short string that is not UTF-8 ends the connection, again and
//! again, as the broker delivers the message anew. It gathers bodies of any size. So everything that a
//! broker sends passes here first. What lapin can read it gets as it is; for the rest:
//!
//! | what came | what lapin gets |
//! |---|---|
//! | a message whose properties or headers cannot be read, or go too deep | its body, and a stand-in for the header that says why |
//! | a message for an exchange or with a key that is not UTF-8 | the same, and `?` for the bytes that are not |
//! | a message whose body is too large | no body, and a stand-in for the header that says why |
//! | a returned message whose body is too large | its header, and no body |
//! | any other text that is not UTF-8, such as a reason that RabbitMQ cut within a character | `?` for the bytes that are not |
//! | a frame that is too large, or that is none | an error, which ends the connection |
//!
//! The consumer turns a stand-in into [`Delivered::undecodable`](enoki_core::transport::Delivered), and
//! rejects the delivery; the broker still has the original. A publisher may write a stand-in itself:
//! its own message is then rejected, and no other.
//!
//! What passes, lapin's parser accepts; the tests hold the guard to that.

mod header;
mod inbox;
mod method;
mod table;

use std::{borrow::Cow, error::Error, fmt, io};

use lapin::{
    protocol::constants::FRAME_END,
    types::{AMQPValue, FieldTable},
};

use self::{header::Header, inbox::Inbox};
use crate::greeting::{self, Greeting};

/// Looks at what came in before lapin does.
#[derive(Debug)]
pub(crate) struct Guard {
    max_body: u64,
    inbox: Inbox,
    /// Why nothing follows what is in the inbox.
    failed: Option<Broken>,
    /// How much is left of a frame that is passed on, or left out, as it comes.
    left: usize,
    wanted: bool,
    /// What is special about the content that follows, on the few channels where something is.
    content: Vec<(u16, Content)>,
    greeting: Option<Greeting>,
    /// Whether anything came after the greeting.
    answered: bool,
}

/// What is special about the content that follows on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Its header belongs to a delivery that cannot be read.
    Unreadable(Fault),
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
            inbox: Inbox::default(),
            failed: None,
            left: 0,
            wanted: true,
            content: Vec::new(),
            greeting: None,
            answered: false,
        }
    }

    /// Room for bytes from the socket. Asked for when [`Guard::take`] has nothing.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.inbox.room()
    }

    /// So many bytes came.
    pub(crate) fn came(&mut self, count: usize) {
        self.inbox.came(count);
        if let Err(broken) = self.judge() {
            // What came before it is still handed on.
            self.failed = Some(broken);
        }
    }

    /// Hands on what lapin may read; an error after the last of it.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inbox.take(out);
        match &self.failed {
            Some(broken) if count == 0 && !out.is_empty() => Err(broken.clone().into()),
            _ => Ok(count),
        }
    }

    /// Who the broker said it is, once it has.
    pub(crate) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Whether anything came after the greeting.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    fn judge(&mut self) -> Result<(), Broken> {
        loop {
            if self.left > 0 && !self.stream()? {
                return Ok(());
            }
            let first = self.greeting.is_none();
            let Some(frame) = Frame::begins(self.inbox.pending(), first)? else { return Ok(()) };
            match frame.kind {
                METHOD | HEADER => {
                    let Some(whole) = self.inbox.pending().get(..frame.length) else {
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
                _ => self.inbox.pass(frame.length),
            }
            self.answered = !first;
            self.greeting.get_or_insert_default();
        }
    }

    /// Passes on, or leaves out, as much as is there of a frame; says whether that is all of it.
    fn stream(&mut self) -> Result<bool, Broken> {
        let mut count = self.left.min(self.inbox.pending().len());
        self.left -= count;
        let ended = match self.left {
            0 => check_end(self.inbox.pending().get(..count).unwrap_or_default()),
            _ => Ok(()),
        };
        if ended.is_err() {
            count -= 1;
        }
        if self.wanted {
            self.inbox.pass(count);
        } else {
            self.inbox.drop(count);
        }
        ended.map(|()| self.left == 0)
    }

    fn method(&mut self, frame: &Frame) -> Result<(), Broken> {
        // Whatever was to follow on the channel is not what follows.
        self.expected(frame.channel);
        let Some(bytes) = self.inbox.pending_mut().get_mut(..frame.length) else { return Ok(()) };
        if self.greeting.is_none() {
            self.greeting = Some(greeting::read(bytes));
        }
        let found = method::check(bytes.get_mut(7..frame.length - 1).unwrap_or_default())?;
        if found.method == method::TUNE && found.frame_max.is_some_and(|max| max < FRAME_MIN) {
            return Err(Broken::from(format!(
                "a proposal for frames of less than {FRAME_MIN} bytes"
            )));
        }
        match found.method {
            method::RETURN => self.expect(frame.channel, Content::Returned),
            method::DELIVER | method::GET_OK if found.repaired => {
                self.expect(frame.channel, Content::Unreadable(Fault::NotUtf8));
            }
            _ => {}
        }
        self.inbox.pass(frame.length);
        Ok(())
    }

    fn header(&mut self, frame: &Frame) -> Result<(), Broken> {
        let expected = self.expected(frame.channel);
        let bytes = self.inbox.pending().get(7..frame.length - 1).unwrap_or_default();
        let header = Header::read(bytes).ok_or("a content header that is too short")?;
        let large = header.body > self.max_body;
        let fault = match (expected, header.check()) {
            (Some(Content::Unreadable(fault)), _) | (_, Err(fault)) => Some(fault),
            // What was returned is told by its header; nobody wants its body.
            (Some(Content::Returned), Ok(())) => None,
            (_, Ok(())) => large.then_some(Fault::TooLarge),
        };
        if fault.is_none() && !large {
            self.inbox.pass(frame.length);
            return Ok(());
        }
        let body = if large { 0 } else { header.body };
        let other = match fault {
            None => header.with_body(frame.channel, body),
            Some(fault) => {
                let message_id = header.message_id();
                if expected == Some(Content::Returned) && message_id.is_none() {
                    // It would pass for another one, and that for published.
                    return Err(Broken::from("a returned message that nothing identifies"));
                }
                header.stand_in(frame.channel, body, fault, message_id)
            }
        };
        let dropped = header.body;
        self.inbox.replace(frame.length, &other);
        if large {
            self.expect(frame.channel, Content::Body(dropped));
        }
        Ok(())
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
    fn begins(bytes: &[u8], first: bool) -> Result<Option<Self>, Broken> {
        let none = || Err(Broken::from("what is no frame of AMQP 0-9-1"));
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
            _ => Err(Broken::from(format!(
                "a frame of {payload} bytes, where {FRAME_MAX} are the most"
            ))),
        }
    }
}

/// Looks at the last byte of a frame.
fn check_end(frame: &[u8]) -> Result<(), Broken> {
    if frame.last() == Some(&FRAME_END) { Ok(()) } else { Err("a frame without its end".into()) }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Tables and lists inside each other, too many.
    TooDeep,
    /// A name or text that is not UTF-8.
    NotUtf8,
    /// Lengths that do not fit, or types that do not exist.
    Malformed,
    /// A body of more than the limit.
    TooLarge,
}

impl Fault {
    const ALL: [Self; 4] = [Self::TooDeep, Self::NotUtf8, Self::Malformed, Self::TooLarge];

    /// The fault that the headers of a stand-in name; `None` for those of a message.
    pub(crate) fn told_by(headers: &FieldTable) -> Option<Self> {
        match (headers.inner().len(), headers.inner().get(STAND_IN)) {
            (1, Some(AMQPValue::ShortShortUInt(code))) => {
                Self::ALL.get(usize::from(*code)).copied()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
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
pub(crate) struct Broken(Cow<'static, str>);

impl Broken {
    /// The guard's part in an error of the socket.
    pub(crate) fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl<S: Into<Cow<'static, str>>> From<S> for Broken {
    fn from(what: S) -> Self {
        Self(what.into())
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

impl Error for Broken {}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker sent {}", self.0)
    }
}

/// The largest frame that is agreed on: what RabbitMQ proposes. Said here, so that a broker that
/// proposes none or gigabytes does not decide how much memory this side takes.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// The smallest frame that a side has to take (§4.2.3). With less, bodies would fall to pieces.
const FRAME_MIN: u32 = 4096;

/// Tables and lists inside each other, the headers themselves among them. Twice what `enoki` itself
/// publishes; other clients may go further.
const MAX_DEPTH: usize = 64;

/// The only header of a stand-in.
const STAND_IN: &str = "x-enoki-unreadable";

/// The frames' types (§4.2.3).
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Type, channel and length before a frame's payload, and the end behind it.
const OVERHEAD: usize = 8;

#[cfg(test)]
mod tests;
