//! To handle deliveries: what a handler takes, what it returns, and what becomes of the delivery.
//!
//! A handler is an async function. Its arguments come out of the delivery: [`Body`], [`State`],
//! [`Attempt`], [`Envelope`], [`Provided`], or a type of the program that implements
//! [`FromDelivery`]. What it returns settles the delivery: `Ok(())` acknowledges it, an [`Outcome`]
//! says it, and a [`Failure`] leaves it to [`OnError`]. [`Handler`] has the methods that change how a
//! function is run, such as `concurrency`. Without a service,
//! [`Broker::subscribe`](crate::Broker::subscribe) gives a [`Subscription`].
//!
//! # Beside axum
//!
//! `State`, `Body` and `Handler` are also names of axum's. In a file that needs both, name this module
//! in place of the types:
//!
//! ```
//! use enoki::{consume, consume::Handler as _};
//!
//! # #[derive(Clone)] struct Billing;
//! async fn bill(
//!     consume::State(billing): consume::State<Billing>,
//!     consume::Body(order): consume::Body<u32>,
//! ) -> consume::Outcome {
//! #   let _ = (billing, order);
//!     consume::Outcome::Ack
//! }
//! # const QUEUE: enoki::WorkQueue<u32> = enoki::WorkQueue::new("billing");
//! # let _ = |broker| enoki::Service::new("shop", broker).state(Billing).consume(&QUEUE, bill.concurrency(4));
//! ```
//!
//! The same holds for [`codec::Json`](crate::codec::Json) and
//! [`service::Extension`](crate::service::Extension).

pub use enoki_core::{
    Attempt, Body, Configured, Consumer, ConsumerHealth, Counted, DelayedBy, Delivery, Envelope,
    Failure, FromDelivery, FromState, Handler, Incoming, IntoOutcome, OnCancel, OnError, Outcome,
    Provided, Provider, Retry, Settled, State, Subscription, WorkerInfo,
};
