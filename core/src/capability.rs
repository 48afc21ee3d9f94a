//! What a peer can do, asked of the peer that was reached.

use std::fmt;

use crate::printable::printable;

macro_rules! capabilities {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// Something that not every broker can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Capability {
            $($(#[$doc])+ $name,)+
        }

        impl Capability {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in messages and tables: `dead-letter`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

capabilities! {
    /// Exchanges and bindings can be declared.
    Exchanges = "exchanges",
    /// A message that no queue is bound for is reported to its publisher.
    ///
    /// Without it a mandatory publisher needs a queue that is there when it opens, and publishes to
    /// that one alone.
    UnroutableDetection = "unroutable-detection",
    /// Deliveries of each message are counted, on every kind of queue.
    DeliveryCount = "delivery-count",
    /// Deliveries of each message are counted on replicated queues.
    ReplicatedDeliveryCount = "replicated-delivery-count",
    /// A released delivery does not count as an attempt.
    UncountedRelease = "uncounted-release",
    /// What was delivered before is marked as redelivered, however it came back; without it, only
    /// what was requeued is.
    RedeliveredFlag = "redelivered-flag",
    /// A message that is requeued for later waits in the broker, on every kind of queue.
    ///
    /// Without it the consumer holds the delivery: see [`Outcome::RetryAfter`](crate::Outcome).
    DelayedRequeue = "delayed-requeue",
    /// A message that is requeued for later waits in the broker, on replicated queues.
    ReplicatedDelayedRequeue = "replicated-delayed-requeue",
    /// Rejected, expired and dropped messages can be sent to an exchange.
    DeadLetter = "dead-letter",
    /// Messages and queues can expire.
    Expiry = "expiry",
    /// Queues can be limited in length, and refuse what is too much.
    LengthLimit = "length-limit",
    /// Queues can tell priorities apart.
    Priority = "priority",
    /// Queues can be replicated.
    ReplicatedQueues = "replicated-queues",
    /// A queue can belong to one connection.
    ExclusiveQueues = "exclusive-queues",
    /// One consumer of a queue can be active at a time.
    SingleActiveConsumer = "single-active-consumer",
    /// Lists and tables can be header values.
    NestedHeaders = "nested-headers",
    /// The clock can be paused and moved by a test.
    VirtualTime = "virtual-time",
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
    /// A peer of this product and version, which are the peer's own words: control characters in them are
    /// escaped.
    pub fn new(
        product: impl Into<String>,
        version: impl Into<String>,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> Self {
        Self {
            product: printable(product.into()).into_owned(),
            version: printable(version.into()).into_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_s_own_words_act_on_no_terminal() {
        let peer = Peer::new("Rabbit\u{1b}[31m", "4\n.0".to_owned(), []);
        assert_eq!(peer.to_string(), "Rabbit\\u{1b}[31m 4\\n.0");
        assert_eq!((peer.product(), peer.version()), ("Rabbit\\u{1b}[31m", "4\\n.0"));
    }
}
