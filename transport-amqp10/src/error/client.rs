//! From fe2o3-amqp's errors to [`Cause`].

use fe2o3_amqp::{
    connection::{self, ConnectionStopReason, OpenError},
    link::{
        DetachError, IllegalLinkStateError, LinkStateError, ReceiverAttachError, RecvError,
        SendError, SenderAttachError, SessionStopReason,
    },
    session::BeginError,
    transport,
    types::{definitions, sasl::SaslCode},
};

use super::Cause;

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
