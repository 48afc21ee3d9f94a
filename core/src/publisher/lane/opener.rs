//! How a lane gets a sender.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::LaneOptions;
use crate::{
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::{Link, Patience},
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
            window: options.window.into(),
            timeout: options.open_timeout,
            patience: if options.fail_fast { Patience::FailFast } else { Patience::Wait },
        }
    }

    /// Whether messages wait while there is no connection.
    pub(super) fn is_patient(&self) -> bool {
        self.patience == Patience::Wait
    }

    /// A sender failed. When that is for a reason which does not pass, something that it needs may
    /// be gone.
    pub(super) fn failed(&mut self, reason: &Error) {
        if !reason.is_transient() {
            self.declared = None;
        }
    }

    /// Opens a sender; on a session where the last one failed, not before this time.
    pub(super) async fn open(&mut self, not_before: Instant) -> Result<Box<dyn Sender>> {
        let mut deadline = Instant::now() + self.timeout;
        let mut incarnation = self.link.session(deadline, self.patience).await?;
        // The pauses before another session are the link's own.
        if self.tried == Some(incarnation.epoch) && self.is_patient() {
            sleep_until(not_before).await;
            deadline = Instant::now() + self.timeout;
            incarnation = self.link.session(deadline, self.patience).await?;
        }
        self.tried = Some(incarnation.epoch);
        let opening = async {
            if self.declared != Some(incarnation.epoch) {
                declare(&*incarnation.session, &self.topology).await?;
                self.declared = Some(incarnation.epoch);
            }
            incarnation.session.sender(self.window).await
        };
        let opened = timeout_at(deadline, opening).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "open a publisher").because("the deadline passed"))
        });
        // A connection that broke under it is no reason to give up, whatever it was taken for.
        let broke = incarnation.has_ended();
        opened.map_err(|error| if broke { error.transient(true) } else { error })
    }
}
