//! What happens to a delivery whose handler failed.

use std::fmt;

use crate::outcome::Outcome;

/// What happens to a delivery whose handler returned an error.
///
/// ```
/// use enoki_core::OnError;
///
/// assert_eq!(OnError::default(), OnError::requeue());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnError(Outcome);

impl Default for OnError {
    fn default() -> Self {
        Self::requeue()
    }
}

impl OnError {
    /// Back to its place in the queue at once, counted as an attempt: nothing is lost. A message that
    /// always fails comes back at once and for ever, and keeps a worker busy, unless the queue was given a
    /// [`delivery_limit`](crate::ReplicatedQueue::delivery_limit).
    pub const fn requeue() -> Self {
        Self(Outcome::Requeue)
    }

    /// Dead-lettered, or removed where the queue has no dead letters.
    pub const fn reject() -> Self {
        Self(Outcome::Reject)
    }

    /// Acknowledged all the same: the message is gone, and only the log knows. This is what nameko
    /// does unless told otherwise.
    pub const fn ack() -> Self {
        Self(Outcome::Ack)
    }

    pub(crate) const fn outcome(self) -> Outcome {
        self.0
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
