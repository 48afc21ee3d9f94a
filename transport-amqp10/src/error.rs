//! Errors: from AMQP's error conditions (§2.8.14) to kinds, and the reasons and remedies in our words.
//!
//! `client.rs` has what fe2o3-amqp's errors mean.

mod client;

use enoki_amqp::rabbitmq::{LOCKED, quote, transient_kind};
use enoki_core::{Error, ErrorKind};
use fe2o3_amqp::types::definitions::{self, ErrorCondition};

/// Why a connection, an AMQP session, a link or a request ended or failed.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The broker ended or refused it, and gave this reason.
    Peer(definitions::Error),
    /// The broker ended it, and gave no reason.
    Ended,
    /// The broker refused the login.
    Login,
    /// The peer speaks another protocol.
    Foreign,
    /// The connection is lost.
    Lost(String),
    /// The broker allows no more AMQP sessions on the connection.
    Limit,
    /// fe2o3-amqp, or this transport, could not do it in its state.
    Local(String),
}

/// An error of this operation.
pub(crate) fn failed(operation: &'static str, subject: impl Into<String>, cause: &Cause) -> Error {
    let failed = about(Error::new(kind(cause), operation), subject.into())
        .because(reason(cause))
        .transient(is_transient(cause));
    match advice(cause) {
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
    about(Error::new(ErrorKind::Timeout, operation), subject.into())
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

/// The kind of error that a cause means.
pub(crate) fn kind(cause: &Cause) -> ErrorKind {
    match cause {
        Cause::Peer(error) => {
            condition_kind(condition(error), error.description.as_deref().unwrap_or_default())
        }
        Cause::Ended | Cause::Lost(_) => ErrorKind::Connection,
        Cause::Login => ErrorKind::Denied,
        Cause::Foreign => ErrorKind::Unsupported,
        Cause::Limit => ErrorKind::Refused,
        Cause::Local(_) => ErrorKind::Connection,
    }
}

/// The kind that a condition means. RabbitMQ uses some conditions for several things; then its text decides.
fn condition_kind(condition: &str, text: &str) -> ErrorKind {
    if let Some(kind) = transient_kind(text) {
        return kind;
    }
    match condition {
        // RabbitMQ's text when an operator closes a connection, and when a node goes down.
        INTERNAL if text.starts_with("Connection forced") => ErrorKind::Connection,
        "amqp:not-found" | "amqp:resource-deleted" => ErrorKind::NotFound,
        "amqp:unauthorized-access" => ErrorKind::Denied,
        "amqp:resource-locked" => ErrorKind::Conflict,
        "amqp:not-allowed" if text.contains("not found") => ErrorKind::NotFound,
        "amqp:not-allowed" => ErrorKind::Denied,
        "amqp:link:message-size-exceeded" => ErrorKind::TooLarge,
        "amqp:precondition-failed" if text.contains("larger than") => ErrorKind::TooLarge,
        "amqp:precondition-failed" if text.contains("inequivalent") => ErrorKind::Conflict,
        "amqp:precondition-failed" => ErrorKind::Refused,
        "amqp:resource-limit-exceeded" => ErrorKind::Refused,
        "amqp:not-implemented" => ErrorKind::Unsupported,
        "amqp:invalid-field" if text.contains("vhost") => ErrorKind::NotFound,
        "amqp:invalid-field" => ErrorKind::Configuration,
        "amqp:decode-error" => ErrorKind::Codec,
        "amqp:connection:forced" | "amqp:link:detach-forced" | "amqp:illegal-state" => {
            ErrorKind::Connection
        }
        _ => ErrorKind::Unexpected,
    }
}

/// The operation of opening a connection, in errors.
pub(crate) const CONNECT: &str = "connect to";

/// The condition of RabbitMQ's own failures, and of closing a connection by force.
pub(crate) const INTERNAL: &str = "amqp:internal-error";

/// The name of a condition.
pub(crate) fn condition(error: &definitions::Error) -> &str {
    use definitions::{AmqpError as A, ConnectionError as C, LinkError as L, SessionError as S};
    match &error.condition {
        ErrorCondition::AmqpError(error) => match error {
            A::InternalError => INTERNAL,
            A::NotFound => "amqp:not-found",
            A::UnauthorizedAccess => "amqp:unauthorized-access",
            A::DecodeError => "amqp:decode-error",
            A::ResourceLimitExceeded => "amqp:resource-limit-exceeded",
            A::NotAllowed => "amqp:not-allowed",
            A::InvalidField => "amqp:invalid-field",
            A::NotImplemented => "amqp:not-implemented",
            A::ResourceLocked => "amqp:resource-locked",
            A::PreconditionFailed => "amqp:precondition-failed",
            A::ResourceDeleted => "amqp:resource-deleted",
            A::IllegalState => "amqp:illegal-state",
            A::FrameSizeTooSmall => "amqp:frame-size-too-small",
        },
        ErrorCondition::ConnectionError(error) => match error {
            C::ConnectionForced => "amqp:connection:forced",
            C::FramingError => "amqp:connection:framing-error",
            C::Redirect => "amqp:connection:redirect",
        },
        ErrorCondition::SessionError(error) => match error {
            S::WindowViolation => "amqp:session:window-violation",
            S::ErrantLink => "amqp:session:errant-link",
            S::HandleInUse => "amqp:session:handle-in-use",
            S::UnattachedHandle => "amqp:session:unattached-handle",
        },
        ErrorCondition::LinkError(error) => match error {
            L::DetachForced => "amqp:link:detach-forced",
            L::TransferLimitExceeded => "amqp:link:transfer-limit-exceeded",
            L::MessageSizeExceeded => "amqp:link:message-size-exceeded",
            L::Redirect => "amqp:link:redirect",
            L::Stolen => "amqp:link:stolen",
        },
        ErrorCondition::Custom(name) => name.as_str(),
    }
}

/// Whether the same call may succeed later. A refusal is final, unless it is about a state that will change,
/// or the broker itself failed.
fn is_transient(cause: &Cause) -> bool {
    match cause {
        Cause::Peer(error) if condition(error) == INTERNAL => true,
        Cause::Peer(error) if error.description.as_deref().and_then(transient_kind).is_some() => {
            true
        }
        // An exclusive queue may belong to a connection that has ended, which the broker has not noticed yet.
        Cause::Peer(error) if condition(error) == "amqp:resource-locked" => true,
        Cause::Peer(error) if condition(error) == "amqp:resource-limit-exceeded" => true,
        Cause::Limit => true,
        _ => matches!(kind(cause), ErrorKind::Connection | ErrorKind::Timeout),
    }
}

/// The reason in an error. It has no credentials: brokers do not quote passwords, and the other texts name
/// states.
pub(crate) fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Peer(error) => match error.description.as_deref().map(str::trim) {
            Some(text) if !text.is_empty() => quote(text),
            _ => format!("the broker answered: {}", condition(error)),
        },
        Cause::Ended => "the broker closed it".to_owned(),
        Cause::Login => "the broker refused the login".to_owned(),
        Cause::Foreign => "the peer does not speak AMQP 1.0".to_owned(),
        Cause::Lost(text) | Cause::Local(text) => text.clone(),
        Cause::Limit => "the broker takes no more sessions on one connection".to_owned(),
    }
}

fn advice(cause: &Cause) -> Option<&'static str> {
    match cause {
        Cause::Peer(error) if condition(error) == "amqp:resource-locked" => Some(LOCKED),
        Cause::Login => Some("check user name and password"),
        Cause::Limit => Some("raise session_max_per_connection on the broker"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use definitions::AmqpError;

    use super::*;

    fn peer(condition: AmqpError, text: &str) -> Cause {
        Cause::Peer(definitions::Error::new(condition, text.to_owned(), None))
    }

    #[test]
    fn conditions_have_kinds() {
        let table = [
            (AmqpError::NotFound, "no queue 'q' in vhost 'v'", ErrorKind::NotFound),
            (AmqpError::ResourceDeleted, "queue 'q' deleted", ErrorKind::NotFound),
            (AmqpError::UnauthorizedAccess, "access refused", ErrorKind::Denied),
            (AmqpError::ResourceLocked, "exclusive access", ErrorKind::Conflict),
            (AmqpError::PreconditionFailed, "inequivalent arg 'durable'", ErrorKind::Conflict),
            (AmqpError::PreconditionFailed, "bad 'to' address string", ErrorKind::Refused),
            (AmqpError::NotAllowed, "vhost 'v' not found", ErrorKind::NotFound),
            (AmqpError::NotAllowed, "access to vhost 'v' refused", ErrorKind::Denied),
            (AmqpError::NotImplemented, "", ErrorKind::Unsupported),
            (AmqpError::InternalError, "", ErrorKind::Unexpected),
        ];
        for (condition, text, expected) in table {
            assert_eq!(kind(&peer(condition, text)), expected, "{text}");
        }
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_refusal_is_not() {
        assert!(failed("publish", "x", &Cause::Lost("reset".to_owned())).is_transient());
        assert!(failed("consume", "x", &peer(AmqpError::ResourceLocked, "")).is_transient());
        assert!(!failed("declare", "x", &peer(AmqpError::UnauthorizedAccess, "")).is_transient());
        assert!(!failed("connect", "x", &Cause::Login).is_transient());
    }

    /// One condition means what is final and what is transient: the text tells which.
    #[test]
    fn a_refusal_about_a_state_that_changes_is_transient() {
        let table = [
            (
                AmqpError::InternalError,
                "Connection forced: \"operator\"",
                ErrorKind::Connection,
                true,
            ),
            (
                AmqpError::InternalError,
                "Session error: function_clause",
                ErrorKind::Unexpected,
                true,
            ),
            (AmqpError::NotFound, "no queue 'q' in vhost 'v'", ErrorKind::NotFound, false),
            (
                AmqpError::NotFound,
                "queue 'q' in vhost 'v' process is stopped by supervisor",
                ErrorKind::Connection,
                true,
            ),
            (
                AmqpError::InvalidField,
                "queue 'q' in vhost 'v' process is stopped by supervisor",
                ErrorKind::Connection,
                true,
            ),
            (
                AmqpError::NotAllowed,
                "access to vhost 'v' refused for user 'u'",
                ErrorKind::Denied,
                false,
            ),
            (
                AmqpError::NotAllowed,
                "access to vhost 'v' refused for user 'u': connection limit (2) is reached",
                ErrorKind::Refused,
                true,
            ),
        ];
        for (condition, text, kind, transient) in table {
            let failed = failed("consume", "x", &peer(condition, text));
            assert_eq!((failed.kind(), failed.is_transient()), (kind, transient), "{text}");
        }
    }
}
