//! The socket below fe2o3-amqp, and the state that both of its ends share.

pub(crate) mod blocked;
pub(crate) mod link_progress;
mod liveness;
mod read_half;
pub(crate) mod socket_state;
pub(crate) mod stream;
mod write_half;
