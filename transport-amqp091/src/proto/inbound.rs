//! The bytes of the broker on their way to lapin: they pass frame by frame, as the guard judges, and the
//! events that they mean are returned on the way.
//!
//! A body passes piece by piece, as its bytes come: it is judged by its first 7 bytes. A method or header frame is
//! judged as a whole.

mod buffer;
#[cfg(test)]
mod tests;

use enoki_amqp::PeerProperties;

use self::buffer::Buffer;
use super::{
    event::InboundEvent,
    fault::FrameFault,
    frame::{BODY, FrameHead, HEADER, HEARTBEAT, METHOD, check_end},
    guard::{Guard, Judgement, Verdict},
    peer_properties,
};

/// The bytes of one connection that came, and that lapin has not taken.
#[derive(Debug)]
pub(crate) struct Inbound {
    guard: Guard,
    buffer: Buffer,
    /// Why nothing is judged any more. Frames that passed before it are still handed on.
    fault: Option<FrameFault>,
    /// How many bytes are still to come of the frame that passes piece by piece; 0 between frames.
    left: usize,
    /// Whether those bytes pass. Means something only while `left` is not 0.
    passes: bool,
    /// Set by the first frame, and never changed.
    peer_properties: Option<PeerProperties>,
    /// Whether a second frame has begun. Never true before `peer_properties` is set.
    answered: bool,
}

impl Inbound {
    /// For one connection, on which lapin gets no body of more than `max_body` bytes.
    pub(crate) fn new(max_body: usize) -> Self {
        Self {
            guard: Guard::new(max_body),
            buffer: Buffer::default(),
            fault: None,
            left: 0,
            passes: true,
            peer_properties: None,
            answered: false,
        }
    }

    /// Room for bytes from the socket; then [`filled`](Self::filled) says how many came.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buffer.room()
    }

    /// So many bytes of the room were filled; then [`next_event`](Self::next_event) judges them.
    pub(crate) fn filled(&mut self, count: usize) {
        self.buffer.filled(count);
    }

    /// Judges bytes until they mean something; `None` when all bytes are judged that can be.
    pub(crate) fn next_event(&mut self) -> Option<InboundEvent> {
        if self.fault.is_some() {
            return None;
        }
        match self.judge() {
            Ok(event) => event,
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        }
    }

    /// How many bytes lapin may take.
    pub(crate) fn ready(&self) -> usize {
        self.buffer.ready()
    }

    /// Hands bytes to lapin, as far as there is room for them. After the last of them comes the fault that
    /// ended the connection, if one did.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> Result<usize, FrameFault> {
        let count = self.buffer.take(out);
        match &self.fault {
            Some(fault) if count == 0 && !out.is_empty() => Err(fault.clone()),
            _ => Ok(count),
        }
    }

    /// Whether the broker sent a frame that ends the connection.
    pub(crate) fn has_failed(&self) -> bool {
        self.fault.is_some()
    }

    /// Gives lapin this frame, too, unless a frame is in the middle of passing.
    pub(crate) fn insert(&mut self, frame: &[u8]) {
        if self.left == 0 || !self.passes {
            self.buffer.insert(frame);
        }
    }

    /// lapin cancels the consumer of this channel, and expects one answer.
    pub(crate) fn expect_cancel_ok(&mut self, channel: u16) {
        self.guard.expect_cancel_ok(channel);
    }

    /// lapin has answered the broker's `channel.close`.
    pub(crate) fn channel_closed(&mut self, channel: u16) {
        self.guard.channel_closed(channel);
    }

    /// What the broker said of itself in its first frame; `None` before that frame.
    pub(crate) fn peer_properties(&self) -> Option<&PeerProperties> {
        self.peer_properties.as_ref()
    }

    /// Whether the broker sent anything after its first frame.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    fn judge(&mut self) -> Result<Option<InboundEvent>, FrameFault> {
        loop {
            if self.left > 0 {
                let count = self.pass_piece()?;
                if count > 0 && !self.passes {
                    return Ok(Some(InboundEvent::LeftOut));
                }
                if self.left > 0 {
                    return Ok(None);
                }
            }
            let first = self.peer_properties.is_none();
            let Some(head) = FrameHead::read(self.buffer.pending(), first)? else {
                return Ok(None);
            };
            let event = match head.kind {
                METHOD | HEADER => {
                    let Some(frame) = self.buffer.pending_mut().get_mut(..head.length) else {
                        return Ok(None);
                    };
                    check_end(frame)?;
                    let judgement = if head.kind == METHOD {
                        if first {
                            self.peer_properties = Some(peer_properties::read(frame));
                        }
                        self.guard.method(head.channel, frame)?
                    } else {
                        self.guard.header(head.channel, frame)?
                    };
                    self.apply(&head, judgement)
                }
                BODY | HEARTBEAT => {
                    self.passes = head.kind == HEARTBEAT || self.guard.passes_body(&head);
                    self.left = head.length;
                    None
                }
                // The broker speaks another version, says which, and closes the connection.
                _ => {
                    self.buffer.pass(head.length);
                    None
                }
            };
            self.answered = !first;
            self.peer_properties.get_or_insert_default();
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Passes a whole frame on, or not, as it was judged.
    fn apply(&mut self, head: &FrameHead, judgement: Judgement) -> Option<InboundEvent> {
        let Judgement { verdict, event } = judgement;
        match verdict {
            Verdict::Pass => self.buffer.pass(head.length),
            Verdict::Replace(frame) => self.buffer.replace(head.length, &frame),
            Verdict::LeaveOut => {
                self.buffer.leave_out(head.length);
                return event.or(Some(InboundEvent::LeftOut));
            }
        }
        event
    }

    /// Passes on, or leaves out, as many bytes as are there of a frame; says how many.
    fn pass_piece(&mut self) -> Result<usize, FrameFault> {
        let mut count = self.left.min(self.buffer.pending().len());
        self.left -= count;
        let ended = match self.left {
            0 => check_end(self.buffer.pending().get(..count).unwrap_or_default()),
            _ => Ok(()),
        };
        if ended.is_err() {
            count -= 1;
        }
        if self.passes {
            self.buffer.pass(count);
        } else {
            self.buffer.leave_out(count);
        }
        ended.map(|()| count)
    }
}
