//! Both directions, and messages of other clients.

use std::time::Duration;

use bytes::Bytes;
use enoki_core::{Counted, Limits, Message, Properties, ShortStr, Table, Timestamp, Value};
use proptest::{collection::vec, option, prelude::*};

use super::{incoming::incoming, outgoing::outgoing};
use crate::{
    peer::Dialect,
    proto::{encode::Encoder, message},
};

const OTHER: Dialect =
    Dialect { rabbitmq: false, artemis: false, counts: false, converts_reply_to: false };
const OLDEST: Dialect = Dialect { rabbitmq: true, ..OTHER };
const NEWEST: Dialect = Dialect { counts: true, converts_reply_to: true, ..OLDEST };

/// A message with these sections, each a list or map in the form of [`Value`].
fn delivered(header: &[Value], annotations: &[(&'static str, Value)]) -> Bytes {
    let mut encoder = Encoder::default();
    encoder.descriptor(0x70);
    encoder.list(|encoder| {
        header.iter().for_each(|value| encoder.value(value));
        u32::try_from(header.len()).unwrap()
    });
    encoder.descriptor(0x72);
    encoder.map(|encoder| {
        for (name, value) in annotations {
            encoder.symbol(name);
            encoder.value(value);
        }
        u32::try_from(annotations.len()).unwrap()
    });
    encoder.into_bytes().into()
}

/// durable, priority, ttl, first-acquirer, delivery-count.
fn header(first: bool, count: i64) -> [Value; 5] {
    [true.into(), Value::Null, Value::Null, first.into(), count.into()]
}

#[test]
fn the_brokers_bookkeeping_is_left_out_and_the_history_of_a_dead_letter_stays() {
    let death: Table = [
        (ShortStr::from_static("queue"), Value::from("billing")),
        (ShortStr::from_static("first-time"), Timestamp::from_unix_seconds(7).into()),
        (ShortStr::from_static("last-time"), Timestamp::from_unix_seconds(8).into()),
    ]
    .into_iter()
    .collect();
    let read = incoming(
        &delivered(
            &header(true, 0),
            &[
                ("x-exchange", "shop".into()),
                ("x-routing-key", "order.placed".into()),
                ("x-acquired-count", Value::Int(4)),
                ("x-opt-deaths", Value::List(vec![death.into()])),
                ("x-first-death-queue", "billing".into()),
                ("x-opt-route", Value::Null),
                ("x-basic-type", "order".into()),
                ("x-mine", true.into()),
            ],
        ),
        OLDEST,
    );
    assert_eq!((read.exchange.as_str(), read.routing_key.as_str()), ("shop", "order.placed"));
    assert_eq!(read.message.properties.kind.as_deref(), Some("order"));
    let headers = &read.message.headers;
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-death", "x-first-death-queue", "x-mine"]);
    let deaths = headers.get("x-death").and_then(Value::as_list).unwrap();
    let death = deaths[0].as_table().unwrap();
    let names: Vec<_> = death.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["queue", "time"]);
    assert!(!read.redelivered);
}

#[test]
fn an_attempt_is_what_the_broker_counts_or_flags() {
    let read = |first, count, annotations: &[_], dialect| {
        let read = incoming(&delivered(&header(first, count), annotations), dialect);
        (read.attempt.number, read.attempt.counted, read.redelivered)
    };
    let came_back = [("x-delivery-count", Value::Int(3))];
    use Counted::{ByBroker, ByFlag};
    assert_eq!(read(true, 0, &[], OLDEST), (1, ByFlag, false));
    assert_eq!(read(false, 0, &[], OLDEST), (2, ByFlag, true));
    // Released once. Before 4.3 each time that it came back counts towards the limit.
    assert_eq!(read(false, 2, &came_back, OLDEST), (4, ByBroker, true));
    assert_eq!(read(true, 0, &[], NEWEST), (1, ByBroker, false));
    // Released five times, failed never.
    let acquired = [("x-acquired-count", Value::Int(5))];
    assert_eq!(read(false, 0, &acquired, NEWEST), (1, ByBroker, true));
    assert_eq!(read(false, 2, &[], NEWEST), (3, ByBroker, true));
    assert_eq!(read(false, -1, &[], NEWEST), (1, ByBroker, true));
    let absurd = [("x-delivery-count", Value::Int(i64::MAX))];
    assert_eq!(read(false, 0, &absurd, OLDEST), (u32::MAX, ByBroker, true));
}

/// Up to 4.3 RabbitMQ cannot write a null in an annotation.
#[test]
fn a_header_without_a_value_is_no_annotation() {
    let mut message = Message::new("");
    message.headers.set(ShortStr::from_static("x-own"), Value::Null);
    let wire = outgoing(&message, "/queues/q", NEWEST).into();
    let (sections, _) = message::read(&wire);
    assert_eq!(sections.annotations, []);
    assert_eq!(sections.application, [("x-own".to_owned(), Value::Null)]);
}

#[test]
fn bytes_that_look_like_text_are_marked_for_amqp_091() {
    let mut message = Message::new("");
    message.headers.set(ShortStr::from_static("key"), Value::Bytes("abc".into()));
    message.headers.set(ShortStr::from_static("blob"), Value::Bytes(vec![0xff].into()));
    let wire = outgoing(&message, "/queues/q", NEWEST).into();
    let (sections, _) = message::read(&wire);
    let marks: Table =
        [(ShortStr::from_static("key"), vec![Value::Int(0)].into())].into_iter().collect();
    assert_eq!(sections.annotations, [("x-enoki-bytes".to_owned(), marks.into())]);
    assert_eq!(incoming(&wire, NEWEST).message, message);
}

/// RabbitMQ converts long text from AMQP 0-9-1 to bytes.
#[test]
fn long_text_of_amqp_091_is_text() {
    let long = |byte: u8| Value::Bytes(vec![byte; 4097].into());
    let lists = [long(b'x'), long(0xff), Value::Bytes("x".into())];
    let annotations = [("x-list", Value::List(lists.to_vec()))];
    let read = |bytes: &Bytes, dialect| {
        incoming(bytes, dialect)
            .message
            .headers
            .get("x-list")
            .and_then(Value::as_list)
            .unwrap()
            .to_vec()
    };
    let converted = delivered(&header(true, 0), &annotations);
    let text = Value::String("x".repeat(4097));
    assert_eq!(read(&converted, NEWEST), [text, long(0xff), Value::Bytes("x".into())]);
    assert_eq!(read(&converted, OTHER), lists);
    // A message with a `to` came over AMQP 1.0, which has types for both.
    let mut encoder = Encoder::default();
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        encoder.null();
        encoder.null();
        encoder.string("/queues/q");
        3
    });
    let native = [&converted[..], &encoder.into_bytes()].concat().into();
    assert_eq!(read(&native, NEWEST), lists);
}

#[test]
fn a_message_without_sections_is_a_message() {
    let read = incoming(&Bytes::new(), OLDEST);
    assert!(read.message.body.is_empty() && read.message.headers.is_empty());
    assert!(!read.message.properties.persistent);
    assert!(!read.redelivered);
    assert_eq!(read.undecodable, None);
}

#[test]
fn a_body_of_text_or_bytes_is_read_from_each_kind_of_section() {
    let body = |write: &dyn Fn(&mut Encoder)| {
        let mut encoder = Encoder::default();
        write(&mut encoder);
        incoming(&encoder.into_bytes().into(), OLDEST).message
    };
    let value = |value: Value| {
        body(&|encoder| {
            encoder.descriptor(0x77);
            encoder.value(&value);
        })
    };
    assert_eq!(value("text".into()).body, "text");
    assert_eq!(value(Value::Bytes(Bytes::from_static(&[1, 2]))).body, &[1, 2][..]);
    assert_eq!(value(Value::Null).body, "");
    let parts = body(&|encoder| {
        for part in ["one ", "two ", "three"] {
            encoder.descriptor(0x75);
            encoder.binary(part.as_bytes());
        }
    });
    assert_eq!(parts.body, "one two three");
    // A section of another kind replaces the body.
    let mixed = b"\x00\x53\x75\xa0\x01a\x00\x53\x77\x43\x00\x53\x75\xa0\x01b";
    assert_eq!(incoming(&Bytes::from_static(mixed), OLDEST).message.body, "b");
}

/// The `kind` stays the one that the publisher gave.
#[test]
fn a_body_that_is_neither_bytes_nor_text_is_named() {
    let kind = delivered(&header(true, 0), &[("x-basic-type", "order".into())]);
    for (section, what) in [
        (&b"\x00\x53\x77\x55\x07"[..], "a number"),
        (b"\x00\x53\x77\x45", "a list"),
        (b"\x00\x53\x76\xc0\x02\x01\x41\x00\x53\x76\x45", "a sequence"),
    ] {
        let read = incoming(&[&kind[..], section].concat().into(), OLDEST);
        assert!(read.undecodable.is_some_and(|reason| reason.contains(what)), "{what}");
        assert_eq!(read.message.properties.kind.as_deref(), Some("order"));
    }
    let text = [&kind[..], b"\x00\x53\x77\xa1\x02hi"].concat();
    let read = incoming(&text.into(), OLDEST);
    assert_eq!((read.message.body, read.undecodable), ("hi".into(), None));
    assert_eq!(read.message.properties.kind.as_deref(), Some("order"));
}

/// JMS clients put the type into the subject, others the name of an event.
#[test]
fn properties_of_others_are_headers_that_no_program_may_publish() {
    let mut encoder = Encoder::default();
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        let time = Timestamp::from_unix_seconds(-5).into();
        let mut all = vec![Value::Null; 13];
        for (at, value) in
            [(3, "placed".into()), (8, time), (10, "g".into()), (11, 4.into()), (12, "r".into())]
        {
            all[at] = value;
        }
        all.iter().for_each(|value| encoder.value(value));
        13
    });
    let wire: Bytes = encoder.into_bytes().into();
    let read = |dialect| incoming(&wire, dialect).message;
    let table = |entries: &[(&'static str, Value)]| -> Table {
        let entries = entries.iter().cloned();
        entries.map(|(name, value)| (ShortStr::from_static(name), value)).collect()
    };
    let common = [
        ("x-amqp-1.0-subject", "placed".into()),
        ("x-amqp-1.0-absolute-expiry-time", Timestamp::from_unix_seconds(-5).into()),
        ("x-amqp-1.0-group-sequence", 4.into()),
        ("x-amqp-1.0-reply-to-group-id", "r".into()),
    ];
    let on_rabbitmq = read(NEWEST);
    assert_eq!(on_rabbitmq.headers, table(&common));
    assert_eq!(on_rabbitmq.properties.app_id.as_deref(), Some("g"));
    let elsewhere = read(OTHER);
    let group = ("x-amqp-1.0-group-id", "g".into());
    assert_eq!(elsewhere.headers, table(&[&common[..], &[group]].concat()));
    for (name, _) in elsewhere.headers.iter() {
        let mut message = Message::new("");
        message.headers.set(name.clone(), 1);
        assert!(message.check(&Limits::default()).is_err(), "{name}");
    }
}

#[test]
fn a_body_of_many_parts_is_read_up_to_a_limit() {
    let parts = |count| Bytes::from(b"\x00\x53\x75\xa0\x01x".repeat(count));
    let whole = incoming(&parts(50_000), NEWEST);
    assert_eq!((whole.undecodable, whole.message.body.len()), (None, 50_000));
    assert!(incoming(&parts(100_001), NEWEST).undecodable.unwrap().contains("values"));
}

#[test]
fn an_id_is_text_that_says_its_type_and_becomes_the_same_again() {
    // With an address it was published over AMQP 1.0, without one it was converted from AMQP 0-9-1.
    let read = |id: &[u8], to: &[u8]| {
        let items = [id, b"\x40", to].concat();
        let size = u8::try_from(items.len() + 1).unwrap();
        let wire = [&[0x00, 0x53, 0x73, 0xc0, size, 3][..], &items].concat();
        incoming(&wire.into(), NEWEST).message
    };
    let text = |id: &[u8]| read(id, b"\xa1\x01q").properties.message_id;
    const UUID: &str = "urn:uuid:12121212-1212-1212-1212-121212121212";
    let uuid = [&[0x98][..], &[0x12; 16]].concat();
    let same = [b"\xa1\x2d", UUID.as_bytes()].concat();
    for (id, expected) in [
        (&b"\x80\0\0\0\0\0\0\0\x07"[..], "AMQP_ULONG:7"),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff", "AMQP_ULONG:18446744073709551615"),
        (b"\xa0\x02ab", "AMQP_BINARY:6162"),
        (b"\xa0\x02\xff\x00", "AMQP_BINARY:FF00"),
        (b"\xa1\x02ab", "ab"),
        (b"\xa1\x027x", "7x"),
        (&uuid, UUID),
        (&same, &format!("AMQP_STRING:{UUID}")),
    ] {
        assert_eq!(text(id).as_deref(), Some(expected));
        let mut answer = Message::new("");
        answer.properties.correlation_id = text(id);
        let wire = outgoing(&answer, "/queues/q", NEWEST);
        let sections = message::read(&wire.clone().into()).0;
        let asked = message::read(
            &[b"\x00\x53\x73\xc0", &[u8::try_from(id.len()).unwrap() + 1, 1][..], id]
                .concat()
                .into(),
        )
        .0;
        assert_eq!(sections.correlation_id, asked.message_id, "{expected}");
        assert!(wire.windows(id.len()).any(|part| part == id), "{expected}");
    }
    assert_eq!(text(b"\x53\x07").as_deref(), Some("AMQP_ULONG:7"));
    assert_eq!(text(b"\x44").as_deref(), Some("AMQP_ULONG:0"));
    assert_eq!(text(b"\x40"), None);
    // On AMQP 0-9-1 it was this text, and so it is here.
    let converted = read(b"\xa1\x0cAMQP_ULONG:7", b"\x40").properties.message_id;
    assert_eq!(converted.as_deref(), Some("AMQP_ULONG:7"));
    let asked = read(b"\xa1\x0cAMQP_ULONG:7", b"\xa1\x01q").properties.message_id;
    assert_eq!(asked.as_deref(), Some("AMQP_STRING:AMQP_ULONG:7"));
    // One that is too long for an id becomes a header.
    let long = [b"\xb1\0\0\x01\x2c", &*b"x".repeat(300)].concat();
    let wire = [&b"\x00\x53\x73\xd0\0\0\x01\x35\0\0\0\x01"[..], &long].concat();
    let read = incoming(&wire.into(), NEWEST).message;
    assert_eq!(read.properties.message_id, None);
    assert_eq!(read.headers.get("x-message-id"), Some(&"x".repeat(300).into()));
}

#[test]
fn a_priority_of_four_is_not_none() {
    let mut message = Message::new("x");
    for priority in [None, Some(0), Some(4), Some(255)] {
        message.properties.priority = priority;
        let read = incoming(&outgoing(&message, "/queues/q", NEWEST).into(), NEWEST);
        assert_eq!(read.message.properties.priority, priority);
    }
}

#[test]
fn the_parts_before_a_fault_are_read() {
    let mut message = Message::new("x");
    message.properties.message_id = Some(ShortStr::from_static("7"));
    let mut bytes = outgoing(&message, "/queues/q", NEWEST);
    bytes.truncate(bytes.len() - 1);
    let read = incoming(&bytes.into(), NEWEST);
    assert_eq!(read.undecodable.as_deref(), Some("bytes are missing"));
    assert_eq!(read.message.properties.message_id.as_deref(), Some("7"));
}

/// Forty kilobytes of nested values end a process that follows them by recursion.
#[test]
fn values_that_are_nested_too_deep_are_refused() {
    let nested = |levels: usize, code: u8| {
        let mut inner: Vec<u8> = vec![0x40];
        for _ in 0..levels {
            let size = u32::try_from(inner.len() + 4).unwrap().to_be_bytes();
            inner = [&[code][..], &size, &1_u32.to_be_bytes(), &inner].concat();
        }
        let size = u32::try_from(inner.len() + 4 + 3).unwrap().to_be_bytes();
        let map =
            [&[0x00, 0x53, 0x72, 0xd1][..], &size, &2_u32.to_be_bytes(), b"\xa3\x01x", &inner]
                .concat();
        incoming(&map.into(), NEWEST)
    };
    assert_eq!(nested(60, 0xd0).undecodable, None);
    for code in [0xd0, 0xf0] {
        let deep = nested(20_000, code);
        assert!(deep.undecodable.unwrap().contains("levels deep"));
    }
    let described = [&[0x00, 0x53, 0x77][..], &[0x00, 0x40].repeat(20_000), &[0x40]].concat();
    assert!(incoming(&described.into(), NEWEST).undecodable.is_some());
}

#[test]
fn a_few_bytes_are_not_a_billion_values() {
    let nulls = b"\x00\x53\x74\xc1\x0e\x02\xa1\x01x\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40";
    let read = incoming(&Bytes::from_static(nulls), NEWEST);
    assert!(read.undecodable.unwrap().contains("values"));
}

fn short_text() -> impl Strategy<Value = ShortStr> {
    "\\PC{0,60}".prop_map(|text| ShortStr::new(text).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.unix_seconds()..=Timestamp::MAX.unix_seconds())
        .prop_map(Timestamp::from_unix_seconds)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        time().prop_map(Value::Timestamp),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::List),
            vec((short_text(), inner), 0..5)
                .prop_map(|entries| Value::Table(entries.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn message()(
        texts in vec(option::of(short_text()), 8),
        timestamp in option::of(time()),
        expiration in option::of(any::<u32>()),
        priority in option::of(any::<u8>()),
        persistent in any::<bool>(),
        headers in vec((short_text(), value()), 0..6),
        more in vec(("x-[a-z]{0,9}", value()), 0..3),
        body in vec(any::<u8>(), 0..400),
    ) -> Message {
        let mut texts = texts.into_iter().map(Option::unwrap_or_default);
        let mut text = || texts.next().filter(|text| !text.is_empty());
        let more = more.into_iter().map(|(name, value)| (ShortStr::new(name).unwrap(), value));
        Message {
            body: Bytes::from(body),
            headers: headers.into_iter().chain(more).filter(|(name, _)| name != "x-cc").collect(),
            properties: Properties {
                content_type: text(),
                content_encoding: text(),
                message_id: text(),
                correlation_id: text(),
                reply_to: text(),
                kind: text(),
                app_id: text(),
                user_id: text(),
                timestamp,
                expiration: expiration.map(|millis| Duration::from_millis(millis.into())),
                priority,
                persistent,
            },
        }
    }
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(
        message in message(),
        dialect in prop::sample::select(vec![NEWEST, OLDEST, OTHER]),
    ) {
        let wire = outgoing(&message, "/queues/q", dialect);
        let read = incoming(&wire.into(), dialect);
        prop_assert_eq!(read.message, message);
        prop_assert_eq!(read.undecodable, None);
    }

    #[test]
    fn any_bytes_are_read_as_a_message_without_a_panic(
        message in message(),
        noise in vec(any::<u8>(), 0..200),
        changes in vec((any::<usize>(), any::<u8>()), 0..8),
    ) {
        let _ = incoming(&noise.into(), NEWEST);
        let mut wire = outgoing(&message, "/queues/q", NEWEST);
        for (at, byte) in changes {
            let at = at % wire.len();
            wire[at] = byte;
        }
        let _ = incoming(&wire.into(), NEWEST);
    }
}
