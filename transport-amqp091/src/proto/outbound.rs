//! What lapin writes, frame by frame: keeps those off the wire that belong to a channel which has just
//! closed, and notes what this side has agreed to. Pure.
//!
//! lapin writes an acknowledgement after a `channel.close-ok` now and then. To the broker that is a frame
//! on a channel that was never opened: it closes the connection (504), and everything else on it goes
//! down. What is dropped here the broker would not have taken either.

/// The frames that lapin writes, in its order.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// The beginning of a frame that is not whole yet. lapin's buffer is a ring.
    begun: Vec<u8>,
    /// Channels of which the last frame was `close` or `close-ok`. Few and seldom.
    closed: Vec<u16>,
}

/// What a frame of lapin's says to whoever publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboundEvent {
    /// Frames may be so large (`connection.tune-ok`).
    FrameMax(u32),
    /// Nothing may follow on this channel (`channel.close`).
    Close(u16),
    /// The channel is gone (`channel.close-ok`).
    CloseOk(u16),
    /// The consumer of the channel is to end (`basic.cancel`).
    Cancel(u16),
}

impl Outbound {
    /// Takes what lapin writes; hands on whole frames, and what they say.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut pass: impl FnMut(&[u8]),
        mut said: impl FnMut(OutboundEvent),
    ) {
        let begun = std::mem::take(&mut self.begun);
        let joined;
        let mut rest = bytes;
        if !begun.is_empty() {
            joined = [begun.as_slice(), bytes].concat();
            rest = joined.as_slice();
        }
        while let Some(length) = length(rest)
            && let Some((frame, after)) = rest.split_at_checked(length)
        {
            if self.passes(frame, &mut said) {
                pass(frame);
            }
            rest = after;
        }
        self.begun.extend_from_slice(rest);
    }

    fn passes(&mut self, frame: &[u8], said: &mut impl FnMut(OutboundEvent)) -> bool {
        let Some(&[METHOD, c0, c1, _, _, _, _, m0, m1, m2, m3]) = frame.first_chunk() else {
            return !self.closed.contains(&channel(frame));
        };
        let channel = u16::from_be_bytes([c0, c1]);
        match [m0, m1, m2, m3] {
            CHANNEL_OPEN => self.closed.retain(|closed| *closed != channel),
            method @ (CHANNEL_CLOSE | CHANNEL_CLOSE_OK) => {
                self.closed.retain(|closed| *closed != channel);
                self.closed.push(channel);
                said(match method {
                    CHANNEL_CLOSE => OutboundEvent::Close(channel),
                    _ => OutboundEvent::CloseOk(channel),
                });
            }
            BASIC_CANCEL if !self.closed.contains(&channel) => said(OutboundEvent::Cancel(channel)),
            TUNE_OK => {
                if let Some(frame_max) = frame.get(13..17).and_then(|max| max.try_into().ok()) {
                    said(OutboundEvent::FrameMax(u32::from_be_bytes(frame_max)));
                }
            }
            _ => return !self.closed.contains(&channel),
        }
        true
    }
}

/// How long the frame is that begins here, once that can be told.
fn length(bytes: &[u8]) -> Option<usize> {
    match *bytes.first_chunk::<7>()? {
        // The protocol header, before all frames.
        [b'A', ..] => Some(8),
        [_, _, _, l0, l1, l2, l3] => {
            usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?.checked_add(8)
        }
    }
}

fn channel(frame: &[u8]) -> u16 {
    match *frame {
        [b'A', ..] => 0,
        [_, c0, c1, ..] => u16::from_be_bytes([c0, c1]),
        _ => 0,
    }
}

const METHOD: u8 = 1;
const BASIC_CANCEL: [u8; 4] = [0, 60, 0, 30];
const TUNE_OK: [u8; 4] = [0, 10, 0, 31];
const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![METHOD];
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(0xce);
        frame
    }

    #[derive(Debug, Clone)]
    enum Sent {
        Open(u16),
        Close(u16),
        CloseOk(u16),
        Cancel(u16),
        Ack(u16, u8),
    }

    impl Sent {
        fn bytes(&self) -> Vec<u8> {
            match self {
                Self::Open(channel) => frame(*channel, &[0, 20, 0, 10, 0]),
                Self::Close(channel) => frame(*channel, &[0, 20, 0, 40, 0, 200, 0]),
                Self::CloseOk(channel) => frame(*channel, &[0, 20, 0, 41]),
                Self::Cancel(channel) => frame(*channel, &[0, 60, 0, 30, 1, b't', 0]),
                Self::Ack(channel, tag) => {
                    frame(*channel, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, *tag, 0])
                }
            }
        }
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let channel = || 1..4u16;
        prop_oneof![
            1 => channel().prop_map(Sent::Open),
            1 => channel().prop_map(Sent::Close),
            1 => channel().prop_map(Sent::CloseOk),
            1 => channel().prop_map(Sent::Cancel),
            5 => (channel(), any::<u8>()).prop_map(|(channel, tag)| Sent::Ack(channel, tag)),
        ]
    }

    proptest! {
        #[test]
        fn frames_on_a_closed_channel_are_dropped_and_no_others(
            all in vec(sent(), 0..60),
            pieces in vec(1..100usize, 1..20),
        ) {
            let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
            let mut expected = bytes.clone();
            let (mut closed, mut told) = (Vec::new(), Vec::new());
            for sent in &all {
                bytes.extend(sent.bytes());
                match sent {
                    Sent::Ack(channel, _) | Sent::Cancel(channel) if closed.contains(channel) => {
                        continue;
                    }
                    Sent::Ack(..) => {}
                    Sent::Cancel(channel) => told.push(OutboundEvent::Cancel(*channel)),
                    Sent::Open(channel) => closed.retain(|other| other != channel),
                    Sent::Close(channel) => told.push(OutboundEvent::Close(*channel)),
                    Sent::CloseOk(channel) => told.push(OutboundEvent::CloseOk(*channel)),
                }
                if let Sent::Close(channel) | Sent::CloseOk(channel) = sent {
                    closed.push(*channel);
                }
                expected.extend(sent.bytes());
            }

            let mut outbound = Outbound::default();
            let (mut written, mut said) = (Vec::new(), Vec::new());
            let mut pieces = pieces.iter().cycle();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
                outbound.take(piece, |frame| written.extend_from_slice(frame), |what| said.push(what));
                rest = after;
            }
            prop_assert_eq!(written, expected);
            prop_assert_eq!(said, told);
        }
    }

    #[test]
    fn the_size_of_frames_is_what_was_agreed_on() {
        let mut said = Vec::new();
        let tune_ok = frame(0, &[0, 10, 0, 31, 7, 255, 0, 1, 0, 0, 0, 10]);
        Outbound::default().take(&tune_ok, |_| {}, |what| said.push(what));
        assert_eq!(said, [OutboundEvent::FrameMax(65_536)]);
    }
}
