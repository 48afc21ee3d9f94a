//! Messages as AMQP 1.0 writes them, both directions. Pure.
//!
//! | here | AMQP 1.0 |
//! |---|---|
//! | body | one data section |
//! | `persistent`, `priority`, `expiration` | header: durable, priority, ttl |
//! | `message_id`, `correlation_id` | strings; numbers, UUIDs and bytes are read, too |
//! | `content_type`, `content_encoding`, `user_id` | the properties of these names |
//! | `reply_to` | reply-to: the queue's address |
//! | `timestamp` | creation-time |
//! | `app_id` | group-id, as RabbitMQ maps it; elsewhere message annotation `x-enoki-app-id` |
//! | `kind` | message annotation `x-basic-type`, as RabbitMQ maps it |
//! | header `x-…` | message annotation; a null is an application property |
//! | any other header with a simple value | application property |
//! | any other header with a list or table | message annotation `x-enoki-header-` and the name |
//! | which bytes in headers look like text | message annotation `x-enoki-bytes`, for AMQP 0-9-1 |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Counted, Message, Properties, ShortStr, Table, Value, transport::crossing,
};

use crate::{
    address,
    decode::{self, Body, Sections},
    encode::Encoder,
    peer::Dialect,
};

/// A whole message for this address.
pub(crate) fn outgoing(message: &Message, to: &str, dialect: Dialect) -> Vec<u8> {
    let Message { body, headers, properties } = message;
    let mut encoder = Encoder::with_capacity(body.len() + 256);
    encoder.descriptor(0x70);
    encoder.list(|encoder| {
        // Always there: what has no header is not durable.
        encoder.bool(properties.persistent);
        match properties.priority {
            Some(priority) => encoder.ubyte(priority),
            None => encoder.null(),
        }
        match properties.expiration_millis() {
            Some(millis) => encoder.uint(millis),
            None => encoder.null(),
        }
        3
    });
    annotations_out(&mut encoder, headers, properties, dialect);
    properties_out(&mut encoder, properties, to, dialect);
    let simple = || headers.iter().filter(|(name, value)| annotation(name, value).is_none());
    if simple().next().is_some() {
        encoder.descriptor(0x74);
        encoder.map(|encoder| {
            simple().fold(0, |count, (name, value)| {
                encoder.string(name);
                encoder.value(value);
                count + 1
            })
        });
    }
    encoder.descriptor(0x75);
    encoder.binary(body);
    encoder.into_bytes()
}

fn annotations_out(
    encoder: &mut Encoder,
    headers: &Table,
    properties: &Properties,
    dialect: Dialect,
) {
    let annotated =
        headers.iter().filter_map(|(name, value)| Some((annotation(name, value)?, value)));
    let app_id = properties.app_id.as_ref().filter(|_| !dialect.rabbitmq);
    let marks = crossing::bytes_of_text(headers);
    let mut others = annotated.peekable();
    if properties.kind.is_none() && app_id.is_none() && marks.is_empty() && others.peek().is_none()
    {
        return;
    }
    encoder.descriptor(0x72);
    encoder.map(|encoder| {
        let mut count = 0;
        if let Some(kind) = &properties.kind {
            encoder.symbol(KIND);
            encoder.string(kind);
            count += 1;
        }
        if let Some(app_id) = app_id {
            encoder.symbol(APP_ID);
            encoder.string(app_id);
            count += 1;
        }
        for (name, value) in others {
            encoder.symbol(&name);
            encoder.value(value);
            count += 1;
        }
        if !marks.is_empty() {
            encoder.symbol(crossing::BYTES);
            encoder.table(&marks);
            count += 1;
        }
        count
    });
}

/// The annotation that carries this header, if one does.
///
/// Application properties may have simple values only, and RabbitMQ gives headers of AMQP 0-9-1 that
/// begin with `x-` to consumers here as annotations.
fn annotation(name: &str, value: &Value) -> Option<String> {
    if name.starts_with("x-") {
        // A null there ends RabbitMQ's session with whoever consumes it; seen up to 4.3.
        (*value != Value::Null).then(|| name.to_owned())
    } else if matches!(value, Value::List(_) | Value::Table(_)) {
        Some(format!("{}{name}", crossing::NESTED))
    } else {
        None
    }
}

fn properties_out(encoder: &mut Encoder, properties: &Properties, to: &str, dialect: Dialect) {
    let text = |encoder: &mut Encoder, text: Option<&ShortStr>| match text {
        Some(text) => encoder.string(text),
        None => encoder.null(),
    };
    let symbol = |encoder: &mut Encoder, text: Option<&ShortStr>| match text {
        Some(text) => encoder.symbol(text),
        None => encoder.null(),
    };
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        text(encoder, properties.message_id.as_ref());
        match &properties.user_id {
            Some(user) => encoder.binary(user.as_bytes()),
            None => encoder.null(),
        }
        encoder.string(to);
        encoder.null();
        match &properties.reply_to {
            // A name that looks like an address has to be one, to be told from it.
            Some(queue) if dialect.converts_reply_to || queue.starts_with("/queues/") => {
                encoder.string(&address::queue(queue));
            }
            Some(queue) => encoder.string(queue),
            None => encoder.null(),
        }
        text(encoder, properties.correlation_id.as_ref());
        symbol(encoder, properties.content_type.as_ref());
        symbol(encoder, properties.content_encoding.as_ref());
        encoder.null();
        match properties.timestamp {
            Some(time) => encoder.millis(time.unix_seconds()),
            None => encoder.null(),
        }
        // Elsewhere a group is what only one consumer gets.
        text(encoder, properties.app_id.as_ref().filter(|_| dialect.rabbitmq));
        11
    });
}

/// A message as it came in, and what the broker says about its way.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) redelivered: bool,
    pub(crate) attempt: Attempt,
    pub(crate) undecodable: Option<Arc<str>>,
}

/// Reads what was delivered.
///
/// Annotations that are the broker's bookkeeping, and that no program may publish, are left out:
/// what they count is in the attempt. The history of a dead letter stays, under the names that it has
/// on AMQP 0-9-1.
pub(crate) fn incoming(bytes: &Bytes, dialect: Dialect) -> Incoming {
    let (sections, fault) = decode::message(bytes);
    let mut undecodable: Option<Arc<str>> = fault.map(|fault| fault.as_ref().into());
    let Sections { header, annotations, properties, application, body } = sections;
    let mut headers = Table::new();
    let mut set = |name: &str, value: Value| match ShortStr::new(name) {
        Ok(name) => headers.set(name, value),
        Err(_) => {
            undecodable.get_or_insert_with(|| "a header's name has more than 255 bytes".into());
        }
    };
    // What was published over AMQP 1.0, to the anonymous terminus at least, says where to.
    let converted = dialect.rabbitmq && !matches!(properties.get(2), Some(Value::String(_)));
    let mut exchange = ShortStr::EMPTY;
    let mut routing_key = ShortStr::EMPTY;
    let mut kind = None;
    let mut app_id = None;
    let mut earlier = None;
    for (name, value) in annotations {
        match name.as_str() {
            "x-exchange" => exchange = short(Some(&value)).unwrap_or_default(),
            "x-routing-key" => routing_key = short(Some(&value)).unwrap_or_default(),
            "x-delivery-count" => earlier = value.as_int(),
            "x-acquired-count" => {}
            KIND => kind = short(Some(&value)),
            APP_ID => app_id = short(Some(&value)),
            "x-opt-deaths" => set("x-death", deaths(value)),
            // They are told from text here.
            "x-cc" | crossing::BYTES => {}
            name if name.starts_with("x-opt-") => {}
            name => {
                set(name.strip_prefix(crossing::NESTED).unwrap_or(name), as_sent(value, converted))
            }
        }
    }
    for (name, value) in application {
        set(&name, as_sent(value, converted));
    }
    let failures = header.get(4).and_then(Value::as_int).unwrap_or(0);
    let redelivered = failures > 0 || header.get(3) == Some(&Value::Bool(false));
    let attempt = attempt(earlier, failures, redelivered, dialect);
    if !dialect.rabbitmq {
        // Without exchanges, it was published to a queue by its name.
        routing_key = short(properties.get(2)).unwrap_or_default();
    }
    let mut properties = properties_in(&header, &properties, dialect);
    properties.kind = kind;
    properties.app_id = properties.app_id.or(app_id);
    let body = match body {
        Body::Empty | Body::Value(Value::Null) => Bytes::new(),
        Body::Data(bytes) | Body::Value(Value::Bytes(bytes)) => bytes,
        Body::Value(Value::String(text)) => Bytes::from(text),
        // As RabbitMQ gives it to consumers on AMQP 0-9-1.
        Body::Value(_) | Body::Other(_) => {
            properties.kind = Some(ENCODED);
            match body {
                Body::Other(encoded) => encoded,
                _ => {
                    let mut encoder = Encoder::default();
                    if let Body::Value(value) = &body {
                        encoder.descriptor(0x77);
                        encoder.value(value);
                    }
                    Bytes::from(encoder.into_bytes())
                }
            }
        }
    };
    Incoming {
        message: Message { body, headers, properties },
        exchange,
        routing_key,
        redelivered,
        attempt,
        undecodable,
    }
}

/// A header's value as it was published. Where RabbitMQ converted the message from AMQP 0-9-1, it
/// did not look whether more than 4096 bytes are text; a publisher may not send so many that are
/// text as bytes.
fn as_sent(value: Value, converted: bool) -> Value {
    match value {
        Value::Bytes(bytes) if converted && bytes.len() > 4096 => {
            match String::from_utf8(bytes.into()) {
                Ok(text) => Value::String(text),
                Err(error) => Value::Bytes(error.into_bytes().into()),
            }
        }
        Value::List(values) if converted => {
            Value::List(values.into_iter().map(|value| as_sent(value, true)).collect())
        }
        Value::Table(table) if converted => Value::Table(
            table.into_iter().map(|(name, value)| (name, as_sent(value, true))).collect(),
        ),
        other => other,
    }
}

/// Which attempt this is.
///
/// Where the broker counts on every queue, the header has the number of those that failed. Before, it
/// does so on quorum queues, and says with `x-delivery-count` what it compares with their limit:
/// everything that came back.
fn attempt(earlier: Option<i64>, failures: i64, redelivered: bool, dialect: Dialect) -> Attempt {
    if earlier.is_none() && !dialect.counts {
        return Attempt::from_flag(redelivered);
    }
    let earlier = earlier.unwrap_or(0).max(failures).max(0);
    let number = u32::try_from(earlier).unwrap_or(u32::MAX).saturating_add(1);
    Attempt { number, counted: Counted::ByBroker }
}

/// The history of a dead letter, under the names that AMQP 0-9-1 gives to its parts.
fn deaths(mut history: Value) -> Value {
    if let Value::List(deaths) = &mut history {
        for death in deaths {
            if let Value::Table(death) = death
                && let Some(time) = death.remove("first-time")
            {
                death.set(ShortStr::from_static("time"), time);
                death.remove("last-time");
            }
        }
    }
    history
}

fn properties_in(header: &[Value], properties: &[Value], dialect: Dialect) -> Properties {
    let text = |at| short(properties.get(at));
    let number = |at| header.get(at).and_then(Value::as_int);
    Properties {
        content_type: text(6),
        content_encoding: text(7),
        message_id: text(0),
        correlation_id: text(5),
        reply_to: properties
            .get(4)
            .and_then(Value::as_str)
            .and_then(|address| ShortStr::new(address::queue_of(address)).ok()),
        kind: None,
        app_id: text(10).filter(|_| dialect.rabbitmq),
        user_id: text(1),
        timestamp: match properties.get(9) {
            Some(Value::Timestamp(time)) => Some(*time),
            _ => None,
        },
        expiration: number(2)
            .and_then(|millis| u64::try_from(millis).ok())
            .map(Duration::from_millis),
        priority: number(1).and_then(|priority| u8::try_from(priority).ok()),
        persistent: header.first() == Some(&Value::Bool(true)),
    }
}

/// A value as a short text: ids may be numbers, or bytes.
fn short(value: Option<&Value>) -> Option<ShortStr> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => return None,
    };
    ShortStr::new(text).ok()
}

/// Where RabbitMQ keeps what AMQP 0-9-1 calls the type of a message.
const KIND: &str = "x-basic-type";

/// Where the application is named for brokers to which group-id means something.
const APP_ID: &str = "x-enoki-app-id";

/// What RabbitMQ calls the type of a message whose body AMQP 0-9-1 has no form for.
const ENCODED: ShortStr = ShortStr::from_static("amqp-1.0");

#[cfg(test)]
mod tests {
    use enoki_core::Timestamp;
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

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
    fn the_brokers_bookkeeping_is_left_out_and_history_stays() {
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
        // Released once: on older brokers all that came back counts towards the limit.
        assert_eq!(read(false, 2, &came_back, OLDEST), (4, ByBroker, true));
        assert_eq!(read(true, 0, &[], NEWEST), (1, ByBroker, false));
        // Released, never failed.
        let acquired = [("x-acquired-count", Value::Int(5))];
        assert_eq!(read(false, 0, &acquired, NEWEST), (1, ByBroker, true));
        assert_eq!(read(false, 2, &[], NEWEST), (3, ByBroker, true));
        assert_eq!(read(false, -1, &[], NEWEST), (1, ByBroker, true));
        let absurd = [("x-delivery-count", Value::Int(i64::MAX))];
        assert_eq!(read(false, 0, &absurd, OLDEST), (u32::MAX, ByBroker, true));
    }

    /// Up to 4.3 RabbitMQ cannot write one in an annotation.
    #[test]
    fn a_header_without_a_value_is_no_annotation() {
        let mut message = Message::new("");
        message.headers.set(ShortStr::from_static("x-own"), Value::Null);
        let wire = outgoing(&message, "/queues/q", NEWEST).into();
        let (sections, _) = decode::message(&wire);
        assert_eq!(sections.annotations, []);
        assert_eq!(sections.application, [("x-own".to_owned(), Value::Null)]);
    }

    #[test]
    fn bytes_that_look_like_text_are_marked_for_those_who_cannot_tell() {
        let mut message = Message::new("");
        message.headers.set(ShortStr::from_static("key"), Value::Bytes("abc".into()));
        message.headers.set(ShortStr::from_static("blob"), Value::Bytes(vec![0xff].into()));
        let wire = outgoing(&message, "/queues/q", NEWEST).into();
        let (sections, _) = decode::message(&wire);
        let marks: Table =
            [(ShortStr::from_static("key"), vec![Value::Int(0)].into())].into_iter().collect();
        assert_eq!(sections.annotations, [("x-enoki-bytes".to_owned(), marks.into())]);
        assert_eq!(incoming(&wire, NEWEST).message, message);
    }

    /// As RabbitMQ converts it from AMQP 0-9-1.
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
        // Where it says where to, it came over AMQP 1.0, which tells them apart.
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
    fn bodies_of_other_kinds_are_bodies() {
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
        for (other, encoded) in [
            (Value::Int(7), &[0x00, 0x53, 0x77, 0x81, 0, 0, 0, 0, 0, 0, 0, 7][..]),
            (Value::List(vec![]), &[0x00, 0x53, 0x77, 0xd0, 0, 0, 0, 4, 0, 0, 0, 0][..]),
        ] {
            let message = value(other);
            assert_eq!(message.body, encoded);
            assert_eq!(message.properties.kind.as_deref(), Some("amqp-1.0"));
        }
        let parts = body(&|encoder| {
            for part in ["one ", "two ", "three"] {
                encoder.descriptor(0x75);
                encoder.binary(part.as_bytes());
            }
        });
        assert_eq!(parts.body, "one two three");
        let sequences = b"\x00\x53\x76\xc0\x02\x01\x41\x00\x53\x76\x45";
        assert_eq!(incoming(&Bytes::from_static(sequences), OLDEST).message.body, &sequences[..]);
        // One kind of body ends what another began.
        let mixed = b"\x00\x53\x75\xa0\x01a\x00\x53\x77\x43\x00\x53\x75\xa0\x01b";
        assert_eq!(incoming(&Bytes::from_static(mixed), OLDEST).message.body, "b");
    }

    #[test]
    fn a_body_has_an_end_of_its_parts() {
        let parts = |count| Bytes::from(b"\x00\x53\x75\xa0\x01x".repeat(count));
        let whole = incoming(&parts(50_000), NEWEST);
        assert_eq!((whole.undecodable, whole.message.body.len()), (None, 50_000));
        assert!(incoming(&parts(100_001), NEWEST).undecodable.unwrap().contains("values"));
    }

    #[test]
    fn ids_are_text_whatever_they_were() {
        let read = |id: &[u8]| {
            let mut bytes = vec![0x00, 0x53, 0x73, 0xc0, u8::try_from(id.len() + 1).unwrap(), 1];
            bytes.extend_from_slice(id);
            incoming(&bytes.into(), OLDEST).message.properties.message_id
        };
        assert_eq!(read(b"\x53\x07").as_deref(), Some("7"));
        assert_eq!(
            read(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff").as_deref(),
            Some("18446744073709551615")
        );
        assert_eq!(read(b"\xa0\x02ab").as_deref(), Some("ab"));
        assert_eq!(read(b"\xa1\x02ab").as_deref(), Some("ab"));
        assert_eq!(read(b"\x40"), None);
        let uuid = [&[0x98][..], &[0x12; 16]].concat();
        assert_eq!(read(&uuid).as_deref(), Some("urn:uuid:12121212-1212-1212-1212-121212121212"));
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
    fn what_cannot_be_read_is_said_with_what_came_before_it() {
        let mut message = Message::new("x");
        message.properties.message_id = Some(ShortStr::from_static("7"));
        let mut bytes = outgoing(&message, "/queues/q", NEWEST);
        bytes.truncate(bytes.len() - 1);
        let read = incoming(&bytes.into(), NEWEST);
        assert_eq!(read.undecodable.as_deref(), Some("bytes are missing"));
        assert_eq!(read.message.properties.message_id.as_deref(), Some("7"));
    }

    /// Forty kilobytes of this end a process that follows them.
    #[test]
    fn nesting_has_an_end() {
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
        let nulls = b"\x00\x53\x77\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40";
        let read = incoming(&Bytes::from_static(nulls), NEWEST);
        assert!(read.undecodable.unwrap().contains("values"));
    }

    fn short_text() -> impl Strategy<Value = ShortStr> {
        "\\PC{0,60}".prop_map(|text| ShortStr::new(text).unwrap())
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        (0..=Timestamp::MAX.unix_seconds()).prop_map(Timestamp::from_unix_seconds)
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
        fn what_goes_out_comes_in(
            message in message(),
            dialect in prop::sample::select(vec![NEWEST, OLDEST, OTHER]),
        ) {
            let wire = outgoing(&message, "/queues/q", dialect);
            let read = incoming(&wire.into(), dialect);
            prop_assert_eq!(read.message, message);
            prop_assert_eq!(read.undecodable, None);
        }

        #[test]
        fn no_bytes_are_too_odd(
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
}
