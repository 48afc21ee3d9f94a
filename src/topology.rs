//! Exchanges, queues, bindings and routes: as constants that the compiler checks, or at run time.
//!
//! | known when the program is written | known at run time |
//! |---|---|
//! | [`Direct`], [`Fanout`], [`Topic`], [`Headers`], [`Plugin`] | [`ExchangeSpec`] |
//! | [`WorkQueue`], [`ReplicatedQueue`], [`TemporaryQueue`] | [`QueueSpec`], [`DynamicQueue`] |
//! | [`Binding`] | [`BindingSpec`] |
//! | [`Route`] | [`RouteSpec`] |
//!
//! ```
//! use enoki::{Route, Topic, WorkQueue};
//!
//! const SHOP: Topic = Topic::new("shop");
//! const PLACED: Route<u32> = SHOP.route("order.placed.eu");
//! const BILLING: WorkQueue<u32> = WorkQueue::new("billing").bind(&[SHOP.pattern("order.placed.*")]);
//! const _: () = assert!(BILLING.accepts(&PLACED), "no queue gets PLACED");
//! ```

pub use enoki_core::{
    Argument, Arguments, Binding, BindingSpec, Change, DeadLetter, Destination, Direct, DirectKind,
    DynamicQueue, Exchange, ExchangeKind, ExchangeSpec, Fanout, FanoutKind, Found, Headers,
    HeadersKind, HeadersMatch, Overflow, Plugin, PluginKind, Queue, QueueKind, QueueSpec,
    Replicated, ReplicatedQueue, Route, RouteSpec, Temporary, TemporaryQueue, Topic, TopicKind,
    Topology, TypedExchange, TypedQueue, Work, WorkQueue, topic_matches,
};
