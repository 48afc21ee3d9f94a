//! Frames of AMQP 1.0: a size, the offset of the data, a type, a channel, and a performative.

use super::{Kind, number};
use crate::proxy::Direction;

/// How long the frame at the start is.
pub(super) fn size(buffer: &[u8]) -> Option<usize> {
    // It counts itself. Less than its own header would never end.
    number::<4>(buffer, 0).and_then(|size| usize::try_from(size).ok()).map(|size| size.max(8))
}

pub(super) fn kind(frame: &[u8], direction: Direction) -> Kind {
    let Some(performative) = performative(frame) else { return Kind::Other };
    if frame.get(5) != Some(&0) {
        return Kind::Other; // of the login
    }
    let Some((descriptor, fields)) = described(performative) else {
        return if performative.is_empty() { Kind::Heartbeat } else { Kind::Other };
    };
    match (descriptor, direction) {
        (0x10, Direction::FromBroker) => Kind::Opened,
        (0x14, _) if !begins_unsettled(fields) => Kind::Other,
        (0x14, Direction::ToBroker) => Kind::Publish,
        (0x14, Direction::FromBroker) => Kind::Delivery,
        (0x15, Direction::FromBroker) if field(fields, 0) == Some(RECEIVER) => Kind::Confirm,
        (0x15, Direction::ToBroker) if field(fields, 0) == Some(RECEIVER) => Kind::Settlement,
        (0x18, Direction::ToBroker) => Kind::Close,
        (0x18, Direction::FromBroker) => Kind::CloseOk,
        _ => Kind::Other,
    }
}

/// Whether this transfer is the first of a message that its receiver has to settle. Requests to the
/// management node and their answers are sent settled; they are no messages of the program's.
fn begins_unsettled(fields: &[u8]) -> bool {
    let has_id = field(fields, 1).is_some_and(|id| id != [0x40]);
    let settled = field(fields, 4).is_some_and(|settled| matches!(settled, [0x41] | [0x56, 1]));
    has_id && !settled
}

fn performative(frame: &[u8]) -> Option<&[u8]> {
    let offset = usize::from(*frame.get(4)?) * 4;
    frame.get(offset..)
}

/// The descriptor's number and the fields of a described list.
fn described(performative: &[u8]) -> Option<(u64, &[u8])> {
    let (descriptor, list) = match performative {
        [0x00, 0x53, descriptor, list @ ..] => (u64::from(*descriptor), list),
        [0x00, 0x80, rest @ ..] => (number::<8>(rest, 0)?, rest.get(8..)?),
        _ => return None,
    };
    let fields = match list.first()? {
        0x45 => &[],
        0xc0 => list.get(3..)?,
        0xd0 => list.get(9..)?,
        _ => return None,
    };
    Some((descriptor, fields))
}

/// The bytes of one field, constructor included. Those that are not there are not null.
fn field(mut fields: &[u8], number: usize) -> Option<&[u8]> {
    for _ in 0..number {
        fields = fields.get(length(fields)?..)?;
    }
    fields.get(..length(fields)?)
}

/// How many bytes the value at the start has: the upper half of its constructor says so.
fn length(value: &[u8]) -> Option<usize> {
    let body = match value.first()? >> 4 {
        0x4 => 0,
        0x5 => 1,
        0x6 => 2,
        0x7 => 4,
        0x8 => 8,
        0x9 => 16,
        0xa | 0xc | 0xe => 1 + usize::from(*value.get(1)?),
        0xb | 0xd | 0xf => 4 + usize::try_from(number::<4>(value, 1)?).ok()?,
        _ => return None,
    };
    Some(1 + body)
}

/// The role of who received what a disposition is about.
const RECEIVER: &[u8] = &[0x41];

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(descriptor: u8, fields: &[u8], count: u8) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 1, 0, 0x53, descriptor, 0xc0, fields.len() as u8 + 1, count];
        body.extend(fields);
        let mut frame = (body.len() as u32 + 4).to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    #[test]
    fn a_disposition_is_a_confirm_one_way_and_a_settlement_the_other() {
        let of_a_receiver = frame(0x15, &[0x41, 0x43, 0x40, 0x41], 4);
        assert_eq!(kind(&of_a_receiver, Direction::FromBroker), Kind::Confirm);
        assert_eq!(kind(&of_a_receiver, Direction::ToBroker), Kind::Settlement);
        let of_a_sender = frame(0x15, &[0x42, 0x43, 0x40, 0x41], 4);
        assert_eq!(kind(&of_a_sender, Direction::ToBroker), Kind::Other);
    }

    #[test]
    fn a_message_counts_once_and_a_request_does_not() {
        // handle, delivery-id, delivery-tag, message-format, settled
        let first = frame(0x14, &[0x43, 0x52, 7, 0xa0, 1, 9, 0x43, 0x42], 5);
        assert_eq!(kind(&first, Direction::ToBroker), Kind::Publish);
        assert_eq!(kind(&first, Direction::FromBroker), Kind::Delivery);
        let without_settled = frame(0x14, &[0x43, 0x52, 7, 0xa0, 1, 9], 3);
        assert_eq!(kind(&without_settled, Direction::ToBroker), Kind::Publish);
        let next = frame(0x14, &[0x43, 0x40, 0x40, 0x40, 0x42], 5);
        assert_eq!(kind(&next, Direction::ToBroker), Kind::Other);
        for settled in [&[0x41][..], &[0x56, 1]] {
            let mut fields = vec![0x43, 0x52, 7, 0xa0, 1, 9, 0x43];
            fields.extend(settled);
            assert_eq!(kind(&frame(0x14, &fields, 5), Direction::ToBroker), Kind::Other);
        }
    }

    #[test]
    fn an_empty_frame_is_a_heartbeat() {
        assert_eq!(kind(&[0, 0, 0, 8, 2, 0, 0, 0], Direction::ToBroker), Kind::Heartbeat);
    }

    #[test]
    fn a_lying_frame_is_no_panic() {
        let whole = frame(0x14, &[0x43, 0x52, 7, 0xa0, 200, 9, 0x43, 0x42], 5);
        for length in 0..whole.len() {
            let _ = kind(&whole[..length], Direction::ToBroker);
        }
        assert_eq!(size(&[0, 0, 0, 0]), Some(8));
    }
}
