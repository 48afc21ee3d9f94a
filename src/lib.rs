//! Broker-agnostic messaging: one service, unchanged, on AMQP 0-9-1, AMQP 1.0 and in
//! memory.
//!
//! A service declares its exchanges and queues once, as constants; it publishes typed messages and
//! handles deliveries. Which broker carries them is a URL, and it means the same on each: what is
//! confirmed, requeued, dead-lettered, and counted as an attempt.
//!
//! ```
//! use enoki::{Body, Failure, Publisher, Route, Service, State, Topic, WorkQueue};
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
//! const _: () = assert!(BILLING.accepts(&PLACED), "nobody consumes PLACED");
//!
//! #[derive(Clone)]
//! struct Billing { receipts: Publisher<Receipt> }
//!
//! async fn bill(State(billing): State<Billing>, Body(order): Body<OrderPlaced>) -> Result<(), Failure> {
//!     billing.receipts.publish(&Receipt { order: order.id }).await?; // confirmed and routed
//!     Ok(()) // acknowledged only now
//! }
//!
//! # async fn shutdown_signal() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> enoki::Result<()> {
//! let broker = enoki::connect("memory:").await?; // or amqp091://… or amqp10://…
//! broker.declare(&enoki::Topology::new().with_queue(&BILLING).with_queue(&ARCHIVE)).await?;
//! let billing = Billing { receipts: broker.publisher(&RECEIPT).await? };
//! broker.publisher(&PLACED).await?.publish(&OrderPlaced { id: 7 }).await?;
//! Service::new("billing", broker)
//!     .state(billing)
//!     .consume(&BILLING, bill)
//!     .run_until(shutdown_signal())
//!     .await
//! # }
//! ```
//!
//! # Features
//!
//! A feature adds, and changes nothing else: which transport is used is the URL's decision, which
//! encoding a value that the program gives.
//!
//! | feature | adds |
//! |---|---|
//! | `memory` (default) | `memory:`, `memory://name`: a broker in this process, nothing to install |
//! | `amqp091` | `amqp091://`: RabbitMQ and others, over AMQP 0-9-1 |
//! | `amqp10` | `amqp10://`: RabbitMQ 4 and later, over AMQP 1.0 |
//! | `tls` | `amqp091s://`, `amqp10s://`: the same over TLS, with [`Tls`] to say whom to trust |
//! | `msgpack` | `MessagePack`, as kombu and nameko write and read it |
//! | `postcard` | `Postcard`, for programs built from the same types |
//! | `bincode` | `Bincode`, for peers that speak it already; the crate is no longer maintained |
//! | `compression` | `Compression`: bodies that travel compressed, as kombu and nameko write and read them |
//! | `mock` | `enoki::mock`: mocks of the traits, by mockall, for tests |
//!
//! [`Json`], [`Text`] and [`Raw`] bytes are always there, and so are the tools for [`testing`].

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod connect;

/// The example of the README compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those for who comes from nameko, and they run.
#[cfg(all(doctest, feature = "memory", feature = "msgpack", feature = "compression"))]
#[doc = include_str!("../docs/coming-from-nameko.md")]
struct ComingFromNameko;

pub use connect::{connect, connect_with};
pub use enoki_core::*;

#[cfg(feature = "amqp10")]
pub use enoki_transport_amqp10 as amqp10;
#[cfg(feature = "amqp091")]
pub use enoki_transport_amqp091 as amqp091;
#[cfg(feature = "memory")]
pub use enoki_transport_memory as memory;
