//! Why a connection was not opened.

use enoki_amqp::{Options, tls_error};
use enoki_core::{Error, ErrorKind};

use crate::{
    error::{self, CONNECT},
    io::{connection_io::frame_fault, socket_state::Stage},
};

/// Why a connection was not opened.
pub(super) fn refused(options: &Options, error: &lapin::Error, stage: Stage) -> Error {
    if let lapin::ErrorKind::IOError(io) = error.kind()
        && let Some(error) = tls_error(io, CONNECT)
    {
        return error.on(options.subject());
    }
    let refused = error::failed(CONNECT, options.subject(), error);
    match (stage, error.kind()) {
        (_, lapin::ErrorKind::IOError(io)) if frame_fault(io).is_some() => {
            let unsupported = Error::new(ErrorKind::Unsupported, CONNECT)
                .on(options.subject())
                .caused_by(error.clone());
            match stage {
                Stage::Unreachable | Stage::Silent => unsupported
                    .because("the peer does not speak AMQP 0-9-1")
                    .remedy(options.endpoint.other_port()),
                Stage::Greeted | Stage::Answered => unsupported.because(io.to_string()),
            }
        }
        // Brokers that do not know the capability `authentication_failure_close` refuse a login by closing the
        // connection.
        (Stage::Greeted, lapin::ErrorKind::IOError(_)) => Error::new(ErrorKind::Denied, CONNECT)
            .on(options.subject())
            .because("the broker closed the connection during the login, as some do to refuse it")
            .remedy(login_remedy(options))
            .caused_by(error.clone()),
        (Stage::Silent, lapin::ErrorKind::IOError(_)) => {
            refused.remedy(options.endpoint.other_port())
        }
        (_, lapin::ErrorKind::IOError(io)) if io.kind() == std::io::ErrorKind::TimedOut => {
            silent(options, stage)
        }
        (_, lapin::ErrorKind::ParsingError(_)) => Error::new(ErrorKind::Unsupported, CONNECT)
            .on(options.subject())
            .because("the peer does not speak AMQP 0-9-1")
            .caused_by(error.clone()),
        (_, lapin::ErrorKind::ProtocolError(reply)) if reply.get_id() == 403 => {
            refused.remedy(login_remedy(options))
        }
        _ => refused,
    }
}

/// What to check when a login is refused.
fn login_remedy(options: &Options) -> &'static str {
    match options.user() {
        Some(_) => "check user name and password",
        None => {
            "check that the broker accepts logins by certificate (EXTERNAL; RabbitMQ has a plugin for it), \
             and knows the user that the certificate names"
        }
    }
}

/// The error where the deadline passed first. It is transient.
pub(super) fn silent(options: &Options, stage: Stage) -> Error {
    Error::new(ErrorKind::Connection, CONNECT).on(options.subject()).because(match stage {
        Stage::Unreachable => "there was no connection within the deadline",
        Stage::Silent => "connected, but the broker sent nothing within the deadline",
        Stage::Greeted | Stage::Answered => "the login was not over within the deadline",
    })
}
