//! The core of enoki: topology, messages, settlement and services.
//!
//! It opens no socket and knows no client library: transports do, through the interface in
//! [`transport`]. Programs use it by way of the `enoki` crate.

// docs.rs shows which feature adds what.
#![cfg_attr(docsrs, feature(doc_cfg))]
// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod backoff;
mod broker;
mod broker_options;
mod capability;
mod connection;
mod connections;
mod consumer;
mod context;
mod deadline;
mod declare;
mod delivery;
mod entrypoint;
mod error;
mod failure;
mod health;
mod message;
#[cfg(feature = "mock")]
pub mod mock;
mod outcome;
mod printable;
mod publisher;
mod required;
mod retry;
mod service;
mod short_str;
mod source;
mod subscription;
mod task;
pub mod testing;
mod tls;
mod topology;
pub mod transport;
mod url;
mod worker_result;

pub use backoff::Backoff;
pub use broker::Broker;
pub use broker_options::BrokerOptions;
pub use capability::{Capability, Peer};
pub use consumer::Consumer;
pub use consumer::extract::{Body, FromDelivery, FromState, State};
pub use consumer::handler::{Configured, Handler, IntoOutcome};
#[doc(hidden)]
pub use consumer::handler::{ConsumerOptions, Handled, HandlerFuture};
pub use consumer::incoming::{Incoming, WorkerInfo};
pub use consumer::on_error::OnError;
pub use consumer::provider::{Provided, Provider};
pub use context::Context;
pub use context::header_codec::{HeaderCodec, NoContext, PrefixCodec};
pub use context::trace::TraceContext;
pub use delivery::{Delivery, Envelope, Settled};
pub use entrypoint::{Entrypoint, Scope};
/// The form of serde that a [`Codec`] is written against.
pub use erased_serde;
pub use error::{Error, ErrorKind, Result};
pub use failure::Failure;
pub use health::{BrokerHealth, ConsumerHealth, Health};
#[cfg(feature = "bincode")]
pub use message::codec::Bincode;
#[cfg(feature = "msgpack")]
pub use message::codec::MessagePack;
#[cfg(feature = "postcard")]
pub use message::codec::Postcard;
pub use message::codec::{AnyJson, Codec, CodecError, Codecs, Encoded, Json, Text, Visit};
#[cfg(feature = "compression")]
pub use message::compression::Compression;
pub use message::payload::{Payload, Raw};
pub use message::value::{Table, Timestamp, Value};
pub use message::{Limits, Message, Properties};
pub use outcome::{Attempt, Counted, Disposition, Outcome};
pub use publisher::{Confirm, Confirmed, Publication, Publisher, PublisherOptions, RetryPolicy};
pub use retry::{plan::DelayedBy, policy::Retry};
pub use service::extension::Extension;
pub use service::health::ServiceHealth;
pub use service::{RunningService, Service, Started};
pub use short_str::ShortStr;
pub use subscription::Subscription;
pub use subscription::on_cancel::OnCancel;
pub use tls::Tls;
pub use topology::def::{Argument, Arguments, Binding, HeadersMatch};
pub use topology::exchange::{
    Direct, DirectKind, Fanout, FanoutKind, Headers, HeadersKind, Plugin, PluginKind, Topic,
    TopicKind, TypedExchange,
};
pub use topology::pattern::topic_matches;
pub use topology::queue::{
    DynamicQueue, Queue, Replicated, ReplicatedQueue, Temporary, TemporaryQueue, TypedQueue, Work,
    WorkQueue,
};
pub use topology::route::{Route, RouteSpec};
pub use topology::{
    BindingSpec, Change, DeadLetter, Destination, Exchange, ExchangeKind, ExchangeSpec, Found,
    Overflow, QueueDeclaration, QueueKind, QueueOption, QueueSpec, Topology,
};
pub use transport::{Login, Purpose, Transport};
pub use url::{BrokerUrl, Secret};
