//! AMQP 1.0 for enoki, on [fe2o3-amqp](https://docs.rs/fe2o3-amqp): RabbitMQ 4, and queues of Apache
//! ActiveMQ Artemis.
//!
//! Programs name it by a URL, `amqp10://user:password@host:5672/vhost`, and need nothing else of it.
//! Parameters: `heartbeat` (seconds, 10 by default) and `connection_name` (shown by the broker). Without user
//! and password it logs in as `guest`, without a path to the virtual host `/`. With TLS it is `amqp10s://…`,
//! on port 5671; without the feature `tls` that is refused, before anything is sent. [`Settings`] say whom to
//! trust, and whether to log in by a certificate.
//!
//! This transport adds to fe2o3-amqp:
//!
//! - it declares exchanges, queues and bindings through RabbitMQ's management node, on the connection that
//!   uses them; and queues through Artemis's management address;
//! - it reads messages itself, with limits, and ends the connection at any other frame that fe2o3-amqp could
//!   fail at: no bytes from the broker end the process. A message that cannot be read is rejected, with the
//!   reason in the log; the other messages are not affected;
//! - every wait has an end: the login, credit, a silent broker, closing. When a connection ends, no answer on
//!   it is waited for;
//! - a receiver has exactly the prefetch that was asked for, and stops without losing a delivery that is
//!   under way;
//! - it tells which broker was reached, and writes many frames by one system call.
//!
//! A session is one connection, and more when one is full. Each sender and each receiver has an AMQP session
//! of its own, since RabbitMQ before 4.2 answers a link that it refuses by ending the session around it.
//!
//! # Artemis
//!
//! It has no exchanges: declaring one fails with an error that names it and the broker. A queue may be
//! durable or not, be deleted with its last consumer, and have one active consumer at a time. Any other
//! option is refused, since Artemis keeps it as a setting for patterns of addresses. The user needs the
//! permission to `manage` the address `activemq.management`. Artemis has no virtual hosts, so the path of the
//! URL has no effect.
//!
//! # One message across protocols
//!
//! A message that is published here and consumed over AMQP 0-9-1 from RabbitMQ arrives equal. So does one in
//! the other direction, except for lists and tables in headers whose names do not begin with `x-`, which
//! RabbitMQ drops. `docs/crossing.md` in the repository has the table, and the place of each part on the
//! wire.
//!
//! Over AMQP 1.0 a dead letter is marked as redelivered if any queue had delivered it before; over AMQP 0-9-1
//! only if this queue had.

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod address;
mod connection;
mod connections;
mod error;
mod headers;
mod io;
mod limits;
mod management;
mod management_link;
mod options;
mod peer;
mod proto;
mod publishing;
mod receiver;
mod sender;
mod session;
mod session_pool;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;
use enoki_amqp::Options;
use enoki_core::{
    BrokerUrl, Purpose, Result, Transport,
    transport::{Session, Settings},
};
use tokio::time::Instant;

use crate::session::Amqp10Session;

/// The URL schemes of this transport.
pub const SCHEMES: &[&str] = &["amqp10", "amqp10s"];

/// AMQP 1.0, as a URL describes it.
#[derive(Debug)]
pub struct Amqp10Transport {
    options: Arc<Options>,
}

impl Amqp10Transport {
    /// Reads the URL. Nothing is sent yet; what the URL cannot mean is an error here.
    ///
    /// ```
    /// use enoki_core::BrokerUrl;
    /// use enoki_transport_amqp10::Amqp10Transport;
    ///
    /// let url = BrokerUrl::parse("amqp10://shop:s3cret@localhost/eu?heartbeat=10")?;
    /// let transport = Amqp10Transport::new(&url)?;
    /// assert!(!format!("{transport:?}").contains("s3cret"));
    /// # Ok::<(), enoki_core::Error>(())
    /// ```
    pub fn new(url: &BrokerUrl) -> Result<Self> {
        Self::with_settings(url, &Settings::default())
    }

    /// Like [`new`](Self::new), with settings that the program gives beside the URL.
    pub fn with_settings(url: &BrokerUrl, settings: &Settings) -> Result<Self> {
        Ok(Self { options: Arc::new(Options::read(url, "amqp10", settings)?) })
    }
}

#[async_trait]
impl Transport for Amqp10Transport {
    fn name(&self) -> &'static str {
        "amqp10"
    }

    async fn connect(&self, _purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(Amqp10Session::open(self.options.clone(), deadline).await?))
    }
}
