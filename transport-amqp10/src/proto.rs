//! AMQP 1.0 as bytes: bytes in, bytes and events out. Nothing here waits, reads a clock or has a socket.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod guard;
pub(crate) mod inbound;
pub(crate) mod link_names;
pub(crate) mod login;
pub(crate) mod message;
pub(crate) mod outbound;
mod peer_properties;
#[cfg(test)]
mod tests;
