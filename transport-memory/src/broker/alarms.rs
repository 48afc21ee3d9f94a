//! The times at which queues have something to do.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::Instant;

use super::QueueKey;

/// The times at which queues have something to do: a message or the queue itself expires.
///
/// A queue that was set to an earlier time than before is in here twice; it knows which is meant.
#[derive(Default)]
pub(crate) struct Alarms(BinaryHeap<Reverse<Alarm>>);

struct Alarm {
    at: Instant,
    queue: QueueKey,
}

impl Alarms {
    pub(crate) fn set(&mut self, at: Instant, queue: QueueKey) {
        self.0.push(Reverse(Alarm { at, queue }));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(alarm)| alarm.at)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the alarms that no queue waits for any more.
    pub(crate) fn retain(&mut self, mut is_set: impl FnMut(Instant, QueueKey) -> bool) {
        self.0.retain(|Reverse(alarm)| is_set(alarm.at, alarm.queue));
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, QueueKey)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(alarm)| (alarm.at, alarm.queue))
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
