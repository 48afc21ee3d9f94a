//! Names of message annotations that carry properties.

/// The `kind` of a message: RabbitMQ's place for what AMQP 0-9-1 calls the type.
pub(super) const KIND: &str = "x-basic-type";

/// The `app_id`, for brokers to which group-id means something.
pub(super) const APP_ID: &str = "x-enoki-app-id";
