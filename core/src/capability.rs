//! What a peer can do, asked of the peer that was reached.

use std::fmt;

/// Something that not every broker can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Capability {
    /// Exchanges and bindings can be declared.
    Exchanges,
    /// A message that no queue is bound for is reported to its publisher.
    UnroutableDetection,
    /// Deliveries of each message are counted, on every kind of queue.
    DeliveryCount,
    /// Deliveries of each message are counted on replicated queues.
    ReplicatedDeliveryCount,
    /// A released delivery does not count as an attempt.
    UncountedRelease,
    /// Rejected, expired and dropped messages can be sent to an exchange.
    DeadLetter,
    /// Messages and queues can expire.
    Expiry,
    /// Queues can be limited in length, and refuse what is too much.
    LengthLimit,
    /// Queues can tell priorities apart.
    Priority,
    /// Queues can be replicated.
    ReplicatedQueues,
    /// A queue can belong to one connection.
    ExclusiveQueues,
    /// One consumer of a queue can be active at a time.
    SingleActiveConsumer,
    /// Lists and tables can be header values.
    NestedHeaders,
    /// The clock can be paused and moved by a test.
    VirtualTime,
}

impl Capability {
    /// The name in messages and tables: `dead-letter`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::UnroutableDetection => "unroutable-detection",
            Self::DeliveryCount => "delivery-count",
            Self::ReplicatedDeliveryCount => "replicated-delivery-count",
            Self::UncountedRelease => "uncounted-release",
            Self::DeadLetter => "dead-letter",
            Self::Expiry => "expiry",
            Self::LengthLimit => "length-limit",
            Self::Priority => "priority",
            Self::ReplicatedQueues => "replicated-queues",
            Self::ExclusiveQueues => "exclusive-queues",
            Self::SingleActiveConsumer => "single-active-consumer",
            Self::NestedHeaders => "nested-headers",
            Self::VirtualTime => "virtual-time",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is at the other end of a session, and what they can do.
///
/// ```
/// use enoki_core::{Capability, Peer};
///
/// let peer = Peer::new("RabbitMQ", "4.0.5", [Capability::Exchanges, Capability::DeadLetter]);
/// assert!(peer.can(Capability::DeadLetter));
/// assert_eq!(peer.to_string(), "RabbitMQ 4.0.5");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    product: String,
    version: String,
    capabilities: Vec<Capability>,
}

impl Peer {
    /// A peer of this product and version.
    pub fn new(
        product: impl Into<String>,
        version: impl Into<String>,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> Self {
        Self {
            product: product.into(),
            version: version.into(),
            capabilities: capabilities.into_iter().collect(),
        }
    }

    /// What the peer calls itself.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// The version it names.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it can do this.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// All it can do.
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}
