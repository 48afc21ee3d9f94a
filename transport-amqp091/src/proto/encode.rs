//! The frames of a published message (§4.2.3, §4.2.6).
//!
//! lapin could write them, but would take more time for that than all other steps take together: it copies each
//! body twice, makes a future, two promises and a wake for each message, and keeps the order of frames and
//! delivery tags only if a single task publishes. `docs/design/16-amqp091.md` has the figures.

use enoki_core::{
    Error, ErrorKind, Message, Properties, Result, Table, Value, transport::Outgoing,
};
use lapin::protocol::constants::FRAME_END;

use super::{
    frame::{BODY, HEADER, METHOD},
    methods::BASIC_PUBLISH,
};

/// The frames before the body: `basic.publish`, and the content header. Fails if the content header needs a frame of
/// more than `frame_max` bytes.
pub(crate) fn head(channel: u16, outgoing: &Outgoing, frame_max: usize) -> Result<Vec<u8>> {
    let Outgoing { exchange, routing_key, mandatory, message, .. } = outgoing;
    let mut out = Vec::with_capacity(USUAL + exchange.len() + routing_key.len());
    frame(&mut out, METHOD, channel, |out| {
        let (class, method) = BASIC_PUBLISH;
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&method.to_be_bytes());
        // reserved-1 (formerly the access ticket), always 0.
        out.extend_from_slice(&[0, 0]);
        short(out, exchange);
        short(out, routing_key);
        out.push((*mandatory).into());
        Ok(())
    })?;
    let before = out.len();
    frame(&mut out, HEADER, channel, |out| content(out, message))?;
    let length = out.len() - before;
    if length > frame_max {
        return Err(Error::new(ErrorKind::TooLarge, "encode the properties and headers").because(
            format!(
                "they are {length} bytes, and the broker takes frames of {frame_max} at the most"
            ),
        ));
    }
    Ok(out)
}

/// The first 7 bytes of a body frame; its payload follows, then [`FRAME_END`].
pub(crate) fn body_head(channel: u16, length: usize) -> [u8; 7] {
    let ([a, b], [c, d, e, f]) = (channel.to_be_bytes(), (length as u32).to_be_bytes());
    [BODY, a, b, c, d, e, f]
}

fn frame(
    out: &mut Vec<u8>,
    kind: u8,
    channel: u16,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    long(out, payload)?;
    out.push(FRAME_END);
    Ok(())
}

fn content(out: &mut Vec<u8>, message: &Message) -> Result<()> {
    // Every field: one that is added later needs a place on the wire before this compiles.
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
        expiration: _, // below, in whole milliseconds
        priority,
        persistent,
    } = &message.properties;
    out.extend_from_slice(&BASIC);
    out.extend_from_slice(&(message.body.len() as u64).to_be_bytes());
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    let mut flags = 0;
    let mut text = |out: &mut Vec<u8>, flag: u16, text: Option<&str>| {
        if let Some(text) = text {
            flags |= flag;
            short(out, text);
        }
    };
    text(out, 1 << 15, content_type.as_deref());
    text(out, 1 << 14, content_encoding.as_deref());
    if !message.headers.is_empty() {
        table(out, &message.headers)?;
    }
    out.push(if *persistent { 2 } else { 1 });
    out.extend(priority);
    text(out, 1 << 10, correlation_id.as_deref());
    text(out, 1 << 9, reply_to.as_deref());
    let expiration = message.properties.expiration_millis().map(|millis| millis.to_string());
    text(out, 1 << 8, expiration.as_deref());
    text(out, 1 << 7, message_id.as_deref());
    if let Some(time) = timestamp {
        out.extend_from_slice(&time.unix_seconds().to_be_bytes());
    }
    text(out, 1 << 5, kind.as_deref());
    text(out, 1 << 4, user_id.as_deref());
    text(out, 1 << 3, app_id.as_deref());
    let present = [
        (1 << 13, !message.headers.is_empty()),
        (1 << 12, true),
        (1 << 11, priority.is_some()),
        (1 << 6, timestamp.is_some()),
    ];
    for (flag, _) in present.iter().filter(|(_, present)| *present) {
        flags |= flag;
    }
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&flags.to_be_bytes());
    }
    Ok(())
}

/// A short string. By their types, all texts here have 255 bytes at most.
fn short(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// A long string: its length (4 bytes), then its bytes.
fn bytes(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(&(content.len() as u32).to_be_bytes());
    out.extend_from_slice(content);
}

/// The same for content that the closure writes: the length is filled in afterwards.
fn long(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out)?;
    let length = (out.len() - at - 4) as u32;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn table(out: &mut Vec<u8>, table: &Table) -> Result<()> {
    long(out, |out| {
        table.iter().try_for_each(|(name, item)| {
            short(out, name);
            value(out, item)
        })
    })
}

/// A value of a table: its type (1 byte), and its bytes. `headers.rs` has the table of types.
fn value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Null => out.push(b'V'),
        Value::Bool(truth) => out.extend_from_slice(&[b't', (*truth).into()]),
        Value::Int(number) => {
            out.push(b'l');
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Float(number) => {
            out.push(b'd');
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Timestamp(time) => {
            out.push(b'T');
            out.extend_from_slice(&time.unix_seconds().to_be_bytes());
        }
        Value::Bytes(content) => {
            out.push(b'x');
            bytes(out, content);
        }
        Value::String(text) => {
            out.push(b'S');
            bytes(out, text.as_bytes());
        }
        Value::List(values) => {
            out.push(b'A');
            long(out, |out| values.iter().try_for_each(|item| self::value(out, item)))?;
        }
        Value::Table(inner) => {
            out.push(b'F');
            table(out, inner)?;
        }
        other => return Err(no_type(other)),
    }
    Ok(())
}

/// The error for a value of a type that a later version of the core has added.
pub(crate) fn no_type(value: &Value) -> Error {
    Error::new(ErrorKind::Codec, "encode a header")
        .because(format!("AMQP 0-9-1 has no type for {value:?}"))
}

/// The class `basic`, and a weight that is always 0.
const BASIC: [u8; 4] = [0, 60, 0, 0];

/// The usual number of bytes before a body, without exchange and routing key.
const USUAL: usize = 128;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
    use bytes::Bytes;
    use enoki_core::{ShortStr, Timestamp};
    use lapin::{
        BasicProperties,
        protocol::{AMQPClass, basic},
        types::{AMQPValue, FieldArray, FieldTable},
    };

    use super::*;

    /// The same by lapin's own encoder.
    fn by_lapin(channel: u16, outgoing: &Outgoing, properties: BasicProperties) -> Vec<u8> {
        let publish = basic::Publish {
            exchange: outgoing.exchange.as_str().into(),
            routing_key: outgoing.routing_key.as_str().into(),
            mandatory: outgoing.mandatory,
            immediate: false,
        };
        let header = AMQPContentHeader { class_id: 60, body_size: 5, properties };
        let frames = [
            AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))),
            AMQPFrame::Header(channel, header),
        ];
        frames.iter().fold(Vec::new(), |out, frame| {
            gen_frame(frame)(WriteContext::from(out)).unwrap().into_inner().0
        })
    }

    fn outgoing(exchange: &'static str, mandatory: bool, message: Message) -> Outgoing {
        Outgoing {
            id: 1,
            exchange: ShortStr::from_static(exchange),
            routing_key: ShortStr::from_static("order.placed.eu"),
            mandatory,
            message: Arc::new(Message { body: Bytes::from_static(b"hello"), ..message }),
        }
    }

    fn check(message: Message, properties: BasicProperties) {
        for (exchange, mandatory) in [("shop", true), ("", false)] {
            let outgoing = outgoing(exchange, mandatory, message.clone());
            let ours = head(517, &outgoing, usize::MAX).unwrap();
            assert_eq!(ours, by_lapin(517, &outgoing, properties.clone()), "{properties:?}");
        }
    }

    #[test]
    fn each_property_is_written_as_lapin_writes_it() {
        let usual = || BasicProperties::default().with_delivery_mode(2);
        let text = || Some(ShortStr::from_static("é and more"));
        let short = || "é and more".into();
        type Set = fn(&mut Properties);
        let rows: [(Set, BasicProperties); 12] = [
            (|_| {}, usual()),
            (|p| p.persistent = false, usual().with_delivery_mode(1)),
            (|p| p.priority = Some(200), usual().with_priority(200)),
            (|p| p.timestamp = Some(Timestamp::from_unix_seconds(-1)), {
                usual().with_timestamp(u64::MAX)
            }),
            (|p| p.expiration = Some(Duration::from_millis(1500)), {
                usual().with_expiration("1500".into())
            }),
            (|p| p.content_type = Some(ShortStr::from_static("a/b")), {
                usual().with_content_type("a/b".into())
            }),
            (|p| p.content_encoding = Some(ShortStr::from_static("utf-8")), {
                usual().with_content_encoding("utf-8".into())
            }),
            (|p| p.message_id = Some(ShortStr::from_static("m")), {
                usual().with_message_id("m".into())
            }),
            (|p| p.correlation_id = Some(ShortStr::from_static("c")), {
                usual().with_correlation_id("c".into())
            }),
            (|p| p.reply_to = Some(ShortStr::EMPTY), usual().with_reply_to("".into())),
            (|p| p.kind = Some(ShortStr::from_static("k")), usual().with_type("k".into())),
            (|p| p.user_id = Some(ShortStr::from_static("u")), usual().with_user_id("u".into())),
        ];
        for (set, expected) in rows {
            let mut message = Message::default();
            set(&mut message.properties);
            check(message, expected);
        }
        let properties = Properties {
            content_type: text(),
            content_encoding: text(),
            message_id: text(),
            correlation_id: text(),
            reply_to: text(),
            kind: text(),
            app_id: text(),
            user_id: text(),
            timestamp: Some(Timestamp::from_unix_seconds(7)),
            expiration: Some(Duration::from_millis(1)),
            priority: Some(0),
            persistent: true,
        };
        let mut message = Message { properties, ..Message::default() };
        message.headers.insert("a", 1).unwrap();
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongLongInt(1));
        let all = usual()
            .with_content_type(short())
            .with_content_encoding(short())
            .with_headers(headers)
            .with_priority(0)
            .with_correlation_id(short())
            .with_reply_to(short())
            .with_expiration("1".into())
            .with_message_id(short())
            .with_timestamp(7)
            .with_type(short())
            .with_user_id(short())
            .with_app_id(short());
        check(message, all);
    }

    #[test]
    fn each_type_of_header_is_written_as_lapin_writes_it() {
        let table = |name: &'static str, value| {
            let mut table = FieldTable::default();
            table.insert(name.into(), value);
            table
        };
        let mut inner = Table::new();
        inner.insert("n", Value::Null).unwrap();
        let list = vec![Value::Int(1), Value::List(vec![]), Value::Table(inner.clone())];
        let rows = [
            (Value::Null, AMQPValue::Void),
            (Value::Bool(true), AMQPValue::Boolean(true)),
            (Value::Int(i64::MIN), AMQPValue::LongLongInt(i64::MIN)),
            (Value::Float(-1.5), AMQPValue::Double(-1.5)),
            (Value::Timestamp(Timestamp::from_unix_seconds(7)), AMQPValue::Timestamp(7)),
            (Value::Bytes(Bytes::from_static(b"\xff")), {
                AMQPValue::ByteArray(b"\xff"[..].into())
            }),
            (Value::String("é".to_owned()), AMQPValue::LongString("é".into())),
            (Value::List(list), {
                AMQPValue::FieldArray(FieldArray::from(vec![
                    AMQPValue::LongLongInt(1),
                    AMQPValue::FieldArray(FieldArray::default()),
                    AMQPValue::FieldTable(table("n", AMQPValue::Void)),
                ]))
            }),
            (Value::Table(inner), AMQPValue::FieldTable(table("n", AMQPValue::Void))),
        ];
        for (ours, theirs) in rows {
            let mut message = Message::default();
            message.headers.insert("h", ours).unwrap();
            let headers = table("h", theirs);
            let expected = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
            check(message, expected);
        }
    }

    #[test]
    fn properties_that_no_frame_has_room_for_are_refused() {
        let mut message = Message::default();
        message.headers.insert("h", "x".repeat(4000)).unwrap();
        let outgoing = outgoing("shop", true, message);
        assert!(head(1, &outgoing, 5000).is_ok());
        assert_eq!(head(1, &outgoing, 4000).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
