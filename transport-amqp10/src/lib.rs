//! AMQP 1.0 for enoki, on [fe2o3-amqp](https://docs.rs/fe2o3-amqp): RabbitMQ 4 and its kin.
//!
//! Programs name it by a URL, `amqp10://user:password@host:5672/vhost`, and see nothing else of
//! it. Parameters: `heartbeat` (seconds, 10 by default) and `connection_name` (shown by the
//! broker). Without user and password it logs in as `guest`, without a path to the virtual host
//! `/`. TLS (`amqp10s`) is refused before anything is sent: it is not compiled in.
//!
//! What this transport does that fe2o3-amqp does not:
//!
//! - it declares exchanges, queues and bindings, through RabbitMQ's management node, on the
//!   connection that uses them;
//! - it reads messages itself, with limits: no bytes from the wire end the process;
//! - every wait has an end: the login, credit, a silent broker, closing; and what is under way when a
//!   connection dies is not waited for;
//! - it keeps exactly the prefetch that was asked for, and stops without losing what is under way;
//! - it says who the broker is, and writes frames together.
//!
//! A session is one connection. Each sender and each receiver has an AMQP session of its own, since
//! RabbitMQ before 4.2 answers a link that it refuses by ending the session around it.
//!
//! # One message across protocols
//!
//! What is published here and consumed over AMQP 0-9-1 from RabbitMQ, or the other way round, arrives
//! equal, except for:
//!
//! | | from here to AMQP 0-9-1 | from AMQP 0-9-1 to here |
//! |---|---|---|
//! | header with a list or table, named `x-…` | equal | equal |
//! | header with a list or table, any other name | under the name `x-enoki-header-` and its own | dropped by RabbitMQ |
//! | header with bytes that are UTF-8 | text: RabbitMQ writes both as long strings | equal |
//! | redelivered, of a dead letter | as the broker flags it | always: it says who had the message first on any queue |

mod address;
mod channel;
mod decode;
mod encode;
mod error;
mod headers;
mod management;
mod options;
mod peer;
mod receiver;
mod sender;
mod session;
mod topology;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use enoki_core::{BrokerUrl, Purpose, Result, Transport, transport::Session};
use tokio::time::Instant;

use crate::options::Options;

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
        Ok(Self { options: Arc::new(Options::read(url)?) })
    }
}

#[async_trait]
impl Transport for Amqp10Transport {
    fn name(&self) -> &'static str {
        "amqp10"
    }

    async fn connect(&self, _purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(session::open(self.options.clone(), deadline).await?))
    }
}
