//! The wire format, without a socket: bytes in, events out.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod guard;
pub(crate) mod outbound;
pub(crate) mod peer_properties;
