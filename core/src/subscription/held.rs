//! Deliveries that are requeued later, where the broker cannot wait.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::{Instant, sleep_until};

use crate::{deadline::deadline, outcome::Outcome, transport::Settle};

/// Deliveries that wait here, unsettled: at most as many as the prefetch.
#[derive(Debug, Default)]
pub(super) struct Held(BinaryHeap<Reverse<(Instant, u64)>>);

impl Held {
    /// Takes out what is to be requeued later.
    pub(super) fn take(&mut self, settlements: &mut Vec<Settle>) {
        settlements.retain(|settle| match settle.outcome {
            Outcome::RetryAfter(delay) => {
                self.0.push(Reverse((deadline(delay), settle.tag)));
                false
            }
            _ => true,
        });
    }

    /// Waits until something is due; for ever where nothing is held. Cancel safe.
    pub(super) async fn due(&self) {
        match self.0.peek() {
            Some(Reverse((time, _))) => sleep_until(*time).await,
            None => std::future::pending().await,
        }
    }

    /// Requeues what is due.
    pub(super) fn requeue_due(&mut self, settlements: &mut Vec<Settle>) {
        let now = Instant::now();
        while let Some(Reverse((time, tag))) = self.0.peek().copied()
            && time <= now
        {
            self.0.pop();
            settlements.push(Settle { tag, outcome: Outcome::Requeue });
        }
    }

    /// Requeues everything: there is no more time.
    pub(super) fn requeue_all(&mut self, settlements: &mut Vec<Settle>) {
        let all = self.0.drain().map(|Reverse((_, tag))| tag);
        settlements.extend(all.map(|tag| Settle { tag, outcome: Outcome::Requeue }));
    }
}
