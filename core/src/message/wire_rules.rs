//! What one broker or protocol would change or choke on, though another carries it. Refused before
//! anything is written, on every transport: the consumer of the message may be on another one than
//! its publisher.

use uuid::Uuid;

use crate::{
    error::{Error, ErrorKind, Result},
    message::{Properties, cross_protocol, refuse, value::Value},
};

/// Checks the properties.
pub(super) fn check_properties(properties: &Properties) -> Result<()> {
    let texts = [
        ("the content type", &properties.content_type),
        ("the content encoding", &properties.content_encoding),
    ];
    for (subject, text) in texts {
        if text.as_deref().is_some_and(|text| !text.is_ascii()) {
            return Err(refuse(ErrorKind::Codec, subject)
                .because("AMQP 1.0 has only ASCII for it")
                .remedy("media types and content codings are ASCII"));
        }
    }
    let ids = [
        ("the message id", &properties.message_id),
        ("the correlation id", &properties.correlation_id),
    ];
    for (subject, id) in ids {
        if id.as_deref().is_some_and(is_almost_a_uuid) {
            return Err(refuse(ErrorKind::Codec, subject)
                .because(
                    "RabbitMQ takes it for a UUID: it would arrive otherwise, or end the session \
                     of the consumer over AMQP 1.0",
                )
                .remedy("after urn:uuid: write a UUID with hyphens and lower-case digits"));
        }
    }
    if properties.kind.as_deref() == Some(cross_protocol::ENCODED_BODY) {
        return Err(refuse(ErrorKind::Codec, "the kind")
            .because("RabbitMQ takes the body of such a message for one that AMQP 1.0 encoded")
            .remedy("choose another name"));
    }
    if properties.reply_to.as_deref().is_some_and(|queue| queue.starts_with("/queues/")) {
        return Err(refuse(ErrorKind::Configuration, "the reply-to")
            .because("brokers take it for an address of AMQP 1.0")
            .remedy("give the queue's name alone"));
    }
    Ok(())
}

/// RabbitMQ looks at nothing but the prefix and the length, writes the digits in lower case, and
/// until 4.3 failed where there were none.
fn is_almost_a_uuid(id: &str) -> bool {
    let Some(text) = id.strip_prefix("urn:uuid:").filter(|text| text.len() == 36) else {
        return false;
    };
    let canonical =
        |uuid: Uuid| *text == *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer());
    !Uuid::try_parse(text).is_ok_and(canonical)
}

/// Header names that RabbitMQ takes for something else on the way between protocols.
pub(super) fn is_reserved(name: &str) -> bool {
    name == "x-cc" || name.starts_with("x-basic-") || name.starts_with("x-amqp-1.0-")
}

/// Checks the name of a header, and the names in its value.
pub(super) fn check_names(name: &str, value: &Value) -> Result<()> {
    if [cross_protocol::MESSAGE_ID_HEADER, cross_protocol::CORRELATION_ID_HEADER].contains(&name)
        && matches!(value, Value::Bytes(_))
    {
        return Err(refuse(ErrorKind::Codec, format!("header {name:?}"))
            .because("RabbitMQ writes an id that is bytes so, and it would arrive as one")
            .remedy("choose another name, or send it as text"));
    }
    let is_annotation = name.starts_with("x-");
    if !is_annotation && !matches!(value, Value::List(_) | Value::Table(_)) {
        return Ok(());
    }
    let subject = || format!("header {name:?}");
    if !name.is_ascii() || is_annotation && !names_are_ascii(value) {
        return Err(refuse(ErrorKind::Codec, subject()).because(
            "AMQP 1.0 has only ASCII for the name of a header that begins with x- or is a list or \
             table, and for the names inside of one that begins with x-",
        ));
    }
    if !is_annotation && name.len() + cross_protocol::NESTED_PREFIX.len() > 255 {
        return Err(refuse(ErrorKind::TooLarge, subject()).because(format!(
            "the name of a header that is a list or table has at most {} bytes",
            255 - cross_protocol::NESTED_PREFIX.len()
        )));
    }
    Ok(())
}

fn names_are_ascii(value: &Value) -> bool {
    match value {
        Value::List(values) => values.iter().all(names_are_ascii),
        Value::Table(table) => {
            table.iter().all(|(name, value)| name.is_ascii() && names_are_ascii(value))
        }
        _ => true,
    }
}

/// Checks a value that is neither a list nor a table.
pub(super) fn check_simple(value: &Value, header: &str) -> Result<()> {
    let refuse = |reason: &'static str| -> Error {
        refuse(ErrorKind::Codec, format!("header {header:?}")).because(reason)
    };
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(refuse("RabbitMQ takes a text with a zero byte for bytes on the way to AMQP 1.0")
                .remedy("send it as bytes"))
        }
        Value::Bytes(bytes) if bytes.len() > LONG_TEXT && std::str::from_utf8(bytes).is_ok() => {
            Err(refuse("bytes so many that are text cannot be told from text on AMQP 1.0")
                .remedy("send it as text, or in the body"))
        }
        _ => Ok(()),
    }
}

/// RabbitMQ does not look whether more bytes than these are text.
const LONG_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::value::Table,
        message::{Limits, Message},
        short_str::ShortStr,
    };

    fn refused(message: &Message, subject: &str) {
        let error = message.check(&Limits::default()).expect_err("it has to be refused");
        assert!(error.to_string().contains(subject), "{subject} is missing in {error}");
    }

    fn accepted(message: &Message) {
        message.check(&Limits::default()).unwrap();
    }

    fn with(name: &str, value: impl Into<Value>) -> Message {
        let mut message = Message::new("");
        message.headers.insert(name, value).unwrap();
        message
    }

    fn table(name: &str) -> Value {
        let mut table = Table::new();
        table.insert(name, 1).unwrap();
        Value::List(vec![table.into()])
    }

    #[test]
    fn media_types_are_ascii() {
        for (text, ascii) in [("text/plain; charset=utf-8", true), ("", true), ("text/ü", false)] {
            let (mut message, mut encoded) = (Message::new(""), Message::new(""));
            message.properties.content_type = Some(ShortStr::from_static(text));
            encoded.properties.content_encoding = Some(ShortStr::from_static(text));
            if ascii {
                accepted(&message);
                accepted(&encoded);
            } else {
                refused(&message, "the content type");
                refused(&encoded, "the content encoding");
            }
        }
    }

    #[test]
    fn an_id_that_rabbitmq_takes_for_a_uuid_is_one() {
        let with_ids = |id: &'static str| {
            let (mut message, mut answer) = (Message::new(""), Message::new(""));
            message.properties.message_id = Some(ShortStr::from_static(id));
            answer.properties.correlation_id = Some(ShortStr::from_static(id));
            (message, answer)
        };
        for id in [
            "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
            "urn:uuid:123E4567-E89B-12D3-A456-42661417400",
            "123E4567-E89B-12D3-A456-426614174000",
            "urn:uuid:",
            "",
        ] {
            let (message, answer) = with_ids(id);
            accepted(&message);
            accepted(&answer);
        }
        for id in [
            "urn:uuid:123E4567-E89B-12D3-A456-426614174000",
            "urn:uuid:123e4567e89b12d3a456426614174000----",
            "urn:uuid:not-a-uuid-but-as-long-as-one-is----",
            "urn:uuid:{123e4567e89b-12d3-a456-42661417400}",
        ] {
            let (message, answer) = with_ids(id);
            refused(&message, "the message id");
            refused(&answer, "the correlation id");
        }
    }

    #[test]
    fn answers_go_to_a_queue_and_not_to_an_address() {
        let mut message = Message::new("");
        message.properties.reply_to = Some(ShortStr::from_static("/queues/answers"));
        refused(&message, "the reply-to");
        message.properties.reply_to = Some(ShortStr::from_static("queues/answers"));
        accepted(&message);
    }

    #[test]
    fn what_would_arrive_as_an_encoded_body_or_an_id_is_refused() {
        let mut message = Message::new("");
        message.properties.kind = Some(ShortStr::from_static("amqp-1.0"));
        refused(&message, "the kind");
        message.properties.kind = Some(ShortStr::from_static("amqp-1.1"));
        accepted(&message);
        for name in ["x-message-id", "x-correlation-id"] {
            refused(&with(name, Value::Bytes("a".into())), name);
            accepted(&with(name, "a"));
        }
    }

    #[test]
    fn names_that_rabbitmq_takes_for_something_else_are_refused() {
        for name in ["x-cc", "x-basic-priority", "x-basic-", "x-amqp-1.0-app-properties"] {
            refused(&with(name, 1), name);
        }
        for name in ["x-ccc", "x-basic", "X-CC", "x-amqp-1"] {
            accepted(&with(name, 1));
        }
    }

    #[test]
    fn what_becomes_an_annotation_has_an_ascii_name() {
        accepted(&with("größe", 1));
        refused(&with("größe", Value::List(vec![])), "größe");
        refused(&with("x-größe", 1), "x-größe");
        accepted(&with("sizes", table("größe")));
        refused(&with("x-sizes", table("größe")), "x-sizes");
        accepted(&with("x-sizes", table("size")));
        accepted(&with(&"n".repeat(240), table("n")));
        refused(&with(&"n".repeat(241), table("n")), "at most 240 bytes");
        accepted(&with(&"n".repeat(255), 1));
        accepted(&with(&format!("x-{}", "n".repeat(253)), table("n")));
    }

    #[test]
    fn text_is_told_from_bytes() {
        refused(&with("key", "a\0b"), "\"key\"");
        refused(&with("key", Value::List(vec!["\0".into()])), "\"key\"");
        accepted(&with("key", Value::Bytes("a\0b".into())));
        let bytes = |length: usize, byte: u8| Value::Bytes(vec![byte; length].into());
        accepted(&with("blob", bytes(4096, b'x')));
        refused(&with("blob", bytes(4097, b'x')), "\"blob\"");
        accepted(&with("blob", bytes(4097, 0xff)));
        accepted(&with("text", "x".repeat(4097)));
    }
}
