//! A message as it came from the broker.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Message, Properties, ShortStr, Timestamp, Value, transport::cross_protocol,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};

use super::attempt::{self, integer};
use crate::proto::fault::MessageFault;

/// A message that came in, and how often it was delivered.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) attempt: Attempt,
    /// Why the consumer has to reject the message, if it cannot be read.
    pub(crate) undecodable: Option<Arc<str>>,
}

/// Reads a delivered message. Recurses as deep as its headers are nested, which the guard has limited.
///
/// Headers that are the broker's bookkeeping, and that no program may publish, are left out: what they count is in the
/// attempt. The history of a dead letter (`x-death`, `x-first-death-…`) stays. A message that was published over AMQP
/// 1.0 gets its header names and types back, and its body, where another client wrote that in a form of its own.
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
        attempt = attempt::attempt(fields, redelivered);
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
                // RabbitMQ has put it in place of the publisher's own type, which is lost.
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

/// A timestamp that AMQP 1.0 cannot carry, in seconds as they are on the wire.
pub(super) struct BadTime(u64);

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
        // The broker enforces it. A text that is not a number is ignored.
        expiration: properties
            .expiration()
            .as_ref()
            .and_then(|text| text.as_str().parse().ok())
            .map(Duration::from_millis),
        priority: *properties.priority(),
        persistent: *properties.delivery_mode() == Some(2),
    }
}

/// A short string of the broker's. On the wire it has 255 bytes at most, as a `ShortStr` has.
pub(crate) fn from_short(text: ShortString) -> ShortStr {
    ShortStr::new(String::from(text)).unwrap_or_default()
}

/// Headers that the broker writes, and that no program may publish.
pub(super) fn is_bookkeeping(name: &str) -> bool {
    matches!(
        name,
        "x-delivery-count" | "x-acquired-count" | "x-exchange" | "x-routing-key" | "CC" | "BCC"
    ) || name.starts_with("x-opt-")
}

pub(super) fn value_in(value: &AMQPValue) -> std::result::Result<Value, BadTime> {
    if let Some(number) = integer(value) {
        return Ok(Value::Int(number));
    }
    Ok(match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::Float(number) => Value::Float((*number).into()),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::DecimalValue(decimal) => {
            // Read as text, since that gives the nearest double; a division by 10^scale may not.
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
