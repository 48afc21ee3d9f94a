//! Frames on their way from fe2o3-amqp to the broker. Pure.
//!
//! Three kinds are changed, all others pass as they are:
//!
//! - a transfer: the message is taken out of the data section that fe2o3-amqp put it in;
//! - the attach of a link of the management pair: it gets the name that both have on the wire;
//! - the open: it asks for smaller frames, since [`inbound`](super::inbound) makes them longer.

use std::collections::HashSet;

use super::{
    fault::Fault,
    frame::{ATTACH, DATA_HEAD, OPEN, Performative, TRANSFER, TransferFlags, replace_payload},
    link_names::{PAIR_ON_THE_WIRE, PAIR_RECEIVER, PAIR_SENDER, paired},
};

/// Changes frames on their way to the broker.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// The links, by channel and handle, that have sent a part of a message and not its end. The data section
    /// begins in the first part only.
    unfinished: HashSet<(u16, u32)>,
}

impl Outbound {
    /// Appends a whole frame as the broker gets it.
    pub(crate) fn pass(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        match Performative::read(frame) {
            Some(transfer) if transfer.code == TRANSFER => {
                if self.begins_message(&transfer).unwrap_or(false) {
                    unwrap_message(frame, transfer.payload, out);
                } else {
                    out.extend_from_slice(frame);
                }
            }
            Some(attach) if attach.code == ATTACH => {
                out.extend_from_slice(frame);
                let mut fields = attach.fields;
                if let Ok(name) = fields.value()
                    && name.as_str().is_some_and(|name| {
                        name == paired(PAIR_SENDER) || name == paired(PAIR_RECEIVER)
                    })
                    && let Some(at) = out.len().checked_sub(fields.rest().len() + 1)
                    && let Some(last) = out.get_mut(at)
                {
                    *last = PAIR_ON_THE_WIRE;
                }
            }
            Some(open) if open.code == OPEN => {
                out.extend_from_slice(frame);
                let _ = ask_for_smaller_frames(open, out);
            }
            _ => out.extend_from_slice(frame),
        }
    }

    /// Whether a transfer is the first of its message.
    fn begins_message(&mut self, transfer: &Performative<'_>) -> Result<bool, Fault> {
        let mut fields = transfer.fields.clone();
        let handle = fields.uint()?.ok_or("a transfer without a handle")?;
        let link = (transfer.channel, handle);
        let begins = if TransferFlags::read(&mut fields, transfer.count)?.more {
            self.unfinished.insert(link)
        } else {
            !self.unfinished.remove(&link)
        };
        Ok(begins)
    }
}

/// Takes a message out of its data section (§3.2.6), of which the payload is the beginning.
fn unwrap_message(frame: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let section_head = match payload {
        [0x00, 0x53, 0x75, 0xa0, _, ..] => 5,
        [0x00, 0x53, 0x75, 0xb0, _, _, _, _, ..] => DATA_HEAD,
        _ => return out.extend_from_slice(frame),
    };
    let message = payload.get(section_head..).unwrap_or_default();
    replace_payload(frame, payload, [message, &[]], out);
}

/// Lowers the third field of an open: container-id, hostname, max-frame-size.
fn ask_for_smaller_frames(open: Performative<'_>, out: &mut [u8]) -> Result<(), Fault> {
    let mut fields = open.fields;
    fields.skip()?;
    fields.skip()?;
    let at = out.len().checked_sub(fields.rest().len()).ok_or("no room")?;
    if let Some([0x70, size @ ..]) = out.get_mut(at..at + 5)
        && let Ok(bytes) = <[u8; 4]>::try_from(&*size)
    {
        let smaller = u32::from_be_bytes(bytes).saturating_sub(DATA_HEAD as u32);
        size.copy_from_slice(&smaller.to_be_bytes());
    }
    Ok(())
}
