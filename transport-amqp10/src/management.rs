//! Requests to the part of a broker that declares and deletes: RabbitMQ's management node, Artemis's
//! management address.

pub(crate) mod artemis;
pub(crate) mod manager;
pub(crate) mod rabbitmq;
