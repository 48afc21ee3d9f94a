//! The parts that enoki's transports for AMQP have in common. A program does not use this crate by itself.
//!
//! - [`Options`] are the options of a transport, and [`Endpoint`] is the checked form of a broker's URL in
//!   them.
//! - [`Connector`] opens sockets to it: plain ones, or encrypted ones (rustls, TLS 1.2 and 1.3) where the URL
//!   asks for TLS. Without the feature `tls` it refuses such URLs, before anything is sent.
//! - [`PeerProperties`] are how a broker describes itself.
//! - [`rabbitmq`] has the facts about RabbitMQ that hold over both protocols.
//!
//! The two protocols share none of their frames, so each transport has its own.
//! docs/design/13-tls-and-logins.md in the repository has the reasons.

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod endpoint;
mod options;
mod peer_properties;
pub mod rabbitmq;
mod socket;

pub use self::{
    endpoint::Endpoint,
    options::Options,
    peer_properties::PeerProperties,
    socket::{Connector, Stream, tls_error},
};
