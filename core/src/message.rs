//! A message: a body, headers and properties, the same on every transport.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Result},
    short_str::ShortStr,
    value::{Table, Timestamp, Value},
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
    /// The media type of the body, such as `application/json`.
    pub content_type: Option<ShortStr>,
    /// How the body is encoded on top of its type, such as `gzip`.
    pub content_encoding: Option<ShortStr>,
    /// Unique to the message. A publisher assigns one where the program does not, before the first
    /// try, so that a duplicate can be recognised.
    pub message_id: Option<ShortStr>,
    /// What this message answers.
    pub correlation_id: Option<ShortStr>,
    /// The queue that answers go to.
    pub reply_to: Option<ShortStr>,
    /// The application's name for this sort of message (`type` on the wire).
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

    /// Checks everything that some wire could not carry, so that a test in memory finds what a
    /// broker would refuse.
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
            && time > Timestamp::MAX
        {
            return Err(refuse(ErrorKind::Codec, "the timestamp").because(format!(
                "{} seconds are more than AMQP 1.0 can carry",
                time.unix_seconds()
            )));
        }
        if self.headers.is_empty() {
            return Ok(());
        }
        for (name, value) in self.headers.iter() {
            if is_reserved(name) {
                return Err(refuse(ErrorKind::Configuration, format!("header {name:?}"))
                    .because("brokers set or act on this name themselves")
                    .remedy("choose another name"));
            }
            check_entry(name, value, name, 1)?;
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

/// What a publisher refuses before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body in bytes; 16 MiB by default, as in RabbitMQ 4.
    pub max_body: usize,
    /// The largest headers, encoded, in bytes; 126 KiB by default: they travel in one frame, which
    /// RabbitMQ limits to 128 KiB, together with the properties.
    pub max_headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body: 16 * 1024 * 1024, max_headers: 126 * 1024 }
    }
}

/// Tables and lists inside each other, at most: no broker or client chokes on so few.
const MAX_DEPTH: usize = 32;

/// Header names that brokers set, or that change where a message goes.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "CC" | "BCC"
            | "x-death"
            | "x-delivery-count"
            | "x-acquired-count"
            | "x-exchange"
            | "x-routing-key"
    ) || ["x-first-death-", "x-last-death-", "x-opt-", "x-enoki-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn check_entry(name: &str, value: &Value, header: &str, depth: usize) -> Result<()> {
    if name.is_empty() {
        return Err(refuse(ErrorKind::Configuration, format!("header {header:?}"))
            .because("a name is empty"));
    }
    check_value(value, header, depth)
}

fn check_value(value: &Value, header: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(refuse(ErrorKind::TooLarge, format!("header {header:?}"))
            .because(format!("tables and lists are nested more than {MAX_DEPTH} levels deep")));
    }
    match value {
        Value::Float(number) if !number.is_finite() => {
            Err(refuse(ErrorKind::Codec, format!("header {header:?}")).because(format!(
                "{number} is not a finite number, and RabbitMQ closes the connection on it"
            )))
        }
        Value::Timestamp(time) if *time > Timestamp::MAX => Err(refuse(
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
        _ => Ok(()),
    }
}

/// The encoded size as AMQP 0-9-1 writes it (§4.2.5.5), the larger of the two protocols.
fn table_size(table: &Table) -> usize {
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
