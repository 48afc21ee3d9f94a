//! The one ordered path of a publisher's messages: a window, a queue, and the task that owns the
//! sender.

mod backlog;
mod batch;
mod in_flight;
mod sender_source;
mod task;
mod unrouted;

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

pub(crate) use self::batch::Batch;
use self::task::Task;
use crate::{
    connection::{Connection, ConnectionStatus, DeclaredByHand},
    error::{Error, ErrorKind, Result},
    message::Message,
    publisher::retry::RetryPolicy,
    short_str::ShortStr,
    task::{log, spawn},
    topology::Topology,
};

/// What a pipeline needs to know.
#[derive(Debug)]
pub(crate) struct PipelineOptions {
    pub(crate) connection: Connection,
    /// Declared on every new session.
    pub(crate) topology: Topology,
    /// What the program declared by hand, on the connection that consumes.
    pub(crate) by_hand: DeclaredByHand,
    /// How long refusals are doubted after the first sender.
    pub(crate) give_up_after: Duration,
    /// How many messages may be without an outcome.
    pub(crate) window: NonZeroU16,
    pub(crate) open_timeout: Duration,
    /// How long to wait before the next sender is opened; which messages it gets is their own.
    pub(crate) retry: RetryPolicy,
    pub(crate) fail_fast: bool,
}

/// A publisher's end of the pipeline.
#[derive(Debug)]
pub(crate) struct PublishPipeline {
    inbox: mpsc::Sender<QueuedMessage>,
    window: Arc<Window>,
}

/// A message that was checked, where it goes, until when, and which caller is told.
#[derive(Debug)]
pub(crate) struct QueuedMessage {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) mandatory: bool,
    pub(crate) message: Arc<Message>,
    pub(crate) retry: RetryPolicy,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
}

/// Which caller is told the outcome.
#[derive(Debug)]
pub(crate) enum Reply {
    One(oneshot::Sender<Result<()>>),
    Batch { batch: Arc<Batch>, at: usize },
}

impl Reply {
    fn send(self, result: Result<()>) {
        match self {
            // The caller no longer waits: fine, unless the broker refused it, which is never silent.
            Self::One(reply) => {
                if let Err(Err(error)) = reply.send(result)
                    && matches!(error.kind(), ErrorKind::Unroutable | ErrorKind::Refused)
                {
                    log(
                        || tracing::warn!(%error, "a message is stored nowhere, and no caller awaits its outcome"),
                    );
                }
            }
            Self::Batch { batch, at } => batch.settle(at, result),
        }
    }
}

/// How many messages may be without an outcome.
///
/// `room` has `size` permits less one for each message that was handed over and has no outcome yet.
#[derive(Debug)]
pub(crate) struct Window {
    room: Semaphore,
    size: u32,
    connection: ConnectionStatus,
}

impl Window {
    /// These many messages have their outcome.
    fn free(&self, messages: usize) {
        self.room.add_permits(messages);
    }

    /// What is wrong with the connection, if anything is, as the end of a sentence.
    pub(crate) fn trouble(&self) -> String {
        self.connection.trouble().map(|trouble| format!(" ({trouble})")).unwrap_or_default()
    }

    /// Waits until every message has its outcome, at most until the deadline, then lets no more in.
    pub(crate) async fn close(&self, deadline: Instant) {
        if let Ok(Ok(all)) = timeout_at(deadline, self.room.acquire_many(self.size)).await {
            all.forget();
        }
        self.room.close();
    }
}

impl PublishPipeline {
    /// A pipeline that ends when the last handle on it is gone and everything has its outcome.
    pub(crate) fn new(options: PipelineOptions) -> Self {
        let size = usize::from(options.window.get());
        let (inbox, intake) = mpsc::channel(size);
        let window = Arc::new(Window {
            room: Semaphore::new(size),
            size: options.window.get().into(),
            connection: options.connection.status(),
        });
        spawn("publish", Task::new(options, intake, window.clone()).run(), drop);
        Self { inbox, window }
    }

    pub(crate) fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Waits for room, at most until the message's deadline, then hands the message over. Cancel safe:
    /// dropped before it is ready, the message was not handed over.
    pub(crate) async fn send(&self, message: QueuedMessage) -> Result<()> {
        self.room(1, message.deadline).await?;
        self.hand_over(message)
    }

    /// Like [`PublishPipeline::send`], for any number. Each message that finds no room is told so by its
    /// reply: the ones before it may be stored already.
    pub(crate) async fn send_many(&self, deadline: Instant, mut messages: Vec<QueuedMessage>) {
        while !messages.is_empty() {
            let rest = messages.split_off(messages.len().min(self.window.size as usize / 2 + 1));
            if let Err(reason) = self.room(messages.len(), deadline).await {
                let unsent = messages.into_iter().chain(rest);
                return unsent.for_each(|message| message.reply.send(Err(reason.clone())));
            }
            for message in messages {
                // A message that is refused was told so.
                let _ = self.hand_over(message);
            }
            messages = rest;
        }
    }

    async fn room(&self, messages: usize, deadline: Instant) -> Result<()> {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let permits = match self.window.room.try_acquire_many(messages) {
            Ok(permits) => permits,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(closed()),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                timeout_at(deadline, self.window.room.acquire_many(messages))
                    .await
                    .map_err(|_| {
                        Error::new(ErrorKind::Timeout, "publish")
                            .because(format!(
                                "no room in the window of {} before the deadline{}",
                                self.window.size,
                                self.window.trouble()
                            ))
                            .remedy("the message was not sent")
                    })?
                    .map_err(|_| closed())?
            }
        };
        // Given back by the task, when the outcomes are known.
        permits.forget();
        Ok(())
    }

    fn hand_over(&self, message: QueuedMessage) -> Result<()> {
        // Each entry holds a permit of the window, and the inbox is as large: never full.
        self.inbox.try_send(message).map_err(|unsent| {
            unsent.into_inner().reply.send(Err(closed()));
            closed()
        })
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish").because("the broker was closed")
}
