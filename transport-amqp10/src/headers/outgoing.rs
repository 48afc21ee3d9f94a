//! A message on its way to the broker. Pure.

use enoki_core::{
    Message, Properties, ShortStr, Table, Value,
    transport::cross_protocol::{self, Id},
};

use super::names::{APP_ID, KIND};
use crate::{address, peer::Dialect, proto::encode::Encoder};

/// The bytes of a message that goes to this address.
pub(crate) fn outgoing(message: &Message, to: &str, dialect: Dialect) -> Vec<u8> {
    let Message { body, headers, properties } = message;
    let mut encoder = Encoder::with_capacity(body.len() + 256);
    encoder.descriptor(0x70);
    encoder.list(|encoder| {
        // Always written: a message without a header is not durable.
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

/// Writes the annotations, if there are any.
fn annotations_out(
    encoder: &mut Encoder,
    headers: &Table,
    properties: &Properties,
    dialect: Dialect,
) {
    let annotated =
        headers.iter().filter_map(|(name, value)| Some((annotation(name, value)?, value)));
    let app_id = properties.app_id.as_ref().filter(|_| !dialect.rabbitmq);
    let marks = cross_protocol::bytes_of_text(headers);
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
            encoder.symbol(cross_protocol::BYTES_MARKER);
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
        // Up to 4.3, RabbitMQ ends the session of the consumer that gets a null in an annotation, and a
        // headers exchange does not compare a boolean in one.
        (!matches!(value, Value::Null | Value::Bool(_))).then(|| name.to_owned())
    } else if matches!(value, Value::List(_) | Value::Table(_)) {
        Some(format!("{}{name}", cross_protocol::NESTED_PREFIX))
    } else {
        None
    }
}

/// Writes the properties (§3.2.4).
fn properties_out(encoder: &mut Encoder, properties: &Properties, to: &str, dialect: Dialect) {
    // Every field: one that is added later needs a place on the wire before this compiles.
    let Properties {
        content_type,
        content_encoding,
        message_id,
        correlation_id,
        reply_to,
        app_id,
        user_id,
        timestamp,
        kind: _,       // an annotation
        expiration: _, // these three are in the header section
        priority: _,
        persistent: _,
    } = properties;
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
        id(encoder, message_id.as_ref());
        match user_id {
            Some(user) => encoder.binary(user.as_bytes()),
            None => encoder.null(),
        }
        encoder.string(to);
        encoder.null();
        match reply_to {
            // A name that looks like an address is written as one, so that it is not read as one.
            Some(queue) if dialect.converts_reply_to || queue.starts_with("/queues/") => {
                encoder.string(&address::queue(queue));
            }
            Some(queue) => encoder.string(queue),
            None => encoder.null(),
        }
        id(encoder, correlation_id.as_ref());
        symbol(encoder, content_type.as_ref());
        symbol(encoder, content_encoding.as_ref());
        encoder.null();
        match timestamp {
            Some(time) => encoder.millis(time.unix_seconds()),
            None => encoder.null(),
        }
        // On other brokers, messages of one group go to one consumer.
        text(encoder, app_id.as_ref().filter(|_| dialect.rabbitmq));
        11
    });
}
