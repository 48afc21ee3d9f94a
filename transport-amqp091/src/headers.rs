//! Messages and header values as AMQP 0-9-1 writes them, both directions. Pure.
//!
//! | here | out | in |
//! |---|---|---|
//! | `Null` | void | void |
//! | `Bool` | boolean | boolean |
//! | `Int` | 64-bit signed | every integer; unsigned 64-bit does not exist in RabbitMQ's dialect |
//! | `Float` | double | double, float, decimal (as the nearest double) |
//! | `Timestamp` | timestamp, seconds | timestamp, signed; beyond what AMQP 1.0 can carry it is none |
//! | `String` | long string | long string in UTF-8, short string |
//! | `Bytes` | byte array | byte array, long string that is not UTF-8 |
//! | `List`, `Table` | array, table | array, table |
//!
//! Numbers in a decimal and a timestamp are signed, as clients write them and RabbitMQ reads them, whatever
//! the grammar of AMQP 0-9-1 (§4.2.1) and lapin's types say.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Counted, Error, ErrorKind, Message, Properties, Result, ShortStr, Table, Timestamp,
    Value, transport::cross_protocol,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};

use crate::proto::{encode::no_type, fault::MessageFault};

/// A text as lapin takes it, which panics on longer ones.
pub(crate) fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::Configuration, "check a name").because(error.to_string())
    })
}

/// A text of the broker's. All short strings on the wire are short enough.
pub(crate) fn from_short(text: ShortString) -> ShortStr {
    ShortStr::new(String::from(text)).unwrap_or_default()
}

/// The arguments of a queue or a binding.
pub(crate) fn table_out(table: &Table) -> Result<FieldTable> {
    let mut out = FieldTable::default();
    for (name, value) in table.iter() {
        out.insert(short(name)?, value_out(value)?);
    }
    Ok(out)
}

fn value_out(value: &Value) -> Result<AMQPValue> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(truth) => AMQPValue::Boolean(*truth),
        Value::Int(number) => AMQPValue::LongLongInt(*number),
        Value::Float(number) => AMQPValue::Double(*number),
        Value::Timestamp(time) => AMQPValue::Timestamp(time.unix_seconds().cast_unsigned()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_ref().into()),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::List(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(value_out).collect::<Result<Vec<_>>>()?,
        )),
        Value::Table(table) => AMQPValue::FieldTable(table_out(table)?),
        other => return Err(no_type(other)),
    })
}

/// A message as it came in, and what the broker says about its attempts.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) attempt: Attempt,
    pub(crate) undecodable: Option<Arc<str>>,
}

/// Reads what was delivered. It goes as deep as the headers do, which the guard has limited.
///
/// Headers that are the broker's bookkeeping, and that no program may publish, are left out:
/// what `x-delivery-count` and `x-acquired-count` count is in the attempt. The history of a dead
/// letter (`x-death`, `x-first-death-…`) stays. What was published over AMQP 1.0 gets its names
/// and types back, and its body, where another client wrote that in a form of its own.
pub(crate) fn incoming(wire: BasicProperties, body: Vec<u8>, redelivered: bool) -> Incoming {
    let mut attempt = Attempt::from_flag(redelivered);
    let mut undecodable: Option<Arc<str>> = None;
    let mut message = Message::new(body);
    message.properties = properties_in(&wire);
    if let Some(time) = wire.timestamp()
        && message.properties.timestamp.is_none()
    {
        undecodable = Some(out_of_range("its timestamp", *time).into());
    }
    if let Some(fields) = wire.headers() {
        attempt = counted(fields, attempt);
        if let Some(fault) = MessageFault::from_headers(fields) {
            undecodable = Some(fault.to_string().into());
        } else {
            let fields = fields.into_iter().filter(|(name, _)| !is_bookkeeping(name.as_str()));
            for (name, value) in fields {
                match value_in(value) {
                    Ok(value) => message.headers.set(from_short(name.clone()), value),
                    Err(BadTime(seconds)) => {
                        let header = format!("header {:?}", name.as_str());
                        undecodable.get_or_insert_with(|| out_of_range(&header, seconds).into());
                    }
                }
            }
            cross_protocol::restore(&mut message.headers);
            cross_protocol::restore_ids(&mut message.properties, &mut message.headers);
        }
    }
    if message.properties.kind.as_deref() == Some(cross_protocol::ENCODED_BODY) {
        match cross_protocol::read_encoded(&message.body) {
            Some(Ok(body)) => {
                message.body = body;
                // RabbitMQ put it there in place of the publisher's own, which is lost.
                message.properties.kind = None;
            }
            Some(Err(reason)) => {
                undecodable.get_or_insert(reason.into());
            }
            None => {}
        }
    }
    Incoming { message, attempt, undecodable }
}

/// A time that is none: this many seconds, as the wire has them.
struct BadTime(u64);

fn time_in(seconds: u64) -> std::result::Result<Timestamp, BadTime> {
    let time = Timestamp::from_unix_seconds(seconds.cast_signed());
    if time.is_portable() { Ok(time) } else { Err(BadTime(seconds)) }
}

fn out_of_range(what: &str, seconds: u64) -> String {
    format!("{what} is out of range: {seconds} seconds since 1970")
}

fn properties_in(properties: &BasicProperties) -> Properties {
    let text = |text: &Option<ShortString>| text.clone().map(from_short);
    Properties {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        kind: text(properties.kind()),
        app_id: text(properties.app_id()),
        user_id: text(properties.user_id()),
        timestamp: properties.timestamp().and_then(|seconds| time_in(seconds).ok()),
        // The broker enforces it; one that is no number is another client's affair.
        expiration: properties
            .expiration()
            .as_ref()
            .and_then(|text| text.as_str().parse().ok())
            .map(Duration::from_millis),
        priority: *properties.priority(),
        persistent: *properties.delivery_mode() == Some(2),
    }
}

/// Quorum queues count, in `x-delivery-count`, how often the message came back.
///
/// Since RabbitMQ 4.3 that leaves out what was released, so that a released delivery is no attempt;
/// one that was only ever released has `x-acquired-count` alone, which counts every delivery.
fn counted(headers: &FieldTable, by_flag: Attempt) -> Attempt {
    let count = |name| headers.inner().get(name).and_then(integer);
    let (failed, acquired) = (count("x-delivery-count"), count("x-acquired-count"));
    if failed.is_none() && acquired.is_none() {
        return by_flag;
    }
    let failed = u32::try_from(failed.unwrap_or(0).max(0)).unwrap_or(u32::MAX);
    Attempt { number: failed.saturating_add(1), counted: Counted::ByBroker }
}

fn is_bookkeeping(name: &str) -> bool {
    matches!(
        name,
        "x-delivery-count" | "x-acquired-count" | "x-exchange" | "x-routing-key" | "CC" | "BCC"
    ) || name.starts_with("x-opt-")
}

fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => *number,
        _ => return None,
    })
}

fn value_in(value: &AMQPValue) -> std::result::Result<Value, BadTime> {
    if let Some(number) = integer(value) {
        return Ok(Value::Int(number));
    }
    Ok(match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::Float(number) => Value::Float((*number).into()),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::DecimalValue(decimal) => {
            // Read as text, since that gives the nearest number; a division by 10^scale may not.
            let text = format!("{}e-{}", decimal.value.cast_signed(), decimal.scale);
            Value::Float(text.parse().unwrap_or(0.0))
        }
        AMQPValue::ShortString(text) => Value::String(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::FieldArray(values) => {
            let values = values.as_slice().iter().map(value_in);
            Value::List(values.collect::<std::result::Result<_, _>>()?)
        }
        AMQPValue::Timestamp(seconds) => Value::Timestamp(time_in(*seconds)?),
        AMQPValue::FieldTable(table) => Value::Table(
            table
                .into_iter()
                .map(|(name, value)| Ok((from_short(name.clone()), value_in(value)?)))
                .collect::<std::result::Result<_, _>>()?,
        ),
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        _ => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use enoki_core::transport::Outgoing;
    use lapin::types::{ByteArray, DecimalValue, LongString};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
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

    /// Before 1970 is a time, whichever protocol it was published by; what AMQP 1.0 cannot say is none.
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

    /// As RabbitMQ writes what other clients of AMQP 1.0 published.
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

    /// As RabbitMQ writes what this toolkit published over AMQP 1.0.
    #[test]
    fn headers_that_crossed_have_their_names_and_types_again() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let marks =
            table([("stack", AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(1)].into()))]);
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
}
