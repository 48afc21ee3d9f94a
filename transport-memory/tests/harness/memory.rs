//! A broker for each case, and a clock that moves only when every task waits.

use std::sync::Arc;

use async_trait::async_trait;
use enoki_conformance::Harness;
use enoki_core::{Capability, Result, Transport};
use enoki_transport_memory::{Fault, MemoryTransport, Version};

/// The memory broker, like one version and whole or with a fault.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Version, pub(crate) Option<Fault>);

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        match self.0 {
            Version::RabbitMq3_10 => "memory-3.10",
            Version::RabbitMq4_0 => "memory-4.0",
            Version::Reference => "memory-reference",
            _ => "memory",
        }
    }

    fn capabilities(&self) -> Vec<Capability> {
        let mut capabilities = vec![
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
            Capability::VirtualTime,
        ];
        if matches!(self.0, Version::RabbitMq4_3 | Version::Reference) {
            capabilities.push(Capability::UncountedRelease);
        }
        if self.0 == Version::Reference {
            capabilities.extend([
                Capability::DeliveryCount,
                Capability::DelayedRequeue,
                Capability::ReplicatedDelayedRequeue,
            ]);
        }
        capabilities
    }

    async fn transport(&self) -> Result<Arc<dyn Transport>> {
        let transport = MemoryTransport::isolated_as(self.0);
        Ok(match self.1 {
            Some(fault) => Arc::new(transport.with_fault(fault)),
            None => Arc::new(transport),
        })
    }
}
