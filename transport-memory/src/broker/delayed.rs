//! The messages of a queue that were requeued for later.

use std::{cmp::Ordering, collections::BinaryHeap};

use tokio::time::Instant;

use super::Entry;

/// Messages that no consumer gets before their time.
#[derive(Default)]
pub(crate) struct Delayed(BinaryHeap<Waiting>);

struct Waiting {
    until: Instant,
    entry: Entry,
}

impl Delayed {
    pub(crate) fn push(&mut self, until: Instant, entry: Entry) {
        self.0.push(Waiting { until, entry });
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|waiting| waiting.until)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|waiting| waiting.entry)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ordered so that the earliest is the greatest, which is what the heap gives first.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.until, other.entry.place).cmp(&(self.until, self.entry.place))
    }
}
