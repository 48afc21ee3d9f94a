//! A message: a body, headers and properties, the same on every transport.

pub(crate) mod codec;
pub(crate) mod compression;
pub mod cross_protocol;
pub(crate) mod payload;
pub(crate) mod value;
mod wire_rules;

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Result},
    message::value::{Table, Timestamp, Value},
    short_str::ShortStr,
};

/// A message as it is published and delivered. Cloning shares the body.
///
/// Debug shows the length of the body, never the body.
///
/// ```
/// use enoki_core::{Message, Value};
///
/// let mut message = Message::new("hello");
/// message.properties.priority = Some(3);
/// message.headers.insert("region", "eu")?;
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Message {
    /// The body. Its encoding is the content type's business.
    pub body: Bytes,
    /// The application's headers, the call context among them.
    pub headers: Table,
    /// What AMQP calls the basic properties.
    pub properties: Properties,
}

/// The properties of a message (AMQP 0-9-1 §1.8; AMQP 1.0 §3.2.1 and §3.2.4).
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// The media type of the body, such as `application/json`; ASCII.
    pub content_type: Option<ShortStr>,
    /// How the body is encoded on top of its type, such as `gzip`; ASCII.
    pub content_encoding: Option<ShortStr>,
    /// Unique to the message. A publisher assigns one where the program does not, before the first
    /// try, so that a duplicate can be recognised.
    ///
    /// Other clients of AMQP 1.0 may use a UUID, a number or bytes for it: it is then the text that
    /// [`cross_protocol::Id`] has for these, and becomes the same again when it is published over AMQP 1.0.
    pub message_id: Option<ShortStr>,
    /// What this message answers: the message id of a request, as it came, whatever type it had.
    pub correlation_id: Option<ShortStr>,
    /// The queue that answers go to: its name, and no address.
    pub reply_to: Option<ShortStr>,
    /// The application's name for this sort of message (`type` on the wire). Not `amqp-1.0`, which
    /// RabbitMQ takes for a keyword of its own.
    pub kind: Option<ShortStr>,
    /// The application that published it.
    pub app_id: Option<ShortStr>,
    /// The login that published it. RabbitMQ refuses any other than the connection's own.
    pub user_id: Option<ShortStr>,
    /// When it was made.
    pub timestamp: Option<Timestamp>,
    /// How long it may wait in a queue, in whole milliseconds (rounded up), at most 49.7 days.
    pub expiration: Option<Duration>,
    /// The higher the sooner, on queues that have priorities.
    pub priority: Option<u8>,
    /// Whether it survives a restart of the broker in a durable queue; `true` by default.
    pub persistent: bool,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            content_type: None,
            content_encoding: None,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            kind: None,
            app_id: None,
            user_id: None,
            timestamp: None,
            expiration: None,
            priority: None,
            persistent: true,
        }
    }
}

impl Properties {
    /// The expiration as the wires carry it: whole milliseconds, rounded up.
    ///
    /// `None` without one; a message that passed [`Message::check`] never saturates.
    pub fn expiration_millis(&self) -> Option<u32> {
        let expiration = self.expiration?;
        let millis = expiration.as_nanos().div_ceil(1_000_000);
        Some(u32::try_from(millis).unwrap_or(u32::MAX))
    }
}

impl Message {
    /// A persistent message with this body and nothing else.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Checks everything that some wire could not carry, or would change on the way to another, so
    /// that a test in memory finds what a broker would refuse.
    ///
    /// The error names the header or property.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        if self.body.len() > limits.max_body {
            return Err(refuse(ErrorKind::TooLarge, "the body")
                .because(format!("{} bytes exceed the limit of {}", self.body.len(), limits.max_body))
                .remedy("store the content elsewhere and send a reference, or raise max_body here and on the broker"));
        }
        if let Some(expiration) = self.properties.expiration
            && expiration > Duration::from_millis(u32::MAX.into())
        {
            return Err(refuse(ErrorKind::Configuration, "the expiration")
                .because(format!("{expiration:?} exceeds the limit of {} ms", u32::MAX)));
        }
        if let Some(time) = self.properties.timestamp
            && !time.is_portable()
        {
            return Err(refuse(ErrorKind::Codec, "the timestamp").because(format!(
                "{} seconds are more than AMQP 1.0 can carry",
                time.unix_seconds()
            )));
        }
        wire_rules::check_properties(&self.properties)?;
        if self.headers.is_empty() {
            return Ok(());
        }
        for (name, value) in self.headers.iter() {
            check_header_name(name)?;
            wire_rules::check_names(name, value)?;
            check_entry(name, value, name, 1)?;
            let is_nested = matches!(value, Value::List(_) | Value::Table(_));
            if is_nested && !limits.nested_headers && !name.starts_with("x-") {
                return Err(refuse(ErrorKind::Codec, format!("header {name:?}"))
                    .because("it is a list or a table, and this program refuses those")
                    .remedy(
                        "begin its name with `x-`, or allow them by `Limits::nested_headers`",
                    ));
            }
        }
        let size = table_size(&self.headers);
        if size > limits.max_headers {
            return Err(refuse(ErrorKind::TooLarge, "the headers")
                .because(format!("{size} bytes exceed the limit of {}", limits.max_headers))
                .remedy("headers travel in one frame: move the content to the body"));
        }
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("headers", &self.headers)
            .field("properties", &self.properties)
            .finish()
    }
}

/// How large messages may be.
///
/// A publisher refuses larger ones before anything is written. A consumer of AMQP takes no larger body
/// into memory: it rejects the message as one that cannot be read, with the reason in the log, to where
/// the queue sends its dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body in bytes; 16 MiB by default, as in RabbitMQ 4.
    pub max_body: usize,
    /// The largest headers that publishers write, encoded, in bytes; 124 KiB by default: they travel
    /// in one frame with the properties, and RabbitMQ limits frames to 128 KiB.
    pub max_headers: usize,
    /// Whether a header may be a list or a table, as by default. Without, one is refused unless its
    /// name begins with `x-`: for publishers on AMQP 0-9-1 whose messages are consumed on AMQP 1.0,
    /// since RabbitMQ would leave it out on the way.
    pub nested_headers: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body: 16 * 1024 * 1024, max_headers: 124 * 1024, nested_headers: true }
    }
}

/// Tables and lists inside each other, at most: no broker or client chokes on so few.
const MAX_DEPTH: usize = 32;

/// Refuses header names that brokers set, or that change where a message goes.
pub(crate) fn check_header_name(name: &str) -> Result<()> {
    if is_reserved(name) {
        return Err(refuse(ErrorKind::Configuration, format!("header {name:?}"))
            .because("brokers set or act on this name themselves")
            .remedy("choose another name"));
    }
    Ok(())
}

/// Header names that brokers set, or that change where a message goes.
pub(crate) fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "CC" | "BCC"
            | "x-death"
            | "x-delivery-count"
            | "x-acquired-count"
            | "x-exchange"
            | "x-routing-key"
    ) || ["x-first-death-", "x-last-death-", "x-opt-", cross_protocol::RESERVED]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || wire_rules::is_reserved(name)
}

fn check_entry(name: &str, value: &Value, header: &str, depth: usize) -> Result<()> {
    if name.is_empty() {
        return Err(refuse(ErrorKind::Configuration, format!("header {header:?}"))
            .because("a name is empty"));
    }
    check_value(value, header, depth)
}

fn check_value(value: &Value, header: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH && matches!(value, Value::List(_) | Value::Table(_)) {
        return Err(refuse(ErrorKind::TooLarge, format!("header {header:?}"))
            .because(format!("tables and lists are nested more than {MAX_DEPTH} levels deep")));
    }
    match value {
        Value::Float(number) if !number.is_finite() => {
            Err(refuse(ErrorKind::Codec, format!("header {header:?}")).because(format!(
                "{number} is not a finite number, and RabbitMQ closes the connection on it"
            )))
        }
        Value::Timestamp(time) if !time.is_portable() => Err(refuse(
            ErrorKind::Codec,
            format!("header {header:?}"),
        )
        .because(format!("{} seconds are more than AMQP 1.0 can carry", time.unix_seconds()))),
        Value::List(values) => {
            values.iter().try_for_each(|value| check_value(value, header, depth + 1))
        }
        Value::Table(table) => {
            table.iter().try_for_each(|(name, value)| check_entry(name, value, header, depth + 1))
        }
        simple => wire_rules::check_simple(simple, header),
    }
}

/// The encoded size as AMQP 0-9-1 writes it (§4.2.5.5), the larger of the two protocols.
pub(crate) fn table_size(table: &Table) -> usize {
    4 + table.iter().map(|(name, value)| 1 + name.len() + value_size(value)).sum::<usize>()
}

fn value_size(value: &Value) -> usize {
    1 + match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => 8,
        Value::Bytes(bytes) => 4 + bytes.len(),
        Value::String(text) => 4 + text.len(),
        Value::List(values) => 4 + values.iter().map(value_size).sum::<usize>(),
        Value::Table(table) => table_size(table),
    }
}

fn refuse(kind: ErrorKind, subject: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(kind, "publish a message: check").on(subject)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(name: &str, value: impl Into<Value>) -> Message {
        let mut message = Message::new("body");
        message.headers.insert(name, value).unwrap();
        message
    }

    fn check(message: &Message) -> Result<()> {
        message.check(&Limits::default())
    }

    /// The text of the error, which has to have all of these parts.
    fn refused(message: &Message, kind: ErrorKind, parts: &[&str]) {
        let error = check(message).expect_err("it has to be refused");
        assert_eq!(error.kind(), kind, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_message_is_persistent_and_has_nothing_that_nobody_gave_it() {
        let message = Message::new("hello");
        assert!(message.properties.persistent && message.headers.is_empty());
        assert_eq!(message.properties, Properties::default());
        check(&message).unwrap();
    }

    #[test]
    fn debug_shows_the_length_of_the_body_and_not_the_body() {
        let shown = format!("{:?}", Message::new("s3cr3t"));
        assert!(shown.contains("6 bytes") && !shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn lists_and_tables_in_headers_are_refused_by_name_where_a_program_says_so() {
        let mut limits = Limits::default();
        for nested in [Value::List(Vec::new()), Value::Table(Table::new())] {
            let mut message = Message::new("");
            message.headers.insert("x-stack", nested.clone()).unwrap();
            message.headers.insert("flat", 1).unwrap();
            limits.nested_headers = false;
            message.check(&limits).unwrap();
            message.headers.insert("stack", nested).unwrap();
            let error = message.check(&limits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Codec);
            assert!(error.to_string().contains("header \"stack\""), "{error}");
            limits.nested_headers = true;
            message.check(&limits).unwrap();
        }
    }

    #[test]
    fn a_body_may_have_the_limit_and_not_a_byte_more() {
        let limits = Limits { max_body: 10, ..Limits::default() };
        Message::new("x".repeat(10)).check(&limits).unwrap();
        let error = Message::new("x".repeat(11)).check(&limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("11 bytes exceed the limit of 10"), "{error}");
        assert_eq!(Limits::default().max_body, 16_777_216);
    }

    #[test]
    fn headers_may_have_the_limit_and_not_a_byte_more() {
        // A length of four bytes, a name of one with its length, a type, and a text with its length.
        let overhead = 4 + 2 + 1 + 4;
        let limits = Limits { max_headers: 100, ..Limits::default() };
        with("a", "x".repeat(100 - overhead)).check(&limits).unwrap();
        let error = with("a", "x".repeat(101 - overhead)).check(&limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let said = error.to_string();
        assert!(said.contains("the headers: 101 bytes exceed the limit of 100"), "{said}");
        assert!(said.contains("move the content to the body"), "{said}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_at_every_depth() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            refused(&with("load", number), ErrorKind::Codec, &["header \"load\"", "finite"]);
            let list = Value::List(vec![Value::from(1), Value::Float(number)]);
            refused(&with("load", list.clone()), ErrorKind::Codec, &["header \"load\""]);
            let mut table = Table::new();
            table.insert("inner", list).unwrap();
            refused(&with("load", table), ErrorKind::Codec, &["header \"load\""]);
        }
        for number in [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324] {
            check(&with("load", number)).unwrap();
        }
    }

    #[test]
    fn names_that_brokers_act_on_are_refused() {
        for name in [
            "CC",
            "BCC",
            "x-death",
            "x-delivery-count",
            "x-acquired-count",
            "x-exchange",
            "x-routing-key",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-opt-delivery-time",
            "x-enoki-attempt",
        ] {
            let expected = [&*format!("header {name:?}"), "choose another name"];
            refused(&with(name, 1), ErrorKind::Configuration, &expected);
        }
        for name in ["cc", "x-deaths", "x-own", "X-Death", "xopt", "nameko.x-death", "x"] {
            check(&with(name, 1)).unwrap();
        }
    }

    #[test]
    fn a_name_may_be_of_255_bytes_and_neither_longer_nor_empty() {
        check(&with(&"n".repeat(255), 1)).unwrap();
        let error = Table::new().insert("é".repeat(128), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("256 bytes exceed the limit of 255"), "{error}");
        refused(&with("", 1), ErrorKind::Configuration, &["a name is empty"]);
        let mut inner = Table::new();
        inner.insert("", 1).unwrap();
        refused(&with("outer", inner), ErrorKind::Configuration, &["\"outer\"", "a name is empty"]);
    }

    fn lists(levels: usize, innermost: Value) -> Value {
        (0..levels).fold(innermost, |inner, _| Value::List(vec![inner]))
    }

    fn tables(levels: usize, innermost: Value) -> Value {
        (0..levels).fold(innermost, |inner, _| {
            let mut table = Table::new();
            table.insert("in", inner).unwrap();
            Value::Table(table)
        })
    }

    #[test]
    fn tables_and_lists_are_nested_32_levels_deep_at_most() {
        for nest in [lists, tables] {
            check(&with("deep", nest(32, Value::from(1)))).unwrap();
            refused(
                &with("deep", nest(33, Value::from(1))),
                ErrorKind::TooLarge,
                &["header \"deep\"", "more than 32 levels"],
            );
            refused(&with("deep", nest(1000, Value::Null)), ErrorKind::TooLarge, &["deep"]);
        }
    }

    #[test]
    fn an_expiration_is_rounded_up_to_milliseconds() {
        let millis = |expiration| {
            Properties { expiration: Some(expiration), ..Properties::default() }.expiration_millis()
        };
        assert_eq!(Properties::default().expiration_millis(), None);
        for (expiration, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(999), 1),
            (Duration::from_millis(1), 1),
            (Duration::from_nanos(1_000_001), 2),
            (Duration::from_secs(60), 60_000),
            (Duration::from_millis(u64::from(u32::MAX)), u32::MAX),
            (Duration::MAX, u32::MAX),
        ] {
            assert_eq!(millis(expiration), Some(expected), "{expiration:?}");
        }
    }

    #[test]
    fn an_expiration_is_of_49_days_at_most() {
        let mut message = Message::new("");
        message.properties.expiration = Some(Duration::from_millis(u64::from(u32::MAX)));
        check(&message).unwrap();
        message.properties.expiration =
            Some(Duration::from_millis(u64::from(u32::MAX)) + Duration::from_nanos(1));
        refused(&message, ErrorKind::Configuration, &["the expiration", "4294967295 ms"]);
        message.properties.expiration = Some(Duration::MAX);
        refused(&message, ErrorKind::Configuration, &["the expiration"]);
    }

    #[test]
    fn a_timestamp_is_one_that_every_wire_can_write() {
        for (edge, step) in [(Timestamp::MAX, 1), (Timestamp::MIN, -1)] {
            let beyond = Timestamp::from_unix_seconds(edge.unix_seconds() + step);
            let mut message = Message::new("");
            message.properties.timestamp = Some(edge);
            check(&message).unwrap();
            message.properties.timestamp = Some(beyond);
            refused(&message, ErrorKind::Codec, &["the timestamp"]);
            check(&with("at", edge)).unwrap();
            refused(&with("at", beyond), ErrorKind::Codec, &["header \"at\""]);
            let list = vec![Value::Timestamp(beyond)];
            refused(&with("at", list), ErrorKind::Codec, &["header \"at\""]);
            assert!(edge.unix_seconds().checked_mul(1000).is_some());
        }
    }

    /// The encoding of AMQP 0-9-1 §4.2.5.5, written down plainly.
    fn write_table(table: &Table) -> Vec<u8> {
        let mut fields = Vec::new();
        for (name, value) in table.iter() {
            fields.push(u8::try_from(name.len()).unwrap());
            fields.extend(name.as_bytes());
            fields.extend(write_value(value));
        }
        long(&fields)
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut written = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        written.extend(bytes);
        written
    }

    fn write_value(value: &Value) -> Vec<u8> {
        let (kind, bytes) = match value {
            Value::Null => (b'V', Vec::new()),
            Value::Bool(truth) => (b't', vec![u8::from(*truth)]),
            Value::Int(number) => (b'l', number.to_be_bytes().to_vec()),
            Value::Float(number) => (b'd', number.to_be_bytes().to_vec()),
            Value::Timestamp(time) => (b'T', time.unix_seconds().to_be_bytes().to_vec()),
            Value::Bytes(bytes) => (b'x', long(bytes)),
            Value::String(text) => (b'S', long(text.as_bytes())),
            Value::List(values) => {
                (b'A', long(&values.iter().flat_map(write_value).collect::<Vec<_>>()))
            }
            Value::Table(table) => (b'F', write_table(table)),
        };
        let mut written = vec![kind];
        written.extend(bytes);
        written
    }

    fn values() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(|seconds| Value::from(Timestamp::from_unix_seconds(seconds))),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|it| Value::Bytes(it.into())),
            ".{0,20}".prop_map(Value::from),
        ];
        plain.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                entries(inner).prop_map(Value::from),
            ]
        })
    }

    fn entries(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Table> {
        proptest::collection::vec((".{0,10}", values), 0..5).prop_map(|entries| {
            entries.into_iter().map(|(name, value)| (ShortStr::new(name).unwrap(), value)).collect()
        })
    }

    proptest! {
        #[test]
        fn the_size_of_headers_is_what_an_encoder_writes(headers in entries(values())) {
            prop_assert_eq!(table_size(&headers), write_table(&headers).len());
        }

        #[test]
        fn checking_panics_on_nothing(headers in entries(values())) {
            let _ = check(&Message { headers, ..Message::new("") });
        }
    }
}
