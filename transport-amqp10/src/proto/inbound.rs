//! Frames on their way from the socket to fe2o3-amqp. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    decode::{Cursor, Fault},
    frame::{
        ATTACH, BEGIN, DETACH, END, FLOW, OPEN, Opened, TRANSFER, Transferred, open, transferred,
    },
    link_names::{PAIR_ON_THE_WIRE, PAIR_RECEIVER, PAIR_SENDER, paired},
};
use crate::io::link_progress::{Gauge, Links};

/// What a broker says of itself when it opens a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) product: Option<String>,
    pub(crate) version: Option<String>,
}

/// What comes in.
#[derive(Debug)]
pub(crate) struct Inbound {
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
    pub(crate) fn new(links: Arc<Links>, max_message: usize) -> Self {
        Self {
            links,
            gauges: HashMap::new(),
            partial: HashMap::new(),
            blocked: HashSet::new(),
            max_message,
        }
    }

    /// Passes a whole frame on to fe2o3-amqp, which may read it. What this cannot read, it leaves to it.
    pub(crate) fn pass(
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

    /// next-incoming-id, incoming-window, next-outgoing-id, outgoing-window, handle, delivery-count,
    /// link-credit, available, drain.
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

/// What [`wrap`] adds to a frame.
pub(crate) const OVERHEAD: usize = 8;

/// What a frame may at least have, everywhere (§2.7.1).
const FRAME_MIN: u32 = 512;
