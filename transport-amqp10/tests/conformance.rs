//! The suite that every transport passes, against each broker that the environment names.
//!
//! `dev/brokers` starts them: `eval "$(dev/brokers env)"`.

use std::{process::ExitCode, sync::Arc};

use enoki_conformance::AtUrl;
use enoki_core::{BrokerUrl, Capability, Result, Transport};
use enoki_transport_amqp10::Amqp10Transport;

fn main() -> ExitCode {
    enoki_conformance::main_all(vec![
        Arc::new(rabbitmq("rabbitmq-4", "ENOKI_RABBITMQ_4")),
        Arc::new(rabbitmq("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3").can(&[
            // Since 4.3 every queue counts the deliveries that failed, and only these; and replicated queues
            // requeue for later.
            Capability::DeliveryCount,
            Capability::UncountedRelease,
            Capability::ReplicatedDelayedRequeue,
        ])),
        Arc::new(
            AtUrl::new("artemis", "ENOKI_ARTEMIS", "amqp10", transport)
                // It has no exchanges, and its administrator sets most options of its queues.
                .can(&[
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
                ])
                .without_virtual_hosts(),
        ),
    ])
}

fn rabbitmq(name: &'static str, variable: &'static str) -> AtUrl {
    AtUrl::new(name, variable, "amqp10", transport).can(&[
        Capability::Exchanges,
        Capability::UnroutableDetection,
        Capability::Queues,
        Capability::MessageCount,
        Capability::ConsumerCount,
        Capability::AutoDeleteQueues,
        Capability::DeliveryLimit,
        Capability::PlaceKept,
        Capability::ReplicatedDeliveryCount,
        Capability::RedeliveredFlag,
        Capability::DeadLetter,
        Capability::Expiry,
        Capability::LengthLimit,
        Capability::Priority,
        Capability::ReplicatedQueues,
        Capability::ExclusiveQueues,
        Capability::SingleActiveConsumer,
        Capability::NestedHeaders,
    ])
}

fn transport(url: &BrokerUrl) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(Amqp10Transport::new(url)?))
}
