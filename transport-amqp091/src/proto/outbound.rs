//! The frames that lapin writes, on their way to the broker: those on a channel that has just closed are left
//! out, and the events that frames mean for this side are returned.
//!
//! lapin sometimes writes an acknowledgement after a `channel.close-ok`. To the broker that is a frame on a channel
//! that was never opened (§4.3): it closes the connection with 504, and all channels on it. The broker would have
//! ignored the frame on the open channel as well.

use super::{
    frame::METHOD,
    methods::{BASIC_CANCEL, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_OPEN, CONNECTION_TUNE_OK},
};

/// The frames that lapin writes, in its order.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// The beginning of a frame whose end lapin has not written yet: lapin writes from a ring buffer, so a write may
    /// end in the middle of a frame. Always shorter than that frame.
    begun: Vec<u8>,
    /// The channels on which the last frame of lapin's was `channel.close` or `channel.close-ok`. No frame but
    /// `channel.open` passes on them. Each is here once, until it is opened again.
    closed: Vec<u16>,
}

/// What a frame of lapin's means for this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboundEvent {
    /// No frame may have more bytes than this (`connection.tune-ok`); 0 means no limit.
    FrameMax(u32),
    /// Nothing may follow on this channel (`channel.close`).
    Close(u16),
    /// lapin has answered the broker's `channel.close` (`channel.close-ok`): its number may be given to the next one.
    CloseOk(u16),
    /// lapin cancels the consumer of this channel (`basic.cancel`).
    Cancel(u16),
}

impl Outbound {
    /// Takes the bytes that lapin writes; hands each whole frame that may pass to `pass`, and each event to `event`.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut pass: impl FnMut(&[u8]),
        mut event: impl FnMut(OutboundEvent),
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
            if self.passes(frame, &mut event) {
                pass(frame);
            }
            rest = after;
        }
        self.begun.extend_from_slice(rest);
    }

    fn passes(&mut self, frame: &[u8], event: &mut impl FnMut(OutboundEvent)) -> bool {
        let Some(&[METHOD, c0, c1, _, _, _, _, m0, m1, m2, m3]) = frame.first_chunk() else {
            return !self.closed.contains(&channel(frame));
        };
        let channel = u16::from_be_bytes([c0, c1]);
        let method = (u16::from_be_bytes([m0, m1]), u16::from_be_bytes([m2, m3]));
        match method {
            CHANNEL_OPEN => self.closed.retain(|closed| *closed != channel),
            CHANNEL_CLOSE | CHANNEL_CLOSE_OK => {
                self.closed.retain(|closed| *closed != channel);
                self.closed.push(channel);
                event(match method {
                    CHANNEL_CLOSE => OutboundEvent::Close(channel),
                    _ => OutboundEvent::CloseOk(channel),
                });
            }
            _ if self.closed.contains(&channel) => return false,
            BASIC_CANCEL => event(OutboundEvent::Cancel(channel)),
            CONNECTION_TUNE_OK => {
                // channel-max (2 bytes), frame-max (4 bytes), heartbeat (2 bytes).
                if let Some(frame_max) = frame.get(13..17).and_then(|max| max.try_into().ok()) {
                    event(OutboundEvent::FrameMax(u32::from_be_bytes(frame_max)));
                }
            }
            _ => {}
        }
        true
    }
}

/// The length of the frame that begins here; `None` while its first 7 bytes are not there.
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
            let (mut closed, mut expected_events) = (Vec::new(), Vec::new());
            for sent in &all {
                bytes.extend(sent.bytes());
                match sent {
                    Sent::Ack(channel, _) | Sent::Cancel(channel) if closed.contains(channel) => {
                        continue;
                    }
                    Sent::Ack(..) => {}
                    Sent::Cancel(channel) => expected_events.push(OutboundEvent::Cancel(*channel)),
                    Sent::Open(channel) => closed.retain(|other| other != channel),
                    Sent::Close(channel) => expected_events.push(OutboundEvent::Close(*channel)),
                    Sent::CloseOk(channel) => expected_events.push(OutboundEvent::CloseOk(*channel)),
                }
                if let Sent::Close(channel) | Sent::CloseOk(channel) = sent {
                    closed.push(*channel);
                }
                expected.extend(sent.bytes());
            }

            let mut outbound = Outbound::default();
            let (mut written, mut events) = (Vec::new(), Vec::new());
            let mut pieces = pieces.iter().cycle();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
                outbound.take(piece, |frame| written.extend_from_slice(frame), |event| events.push(event));
                rest = after;
            }
            prop_assert_eq!(written, expected);
            prop_assert_eq!(events, expected_events);
        }
    }

    #[test]
    fn the_frame_limit_is_the_agreed_one() {
        let mut events = Vec::new();
        let tune_ok = frame(0, &[0, 10, 0, 31, 7, 255, 0, 1, 0, 0, 0, 10]);
        Outbound::default().take(&tune_ok, |_| {}, |event| events.push(event));
        assert_eq!(events, [OutboundEvent::FrameMax(65_536)]);
    }
}
