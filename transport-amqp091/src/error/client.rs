//! From lapin's errors to ours: kind, transience, reason, remedy.

use std::io;

use enoki_amqp::rabbitmq::{DIFFERENT, LOCKED, quote, transient_kind};
use enoki_core::ErrorKind;
use lapin::{ErrorKind as Lapin, protocol::AMQPError};

/// The kind of error that an error of lapin's means.
pub(crate) fn kind(error: &lapin::Error) -> ErrorKind {
    match error.kind() {
        Lapin::ProtocolError(error) => reply_kind(error.get_id(), error.get_message().as_str()),
        Lapin::IOError(error) if error.kind() == io::ErrorKind::TimedOut => ErrorKind::Timeout,
        Lapin::IOError(_)
        | Lapin::MissingHeartbeatError
        | Lapin::InvalidChannel(_)
        | Lapin::InvalidChannelState(..)
        | Lapin::InvalidConnectionState(_) => ErrorKind::Connection,
        Lapin::RuntimeShutdownError(_) => ErrorKind::Closed,
        Lapin::InvalidProtocolVersion(_) => ErrorKind::Unsupported,
        Lapin::AuthProviderError(_) => ErrorKind::Denied,
        Lapin::ChannelsLimitReached => ErrorKind::Refused,
        Lapin::SerialisationError(_) => ErrorKind::Codec,
        _ => ErrorKind::Unexpected,
    }
}

/// The kind that a reply code (§1.2) means. RabbitMQ uses some codes for several things; then its text decides.
fn reply_kind(code: u16, text: &str) -> ErrorKind {
    if let Some(kind) = transient_kind(text) {
        return kind;
    }
    match code {
        311 => ErrorKind::TooLarge,
        312 => ErrorKind::Unroutable,
        320 => ErrorKind::Connection,
        402 => ErrorKind::NotFound,
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        405 => ErrorKind::Conflict,
        406 if text.contains("larger than") => ErrorKind::TooLarge,
        406 if text.contains("timed out") => ErrorKind::Timeout,
        406 if text.contains("unknown delivery tag") => ErrorKind::Unexpected,
        406 if text.contains("exchange type") => ErrorKind::Unsupported,
        406 if text.contains("inequivalent") => ErrorKind::Conflict,
        406 if text.to_ascii_lowercase().contains("invalid") => ErrorKind::Configuration,
        406 => ErrorKind::Conflict,
        503 if text.contains("exchange type") => ErrorKind::Unsupported,
        506 => ErrorKind::Refused,
        530 if text.contains("not found") => ErrorKind::NotFound,
        530 if text.contains("has reached the") => ErrorKind::Refused,
        530 => ErrorKind::Denied,
        540 => ErrorKind::Unsupported,
        541 if text.contains("deprecated") => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    }
}

/// Whether the same call may succeed later. A refusal is final, unless it is about a state that will change, or the
/// broker itself failed.
pub(super) fn is_transient(error: &lapin::Error) -> bool {
    match error.kind() {
        Lapin::ProtocolError(error) => match error.get_id() {
            320 | 506 => true,
            // An exclusive queue may belong to a connection that has ended, which the broker has not noticed yet.
            405 => true,
            541 => !error.get_message().as_str().contains("deprecated"),
            530 if error.get_message().as_str().contains("has reached the") => true,
            _ => {
                let text = error.get_message();
                transient_kind(text.as_str()).is_some() || text.as_str().contains("timed out")
            }
        },
        Lapin::ChannelsLimitReached => true,
        _ => matches!(kind(error), ErrorKind::Connection | ErrorKind::Timeout),
    }
}

/// The broker's text, or what happened to the connection. It contains no secret: no broker quotes a password, and
/// lapin's own texts name states.
pub(super) fn reason(error: &lapin::Error) -> String {
    match error.kind() {
        Lapin::ProtocolError(error) => quote(error.get_message().as_str()),
        Lapin::IOError(error) => match error.kind() {
            io::ErrorKind::ConnectionAborted => "the broker closed the connection".to_owned(),
            _ => error.to_string(),
        },
        Lapin::MissingHeartbeatError => "the broker's heartbeats stopped".to_owned(),
        Lapin::InvalidChannelState(..) => "the channel is closed".to_owned(),
        Lapin::InvalidConnectionState(_) => "the connection is closed".to_owned(),
        Lapin::ParsingError(_) => "the broker sent bytes that are not AMQP 0-9-1".to_owned(),
        _ => error.to_string(),
    }
}

/// A remedy, where the reply code has one.
pub(super) fn advice(error: &lapin::Error) -> Option<&'static str> {
    let Lapin::ProtocolError(error) = error.kind() else { return None };
    match error.get_id() {
        405 => Some(LOCKED),
        406 if is_difference(error) => Some(DIFFERENT),
        _ => None,
    }
}

fn is_difference(error: &AMQPError) -> bool {
    error.get_message().as_str().contains("inequivalent arg")
}
