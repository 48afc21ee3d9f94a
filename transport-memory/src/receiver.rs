//! A source of deliveries.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Result, ShortStr,
    transport::{Delivered, End, Receiver, Settle},
};
use tokio::{sync::Notify, time::timeout_at};

use crate::{
    broker::{Broker, ConsumerEnd, ConsumerKey, Taken},
    error,
};

pub(crate) struct MemoryReceiver {
    broker: Arc<Broker>,
    consumer: ConsumerKey,
    queue: ShortStr,
    /// Keeps a wake that comes before the wait, so that none is lost.
    waker: Arc<Notify>,
}

impl MemoryReceiver {
    pub(crate) fn new(
        broker: Arc<Broker>,
        consumer: ConsumerKey,
        queue: ShortStr,
        waker: Arc<Notify>,
    ) -> Self {
        Self { broker, consumer, queue, waker }
    }

    fn end(&self, end: ConsumerEnd) -> End {
        match end {
            ConsumerEnd::Stopped | ConsumerEnd::Lingers => End::Stopped,
            ConsumerEnd::QueueDeleted => End::Cancelled(
                Error::new(ErrorKind::NotFound, "consume")
                    .on(error::queue_subject(&self.queue))
                    .because("it was deleted"),
            ),
            ConsumerEnd::Lost(ending) => End::Lost(error::ended("consume", ending)),
        }
    }
}

#[async_trait]
impl Receiver for MemoryReceiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        // A future that is always ready would keep its thread from other tasks.
        tokio::task::coop::consume_budget().await;
        loop {
            match self.broker.with(|state, _| state.take(self.consumer, into, max)) {
                Taken::Some => return Ok(()),
                Taken::End(end) => return Err(self.end(end)),
                Taken::Wait(None) => self.waker.notified().await,
                // No other task drives the broker's clock. Whichever comes first, it looks again.
                Taken::Wait(Some(alarm)) => {
                    let _ = timeout_at(alarm, self.waker.notified()).await;
                }
            }
        }
    }

    fn settle(&mut self, settlements: &[Settle]) {
        self.broker.with(|state, now| state.settle(self.consumer, settlements, now));
    }

    fn delays(&self) -> bool {
        self.broker.version().behaviour().delays
    }

    async fn stop(&mut self) -> Result<()> {
        self.broker.with(|state, now| state.stop(self.consumer, now));
        Ok(())
    }

    async fn stop_last(&mut self) -> Result<()> {
        self.broker.with(|state, _| state.stop_last(self.consumer));
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.broker.with(|state, now| state.close_consumer(self.consumer, now));
        Ok(())
    }
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        self.broker.with(|state, now| state.close_consumer(self.consumer, now));
    }
}

impl fmt::Debug for MemoryReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReceiver").field("queue", &self.queue).finish_non_exhaustive()
    }
}
