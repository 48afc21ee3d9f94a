//! Errors: lapin's errors as ours, and how errors name their subjects.
//!
//! `client.rs` has what lapin's errors mean.

mod client;

use enoki_core::{Error, ErrorKind};
use lapin::ErrorKind as Lapin;

pub(crate) use self::client::kind;
use self::client::{advice, is_transient, reason};

/// An error of this operation, from an error of lapin's.
pub(crate) fn failed(
    operation: &'static str,
    subject: impl Into<String>,
    error: &lapin::Error,
) -> Error {
    let mut failed = about(Error::new(kind(error), operation), subject.into())
        .because(reason(error))
        .transient(is_transient(error));
    // The broker's text is the reason already. lapin's error has that text with its control characters.
    if !matches!(error.kind(), Lapin::ProtocolError(_)) {
        failed = failed.caused_by(error.clone());
    }
    match advice(error) {
        Some(advice) => failed.remedy(advice),
        None => failed,
    }
}

/// Adds the subject to an error, if it is not empty: a sender has none.
pub(crate) fn about(error: Error, subject: String) -> Error {
    if subject.is_empty() { error } else { error.on(subject) }
}

/// The error of a call that its deadline ended.
pub(crate) fn timed_out(operation: &'static str, subject: impl Into<String>) -> Error {
    Error::new(ErrorKind::Timeout, operation)
        .on(subject.into())
        .because("the broker did not answer in time")
}

/// How an error names a queue.
pub(crate) fn queue_subject(name: &str) -> String {
    format!("queue {name:?}")
}

/// How an error names an exchange. The default exchange has no name.
pub(crate) fn exchange_subject(name: &str) -> String {
    match name {
        "" => "the default exchange".to_owned(),
        name => format!("exchange {name:?}"),
    }
}

/// The operation of opening a connection, in errors.
pub(crate) const CONNECT: &str = "connect to";

#[cfg(test)]
mod tests {
    use std::io;

    use lapin::protocol::AMQPError;

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

    /// One code means a lasting refusal and a passing one: the text tells which.
    #[test]
    fn a_refusal_that_will_pass_is_transient() {
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
    fn a_conflict_says_what_to_do() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost \
                    'v': received the value '2' of type 'long' but current is the value '1' of \
                    type 'long'";
        assert_eq!(
            failed("declare", "queue \"q\"", &reply(406, text)).to_string(),
            "declare queue \"q\": it exists with another x-max-length: asked for '2', it has '1'; \
             declare it as it is, or delete it on the broker and declare it again"
        );
    }
}
