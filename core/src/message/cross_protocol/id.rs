//! The ids of AMQP 1.0, which have types, as the text that they are here.

use std::borrow::Cow;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    message::Properties,
    message::value::{Table, Value},
    short_str::ShortStr,
};

/// A message id or correlation id in the type that AMQP 1.0 has for it (§3.2.11 to §3.2.14).
///
/// Here an id is text, as it is on AMQP 0-9-1, so that a program can log it, store it and answer with it. The
/// text says the type, in the manner of JMS, and each text stands for one id. A program that copies the message
/// id of a request to the correlation id of its answer so gives a requester back what it asked with:
///
/// | on AMQP 1.0 | as text |
/// |---|---|
/// | string | the same |
/// | uuid | `urn:uuid:` and the UUID, in lower case, as RabbitMQ writes it to AMQP 0-9-1 |
/// | ulong | `AMQP_ULONG:` and the number |
/// | binary | `AMQP_BINARY:` and the bytes in hexadecimal digits, upper case |
/// | a string that looks like one of these | `AMQP_STRING:` and the string |
///
/// ```
/// use enoki_core::transport::cross_protocol::Id;
///
/// assert_eq!(Id::of("AMQP_ULONG:99"), Id::Number(99));
/// assert_eq!(Id::of("order-7"), Id::Text("order-7".into()));
/// assert_eq!(Id::Bytes(vec![0xff, 0].into()).text().as_deref(), Some("AMQP_BINARY:FF00"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Id<'t> {
    /// A string.
    Text(Cow<'t, str>),
    /// A UUID.
    Uuid([u8; 16]),
    /// An unsigned number of 64 bits.
    Number(u64),
    /// Bytes.
    Bytes(Cow<'t, [u8]>),
}

impl<'t> Id<'t> {
    /// What this text stands for.
    pub fn of(text: &'t str) -> Self {
        typed(text).unwrap_or(Self::Text(text.into()))
    }

    /// The text that stands for it; `None` for what is longer than an id here can be, 255 bytes.
    pub fn text(&self) -> Option<ShortStr> {
        let text = match self {
            Self::Text(text) if typed(text).is_some() => format!("{STRING}{text}"),
            Self::Text(text) => text.clone().into_owned(),
            Self::Uuid(bytes) => format!("{UUID}{}", Uuid::from_bytes(*bytes).hyphenated()),
            Self::Number(number) => format!("{ULONG}{number}"),
            Self::Bytes(bytes) => {
                bytes.iter().fold(BINARY.to_owned(), |text, byte| text + &format!("{byte:02X}"))
            }
        };
        ShortStr::new(text).ok()
    }
}

/// What a text stands for, if it is not itself.
fn typed(text: &str) -> Option<Id<'_>> {
    if let Some(uuid) = text.strip_prefix(UUID) {
        let bytes = Uuid::try_parse(uuid).ok()?.into_bytes();
        return canonical(Id::Uuid(bytes), text);
    }
    if let Some(number) = text.strip_prefix(ULONG) {
        return canonical(Id::Number(number.parse().ok()?), text);
    }
    if let Some(digits) = text.strip_prefix(BINARY) {
        let bytes = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        return canonical(Id::Bytes(bytes.collect::<Option<Vec<_>>>()?.into()), text);
    }
    let string = text.strip_prefix(STRING)?;
    typed(string).map(|_| Id::Text(string.into()))
}

/// An id, if this is the one text that stands for it.
fn canonical<'t>(id: Id<'t>, text: &str) -> Option<Id<'t>> {
    (id.text()? == *text).then_some(id)
}

/// Puts ids back that RabbitMQ moved to headers on the way from AMQP 1.0 to 0-9-1: bytes, since an id there is
/// text. One that is too long for an id here stays a header.
pub fn restore_ids(properties: &mut Properties, headers: &mut Table) {
    let ids = [
        (MESSAGE_ID_HEADER, &mut properties.message_id),
        (CORRELATION_ID_HEADER, &mut properties.correlation_id),
    ];
    for (header, id) in ids {
        if id.is_none()
            && let Some(Value::Bytes(bytes)) = headers.get(header)
            && let Some(text) = Id::Bytes(Cow::Borrowed(bytes)).text()
        {
            *id = Some(text);
            headers.remove(header);
        }
    }
}

/// The id, as text; where it is too long for one, the header of this name has it, as RabbitMQ does it on the
/// way to AMQP 0-9-1.
pub fn id_or_header(id: &Id<'_>, header: &'static str, headers: &mut Table) -> Option<ShortStr> {
    let text = id.text();
    if text.is_none() && !headers.contains(header) {
        let value = match id {
            Id::Bytes(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
            Id::Text(text) => Value::String(text.clone().into_owned()),
            // Never too long.
            Id::Uuid(_) | Id::Number(_) => return None,
        };
        headers.set(ShortStr::from_static(header), value);
    }
    text
}

/// The header that has a message id which is none on AMQP 0-9-1.
pub const MESSAGE_ID_HEADER: &str = "x-message-id";

/// The header that has a correlation id which is none on AMQP 0-9-1.
pub const CORRELATION_ID_HEADER: &str = "x-correlation-id";

const UUID: &str = "urn:uuid:";
const ULONG: &str = "AMQP_ULONG:";
const BINARY: &str = "AMQP_BINARY:";
const STRING: &str = "AMQP_STRING:";

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn each_type_has_a_text_and_each_text_a_type() {
        const TEXT: &str = "urn:uuid:00000000-0000-0000-0000-000000000007";
        let mut uuid = [0; 16];
        uuid[15] = 7;
        let of_text = format!("AMQP_STRING:{TEXT}");
        for (id, text) in [
            (Id::Uuid(uuid), TEXT),
            (Id::Number(0), "AMQP_ULONG:0"),
            (Id::Number(u64::MAX), "AMQP_ULONG:18446744073709551615"),
            (Id::Bytes(Cow::Borrowed(&[0xff, 0, 0xfe])), "AMQP_BINARY:FF00FE"),
            (Id::Bytes(Cow::Borrowed(b"ab")), "AMQP_BINARY:6162"),
            (Id::Bytes(Cow::Borrowed(&[])), "AMQP_BINARY:"),
            (Id::Text("".into()), ""),
            (Id::Text("99".into()), "99"),
            (Id::Text(TEXT.into()), &of_text),
            (Id::Text("AMQP_ULONG:99".into()), "AMQP_STRING:AMQP_ULONG:99"),
            (Id::Text("AMQP_STRING:AMQP_ULONG:9".into()), "AMQP_STRING:AMQP_STRING:AMQP_ULONG:9"),
            // Not what stands for anything else.
            (Id::Text("AMQP_ULONG:099".into()), "AMQP_ULONG:099"),
            (Id::Text("AMQP_ULONG:+9".into()), "AMQP_ULONG:+9"),
            (Id::Text("AMQP_ULONG:18446744073709551616".into()), "AMQP_ULONG:18446744073709551616"),
            (Id::Text("AMQP_BINARY:ff".into()), "AMQP_BINARY:ff"),
            (Id::Text("AMQP_BINARY:FFF".into()), "AMQP_BINARY:FFF"),
            (Id::Text("AMQP_BINARY:é".into()), "AMQP_BINARY:é"),
            (Id::Text("AMQP_STRING:x".into()), "AMQP_STRING:x"),
            (Id::Text("urn:uuid:".into()), "urn:uuid:"),
        ] {
            assert_eq!(id.text().as_deref(), Some(text));
            assert_eq!(Id::of(text), id, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_a_header() {
        let mut headers = Table::new();
        let long = Id::Text("x".repeat(256).into());
        assert_eq!(id_or_header(&long, MESSAGE_ID_HEADER, &mut headers), None);
        assert_eq!(headers.get(MESSAGE_ID_HEADER), Some(&"x".repeat(256).into()));
        let bytes = Id::Bytes(vec![1; 122].into());
        assert_eq!(id_or_header(&bytes, CORRELATION_ID_HEADER, &mut headers), None);
        let mut properties = Properties::default();
        restore_ids(&mut properties, &mut headers);
        assert_eq!(properties, Properties::default());
        assert_eq!(headers.get(CORRELATION_ID_HEADER), Some(&Value::Bytes(vec![1; 122].into())));
        let fits = Id::Bytes(vec![1; 121].into());
        assert!(id_or_header(&fits, CORRELATION_ID_HEADER, &mut headers).is_some());
    }

    #[test]
    fn what_rabbitmq_moved_to_a_header_is_the_id_again() {
        let mut headers = Table::new();
        headers.insert(MESSAGE_ID_HEADER, Value::Bytes(vec![0xff, 0].into())).unwrap();
        headers.insert(CORRELATION_ID_HEADER, "a header of the program's").unwrap();
        let mut properties = Properties::default();
        restore_ids(&mut properties, &mut headers);
        assert_eq!(properties.message_id.as_deref(), Some("AMQP_BINARY:FF00"));
        assert_eq!(properties.correlation_id, None);
        assert!(!headers.contains(MESSAGE_ID_HEADER) && headers.contains(CORRELATION_ID_HEADER));
    }

    fn text() -> impl Strategy<Value = String> {
        let prefix = prop::sample::select(vec![UUID, ULONG, BINARY, STRING, ""]);
        (vec(prefix, 0..3), "[0-9A-Fa-f-]{0,36}")
            .prop_map(|(prefixes, rest)| prefixes.concat() + &rest)
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in text(), any in ".{0,60}") {
            for text in [text, any] {
                let again = Id::of(&text).text();
                prop_assert_eq!(again.as_deref(), Some(&*text));
            }
        }

        #[test]
        fn every_id_comes_back(
            text in text(),
            uuid: [u8; 16],
            number: u64,
            bytes in vec(any::<u8>(), 0..=121),
        ) {
            for id in [
                Id::Text(text.into()),
                Id::Uuid(uuid),
                Id::Number(number),
                Id::Bytes(bytes.into()),
            ] {
                let text = id.text().unwrap();
                prop_assert_eq!(Id::of(&text), id);
            }
        }
    }
}
