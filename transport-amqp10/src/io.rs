//! The socket below fe2o3-amqp, and what both of its ends share.

pub(crate) mod link_progress;
pub(crate) mod liveness;
pub(crate) mod stream;
