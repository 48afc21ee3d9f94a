//! A consumer as the broker knows it, with its unsettled deliveries.

use std::{collections::VecDeque, sync::Arc};

use enoki_core::{Attempt, Counted, transport::Delivered};
use tokio::{sync::Notify, time::Instant};

use super::{Entry, QueueKey, SessionKey};
use crate::error::Ending;

pub(crate) struct Consumer {
    pub(crate) queue: QueueKey,
    pub(crate) session: SessionKey,
    pub(crate) prefetch: usize,
    /// Whether its queue counts attempts.
    counts: bool,
    /// How many deliveries it has had.
    delivered: u64,
    /// Whether it is among the `ready_consumers` of its queue.
    pub(crate) is_ready: bool,
    pub(crate) end: Option<ConsumerEnd>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slots whose deliveries the receiver has not taken yet.
    inbox: VecDeque<u32>,
    waker: Arc<Notify>,
    sleep: Sleep,
}

/// Why a consumer gets no more deliveries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConsumerEnd {
    Stopped,
    /// It stopped, and stays its queue's active consumer until it is closed.
    Lingers,
    QueueDeleted,
    Lost(Ending),
}

/// Place for one unsettled delivery.
struct Slot {
    /// Counts its deliveries, so that a late settlement does not hit the next one.
    serial: u32,
    /// Which of its consumer's deliveries it is.
    number: u64,
    entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sleep {
    Awake,
    /// Until there is something to take, or until this time, when something is due.
    Until(Option<Instant>),
}

/// The answer to a receiver that asks for deliveries.
pub(crate) enum Taken {
    Some,
    End(ConsumerEnd),
    /// Nothing yet: wait for the waker, at most until this time.
    Wait(Option<Instant>),
}

impl Consumer {
    pub(crate) fn new(
        queue: QueueKey,
        session: SessionKey,
        prefetch: usize,
        counts: bool,
        waker: Arc<Notify>,
    ) -> Self {
        Self {
            queue,
            session,
            prefetch,
            counts,
            delivered: 0,
            is_ready: false,
            end: None,
            slots: Vec::new(),
            free: Vec::new(),
            inbox: VecDeque::new(),
            waker,
            sleep: Sleep::Awake,
        }
    }

    pub(crate) fn lingers(&self) -> bool {
        matches!(self.end, Some(ConsumerEnd::Lingers))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() - self.free.len() < self.prefetch
    }

    pub(crate) fn deliver(&mut self, entry: Entry) {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { serial: 0, number: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.serial = slot.serial.wrapping_add(1);
            slot.number = self.delivered;
            self.delivered += 1;
            slot.entry = Some(entry);
            self.inbox.push_back(index);
        }
    }

    /// Takes deliveries for the receiver, or notes that it is about to sleep.
    pub(crate) fn take(
        &mut self,
        into: &mut Vec<Delivered>,
        max: usize,
        next_alarm: Option<Instant>,
    ) -> Taken {
        self.sleep = Sleep::Awake;
        let count = self.inbox.len().min(max.max(1));
        if count > 0 {
            into.reserve(count);
            for index in self.inbox.drain(..count) {
                if let Some(slot) = self.slots.get(index as usize)
                    && let Some(entry) = &slot.entry
                {
                    let tag = u64::from(slot.serial) << 32 | u64::from(index);
                    into.push(delivered(tag, entry, self.counts));
                }
            }
            return Taken::Some;
        }
        if let Some(end) = self.end {
            return Taken::End(end);
        }
        self.sleep = Sleep::Until(next_alarm);
        Taken::Wait(next_alarm)
    }

    /// Takes back the delivery with this tag, unless it was taken back before.
    pub(crate) fn settle(&mut self, tag: u64) -> Option<Entry> {
        let index = tag as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if slot.serial != (tag >> 32) as u32 {
            return None;
        }
        let entry = slot.entry.take()?;
        self.free.push(index);
        Some(entry)
    }

    /// Takes back everything unsettled, given to the receiver or not, in the order of the deliveries.
    pub(crate) fn settle_all(&mut self) -> impl Iterator<Item = Entry> {
        self.inbox.clear();
        self.free.clear();
        let mut slots = std::mem::take(&mut self.slots);
        slots.sort_unstable_by_key(|slot| slot.number);
        slots.into_iter().filter_map(|slot| slot.entry)
    }

    /// Wakes the receiver if it sleeps.
    pub(crate) fn wake(&mut self, wakes: &mut Vec<Arc<Notify>>) {
        if self.sleep != Sleep::Awake {
            self.sleep = Sleep::Awake;
            wakes.push(Arc::clone(&self.waker));
        }
    }

    /// Wakes the receiver if it would sleep past this time.
    pub(crate) fn wake_before(&mut self, time: Instant, wakes: &mut Vec<Arc<Notify>>) {
        match self.sleep {
            Sleep::Until(Some(until)) if until <= time => {}
            _ => self.wake(wakes),
        }
    }
}

fn delivered(tag: u64, entry: &Entry, counts: bool) -> Delivered {
    let attempt = if counts {
        Attempt { number: entry.failures.saturating_add(1), counted: Counted::ByBroker }
    } else {
        Attempt::from_flag(entry.redelivered)
    };
    Delivered {
        tag,
        message: Arc::clone(&entry.message),
        exchange: entry.exchange.clone(),
        routing_key: entry.routing_key.clone(),
        redelivered: entry.redelivered,
        attempt,
        undecodable: None,
    }
}
