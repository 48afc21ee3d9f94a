//! The names of the management pair's links.
//!
//! RabbitMQ pairs two links by their name, so on the wire both have the same one. fe2o3-amqp takes a name
//! only once in a session, so towards it they have two, which differ in the last byte.

/// The name of a link of the management pair that ends with this byte: [`PAIR_SENDER`] or [`PAIR_RECEIVER`]
/// towards fe2o3-amqp, [`PAIR_ON_THE_WIRE`] towards the broker.
pub(crate) fn paired(end: u8) -> String {
    format!("{PAIR}{}", char::from(end))
}

const PAIR: &str = "enoki-management-pair-";
pub(crate) const PAIR_SENDER: u8 = b'S';
pub(crate) const PAIR_RECEIVER: u8 = b'R';
pub(crate) const PAIR_ON_THE_WIRE: u8 = b'P';
