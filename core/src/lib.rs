//! The core of enoki: topology, messages, settlement and services.
//!
//! It opens no socket and knows no client library: transports do, through the interface in
//! [`transport`]. Programs use it by way of the `enoki` crate.

mod binding;
mod capability;
mod codec;
mod error;
mod exchange;
mod message;
mod outcome;
mod pattern;
mod payload;
mod queue;
mod route;
mod short_str;
mod topology;
pub mod transport;
mod url;
mod value;

pub use binding::{Binding, HeadersMatch};
pub use capability::{Capability, Peer};
pub use codec::{Codec, CodecError, Codecs, Encoded, Json, Visit};
pub use error::{Error, ErrorKind, Result};
pub use exchange::{
    Argument, Arguments, Direct, DirectKind, Exchange, Fanout, FanoutKind, Headers, HeadersKind,
    Plugin, PluginKind, Topic, TopicKind, TypedExchange,
};
pub use message::{Limits, Message, Properties};
pub use outcome::{Attempt, Counted, Outcome};
pub use pattern::topic_matches;
pub use payload::{Payload, Raw};
pub use queue::{
    DynamicQueue, Queue, Replicated, ReplicatedQueue, Temporary, TemporaryQueue, TypedQueue, Work,
    WorkQueue,
};
pub use route::{Route, RouteSpec};
pub use short_str::ShortStr;
pub use topology::{
    BindingSpec, DeadLetter, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueKind,
    QueueSpec, Topology,
};
pub use transport::{Purpose, Transport};
pub use url::{BrokerUrl, Secret};
pub use value::{Table, Timestamp, Value};
