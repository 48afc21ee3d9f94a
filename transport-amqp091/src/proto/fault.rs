//! What may be wrong with bytes from the broker: a [`MessageFault`] costs one message, a [`FrameFault`] the
//! connection.

use std::{borrow::Cow, error::Error, fmt};

use lapin::types::{AMQPValue, FieldTable};

use crate::limits::MAX_DEPTH;

/// Why a message cannot be read. The consumer rejects it; the messages around it are not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// More tables and lists inside each other than [`MAX_DEPTH`].
    TooDeep,
    /// A name or text that is not UTF-8.
    NotUtf8,
    /// Lengths that do not fit, or types that do not exist.
    Malformed,
    /// A body of more bytes than the consumer takes.
    TooLarge,
}

impl MessageFault {
    /// All faults, each at the index that is its code in a placeholder header.
    pub(super) const ALL: [Self; 4] =
        [Self::TooDeep, Self::NotUtf8, Self::Malformed, Self::TooLarge];

    /// The fault that these headers stand for: they are a placeholder if [`PLACEHOLDER`] is the only one of
    /// them. `None` for the headers of any other message.
    pub(crate) fn from_headers(headers: &FieldTable) -> Option<Self> {
        match (headers.inner().len(), headers.inner().get(PLACEHOLDER)) {
            (1, Some(AMQPValue::ShortShortUInt(code))) => {
                Self::ALL.get(usize::from(*code)).copied()
            }
            _ => None,
        }
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "headers nested more than {MAX_DEPTH} levels deep"),
            Self::NotUtf8 => {
                f.write_str("an exchange, routing key, property or header name is not UTF-8")
            }
            Self::Malformed => f.write_str("malformed properties or headers"),
            Self::TooLarge => f.write_str("the body exceeds the limit `max_body`"),
        }
    }
}

/// The only header of a placeholder. Its value is the code of the fault, as an unsigned byte.
pub(super) const PLACEHOLDER: &str = "x-enoki-unreadable";

/// A frame that no working broker sends. It ends the connection, since the bytes after it cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameFault(Cow<'static, str>);

impl<S: Into<Cow<'static, str>>> From<S> for FrameFault {
    fn from(what: S) -> Self {
        Self(what.into())
    }
}

impl Error for FrameFault {}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker sent {}", self.0)
    }
}
