//! How a lane gets a sender.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::LaneOptions;
use crate::{
    deadline::deadline,
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::{Link, Patience},
    publisher::retry::RetryPolicy,
    topology::Topology,
    transport::Sender,
};

/// Opens senders on the current session, and declares what belongs to the lane once on each.
pub(super) struct Opener {
    link: Link,
    topology: Topology,
    /// The epoch of the session that the topology was declared on.
    declared: Option<u64>,
    /// The epoch of the session that the last sender was opened on.
    tried: Option<u64>,
    retry: RetryPolicy,
    /// How many senders in a row did not open on this session, or failed before they told an outcome.
    failures: u32,
    /// When the next one may be opened on this session.
    not_before: Instant,
    window: usize,
    timeout: Duration,
    patience: Patience,
}

impl Opener {
    pub(super) fn new(options: LaneOptions) -> Self {
        Self {
            link: options.link,
            topology: options.topology,
            declared: None,
            tried: None,
            retry: options.retry,
            failures: 0,
            not_before: Instant::now(),
            window: options.window.into(),
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
        // For a reason that does not pass, something that it needs may be gone.
        if !reason.is_transient() {
            self.declared = None;
        }
    }

    /// Opens a sender; on a session where the last one failed, after a pause.
    pub(super) async fn open(&mut self) -> Result<Box<dyn Sender>> {
        let (incarnation, open_by) = loop {
            let open_by = deadline(self.timeout);
            let incarnation = self.link.session(open_by, self.patience).await?;
            // The pauses before another session are the link's own.
            if self.tried.replace(incarnation.epoch) != Some(incarnation.epoch) {
                self.failures = 0;
                break (incarnation, open_by);
            }
            if Instant::now() >= self.not_before || !self.is_patient() {
                break (incarnation, open_by);
            }
            // A sender may fail a moment before its session does.
            let _ = timeout_at(self.not_before, incarnation.session.ended()).await;
        };
        let opening = async {
            if self.declared != Some(incarnation.epoch) {
                declare(&*incarnation.session, &self.topology).await?;
                self.declared = Some(incarnation.epoch);
            }
            incarnation.session.sender(self.window).await
        };
        let opened = timeout_at(open_by, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "open a publisher").because("the deadline passed"))
        });
        // A connection that broke under it is no reason to give up, whatever it was taken for.
        let broke = incarnation.has_ended();
        opened.map_err(|error| if broke { error.transient(true) } else { error })
    }
}
