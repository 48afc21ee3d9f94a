//! Where a consumer's deliveries come from, on whatever session there is.

mod suspicion;

use std::{num::NonZeroU16, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use self::suspicion::Suspicion;
use crate::{
    backoff::SessionPauses,
    connection::{Connection, LiveSession, OwnConnections, Patience, Refusals},
    connections::Connections,
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    short_str::ShortStr,
    topology::Topology,
    transport::{Receiver, ReceiverOptions},
};

/// A queue to consume from, and what to declare before.
#[derive(Debug)]
pub(crate) struct Source {
    /// The connection of all consumers.
    shared: Connection,
    /// One that it shares with none.
    own: Option<Connection>,
    own_connections: OwnConnections,
    suspicion: Suspicion,
    topology: Topology,
    queue: ShortStr,
    prefetch: NonZeroU16,
    declare_timeout: Duration,
    pauses: SessionPauses,
    refusals: Refusals,
    /// When the last receiver was opened.
    opened: Instant,
}

/// The prefetch that a program asks for.
pub(crate) fn prefetch(queue: &ShortStr, deliveries: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(deliveries).ok_or_else(|| {
        Error::new(ErrorKind::Configuration, "consume")
            .on(format!("queue {:?}", queue.as_str()))
            .because("a prefetch of 0 means no limit to one broker and no deliveries to another")
            .remedy("1 to 65535")
    })
}

impl Source {
    pub(crate) fn new(
        connections: &Connections,
        topology: Topology,
        queue: ShortStr,
        prefetch: NonZeroU16,
    ) -> Self {
        Self {
            shared: connections.consuming().clone(),
            own: None,
            own_connections: connections.own_connections().clone(),
            suspicion: Suspicion::default(),
            topology,
            queue,
            prefetch,
            declare_timeout: connections.options().declare_timeout,
            pauses: SessionPauses::new(connections.options().reconnect),
            refusals: Refusals::new(connections.options().give_up_after),
            opened: Instant::now(),
        }
    }

    pub(crate) fn queue(&self) -> &ShortStr {
        &self.queue
    }

    pub(crate) fn prefetch(&self) -> usize {
        self.prefetch.get().into()
    }

    /// Whether one consumer of the queue is active at a time, as far as the program has said so.
    pub(crate) fn has_single_active_consumer(&self) -> bool {
        let mut queues = self.topology.queues().iter();
        queues.any(|queue| queue.name == self.queue && queue.single_active_consumer)
    }

    /// Why there will be no connection any more, if the program closed it.
    pub(crate) fn closed(&self) -> Option<Error> {
        let mut connections = std::iter::once(&self.shared).chain(&self.own);
        connections.any(Connection::is_closed).then(|| {
            Error::new(ErrorKind::Closed, "consume")
                .on(format!("queue {:?}", self.queue.as_str()))
                .because("the broker was closed")
        })
    }

    /// The last receiver ended for this reason, without being asked to. Returns what to say of it.
    pub(crate) fn interrupted(&mut self, reason: Error) -> Error {
        let lived = self.opened.elapsed();
        self.pauses.ended_after(lived);
        self.suspicion.ended(&reason, lived);
        if !self.suspicion.is_strong() {
            // Cleared, if it was suspected.
            self.own = None;
            return reason;
        }
        self.pauses.ended_by_a_failure();
        if self.own.is_none() && self.may_move() {
            self.own = self.own_connections.connection().ok();
        }
        self.suspicion.explain(&self.queue, reason)
    }

    /// One try to consume again, as soon as there should be one.
    pub(crate) async fn reopen(&mut self, within: Duration) -> Result<Box<dyn Receiver>> {
        self.rest().await;
        self.try_open(deadline(within)).await
    }

    /// Waits before the next try where the consumer itself ended the last session: whatever the next one
    /// is, it will do so again.
    async fn rest(&self) {
        if self.suspicion.is_strong()
            && let Some(due) = self.pauses.due()
        {
            sleep_until(due).await;
        }
    }

    /// Whether it may consume on another connection: an exclusive queue belongs to one, and goes with
    /// it and what the broker fails at.
    fn may_move(&self) -> bool {
        !self.topology.queues().iter().any(|queue| queue.exclusive)
    }

    /// A try failed, and did not say so itself.
    pub(crate) fn failed(&mut self, reason: &Error) {
        self.pauses.failed(reason);
    }

    /// Declares and consumes, on the current connection or the next one: one try, after a pause where
    /// the last one failed on the same connection. An error that is transient may pass.
    async fn try_open(&mut self, by: Instant) -> Result<Box<dyn Receiver>> {
        let live = self.next_session(by).await?;
        let by = by.min(deadline(self.declare_timeout));
        let session = &*live.session;
        let opening = async {
            declare(session, &self.topology).await?;
            session.receiver(ReceiverOptions::new(self.queue.clone(), self.prefetch)).await
        };
        let opened = timeout_at(by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "consume")
                .on(self.subject())
                .because("the deadline passed"))
        });
        match opened {
            Ok(receiver) => {
                self.refusals.accepted();
                self.opened = Instant::now();
                Ok(receiver)
            }
            Err(error) => {
                let error = live.judge(error);
                self.pauses.failed(&error);
                Err(self.refusals.judge(error))
            }
        }
    }

    /// A session to try on. The pauses between two sessions are the connection's own.
    async fn next_session(&mut self, by: Instant) -> Result<LiveSession> {
        loop {
            let connection = self.own.as_ref().unwrap_or(&self.shared);
            let live = connection.session(by, Patience::Wait).await?;
            if self.suspicion.is_strong() {
                // It has rested, and its pauses grow over all sessions.
                return Ok(live);
            }
            let Some(due) = self.pauses.before_a_try_on(live.epoch) else {
                return Ok(live);
            };
            // A receiver may end a moment before its session does.
            let _ = timeout_at(due.min(by), live.session.ended()).await;
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
