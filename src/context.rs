//! The context of a call: headers that follow it from service to service, in nameko's form unless the
//! program says another.
//!
//! A handler's publishes carry it by themselves. [`BrokerOptions::header_codec`] changes the names or
//! turns it off.
//!
//! [`BrokerOptions::header_codec`]: crate::broker::BrokerOptions::header_codec

pub use enoki_core::{Context, HeaderCodec, NoContext, PrefixCodec, TraceContext};
