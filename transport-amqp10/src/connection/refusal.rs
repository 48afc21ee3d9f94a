//! Why a connection was not opened.

use std::time::Duration;

use enoki_amqp::{Options, tls_error};
use enoki_core::{Error, ErrorKind};
use fe2o3_amqp::connection::OpenError;

use crate::{
    error::{self, CONNECT, Cause},
    io::socket_state::{SocketState, Stage},
};

/// Why a connection was not opened.
pub(super) fn refused(
    options: &Options,
    error: OpenError,
    socket: &SocketState,
    after: Duration,
) -> Error {
    let by_tls = match &error {
        OpenError::Io(io) => tls_error(io, CONNECT),
        _ => None,
    };
    if let Some(error) = by_tls.or_else(|| socket.refusal()) {
        return error.on(options.subject());
    }
    let cause = Cause::from(error);
    if let Some(fault) = socket.fault() {
        let unsupported = Error::new(ErrorKind::Unsupported, CONNECT)
            .on(options.subject())
            .because(fault.to_owned());
        return match socket.stage() {
            Stage::Unreachable | Stage::Silent | Stage::Answered => {
                unsupported.remedy(options.endpoint.other_port())
            }
            Stage::LoggedIn | Stage::Opened => unsupported,
        };
    }
    match (&cause, socket.stage()) {
        // Brokers that speak only 0-9-1 answer with the name of that protocol, and close the connection.
        (Cause::Foreign, _) => error::failed(CONNECT, options.subject(), &cause).remedy(
            "a broker without AMQP 1.0, such as RabbitMQ before 4.0, is reached by amqp091:",
        ),
        (Cause::Lost(_), Stage::Silent) => {
            error::failed(CONNECT, options.subject(), &cause).remedy(options.endpoint.other_port())
        }
        // Some brokers refuse a login by closing the connection.
        (Cause::Lost(_), Stage::Answered) => Error::new(ErrorKind::Denied, CONNECT)
            .on(options.subject())
            .because("the broker closed the connection during the login, as some do to refuse it")
            .remedy(match options.user() {
                Some(_) => "check user name, password and virtual host",
                None => BY_CERTIFICATE,
            }),
        // RabbitMQ refuses a virtual host by closing the connection, whatever is wrong with it, and after
        // three seconds. A connection that breaks does not wait that long.
        (Cause::Lost(_), Stage::LoggedIn) if after >= SILENT_REFUSAL => Error::new(
            ErrorKind::Denied,
            CONNECT,
        )
        .on(options.subject())
        .because(
            "the broker accepted the login, and then closed the connection without a reason, as it \
             does to refuse the virtual host",
        )
        .remedy(
            "check that the virtual host exists and is up, that this user may use it, and that no limit \
             of connections is reached",
        ),
        _ => error::failed(CONNECT, options.subject(), &cause),
    }
}

const BY_CERTIFICATE: &str = "check that the broker knows the user that the certificate names";

/// The error where the deadline passed first. It is transient.
pub(super) fn silent(options: &Options, stage: Stage) -> Error {
    Error::new(ErrorKind::Connection, CONNECT).on(options.subject()).because(match stage {
        Stage::Unreachable => "there was no connection within the deadline",
        Stage::Silent => "connected, but the broker sent nothing within the deadline",
        Stage::Answered | Stage::LoggedIn | Stage::Opened => {
            "the login was not over within the deadline"
        }
    })
}

/// How long RabbitMQ waits at least when it refuses a virtual host: three seconds, less some for clocks and
/// threads.
const SILENT_REFUSAL: Duration = Duration::from_millis(2500);
