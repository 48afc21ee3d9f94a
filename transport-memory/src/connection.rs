//! One connection to the broker: whether it has ended, and how.
//!
//! Below everything: the broker ends connections, a session is one, senders and receivers look at theirs.

use std::sync::OnceLock;

use enoki_core::Result;
use tokio::sync::Notify;

use crate::error::{self, Ending};

/// Whether a connection has ended, and how.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    ending: OnceLock<Ending>,
    announced: Notify,
}

impl Connection {
    /// Ends it; the first ending counts.
    pub(crate) fn end(&self, ending: Ending) {
        // An ending that is set already stays.
        let _ = self.ending.set(ending);
    }

    /// Wakes the tasks that wait for the end.
    pub(crate) fn announce(&self) {
        self.announced.notify_waiters();
    }

    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        match self.ending.get() {
            None => Ok(()),
            Some(ending) => Err(error::ended(operation, *ending)),
        }
    }

    pub(crate) async fn ended(&self) -> Ending {
        loop {
            // Listening begins here, before looking, so that no end falls in between.
            let announced = self.announced.notified();
            if let Some(ending) = self.ending.get() {
                return *ending;
            }
            announced.await;
        }
    }
}
