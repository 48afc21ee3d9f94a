//! The messages of a queue that wait for a consumer, in their order.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use enoki_core::{Message, ShortStr};
use tokio::time::Instant;

use crate::version::Priorities;

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

/// Waiting messages, in their order.
pub(crate) struct Ready {
    order: Order,
    levels: Vec<Level>,
    /// Messages that came back to a replicated queue: they go before all others.
    returned: VecDeque<Entry>,
    /// How many were taken, other than from `returned`.
    taken: u64,
    len: u64,
    bytes: u64,
}

/// In which order messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The highest priority first, then the place in the queue, which a message has again when it comes
    /// back: a classic queue.
    Places { levels: u8 },
    /// First the messages that came back, in the order in which they did: a replicated queue.
    Returned(Priorities),
}

impl Order {
    /// The level of a message with this priority.
    pub(crate) fn level(self, priority: Option<u8>) -> u8 {
        match self {
            Self::Places { levels } => priority.unwrap_or(0).min(levels),
            Self::Returned(Priorities::None) => 0,
            Self::Returned(Priorities::Two) => {
                u8::from(priority.is_some_and(|priority| priority > 4))
            }
            Self::Returned(Priorities::Strict) => priority.unwrap_or(4).min(HIGHEST),
        }
    }

    fn highest(self) -> u8 {
        self.level(Some(u8::MAX))
    }
}

/// The highest priority of a replicated queue that tells all apart.
const HIGHEST: u8 = 31;

/// Messages of one priority.
///
/// Whatever came back was taken from the front before, so it has a lower place than all that never
/// left: no search is needed to give it its place again.
#[derive(Default)]
struct Level {
    returned: BinaryHeap<Returned>,
    fresh: VecDeque<Entry>,
}

impl Level {
    fn head(&self) -> Option<&Entry> {
        match self.returned.peek() {
            Some(Returned(entry)) => Some(entry),
            None => self.fresh.front(),
        }
    }

    fn place(&self) -> Option<u64> {
        self.head().map(|entry| entry.place)
    }

    fn pop(&mut self) -> Option<Entry> {
        match self.returned.pop() {
            Some(Returned(entry)) => Some(entry),
            None => self.fresh.pop_front(),
        }
    }
}

impl Ready {
    pub(crate) fn new(order: Order) -> Self {
        let levels = (0..=order.highest()).map(|_| Level::default()).collect();
        Self { order, levels, returned: VecDeque::new(), taken: 0, len: 0, bytes: 0 }
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
        match self.order {
            Order::Returned(_) => self.returned.push_back(entry),
            Order::Places { .. } => {
                if let Some(level) = self.levels.get_mut(usize::from(entry.level)) {
                    level.returned.push(Returned(entry));
                }
            }
        }
    }

    pub(crate) fn head(&self) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        self.returned.front().or_else(|| self.next_level()?.head())
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let entry = match self.returned.pop_front() {
            Some(entry) => entry,
            None => {
                let level = usize::from(self.next_level()?.head()?.level);
                self.taken = self.taken.wrapping_add(1);
                self.levels.get_mut(level)?.pop()?
            }
        };
        self.len -= 1;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    /// The level from which the next message comes.
    fn next_level(&self) -> Option<&Level> {
        let mut levels = self.levels.iter().rev().filter(|level| level.head().is_some());
        let highest = levels.next()?;
        if let Order::Returned(Priorities::Two) = self.order
            && self.taken % 3 == 2
            && let Some(lower) = levels.next()
            && lower.place() < highest.place()
        {
            return Some(lower);
        }
        Some(highest)
    }

    pub(crate) fn clear(&mut self) {
        for level in &mut self.levels {
            *level = Level::default();
        }
        self.returned.clear();
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
