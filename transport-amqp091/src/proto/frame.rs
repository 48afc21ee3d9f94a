//! The beginning and the end of a frame (§4.2.3).
//!
//! A frame is a type (1 byte), a channel (2 bytes), the length of the payload (4 bytes), the payload, and an end
//! (1 byte).

use lapin::protocol::constants::FRAME_END;

use super::fault::FrameFault;
use crate::limits::FRAME_MAX;

/// The beginning of a frame from the broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    /// [`METHOD`], [`HEADER`], [`BODY`] or [`HEARTBEAT`]; `b'A'` for a protocol header.
    pub(super) kind: u8,
    pub(super) channel: u16,
    /// The length of the whole frame. At most [`FRAME_MAX`], and at least [`OVERHEAD`] (a protocol header has 8
    /// bytes, too).
    pub(super) length: usize,
}

impl FrameHead {
    /// Reads the beginning of a frame; `None` while too few bytes of it are there.
    ///
    /// In place of the `first` frame a broker may send a protocol header, when it speaks another version
    /// (§4.2.2).
    pub(super) fn read(bytes: &[u8], first: bool) -> Result<Option<Self>, FrameFault> {
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

/// Checks the last byte of a frame.
pub(super) fn check_end(frame: &[u8]) -> Result<(), FrameFault> {
    if frame.last() == Some(&FRAME_END) { Ok(()) } else { Err("a frame without its end".into()) }
}

/// The payload of a whole frame.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    frame.len().checked_sub(1).and_then(|end| frame.get(7..end)).unwrap_or_default()
}

/// The bytes of a frame besides its payload: 7 before it and 1 after it.
pub(crate) const OVERHEAD: usize = 8;

/// The types of frames.
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;

/// A whole heartbeat frame (§4.2.7).
pub(crate) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];
