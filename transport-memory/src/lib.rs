//! The in-memory broker of enoki: a broker, not a channel.
//!
//! It is the reference for what the same program means on RabbitMQ: exchanges of all four kinds,
//! bindings, prefetch, requeueing to the message's place, delivery counts and limits, dead letters
//! with their history, expiry, length limits, priorities, exclusive and temporary queues. Its clock
//! is tokio's, so that a test which pauses it has a broker whose hours pass in no time.
//!
//! Programs reach it by a URL, through the `enoki` crate: `memory:` is the broker without a name,
//! and `memory://a` the one named `a`. Two connections to one name share a broker, within the
//! process. Tests that want a broker of their own take [`MemoryTransport::isolated`].
//!
//! It is like one version of RabbitMQ, the newest unless the URL says another
//! (`memory://a?as=rabbitmq-4.0`): it promises no more than that one does over AMQP 0-9-1, and
//! refuses what that one refuses. See [`Version`].
//!
//! What it does not do: keep anything when the process ends, replicate (a replicated queue is one
//! copy, as on a cluster of one node), or check `user_id`, for there are no logins.

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod broker;
mod connection;
mod error;
mod fault;
mod receiver;
mod registry;
mod sender;
mod session;
mod topology;
mod version;

use std::sync::Arc;

use async_trait::async_trait;
use enoki_core::{BrokerUrl, Purpose, Result, Transport, transport::Session};
use tokio::time::Instant;

use crate::{broker::Broker, session::MemorySession};
pub use crate::{fault::Fault, version::Version};

/// The schemes of the URLs that [`MemoryTransport::new`] takes.
pub const SCHEMES: &[&str] = &["memory"];

/// The way to a broker in this process.
///
/// ```
/// use enoki_core::{BrokerUrl, Purpose, QueueSpec, Transport, transport::Change};
/// use enoki_transport_memory::MemoryTransport;
/// use tokio::time::{Duration, Instant};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki_core::Result<()> {
/// let transport = MemoryTransport::new(&BrokerUrl::parse("memory://shop")?)?;
/// let deadline = Instant::now() + Duration::from_secs(1);
/// let session = transport.connect(Purpose::Consume, deadline).await?;
/// session.apply(&Change::DeclareQueue(QueueSpec::new("billing")?)).await?;
///
/// // Another connection to the same name finds it.
/// let other = MemoryTransport::new(&BrokerUrl::parse("memory://shop")?)?;
/// let other = other.connect(Purpose::Consume, deadline).await?;
/// other.apply(&Change::VerifyQueue(QueueSpec::new("billing")?)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    broker: Arc<Broker>,
}

impl MemoryTransport {
    /// The way to the broker of this name in this process; the first to ask creates it.
    ///
    /// It lives until the process ends, as a broker outlives its connections. The URL has a scheme
    /// and a name, and may say what the broker is like: `memory:`, `memory://a`,
    /// `memory://a?as=rabbitmq-4.0`. A name whose broker is like another [`Version`] already is a
    /// configuration error.
    pub fn new(url: &BrokerUrl) -> Result<Self> {
        let (name, version) = registry::name(url)?;
        Ok(Self { broker: registry::broker(name, version)? })
    }

    /// The way to a new broker of this process's own, for one test, like the newest version.
    ///
    /// It lives as long as this value, its clones and their sessions.
    pub fn isolated() -> Self {
        Self::isolated_as(Version::default())
    }

    /// Like [`MemoryTransport::isolated`], and like another version.
    pub fn isolated_as(version: Version) -> Self {
        Self { broker: Arc::new(Broker::like(version)) }
    }

    /// Breaks a promise of the broker, for all its connections.
    ///
    /// For tests of tests: a suite that passes on a broken broker proves nothing.
    #[must_use]
    pub fn with_fault(self, fault: Fault) -> Self {
        self.broker.with(|state, _| state.faults.set(fault));
        self
    }

    /// Ends every session of this broker as if the network had.
    ///
    /// Unsettled deliveries go back to their queues, exclusive queues go, and the ends of the
    /// sessions are transient errors of the kind [`Connection`](enoki_core::ErrorKind::Connection).
    /// New sessions can be opened at once.
    pub fn drop_connections(&self) {
        self.broker.drop_sessions();
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn connect(&self, _purpose: Purpose, _deadline: Instant) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(MemorySession::open(Arc::clone(&self.broker))))
    }
}
