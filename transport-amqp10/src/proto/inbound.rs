//! Frames on their way from the broker to fe2o3-amqp. Pure.
//!
//! Three kinds are changed, all others pass as they are:
//!
//! - a transfer: the bytes of the message become the content of a data section, which fe2o3-amqp hands out
//!   unread (`decode.rs` says why). Of a message that is too large the rest is left out;
//! - the attach of a link of the management pair: it gets the name that fe2o3-amqp gave it;
//! - a flow about a link on which the broker sends: it becomes one about its session alone. fe2o3-amqp takes
//!   the delivery-count in it at once, and counts the transfers before it again when they are taken from
//!   the link. It would then grant more credit than the prefetch, and end the link when the broker uses it.
//!   RabbitMQ 4.3 sends such a flow when a consumer of a replicated queue becomes active.
//!
//! What a frame says that fe2o3-amqp does not tell is returned as an [`InboundEvent`].

use std::collections::{HashMap, HashSet};

use super::{
    event::{InboundEvent, LinkId},
    fault::Fault,
    frame::{
        ATTACH, BEGIN, DETACH, END, FLOW, OPEN, Performative, TRANSFER, TransferFlags,
        replace_payload,
    },
    link_names::{PAIR_ON_THE_WIRE, PAIR_RECEIVER, PAIR_SENDER, paired},
    peer_properties,
};

/// Changes frames on their way to fe2o3-amqp, and tells what they say.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// How many bytes came of the messages whose last part has not come.
    partial: HashMap<LinkId, usize>,
    /// Links on which the broker sends, at most [`MAX_LINKS`] of them.
    sending: HashSet<LinkId>,
    /// The channels whose session takes no messages: the window that the broker gave it is 0.
    blocked: HashSet<u16>,
    /// Once more bytes than this came of a message, the rest of it is left out.
    max_message: usize,
}

impl Inbound {
    pub(crate) fn new(max_message: usize) -> Self {
        let (partial, sending, blocked) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { partial, sending, blocked, max_message }
    }

    /// Appends a whole frame as fe2o3-amqp gets it, and the events that it means. A frame that cannot be read
    /// here passes as it is, since the guard let it pass; a fault ends the connection.
    pub(crate) fn pass(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<InboundEvent>,
    ) -> Result<(), Fault> {
        let Some(performative) = Performative::read(frame) else {
            out.extend_from_slice(frame);
            return Ok(());
        };
        let channel = performative.channel;
        match performative.code {
            TRANSFER => {
                match self.transfer(&performative, events)? {
                    true => wrap_message(frame, performative.payload, out),
                    false => replace_payload(frame, performative.payload, [&[], &[]], out),
                }
                return Ok(());
            }
            ATTACH => {
                if let Ok(Some(link)) = sending(&performative)
                    && self.sending.len() < MAX_LINKS
                {
                    self.sending.insert(link);
                }
                let rename = attach(&performative, frame.len(), events).ok().flatten();
                out.extend_from_slice(frame);
                if let Some(LastByte { from_end, byte }) = rename
                    && let Some(at) = out.len().checked_sub(from_end)
                    && let Some(last) = out.get_mut(at)
                {
                    *last = byte;
                }
                return Ok(());
            }
            OPEN => {
                check_frame_size(&performative)?;
                let Performative { fields, count, .. } = performative;
                let properties = peer_properties::of_open(fields, count).unwrap_or_default();
                events.push(InboundEvent::Opened(properties));
            }
            BEGIN => drop(self.window(&performative, 2, events)),
            FLOW => {
                drop(self.window(&performative, 1, events));
                if let Ok(Some(link)) = flow(&performative, events)
                    && self.sending.contains(&link)
                    && let Ok(about_session) = session_fields(&performative)
                {
                    session_flow(channel, about_session, out);
                    return Ok(());
                }
            }
            DETACH => {
                if let Ok(Some(handle)) = performative.fields.clone().uint() {
                    let link = LinkId { channel, handle };
                    self.partial.remove(&link);
                    self.sending.remove(&link);
                    events.push(InboundEvent::Detached(link));
                }
            }
            END => {
                self.partial.retain(|link, _| link.channel != channel);
                self.sending.retain(|link| link.channel != channel);
                events.push(InboundEvent::SessionEnded(channel));
                self.block(channel, false, events);
            }
            _ => {}
        }
        out.extend_from_slice(frame);
        Ok(())
    }

    /// Whether the bytes of this part of a message go on. Where they do not, the frame still does: sessions
    /// count frames, and the receiver sees by the part before that the message is too large.
    fn transfer(
        &mut self,
        transfer: &Performative<'_>,
        events: &mut Vec<InboundEvent>,
    ) -> Result<bool, Fault> {
        let mut fields = transfer.fields.clone();
        let handle = fields.uint()?.ok_or("a transfer without a handle")?;
        let link = LinkId { channel: transfer.channel, handle };
        let TransferFlags { more, aborted } = TransferFlags::read(&mut fields, transfer.count)?;
        let before = match self.partial.is_empty() {
            true => 0,
            false => self.partial.remove(&link).unwrap_or(0),
        };
        if more && !aborted {
            self.partial.insert(link, before.saturating_add(transfer.payload.len()));
        } else if !aborted {
            events.push(InboundEvent::Delivered(link));
        }
        Ok(before <= self.max_message)
    }

    /// How many transfers the broker takes on this session (§2.5.6): the field at this place. While it takes
    /// messages it gives more before none are left, so 0 is a decision: RabbitMQ is short of memory or disk.
    fn window(
        &mut self,
        performative: &Performative<'_>,
        at: usize,
        events: &mut Vec<InboundEvent>,
    ) -> Result<(), Fault> {
        let mut fields = performative.fields.clone();
        for _ in 0..at {
            fields.skip()?;
        }
        if let Some(window) = fields.uint()? {
            self.block(performative.channel, window == 0, events);
        }
        Ok(())
    }

    fn block(&mut self, channel: u16, is_blocked: bool, events: &mut Vec<InboundEvent>) {
        let before = !self.blocked.is_empty();
        if is_blocked {
            self.blocked.insert(channel);
        } else {
            self.blocked.remove(&channel);
        }
        let after = !self.blocked.is_empty();
        if before != after {
            events.push(InboundEvent::Blocked(after));
        }
    }
}

/// The last byte of a name, to be written so many bytes from the end of the frame.
struct LastByte {
    from_end: usize,
    byte: u8,
}

/// The fields of an attach: name, handle, role.
fn attach(
    attach: &Performative<'_>,
    frame_length: usize,
    events: &mut Vec<InboundEvent>,
) -> Result<Option<LastByte>, Fault> {
    let mut fields = attach.fields.clone();
    let Some(name) = fields.value()?.as_str().map(str::to_owned) else { return Ok(None) };
    // The fields end before the payload, which an attach should not have.
    let name_end = attach.payload.len() + fields.rest().len();
    let handle = fields.uint()?;
    if name == paired(PAIR_ON_THE_WIRE) {
        // The broker says its own role: where it receives, this side sends.
        let broker_receives = fields.truth()?;
        let byte = if broker_receives { PAIR_SENDER } else { PAIR_RECEIVER };
        return Ok((name_end < frame_length).then_some(LastByte { from_end: name_end + 1, byte }));
    }
    if let Some(handle) = handle {
        events.push(InboundEvent::Attached(LinkId { channel: attach.channel, handle }, name));
    }
    Ok(None)
}

/// The link of an attach by which the broker becomes its sender: name, handle, role.
fn sending(attach: &Performative<'_>) -> Result<Option<LinkId>, Fault> {
    let mut fields = attach.fields.clone();
    fields.skip()?;
    let handle = fields.uint()?;
    let broker_sends = !fields.truth()?;
    let link = handle.map(|handle| LinkId { channel: attach.channel, handle });
    Ok(link.filter(|_| broker_sends))
}

/// The fields of a flow: next-incoming-id, incoming-window, next-outgoing-id, outgoing-window, handle,
/// delivery-count, link-credit, available, drain. Returns the link that it is about, unless it ends a drain.
fn flow(flow: &Performative<'_>, events: &mut Vec<InboundEvent>) -> Result<Option<LinkId>, Fault> {
    let mut fields = flow.fields.clone();
    if flow.count < 5 {
        return Ok(None);
    }
    for _ in 0..4 {
        fields.skip()?;
    }
    let Some(handle) = fields.uint()? else { return Ok(None) };
    let link = LinkId { channel: flow.channel, handle };
    if flow.count >= 9 {
        for _ in 0..3 {
            fields.skip()?;
        }
        if fields.truth()? {
            events.push(InboundEvent::Drained(link));
            return Ok(None);
        }
    }
    Ok(Some(link))
}

/// The bytes of the first four fields of a flow, which are about its session.
fn session_fields<'a>(flow: &Performative<'a>) -> Result<&'a [u8], Fault> {
    let all = flow.fields.clone().rest();
    let mut fields = flow.fields.clone();
    for _ in 0..4 {
        fields.skip()?;
    }
    let length = all.len().saturating_sub(fields.rest().len());
    all.get(..length).ok_or_else(|| "a flow without its fields".into())
}

/// Appends a flow with these four fields alone (§2.7.4).
fn session_flow(channel: u16, fields: &[u8], out: &mut Vec<u8>) {
    let (size, channel) = (fields.len() + 4, channel.to_be_bytes());
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length(8 + 3 + 9 + fields.len()));
    out.extend_from_slice(&[2, 0, channel[0], channel[1]]);
    // Described by a small ulong; a list with lengths of 4 bytes.
    out.extend_from_slice(&[0x00, 0x53, 0x13, 0xd0]);
    out.extend_from_slice(&length(size));
    out.extend_from_slice(&length(4));
    out.extend_from_slice(fields);
}

/// Refuses a peer that takes only frames which are too small to be allowed. The fields of an open:
/// container-id, hostname, max-frame-size.
fn check_frame_size(open: &Performative<'_>) -> Result<(), Fault> {
    let mut fields = open.fields.clone();
    if open.count < 3 {
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

/// Makes the bytes of a message the content of a data section (§3.2.6), which fe2o3-amqp hands out unread.
fn wrap_message(frame: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let Ok(length) = u32::try_from(payload.len()) else { return out.extend_from_slice(frame) };
    let [a, b, c, d] = length.to_be_bytes();
    replace_payload(frame, payload, [&[0x00, 0x53, 0x75, 0xb0, a, b, c, d], payload], out);
}

/// More links than any session of this crate has: a broker that attaches without end fills no memory.
const MAX_LINKS: usize = 65_536;

/// The smallest frame that each side must take, in bytes (§2.7.1: 512).
const FRAME_MIN: u32 = 512;
