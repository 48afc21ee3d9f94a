//! What happens to a delivery whose handler failed.

use std::fmt;

use crate::{outcome::Outcome, retry::policy::Retry};

/// What happens to a delivery whose handler returned an error.
///
/// ```
/// use enoki_core::OnError;
///
/// assert_eq!(OnError::default(), OnError::requeue());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnError(Choice);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Settle(Outcome),
    Retry(Retry),
}

impl Default for OnError {
    fn default() -> Self {
        Self::requeue()
    }
}

impl OnError {
    /// Tries the message again later, a limited number of times: 5 attempts by default, 1, 2, 4 and 8 seconds
    /// apart. After the last one it is a dead letter that says why. A panic counts as a failure.
    ///
    /// The dead letter goes where the queue's own dead letters go, or else to a queue `<queue>.dead`, which is
    /// declared for it. The message meanwhile waits in the broker, or in wait queues, which are declared for
    /// it, or in this process: [`DelayedBy`](crate::DelayedBy). In wait queues and as a dead letter it is a
    /// copy: the original is acknowledged after the broker has confirmed the copy, and stays if it does not. A
    /// crash in between leaves two messages with the same id, and none is lost.
    ///
    /// ```
    /// use enoki::{Body, Failure, Service, WorkQueue, consume::{Attempt, Handler, OnError}};
    /// # use std::time::Duration;
    ///
    /// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
    /// const LOST: WorkQueue<u32> = WorkQueue::new("billing.dead");
    ///
    /// async fn bill(Body(cents): Body<u32>, attempt: Attempt) -> Result<(), Failure> {
    ///     Err(Failure::new(format!("attempt {} of {cents} failed", attempt.number)))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> enoki::Result<()> {
    /// let broker = enoki::connect("memory://retry").await?;
    /// let policy = OnError::retry().attempts(3);
    /// let running = Service::new("billing", broker.clone())
    ///     .consume(&BILLING, bill.on_error(policy))
    ///     .start()
    ///     .await?;
    /// broker.publisher(&BILLING.route()).await?.publish(&850).await?;
    ///
    /// let mut lost = broker.subscribe(&LOST, 1).await?;
    /// let letter = lost.next().await?.expect("a subscription goes on until it is stopped");
    /// let error = letter.message().headers.get("enoki-error").and_then(|value| value.as_str());
    /// assert_eq!(error, Some("attempt 3 of 850 failed"));
    /// # running.stop(Duration::from_secs(5)).await
    /// # }
    /// ```
    pub const fn retry() -> Retry {
        Retry::new()
    }

    /// Back to its place in the queue at once, counted as an attempt: nothing is lost. A message that
    /// always fails comes back at once and for ever, and keeps a worker busy, unless the queue was given a
    /// [`delivery_limit`](crate::ReplicatedQueue::delivery_limit).
    pub const fn requeue() -> Self {
        Self(Choice::Settle(Outcome::Requeue))
    }

    /// Dead-lettered, or removed where the queue has no dead letters.
    pub const fn reject() -> Self {
        Self(Choice::Settle(Outcome::Reject))
    }

    /// Acknowledged all the same: the message is gone, and only the log knows. This is what nameko
    /// does unless told otherwise.
    pub const fn ack() -> Self {
        Self(Choice::Settle(Outcome::Ack))
    }

    /// What becomes of a delivery whose handler returned an error, at this attempt.
    pub(crate) fn outcome(self, attempt: u32) -> Outcome {
        match self.0 {
            Choice::Settle(outcome) => outcome,
            Choice::Retry(policy) => {
                policy.delay_after(attempt).map_or(Outcome::Reject, Outcome::RetryAfter)
            }
        }
    }

    /// The same for a handler that panicked: only a policy of retries decides about that.
    pub(crate) fn outcome_of_a_panic(self, attempt: u32) -> Outcome {
        match self.0 {
            Choice::Settle(_) => Outcome::Requeue,
            Choice::Retry(_) => self.outcome(attempt),
        }
    }

    pub(crate) const fn policy(self) -> Option<Retry> {
        match self.0 {
            Choice::Settle(_) => None,
            Choice::Retry(policy) => Some(policy),
        }
    }
}

impl From<Retry> for OnError {
    fn from(policy: Retry) -> Self {
        Self(Choice::Retry(policy))
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Choice::Settle(outcome) => outcome.fmt(f),
            Choice::Retry(policy) => policy.fmt(f),
        }
    }
}
