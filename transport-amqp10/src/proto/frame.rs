//! Frames (§2.3). Pure.
//!
//! A frame is a length (4 bytes), an offset of the body in words of 4 bytes (1 byte), a type (1 byte), a
//! channel (2 bytes), and the body: a performative (§2.7), which is a described list, and in a transfer the
//! bytes of a message behind it.

use super::{decode::Cursor, fault::Fault};

/// The length of the frame that begins with these bytes, which may have `most` bytes; `None` until enough of
/// it is there to tell.
pub(crate) fn length(bytes: &[u8], most: usize) -> Result<Option<usize>, Fault> {
    let Some(head) = bytes.first_chunk::<8>() else { return Ok(None) };
    let [length @ .., _, _, _, _] = *head;
    // Between the layers of a connection each side names the next one (§2.2), without a frame.
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

/// The performative of a frame, its fields not yet read.
pub(crate) struct Performative<'a> {
    pub(crate) channel: u16,
    /// Which performative it is: [`OPEN`], [`BEGIN`], …
    pub(crate) code: u64,
    /// The fields, of which there are `count`. Fields at the end may be left out, which means null.
    pub(crate) fields: Cursor<'a>,
    pub(crate) count: usize,
    /// The bytes behind the performative: in a transfer, those of the message.
    pub(crate) payload: &'a [u8],
}

impl<'a> Performative<'a> {
    /// Reads the head of a whole frame. `None` for a frame of the login, a heartbeat, the name of a protocol,
    /// and a body that is no described list.
    pub(crate) fn read(frame: &'a [u8]) -> Option<Self> {
        let [first, _, _, _, offset, kind, high, low] = *frame.first_chunk::<8>()?;
        if kind != 0 || (first == b'A' && frame.starts_with(b"AMQP")) {
            return None;
        }
        let mut cursor = Cursor::new(frame.get(usize::from(offset) * 4..)?);
        if cursor.is_empty() {
            // A heartbeat.
            return None;
        }
        let code = cursor.descriptor().ok()?;
        let (count, fields) = cursor.list().ok()?;
        Some(Self {
            channel: u16::from_be_bytes([high, low]),
            code,
            fields,
            count,
            payload: cursor.rest(),
        })
    }
}

/// What a transfer says about the message that it carries a part of (§2.7.5).
pub(crate) struct TransferFlags {
    /// More transfers of this message follow.
    pub(crate) more: bool,
    /// The message was given up: no more of it follows, and its earlier parts are void.
    pub(crate) aborted: bool,
}

impl TransferFlags {
    /// Reads the fields after the handle: delivery-id, delivery-tag, message-format, settled, more,
    /// rcv-settle-mode, state, resume, aborted. `count` is that of all fields.
    pub(crate) fn read(fields: &mut Cursor<'_>, count: usize) -> Result<Self, Fault> {
        let mut flags = Self { more: false, aborted: false };
        if count >= 6 {
            for _ in 0..4 {
                fields.skip()?;
            }
            flags.more = fields.truth()?;
        }
        if count >= 10 {
            for _ in 0..3 {
                fields.skip()?;
            }
            flags.aborted = fields.truth()?;
        }
        Ok(flags)
    }
}

/// A frame with these bytes in place of its payload, which is the last part of it.
pub(crate) fn replace_payload(frame: &[u8], payload: &[u8], parts: [&[u8]; 2], out: &mut Vec<u8>) {
    let head = frame.len().checked_sub(payload.len()).and_then(|end| frame.get(4..end));
    let Some(head) = head else { return out.extend_from_slice(frame) };
    let [first, second] = parts;
    let length = 4 + head.len() + first.len() + second.len();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in [head, first, second] {
        out.extend_from_slice(part);
    }
}

/// How many bytes the head of a data section has whose length is written in 4 bytes: `00 53 75 b0` and the
/// length. A message that is wrapped into one is longer by this.
pub(crate) const DATA_HEAD: usize = 8;

// The codes of performatives (§2.7).
pub(crate) const OPEN: u64 = 0x10;
pub(crate) const BEGIN: u64 = 0x11;
pub(crate) const ATTACH: u64 = 0x12;
pub(crate) const FLOW: u64 = 0x13;
pub(crate) const TRANSFER: u64 = 0x14;
pub(crate) const DETACH: u64 = 0x16;
pub(crate) const END: u64 = 0x17;
