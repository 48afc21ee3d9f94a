//! A message as it came from the broker. Pure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Message, Properties, ShortStr, Table, Value,
    transport::cross_protocol::{self, Id},
};

use super::{
    attempt::attempt,
    deaths::deaths,
    names::{APP_ID, KIND},
};
use crate::{
    address,
    peer::Dialect,
    proto::message::{self, Body, Sections},
};

/// A message that came in, and what the broker says about how it came.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) redelivered: bool,
    pub(crate) attempt: Attempt,
    pub(crate) undecodable: Option<Arc<str>>,
}

/// Reads a delivered message.
///
/// Annotations that are the broker's bookkeeping, and that no program may publish, are left out: what they
/// count is in the attempt. The history of a dead letter stays, under the names that it has on AMQP 0-9-1.
pub(crate) fn incoming(bytes: &Bytes, dialect: Dialect) -> Incoming {
    let (sections, fault) = message::read(bytes);
    let Sections { header, annotations, properties, message_id, correlation_id, application, body } =
        sections;
    let mut headers = Headers {
        table: Table::new(),
        undecodable: fault.map(|fault| fault.as_ref().into()),
        // A message that was published over AMQP 1.0, to the anonymous terminus at least, says where it goes.
        converted: dialect.rabbitmq && !matches!(properties.get(2), Some(Value::String(_))),
    };
    let annotated = headers.take_annotations(annotations);
    for (name, value) in application {
        headers.set_as_sent(&name, value);
    }
    for (name, value) in unmapped(&properties, dialect) {
        headers.set(name, value.clone());
    }
    let message_id = headers.take_id(message_id, cross_protocol::MESSAGE_ID_HEADER);
    let correlation_id = headers.take_id(correlation_id, cross_protocol::CORRELATION_ID_HEADER);
    let failures = header.get(4).and_then(Value::as_int).unwrap_or(0);
    let redelivered = failures > 0 || header.get(3) == Some(&Value::Bool(false));
    let routing_key = match dialect.rabbitmq {
        true => annotated.routing_key,
        // Without exchanges, it was published to a queue by its name.
        false => short(properties.get(2)).unwrap_or_default(),
    };
    let mut properties = properties_in(&header, &properties, dialect);
    properties.message_id = message_id;
    properties.correlation_id = correlation_id;
    properties.kind = annotated.kind;
    properties.app_id = properties.app_id.or(annotated.app_id);
    let Headers { table, mut undecodable, .. } = headers;
    let body = match body {
        Body::Empty => Bytes::new(),
        Body::Data(bytes) => bytes,
        Body::Encoded(section) => cross_protocol::read_body(&section).unwrap_or_else(|reason| {
            undecodable.get_or_insert(reason.into());
            section
        }),
    };
    Incoming {
        message: Message { body, headers: table, properties },
        exchange: annotated.exchange,
        routing_key,
        redelivered,
        attempt: attempt(annotated.earlier, failures, redelivered, dialect),
        undecodable,
    }
}

/// The headers of a message while it is read.
struct Headers {
    table: Table,
    /// The first reason why the message cannot be read in whole.
    undecodable: Option<Arc<str>>,
    /// Whether RabbitMQ converted the message from AMQP 0-9-1.
    converted: bool,
}

/// What message annotations say that is not a header.
#[derive(Default)]
struct Annotated {
    exchange: ShortStr,
    routing_key: ShortStr,
    kind: Option<ShortStr>,
    app_id: Option<ShortStr>,
    /// How often the message came back, where RabbitMQ says so: see `attempt.rs`.
    earlier: Option<i64>,
}

impl Headers {
    fn set(&mut self, name: &str, value: Value) {
        match ShortStr::new(name) {
            Ok(name) => self.table.set(name, value),
            Err(_) => {
                self.undecodable
                    .get_or_insert_with(|| "a header's name has more than 255 bytes".into());
            }
        }
    }

    fn set_as_sent(&mut self, name: &str, value: Value) {
        self.set(name, as_sent(value, self.converted));
    }

    fn take_annotations(&mut self, annotations: Vec<(String, Value)>) -> Annotated {
        let mut annotated = Annotated::default();
        for (name, value) in annotations {
            match name.as_str() {
                "x-exchange" => annotated.exchange = short(Some(&value)).unwrap_or_default(),
                "x-routing-key" => annotated.routing_key = short(Some(&value)).unwrap_or_default(),
                "x-delivery-count" => annotated.earlier = value.as_int(),
                "x-acquired-count" => {}
                KIND => annotated.kind = short(Some(&value)),
                APP_ID => annotated.app_id = short(Some(&value)),
                "x-opt-deaths" => self.set("x-death", deaths(value)),
                // AMQP 1.0 has types for text and for bytes, so the list of which is which is not needed.
                "x-cc" | cross_protocol::BYTES_MARKER => {}
                name if name.starts_with("x-opt-") => {}
                name => {
                    let name = name.strip_prefix(cross_protocol::NESTED_PREFIX).unwrap_or(name);
                    self.set_as_sent(name, value);
                }
            }
        }
        annotated
    }

    /// An id as text. One that is too long for that becomes a header of this name.
    fn take_id(&mut self, id: Option<Id<'static>>, header: &'static str) -> Option<ShortStr> {
        match id? {
            // It was text on AMQP 0-9-1, and means what it meant there. RabbitMQ has made text of a UUID.
            Id::Text(text) if self.converted && !text.starts_with("urn:uuid:") => {
                cross_protocol::id_or_header(&Id::of(&text), header, &mut self.table)
            }
            id => cross_protocol::id_or_header(&id, header, &mut self.table),
        }
    }
}

/// The properties that have no field in [`Properties`], under names that no program may publish.
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

/// A header's value as it was published. Where RabbitMQ converted the message from AMQP 0-9-1 (`converted`),
/// it wrote every text of more than 4096 bytes as bytes. A publisher may not send bytes of that length that
/// are text, so they are told apart here.
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

/// The properties that the header (§3.2.1) and the properties (§3.2.4) carry. The others are set by the
/// caller.
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

/// A value as a short text; `None` if it is not one. The user's id is bytes: if they are not text it is left
/// out, as RabbitMQ does on AMQP 0-9-1.
fn short(value: Option<&Value>) -> Option<ShortStr> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        _ => return None,
    };
    ShortStr::new(text).ok()
}
