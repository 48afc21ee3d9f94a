//! AMQP 0-9-1 for enoki, on [lapin](https://docs.rs/lapin): RabbitMQ and brokers like it.
//!
//! A program names it by a URL, `amqp091://user:password@host:5672/vhost`, and sees nothing else of it. Parameters:
//! `heartbeat` (seconds, 10 by default) and `connection_name` (shown by the broker). Without user and password it logs
//! in as `guest`; without a path it uses the virtual host `/`. With TLS the scheme is `amqp091s`, and the port 5671 by
//! default; without the feature `tls` that is refused before anything is sent. [`Settings`] name the authorities to
//! trust, and whether to log in by a certificate.
//!
//! This transport does what lapin does not:
//!
//! - It publishes beside lapin, on the same connection: many messages by one system call. Of hundreds of messages that
//!   are not confirmed yet it tells which one was returned as unroutable.
//! - It acknowledges a row of deliveries by one frame, without waiting for the socket.
//! - Every wait has an end: the login, a broker that blocks or is silent, closing.
//! - A refused publish or declaration costs its channel, not the connection.
//! - It tells the product and version of the broker, and what differs when a declaration does not match.
//! - A message that lapin cannot read, or that would end the process, is rejected, with the reason in the log. The
//!   messages around it are not touched.
//! - lapin's own thread and tasks log nothing, since they would log returned bodies and the password.
//!
//! A session is one connection of lapin's. Automatic recovery is off: a session ends once, and does not begin again.

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod connection;
mod error;
mod headers;
mod io;
mod limits;
mod options;
mod peer;
mod proto;
mod publishing;
mod receiver;
mod sender;
mod session;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;
use enoki_amqp::Options;
use enoki_core::{
    BrokerUrl, Purpose, Result, Transport,
    transport::{Session, Settings},
};
use tokio::time::Instant;

use crate::session::Amqp091Session;

/// The URL schemes of this transport.
pub const SCHEMES: &[&str] = &["amqp091", "amqp091s"];

/// AMQP 0-9-1, as a URL describes it.
#[derive(Debug)]
pub struct Amqp091Transport {
    options: Arc<Options>,
}

impl Amqp091Transport {
    /// Reads the URL. Nothing is sent yet; a URL with a part that has no meaning is an error.
    ///
    /// ```
    /// use enoki_core::BrokerUrl;
    /// use enoki_transport_amqp091::Amqp091Transport;
    ///
    /// let url = BrokerUrl::parse("amqp091://shop:s3cret@localhost/eu?heartbeat=10")?;
    /// let transport = Amqp091Transport::new(&url)?;
    /// assert!(!format!("{transport:?}").contains("s3cret"));
    /// # Ok::<(), enoki_core::Error>(())
    /// ```
    pub fn new(url: &BrokerUrl) -> Result<Self> {
        Self::with_settings(url, &Settings::default())
    }

    /// Like [`new`](Self::new), with settings that a URL does not have.
    pub fn with_settings(url: &BrokerUrl, settings: &Settings) -> Result<Self> {
        Ok(Self { options: Arc::new(Options::read(url, "amqp091", settings)?) })
    }
}

#[async_trait]
impl Transport for Amqp091Transport {
    fn name(&self) -> &'static str {
        "amqp091"
    }

    async fn connect(&self, _purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(Amqp091Session::open(self.options.clone(), deadline).await?))
    }
}
