//! How a pipeline gets a sender.

use std::{num::NonZeroU16, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::PipelineOptions;
use crate::{
    connection::{Connection, DeclaredByHand, LiveSession, Patience, Refusals},
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    publisher::retry::RetryPolicy,
    topology::Topology,
    transport::{Sender, SenderOptions},
};

/// Opens senders on the current session, and declares what belongs to the pipeline once on each.
pub(super) struct SenderSource {
    connection: Connection,
    topology: Topology,
    /// What is declared by hand, on another connection than this publisher's.
    by_hand: DeclaredByHand,
    /// The session that the last sender was opened on.
    live: Option<LiveSession>,
    /// The epoch of the session that the topology was declared on.
    declared: Option<u64>,
    /// The epoch of the session that the last sender was opened on.
    last_epoch: Option<u64>,
    retry: RetryPolicy,
    /// How many senders in a row did not open on this session, or failed before they told an outcome.
    failures: u32,
    /// When the next one may be opened on this session.
    not_before: Instant,
    refusals: Refusals,
    window: NonZeroU16,
    timeout: Duration,
    patience: Patience,
}

impl SenderSource {
    pub(super) fn new(options: PipelineOptions) -> Self {
        Self {
            connection: options.connection,
            topology: options.topology,
            by_hand: options.by_hand,
            live: None,
            declared: None,
            last_epoch: None,
            retry: options.retry,
            failures: 0,
            not_before: Instant::now(),
            refusals: Refusals::new(options.give_up_after),
            window: options.window,
            timeout: options.open_timeout,
            patience: if options.fail_fast { Patience::FailFast } else { Patience::Wait },
        }
    }

    /// Whether messages wait while there is no connection.
    pub(super) fn is_patient(&self) -> bool {
        self.patience == Patience::Wait
    }

    /// A sender told an outcome.
    pub(super) fn record_success(&mut self) {
        self.failures = 0;
    }

    /// A sender failed, or did not open. The next one on the same session waits a little, from now
    /// on: messages that come and run out of time meanwhile do not begin the wait anew.
    pub(super) fn failed(&mut self, reason: &Error) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = deadline(self.retry.delay(self.failures));
        // For a reason that does not pass, or because something is missing, what it needs may be gone.
        if !reason.is_transient() || reason.kind() == ErrorKind::NotFound {
            self.declared = None;
        }
    }

    /// What to make of the failure of a sender.
    pub(super) fn judge(&self, error: Error) -> Error {
        match &self.live {
            Some(live) => live.judge(error),
            None => error,
        }
    }

    /// Opens a sender; on a session where the last one failed, after a pause. An error that is
    /// transient may pass.
    pub(super) async fn open(&mut self) -> Result<Box<dyn Sender>> {
        let live = self.next_session().await?;
        if self.is_patient() {
            // What the program declared may have gone with its connection. What is published before it
            // is back finds no queue.
            let back = timeout_at(deadline(self.timeout), self.by_hand.until_back());
            if back.await.is_err() {
                tracing::warn!("publishing, though what was declared by hand is not back yet");
            }
        }
        let open_by = deadline(self.timeout);
        let opening = async {
            if self.declared != Some(live.epoch) {
                declare(&*live.session, &self.topology).await?;
                self.declared = Some(live.epoch);
            }
            live.session.sender(SenderOptions::new(self.window)).await
        };
        let opened = timeout_at(open_by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "open a publisher").because("the deadline passed"))
        });
        match opened {
            Ok(sender) => {
                self.refusals.accepted();
                self.live = Some(live);
                Ok(sender)
            }
            Err(error) => {
                let error = live.judge(error);
                if !error.is_transient() {
                    self.declared = None;
                }
                Err(self.refusals.judge(error))
            }
        }
    }

    async fn next_session(&mut self) -> Result<LiveSession> {
        loop {
            let open_by = deadline(self.timeout);
            let live = self.connection.session(open_by, self.patience).await?;
            // The pauses before another session are the connection's own.
            if self.last_epoch.replace(live.epoch) != Some(live.epoch) {
                self.failures = 0;
                return Ok(live);
            }
            if Instant::now() >= self.not_before || !self.is_patient() {
                return Ok(live);
            }
            // A sender may fail a moment before its session does.
            let _ = timeout_at(self.not_before, live.session.ended()).await;
        }
    }
}
