//! The capabilities of a broker, by its product and version.

use enoki_amqp::{
    PeerProperties,
    rabbitmq::{self, major_minor},
};
use enoki_core::{Capability, Error, ErrorKind, Peer, Result};

/// The peer that describes itself so, or why it cannot be used.
///
/// An unknown broker has no capabilities: AMQP 1.0 itself has neither exchanges nor declarations.
pub(crate) fn peer(properties: PeerProperties, subject: String) -> Result<Peer> {
    let product = properties.product.unwrap_or_else(|| "AMQP 1.0 broker".to_owned());
    let version = properties.version.unwrap_or_else(|| "of unknown version".to_owned());
    let mut capabilities = Vec::new();
    if product == rabbitmq::PRODUCT {
        let number = major_minor(&version);
        if number < (4, 0) {
            return Err(unfit(subject, &format!("RabbitMQ {version}")));
        }
        capabilities.extend(RABBITMQ_4);
        if number >= (4, 3) {
            // Since 4.3 every queue counts the deliveries that failed, and only these.
            capabilities.extend([Capability::DeliveryCount, Capability::UncountedRelease]);
            // Classic queues requeue at once, whatever delay was asked for.
            capabilities.push(Capability::ReplicatedDelayedRequeue);
        }
    }
    if product == ARTEMIS {
        capabilities.extend(ARTEMIS_2);
    }
    Ok(Peer::new(product, version, capabilities))
}

/// How a broker writes and reads messages, where brokers differ.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dialect {
    /// It is RabbitMQ: addresses are paths, and properties that AMQP 1.0 does not have go where RabbitMQ puts
    /// them.
    pub(crate) rabbitmq: bool,
    /// It is Artemis: some names mean more than a queue.
    pub(crate) artemis: bool,
    /// The header's delivery-count counts failed deliveries on every queue.
    pub(crate) counts: bool,
    /// The broker turns the reply-to address into a queue's name for consumers on AMQP 0-9-1, and back.
    pub(crate) converts_reply_to: bool,
}

/// How this peer writes and reads messages.
pub(crate) fn dialect(peer: &Peer) -> Dialect {
    let rabbitmq = peer.product() == rabbitmq::PRODUCT;
    Dialect {
        rabbitmq,
        artemis: is_artemis(peer),
        counts: peer.can(Capability::DeliveryCount),
        // Seen in 4.3 and not in 4.0. A bare name arrives as it is everywhere.
        converts_reply_to: rabbitmq && major_minor(peer.version()) >= (4, 3),
    }
}

/// The error for RabbitMQ before 4.0, with or without its plugin.
pub(crate) fn unfit(subject: String, who: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "connect to")
        .on(subject)
        .because(format!(
            "{who} speaks AMQP 1.0 only through a plugin that declares nothing and confirms messages that \
             it cannot route"
        ))
        .remedy("use amqp091:// with this broker, or RabbitMQ 4.0 or later")
}

/// Whether it is Apache ActiveMQ Artemis.
pub(crate) fn is_artemis(peer: &Peer) -> bool {
    peer.product() == ARTEMIS
}

const ARTEMIS: &str = "apache-activemq-artemis";

/// Seen to work on Artemis 2.44. Dead letters, limits and expiry of queues are set by its administrator, for
/// patterns of addresses. In the order of [`Capability::ALL`].
const ARTEMIS_2: &[Capability] = &[
    Capability::Queues,
    Capability::MessageCount,
    Capability::ConsumerCount,
    Capability::AutoDeleteQueues,
    Capability::DeliveryCount,
    Capability::UncountedRelease,
    Capability::PlaceKept,
    Capability::MessageExpiry,
    Capability::SingleActiveConsumer,
    Capability::NestedHeaders,
];

const RABBITMQ_4: &[Capability] = &[
    Capability::Exchanges,
    Capability::UnroutableDetection,
    Capability::Queues,
    Capability::MessageCount,
    Capability::ConsumerCount,
    Capability::AutoDeleteQueues,
    Capability::ReplicatedDeliveryCount,
    Capability::DeliveryLimit,
    Capability::RedeliveredFlag,
    Capability::PlaceKept,
    Capability::DeadLetter,
    Capability::Expiry,
    Capability::LengthLimit,
    Capability::Priority,
    Capability::ReplicatedQueues,
    Capability::ExclusiveQueues,
    Capability::SingleActiveConsumer,
    Capability::NestedHeaders,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(product: &str, version: &str) -> Result<Peer> {
        let mut properties = PeerProperties::default();
        properties.set("product", product);
        properties.set("version", version);
        peer(properties, "host".to_owned())
    }

    #[test]
    fn capabilities_follow_product_and_version() {
        assert!(of("RabbitMQ", "4.0.5").unwrap().can(Capability::Exchanges));
        assert!(!of("RabbitMQ", "4.0.5").unwrap().can(Capability::UncountedRelease));
        assert!(!dialect(&of("RabbitMQ", "4.0.5").unwrap()).counts);
        assert!(dialect(&of("RabbitMQ", "4.3.6").unwrap()).counts);
        assert!(of("RabbitMQ", "4.3.6").unwrap().can(Capability::UncountedRelease));
        assert!(of("RabbitMQ", "10.0").unwrap().can(Capability::UncountedRelease));
        assert!(!of("RabbitMQ", "4.2.5").unwrap().can(Capability::ReplicatedDelayedRequeue));
        assert!(of("RabbitMQ", "4.3.6").unwrap().can(Capability::ReplicatedDelayedRequeue));
        let artemis = of("apache-activemq-artemis", "2.44.0").unwrap();
        assert_eq!(artemis.capabilities(), ARTEMIS_2);
        assert!(dialect(&artemis).artemis && dialect(&artemis).counts);
        assert!(!artemis.can(Capability::Exchanges));
        assert_eq!(peer(PeerProperties::default(), String::new()).unwrap().capabilities(), []);
    }

    #[test]
    fn the_plugin_of_old_versions_is_refused_with_the_way_out() {
        for version in ["3.10.8", "3.13.7", ""] {
            let error = of("RabbitMQ", version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("amqp091://"), "{error}");
        }
    }
}
