//! A broker for each case, and a clock that stands still unless everybody waits.

use std::sync::Arc;

use async_trait::async_trait;
use enoki_conformance::Harness;
use enoki_core::{Capability, Result, Transport};
use enoki_transport_memory::{Fault, MemoryTransport};

/// The memory broker, whole or with a fault.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Option<Fault>);

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![
            Capability::Exchanges,
            Capability::UnroutableDetection,
            Capability::DeliveryCount,
            Capability::ReplicatedDeliveryCount,
            Capability::UncountedRelease,
            Capability::RedeliveredFlag,
            Capability::DelayedRequeue,
            Capability::ReplicatedDelayedRequeue,
            Capability::DeadLetter,
            Capability::Expiry,
            Capability::LengthLimit,
            Capability::Priority,
            Capability::ReplicatedQueues,
            Capability::ExclusiveQueues,
            Capability::SingleActiveConsumer,
            Capability::NestedHeaders,
            Capability::VirtualTime,
        ]
    }

    async fn transport(&self) -> Result<Arc<dyn Transport>> {
        let transport = MemoryTransport::isolated();
        Ok(match self.0 {
            Some(fault) => Arc::new(transport.with_fault(fault)),
            None => Arc::new(transport),
        })
    }
}
