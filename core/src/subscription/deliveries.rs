//! Deliveries on their way to handlers.

use crate::delivery::Delivery;

/// Where handlers get their deliveries. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Deliveries(async_channel::Receiver<Delivery>);

impl Deliveries {
    pub(super) fn new(channel: async_channel::Receiver<Delivery>) -> Self {
        Self(channel)
    }

    /// Waits for the next one that has not been revoked; `None` when there will be none. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Delivery> {
        while let Ok(delivery) = self.0.recv().await {
            if !delivery.is_revoked() {
                return Some(delivery);
            }
            delivery.release();
        }
        None
    }

    /// Gives back what no handler has begun on.
    pub(super) fn release(&self) {
        while let Ok(delivery) = self.0.try_recv() {
            delivery.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        delivery::{Decided, Settler},
        message::{Message, codec::Codecs},
        outcome::{Attempt, Outcome},
        short_str::ShortStr,
        transport::Delivered,
    };

    /// Also one that was on its way to a handler when the rest was given back.
    #[tokio::test]
    async fn no_handler_gets_a_delivery_that_was_recalled() {
        let (settle, mut settled) = mpsc::channel(4);
        let settler = Settler::alone(settle);
        let (to_handlers, deliveries) = async_channel::bounded(4);
        for tag in 0..2 {
            let delivered = Delivered {
                tag,
                message: Arc::new(Message::default()),
                exchange: ShortStr::EMPTY,
                routing_key: ShortStr::EMPTY,
                redelivered: false,
                attempt: Attempt::from_flag(false),
                undecodable: None,
            };
            let delivery = Delivery::new(delivered, Codecs::default(), settler.clone());
            to_handlers.try_send(delivery).unwrap();
        }
        let deliveries = Deliveries::new(deliveries);
        assert!(deliveries.next().await.is_some_and(|first| !first.is_revoked()));
        settler.revoke();
        to_handlers.close();
        assert!(deliveries.next().await.is_none());
        let requeued = Decided { tag: 0, outcome: Outcome::Requeue };
        assert_eq!(settled.recv().await, Some(requeued), "the first was dropped");
        let released = Decided { tag: 1, outcome: Outcome::Release };
        assert_eq!(settled.recv().await, Some(released));
    }
}
