//! Which messages are published again, how often, and when.

use std::time::Duration;

use crate::{backoff::Backoff, error::Error};

/// Which messages are published again, how often, and when: always with the id of the first try, and
/// never past the message's deadline.
///
/// By default that is a message whose connection broke before the outcome was known, as often as
/// there is time. The broker may have it already, so it may be delivered twice, with one id.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::{PublisherOptions, RetryPolicy};
///
/// let policy = RetryPolicy::new().retries(3).backoff(Duration::from_millis(50), Duration::from_secs(1));
/// let options = PublisherOptions::new().retry(policy);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    retries: u32,
    backoff: Backoff,
    refused: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: u32::MAX,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            refused: false,
        }
    }
}

impl RetryPolicy {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// No second try: what has no outcome is [`Indeterminate`](crate::ErrorKind::Indeterminate) at
    /// once.
    pub fn never() -> Self {
        Self::default().retries(0)
    }

    /// How many more tries there are after the first; as many as there is time for by default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long to wait before the first retry and at most before any, doubling in between, with
    /// some jitter; 100 milliseconds and 5 seconds by default.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff::new(first, longest);
        self
    }

    /// Publishes again also what the broker refused, for instance since a queue was full. It loses
    /// its place: messages published after it may come before it.
    #[must_use]
    pub fn also_refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Whether a message that was sent this often may be sent again.
    pub(super) fn allows(&self, sent: u32) -> bool {
        sent <= self.retries
    }

    /// Whether this refusal is worth another try.
    pub(super) fn is_passing(&self, refusal: &Error) -> bool {
        self.refused || refusal.is_transient()
    }

    /// How long to wait before the next try, after this many.
    pub(super) fn delay(&self, tries: u32) -> Duration {
        self.backoff.after(tries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_policy_of_three_retries_allows_four_tries() {
        let policy = RetryPolicy::new().retries(3);
        assert_eq!(
            (1..6).map(|sent| policy.allows(sent)).collect::<Vec<_>>(),
            [true, true, true, false, false]
        );
        assert!(!RetryPolicy::never().allows(1));
        assert!(RetryPolicy::new().allows(1_000_000));
    }

    #[test]
    fn the_waits_grow_to_the_longest_and_differ() {
        let policy =
            RetryPolicy::new().backoff(Duration::from_millis(10), Duration::from_millis(80));
        for (tries, least) in [(1, 10), (2, 20), (3, 40), (4, 80), (50, 80), (u32::MAX, 80)] {
            let delay = policy.delay(tries);
            let least = Duration::from_millis(least);
            assert!(delay >= least && delay <= 2 * least, "{tries}: {delay:?}");
        }
        let delays: std::collections::HashSet<_> = (0..50).map(|_| policy.delay(4)).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }

    #[test]
    fn a_refusal_is_final_unless_it_says_otherwise_or_the_program_does() {
        let full = Error::new(ErrorKind::Refused, "publish");
        assert!(!RetryPolicy::new().is_passing(&full));
        assert!(RetryPolicy::new().is_passing(&full.clone().transient(true)));
        assert!(RetryPolicy::new().also_refused().is_passing(&full));
    }
}
