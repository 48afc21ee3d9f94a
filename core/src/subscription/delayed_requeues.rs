//! Deliveries that are returned later, where the broker cannot keep them until then.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::{Instant, sleep_until};

use crate::{deadline::deadline, outcome::Disposition, transport::Settle};

/// Deliveries that wait here, unsettled: at most as many as the prefetch.
///
/// Each with its time, its tag, and whether it counts as an attempt.
#[derive(Debug, Default)]
pub(super) struct DelayedRequeues(BinaryHeap<Reverse<(Instant, u64, bool)>>);

impl DelayedRequeues {
    /// Takes out the deliveries that are to be returned later.
    pub(super) fn take(&mut self, settlements: &mut Vec<Settle>) {
        settlements.retain(|settle| match settle.disposition {
            Disposition::Return { counted, after: Some(delay) } => {
                self.0.push(Reverse((deadline(delay), settle.tag, counted)));
                false
            }
            Disposition::Accept | Disposition::Return { after: None, .. } | Disposition::Reject => {
                true
            }
        });
    }

    /// Waits until a delivery is due; without end where none is delayed. Cancel safe.
    pub(super) async fn due(&self) {
        match self.0.peek() {
            Some(Reverse((time, ..))) => sleep_until(*time).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the deliveries that are due.
    pub(super) fn requeue_due(&mut self, settlements: &mut Vec<Settle>) {
        let now = Instant::now();
        while let Some(Reverse((time, tag, counted))) = self.0.peek().copied()
            && time <= now
        {
            self.0.pop();
            settlements.push(returned(tag, counted));
        }
    }

    /// Returns all of them: there is no more time.
    pub(super) fn requeue_all(&mut self, settlements: &mut Vec<Settle>) {
        settlements.extend(self.0.drain().map(|Reverse((_, tag, counted))| returned(tag, counted)));
    }
}

fn returned(tag: u64, counted: bool) -> Settle {
    Settle::new(tag, Disposition::Return { counted, after: None })
}
