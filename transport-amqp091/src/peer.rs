//! What a broker can do, by its product and version.

use enoki_amqp::{
    PeerProperties,
    rabbitmq::{self, major_minor},
};
use enoki_core::{Capability, Peer};

/// The peer with these properties. An unknown product has the capabilities that the protocol itself promises.
pub(crate) fn peer(properties: PeerProperties) -> Peer {
    let product = properties.product.unwrap_or_else(|| "AMQP 0-9-1 broker".to_owned());
    let version = properties.version.unwrap_or_else(|| "of unknown version".to_owned());
    let mut capabilities = PROTOCOL.to_vec();
    if product == rabbitmq::PRODUCT {
        capabilities.extend(RABBITMQ);
        let version = major_minor(&version);
        if version >= (3, 8) {
            capabilities.extend(RABBITMQ_3_8);
        }
        if version >= (4, 3) {
            // Since then only `basic.reject` counts towards a quorum queue's delivery limit.
            capabilities.push(Capability::UncountedRelease);
        }
    }
    Peer::new(product, version, capabilities)
}

/// In the order of [`Capability::ALL`].
const PROTOCOL: &[Capability] = &[
    Capability::DirectExchanges,
    Capability::FanoutExchanges,
    Capability::TopicExchanges,
    Capability::HeadersExchanges,
    Capability::UnroutableDetection,
    Capability::Queues,
    Capability::MessageCount,
    Capability::ConsumerCount,
    Capability::AutoDeleteQueues,
    Capability::RedeliveredFlag,
    Capability::ExclusiveQueues,
    Capability::NestedHeaders,
];

/// What RabbitMQ adds to the protocol: bindings between exchanges, alternate exchanges, arguments of
/// queues.
const RABBITMQ: &[Capability] = &[
    Capability::Exchanges,
    Capability::PlaceKept,
    Capability::DeadLetter,
    Capability::Expiry,
    Capability::LengthLimit,
    Capability::Priority,
];

const RABBITMQ_3_8: &[Capability] = &[
    Capability::ReplicatedQueues,
    Capability::ReplicatedDeliveryCount,
    Capability::DeliveryLimit,
    Capability::SingleActiveConsumer,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(product: &str, version: &str) -> Peer {
        let mut properties = PeerProperties::default();
        properties.set("product", product);
        properties.set("version", version);
        peer(properties)
    }

    #[test]
    fn capabilities_follow_product_and_version() {
        assert!(!of("RabbitMQ", "3.7.28").can(Capability::ReplicatedQueues));
        assert!(of("RabbitMQ", "3.10.8").can(Capability::ReplicatedQueues));
        assert!(!of("RabbitMQ", "4.0.5").can(Capability::UncountedRelease));
        assert!(of("RabbitMQ", "4.3.6").can(Capability::UncountedRelease));
        assert!(of("RabbitMQ", "10.0").can(Capability::UncountedRelease));
        assert!(!of("GarageMQ", "4.3").can(Capability::DeadLetter));
        assert!(of("GarageMQ", "").can(Capability::TopicExchanges));
        assert!(!of("GarageMQ", "").can(Capability::ExchangeBindings));
        assert!(of("RabbitMQ", "3.7.28").can(Capability::Exchanges));
        assert_eq!(peer(PeerProperties::default()).capabilities(), PROTOCOL);
    }
}
