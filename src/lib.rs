//! Broker-agnostic messaging: one service, unchanged, on AMQP 0-9-1, AMQP 1.0 and in
//! memory.
//!
//! A service declares its exchanges and queues once, as constants; it publishes typed messages and
//! handles deliveries. Which broker carries them is a URL, and it means the same on each: what is
//! confirmed, requeued, dead-lettered, and counted as an attempt.
//!
//! ```
//! use std::time::Duration;
//!
//! use enoki::{Body, Failure, Outcome, Publisher, Route, Service, State, Topic, WorkQueue};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct OrderPlaced { id: u32 }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Receipt { order: u32 }
//!
//! const SHOP: Topic = Topic::new("shop");
//! const PLACED: Route<OrderPlaced> = SHOP.route("order.placed.eu");
//! const RECEIPT: Route<Receipt> = SHOP.route("receipt.created");
//! const BILLING: WorkQueue<OrderPlaced> =
//!     WorkQueue::new("billing").bind(&[SHOP.pattern("order.placed.*")]);
//! const ARCHIVE: WorkQueue<Receipt> =
//!     WorkQueue::new("archive").bind(&[SHOP.pattern("receipt.#")]);
//! const _: () = assert!(BILLING.accepts(&PLACED), "no queue gets PLACED");
//! const _: () = assert!(ARCHIVE.accepts(&RECEIPT), "no queue gets RECEIPT");
//!
//! #[derive(Clone)]
//! struct Billing { receipts: Publisher<Receipt> }
//!
//! async fn bill(State(billing): State<Billing>, Body(order): Body<OrderPlaced>) -> Result<(), Failure> {
//!     billing.receipts.publish(&Receipt { order: order.id }).await?; // confirmed and routed
//!     Ok(()) // acknowledged only now
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> enoki::Result<()> {
//! let broker = enoki::connect("memory:").await?; // or amqp091://… or amqp10://…
//! let mut archive = broker.subscribe(&ARCHIVE, 1).await?;
//! let billing = Billing { receipts: broker.publisher(&RECEIPT).await? };
//! let service = Service::new("billing", broker.clone())
//!     .state(billing)
//!     .consume(&BILLING, bill)
//!     .start()
//!     .await?;
//!
//! broker.publisher(&PLACED).await?.publish(&OrderPlaced { id: 7 }).await?;
//! let receipt = archive.next().await?.expect("a subscription goes on until it is stopped");
//! assert_eq!(receipt.decode::<Receipt>()?.order, 7);
//! receipt.settle(Outcome::Ack);
//! service.stop(Duration::from_secs(5)).await
//! # }
//! ```
//!
//! # Where things are
//!
//! The names of every day are at the root. Everything has its place in the module of its task:
//!
//! | task | module |
//! |---|---|
//! | reach a broker: options, TLS, logins, health | [`broker`] |
//! | publish messages | [`publish`] |
//! | handle deliveries | [`consume`] |
//! | start, watch and stop a service | [`service`] |
//! | declare exchanges, queues and bindings | [`topology`] |
//! | choose an encoding | [`codec`] |
//! | read properties and headers | [`message`] |
//! | follow a call from service to service | [`context`] |
//! | test handlers and services | [`testing`], `mock` |
//! | write a transport | [`transport`] |
//!
//! Some names are also those of other crates, such as axum's `State` and `Body`: [`consume`] shows an
//! import that does not collide. The repository has a page for each task, in `docs/`.
//!
//! # Features
//!
//! A feature adds, and changes nothing else: the URL decides which transport is used, and a value that the
//! program gives decides the encoding.
//!
//! | feature | adds |
//! |---|---|
//! | `memory` (default) | `memory:`, `memory://name`, `memory://name?as=rabbitmq-4.0`: a broker in this process, nothing to install |
//! | `amqp091` | `amqp091://`: RabbitMQ and others, over AMQP 0-9-1 |
//! | `amqp10` | `amqp10://`: RabbitMQ 4 and later, and queues of Artemis, over AMQP 1.0 |
//! | `tls` | `amqp091s://`, `amqp10s://`: the same over TLS, with [`broker::Tls`] to say whom to trust |
//! | `msgpack` | `codec::MessagePack`, as kombu and nameko write and read it |
//! | `postcard` | `codec::Postcard`, for programs built from the same types |
//! | `bincode` | `codec::Bincode`, for peers that use it already; the crate is no longer maintained |
//! | `compression` | `codec::Compression`: compressed bodies, as kombu and nameko write and read them |
//! | `mock` | `mock`: mocks of the traits, by mockall, for tests |
//!
//! JSON, text and raw bytes are always there.

// docs.rs shows which feature adds what.
#![cfg_attr(docsrs, feature(doc_cfg))]
// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

/// The README and the pages, with all features: their programs run.
#[cfg(all(
    doctest,
    feature = "memory",
    feature = "amqp091",
    feature = "amqp10",
    feature = "tls",
    feature = "msgpack",
    feature = "compression"
))]
mod book;
pub mod broker;
pub mod codec;
mod connect;
pub mod consume;
pub mod context;
pub mod message;
pub mod publish;
pub mod service;
pub mod topology;
pub mod transport;

pub use connect::{connect, connect_with};
// The names of every day. Each of these is in the module of its task, too.
#[doc(no_inline)]
pub use enoki_core::{
    Body, Broker, Failure, Outcome, Publisher, Route, Service, State, Topic, WorkQueue,
};
pub use enoki_core::{Error, ErrorKind, Result, testing};

#[cfg(feature = "mock")]
pub use enoki_core::mock;
#[cfg(feature = "amqp10")]
pub use enoki_transport_amqp10 as amqp10;
#[cfg(feature = "amqp091")]
pub use enoki_transport_amqp091 as amqp091;
#[cfg(feature = "memory")]
pub use enoki_transport_memory as memory;
