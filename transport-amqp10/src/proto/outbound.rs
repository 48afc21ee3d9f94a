//! Frames on their way from fe2o3-amqp to the socket. Pure.

use std::collections::HashSet;

use super::{
    decode::Fault,
    frame::{ATTACH, OPEN, Opened, TRANSFER, open, transferred},
    inbound::OVERHEAD,
    link_names::{PAIR_ON_THE_WIRE, PAIR_RECEIVER, PAIR_SENDER, paired},
};

/// What goes out.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// Links by channel and handle in the middle of a message of several frames.
    unfinished: HashSet<(u16, u32)>,
}

impl Outbound {
    /// Passes a whole frame on to the broker.
    pub(crate) fn pass(&mut self, frame: &[u8], out: &mut Vec<u8>) {
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

/// Announces frames smaller than fe2o3-amqp takes, by what is added to those that come in: container-id, hostname,
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
