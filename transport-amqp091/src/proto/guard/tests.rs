use amq_protocol::frame::{AMQPFrame, parse_frame};
use enoki_core::{Message, Properties, ShortStr, transport::Outgoing};
use lapin::protocol::{AMQPClass, basic, channel};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// A body may have so many bytes here.
const MAX_BODY: usize = 1000;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(FRAME_END);
    frame
}

fn method(channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &payload)
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// Consumer tag, delivery tag, redelivered, exchange, routing key.
fn deliver(channel: u16, key: &[u8]) -> Vec<u8> {
    let arguments = [&b"\x03tag\0\0\0\0\0\0\0\x07\0\x04shop"[..], &short(key)].concat();
    method(channel, method::DELIVER, &arguments)
}

fn returned(channel: u16, key: &[u8]) -> Vec<u8> {
    let arguments = [&b"\x01\x38\x08NO_ROUTE\x04shop"[..], &short(key)].concat();
    method(channel, method::RETURN, &arguments)
}

fn header(channel: u16, body: u64, flags: u16, properties: &[u8]) -> Vec<u8> {
    let payload =
        [&[0, 60, 0, 0][..], &body.to_be_bytes(), &flags.to_be_bytes(), properties].concat();
    frame(HEADER, channel, &payload)
}

fn plain(channel: u16, body: u64) -> Vec<u8> {
    header(channel, body, 0x1000, &[2])
}

fn body(channel: u16, bytes: &[u8]) -> Vec<u8> {
    frame(BODY, channel, bytes)
}

/// A `connection.start` that says nothing.
fn start() -> Vec<u8> {
    method(0, (10, 10), b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")
}

/// So many tables, each in the one before.
fn nested(levels: usize) -> Vec<u8> {
    (1..levels).fold(long(&[]), |inner, _| long(&[&b"\0F"[..], &inner].concat()))
}

/// What lapin gets of these bytes when they come in pieces of these sizes, and why no more.
fn through(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<String>) {
    through_guard(&mut Guard::new(MAX_BODY), bytes, pieces)
}

fn through_guard(guard: &mut Guard, bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<String>) {
    let (mut out, mut from) = (Vec::new(), 0);
    let mut pieces = pieces.iter().cycle();
    loop {
        let mut some = [0; 33];
        match guard.take(&mut some) {
            Ok(0) if from == bytes.len() => return (out, None),
            Ok(0) => {
                let room = guard.room();
                let piece = room.len().min(*pieces.next().unwrap()).min(bytes.len() - from);
                room[..piece].copy_from_slice(&bytes[from..from + piece]);
                guard.came(piece);
                from += piece;
            }
            Ok(count) => out.extend_from_slice(&some[..count]),
            Err(error) => return (out, Some(error.to_string())),
        }
    }
}

/// What lapin reads; panics on what it cannot.
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
fn what_goes_too_deep_is_replaced_and_the_next_message_is_not() {
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
    // Nothing is set aside for what a header claims.
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

/// What a sender hears that has published these, when the broker sends those frames.
fn heard(ids: &[&str], frames: &[Vec<u8>]) -> (Vec<AMQPFrame>, Vec<(u64, String)>) {
    let publish_channel = Arc::new(PublishChannel::new(1));
    for (id, message_id) in (1..).zip(ids) {
        publish_channel.take(&outgoing(id, message_id), Vec::new());
    }
    let bytes = [start(), frames.concat()].concat();
    let mut all = Vec::new();
    for pieces in [&[usize::MAX][..], &[1]] {
        let mut guard = Guard::new(MAX_BODY);
        guard.attach(publish_channel.clone());
        let (out, error) = through_guard(&mut guard, &bytes, pieces);
        assert_eq!(error, None);
        all.push(out);
    }
    assert_eq!(all[0], all[1]);
    let mut outcomes = Vec::new();
    publish_channel.outcomes(&mut outcomes);
    let outcomes = outcomes.into_iter().map(|(id, outcome)| (id, format!("{outcome:?}")));
    (parse(&all[0]).split_off(1), outcomes.collect())
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

fn answer(channel: u16, of: (u16, u16), number: u64, bits: u8) -> Vec<u8> {
    method(channel, of, &[&number.to_be_bytes()[..], &[bits]].concat())
}

fn confirmed(ids: &[u64]) -> Vec<(u64, String)> {
    ids.iter().map(|id| (*id, "Confirmed".to_owned())).collect()
}

#[test]
fn what_the_broker_says_of_published_messages_goes_to_their_sender_and_not_to_lapin() {
    let (frames, outcomes) = heard(
        &["a", "b", "c", "d", "e"],
        &[
            answer(1, method::ACK, 2, 0),
            // Of another channel, and of no message.
            answer(2, method::ACK, 1, 1),
            answer(1, method::ACK, 99, 0),
            deliver(2, b"key"),
            answer(1, method::ACK, 3, 1),
            plain(2, 2),
            answer(1, method::NACK, 4, 0),
            body(2, b"ok"),
        ],
    );
    assert_eq!(outcomes[..3], confirmed(&[2, 1, 3]));
    assert!(outcomes[3].1.starts_with("Rejected"), "{outcomes:?}");
    assert_eq!((outcomes[3].0, outcomes.len()), (4, 4));
    assert!(matches!(&frames[2], AMQPFrame::Body(2, body) if body == b"ok"), "{frames:?}");
    assert_eq!(frames.len(), 3);
}

/// Whatever else is wrong with it.
#[test]
fn a_returned_message_is_told_by_its_id_and_lapin_gets_nothing_of_it() {
    let large = MAX_BODY as u64 + 1;
    let deep = [&nested(100)[..], &short(b"c")].concat();
    let (frames, outcomes) = heard(
        &["a", "b", "c", "d"],
        &[
            returned(1, b"key"),
            header(1, large, 0x1080, b"\x02\x01b"),
            body(1, &[1; 600]),
            // Another channel's frames come in between.
            frame(HEARTBEAT, 0, b""),
            body(1, &[1; MAX_BODY + 1 - 600]),
            returned(1, b"\xff"),
            header(1, 0, 0x2080, &deep),
            answer(1, method::ACK, 1, 0),
            answer(1, method::ACK, 4, 1),
        ],
    );
    assert_eq!(frames.len(), 1, "{frames:?}");
    let expected = [(1, "Confirmed"), (2, "Unroutable"), (3, "Unroutable"), (4, "Confirmed")];
    assert_eq!(outcomes, expected.map(|(id, outcome)| (id, outcome.to_owned())));
    let unnamed = error(&[returned(1, b"key"), header(1, 0, 0x2000, &nested(100))]);
    assert!(unnamed.contains("nothing identifies"), "{unnamed}");
}

#[test]
fn a_channel_that_the_broker_closes_takes_no_more_messages() {
    let reason = [&b"\x01\x94"[..], &short(b"no exchange 'shop' in vhost '/'"), &[0; 4]].concat();
    let (frames, outcomes) =
        heard(&["a", "b"], &[answer(1, method::ACK, 1, 0), method(1, method::CLOSE, &reason)]);
    // lapin answers it.
    assert_eq!(frames.len(), 1);
    // The exchange was there a moment ago, so the last one was not stored.
    assert_eq!(outcomes[0], (1, "Confirmed".to_owned()));
    assert!(outcomes[1].0 == 2 && outcomes[1].1.contains("NotFound"), "{outcomes:?}");
}

#[test]
fn a_pause_that_the_broker_asks_for_holds_messages_back() {
    let publish_channel = Arc::new(PublishChannel::new(1));
    let mut guard = Guard::new(MAX_BODY);
    guard.attach(publish_channel.clone());
    publish_channel.take(&outgoing(1, "a"), b"head".to_vec());
    through_guard(&mut guard, &[start(), method(1, method::FLOW, &[0])].concat(), &[usize::MAX]);
    assert!(publish_channel.next().is_none());
    through_guard(&mut guard, &method(1, method::FLOW, &[1]), &[usize::MAX]);
    assert!(publish_channel.next().is_some());
    assert!(!guard.blocked());
    through_guard(&mut guard, &method(0, method::BLOCKED, &short(b"low on memory")), &[1]);
    assert!(guard.blocked());
    through_guard(&mut guard, &method(0, method::UNBLOCKED, b""), &[1]);
    assert!(!guard.blocked());
}

/// lapin gives a connection up on which it reads nothing, and the broker sends no heartbeats while it has
/// something else to say.
#[test]
fn lapin_is_shown_that_the_broker_lives_between_frames_and_only_there() {
    let mut guard = Guard::new(MAX_BODY);
    let withheld = [start(), answer(1, method::ACK, 1, 0), body(1, b"abc")].concat();
    let (mut out, _) = through_guard(&mut guard, &withheld[..withheld.len() - 2], &[usize::MAX]);
    assert!(guard.withheld());
    guard.show_life();
    let (rest, _) = through_guard(&mut guard, &withheld[withheld.len() - 2..], &[usize::MAX]);
    out.extend(rest);
    assert_eq!(parse(&out).len(), 2);
    through_guard(&mut guard, &answer(1, method::ACK, 2, 0), &[usize::MAX]);
    guard.show_life();
    let (out, _) = through_guard(&mut guard, b"", &[usize::MAX]);
    assert_eq!(out, A_HEARTBEAT);
    assert!(!guard.withheld());
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
fn what_no_broker_sends_ends_the_connection_and_says_so() {
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
        let said = error(&frames);
        let reason = reason.replace("too deep", "nested more than 64 levels deep");
        assert!(said.contains(&reason), "{reason:?} is not in {said:?}");
    }
    for max in [0_u32, 4096, 131_072, 512 << 20] {
        untouched(&[method(0, (10, 30), &[&[7, 255][..], &max.to_be_bytes(), &[0, 60]].concat())]);
    }
    // What came before it is handed on.
    let sound = [start(), deliver(1, b"key"), plain(1, 0)].concat();
    let (out, error) = through(&[&sound[..], b"junk"].concat(), &[usize::MAX]);
    assert_eq!((out, error.is_some()), (sound, true));
}

#[test]
fn the_greeting_is_read_on_the_way() {
    let mut guard = Guard::new(MAX_BODY);
    let bytes = start();
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(guard.greeting().is_some(), at == bytes.len(), "{at}");
        guard.room()[0] = *byte;
        guard.came(1);
    }
    assert!(guard.greeting().is_some() && !guard.answered());
    guard.room()[..8].copy_from_slice(&frame(HEARTBEAT, 0, b""));
    guard.came(8);
    assert!(guard.answered());
}

#[test]
fn a_placeholder_names_each_fault() {
    for fault in MessageFault::ALL {
        let sound = header(1, 0, 0, &[]);
        let header = ContentHeader::read(&sound[7..sound.len() - 1]).unwrap();
        let placeholder = header.placeholder(1, 0, fault, Some(&[b'i'; 255]));
        assert_eq!(told(&parse(&placeholder)[0]), (Some(fault), 0, Some("i".repeat(255))));
        assert!(!fault.to_string().is_empty());
    }
}

/// `cargo test --release -p enoki-transport-amqp091 --lib guard -- --ignored --nocapture`
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
        let mut guard = Guard::new(usize::MAX);
        let mut out = vec![0; 4 << 20];
        let (began, mut passed) = (std::time::Instant::now(), 0);
        for _ in 0..200 {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let room = guard.room();
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                guard.came(count);
                rest = &rest[count..];
                passed += guard.take(&mut out).unwrap();
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

/// The frames of a message: what announces it, its header, its body.
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
            method(
                channel,
                method::DELIVER,
                &[&b"\x01t\0\0\0\0\0\0\0\x07\0\x01e"[..], &key].concat(),
            )
        } else {
            let got = [&b"\0\0\0\0\0\0\0\x07\0\x01e"[..], &key, &[0; 4]].concat();
            method(channel, method::GET_OK, &got)
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
    fn what_passes_lapin_reads_and_it_does_not_matter_how_the_bytes_came(
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
