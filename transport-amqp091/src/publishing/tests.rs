//! The way of the broker's frames to a sender: through the guard, and by the number of the channel.

use std::sync::Arc;

use amq_protocol::frame::{AMQPFrame, parse_frame};
use enoki_core::{Message, Properties, ShortStr, transport::Outgoing};

use super::{channel::PublishChannel, channels::PublishChannels};
use crate::proto::{
    frame::HEARTBEAT_FRAME,
    inbound::Inbound,
    test_frames::{answer, body, deliver, header, method, nested, plain, returned, short, start},
};

const ACK: (u16, u16) = (60, 80);
const NACK: (u16, u16) = (60, 120);

/// The largest body that passes here, in bytes.
const MAX_BODY: usize = 1000;

/// The broker sends these bytes, in pieces of this size. Returns the bytes that lapin gets.
fn receive(
    inbound: &mut Inbound,
    channels: &mut PublishChannels,
    bytes: &[u8],
    piece: usize,
) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        inbound.room()[..piece.len()].copy_from_slice(piece);
        inbound.filled(piece.len());
        while let Some(event) = inbound.next_event() {
            channels.apply(event);
        }
        channels.wake_senders();
        let mut some = vec![0; 10_000];
        let count = inbound.take(&mut some).unwrap();
        out.extend_from_slice(&some[..count]);
    }
    out
}

/// The outcomes of messages with these ids when the broker sends those frames, and the frames that lapin gets.
fn outcomes_after(ids: &[&str], frames: &[Vec<u8>]) -> (Vec<AMQPFrame>, Vec<(u64, String)>) {
    let bytes = [start(), frames.concat()].concat();
    let [all, same] = [bytes.len(), 1].map(|piece| {
        let (mut inbound, mut channels) = (Inbound::new(MAX_BODY), PublishChannels::default());
        let channel = Arc::new(PublishChannel::new(1));
        channels.attach(channel.clone());
        for (id, message_id) in (1..).zip(ids) {
            channel.take(&outgoing(id, message_id), Vec::new());
        }
        let out = receive(&mut inbound, &mut channels, &bytes, piece);
        let mut outcomes = Vec::new();
        channel.outcomes(&mut outcomes);
        let outcomes = outcomes.into_iter().map(|(id, outcome)| (id, format!("{outcome:?}")));
        (out, outcomes.collect::<Vec<_>>())
    });
    assert_eq!(all, same);
    let (out, outcomes) = all;
    let (mut rest, mut frames) = (out.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (after, frame) = parse_frame(rest).unwrap();
        frames.push(frame);
        rest = after;
    }
    (frames.split_off(1), outcomes)
}

fn outgoing(id: u64, message_id: &str) -> Outgoing {
    let properties = Properties {
        message_id: Some(ShortStr::new(message_id).unwrap()),
        ..Properties::default()
    };
    Outgoing {
        id,
        exchange: ShortStr::from_static("shop"),
        routing_key: ShortStr::from_static("key"),
        mandatory: true,
        message: Arc::new(Message { properties, ..Message::default() }),
    }
}

fn confirmed(ids: &[u64]) -> Vec<(u64, String)> {
    ids.iter().map(|id| (*id, "Confirmed".to_owned())).collect()
}

#[test]
fn answers_to_published_messages_go_to_their_sender_and_not_to_lapin() {
    let (frames, outcomes) = outcomes_after(
        &["a", "b", "c", "d", "e"],
        &[
            answer(1, ACK, 2, 0),
            // Of another channel, and of no message.
            answer(2, ACK, 1, 1),
            answer(1, ACK, 99, 0),
            deliver(2, b"key"),
            answer(1, ACK, 3, 1),
            plain(2, 2),
            answer(1, NACK, 4, 0),
            body(2, b"ok"),
        ],
    );
    assert_eq!(outcomes[..3], confirmed(&[2, 1, 3]));
    assert!(outcomes[3].1.starts_with("Rejected"), "{outcomes:?}");
    assert_eq!((outcomes[3].0, outcomes.len()), (4, 4));
    assert!(matches!(&frames[2], AMQPFrame::Body(2, body) if body == b"ok"), "{frames:?}");
    assert_eq!(frames.len(), 3);
}

/// However else the message is malformed.
#[test]
fn a_returned_message_is_unroutable_and_lapin_gets_nothing_of_it() {
    let large = MAX_BODY as u64 + 1;
    let deep = [&nested(100)[..], &short(b"c")].concat();
    let (frames, outcomes) = outcomes_after(
        &["a", "b", "c", "d"],
        &[
            returned(1, b"key"),
            header(1, large, 0x1080, b"\x02\x01b"),
            body(1, &[1; 600]),
            // Another channel's frames come in between.
            HEARTBEAT_FRAME.to_vec(),
            body(1, &[1; MAX_BODY + 1 - 600]),
            returned(1, b"\xff"),
            header(1, 0, 0x2080, &deep),
            answer(1, ACK, 1, 0),
            answer(1, ACK, 4, 1),
        ],
    );
    assert_eq!(frames.len(), 1, "{frames:?}");
    let expected = [(1, "Confirmed"), (2, "Unroutable"), (3, "Unroutable"), (4, "Confirmed")];
    assert_eq!(outcomes, expected.map(|(id, outcome)| (id, outcome.to_owned())));
}

#[test]
fn a_channel_that_the_broker_closes_takes_no_more_messages() {
    let reason = [&b"\x01\x94"[..], &short(b"no exchange 'shop' in vhost '/'"), &[0; 4]].concat();
    let (frames, outcomes) =
        outcomes_after(&["a", "b"], &[answer(1, ACK, 1, 0), method(1, (20, 40), &reason)]);
    // lapin answers it.
    assert_eq!(frames.len(), 1);
    // The exchange was there a moment ago, so only the newest message was certainly not stored.
    assert_eq!(outcomes[0], (1, "Confirmed".to_owned()));
    assert!(outcomes[1].0 == 2 && outcomes[1].1.contains("NotFound"), "{outcomes:?}");
}

#[test]
fn a_pause_that_the_broker_asks_for_holds_messages_back() {
    let (mut inbound, mut channels) = (Inbound::new(MAX_BODY), PublishChannels::default());
    let channel = Arc::new(PublishChannel::new(1));
    channels.attach(channel.clone());
    let mut broker_sends = |channels: &mut PublishChannels, bytes: &[u8]| {
        receive(&mut inbound, channels, bytes, 1);
    };
    let written = |channels: &mut PublishChannels| {
        let mut written = 0;
        channels.take_turns(usize::MAX, |_, _| {
            written += 1;
            1
        });
        written
    };
    channel.take(&outgoing(1, "a"), b"head".to_vec());
    broker_sends(&mut channels, &[start(), method(1, (20, 20), &[0])].concat());
    assert_eq!(written(&mut channels), 0);
    broker_sends(&mut channels, &method(1, (20, 20), &[1]));
    assert_eq!(written(&mut channels), 1);
    channel.take(&outgoing(2, "b"), b"head".to_vec());
    broker_sends(&mut channels, &method(0, (10, 60), &short(b"low on memory")));
    assert_eq!(written(&mut channels), 0);
    broker_sends(&mut channels, &method(0, (10, 61), b""));
    assert_eq!(written(&mut channels), 1);
}
