//! The names of the management pair's links.

/// The name of the management pair's links: one on the wire, as RabbitMQ pairs them by it, and two
/// towards fe2o3-amqp, which takes a name only once in a session.
pub(crate) fn paired(end: u8) -> String {
    format!("{PAIR}{}", char::from(end))
}

const PAIR: &str = "enoki-management-pair-";
/// What the sender's name ends with, inside this process.
pub(crate) const PAIR_SENDER: u8 = b'S';
/// What the receiver's name ends with, inside this process.
pub(crate) const PAIR_RECEIVER: u8 = b'R';
pub(crate) const PAIR_ON_THE_WIRE: u8 = b'P';
