//! The errors of this broker, each kind in one place.

use enoki_core::{Error, ErrorKind, ShortStr};

/// How a session came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its owner closed or dropped it.
    Closed,
    /// The network went away.
    Dropped,
}

/// An operation on a session that has ended, or the end itself.
pub(crate) fn ended(operation: &'static str, ending: Ending) -> Error {
    match ending {
        Ending::Closed => {
            Error::new(ErrorKind::Closed, operation).because("the session was closed")
        }
        Ending::Dropped => {
            Error::new(ErrorKind::Connection, operation).because("the connection was dropped")
        }
    }
}

pub(crate) fn no_exchange(operation: &'static str, name: &ShortStr) -> Error {
    missing(operation, exchange_subject(name))
}

pub(crate) fn no_queue(operation: &'static str, name: &ShortStr) -> Error {
    missing(operation, queue_subject(name))
}

fn missing(operation: &'static str, subject: String) -> Error {
    Error::new(ErrorKind::NotFound, operation)
        .on(subject)
        .because("it does not exist")
        .remedy("declare it first")
}

/// It exists, and differs from the one that was asked for.
pub(crate) fn differs(operation: &'static str, subject: String, difference: String) -> Error {
    Error::new(ErrorKind::Conflict, operation)
        .on(subject)
        .because(difference)
        .remedy("delete it, or declare what exists")
}

/// The queue belongs to another session.
pub(crate) fn exclusive(operation: &'static str, name: &ShortStr) -> Error {
    Error::new(ErrorKind::Conflict, operation)
        .on(queue_subject(name))
        .because("another session has it exclusively")
}

pub(crate) fn denied(operation: &'static str, subject: String, reason: &'static str) -> Error {
    Error::new(ErrorKind::Denied, operation).on(subject).because(reason)
}

/// An argument that no broker would take.
pub(crate) fn bad_argument(operation: &'static str, subject: String, reason: String) -> Error {
    Error::new(ErrorKind::Configuration, operation).on(subject).because(reason)
}

pub(crate) fn exchange_subject(name: &ShortStr) -> String {
    format!("exchange {:?}", name.as_str())
}

pub(crate) fn queue_subject(name: &ShortStr) -> String {
    format!("queue {:?}", name.as_str())
}
