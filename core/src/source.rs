//! Where a consumer's deliveries come from, on whatever session there is.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    broker::Broker,
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::{Link, Patience, backoff},
    short_str::ShortStr,
    topology::Topology,
    transport::Receiver,
};

/// A queue to consume from, and what to declare before.
#[derive(Debug)]
pub(crate) struct Source {
    link: Link,
    topology: Topology,
    queue: ShortStr,
    prefetch: u16,
    declare_timeout: Duration,
}

impl Source {
    pub(crate) fn new(broker: &Broker, topology: Topology, queue: ShortStr, prefetch: u16) -> Self {
        Self {
            link: broker.consuming().clone(),
            topology,
            queue,
            prefetch,
            declare_timeout: broker.options().declare_timeout,
        }
    }

    pub(crate) fn queue(&self) -> &ShortStr {
        &self.queue
    }

    pub(crate) fn prefetch(&self) -> usize {
        self.prefetch.into()
    }

    /// Whether one consumer of the queue is active at a time, as far as the program has said so.
    pub(crate) fn has_single_active_consumer(&self) -> bool {
        let mut queues = self.topology.queues().iter();
        queues.any(|queue| queue.name == self.queue && queue.single_active_consumer)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.prefetch > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Configuration, "consume")
            .on(format!("queue {:?}", self.queue.as_str()))
            .because("a prefetch of 0 means no limit to one broker and nothing at all to another")
            .remedy("1 to 65535"))
    }

    /// Declares and consumes, on the current connection or the next one.
    pub(crate) async fn open_once(&self, by: Instant) -> Result<Box<dyn Receiver>> {
        let session = self.link.session(by, Patience::Wait).await?.session;
        let by = by.min(deadline(self.declare_timeout));
        let opening = async {
            declare(&*session, &self.topology).await?;
            session.receiver(&self.queue, self.prefetch).await
        };
        timeout_at(by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "consume")
                .on(format!("queue {:?}", self.queue.as_str()))
                .because("the deadline passed"))
        })
    }

    /// The same, again and again while what fails may pass: a connection that breaks, or a queue
    /// that belongs to a connection which is about to end.
    pub(crate) async fn open(&self, by: Instant) -> Result<Box<dyn Receiver>> {
        let mut backoff = backoff();
        loop {
            let error = match self.open_once(by).await {
                Ok(receiver) => return Ok(receiver),
                Err(error) => error,
            };
            let wait = backoff.next().unwrap_or_default();
            if !error.is_transient() || deadline(wait) >= by {
                return Err(error);
            }
            tracing::warn!(queue = %self.queue, %error, ?wait, "not consuming yet; tried again later");
            sleep(wait).await;
        }
    }
}
