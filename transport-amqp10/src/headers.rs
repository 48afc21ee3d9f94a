//! Messages as AMQP 1.0 writes them, both directions. Pure.
//!
//! | here | AMQP 1.0 |
//! |---|---|
//! | body | one data section |
//! | `persistent`, `priority`, `expiration` | header: durable, priority, ttl |
//! | `message_id`, `correlation_id` | in the type that [`Id`] reads in the text |
//! | `content_type`, `content_encoding`, `user_id` | the properties of these names |
//! | `reply_to` | reply-to: the queue's address |
//! | `timestamp` | creation-time |
//! | `app_id` | group-id, as RabbitMQ maps it; elsewhere message annotation `x-enoki-app-id` |
//! | `kind` | message annotation `x-basic-type`, as RabbitMQ maps it |
//! | header `x-…` | message annotation; a null or boolean is an application property |
//! | any other header with a simple value | application property |
//! | any other header with a list or table | message annotation `x-enoki-header-` and the name |
//! | which bytes in headers look like text | message annotation `x-enoki-bytes`, for AMQP 0-9-1 |
//!
//! What only other clients write is read: a body that is a value, and as headers `x-amqp-1.0-…` the properties
//! that nothing here stands for (subject, group-sequence, reply-to-group-id, absolute-expiry-time, and group-id
//! where it is no `app_id`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Counted, Message, Properties, ShortStr, Table, Value,
    transport::crossing::{self, Id},
};

use crate::{
    address,
    peer::Dialect,
    proto::{
        decode::{self, Body, Sections},
        encode::Encoder,
    },
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
        // A null there ends RabbitMQ's session with the consumer that gets it, and a headers exchange compares
        // no boolean there; seen up to 4.3.
        (!matches!(value, Value::Null | Value::Bool(_))).then(|| name.to_owned())
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
    let id = |encoder: &mut Encoder, id: Option<&ShortStr>| match id.map(|text| Id::of(text)) {
        Some(Id::Text(text)) => encoder.string(&text),
        Some(Id::Uuid(bytes)) => encoder.uuid(bytes),
        Some(Id::Number(number)) => encoder.ulong(number),
        Some(Id::Bytes(bytes)) => encoder.binary(&bytes),
        _ => encoder.null(),
    };
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        id(encoder, properties.message_id.as_ref());
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
        id(encoder, properties.correlation_id.as_ref());
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
    let Sections { header, annotations, properties, message_id, correlation_id, application, body } =
        sections;
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
    for (name, value) in unmapped(&properties, dialect) {
        set(name, value.clone());
    }
    let mut id = |id: Option<Id<'static>>, header| match id? {
        // It was text on AMQP 0-9-1, and stands for what it stood for there. Of a UUID RabbitMQ has made one.
        Id::Text(text) if converted && !text.starts_with("urn:uuid:") => {
            crossing::id_or_header(&Id::of(&text), header, &mut headers)
        }
        id => crossing::id_or_header(&id, header, &mut headers),
    };
    let message_id = id(message_id, crossing::MESSAGE_ID);
    let correlation_id = id(correlation_id, crossing::CORRELATION_ID);
    let failures = header.get(4).and_then(Value::as_int).unwrap_or(0);
    let redelivered = failures > 0 || header.get(3) == Some(&Value::Bool(false));
    let attempt = attempt(earlier, failures, redelivered, dialect);
    if !dialect.rabbitmq {
        // Without exchanges, it was published to a queue by its name.
        routing_key = short(properties.get(2)).unwrap_or_default();
    }
    let mut properties = properties_in(&header, &properties, dialect);
    properties.message_id = message_id;
    properties.correlation_id = correlation_id;
    properties.kind = kind;
    properties.app_id = properties.app_id.or(app_id);
    let body = match body {
        Body::Empty => Bytes::new(),
        Body::Data(bytes) => bytes,
        Body::Encoded(section) => crossing::read_body(&section).unwrap_or_else(|reason| {
            undecodable.get_or_insert(reason.into());
            section
        }),
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

/// What other clients say in properties that nothing here stands for, under names that no program may publish.
fn unmapped(
    properties: &[Value],
    dialect: Dialect,
) -> impl Iterator<Item = (&'static str, &Value)> {
    let named = [
        (3, "x-amqp-1.0-subject"),
        (8, "x-amqp-1.0-absolute-expiry-time"),
        (10, "x-amqp-1.0-group-id"),
        (11, "x-amqp-1.0-group-sequence"),
        (12, "x-amqp-1.0-reply-to-group-id"),
    ];
    named
        .into_iter()
        .filter(move |(at, _)| *at != 10 || !dialect.rabbitmq)
        .filter_map(|(at, name)| Some((name, properties.get(at)?)))
        .filter(|(_, value)| **value != Value::Null)
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
        message_id: None,
        correlation_id: None,
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

/// A value as a short text. The user's id is bytes; one that is no text is none, as RabbitMQ has it on AMQP 0-9-1.
fn short(value: Option<&Value>) -> Option<ShortStr> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        _ => return None,
    };
    ShortStr::new(text).ok()
}

/// Where RabbitMQ keeps what AMQP 0-9-1 calls the type of a message.
const KIND: &str = "x-basic-type";

/// Where the application is named for brokers to which group-id means something.
const APP_ID: &str = "x-enoki-app-id";

#[cfg(test)]
mod tests {
    use enoki_core::{Limits, Timestamp};
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
        let parts = body(&|encoder| {
            for part in ["one ", "two ", "three"] {
                encoder.descriptor(0x75);
                encoder.binary(part.as_bytes());
            }
        });
        assert_eq!(parts.body, "one two three");
        // One kind of body ends what another began.
        let mixed = b"\x00\x53\x75\xa0\x01a\x00\x53\x77\x43\x00\x53\x75\xa0\x01b";
        assert_eq!(incoming(&Bytes::from_static(mixed), OLDEST).message.body, "b");
    }

    /// The type that the publisher gave it stays its own.
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

    /// JMS has its type in the subject, others their event.
    #[test]
    fn properties_of_others_are_headers_that_no_program_may_publish() {
        let mut encoder = Encoder::default();
        encoder.descriptor(0x73);
        encoder.list(|encoder| {
            let time = Timestamp::from_unix_seconds(-5).into();
            let mut all = vec![Value::Null; 13];
            for (at, value) in [
                (3, "placed".into()),
                (8, time),
                (10, "g".into()),
                (11, 4.into()),
                (12, "r".into()),
            ] {
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
    fn a_body_has_an_end_of_its_parts() {
        let parts = |count| Bytes::from(b"\x00\x53\x75\xa0\x01x".repeat(count));
        let whole = incoming(&parts(50_000), NEWEST);
        assert_eq!((whole.undecodable, whole.message.body.len()), (None, 50_000));
        assert!(incoming(&parts(100_001), NEWEST).undecodable.unwrap().contains("values"));
    }

    #[test]
    fn an_id_is_text_that_says_its_type_and_becomes_the_same_again() {
        // Published over AMQP 1.0, to somewhere, and converted from AMQP 0-9-1.
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
            let sections = decode::message(&wire.clone().into()).0;
            let asked = decode::message(
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
        // Too long for an id, and not lost.
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
