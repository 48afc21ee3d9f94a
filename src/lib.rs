//! Broker-agnostic messaging.

pub use enoki_core::*;
