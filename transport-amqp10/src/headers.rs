//! Messages as AMQP 1.0 writes them, both directions. Pure.
//!
//! | here | AMQP 1.0 |
//! |---|---|
//! | body | one data section |
//! | `persistent`, `priority`, `expiration` | header: durable, priority, ttl |
//! | `message_id`, `correlation_id` | in the type that [`Id`](enoki_core::transport::cross_protocol::Id) reads in the text |
//! | `content_type`, `content_encoding`, `user_id` | the properties of these names |
//! | `reply_to` | reply-to: the queue's address |
//! | `timestamp` | creation-time |
//! | `app_id` | group-id, as RabbitMQ maps it; elsewhere message annotation `x-enoki-app-id` |
//! | `kind` | message annotation `x-basic-type`, as RabbitMQ maps it |
//! | header `x-…` | message annotation; a null or boolean is an application property |
//! | any other header with a simple value | application property |
//! | any other header with a list or table | message annotation `x-enoki-header-` and the name |
//! | which bytes in headers look like text | message annotation `x-enoki-bytes`, for AMQP 0-9-1 |
//!
//! Some parts of a message are written by other clients only, and read here: a body that is a value; and
//! properties without a field in [`Properties`](enoki_core::Properties), as headers `x-amqp-1.0-…` (subject,
//! group-sequence, reply-to-group-id, absolute-expiry-time, and group-id where it is not the `app_id`).
//!
//! The sections are those of §3.2. docs/crossing.md compares them with AMQP 0-9-1.

mod attempt;
mod deaths;
pub(crate) mod incoming;
mod names;
pub(crate) mod outgoing;
#[cfg(test)]
mod tests;
