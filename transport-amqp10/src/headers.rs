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
//! | `app_id` | group-id, as RabbitMQ maps it |
//! | `kind` | message annotation `x-basic-type`, as RabbitMQ maps it |
//! | header `x-…` | message annotation |
//! | any other header with a simple value | application property |
//! | any other header with a list or table | message annotation [`NESTED`] and the name |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{Attempt, Counted, Message, Properties, ShortStr, Table, Value};

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
    annotations_out(&mut encoder, headers, properties);
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

fn annotations_out(encoder: &mut Encoder, headers: &Table, properties: &Properties) {
    let annotated =
        || headers.iter().filter_map(|(name, value)| Some((annotation(name, value)?, value)));
    if properties.kind.is_none() && annotated().next().is_none() {
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
        for (name, value) in annotated() {
            encoder.symbol(&name);
            encoder.value(value);
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
        Some(name.to_owned())
    } else if matches!(value, Value::List(_) | Value::Table(_)) {
        Some(format!("{NESTED}{name}"))
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
            Some(queue) if dialect.converts_reply_to => encoder.string(&address::queue(queue)),
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
        text(encoder, properties.app_id.as_ref());
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
    let mut exchange = ShortStr::EMPTY;
    let mut routing_key = ShortStr::EMPTY;
    let mut kind = None;
    let mut earlier = None;
    for (name, value) in annotations {
        match name.as_str() {
            "x-exchange" => exchange = short(Some(&value)).unwrap_or_default(),
            "x-routing-key" => routing_key = short(Some(&value)).unwrap_or_default(),
            "x-delivery-count" => earlier = value.as_int(),
            "x-acquired-count" => {}
            KIND => kind = short(Some(&value)),
            "x-opt-deaths" => set("x-death", deaths(value)),
            "x-cc" => {}
            name if name.starts_with("x-opt-") => {}
            name => set(name.strip_prefix(NESTED).unwrap_or(name), value),
        }
    }
    for (name, value) in application {
        set(&name, value);
    }
    let failures = header.get(4).and_then(Value::as_int).unwrap_or(0);
    let redelivered = failures > 0 || header.get(3) == Some(&Value::Bool(false));
    let attempt = attempt(earlier, failures, redelivered, dialect);
    let mut properties = properties_in(&header, &properties);
    properties.kind = kind;
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

fn properties_in(header: &[Value], properties: &[Value]) -> Properties {
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
        app_id: text(10),
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

/// What the annotation of a nested header's name begins with.
const NESTED: &str = "x-enoki-header-";

/// Where RabbitMQ keeps what AMQP 0-9-1 calls the type of a message.
const KIND: &str = "x-basic-type";

/// What RabbitMQ calls the type of a message whose body AMQP 0-9-1 has no form for.
const ENCODED: ShortStr = ShortStr::from_static("amqp-1.0");
