//! To publish messages: each `Ok` means that the broker has the message and that a queue got it.
//!
//! [`Broker::publisher`](crate::Broker::publisher) makes a [`Publisher`] for one route or queue.
//! [`PublisherOptions`] change it for all its messages, [`Publication`] for one message,
//! [`RetryPolicy`] says which failures are tried again.
//!
//! ```
//! use enoki::{ErrorKind, Route, Topic};
//!
//! const SHOP: Topic = Topic::new("shop");
//! const PLACED: Route<u32> = SHOP.route("order.placed");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> enoki::Result<()> {
//! let broker = enoki::connect("memory://publish").await?;
//! let orders = broker.publisher(&PLACED).await?;
//! // No queue is bound for it, and the publisher is told so.
//! let error = orders.publish(&7).await.expect_err("no queue gets it");
//! assert_eq!(error.kind(), ErrorKind::Unroutable);
//! # Ok(())
//! # }
//! ```

pub use enoki_core::{Confirm, Confirmed, Publication, Publisher, PublisherOptions, RetryPolicy};
