use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::{
    protocol::{AMQPClass, basic, channel},
    types::{AMQPValue, FieldTable},
};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    limits::{FRAME_MAX, MAX_DEPTH},
    proto::{
        event::Answer,
        fault::MessageFault,
        frame::HEARTBEAT_FRAME,
        methods::{BASIC_ACK, BASIC_DELIVER, BASIC_GET_OK, BASIC_NACK},
        test_frames::{
            answer, body, deliver, frame, header, long, method, nested, plain, returned, short,
            start,
        },
    },
};

/// The largest body that passes here, in bytes.
const MAX_BODY: usize = 1000;

/// The bytes that lapin gets of these when they come in pieces of these sizes, and why it gets no more.
fn through(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<String>) {
    let (out, error, _) = through_inbound(&mut Inbound::new(MAX_BODY), bytes, pieces);
    (out, error)
}

/// The same for bytes that follow others, with the events.
fn through_inbound(
    inbound: &mut Inbound,
    bytes: &[u8],
    pieces: &[usize],
) -> (Vec<u8>, Option<String>, Vec<InboundEvent>) {
    let (mut out, mut from, mut events) = (Vec::new(), 0, Vec::new());
    let mut pieces = pieces.iter().cycle();
    loop {
        let mut some = [0; 33];
        match inbound.take(&mut some) {
            Ok(0) if from == bytes.len() => return (out, None, events),
            Ok(0) => {
                let room = inbound.room();
                let piece = room.len().min(*pieces.next().unwrap()).min(bytes.len() - from);
                room[..piece].copy_from_slice(&bytes[from..from + piece]);
                inbound.filled(piece);
                events.extend(std::iter::from_fn(|| inbound.next_event()));
                from += piece;
            }
            Ok(count) => out.extend_from_slice(&some[..count]),
            Err(error) => return (out, Some(error.to_string()), events),
        }
    }
}

/// The frames that lapin reads in these bytes; panics if it cannot read them.
fn parse(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        match parse_frame(bytes) {
            Ok((rest, frame)) => {
                bytes = rest;
                frames.push(frame);
            }
            // A frame that is still on its way.
            Err(error) if error.is_incomplete() => break,
            Err(error) => panic!("lapin cannot read what it got: {error:?}"),
        }
    }
    frames
}

/// The greeting and these frames, as lapin gets the latter.
fn judged(frames: &[Vec<u8>]) -> Vec<AMQPFrame> {
    let (out, error) = through(&[start(), frames.concat()].concat(), &[usize::MAX]);
    assert_eq!(error, None);
    parse(&out).split_off(1)
}

fn error(frames: &[Vec<u8>]) -> String {
    through(&[start(), frames.concat()].concat(), &[usize::MAX]).1.expect("no error")
}

fn untouched(frames: &[Vec<u8>]) {
    let bytes = [start(), frames.concat()].concat();
    assert_eq!(through(&bytes, &[usize::MAX]), (bytes, None));
}

/// The fault that a content header tells, the size of the body it announces, and the message id.
fn told(frame: &AMQPFrame) -> (Option<MessageFault>, u64, Option<String>) {
    let AMQPFrame::Header(_, header) = frame else { panic!("no header: {frame:?}") };
    let fault = header.properties.headers().as_ref().and_then(MessageFault::from_headers);
    let id = header.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    (fault, header.body_size, id)
}

#[test]
fn a_message_that_lapin_can_read_is_not_touched() {
    let all =
        b"\x04\xc3\xa9ok\x02gz\0\0\0\x0c\x01tt\x01\x01xS\0\0\0\x01\xff\x02\x05\x01c\x01r\x01e\
                \x01m\0\0\0\0\0\0\0\x01\x01t\x01u\x01a\x01c";
    untouched(&[deliver(1, b"key"), header(1, 5, 0xfffc, all), body(1, b"hel"), body(1, b"lo")]);
    untouched(&[deliver(1, b"key"), header(1, 0, 0x2000, &nested(MAX_DEPTH))]);
    untouched(&[deliver(1, b""), plain(1, MAX_BODY as u64), body(1, &[0xff; MAX_BODY])]);
    untouched(&[frame(HEARTBEAT, 0, b""), method(1, (20, 41), b"")]);
    // A frame that ends in the middle, and another version of the protocol.
    untouched(&[body(1, b"hello")[..9].to_vec()]);
    let version = b"AMQP\0\0\x09\x01";
    assert_eq!(through(version, &[1]), (version.to_vec(), None));
}

#[test]
fn headers_that_go_too_deep_are_replaced_and_the_next_message_is_not() {
    for levels in [MAX_DEPTH + 1, 1000, 10_000, 21_000] {
        let frames = judged(&[
            deliver(1, b"key"),
            header(1, 4, 0x2080, &[&nested(levels)[..], b"\x02id"].concat()),
            body(1, b"bomb"),
            deliver(1, b"key"),
            plain(1, 0),
        ]);
        assert_eq!(told(&frames[1]), (Some(MessageFault::TooDeep), 4, Some("id".to_owned())));
        assert!(matches!(&frames[2], AMQPFrame::Body(1, bytes) if bytes == b"bomb"));
        assert_eq!(told(&frames[4]), (None, 0, None));
    }
    // Lists do as well as tables.
    let lists = (0..MAX_DEPTH).fold(vec![], |inner, _| [&b"A"[..], &long(&inner)].concat());
    let headers = long(&[&b"\x01n"[..], &lists].concat());
    let frames = judged(&[deliver(1, b"key"), header(1, 0, 0x2000, &headers)]);
    assert_eq!(told(&frames[1]), (Some(MessageFault::TooDeep), 0, None));
}

#[test]
fn a_short_string_that_is_not_utf8_costs_its_message_only() {
    let headers = long(b"\x01\xfft\x01");
    for (flags, properties) in
        [(0x8000, short(b"\xff")), (0x0080, short(b"\xff")), (0x2000, headers)]
    {
        let frames = judged(&[deliver(1, b"key"), header(1, 0, flags, &properties)]);
        assert_eq!(told(&frames[1]), (Some(MessageFault::NotUtf8), 0, None));
    }
    let frames = judged(&[
        deliver(1, b"caf\xc3\xa9.\xff\xfe.\xc3"),
        header(1, 0, 0x0080, b"\x02id"),
        deliver(2, b"key"),
        plain(2, 0),
    ]);
    let AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) = &frames[0]
    else {
        panic!("{frames:?}")
    };
    assert_eq!(deliver.routing_key.as_str(), "café.??.?");
    assert_eq!(told(&frames[1]), (Some(MessageFault::NotUtf8), 0, Some("id".to_owned())));
    assert_eq!(told(&frames[3]).0, None);
}

#[test]
fn a_message_that_never_comes_has_no_fault_to_leave_behind() {
    let frames =
        judged(&[deliver(1, b"\xff"), method(1, (20, 41), b""), deliver(1, b"key"), plain(1, 0)]);
    assert_eq!(told(&frames[3]).0, None);
}

#[test]
fn a_body_over_the_limit_is_left_out_and_its_neighbours_are_not() {
    let size = MAX_BODY as u64 + 1;
    let frames = judged(&[
        deliver(1, b"key"),
        header(1, size, 0x0080, b"\x02id"),
        body(1, &[1; 600]),
        // Another channel's frames come in between.
        deliver(2, b"key"),
        plain(2, 3),
        body(1, &[1; MAX_BODY + 1 - 600]),
        body(2, b"abc"),
        deliver(1, b"key"),
        plain(1, 2),
        body(1, b"de"),
    ]);
    assert_eq!(told(&frames[1]), (Some(MessageFault::TooLarge), 0, Some("id".to_owned())));
    let bodies: Vec<_> = frames
        .iter()
        .filter_map(|frame| match frame {
            AMQPFrame::Body(channel, bytes) => Some((*channel, bytes.as_slice())),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, [(2, &b"abc"[..]), (1, b"de")]);
    // No memory is set aside for the length in a header.
    let frames =
        judged(&[deliver(1, b""), plain(1, u64::MAX), deliver(1, b""), plain(1, 1), body(1, b"x")]);
    assert_eq!((told(&frames[1]).0, frames.len()), (Some(MessageFault::TooLarge), 5));
}

#[test]
fn properties_that_do_not_fit_are_replaced() {
    for (flags, properties) in [
        (0x1000, &b""[..]),
        (0x1000, b"\x02\x02"),
        (0x8000, b"\x05text"),
        (0x0001, b"\0\0"),
        (0x2000, b"\0\0\0\x09\x01aZ"),
        (0x2000, b"\0\0\0\x03\x01aZ"),
        (0x2000, b"\0\0\0\x07\x01aS\0\0\0\x01"),
        (0x2000, b"\xff\xff\xff\xff\x01at\x01"),
    ] {
        let frames = judged(&[deliver(1, b"key"), header(1, 0, flags, properties)]);
        assert_eq!(told(&frames[1]).0, Some(MessageFault::Malformed), "{flags:x} {properties:x?}");
    }
}

/// The events of these frames, which are the same in whatever pieces the bytes come, and the frames that lapin gets.
fn events(frames: &[Vec<u8>]) -> (Vec<InboundEvent>, Vec<AMQPFrame>) {
    let bytes = [start(), frames.concat()].concat();
    let [(out, None, mut events), (same_out, None, same)] = [&[usize::MAX][..], &[1]]
        .map(|pieces| through_inbound(&mut Inbound::new(MAX_BODY), &bytes, pieces))
    else {
        panic!("an error")
    };
    events.retain(|event| *event != InboundEvent::LeftOut);
    let same: Vec<_> = same.into_iter().filter(|event| *event != InboundEvent::LeftOut).collect();
    assert_eq!((&events, &out), (&same, &same_out));
    (events, parse(&out).split_off(1))
}

#[test]
fn an_answer_to_a_published_message_is_an_event_and_lapin_gets_nothing_of_it() {
    let (events, frames) = events(&[
        answer(1, BASIC_ACK, 2, 0),
        deliver(2, b"key"),
        answer(3, BASIC_NACK, 7, 1),
        plain(2, 2),
        answer(1, BASIC_ACK, 3, 1),
        body(2, b"ok"),
    ]);
    let confirm = |channel, number, multiple, answer| InboundEvent::Confirm {
        channel,
        number,
        multiple,
        answer,
    };
    assert_eq!(
        events,
        [
            confirm(1, 2, false, Answer::Ack),
            confirm(3, 7, true, Answer::Nack),
            confirm(1, 3, true, Answer::Ack),
        ]
    );
    assert_eq!(frames.len(), 3, "{frames:?}");
}

/// However else the message is malformed.
#[test]
fn a_returned_message_is_an_event_by_its_id_and_lapin_gets_nothing_of_it() {
    let large = MAX_BODY as u64 + 1;
    let deep = [&nested(100)[..], &short(b"c")].concat();
    let (events, frames) = events(&[
        returned(1, b"key"),
        header(1, large, 0x1080, b"\x02\x01b"),
        body(1, &[1; 600]),
        body(1, &[1; MAX_BODY + 1 - 600]),
        returned(1, b"\xff"),
        header(1, 0, 0x2080, &deep),
    ]);
    let returned_ids =
        ["b", "c"].map(|id| InboundEvent::Returned { channel: 1, message_id: id.to_owned() });
    assert_eq!(events, returned_ids);
    assert!(frames.is_empty(), "{frames:?}");
    let unnamed = error(&[returned(1, b"key"), header(1, 0, 0x2000, &nested(100))]);
    assert!(unnamed.contains("nothing identifies"), "{unnamed}");
}

#[test]
fn a_channel_that_ends_or_pauses_is_an_event_and_lapin_gets_the_frame() {
    let reason = [&b"\x01\x94"[..], &short(b"no queue"), &[0; 4]].concat();
    let (events, frames) = events(&[
        method(1, (20, 20), &[0]),
        method(1, (20, 40), &reason),
        method(2, (20, 20), &[1]),
        method(2, (20, 41), b""),
        method(0, (10, 60), &short(b"low on memory")),
        method(0, (10, 61), b""),
    ]);
    let text = "no queue".to_owned();
    assert_eq!(
        events,
        [
            InboundEvent::Flow { channel: 1, active: false },
            InboundEvent::ChannelClosed { channel: 1, code: 404, text },
            InboundEvent::Flow { channel: 2, active: true },
            InboundEvent::ChannelCloseOk { channel: 2 },
            InboundEvent::Blocked(true),
            InboundEvent::Blocked(false),
        ]
    );
    assert_eq!(frames.len(), 6);
}

/// RabbitMQ up to 4.0 answers twice when a replicated queue is deleted at the same moment.
#[test]
fn an_answer_to_a_cancel_passes_only_if_lapin_expects_it() {
    let mut inbound = Inbound::new(MAX_BODY);
    inbound.expect_cancel_ok(1);
    inbound.expect_cancel_ok(2);
    inbound.channel_closed(2);
    let cancel_ok = |channel| method(channel, (60, 31), b"\x01t");
    let bytes = [start(), cancel_ok(1), cancel_ok(1), cancel_ok(2)].concat();
    let (out, error, events) = through_inbound(&mut inbound, &bytes, &[usize::MAX]);
    assert_eq!((out, error), ([start(), cancel_ok(1)].concat(), None));
    assert_eq!(events, [InboundEvent::LeftOut, InboundEvent::LeftOut]);
}

/// lapin gives up a connection on which it reads nothing, and the broker sends no heartbeats while it sends other
/// frames.
#[test]
fn a_heartbeat_in_place_of_other_bytes_comes_between_frames_and_only_there() {
    let mut inbound = Inbound::new(MAX_BODY);
    let bytes = [start(), answer(1, BASIC_ACK, 1, 0), body(1, b"abc")].concat();
    let (most, rest) = bytes.split_at(bytes.len() - 2);
    let (mut out, _, events) = through_inbound(&mut inbound, most, &[usize::MAX]);
    assert!(events.iter().any(InboundEvent::is_left_out));
    inbound.insert(&HEARTBEAT_FRAME);
    out.extend(through_inbound(&mut inbound, rest, &[usize::MAX]).0);
    assert_eq!(parse(&out).len(), 2);
    through_inbound(&mut inbound, &answer(1, BASIC_ACK, 2, 0), &[usize::MAX]);
    inbound.insert(&HEARTBEAT_FRAME);
    let (out, ..) = through_inbound(&mut inbound, b"", &[usize::MAX]);
    assert_eq!(out, HEARTBEAT_FRAME);
}

/// A large body that no one gets comes in many reads; each of them has to count as a sign of life.
#[test]
fn each_piece_of_a_body_that_is_left_out_is_an_event() {
    let mut inbound = Inbound::new(MAX_BODY);
    let begun = [start(), deliver(1, b"key"), plain(1, 5000)].concat();
    let (_, _, before) = through_inbound(&mut inbound, &begun, &[usize::MAX]);
    let (out, _, events) = through_inbound(&mut inbound, &body(1, &[0; 5000]), &[1000]);
    assert!(before.is_empty() && out.is_empty());
    assert_eq!(events, vec![InboundEvent::LeftOut; 6]);
}

#[test]
fn a_reason_that_is_cut_within_a_character_is_repaired() {
    let reason =
        [&b"\x01\x94"[..], &short("no queue 'é".as_bytes().split_last().unwrap().1), &[0; 4]];
    let frames = judged(&[method(3, (20, 40), &reason.concat())]);
    let AMQPFrame::Method(3, AMQPClass::Channel(channel::AMQPMethod::Close(close))) = &frames[0]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((close.reply_code, close.reply_text.as_str()), (404, "no queue '?"));
}

#[test]
fn a_frame_that_no_broker_sends_ends_the_connection_with_a_reason() {
    for (frames, reason) in [
        (vec![vec![3, 0, 1, 0x7f, 0xff, 0xff, 0xff]], "a frame of 2147483647 bytes"),
        (vec![frame(BODY, 1, &[0; FRAME_MAX as usize])], "a frame of 131072 bytes"),
        (vec![b"HTTP/1.1 400 Bad Request".to_vec()], "no frame of AMQP 0-9-1"),
        (vec![b"AMQP\0\0\x09\x01".to_vec()], "no frame of AMQP 0-9-1"),
        (vec![b"\x01\0\0\0\0\0\x04\0\x0a\0\x32\0".to_vec()], "without its end"),
        (vec![b"\x03\0\x01\0\0\0\x01x\0".to_vec()], "without its end"),
        (vec![method(0, (10, 30), b"\0\0\0\0\x0f\xff\0\0")], "less than 4096 bytes"),
        (vec![method(1, (99, 1), b"")], "the method 99.1, which no broker sends"),
        (vec![method(1, (60, 60), b"\x03ta")], "a malformed method 60.60"),
        (vec![method(1, (20, 41), b"\0")], "a malformed method 20.41"),
        (vec![method(0, (10, 10), &[&b"\0\x09"[..], &nested(2000), &[0; 8]].concat())], "too deep"),
        (vec![frame(HEADER, 1, &[0; 13])], "too short"),
    ] {
        let error = error(&frames);
        let reason = reason.replace("too deep", "nested more than 64 levels deep");
        assert!(error.contains(&reason), "{reason:?} is not in {error:?}");
    }
    for max in [0_u32, 4096, 131_072, 512 << 20] {
        untouched(&[method(0, (10, 30), &[&[7, 255][..], &max.to_be_bytes(), &[0, 60]].concat())]);
    }
    // The frames before it are handed on.
    let sound = [start(), deliver(1, b"key"), plain(1, 0)].concat();
    let (out, error) = through(&[&sound[..], b"junk"].concat(), &[usize::MAX]);
    assert_eq!((out, error.is_some()), (sound, true));
}

#[test]
fn the_properties_of_the_broker_are_read_on_the_way() {
    let mut inbound = Inbound::new(MAX_BODY);
    let mut came = |bytes: &[u8]| {
        inbound.room()[..bytes.len()].copy_from_slice(bytes);
        inbound.filled(bytes.len());
        assert_eq!(inbound.next_event(), None);
        (inbound.peer_properties().is_some(), inbound.answered())
    };
    let (last, bytes) = start().split_last().map(|(last, rest)| (*last, rest.to_vec())).unwrap();
    for byte in bytes {
        assert_eq!(came(&[byte]), (false, false));
    }
    assert_eq!(came(&[last]), (true, false));
    assert_eq!(came(&HEARTBEAT_FRAME), (true, true));
}

/// `cargo test --release -p enoki-transport-amqp091 --lib what_a_message_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for release builds"]
fn what_a_message_costs() {
    let headers =
        [&b"\x0anameko.bagS"[..], &long(b"value"), b"\x05countl\0\0\0\0\0\0\0\x07"].concat();
    let id = short(b"0197c1d2-8f3a-7c54-9d0e-5a1b2c3d4e5f");
    let properties = [&short(b"application/json")[..], &long(&headers), &[2], &id].concat();
    for size in [0, 1024, 65_536] {
        let message = [
            deliver(1, b"order.placed.eu"),
            header(1, size, 0xb080, &properties),
            if size > 0 { body(1, &vec![b'x'; size as usize]) } else { Vec::new() },
        ];
        let chunk = message.concat().repeat(64);
        let mut inbound = Inbound::new(usize::MAX);
        let mut out = vec![0; 4 << 20];
        let (began, mut passed) = (std::time::Instant::now(), 0);
        for _ in 0..200 {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let room = inbound.room();
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                inbound.filled(count);
                assert_eq!(inbound.next_event(), None);
                rest = &rest[count..];
                passed += inbound.take(&mut out).unwrap();
            }
        }
        let each = began.elapsed() / (200 * 64);
        assert_eq!(passed, 200 * chunk.len());
        println!("a body of {size} bytes: {each:?} for each message, with two copies of its bytes");
    }
}

/// The bytes of a short string; of text, mostly.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => "[a-zé]{0,5}".prop_map(|text| short(text.as_bytes())),
        1 => vec(any::<u8>(), 0..5).prop_map(|bytes| short(&bytes)),
    ]
}

/// A value of a table: its type, and its bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |kinds: &'static [u8], size: usize| {
        (prop::sample::select(kinds), vec(any::<u8>(), size))
            .prop_map(|(kind, bytes)| [&[kind], &bytes[..]].concat())
    };
    let leaf = prop_oneof![
        fixed(b"V", 0),
        fixed(b"tbB", 1),
        fixed(b"suU", 2),
        fixed(b"Iif", 4),
        fixed(b"D", 5),
        fixed(b"lLdT", 8),
        (prop::sample::select(&b"Sx"[..]), vec(any::<u8>(), 0..6)).prop_map(|(kind, bytes)| [
            &[kind][..],
            &long(&bytes)
        ]
        .concat()),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4)
                .prop_map(|values| [&b"A"[..], &long(&values.concat())].concat()),
            vec((text(), inner), 0..4).prop_map(|fields| [&b"F"[..], &table(&fields)].concat()),
        ]
    })
}

fn table(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    long(&fields.iter().flat_map(|(name, value)| [&name[..], value].concat()).collect::<Vec<_>>())
}

/// Flags, and the properties that they announce.
fn properties() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let headers = prop_oneof![
        20 => vec((text(), value()), 0..5).prop_map(|fields| table(&fields)),
        1 => (1..200_usize).prop_map(nested),
    ];
    let strings = vec(text(), 11);
    (any::<u16>(), headers, strings, any::<[u8; 10]>()).prop_map(
        |(flags, headers, strings, fixed)| {
            let flags = flags & 0xfffc;
            let mut strings = strings.into_iter();
            let all = b"ssFBBssssTssss".iter().map(|kind| match kind {
                b'F' => headers.clone(),
                b'B' => vec![fixed[0]],
                b'T' => fixed[1..9].to_vec(),
                _ => strings.next().unwrap(),
            });
            let bytes = all
                .enumerate()
                .filter(|(bit, _)| flags & (0x8000 >> bit) != 0)
                .flat_map(|(_, bytes)| bytes)
                .collect();
            (flags, bytes)
        },
    )
}

/// The frames of a message: a method, its header, its body.
fn message() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let parts = (
        any::<bool>(),
        0..3_u16,
        text(),
        properties(),
        prop_oneof![10 => 0..40_usize, 1 => 900..1100_usize],
        1..600_usize,
    );
    parts.prop_map(|(deliver, channel, key, (flags, properties), size, part)| {
        let announced = if deliver {
            method(channel, BASIC_DELIVER, &[&b"\x01t\0\0\0\0\0\0\0\x07\0\x01e"[..], &key].concat())
        } else {
            let got = [&b"\0\0\0\0\0\0\0\x07\0\x01e"[..], &key, &[0; 4]].concat();
            method(channel, BASIC_GET_OK, &got)
        };
        let body = vec![b'b'; size];
        let bodies = body.chunks(part).map(|part| self::body(channel, part));
        [announced, header(channel, size as u64, flags, &properties)]
            .into_iter()
            .chain(bodies)
            .collect()
    })
}

/// Whether lapin reads all of it, nothing goes too deep, and no body is too large.
fn is_sound(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match parse_frame(rest) {
            Ok((_, AMQPFrame::Header(_, header)))
                if header.body_size > MAX_BODY as u64
                    || header
                        .properties
                        .headers()
                        .as_ref()
                        .is_some_and(|table| depth(table) > MAX_DEPTH) =>
            {
                return false;
            }
            // Of the methods only some come from brokers.
            Ok((left, AMQPFrame::Method(_, method))) => {
                use basic::AMQPMethod::{Deliver, GetOk};
                let greets = rest.len() == bytes.len();
                if !greets && !matches!(method, AMQPClass::Basic(Deliver(_) | GetOk(_))) {
                    return false;
                }
                rest = left;
            }
            Ok((left, _)) => rest = left,
            Err(_) => return false,
        }
    }
    true
}

fn depth(table: &FieldTable) -> usize {
    fn of(value: &AMQPValue) -> usize {
        match value {
            AMQPValue::FieldTable(table) => depth(table),
            AMQPValue::FieldArray(values) => {
                1 + values.as_slice().iter().map(of).max().unwrap_or(0)
            }
            _ => 0,
        }
    }
    1 + table.inner().values().map(of).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn lapin_reads_all_that_passes_however_the_bytes_come(
        messages in vec(message(), 1..5),
        mutations in prop_oneof![
            Just(vec![]),
            vec((any::<Index>(), any::<u8>()), 1..4),
        ],
        pieces in vec(1..10_usize, 1..20),
    ) {
        let mut bytes = [start(), messages.concat().concat()].concat();
        for (at, byte) in &mutations {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let (out, error) = through(&bytes, &[usize::MAX]);
        let (in_pieces, failed) = through(&bytes, &pieces);
        prop_assert_eq!((&out, &error), (&in_pieces, &failed));
        let frames = parse(&out);
        if is_sound(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
        if mutations.is_empty() && error.is_none() {
            // Each message is there, whatever became of it.
            let headers = frames.iter().filter(|frame| matches!(frame, AMQPFrame::Header(..)));
            prop_assert_eq!(headers.count(), messages.len());
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in vec(any::<u8>(), 0..300), after_start: bool) {
        let bytes = if after_start { [start(), bytes].concat() } else { bytes };
        let (out, _) = through(&bytes, &[7, 100]);
        parse(&out);
    }
}
