//! What a frame is. Pure.
//!
//! A frame is a length (4 bytes), an offset of the body in words, a type, a channel (2 bytes), and
//! the body: a performative, which is a described list, and in a transfer the bytes of a message.

use super::decode::{Cursor, Fault};

/// The length of the frame that begins here, once enough of it is there. It has so many bytes at most.
pub(crate) fn length(bytes: &[u8], most: usize) -> Result<Option<usize>, Fault> {
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
pub(crate) struct Opened<'a> {
    pub(crate) channel: u16,
    pub(crate) code: u64,
    pub(crate) fields: Cursor<'a>,
    pub(crate) count: usize,
    /// What follows the performative: in a transfer, the message.
    pub(crate) payload: &'a [u8],
}

pub(crate) fn open(frame: &[u8]) -> Option<Opened<'_>> {
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

/// What a transfer says of its message.
pub(crate) struct Transferred {
    /// There is more of it.
    pub(crate) more: bool,
    /// There will be no more of it, and what there was is void.
    pub(crate) aborted: bool,
}

/// After the handle: delivery-id, delivery-tag, message-format, settled, more, rcv-settle-mode, state,
/// resume, aborted.
pub(crate) fn transferred(fields: &mut Cursor<'_>, count: usize) -> Result<Transferred, Fault> {
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

pub(crate) const OPEN: u64 = 0x10;
pub(crate) const BEGIN: u64 = 0x11;
pub(crate) const ATTACH: u64 = 0x12;
pub(crate) const FLOW: u64 = 0x13;
pub(crate) const TRANSFER: u64 = 0x14;
pub(crate) const DETACH: u64 = 0x16;
pub(crate) const END: u64 = 0x17;
