//! Deliveries on their way to handlers.

use crate::delivery::Delivery;

/// Where handlers get their deliveries. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Deliveries(async_channel::Receiver<Delivery>);

impl Deliveries {
    pub(super) fn new(channel: async_channel::Receiver<Delivery>) -> Self {
        Self(channel)
    }

    /// Waits for the next one that has not been recalled; `None` when there will be none. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Delivery> {
        while let Ok(delivery) = self.0.recv().await {
            if !delivery.is_recalled() {
                return Some(delivery);
            }
            delivery.give_back();
        }
        None
    }

    /// Gives back what no handler has begun on.
    pub(super) fn give_back(&self) {
        while let Ok(delivery) = self.0.try_recv() {
            delivery.give_back();
        }
    }
}
