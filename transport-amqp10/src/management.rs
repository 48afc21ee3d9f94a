//! Requests to what manages a broker.

pub(crate) mod artemis;
pub(crate) mod rabbitmq;
