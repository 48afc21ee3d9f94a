//! The suite that every transport passes, against each broker that the environment names.
//!
//! `dev/brokers` starts them: `eval "$(dev/brokers env)"`.

use std::{process::ExitCode, sync::Arc};

use enoki_conformance::AtUrl;
use enoki_core::{BrokerUrl, Capability, Result, Transport};
use enoki_transport_amqp091::Amqp091Transport;

fn main() -> ExitCode {
    enoki_conformance::main_all(vec![
        Arc::new(rabbitmq("rabbitmq-3", "ENOKI_RABBITMQ_3")),
        Arc::new(rabbitmq("rabbitmq-4", "ENOKI_RABBITMQ_4")),
        Arc::new(
            rabbitmq("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3")
                // Since then only `basic.reject` counts as an attempt.
                .can(&[Capability::UncountedRelease]),
        ),
    ])
}

fn rabbitmq(name: &'static str, variable: &'static str) -> AtUrl {
    AtUrl::new(name, variable, "amqp091", transport).can(&[
        Capability::Exchanges,
        Capability::UnroutableDetection,
        Capability::Queues,
        Capability::MessageCount,
        Capability::ConsumerCount,
        Capability::AutoDeleteQueues,
        Capability::DeliveryLimit,
        Capability::PlaceKept,
        Capability::RedeliveredFlag,
        Capability::ReplicatedDeliveryCount,
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
    Ok(Arc::new(Amqp091Transport::new(url)?))
}
