//! The handle on a broker, and what a connection needs to know: options, TLS, logins, health.
//!
//! ```
//! use std::time::Duration;
//!
//! use enoki::broker::{BrokerOptions, Capability};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> enoki::Result<()> {
//! let options = BrokerOptions::new().connect_timeout(Duration::from_secs(5));
//! let broker = enoki::connect_with("memory://options", options).await?;
//! broker.require([Capability::DeadLetter])?; // at start, and not at the first message
//! # Ok(())
//! # }
//! ```

pub use enoki_core::{
    Backoff, Broker, BrokerHealth, BrokerOptions, BrokerUrl, Capability, Health, Login, Peer,
    Secret, Tls,
};
