//! Frames of AMQP 0-9-1: a type, a channel, a size, the payload, and an end.

use super::{Kind, number};
use crate::proxy::Direction;

/// Whether a frame, or a header before the first, may begin like this.
pub(super) fn may_begin(buffer: &[u8]) -> bool {
    matches!(buffer, [] | [1 | 2 | 3 | 8 | b'A', ..])
}

/// How long the frame at the start is, end octet included.
pub(super) fn size(buffer: &[u8]) -> Option<usize> {
    let size = usize::try_from(number::<4>(buffer, 3)?).ok()?;
    Some(HEADER + size + 1)
}

pub(super) fn kind(frame: &[u8], direction: Direction) -> Kind {
    match frame.first() {
        Some(1) => method(frame, direction),
        Some(8) => Kind::Heartbeat,
        _ => Kind::Other,
    }
}

fn method(frame: &[u8], direction: Direction) -> Kind {
    let (class, method) = (number::<2>(frame, HEADER), number::<2>(frame, HEADER + 2));
    match (class, method, direction) {
        (Some(10), Some(41), _) => Kind::Opened,
        (Some(10), Some(50), _) => Kind::Close,
        (Some(10), Some(51), _) => Kind::CloseOk,
        (Some(60), Some(40), _) => Kind::Publish,
        (Some(60), Some(50), _) => Kind::Return,
        (Some(60), Some(60), _) => Kind::Delivery,
        (Some(60), Some(80 | 120), Direction::FromBroker) => Kind::Confirm,
        (Some(60), Some(80 | 90 | 120), Direction::ToBroker) => Kind::Settlement,
        _ => Kind::Other,
    }
}

/// Type, channel and size.
const HEADER: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(class: u8, method: u8) -> Vec<u8> {
        vec![1, 0, 1, 0, 0, 0, 4, 0, class, 0, method, 0xce]
    }

    #[test]
    fn an_ack_is_a_confirm_one_way_and_a_settlement_the_other() {
        assert_eq!(kind(&frame(60, 80), Direction::FromBroker), Kind::Confirm);
        assert_eq!(kind(&frame(60, 80), Direction::ToBroker), Kind::Settlement);
        assert_eq!(kind(&frame(60, 90), Direction::ToBroker), Kind::Settlement);
        assert_eq!(kind(&frame(60, 120), Direction::FromBroker), Kind::Confirm);
    }

    #[test]
    fn a_channel_that_closes_is_no_connection_that_closes() {
        assert_eq!(kind(&frame(10, 50), Direction::ToBroker), Kind::Close);
        assert_eq!(kind(&frame(20, 40), Direction::ToBroker), Kind::Other);
    }

    #[test]
    fn a_short_frame_is_no_panic() {
        for length in 0..12 {
            let frame = &frame(60, 80)[..length];
            let _ = (size(frame), kind(frame, Direction::ToBroker));
        }
    }
}
