use std::{sync::Arc, time::Duration};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use bytes::Bytes;
use enoki_core::{
    Attempt, Counted, Message, Properties, ShortStr, Table, Timestamp, Value, transport::Outgoing,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString},
};
use proptest::{collection::vec, option, prelude::*};

use super::incoming::{Incoming, incoming, is_bookkeeping, value_in};
use crate::proto::encode;

fn table(entries: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn with_headers(headers: FieldTable) -> Incoming {
    incoming(BasicProperties::default().with_headers(headers), Vec::new(), false)
}

#[test]
fn every_type_on_the_wire_has_a_value() {
    let rows = [
        (AMQPValue::Boolean(true), Value::Bool(true)),
        (AMQPValue::ShortShortInt(-1), Value::Int(-1)),
        (AMQPValue::ShortShortUInt(255), Value::Int(255)),
        (AMQPValue::ShortInt(-2), Value::Int(-2)),
        (AMQPValue::ShortUInt(65_535), Value::Int(65_535)),
        (AMQPValue::LongInt(-3), Value::Int(-3)),
        (AMQPValue::LongUInt(u32::MAX), Value::Int(u32::MAX.into())),
        (AMQPValue::LongLongInt(i64::MIN), Value::Int(i64::MIN)),
        (AMQPValue::Float(1.5), Value::Float(1.5)),
        (AMQPValue::Double(2.5), Value::Float(2.5)),
        (decimal(2, 225), Value::Float(2.25)),
        (decimal(1, -15), Value::Float(-1.5)),
        (decimal(0, i32::MIN), Value::Float(-2_147_483_648.0)),
        (decimal(0, i32::MAX), Value::Float(2_147_483_647.0)),
        (decimal(28, 3), Value::Float(3e-28)),
        (decimal(255, 1), Value::Float(1e-255)),
        (decimal(255, 0), Value::Float(0.0)),
        (AMQPValue::LongString("é".into()), Value::String("é".to_owned())),
        (
            AMQPValue::LongString(LongString::from(vec![0xff])),
            Value::Bytes(Bytes::from_static(&[0xff])),
        ),
        (
            AMQPValue::ByteArray(ByteArray::from(vec![1, 2])),
            Value::Bytes(Bytes::from_static(&[1, 2])),
        ),
        (AMQPValue::Timestamp(7), Value::Timestamp(Timestamp::from_unix_seconds(7))),
        (AMQPValue::Timestamp(u64::MAX), Value::Timestamp(Timestamp::from_unix_seconds(-1))),
        (AMQPValue::Void, Value::Null),
    ];
    for (wire, value) in rows {
        assert_eq!(value_in(&wire).ok(), Some(value));
    }
}

fn decimal(scale: u8, value: i32) -> AMQPValue {
    AMQPValue::DecimalValue(DecimalValue { scale, value: value.cast_unsigned() })
}

/// A time before 1970 is kept, whichever protocol it was published by; a time that AMQP 1.0 cannot carry is refused.
#[test]
fn a_time_out_of_range_is_named_and_no_other_year() {
    let read = |seconds: u64| {
        let nested = AMQPValue::FieldArray(vec![AMQPValue::Timestamp(seconds)].into());
        let by_property = BasicProperties::default().with_timestamp(seconds);
        [
            incoming(by_property, Vec::new(), false),
            with_headers(table([("at", AMQPValue::Timestamp(seconds))])),
            with_headers(table([("at", nested)])),
        ]
    };
    let edge = Timestamp::MAX.unix_seconds();
    for seconds in [0, -5, edge, -edge] {
        let time = Timestamp::from_unix_seconds(seconds);
        let [property, header, nested] = read(seconds.cast_unsigned());
        assert_eq!(property.message.properties.timestamp, Some(time));
        assert_eq!(header.message.headers.get("at"), Some(&time.into()));
        let list = Value::List(vec![time.into()]);
        assert_eq!(nested.message.headers.get("at"), Some(&list));
        assert!(property.undecodable.or(header.undecodable).or(nested.undecodable).is_none());
    }
    for seconds in [edge.cast_unsigned() + 1, i64::MAX.cast_unsigned(), (1 << 63) + 5] {
        let [property, header, nested] = read(seconds);
        let said = format!("its timestamp is out of range: {seconds} seconds since 1970");
        assert_eq!(property.undecodable.as_deref(), Some(&*said));
        let said = said.replace("its timestamp", "header \"at\"");
        assert_eq!(header.undecodable.as_deref(), Some(&*said));
        assert_eq!(nested.undecodable.as_deref(), Some(&*said));
    }
}

/// As RabbitMQ writes messages that other clients published over AMQP 1.0.
#[test]
fn a_body_that_amqp_10_encoded_is_read_and_what_is_no_body_is_named() {
    let read = |body: &[u8]| {
        let properties = BasicProperties::default().with_type("amqp-1.0".into());
        incoming(properties, body.to_vec(), false)
    };
    let text = read(b"\x00\x53\x77\xa1\x07{\"a\":1}");
    assert_eq!(text.message.body, "{\"a\":1}");
    assert_eq!((text.message.properties.kind, text.undecodable), (None, None));
    let map = read(b"\x00\x53\x77\xd1\0\0\0\x04\0\0\0\0");
    assert!(map.undecodable.is_some_and(|reason| reason.contains("a map of AMQP 1.0")));
    let own = read(b"{\"a\":1}");
    assert_eq!((own.message.body, own.undecodable), ("{\"a\":1}".into(), None));
    assert_eq!(own.message.properties.kind.as_deref(), Some("amqp-1.0"));
}

#[test]
fn an_id_of_bytes_is_an_id() {
    let bytes = AMQPValue::ByteArray(ByteArray::from(vec![0xff, 0, 0xfe]));
    let read = with_headers(table([("x-message-id", bytes)]));
    assert_eq!(read.message.properties.message_id.as_deref(), Some("AMQP_BINARY:FF00FE"));
    assert!(read.message.headers.is_empty());
}

#[test]
fn the_brokers_bookkeeping_becomes_the_attempt_and_history_stays() {
    let read = with_headers(table([
        ("x-delivery-count", AMQPValue::LongLongInt(2)),
        ("x-acquired-count", AMQPValue::LongInt(4)),
        ("CC", AMQPValue::FieldArray(FieldArray::default())),
        ("x-opt-route", AMQPValue::Void),
        ("x-death", AMQPValue::FieldArray(FieldArray::default())),
        ("x-first-death-queue", AMQPValue::LongString("billing".into())),
        ("region", AMQPValue::LongString("eu".into())),
    ]));
    assert_eq!(read.attempt, Attempt { number: 3, counted: Counted::ByBroker });
    let names: Vec<_> = read.message.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["region", "x-death", "x-first-death-queue"]);
}

/// As RabbitMQ 3.10, 4.0 and 4.3 deliver from quorum queues.
#[test]
fn what_came_back_is_an_attempt_and_what_was_released_is_none_where_the_broker_can_tell() {
    let attempt = |counts: &[(&'static str, i64)]| {
        let counts = counts.iter().map(|(name, count)| (*name, AMQPValue::LongLongInt(*count)));
        let properties = BasicProperties::default().with_headers(table(counts));
        incoming(properties, Vec::new(), true).attempt
    };
    let by_broker = |number| Attempt { number, counted: Counted::ByBroker };
    assert_eq!(attempt(&[("x-delivery-count", 3)]), by_broker(4));
    assert_eq!(attempt(&[("x-acquired-count", 2)]), by_broker(1));
    assert_eq!(attempt(&[("x-acquired-count", 4), ("x-delivery-count", 1)]), by_broker(2));
    assert_eq!(attempt(&[("x-delivery-count", -1)]), by_broker(1));
    assert_eq!(attempt(&[("x-delivery-count", i64::MAX)]), by_broker(u32::MAX));
    assert_eq!(attempt(&[]), Attempt { number: 2, counted: Counted::ByFlag });
}

/// As RabbitMQ writes messages that this toolkit published over AMQP 1.0.
#[test]
fn headers_that_crossed_have_their_names_and_types_again() {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let marks = table([("stack", AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(1)].into()))]);
    let stack = AMQPValue::FieldArray(vec![text("a"), text("b")].into());
    let read = with_headers(table([
        ("x-enoki-header-stack", stack),
        ("x-enoki-bytes", AMQPValue::FieldTable(marks)),
        ("x-own", text("c")),
    ]));
    let stack = Value::List(vec!["a".into(), Value::Bytes("b".into())]);
    let expected = [("stack", stack), ("x-own", "c".into())];
    let headers = expected.map(|(name, value)| (ShortStr::from_static(name), value));
    assert_eq!(read.message.headers, headers.into_iter().collect());
}

#[test]
fn an_expiration_that_is_no_number_is_as_good_as_none() {
    for (text, expected) in [("1500", Some(1500)), ("1.5", None), ("", None), ("soon", None)] {
        let properties = BasicProperties::default().with_expiration(text.into());
        let read = incoming(properties, Vec::new(), false).message.properties.expiration;
        assert_eq!(read, expected.map(Duration::from_millis), "{text:?}");
    }
}

fn short_text() -> impl Strategy<Value = ShortStr> {
    "\\PC{0,60}".prop_map(|text| ShortStr::new(text).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = Timestamp::MIN.unix_seconds()..=Timestamp::MAX.unix_seconds();
    seconds.prop_map(Timestamp::from_unix_seconds)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        time().prop_map(Value::Timestamp),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
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
    fn properties()(
        texts in vec(option::of(short_text()), 8),
        timestamp in option::of(time()),
        expiration in option::of(any::<u32>()),
        priority in option::of(any::<u8>()),
        persistent in any::<bool>(),
    ) -> Properties {
        let mut texts = texts.into_iter().map(Option::unwrap_or_default);
        let mut text = || texts.next().filter(|text| !text.is_empty());
        Properties {
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
        }
    }
}

/// What is published, as lapin's parser reads it.
fn read_back(message: &Message) -> Incoming {
    let outgoing = Outgoing {
        id: 1,
        exchange: ShortStr::from_static("shop"),
        routing_key: ShortStr::from_static("order"),
        mandatory: true,
        message: Arc::new(message.clone()),
    };
    let head = encode::head(1, &outgoing, usize::MAX).unwrap();
    let (rest, _) = parse_frame(head.as_slice()).unwrap();
    let Ok(([], AMQPFrame::Header(1, header))) = parse_frame(rest) else { panic!("no header") };
    assert_eq!(header.body_size, message.body.len() as u64);
    incoming(header.properties, message.body.to_vec(), false)
}

proptest! {
    #[test]
    fn what_goes_out_comes_in(
        properties in properties(),
        headers in vec((short_text(), value()), 0..6),
        body in vec(any::<u8>(), 0..40),
    ) {
        let headers: Table =
            headers.into_iter().filter(|(name, _)| !is_bookkeeping(name)).collect();
        let message = Message { body: Bytes::from(body), headers, properties };
        let read = read_back(&message);
        prop_assert_eq!(read.message, message);
        prop_assert_eq!(read.undecodable, None);
    }
}
