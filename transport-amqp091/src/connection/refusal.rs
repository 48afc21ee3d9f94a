//! Why a connection was not opened.

use enoki_core::{Error, ErrorKind};
use enoki_socket::tls_error;

use crate::{
    error,
    io::{connection_io::frame_fault, socket_state::Stage},
    options::Options,
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
                    .because("what answered does not speak AMQP 0-9-1")
                    .remedy(options.other_port()),
                Stage::Greeted | Stage::Answered => unsupported.because(io.to_string()),
            }
        }
        // Brokers that do not know `authentication_failure_close` just hang up.
        (Stage::Greeted, lapin::ErrorKind::IOError(_)) => Error::new(ErrorKind::Denied, CONNECT)
            .on(options.subject())
            .because("the broker hung up during the login, which is how some refuse one")
            .remedy(who(options))
            .caused_by(error.clone()),
        (Stage::Silent, lapin::ErrorKind::IOError(_)) => refused.remedy(options.other_port()),
        (_, lapin::ErrorKind::IOError(io)) if io.kind() == std::io::ErrorKind::TimedOut => {
            silent(options, stage)
        }
        (_, lapin::ErrorKind::ParsingError(_)) => Error::new(ErrorKind::Unsupported, CONNECT)
            .on(options.subject())
            .because("what answered does not speak AMQP 0-9-1")
            .caused_by(error.clone()),
        (_, lapin::ErrorKind::ProtocolError(reply)) if reply.get_id() == 403 => {
            refused.remedy(who(options))
        }
        _ => refused,
    }
}

/// What may be wrong when a login is refused.
fn who(options: &Options) -> &'static str {
    match options.user() {
        Some(_) => "check user name and password",
        None => {
            "check that the broker takes logins by certificate (EXTERNAL; RabbitMQ has a plugin for it), \
             and knows whom this one names"
        }
    }
}

/// A connection that its deadline ended is one that could not be made; the next try may do better.
pub(super) fn silent(options: &Options, stage: Stage) -> Error {
    Error::new(ErrorKind::Connection, CONNECT).on(options.subject()).because(match stage {
        Stage::Unreachable => "no connection within the deadline",
        Stage::Silent => "connected, but no AMQP greeting within the deadline",
        Stage::Greeted | Stage::Answered => "the login was not over within the deadline",
    })
}

const CONNECT: &str = "connect to";
