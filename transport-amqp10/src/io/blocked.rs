//! Whether the broker takes messages on the connections of a session.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// On how many connections of a session the broker takes no messages for the time being, and why.
///
/// The reason is there exactly while the count is not 0.
#[derive(Debug, Default)]
pub(crate) struct BlockedConnections {
    count: Mutex<usize>,
    reason: watch::Sender<Option<Arc<str>>>,
}

impl BlockedConnections {
    /// The reason, as it changes.
    pub(crate) fn reason(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.reason.subscribe()
    }

    /// One connection is blocked, or no longer. Called only when that changes, so that it is counted once.
    pub(super) fn changed(&self, is_blocked: bool) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = match is_blocked {
            true => count.saturating_add(1),
            false => count.saturating_sub(1),
        };
        let is_blocked = *count > 0;
        self.reason.send_if_modified(|reason| {
            let changes = reason.is_some() != is_blocked;
            if changes {
                *reason = is_blocked.then(|| WINDOW_OF_0.into());
            }
            changes
        });
    }
}

const WINDOW_OF_0: &str =
    "it takes no messages for the time being, as it is short of memory or disk space";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_there_until_the_last_connection_takes_messages() {
        let blocked = BlockedConnections::default();
        let reason = blocked.reason();
        for (is_blocked, expected) in [(true, true), (true, true), (false, true), (false, false)] {
            blocked.changed(is_blocked);
            assert_eq!(reason.borrow().is_some(), expected);
        }
    }
}
