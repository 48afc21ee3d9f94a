//! One table from lapin's errors to ours.

use std::io;

use enoki_core::{Error, ErrorKind, transport::passing};
use lapin::{ErrorKind as Lapin, protocol::AMQPError};

/// An error of this operation, from an error of lapin's.
pub(crate) fn failed(
    operation: &'static str,
    subject: impl Into<String>,
    error: &lapin::Error,
) -> Error {
    let mut failed = about(Error::new(kind(error), operation), subject.into())
        .because(reason(error))
        .transient(is_transient(error));
    // What the broker said is the reason. lapin's error has it as it came, control characters and all.
    if !matches!(error.kind(), Lapin::ProtocolError(_)) {
        failed = failed.caused_by(error.clone());
    }
    match advice(error) {
        Some(advice) => failed.remedy(advice),
        None => failed,
    }
}

/// Names the subject, if there is one: a sender has none.
pub(crate) fn about(error: Error, subject: String) -> Error {
    if subject.is_empty() { error } else { error.on(subject) }
}

/// A call that its deadline ended.
pub(crate) fn timed_out(operation: &'static str, subject: impl Into<String>) -> Error {
    Error::new(ErrorKind::Timeout, operation)
        .on(subject.into())
        .because("the broker did not answer in time")
}

/// The table.
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

/// What a reply code means; the text decides where RabbitMQ uses one code for several things.
fn reply_kind(code: u16, text: &str) -> ErrorKind {
    if let Some(kind) = passing(text) {
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

/// Whether the same call may succeed later. What a reply code says is said for good, except
/// where it is about the state the broker is in, or where the broker failed itself.
fn is_transient(error: &lapin::Error) -> bool {
    match error.kind() {
        Lapin::ProtocolError(error) => match error.get_id() {
            320 | 506 => true,
            // An exclusive queue of a connection that the broker has not yet missed.
            405 => true,
            541 => !error.get_message().as_str().contains("deprecated"),
            530 if error.get_message().as_str().contains("has reached the") => true,
            _ => {
                let text = error.get_message();
                passing(text.as_str()).is_some() || text.as_str().contains("timed out")
            }
        },
        Lapin::ChannelsLimitReached => true,
        _ => matches!(kind(error), ErrorKind::Connection | ErrorKind::Timeout),
    }
}

/// What the broker said, or what happened to the connection. Nothing of it is a secret: no
/// broker quotes a password, and lapin's own texts name states.
fn reason(error: &lapin::Error) -> String {
    match error.kind() {
        Lapin::ProtocolError(error) => {
            let text = error.get_message().as_str();
            difference(text).unwrap_or_else(|| format!("the broker answered: {}", text.trim()))
        }
        Lapin::IOError(error) => match error.kind() {
            io::ErrorKind::ConnectionAborted => "the broker closed the connection".to_owned(),
            _ => error.to_string(),
        },
        Lapin::MissingHeartbeatError => "the broker's heartbeats stopped".to_owned(),
        Lapin::InvalidChannelState(..) => "the channel is closed".to_owned(),
        Lapin::InvalidConnectionState(_) => "the connection is closed".to_owned(),
        Lapin::ParsingError(_) => "the broker sent what is not AMQP 0-9-1".to_owned(),
        _ => error.to_string(),
    }
}

fn advice(error: &lapin::Error) -> Option<&'static str> {
    let Lapin::ProtocolError(error) = error.kind() else { return None };
    match error.get_id() {
        405 => Some("it belongs to another connection, which has to end first"),
        406 if is_difference(error) => {
            Some("declare it as it is, or delete it on the broker and declare it again")
        }
        _ => None,
    }
}

fn is_difference(error: &AMQPError) -> bool {
    error.get_message().as_str().contains("inequivalent arg")
}

/// Which argument differs, out of `PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue
/// 'q' in vhost 'v': received the value '2' of type 'long' but current is the value '1' of type
/// 'long'`.
fn difference(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, values) = rest.split_once(": received ")?;
    Some(match values.split_once(" but current is ") {
        Some((asked, found)) => {
            format!(
                "it exists with another {argument}: asked for {}, it has {}",
                value(asked),
                value(found)
            )
        }
        None => format!("it exists with another {argument}: {}", values.trim()),
    })
}

/// `2` out of `the value '2' of type 'signedint'`; short strings as they are.
fn value(text: &str) -> String {
    let text = text.trim();
    text.strip_prefix("the value ")
        .and_then(|rest| rest.rsplit_once(" of type ").map(|(value, _)| value))
        .unwrap_or(text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, text: &str) -> lapin::Error {
        let error = AMQPError::from_id(code, lapin::types::ShortString::from(text)).unwrap();
        Lapin::ProtocolError(error).into()
    }

    #[test]
    fn reply_codes_have_kinds() {
        let table = [
            (403, "ACCESS_REFUSED - login was refused", ErrorKind::Denied),
            (404, "NOT_FOUND - no queue 'q' in vhost 'v'", ErrorKind::NotFound),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access", ErrorKind::Conflict),
            (406, "PRECONDITION_FAILED - inequivalent arg 'durable'", ErrorKind::Conflict),
            (406, "PRECONDITION_FAILED - message size 2 is larger than 1", ErrorKind::TooLarge),
            (406, "PRECONDITION_FAILED - delivery acknowledgement timed out", ErrorKind::Timeout),
            (406, "PRECONDITION_FAILED - invalid arg 'x-expires'", ErrorKind::Configuration),
            (406, "PRECONDITION_FAILED - unknown exchange type 'x'", ErrorKind::Unsupported),
            (320, "CONNECTION_FORCED - bye", ErrorKind::Connection),
            (530, "NOT_ALLOWED - vhost nope not found", ErrorKind::NotFound),
            (530, "NOT_ALLOWED - access to vhost 'v' refused for user 'u'", ErrorKind::Denied),
            (503, "COMMAND_INVALID - unknown exchange type 'x-y'", ErrorKind::Unsupported),
            (501, "FRAME_ERROR", ErrorKind::Unexpected),
            (541, "INTERNAL_ERROR", ErrorKind::Unexpected),
        ];
        for (code, text, expected) in table {
            assert_eq!(kind(&reply(code, text)), expected, "{code} {text}");
        }
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_refusal_is_not() {
        let lost: lapin::Error = io::Error::from(io::ErrorKind::ConnectionReset).into();
        assert!(failed("publish", "x", &lost).is_transient());
        assert!(failed("consume", "x", &reply(320, "bye")).is_transient());
        assert!(!failed("declare", "x", &reply(403, "no")).is_transient());
    }

    /// One code for what is so for good and for what passes: the words tell which.
    #[test]
    fn what_the_broker_cannot_do_for_the_time_being_is_transient() {
        let table = [
            (404, "NOT_FOUND - no queue 'q' in vhost 'v'", ErrorKind::NotFound, false),
            (
                404,
                "NOT_FOUND - queue 'q' in vhost 'v' process is stopped by supervisor",
                ErrorKind::Connection,
                true,
            ),
            (
                404,
                "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost 'v' is down or inaccessible",
                ErrorKind::Connection,
                true,
            ),
            (
                530,
                "NOT_ALLOWED - access to vhost 'v' refused for user 'u'",
                ErrorKind::Denied,
                false,
            ),
            (
                530,
                "NOT_ALLOWED - access to vhost 'v' refused for user 'u': connection limit (2) is reached",
                ErrorKind::Refused,
                true,
            ),
            (
                530,
                "NOT_ALLOWED - access to vhost 'v' refused for user 'u': vhost 'v' is down",
                ErrorKind::Connection,
                true,
            ),
            (
                530,
                "NOT_ALLOWED - number of channels opened (7) has reached the negotiated channel_max (7)",
                ErrorKind::Refused,
                true,
            ),
            (
                541,
                "INTERNAL_ERROR - Cannot declare a queue 'queue 'q' in vhost 'v'' on node 'rabbit@a': {error,timeout}",
                ErrorKind::Unexpected,
                true,
            ),
            (
                541,
                "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.",
                ErrorKind::Unsupported,
                false,
            ),
        ];
        for (code, text, kind, transient) in table {
            let failed = failed("consume", "x", &reply(code, text));
            assert_eq!((failed.kind(), failed.is_transient()), (kind, transient), "{code} {text}");
        }
    }

    #[test]
    fn a_conflict_says_which_argument_differs() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost \
                    'v': received the value '2' of type 'long' but current is the value '1' of \
                    type 'long'";
        assert_eq!(
            failed("declare", "queue \"q\"", &reply(406, text)).to_string(),
            "declare queue \"q\": it exists with another x-max-length: asked for '2', it has '1'; \
             declare it as it is, or delete it on the broker and declare it again"
        );
        let text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost 'v': \
                    received 'topic' but current is 'direct'";
        assert_eq!(
            reason(&reply(406, text)),
            "it exists with another type: asked for 'topic', it has 'direct'"
        );
        // The text is cut at 255 bytes: what is left still names the argument.
        let cut = "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost 'v': \
                   received none but curr";
        assert_eq!(reason(&reply(406, cut)), "it exists with another x-a: none but curr");
    }
}
