//! Frames on their way between the socket and fe2o3-amqp. Pure.
//!
//! A frame is a length (4 bytes), an offset of the body in words, a type, a channel (2 bytes), and
//! the body: a performative, which is a described list, and in a transfer the bytes of a message.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::links::{Gauge, Links};
use crate::decode::{Cursor, Fault};

/// What a broker says of itself when it opens a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) product: Option<String>,
    pub(crate) version: Option<String>,
}

/// The length of the frame that begins here, once enough of it is there. It has so many bytes at most.
pub(super) fn length(bytes: &[u8], most: usize) -> Result<Option<usize>, Fault> {
    let Some(head) = bytes.first_chunk::<8>() else { return Ok(None) };
    let [length @ .., _, _, _, _] = *head;
    // Between the layers of a connection each side names the next one, without a frame.
    if length == *b"AMQP" {
        return Ok(Some(8));
    }
    match usize::try_from(u32::from_be_bytes(length)) {
        Ok(length) if (8..=most).contains(&length) => Ok(Some(length)),
        _ => Err(format!(
            "a frame of {} bytes, where {most} are the most",
            u32::from_be_bytes(length)
        )
        .into()),
    }
}

/// Which performative a frame carries on which channel, and where its fields begin.
pub(super) struct Opened<'a> {
    pub(super) channel: u16,
    pub(super) code: u64,
    pub(super) fields: Cursor<'a>,
    pub(super) count: usize,
    /// What follows the performative: in a transfer, the message.
    payload: &'a [u8],
}

pub(super) fn open(frame: &[u8]) -> Option<Opened<'_>> {
    let [l0, _, _, _, offset, kind, high, low] = *frame.first_chunk::<8>()?;
    if kind != 0 || (l0 == b'A' && frame.starts_with(b"AMQP")) {
        return None;
    }
    let mut cursor = Cursor::new(frame.get(usize::from(offset) * 4..)?);
    if cursor.is_empty() {
        // A heartbeat.
        return None;
    }
    let code = cursor.descriptor().ok()?;
    let (count, fields) = cursor.list().ok()?;
    Some(Opened {
        channel: u16::from_be_bytes([high, low]),
        code,
        fields,
        count,
        payload: cursor.rest(),
    })
}

/// What comes in.
#[derive(Debug)]
pub(super) struct Inbound {
    links: Arc<Links>,
    /// The receivers' links, by the broker's channel and handle.
    gauges: HashMap<(u16, u32), Arc<Gauge>>,
    /// How much there is of messages that came in part, by channel and handle.
    partial: HashMap<(u16, u32), usize>,
    /// The channels whose session takes no messages: the window that the broker gave it is 0.
    blocked: HashSet<u16>,
    /// Nothing of a message follows that has more bytes than this.
    max_message: usize,
}

impl Inbound {
    pub(super) fn new(links: Arc<Links>, max_message: usize) -> Self {
        Self {
            links,
            gauges: HashMap::new(),
            partial: HashMap::new(),
            blocked: HashSet::new(),
            max_message,
        }
    }

    /// Passes a whole frame on to fe2o3-amqp, which may read it. What this cannot read, it leaves to it.
    pub(super) fn pass(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Greeting>, Fault> {
        let Some(opened) = open(frame) else {
            out.extend_from_slice(frame);
            return Ok(None);
        };
        match opened.code {
            TRANSFER => {
                if self.transferred(&opened)? {
                    wrap(frame, opened.payload, out);
                } else {
                    empty(frame, opened.payload, out);
                }
                return Ok(None);
            }
            BEGIN => drop(self.windowed(&opened, 2)),
            FLOW => {
                drop(self.windowed(&opened, 1));
                drop(self.flowed(&opened));
            }
            DETACH => drop(self.detached(&opened)),
            END => {
                let channel = opened.channel;
                self.links.session_ended();
                self.gauges.retain(|(of, _), _| *of != channel);
                self.partial.retain(|(of, _), _| *of != channel);
                self.block(channel, false);
            }
            ATTACH => {
                let rename = self.attached(&opened, frame.len()).ok().flatten();
                out.extend_from_slice(frame);
                if let Some((from_end, byte)) = rename
                    && let Some(at) = out.len().checked_sub(from_end)
                    && let Some(place) = out.get_mut(at)
                {
                    *place = byte;
                }
                return Ok(None);
            }
            OPEN => {
                agree(&opened)?;
                out.extend_from_slice(frame);
                return Ok(Some(greeting(opened).unwrap_or_default()));
            }
            _ => {}
        }
        out.extend_from_slice(frame);
        Ok(None)
    }

    /// Whether this part of a message goes on: of one that is too large, nothing that follows what
    /// makes it so. The receiver sees that it is, and all frames are there, which sessions count.
    fn transferred(&mut self, opened: &Opened<'_>) -> Result<bool, Fault> {
        let mut fields = opened.fields.clone();
        let handle = fields.uint()?.ok_or("a transfer without a handle")?;
        let link = (opened.channel, handle);
        let Transferred { more, aborted } = transferred(&mut fields, opened.count)?;
        let before = match self.partial.is_empty() {
            true => 0,
            false => self.partial.remove(&link).unwrap_or(0),
        };
        if more && !aborted {
            self.partial.insert(link, before.saturating_add(opened.payload.len()));
        } else if !aborted && let Some(gauge) = self.gauges.get(&link) {
            gauge.delivered();
        }
        Ok(before <= self.max_message)
    }

    /// next-incoming-id, incoming-window, next-outgoing-id, outgoing-window, handle,
    /// delivery-count, link-credit, available, drain.
    /// How many transfers the broker takes on this session: the field at this place. In use it gives
    /// more before there are none left, so none is a decision: RabbitMQ is short of memory or disk.
    fn windowed(&mut self, opened: &Opened<'_>, at: usize) -> Result<(), Fault> {
        let mut fields = opened.fields.clone();
        for _ in 0..at {
            fields.skip()?;
        }
        if let Some(window) = fields.uint()? {
            self.block(opened.channel, window == 0);
        }
        Ok(())
    }

    fn block(&mut self, channel: u16, is_blocked: bool) {
        if is_blocked {
            self.blocked.insert(channel);
        } else {
            self.blocked.remove(&channel);
        }
        self.links.block(!self.blocked.is_empty());
    }

    fn flowed(&self, opened: &Opened<'_>) -> Result<(), Fault> {
        let mut fields = opened.fields.clone();
        if opened.count < 9 {
            return Ok(());
        }
        for _ in 0..4 {
            fields.skip()?;
        }
        let Some(gauge) = self.gauge(opened.channel, &mut fields)? else { return Ok(()) };
        for _ in 0..3 {
            fields.skip()?;
        }
        if fields.truth()? {
            gauge.drained();
        }
        Ok(())
    }

    fn detached(&mut self, opened: &Opened<'_>) -> Result<(), Fault> {
        if let Some(handle) = opened.fields.clone().uint()? {
            self.gauges.remove(&(opened.channel, handle));
            self.partial.remove(&(opened.channel, handle));
        }
        Ok(())
    }

    /// name, handle, role. Returns how far from the end of the frame the name ends, and its last
    /// byte, if it is that of the management pair.
    fn attached(
        &mut self,
        opened: &Opened<'_>,
        frame: usize,
    ) -> Result<Option<(usize, u8)>, Fault> {
        let mut fields = opened.fields.clone();
        let Some(name) = fields.value()?.as_str().map(str::to_owned) else { return Ok(None) };
        // The fields are a part of the frame, and end before the payload, which an attach has not.
        let name_end = opened.payload.len() + fields.rest().len();
        let handle = fields.uint()?;
        if name == paired(PAIR_ON_THE_WIRE) {
            // The broker says its own role: where it receives, this side sends.
            let receiver = fields.truth()?;
            let byte = if receiver { PAIR_SENDER } else { PAIR_RECEIVER };
            return Ok((name_end < frame).then_some((name_end + 1, byte)));
        }
        if let (Some(handle), Some(gauge)) = (handle, self.links.find(&name)) {
            self.gauges.insert((opened.channel, handle), gauge);
        }
        Ok(None)
    }

    fn gauge(&self, channel: u16, fields: &mut Cursor<'_>) -> Result<Option<&Gauge>, Fault> {
        let handle = fields.uint()?;
        Ok(handle.and_then(|handle| self.gauges.get(&(channel, handle))).map(|gauge| &**gauge))
    }
}

/// What goes out.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Links by channel and handle in the middle of a message of several frames.
    unfinished: HashSet<(u16, u32)>,
}

impl Outbound {
    /// Passes a whole frame on to the broker.
    pub(super) fn pass(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        match open(frame) {
            Some(opened) if opened.code == TRANSFER => {
                if self.begins(&opened).unwrap_or(false) {
                    unwrap(frame, opened.payload, out);
                } else {
                    out.extend_from_slice(frame);
                }
            }
            Some(opened) if opened.code == ATTACH => {
                out.extend_from_slice(frame);
                let mut fields = opened.fields;
                if let Ok(name) = fields.value()
                    && name.as_str().is_some_and(|name| {
                        name == paired(PAIR_SENDER) || name == paired(PAIR_RECEIVER)
                    })
                    && let Some(at) = out.len().checked_sub(fields.rest().len() + 1)
                    && let Some(place) = out.get_mut(at)
                {
                    *place = PAIR_ON_THE_WIRE;
                }
            }
            Some(opened) if opened.code == OPEN => {
                out.extend_from_slice(frame);
                let _ = shrink(opened, out);
            }
            _ => out.extend_from_slice(frame),
        }
    }

    /// Whether a transfer is the first of its message.
    fn begins(&mut self, opened: &Opened<'_>) -> Result<bool, Fault> {
        let mut fields = opened.fields.clone();
        let handle = fields.uint()?.ok_or("a transfer without a handle")?;
        let link = (opened.channel, handle);
        let begins = if transferred(&mut fields, opened.count)?.more {
            self.unfinished.insert(link)
        } else {
            !self.unfinished.remove(&link)
        };
        Ok(begins)
    }
}

/// What a transfer says of its message.
struct Transferred {
    /// There is more of it.
    more: bool,
    /// There will be no more of it, and what there was is void.
    aborted: bool,
}

/// After the handle: delivery-id, delivery-tag, message-format, settled, more, rcv-settle-mode, state,
/// resume, aborted.
fn transferred(fields: &mut Cursor<'_>, count: usize) -> Result<Transferred, Fault> {
    let mut found = Transferred { more: false, aborted: false };
    if count >= 6 {
        for _ in 0..4 {
            fields.skip()?;
        }
        found.more = fields.truth()?;
    }
    if count >= 10 {
        for _ in 0..3 {
            fields.skip()?;
        }
        found.aborted = fields.truth()?;
    }
    Ok(found)
}

/// Whether the peer takes frames that are worth writing: container-id, hostname, max-frame-size.
fn agree(opened: &Opened<'_>) -> Result<(), Fault> {
    let mut fields = opened.fields.clone();
    if opened.count < 3 {
        return Ok(());
    }
    fields.skip()?;
    fields.skip()?;
    match fields.uint()? {
        Some(size) if size < FRAME_MIN => {
            Err(format!("a wish for frames of {size} bytes, where {FRAME_MIN} are the least")
                .into())
        }
        _ => Ok(()),
    }
}

/// Leaves out the bytes of a message.
fn empty(frame: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let head = frame.len().checked_sub(payload.len()).and_then(|end| frame.get(4..end));
    let Some(head) = head else { return out.extend_from_slice(frame) };
    let whole = u32::try_from(head.len() + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&whole.to_be_bytes());
    out.extend_from_slice(head);
}

/// Makes the bytes of a message the content of a data section, which fe2o3-amqp hands out as it is.
fn wrap(frame: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let (Some(head), Ok(length)) = (
        frame.len().checked_sub(payload.len()).and_then(|end| frame.get(4..end)),
        u32::try_from(payload.len()),
    ) else {
        return out.extend_from_slice(frame);
    };
    let whole = u32::try_from(frame.len() + OVERHEAD).unwrap_or(u32::MAX);
    out.extend_from_slice(&whole.to_be_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(&[0x00, 0x53, 0x75, 0xb0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Takes a message out of the data section that fe2o3-amqp put it in.
fn unwrap(frame: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let section = match payload {
        [0x00, 0x53, 0x75, 0xa0, _, ..] => 5,
        [0x00, 0x53, 0x75, 0xb0, _, _, _, _, ..] => 8,
        _ => return out.extend_from_slice(frame),
    };
    let (Some(head), Some(message)) = (
        frame.len().checked_sub(payload.len()).and_then(|end| frame.get(4..end)),
        payload.get(section..),
    ) else {
        return out.extend_from_slice(frame);
    };
    let whole = u32::try_from(frame.len() - section).unwrap_or(u32::MAX);
    out.extend_from_slice(&whole.to_be_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(message);
}

/// Announces frames smaller than fe2o3-amqp takes, by what [`wrap`] adds: container-id, hostname,
/// max-frame-size.
fn shrink(opened: Opened<'_>, out: &mut [u8]) -> Result<(), Fault> {
    let mut fields = opened.fields;
    fields.skip()?;
    fields.skip()?;
    let at = out.len().checked_sub(fields.rest().len()).ok_or("no room")?;
    if let Some([0x70, size @ ..]) = out.get_mut(at..at + 5)
        && let Ok(bytes) = <[u8; 4]>::try_from(&*size)
    {
        let smaller = u32::from_be_bytes(bytes).saturating_sub(OVERHEAD as u32);
        size.copy_from_slice(&smaller.to_be_bytes());
    }
    Ok(())
}

/// The tenth field of an open: the properties of the peer.
fn greeting(opened: Opened<'_>) -> Result<Greeting, Fault> {
    let mut greeting = Greeting::default();
    let mut fields = opened.fields;
    if opened.count < 10 {
        return Ok(greeting);
    }
    for _ in 0..9 {
        fields.skip()?;
    }
    for (name, value) in fields.pairs()? {
        let text = || value.as_str().map(|text| text.chars().take(64).collect());
        match name.as_str() {
            "product" => greeting.product = text(),
            "version" => greeting.version = text(),
            _ => {}
        }
    }
    Ok(greeting)
}

/// The name of the management pair's links: one on the wire, as RabbitMQ pairs them by it, and two
/// towards fe2o3-amqp, which takes a name only once in a session.
pub(crate) fn paired(end: u8) -> String {
    format!("{PAIR}{}", char::from(end))
}

const PAIR: &str = "enoki-management-pair-";
/// What the sender's name ends with, inside this process.
pub(crate) const PAIR_SENDER: u8 = b'S';
/// What the receiver's name ends with, inside this process.
pub(crate) const PAIR_RECEIVER: u8 = b'R';
const PAIR_ON_THE_WIRE: u8 = b'P';

/// What [`wrap`] adds to a frame.
pub(crate) const OVERHEAD: usize = 8;

/// What a frame may at least have, everywhere (§2.7.1).
const FRAME_MIN: u32 = 512;

const OPEN: u64 = 0x10;
pub(super) const BEGIN: u64 = 0x11;
const ATTACH: u64 = 0x12;
const FLOW: u64 = 0x13;
const TRANSFER: u64 = 0x14;
const DETACH: u64 = 0x16;
pub(super) const END: u64 = 0x17;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::encode::Encoder;

    /// So many bytes a message may have here.
    const MOST: usize = 20;

    fn frame(channel: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap();
        let [high, low] = channel.to_be_bytes();
        [&length.to_be_bytes()[..], &[2, 0, high, low], body].concat()
    }

    fn performative(code: u8, fields: impl FnOnce(&mut Encoder) -> u32) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.descriptor(code);
        encoder.list(fields);
        encoder.into_bytes()
    }

    /// handle, delivery-id, delivery-tag, message-format, settled, more.
    fn transfer(handle: u32, more: bool, payload: &[u8]) -> Vec<u8> {
        let fields = |encoder: &mut Encoder| {
            encoder.uint(handle);
            encoder.uint(7);
            encoder.binary(&[0, 0, 0, 7]);
            encoder.uint(0);
            encoder.bool(false);
            encoder.bool(more);
            6
        };
        frame(3, &[performative(0x14, fields), payload.to_vec()].concat())
    }

    /// The end of a message that is given up: the tenth field says so.
    fn aborted(handle: u32) -> Vec<u8> {
        let fields = |encoder: &mut Encoder| {
            encoder.uint(handle);
            (0..4).for_each(|_| encoder.null());
            encoder.bool(true);
            (0..3).for_each(|_| encoder.null());
            encoder.bool(true);
            10
        };
        frame(3, &performative(0x14, fields))
    }

    fn attach(name: &str, handle: u32, receiver: bool) -> Vec<u8> {
        let fields = |encoder: &mut Encoder| {
            encoder.string(name);
            encoder.uint(handle);
            encoder.bool(receiver);
            3
        };
        frame(3, &performative(0x12, fields))
    }

    fn flow(handle: u32, drain: bool) -> Vec<u8> {
        let fields = |encoder: &mut Encoder| {
            (0..4).for_each(|_| encoder.uint(1));
            encoder.uint(handle);
            (0..3).for_each(|_| encoder.uint(1));
            encoder.bool(drain);
            9
        };
        frame(3, &performative(0x13, fields))
    }

    fn inbound(inbound: &mut Inbound, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        inbound.pass(frame, &mut out).unwrap();
        assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
        out
    }

    fn outbound(outbound: &mut Outbound, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        outbound.pass(frame, &mut out);
        assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
        out
    }

    #[test]
    fn messages_come_in_as_data_and_go_out_without_it() {
        let mut inwards = Inbound::new(Arc::default(), MOST);
        let bare = transfer(1, false, b"message");
        let wrapped = transfer(1, false, b"\x00\x53\x75\xb0\x00\x00\x00\x07message");
        assert_eq!(inbound(&mut inwards, &bare), wrapped);
        let mut outwards = Outbound::default();
        assert_eq!(outbound(&mut outwards, &wrapped), bare);
        let short = transfer(1, false, b"\x00\x53\x75\xa0\x07message");
        assert_eq!(outbound(&mut outwards, &short), bare);
    }

    #[test]
    fn a_session_whose_window_is_0_is_blocked_until_it_is_not_or_ends() {
        // As the second field of a flow, and the third of a begin.
        let window = |code, at, window| {
            let fields = move |encoder: &mut Encoder| {
                (0..at).for_each(|_| encoder.uint(0));
                encoder.uint(window);
                encoder.uint(7);
                at + 2
            };
            performative(code, fields)
        };
        let links = Arc::<Links>::default();
        let blocked = links.blocked();
        let mut inwards = Inbound::new(links, MOST);
        let end = performative(0x17, |_| 0);
        for (body, channel, is_blocked) in [
            (window(0x11, 2, 400), 3, false),
            (window(0x13, 1, 0), 3, true),
            (window(0x11, 2, 0), 4, true),
            (window(0x13, 1, 400), 3, true),
            (end.clone(), 4, false),
            (window(0x13, 1, 0), 3, true),
            (window(0x13, 1, 1), 3, false),
            (end, 3, false),
        ] {
            inbound(&mut inwards, &frame(channel, &body));
            assert_eq!(blocked.borrow().is_some(), is_blocked, "{body:02x?}");
        }
    }

    #[test]
    fn only_the_first_frame_of_a_message_begins_with_a_section() {
        let mut outwards = Outbound::default();
        let section = b"\x00\x53\x75\xb0\x00\x00\x00\x30";
        for _ in 0..2 {
            let first = transfer(1, true, &[&section[..], b"one"].concat());
            assert_eq!(outbound(&mut outwards, &first), transfer(1, true, b"one"));
            // What looks like a section in the middle of a message is none.
            let middle = transfer(1, true, section);
            assert_eq!(outbound(&mut outwards, &middle), middle);
            // Another link has a message of its own.
            let other = transfer(2, false, &[&section[..], b"two"].concat());
            assert_eq!(outbound(&mut outwards, &other), transfer(2, false, b"two"));
            let last = transfer(1, false, section);
            assert_eq!(outbound(&mut outwards, &last), last);
        }
    }

    #[test]
    fn nothing_follows_what_makes_a_message_too_large() {
        let mut inwards = Inbound::new(Arc::default(), MOST);
        let part = |handle, more| transfer(handle, more, &[0; 15]);
        let emptied = transfer(1, true, b"");
        for _ in 0..2 {
            let wrapped = inbound(&mut inwards, &part(1, true));
            assert_eq!(wrapped.len(), part(1, true).len() + OVERHEAD);
            inbound(&mut inwards, &part(1, true));
            assert_eq!(inbound(&mut inwards, &part(1, true)), emptied);
            // Another link's message is as large as it is.
            let other = inbound(&mut inwards, &part(2, false));
            assert_eq!(other.len(), part(2, false).len() + OVERHEAD);
            assert_eq!(inbound(&mut inwards, &part(1, true)), emptied);
            assert_eq!(inbound(&mut inwards, &part(1, false)), transfer(1, false, b""));
        }
        // What was given up counts no longer, and neither does what a session took with it.
        for end in [aborted(1), frame(3, &performative(0x17, |_| 0))] {
            inbound(&mut inwards, &part(1, true));
            inbound(&mut inwards, &part(1, true));
            inbound(&mut inwards, &end);
            let wrapped = inbound(&mut inwards, &part(1, false));
            assert_eq!(wrapped.len(), part(1, false).len() + OVERHEAD);
        }
    }

    #[test]
    fn a_message_that_was_given_up_is_no_delivery() {
        let links = Arc::new(Links::default());
        let gauge = links.watch("mine");
        let mut inwards = Inbound::new(links, MOST);
        inbound(&mut inwards, &attach("mine", 5, false));
        inbound(&mut inwards, &transfer(5, true, b"a"));
        inbound(&mut inwards, &aborted(5));
        inbound(&mut inwards, &flow(5, true));
        assert_eq!(gauge.total(), Some(0));
    }

    #[test]
    fn a_broker_that_takes_next_to_nothing_is_refused() {
        let open = |size: Option<u32>| {
            let fields = |encoder: &mut Encoder| {
                encoder.string("container");
                encoder.null();
                match size {
                    Some(size) => encoder.uint(size),
                    None => encoder.null(),
                }
                3
            };
            frame(0, &performative(0x10, fields))
        };
        let pass = |size| Inbound::new(Arc::default(), MOST).pass(&open(size), &mut Vec::new());
        for size in [0, 8, 511] {
            assert!(pass(Some(size)).is_err());
        }
        for size in [None, Some(512), Some(u32::MAX)] {
            assert!(pass(size).is_ok());
        }
    }

    #[test]
    fn the_management_pair_has_one_name_on_the_wire() {
        let mut outwards = Outbound::default();
        let mut inwards = Inbound::new(Arc::default(), MOST);
        for (end, broker_receives) in [(PAIR_SENDER, true), (PAIR_RECEIVER, false)] {
            let ours = attach(&paired(end), 0, !broker_receives);
            let wire = attach(&paired(PAIR_ON_THE_WIRE), 0, !broker_receives);
            assert_eq!(outbound(&mut outwards, &ours), wire);
            let answer = attach(&paired(PAIR_ON_THE_WIRE), 0, broker_receives);
            let expected = attach(&paired(end), 0, broker_receives);
            assert_eq!(inbound(&mut inwards, &answer), expected);
        }
        let other = attach("enoki-receiver-1", 0, true);
        assert_eq!(outbound(&mut outwards, &other), other);
        assert_eq!(inbound(&mut inwards, &other), other);
    }

    #[test]
    fn a_link_is_drained_when_the_broker_says_so_after_its_deliveries() {
        let links = Arc::new(Links::default());
        let gauge = links.watch("mine");
        let mut inwards = Inbound::new(links, MOST);
        inbound(&mut inwards, &attach("mine", 5, false));
        inbound(&mut inwards, &attach("another", 6, false));
        inbound(&mut inwards, &transfer(5, true, b"a"));
        inbound(&mut inwards, &transfer(5, false, b"b"));
        inbound(&mut inwards, &transfer(6, false, b"c"));
        inbound(&mut inwards, &flow(6, true));
        inbound(&mut inwards, &flow(5, false));
        assert_eq!(gauge.total(), None);
        inbound(&mut inwards, &transfer(5, false, b"d"));
        inbound(&mut inwards, &flow(5, true));
        assert_eq!(gauge.total(), Some(2));
    }

    #[test]
    fn the_broker_is_read_and_told_of_smaller_frames() {
        let open = |size: u32, tag: &'static str| {
            let fields = |encoder: &mut Encoder| {
                encoder.string("container");
                encoder.string("vhost:/");
                encoder.uint(size);
                (0..6).for_each(|_| encoder.null());
                encoder.map(|encoder| {
                    for (name, value) in [("cluster", "c"), ("product", tag), ("version", "4.0.5")]
                    {
                        encoder.symbol(name);
                        encoder.string(value);
                    }
                    3
                });
                10
            };
            frame(0, &performative(0x10, fields))
        };
        let mut out = Vec::new();
        let greeting = Inbound::new(Arc::default(), MOST).pass(&open(512, "RabbitMQ"), &mut out);
        assert_eq!(
            greeting,
            Ok(Some(Greeting {
                product: Some("RabbitMQ".to_owned()),
                version: Some("4.0.5".to_owned())
            }))
        );
        assert_eq!(out, open(512, "RabbitMQ"));
        let ours = outbound(&mut Outbound::default(), &open(1008, "enoki"));
        assert_eq!(ours, open(1000, "enoki"));
    }

    #[test]
    fn headers_and_heartbeats_pass_as_they_are() {
        for bytes in [&b"AMQP\x00\x01\x00\x00"[..], b"\x00\x00\x00\x08\x02\x00\x00\x00"] {
            assert_eq!(inbound(&mut Inbound::new(Arc::default(), MOST), bytes), bytes);
            assert_eq!(outbound(&mut Outbound::default(), bytes), bytes);
        }
        assert!(length(b"HTTP/1.1 400", 1000).is_err());
        assert!(length(b"\x00\x00\x00\x07\x02\x00\x00\x00", 1000).is_err());
        assert!(length(b"\x00\x00\x03\xe9\x02\x00\x00\x00", 1000).is_err());
        assert_eq!(length(b"\x00\x00\x03\xe8\x02\x00\x00\x00", 1000), Ok(Some(1000)));
        assert_eq!(length(b"\x00\x00\x00", 1000), Ok(None));
    }

    proptest! {
        #[test]
        fn no_frame_is_too_odd(
            body in vec(any::<u8>(), 0..80),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let links = Arc::new(Links::default());
            let _gauge = links.watch("mine");
            let mut inwards = Inbound::new(links, MOST);
            inbound(&mut inwards, &attach("mine", 1, false));
            for sound in [
                frame(3, &body),
                frame(3, &[b"\x00\x53\x14".as_slice(), &body].concat()),
                transfer(1, true, &body),
                attach("mine", 1, true),
                attach(&paired(PAIR_ON_THE_WIRE), 1, true),
                flow(1, true),
            ] {
                let mut broken = sound;
                // The length is checked before.
                let at = 4 + at.index(broken.len() - 4);
                broken[at] = byte;
                let mut out = Vec::new();
                if inwards.pass(&broken, &mut out).is_ok() {
                    prop_assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
                }
                out.clear();
                Outbound::default().pass(&broken, &mut out);
                prop_assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
            }
        }
    }
}
