//! One table from AMQP's error conditions to our kinds, and from fe2o3-amqp's errors to either.

use std::fmt;

use enoki_core::{Error, ErrorKind, transport::passing};
use fe2o3_amqp::{
    connection::{self, ConnectionStopReason, OpenError},
    link::{
        DetachError, IllegalLinkStateError, LinkStateError, ReceiverAttachError, RecvError,
        SendError, SenderAttachError, SessionStopReason,
    },
    session::BeginError,
    transport,
    types::{
        definitions::{self, ErrorCondition},
        primitives::{Symbol, Value},
        sasl::SaslCode,
    },
};

/// Why something of fe2o3-amqp's ended or failed; can be told again.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The broker gave a reason.
    Peer(definitions::Error),
    /// The broker ended it, and gave none.
    Ended,
    /// The login was refused.
    Login,
    /// Whoever answered speaks another protocol.
    Foreign,
    /// The connection is gone.
    Lost(String),
    /// The broker takes no more of them.
    Limit,
    /// A state of fe2o3-amqp's.
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

/// Names the subject, if there is one: a sender has none.
pub(crate) fn about(error: Error, subject: String) -> Error {
    if subject.is_empty() { error } else { error.on(subject) }
}

/// A call that its deadline ended.
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

/// The table.
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

/// What a condition means; the text decides where RabbitMQ uses one for several things.
fn condition_kind(condition: &str, text: &str) -> ErrorKind {
    if let Some(kind) = passing(text) {
        return kind;
    }
    match condition {
        // What RabbitMQ says when an operator closes a connection, and when a node goes down.
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

/// What RabbitMQ calls its own failures, and more.
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

/// Whether the same call may succeed later. What a broker refuses it refuses for good, except where
/// it is about the state that it is in, or where the broker failed itself.
fn is_transient(cause: &Cause) -> bool {
    match cause {
        Cause::Peer(error) if condition(error) == INTERNAL => true,
        Cause::Peer(error) if error.description.as_deref().and_then(passing).is_some() => true,
        // An exclusive queue of a connection that the broker has not yet missed.
        Cause::Peer(error) if condition(error) == "amqp:resource-locked" => true,
        Cause::Peer(error) if condition(error) == "amqp:resource-limit-exceeded" => true,
        Cause::Limit => true,
        _ => matches!(kind(cause), ErrorKind::Connection | ErrorKind::Timeout),
    }
}

/// What the broker said, or what happened to the connection. Nothing of it is a secret: no broker
/// quotes a password, and the rest names states.
pub(crate) fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Peer(error) => match error.description.as_deref().map(str::trim) {
            Some(text) if !text.is_empty() => said(text),
            _ => format!("the broker answered: {}", condition(error)),
        },
        Cause::Ended => "the broker closed it".to_owned(),
        Cause::Login => "the broker refused the login".to_owned(),
        Cause::Foreign => "what answered does not speak AMQP 1.0".to_owned(),
        Cause::Lost(text) | Cause::Local(text) => text.clone(),
        Cause::Limit => "the broker takes no more sessions on one connection".to_owned(),
    }
}

/// What the broker said, in our words where it says which argument differs.
pub(crate) fn said(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // When RabbitMQ fails it answers with pages of its inner life.
    let line = match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    };
    difference(&line).unwrap_or_else(|| format!("the broker answered: {line}"))
}

/// How much of an answer an error quotes, in characters.
const LINE: usize = 300;

/// Which queue refused a message, and why: RabbitMQ says so since 4.3.
#[derive(Debug)]
pub(crate) struct RefusedBy {
    queue: String,
    why: String,
}

/// The queue that this rejection names.
pub(crate) fn refused_by(error: &definitions::Error) -> Option<RefusedBy> {
    let info = error.info.as_ref()?;
    let text = |name: &str| match info.get(&Symbol::from(name))? {
        Value::String(text) => Some(text.clone()),
        Value::Symbol(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    Some(RefusedBy { queue: text("queue")?, why: text("reason")? })
}

impl RefusedBy {
    /// Whether the queue may take the message later though no consumer takes one: it has no leader for the time
    /// being.
    pub(crate) fn passes(&self) -> bool {
        self.why == "unavailable"
    }
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {:?} refused it ({})", self.queue, self.why)
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

/// What to do about a queue that is somebody else's.
pub(crate) const LOCKED: &str = "it belongs to another connection, which has to end first";

/// Which argument differs, out of `inequivalent arg 'x-max-length' for queue 'q' in vhost 'v':
/// received the value '2' of type 'long' but current is the value '1' of type 'long'`.
pub(crate) fn difference(text: &str) -> Option<String> {
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

impl From<definitions::Error> for Cause {
    fn from(error: definitions::Error) -> Self {
        Self::Peer(error)
    }
}

impl From<transport::Error> for Cause {
    fn from(error: transport::Error) -> Self {
        Self::Lost(match error {
            transport::Error::IdleTimeoutElapsed => "the broker's heartbeats stopped".to_owned(),
            other => other.to_string(),
        })
    }
}

impl From<OpenError> for Cause {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::SaslError { code: SaslCode::Auth, .. } => Self::Login,
            OpenError::SaslError { .. } => Self::Local("the login failed on the broker".to_owned()),
            OpenError::ProtocolHeaderMismatch(_) | OpenError::DecodeError(_) => Self::Foreign,
            OpenError::Io(error) => Self::Lost(error.to_string()),
            OpenError::TransportError(error) => error.into(),
            OpenError::RemoteClosed => Self::Ended,
            OpenError::RemoteClosedWithError(error) => Self::Peer(error),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<connection::Error> for Cause {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::TransportError(error) => error.into(),
            connection::Error::RemoteClosed => Self::Ended,
            connection::Error::RemoteClosedWithError(error) => Self::Peer(error),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<ConnectionStopReason> for Cause {
    fn from(reason: ConnectionStopReason) -> Self {
        match reason {
            ConnectionStopReason::Closed => Self::Lost("the connection ended".to_owned()),
            ConnectionStopReason::RemoteClosed => Self::Ended,
            ConnectionStopReason::ClosedWithError(error)
            | ConnectionStopReason::RemoteClosedWithError(error) => Self::Peer(error),
        }
    }
}

impl From<SessionStopReason> for Cause {
    fn from(reason: SessionStopReason) -> Self {
        match reason {
            SessionStopReason::Ended => Self::Local("the session was ended".to_owned()),
            SessionStopReason::RemoteEnded => Self::Ended,
            SessionStopReason::EndedWithError(error)
            | SessionStopReason::RemoteEndedWithError(error) => Self::Peer(error),
            SessionStopReason::ConnectionStopped(reason) => reason.into(),
        }
    }
}

impl From<BeginError> for Cause {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::ConnectionStopped(reason) => reason.into(),
            BeginError::RemoteEnded => Self::Ended,
            BeginError::RemoteEndedWithError(error) => Self::Peer(error),
            BeginError::LocalChannelMaxReached => Self::Limit,
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<SenderAttachError> for Cause {
    fn from(error: SenderAttachError) -> Self {
        match error {
            SenderAttachError::SessionStopped(reason) => reason.into(),
            SenderAttachError::RemoteClosedWithError(error) => Self::Peer(error),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<ReceiverAttachError> for Cause {
    fn from(error: ReceiverAttachError) -> Self {
        match error {
            ReceiverAttachError::SessionStopped(reason) => reason.into(),
            ReceiverAttachError::RemoteClosedWithError(error) => Self::Peer(error),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<LinkStateError> for Cause {
    fn from(error: LinkStateError) -> Self {
        match error {
            LinkStateError::SessionStopped(reason) => reason.into(),
            LinkStateError::RemoteDetached | LinkStateError::RemoteClosed => Self::Ended,
            LinkStateError::RemoteDetachedWithError(error)
            | LinkStateError::RemoteClosedWithError(error) => Self::Peer(error),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<IllegalLinkStateError> for Cause {
    fn from(error: IllegalLinkStateError) -> Self {
        match error {
            IllegalLinkStateError::SessionStopped(reason) => reason.into(),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<DetachError> for Cause {
    fn from(error: DetachError) -> Self {
        LinkStateError::from(error).into()
    }
}

impl From<SendError> for Cause {
    fn from(error: SendError) -> Self {
        match error {
            SendError::LinkStateError(error) => error.into(),
            SendError::Detached(error) => error.into(),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<RecvError> for Cause {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::LinkStateError(error) => error.into(),
            other => Self::Local(other.to_string()),
        }
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

    /// As RabbitMQ 4.3 rejects.
    #[test]
    fn a_rejection_names_the_queue_and_what_passes() {
        let rejected = |why: &str| {
            let mut info = definitions::Fields::default();
            info.insert("queue".into(), Value::String("billing".to_owned()));
            info.insert("reason".into(), Value::Symbol(why.into()));
            definitions::Error::new(AmqpError::ResourceLimitExceeded, None, info)
        };
        let full = refused_by(&rejected("maxlen")).unwrap();
        assert_eq!(full.to_string(), "queue \"billing\" refused it (maxlen)");
        assert!(!full.passes());
        assert!(refused_by(&rejected("unavailable")).is_some_and(|by| by.passes()));
        let earlier = definitions::Error::new(AmqpError::ResourceLimitExceeded, None, None);
        assert!(refused_by(&earlier).is_none());
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_refusal_is_not() {
        assert!(failed("publish", "x", &Cause::Lost("reset".to_owned())).is_transient());
        assert!(failed("consume", "x", &peer(AmqpError::ResourceLocked, "")).is_transient());
        assert!(!failed("declare", "x", &peer(AmqpError::UnauthorizedAccess, "")).is_transient());
        assert!(!failed("connect", "x", &Cause::Login).is_transient());
    }

    /// One condition for what is so for good and for what passes: the words tell which.
    #[test]
    fn what_the_broker_cannot_do_for_the_time_being_is_transient() {
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

    #[test]
    fn a_conflict_says_which_argument_differs() {
        let text = "inequivalent arg 'x-max-length' for queue 'q' in vhost 'v': received the value \
                    '2' of type 'long' but current is the value '1' of type 'long'";
        assert_eq!(said(text), "it exists with another x-max-length: asked for '2', it has '1'");
        let text = "inequivalent arg 'type' for exchange 'e' in vhost 'v': received 'topic' but \
                    current is 'direct'";
        assert_eq!(said(text), "it exists with another type: asked for 'topic', it has 'direct'");
        assert_eq!(said("no such thing"), "the broker answered: no such thing");
    }
}
