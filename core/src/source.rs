//! Where a consumer's deliveries come from, on whatever session there is.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    broker::Broker,
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::{Doubt, Incarnation, Link, Patience, SessionPauses},
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
    pauses: SessionPauses,
    doubt: Doubt,
    /// When the last receiver was opened.
    opened: Instant,
}

impl Source {
    pub(crate) fn new(broker: &Broker, topology: Topology, queue: ShortStr, prefetch: u16) -> Self {
        Self {
            link: broker.consuming().clone(),
            topology,
            queue,
            prefetch,
            declare_timeout: broker.options().declare_timeout,
            pauses: SessionPauses::new(),
            doubt: Doubt::new(broker.options().give_up_after),
            opened: Instant::now(),
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
            .on(self.subject())
            .because("a prefetch of 0 means no limit to one broker and nothing at all to another")
            .remedy("1 to 65535"))
    }

    /// The last receiver ended, and nobody asked for it.
    pub(crate) fn interrupted(&mut self) {
        self.pauses.ended_after(self.opened.elapsed());
    }

    /// A try failed, and did not say so itself.
    pub(crate) fn failed(&mut self, reason: &Error) {
        self.pauses.failed(reason);
    }

    /// Declares and consumes, on the current connection or the next one: one try, after a pause where
    /// the last one failed on the same connection. An error that is transient may pass.
    pub(crate) async fn try_open(&mut self, by: Instant) -> Result<Box<dyn Receiver>> {
        let incarnation = self.next_session(by).await?;
        let by = by.min(deadline(self.declare_timeout));
        let session = &*incarnation.session;
        let opening = async {
            declare(session, &self.topology).await?;
            session.receiver(&self.queue, self.prefetch).await
        };
        let opened = timeout_at(by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "consume")
                .on(self.subject())
                .because("the deadline passed"))
        });
        match opened {
            Ok(receiver) => {
                self.doubt.let_in();
                self.opened = Instant::now();
                Ok(receiver)
            }
            Err(error) => {
                let error = incarnation.weigh(error);
                self.pauses.failed(&error);
                Err(self.doubt.weigh(error))
            }
        }
    }

    /// A session to try on. The pauses between two sessions are the connection's own.
    async fn next_session(&mut self, by: Instant) -> Result<Incarnation> {
        loop {
            let incarnation = self.link.session(by, Patience::Wait).await?;
            let Some(due) = self.pauses.before_a_try_on(incarnation.epoch) else {
                return Ok(incarnation);
            };
            // A receiver may end a moment before its session does.
            let _ = timeout_at(due.min(by), incarnation.session.ended()).await;
            if Instant::now() >= by {
                return Err(Error::new(ErrorKind::Timeout, "consume")
                    .on(self.subject())
                    .because("the deadline passed"));
            }
        }
    }

    /// The same, again and again while what fails may pass.
    pub(crate) async fn open(&mut self, by: Instant) -> Result<Box<dyn Receiver>> {
        let mut last = None;
        loop {
            let error = match self.try_open(by).await {
                Ok(receiver) => return Ok(receiver),
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error);
            }
            if Instant::now() >= by {
                // What it failed for says more than that there was no more time.
                let is_late = error.kind() == ErrorKind::Timeout;
                return Err(last.filter(|_| is_late).unwrap_or(error));
            }
            tracing::warn!(queue = &*self.queue, %error, "not consuming yet; tried again later");
            last = Some(error);
        }
    }

    fn subject(&self) -> String {
        format!("queue {:?}", self.queue.as_str())
    }
}
