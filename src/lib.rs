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
//! let receipt = archive.next().await?.expect("what is subscribed to goes on");
//! assert_eq!(receipt.decode::<Receipt>()?.order, 7);
//! receipt.settle(Outcome::Ack);
//! service.stop(Duration::from_secs(5)).await
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
//! | `memory` (default) | `memory:`, `memory://name`, `memory://name?as=rabbitmq-4.0`: a broker in this process, nothing to install |
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

/// The programs of the README run, too: one order in, its receipt out.
#[cfg(all(doctest, feature = "memory"))]
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
