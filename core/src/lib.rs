//! The core of enoki: topology, messages, settlement and services.
//!
//! It opens no socket and knows no client library: transports do, through the interface in
//! [`transport`]. Programs use it by way of the `enoki` crate.

mod binding;
mod broker;
mod capability;
mod codec;
mod consumer;
mod context;
mod delivery;
mod entrypoint;
mod error;
mod exchange;
mod extract;
mod failure;
mod handler;
mod header_codec;
mod lane;
mod link;
mod message;
mod on_error;
mod outcome;
mod pattern;
mod payload;
mod publisher;
mod queue;
mod route;
mod service;
mod short_str;
mod subscription;
mod topology;
pub mod transport;
mod url;
mod value;

pub use binding::{Binding, HeadersMatch};
pub use broker::{Broker, BrokerOptions};
pub use capability::{Capability, Peer};
pub use codec::{Codec, CodecError, Codecs, Encoded, Json, Visit};
pub use consumer::Consumer;
pub use context::Context;
pub use delivery::{Delivery, Envelope, Settled};
pub use entrypoint::{Entrypoint, Scope};
/// The form of serde that a [`Codec`] is written against.
pub use erased_serde;
pub use error::{Error, ErrorKind, Result};
pub use exchange::{
    Argument, Arguments, Direct, DirectKind, Exchange, Fanout, FanoutKind, Headers, HeadersKind,
    Plugin, PluginKind, Topic, TopicKind, TypedExchange,
};
pub use extract::{Body, FromDelivery, FromState, Incoming, State};
pub use failure::Failure;
pub use handler::{Configured, Handler, IntoOutcome};
#[doc(hidden)]
pub use handler::{ConsumerOptions, Handled, HandlerFuture};
pub use header_codec::{HeaderCodec, PrefixCodec};
pub use message::{Limits, Message, Properties};
pub use on_error::OnError;
pub use outcome::{Attempt, Counted, Outcome};
pub use pattern::topic_matches;
pub use payload::{Payload, Raw};
pub use publisher::{Confirm, Confirmed, Publication, Publisher, PublisherOptions};
pub use queue::{
    DynamicQueue, Queue, Replicated, ReplicatedQueue, Temporary, TemporaryQueue, TypedQueue, Work,
    WorkQueue,
};
pub use route::{Route, RouteSpec};
pub use service::{RunningService, Service};
pub use short_str::ShortStr;
pub use subscription::Subscription;
pub use topology::{
    BindingSpec, DeadLetter, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueKind,
    QueueSpec, Topology,
};
pub use transport::{Purpose, Transport};
pub use url::{BrokerUrl, Secret};
pub use value::{Table, Timestamp, Value};
