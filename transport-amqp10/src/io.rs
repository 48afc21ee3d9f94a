//! The socket below fe2o3-amqp, and the state that both of its ends share.

pub(crate) mod blocked;
pub(crate) mod link_progress;
mod liveness;
pub(crate) mod open;
mod read_half;
pub(crate) mod socket_state;
mod stream;
mod write_half;
