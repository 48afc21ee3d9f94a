//! Messages and header values as AMQP 0-9-1 writes them, both directions. Pure.
//!
//! | here | out | in |
//! |---|---|---|
//! | `Null` | void | void |
//! | `Bool` | boolean | boolean |
//! | `Int` | 64-bit signed | every integer; unsigned 64-bit does not exist in RabbitMQ's dialect |
//! | `Float` | double | double, float, decimal (as the nearest double) |
//! | `Timestamp` | timestamp, seconds | timestamp |
//! | `String` | long string | long string in UTF-8, short string |
//! | `Bytes` | byte array | byte array, long string that is not UTF-8 |
//! | `List`, `Table` | array, table | array, table |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    Attempt, Counted, Error, ErrorKind, Message, Properties, Result, ShortStr, Table, Timestamp,
    Value,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};

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

/// The properties and headers of a message on its way out.
pub(crate) fn properties_out(message: &Message) -> Result<BasicProperties> {
    let Properties {
        content_type,
        content_encoding,
        message_id,
        correlation_id,
        reply_to,
        kind,
        app_id,
        user_id,
        timestamp,
        priority,
        persistent,
        ..
    } = &message.properties;
    let mut out = BasicProperties::default().with_delivery_mode(if *persistent { 2 } else { 1 });
    if let Some(text) = content_type {
        out = out.with_content_type(short(text)?);
    }
    if let Some(text) = content_encoding {
        out = out.with_content_encoding(short(text)?);
    }
    if let Some(text) = message_id {
        out = out.with_message_id(short(text)?);
    }
    if let Some(text) = correlation_id {
        out = out.with_correlation_id(short(text)?);
    }
    if let Some(text) = reply_to {
        out = out.with_reply_to(short(text)?);
    }
    if let Some(text) = kind {
        out = out.with_type(short(text)?);
    }
    if let Some(text) = app_id {
        out = out.with_app_id(short(text)?);
    }
    if let Some(text) = user_id {
        out = out.with_user_id(short(text)?);
    }
    if let Some(time) = timestamp {
        out = out.with_timestamp(time.unix_seconds());
    }
    if let Some(millis) = message.properties.expiration_millis() {
        out = out.with_expiration(short(&millis.to_string())?);
    }
    if let Some(priority) = priority {
        out = out.with_priority(*priority);
    }
    if !message.headers.is_empty() {
        out = out.with_headers(table_out(&message.headers)?);
    }
    Ok(out)
}

/// A table on its way out: headers, or the arguments of a queue.
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
        Value::Timestamp(time) => AMQPValue::Timestamp(time.unix_seconds()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_ref().into()),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::List(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(value_out).collect::<Result<Vec<_>>>()?,
        )),
        Value::Table(table) => AMQPValue::FieldTable(table_out(table)?),
        other => {
            return Err(Error::new(ErrorKind::Codec, "encode a header")
                .because(format!("AMQP 0-9-1 has no type for {other:?}")));
        }
    })
}

/// A message as it came in, and what the broker says about its attempts.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) attempt: Attempt,
    pub(crate) undecodable: Option<Arc<str>>,
}

/// Reads what was delivered.
///
/// Headers that are the broker's bookkeeping, and that no program may publish, are left out:
/// what `x-delivery-count` and `x-acquired-count` count is in the attempt. The history of a dead
/// letter (`x-death`, `x-first-death-…`) stays.
pub(crate) fn incoming(properties: BasicProperties, body: Vec<u8>, redelivered: bool) -> Incoming {
    let mut attempt = Attempt::from_flag(redelivered);
    let mut undecodable = None;
    let mut headers = Table::new();
    if let Some(fields) = properties.headers() {
        attempt = counted(fields, attempt);
        if nested_deeper(fields, MAX_DEPTH) {
            undecodable = Some(format!("headers nested more than {MAX_DEPTH} levels deep").into());
        } else {
            headers = fields
                .into_iter()
                .filter(|(name, _)| !is_bookkeeping(name.as_str()))
                .map(|(name, value)| (from_short(name.clone()), value_in(value)))
                .collect();
        }
    }
    Incoming {
        message: Message {
            body: Bytes::from(body),
            headers,
            properties: properties_in(&properties),
        },
        attempt,
        undecodable,
    }
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
        timestamp: properties.timestamp().map(Timestamp::from_unix_seconds),
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

/// Quorum queues count earlier deliveries (`x-acquired-count`, RabbitMQ 4.3) or those that came
/// back (`x-delivery-count`): the larger one, and this one.
fn counted(headers: &FieldTable, by_flag: Attempt) -> Attempt {
    let earlier = ["x-acquired-count", "x-delivery-count"]
        .iter()
        .filter_map(|name| headers.inner().get(*name).and_then(integer))
        .max();
    match earlier {
        Some(earlier) => {
            let number = u32::try_from(earlier.max(0)).unwrap_or(u32::MAX).saturating_add(1);
            Attempt { number: number.max(by_flag.number), counted: Counted::ByBroker }
        }
        None => by_flag,
    }
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

fn value_in(value: &AMQPValue) -> Value {
    if let Some(number) = integer(value) {
        return Value::Int(number);
    }
    match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::Float(number) => Value::Float((*number).into()),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::DecimalValue(decimal) => {
            Value::Float(f64::from(decimal.value) / 10f64.powi(decimal.scale.into()))
        }
        AMQPValue::ShortString(text) => Value::String(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::FieldArray(values) => {
            Value::List(values.as_slice().iter().map(value_in).collect())
        }
        AMQPValue::Timestamp(seconds) => Value::Timestamp(Timestamp::from_unix_seconds(*seconds)),
        AMQPValue::FieldTable(table) => Value::Table(
            table
                .into_iter()
                .map(|(name, value)| (from_short(name.clone()), value_in(value)))
                .collect(),
        ),
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        _ => Value::Null,
    }
}

/// Looks for nesting without following it further than allowed, so that the walk itself is safe.
fn nested_deeper(table: &FieldTable, levels: usize) -> bool {
    table.into_iter().any(|(_, value)| deeper(value, levels))
}

fn deeper(value: &AMQPValue, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    match value {
        AMQPValue::FieldTable(table) => nested_deeper(table, below),
        AMQPValue::FieldArray(values) => values.as_slice().iter().any(|value| deeper(value, below)),
        _ => false,
    }
}

/// Twice what `enoki` itself publishes; other clients may go further.
const MAX_DEPTH: usize = 64;
