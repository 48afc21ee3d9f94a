//! The messages of a queue that wait for a consumer, in their order.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use enoki_core::{Message, ShortStr};
use tokio::time::Instant;

/// A message in a queue.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place among those of the same level: the number of its arrival.
    pub(crate) place: u64,
    /// Its priority, as far as the queue tells priorities apart.
    pub(crate) level: u8,
    pub(crate) redelivered: bool,
    /// How many attempts have failed.
    pub(crate) failures: u32,
    pub(crate) expires: Option<Instant>,
    pub(crate) message: Arc<Message>,
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
}

impl Entry {
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn bytes(&self) -> u64 {
        self.message.body.len() as u64
    }
}

/// Waiting messages: the highest priority first, then in the order of arrival.
pub(crate) struct Ready {
    levels: Vec<Level>,
    len: u64,
    bytes: u64,
}

/// Messages of one priority.
///
/// Whatever came back was taken from the front before, so it has a lower place than all that never
/// left: no search is needed to give it its place again.
#[derive(Default)]
struct Level {
    returned: BinaryHeap<Returned>,
    fresh: VecDeque<Entry>,
}

impl Ready {
    pub(crate) fn new(max_priority: u8) -> Self {
        let levels = (0..=max_priority).map(|_| Level::default()).collect();
        Self { levels, len: 0, bytes: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a message that has just arrived.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count(&entry);
        if let Some(level) = self.levels.get_mut(usize::from(entry.level)) {
            level.fresh.push_back(entry);
        }
    }

    /// Adds a message at the wrong end.
    pub(crate) fn push_reversed(&mut self, entry: Entry) {
        self.count(&entry);
        if let Some(level) = self.levels.get_mut(usize::from(entry.level)) {
            level.fresh.push_front(entry);
        }
    }

    /// Gives a message that was taken its place again.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.count(&entry);
        if let Some(level) = self.levels.get_mut(usize::from(entry.level)) {
            level.returned.push(Returned(entry));
        }
    }

    pub(crate) fn head(&self) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        self.levels.iter().rev().find_map(|level| match level.returned.peek() {
            Some(Returned(entry)) => Some(entry),
            None => level.fresh.front(),
        })
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let entry = self.levels.iter_mut().rev().find_map(|level| match level.returned.pop() {
            Some(Returned(entry)) => Some(entry),
            None => level.fresh.pop_front(),
        })?;
        self.len -= 1;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    pub(crate) fn clear(&mut self) {
        for level in &mut self.levels {
            *level = Level::default();
        }
        (self.len, self.bytes) = (0, 0);
    }

    fn count(&mut self, entry: &Entry) {
        self.len += 1;
        self.bytes += entry.bytes();
    }
}

/// Ordered so that the lowest place is the greatest, which is what the heap gives first.
struct Returned(Entry);

impl PartialEq for Returned {
    fn eq(&self, other: &Self) -> bool {
        self.0.place == other.0.place
    }
}

impl Eq for Returned {}

impl PartialOrd for Returned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Returned {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.place.cmp(&self.0.place)
    }
}
