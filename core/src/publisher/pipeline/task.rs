//! The task that owns a publisher's sender, and the next one when that fails.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    PipelineOptions, QueuedMessage, Window, backlog::Backlog, sender_source::SenderSource,
};
use crate::{error::Result, task::guarded, transport::Sender};

/// Sends messages in their order, tells their outcomes, and sends again what the policy allows.
pub(super) struct Task {
    inbox: mpsc::Receiver<QueuedMessage>,
    /// Whether there may be more in the inbox.
    is_open: bool,
    backlog: Backlog,
    senders: SenderSource,
}

impl Task {
    pub(super) fn new(
        options: PipelineOptions,
        inbox: mpsc::Receiver<QueuedMessage>,
        window: Arc<Window>,
    ) -> Self {
        let backlog = Backlog::new(window, options.by_hand.clone());
        Self { inbox, is_open: true, backlog, senders: SenderSource::new(options) }
    }

    /// A panic below costs the sender: what it took is indeterminate, and the rest gets another.
    pub(super) async fn run(mut self) {
        while let Err(panicked) = guarded("publish", self.serve()).await {
            self.senders.failed(&panicked);
            self.backlog.interrupted(panicked);
        }
    }

    async fn serve(&mut self) {
        while self.has_work().await {
            match self.open().await {
                Ok(Some(sender)) => {
                    self.backlog.has_a_sender();
                    let Err(reason) = self.work(sender).await else { return };
                    let reason = self.senders.judge(reason);
                    self.senders.failed(&reason);
                    self.backlog.interrupted(reason);
                }
                // Everything that waited ran out of time, which says nothing about the next try.
                Ok(None) => {}
                Err(reason) => {
                    self.senders.failed(&reason);
                    if self.senders.is_patient() && reason.is_transient() {
                        self.backlog.wait_on(reason);
                    } else {
                        self.backlog.fail_all(&reason);
                    }
                }
            }
        }
    }

    /// Waits for something to send; false when there will be nothing more.
    async fn has_work(&mut self) -> bool {
        while !self.backlog.is_waiting() {
            if !self.is_open && self.backlog.is_empty() {
                return false;
            }
            tokio::select! {
                message = self.inbox.recv(), if self.is_open => match message {
                    Some(message) => self.backlog.add(message),
                    None => self.is_open = false,
                },
                () = until(self.backlog.due()) => self.backlog.bring_back(),
            }
        }
        true
    }

    /// Opens a sender, while messages come in and run out of time. `None` when all of them did.
    async fn open(&mut self) -> Result<Option<Box<dyn Sender>>> {
        let opening = self.senders.open();
        tokio::pin!(opening);
        loop {
            self.backlog.drop_overdue();
            let Some(first) = self.backlog.first_deadline() else { return Ok(None) };
            tokio::select! {
                biased;
                opened = &mut opening => return opened.map(Some),
                message = self.inbox.recv(), if self.is_open => match message {
                    Some(message) => self.backlog.add(message),
                    None => self.is_open = false,
                },
                () = sleep_until(first) => {}
            }
        }
    }

    /// Works until the publishers are gone and everything has its outcome, or the sender fails.
    async fn work(&mut self, mut sender: Box<dyn Sender>) -> Result<()> {
        let mut outcomes = Vec::new();
        let mut arrived = Vec::new();
        loop {
            if self.backlog.is_waiting() {
                self.backlog.drop_overdue();
                sender.submit(self.backlog.waiting()).await?;
            }
            if !self.is_open && self.backlog.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                result = sender.outcomes(&mut outcomes) => {
                    if !outcomes.is_empty() {
                        self.senders.record_success();
                    }
                    self.backlog.resolve(&mut outcomes);
                    result?;
                }
                count = self.inbox.recv_many(&mut arrived, AT_A_TIME), if self.is_open => {
                    self.is_open = count > 0;
                    arrived.drain(..).for_each(|message| self.backlog.add(message));
                }
                () = until(self.backlog.due()) => self.backlog.bring_back(),
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// How many messages are taken from the inbox at a time: enough to share a wake, few enough not to delay.
const AT_A_TIME: usize = 256;
