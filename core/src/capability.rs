//! What a peer can do, asked of the peer that was reached.

use std::fmt;

use crate::printable::printable;

macro_rules! capabilities {
    ($($(#[$doc:meta])+ $name:ident = $text:literal $(: [$($part:ident),+ $(,)?])?,)+) => {
        /// Something that not every broker can do.
        ///
        /// Some are sets of others: [`parts`](Self::parts). A peer [can](Peer::can) a set when it can each
        /// part of it.
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

            /// The capabilities that this one is a set of; none where it is not a set.
            ///
            /// ```
            /// use enoki_core::Capability;
            ///
            /// let expiry = Capability::Expiry.parts();
            /// assert!(expiry.contains(&Capability::QueueExpiry));
            /// assert!(Capability::QueueExpiry.parts().is_empty());
            /// ```
            pub const fn parts(self) -> &'static [Self] {
                match self {
                    $(Self::$name => &[$($(Self::$part),+)?],)+
                }
            }
        }
    };
}

capabilities! {
    /// Exchanges of the four kinds of AMQP 0-9-1, and bindings, can be declared: a set.
    Exchanges = "exchanges": [
        DirectExchanges,
        FanoutExchanges,
        TopicExchanges,
        HeadersExchanges,
        ExchangeBindings,
        AlternateExchanges,
        AutoDeleteExchanges,
    ],
    /// Direct exchanges can be declared, and queues bound to them.
    DirectExchanges = "direct-exchanges",
    /// Fanout exchanges can be declared, and queues bound to them.
    FanoutExchanges = "fanout-exchanges",
    /// Topic exchanges can be declared, and queues bound to them.
    TopicExchanges = "topic-exchanges",
    /// Headers exchanges can be declared, and queues bound to them.
    HeadersExchanges = "headers-exchanges",
    /// An exchange can be bound to another exchange.
    ExchangeBindings = "exchange-bindings",
    /// An exchange can send the messages that it cannot route to another exchange.
    AlternateExchanges = "alternate-exchanges",
    /// An exchange can go when its last binding goes.
    AutoDeleteExchanges = "auto-delete-exchanges",
    /// A message that no queue is bound for is reported to its publisher.
    ///
    /// Without it a mandatory publisher needs a queue that is there when it opens, and publishes to
    /// that one alone.
    UnroutableDetection = "unroutable-detection",
    /// Queues can be declared, looked for, purged and deleted.
    Queues = "queues",
    /// The broker says how many messages are ready in a queue.
    MessageCount = "message-count",
    /// The broker says how many consumers a queue has.
    ConsumerCount = "consumer-count",
    /// A queue can go when its last consumer goes.
    AutoDeleteQueues = "auto-delete-queues",
    /// Deliveries of each message are counted, on every kind of queue.
    DeliveryCount = "delivery-count",
    /// Deliveries of each message are counted on replicated queues.
    ReplicatedDeliveryCount = "replicated-delivery-count",
    /// A queue that counts deliveries can have a limit of failed ones.
    DeliveryLimit = "delivery-limit",
    /// A released delivery does not count as an attempt.
    UncountedRelease = "uncounted-release",
    /// What was delivered before is marked as redelivered, however it came back; without it, only
    /// what was requeued is.
    RedeliveredFlag = "redelivered-flag",
    /// A message that is requeued or released has its place in the queue again, before the messages that
    /// came after it. On queues that are not replicated; for the others see
    /// [`Outcome::Requeue`](crate::Outcome::Requeue).
    PlaceKept = "place-kept",
    /// A message that is requeued for later waits in the broker, on every kind of queue.
    ///
    /// Without it the consumer holds the delivery: see [`Outcome::RetryAfter`](crate::Outcome).
    DelayedRequeue = "delayed-requeue",
    /// A message that is requeued for later waits in the broker, on replicated queues.
    ReplicatedDelayedRequeue = "replicated-delayed-requeue",
    /// A queue can send its rejected, expired and dropped messages to an exchange: a set.
    DeadLetter = "dead-letter": [DeadLetterRejected, DeadLetterExpired, DeadLetterDropped],
    /// A queue can send its rejected messages to an exchange.
    DeadLetterRejected = "dead-letter-rejected",
    /// A queue can send its expired messages to an exchange.
    DeadLetterExpired = "dead-letter-expired",
    /// A queue can send the messages that it drops because it is full to an exchange.
    DeadLetterDropped = "dead-letter-dropped",
    /// Messages and queues can expire: a set.
    Expiry = "expiry": [MessageExpiry, QueueMessageExpiry, QueueExpiry],
    /// A message can say how long it waits in a queue.
    MessageExpiry = "message-expiry",
    /// A queue can say how long messages wait in it.
    QueueMessageExpiry = "queue-message-expiry",
    /// A queue that is not used can expire.
    QueueExpiry = "queue-expiry",
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

/// The broker at the other end of a session, and what it can do.
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
    /// escaped. A set among the capabilities stands for its parts, and a peer with all parts of a set has
    /// the set.
    pub fn new(
        product: impl Into<String>,
        version: impl Into<String>,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> Self {
        Self {
            product: printable(product.into()).into_owned(),
            version: printable(version.into()).into_owned(),
            capabilities: complete(capabilities),
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

    /// All it can do, in the order of [`Capability::ALL`].
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }
}

/// With the parts of each set, and with each set that is whole.
fn complete(given: impl IntoIterator<Item = Capability>) -> Vec<Capability> {
    let mut given: Vec<Capability> = given.into_iter().collect();
    let parts: Vec<_> = given.iter().flat_map(|set| set.parts()).copied().collect();
    given.extend(parts);
    let has = |capability: &Capability| match capability.parts() {
        [] => given.contains(capability),
        parts => parts.iter().all(|part| given.contains(part)),
    };
    Capability::ALL.iter().copied().filter(has).collect()
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
    fn a_set_is_its_parts() {
        let can = |given: &[Capability]| Peer::new("x", "1", given.iter().copied());
        let whole = can(&[Capability::DeadLetter]);
        assert!(Capability::DeadLetter.parts().iter().all(|part| whole.can(*part)));
        let parts = can(Capability::DeadLetter.parts());
        assert_eq!(parts, whole);
        let one = can(&[Capability::DeadLetterRejected]);
        assert!(one.can(Capability::DeadLetterRejected) && !one.can(Capability::DeadLetter));
        assert_eq!(can(Capability::ALL).capabilities(), Capability::ALL);
        for set in Capability::ALL {
            assert!(set.parts().iter().all(|part| part.parts().is_empty()), "{set} has sets in it");
        }
    }

    #[test]
    fn a_peer_s_own_words_act_on_no_terminal() {
        let peer = Peer::new("Rabbit\u{1b}[31m", "4\n.0".to_owned(), []);
        assert_eq!(peer.to_string(), "Rabbit\\u{1b}[31m 4\\n.0");
        assert_eq!((peer.product(), peer.version()), ("Rabbit\\u{1b}[31m", "4\\n.0"));
    }
}
