//! Frames on their way in both directions.

use enoki_amqp::PeerProperties;
use proptest::{collection::vec, prelude::*};

use super::{
    encode::Encoder,
    event::{InboundEvent, LinkId},
    frame::{DATA_HEAD, length},
    inbound::Inbound,
    link_names::{PAIR_ON_THE_WIRE, PAIR_RECEIVER, PAIR_SENDER, paired},
    outbound::Outbound,
};

/// The largest message here, in bytes.
const MOST: usize = 20;

fn frame(channel: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    let [high, low] = channel.to_be_bytes();
    [&length.to_be_bytes()[..], &[2, 0, high, low], body].concat()
}

fn performative(code: u8, fields: impl FnOnce(&mut Encoder) -> u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.descriptor(code);
    encoder.list(fields);
    encoder.into_bytes()
}

/// A transfer with handle, delivery-id, delivery-tag, message-format, settled, more.
fn transfer(handle: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let fields = |encoder: &mut Encoder| {
        encoder.uint(handle);
        encoder.uint(7);
        encoder.binary(&[0, 0, 0, 7]);
        encoder.uint(0);
        encoder.bool(false);
        encoder.bool(more);
        6
    };
    frame(3, &[performative(0x14, fields), payload.to_vec()].concat())
}

/// The end of a message that is given up: the tenth field says so.
fn aborted(handle: u32) -> Vec<u8> {
    let fields = |encoder: &mut Encoder| {
        encoder.uint(handle);
        (0..4).for_each(|_| encoder.null());
        encoder.bool(true);
        (0..3).for_each(|_| encoder.null());
        encoder.bool(true);
        10
    };
    frame(3, &performative(0x14, fields))
}

fn attach(name: &str, handle: u32, receiver: bool) -> Vec<u8> {
    let fields = |encoder: &mut Encoder| {
        encoder.string(name);
        encoder.uint(handle);
        encoder.bool(receiver);
        3
    };
    frame(3, &performative(0x12, fields))
}

fn flow(handle: u32, drain: bool) -> Vec<u8> {
    let fields = |encoder: &mut Encoder| {
        (0..4).for_each(|_| encoder.uint(1));
        encoder.uint(handle);
        (0..3).for_each(|_| encoder.uint(1));
        encoder.bool(drain);
        9
    };
    frame(3, &performative(0x13, fields))
}

fn inbound(inbound: &mut Inbound, frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    inbound.pass(frame, &mut out, &mut Vec::new()).unwrap();
    assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
    out
}

fn events(inbound: &mut Inbound, frame: &[u8]) -> Vec<InboundEvent> {
    let mut events = Vec::new();
    inbound.pass(frame, &mut Vec::new(), &mut events).unwrap();
    events
}

fn outbound(outbound: &mut Outbound, frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    outbound.pass(frame, &mut out);
    assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
    out
}

#[test]
fn messages_come_in_as_data_and_go_out_without_it() {
    let mut inwards = Inbound::new(MOST);
    let bare = transfer(1, false, b"message");
    let wrapped = transfer(1, false, b"\x00\x53\x75\xb0\x00\x00\x00\x07message");
    assert_eq!(inbound(&mut inwards, &bare), wrapped);
    let mut outwards = Outbound::default();
    assert_eq!(outbound(&mut outwards, &wrapped), bare);
    let short = transfer(1, false, b"\x00\x53\x75\xa0\x07message");
    assert_eq!(outbound(&mut outwards, &short), bare);
}

#[test]
fn a_session_whose_window_is_0_is_blocked_until_it_is_not_or_ends() {
    // As the second field of a flow, and the third of a begin.
    let window = |code, at, window| {
        let fields = move |encoder: &mut Encoder| {
            (0..at).for_each(|_| encoder.uint(0));
            encoder.uint(window);
            encoder.uint(7);
            at + 2
        };
        performative(code, fields)
    };
    let mut inwards = Inbound::new(MOST);
    let end = performative(0x17, |_| 0);
    for (body, channel, change) in [
        (window(0x11, 2, 400), 3, None),
        (window(0x13, 1, 0), 3, Some(true)),
        (window(0x11, 2, 0), 4, None),
        (window(0x13, 1, 400), 3, None),
        (end.clone(), 4, Some(false)),
        (window(0x13, 1, 0), 3, Some(true)),
        (window(0x13, 1, 1), 3, Some(false)),
        (end, 3, None),
    ] {
        let events = events(&mut inwards, &frame(channel, &body));
        let expected = change.map(InboundEvent::Blocked);
        let blocked = events.into_iter().find(|event| matches!(event, InboundEvent::Blocked(_)));
        assert_eq!(blocked, expected, "{body:02x?}");
    }
}

#[test]
fn only_the_first_frame_of_a_message_begins_with_a_section() {
    let mut outwards = Outbound::default();
    let section = b"\x00\x53\x75\xb0\x00\x00\x00\x30";
    for _ in 0..2 {
        let first = transfer(1, true, &[&section[..], b"one"].concat());
        assert_eq!(outbound(&mut outwards, &first), transfer(1, true, b"one"));
        // In the middle of a message, bytes that look like a section are part of the message.
        let middle = transfer(1, true, section);
        assert_eq!(outbound(&mut outwards, &middle), middle);
        // Another link has a message of its own.
        let other = transfer(2, false, &[&section[..], b"two"].concat());
        assert_eq!(outbound(&mut outwards, &other), transfer(2, false, b"two"));
        let last = transfer(1, false, section);
        assert_eq!(outbound(&mut outwards, &last), last);
    }
}

#[test]
fn the_rest_of_a_message_that_is_too_large_is_left_out() {
    let mut inwards = Inbound::new(MOST);
    let part = |handle, more| transfer(handle, more, &[0; 15]);
    let emptied = transfer(1, true, b"");
    for _ in 0..2 {
        let wrapped = inbound(&mut inwards, &part(1, true));
        assert_eq!(wrapped.len(), part(1, true).len() + DATA_HEAD);
        inbound(&mut inwards, &part(1, true));
        assert_eq!(inbound(&mut inwards, &part(1, true)), emptied);
        // A message on another link is not affected.
        let other = inbound(&mut inwards, &part(2, false));
        assert_eq!(other.len(), part(2, false).len() + DATA_HEAD);
        assert_eq!(inbound(&mut inwards, &part(1, true)), emptied);
        assert_eq!(inbound(&mut inwards, &part(1, false)), transfer(1, false, b""));
    }
    // The parts of a message that was given up no longer count, nor do those of a session that ended.
    for end in [aborted(1), frame(3, &performative(0x17, |_| 0))] {
        inbound(&mut inwards, &part(1, true));
        inbound(&mut inwards, &part(1, true));
        inbound(&mut inwards, &end);
        let wrapped = inbound(&mut inwards, &part(1, false));
        assert_eq!(wrapped.len(), part(1, false).len() + DATA_HEAD);
    }
}

#[test]
fn a_message_that_was_given_up_is_no_delivery() {
    let mut inwards = Inbound::new(MOST);
    let link = LinkId { channel: 3, handle: 5 };
    let attached = [InboundEvent::Attached(link, "mine".to_owned())];
    assert_eq!(events(&mut inwards, &attach("mine", 5, false)), attached);
    assert_eq!(events(&mut inwards, &transfer(5, true, b"a")), []);
    assert_eq!(events(&mut inwards, &aborted(5)), []);
    assert_eq!(events(&mut inwards, &flow(5, true)), [InboundEvent::Drained(link)]);
}

/// fe2o3-amqp counts the transfers before such a flow again when they are taken from the link.
#[test]
fn a_flow_of_a_sending_broker_is_about_its_session_alone() {
    let about_session = performative(0x13, |encoder| {
        (0..4).for_each(|_| encoder.uint(1));
        4
    });
    let mut inwards = Inbound::new(MOST);
    inbound(&mut inwards, &attach("mine", 5, false));
    inbound(&mut inwards, &attach("theirs", 6, true));
    assert_eq!(inbound(&mut inwards, &flow(5, false)), frame(3, &about_session));
    assert_eq!(events(&mut inwards, &flow(5, false)), []);
    let mut outwards = Outbound::default();
    let read = inbound(&mut inwards, &flow(5, false));
    assert_eq!(outbound(&mut outwards, &read), read);
    // The credit that the broker grants, and the end of a drain, are about the link.
    for untouched in [flow(6, false), flow(5, true), flow(7, false)] {
        assert_eq!(inbound(&mut inwards, &untouched), untouched);
    }
    let detach = performative(0x16, |encoder| {
        encoder.uint(5);
        1
    });
    inbound(&mut inwards, &frame(3, &detach));
    assert_eq!(inbound(&mut inwards, &flow(5, false)), flow(5, false));
}

#[test]
fn a_broker_whose_frames_are_smaller_than_allowed_is_refused() {
    let open = |size: Option<u32>| {
        let fields = |encoder: &mut Encoder| {
            encoder.string("container");
            encoder.null();
            match size {
                Some(size) => encoder.uint(size),
                None => encoder.null(),
            }
            3
        };
        frame(0, &performative(0x10, fields))
    };
    let pass = |size| Inbound::new(MOST).pass(&open(size), &mut Vec::new(), &mut Vec::new());
    for size in [0, 8, 511] {
        assert!(pass(Some(size)).is_err());
    }
    for size in [None, Some(512), Some(u32::MAX)] {
        assert!(pass(size).is_ok());
    }
}

#[test]
fn the_management_pair_has_one_name_on_the_wire() {
    let mut outwards = Outbound::default();
    let mut inwards = Inbound::new(MOST);
    for (end, broker_receives) in [(PAIR_SENDER, true), (PAIR_RECEIVER, false)] {
        let ours = attach(&paired(end), 0, !broker_receives);
        let wire = attach(&paired(PAIR_ON_THE_WIRE), 0, !broker_receives);
        assert_eq!(outbound(&mut outwards, &ours), wire);
        let answer = attach(&paired(PAIR_ON_THE_WIRE), 0, broker_receives);
        let expected = attach(&paired(end), 0, broker_receives);
        assert_eq!(inbound(&mut inwards, &answer), expected);
    }
    let other = attach("enoki-receiver-1", 0, true);
    assert_eq!(outbound(&mut outwards, &other), other);
    assert_eq!(inbound(&mut inwards, &other), other);
}

#[test]
fn deliveries_and_the_end_of_credit_are_told_for_each_link() {
    let mut inwards = Inbound::new(MOST);
    let link = |handle| LinkId { channel: 3, handle };
    for (frame, expected) in [
        (transfer(5, true, b"a"), None),
        (transfer(5, false, b"b"), Some(InboundEvent::Delivered(link(5)))),
        (transfer(6, false, b"c"), Some(InboundEvent::Delivered(link(6)))),
        (flow(6, true), Some(InboundEvent::Drained(link(6)))),
        (flow(5, false), None),
        (
            frame(
                3,
                &performative(0x16, |encoder| {
                    encoder.uint(5);
                    1
                }),
            ),
            Some(InboundEvent::Detached(link(5))),
        ),
        (frame(3, &performative(0x17, |_| 0)), Some(InboundEvent::SessionEnded(3))),
    ] {
        assert_eq!(events(&mut inwards, &frame), Vec::from_iter(expected));
    }
}

#[test]
fn the_broker_names_itself_and_is_asked_for_smaller_frames() {
    let open = |size: u32, tag: &'static str| {
        let fields = |encoder: &mut Encoder| {
            encoder.string("container");
            encoder.string("vhost:/");
            encoder.uint(size);
            (0..6).for_each(|_| encoder.null());
            encoder.map(|encoder| {
                for (name, value) in [("cluster", "c"), ("product", tag), ("version", "4.0.5")] {
                    encoder.symbol(name);
                    encoder.string(value);
                }
                3
            });
            10
        };
        frame(0, &performative(0x10, fields))
    };
    let mut out = Vec::new();
    let mut events = Vec::new();
    Inbound::new(MOST).pass(&open(512, "RabbitMQ"), &mut out, &mut events).unwrap();
    let mut properties = PeerProperties::default();
    properties.set("product", "RabbitMQ");
    properties.set("version", "4.0.5");
    assert_eq!(events, [InboundEvent::Opened(properties)]);
    assert_eq!(out, open(512, "RabbitMQ"));
    let ours = outbound(&mut Outbound::default(), &open(1008, "enoki"));
    assert_eq!(ours, open(1000, "enoki"));
}

#[test]
fn headers_and_heartbeats_pass_as_they_are() {
    for bytes in [&b"AMQP\x00\x01\x00\x00"[..], b"\x00\x00\x00\x08\x02\x00\x00\x00"] {
        assert_eq!(inbound(&mut Inbound::new(MOST), bytes), bytes);
        assert_eq!(outbound(&mut Outbound::default(), bytes), bytes);
    }
    assert!(length(b"HTTP/1.1 400", 1000).is_err());
    assert!(length(b"\x00\x00\x00\x07\x02\x00\x00\x00", 1000).is_err());
    assert!(length(b"\x00\x00\x03\xe9\x02\x00\x00\x00", 1000).is_err());
    assert_eq!(length(b"\x00\x00\x03\xe8\x02\x00\x00\x00", 1000), Ok(Some(1000)));
    assert_eq!(length(b"\x00\x00\x00", 1000), Ok(None));
}

proptest! {
    #[test]
    fn any_frame_passes_both_ways_without_a_panic(
        body in vec(any::<u8>(), 0..80),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut inwards = Inbound::new(MOST);
        inbound(&mut inwards, &attach("mine", 1, false));
        for sound in [
            frame(3, &body),
            frame(3, &[b"\x00\x53\x14".as_slice(), &body].concat()),
            transfer(1, true, &body),
            attach("mine", 1, true),
            attach(&paired(PAIR_ON_THE_WIRE), 1, true),
            flow(1, true),
        ] {
            let mut broken = sound;
            // The length is left as it is: `frame::length` has checked it before.
            let at = 4 + at.index(broken.len() - 4);
            broken[at] = byte;
            let mut out = Vec::new();
            if inwards.pass(&broken, &mut out, &mut Vec::new()).is_ok() {
                prop_assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
            }
            out.clear();
            Outbound::default().pass(&broken, &mut out);
            prop_assert_eq!(length(&out, usize::MAX).unwrap(), Some(out.len()));
        }
    }
}
