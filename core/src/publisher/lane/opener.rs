//! How a lane gets a sender.

use std::{num::NonZeroU16, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::LaneOptions;
use crate::{
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::{Declared, Doubt, Incarnation, Link, Patience},
    publisher::retry::RetryPolicy,
    topology::Topology,
    transport::{Sender, SenderOptions},
};

/// Opens senders on the current session, and declares what belongs to the lane once on each.
pub(super) struct Opener {
    link: Link,
    topology: Topology,
    /// What is declared by hand, on another connection than this publisher's.
    by_hand: Declared,
    /// The session that the last sender was opened on.
    incarnation: Option<Incarnation>,
    /// The epoch of the session that the topology was declared on.
    declared: Option<u64>,
    /// The epoch of the session that the last sender was opened on.
    tried: Option<u64>,
    retry: RetryPolicy,
    /// How many senders in a row did not open on this session, or failed before they told an outcome.
    failures: u32,
    /// When the next one may be opened on this session.
    not_before: Instant,
    doubt: Doubt,
    window: NonZeroU16,
    timeout: Duration,
    patience: Patience,
}

impl Opener {
    pub(super) fn new(options: LaneOptions) -> Self {
        Self {
            link: options.link,
            topology: options.topology,
            by_hand: options.by_hand,
            incarnation: None,
            declared: None,
            tried: None,
            retry: options.retry,
            failures: 0,
            not_before: Instant::now(),
            doubt: Doubt::new(options.give_up_after),
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
    pub(super) fn worked(&mut self) {
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
    pub(super) fn weigh(&self, error: Error) -> Error {
        match &self.incarnation {
            Some(incarnation) => incarnation.weigh(error),
            None => error,
        }
    }

    /// Opens a sender; on a session where the last one failed, after a pause. An error that is
    /// transient may pass.
    pub(super) async fn open(&mut self) -> Result<Box<dyn Sender>> {
        let incarnation = self.next_session().await?;
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
            if self.declared != Some(incarnation.epoch) {
                declare(&*incarnation.session, &self.topology).await?;
                self.declared = Some(incarnation.epoch);
            }
            incarnation.session.sender(SenderOptions::new(self.window)).await
        };
        let opened = timeout_at(open_by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "open a publisher").because("the deadline passed"))
        });
        match opened {
            Ok(sender) => {
                self.doubt.let_in();
                self.incarnation = Some(incarnation);
                Ok(sender)
            }
            Err(error) => {
                let error = incarnation.weigh(error);
                if !error.is_transient() {
                    self.declared = None;
                }
                Err(self.doubt.weigh(error))
            }
        }
    }

    async fn next_session(&mut self) -> Result<Incarnation> {
        loop {
            let open_by = deadline(self.timeout);
            let incarnation = self.link.session(open_by, self.patience).await?;
            // The pauses before another session are the link's own.
            if self.tried.replace(incarnation.epoch) != Some(incarnation.epoch) {
                self.failures = 0;
                return Ok(incarnation);
            }
            if Instant::now() >= self.not_before || !self.is_patient() {
                return Ok(incarnation);
            }
            // A sender may fail a moment before its session does.
            let _ = timeout_at(self.not_before, incarnation.session.ended()).await;
        }
    }
}
