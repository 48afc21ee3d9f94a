//! A queue: its messages, its consumers, and its limits.

use std::{collections::VecDeque, sync::Arc};

use enoki_core::{Message, Overflow, QueueSpec, Result, ShortStr};
use tokio::time::Instant;

use super::{
    ConsumerKey, Entry, QueueKey, SessionKey,
    alarms::Alarms,
    consumer::Consumer,
    dead_letter::{DeadMessage, Reason},
    delayed::Delayed,
    policy::Policy,
    ready::Ready,
    slab::Slab,
};
use crate::version::Behaviour;

pub(crate) struct Queue {
    pub(crate) spec: QueueSpec,
    pub(crate) ready: Ready,
    pub(crate) delayed: Delayed,
    /// The session that has it exclusively.
    pub(crate) owner: Option<SessionKey>,
    policy: Policy,
    /// All of them, in the order in which they came. With a single active consumer the first is the active one.
    consumers: Vec<ConsumerKey>,
    /// Those that may take a message and have room for it; the first is next. Each is in `consumers`, once
    /// here, and has `is_ready` set.
    ready_consumers: VecDeque<ConsumerKey>,
    /// When it expires, unless it is used before.
    unused_until: Option<Instant>,
    /// The time at which it is in the alarms. It may be there with later times too, which do not count.
    alarm: Option<Instant>,
    next_place: u64,
}

/// Whether a queue took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is in the queue, at this place.
    Placed(u64),
    /// There is no room.
    Full,
}

impl Queue {
    pub(crate) fn new(
        spec: QueueSpec,
        owner: Option<SessionKey>,
        behaviour: &Behaviour,
    ) -> Result<Self> {
        let policy = Policy::of(&spec, behaviour)?;
        Ok(Self {
            spec,
            ready: Ready::new(policy.order),
            delayed: Delayed::default(),
            owner,
            policy,
            consumers: Vec::new(),
            ready_consumers: VecDeque::new(),
            unused_until: None,
            alarm: None,
            next_place: 0,
        })
    }

    /// Notes that it has just been used.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.unused_until = self.policy.expires.and_then(|expires| now.checked_add(expires));
    }

    pub(crate) fn is_unused(&self, now: Instant) -> bool {
        self.consumers.is_empty() && self.unused_until.is_some_and(|until| until <= now)
    }

    // --- messages in ---

    pub(crate) fn admit(
        &mut self,
        message: &Arc<Message>,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        now: Instant,
        reversed: bool,
        dead: &mut VecDeque<DeadMessage>,
    ) -> Admission {
        let too_much =
            self.exceeds(self.ready.len() + 1, self.ready.bytes() + message.body.len() as u64);
        if too_much && self.policy.overflow != Overflow::DropHead {
            if self.policy.overflow == Overflow::RejectPublishDeadLetter {
                self.dead_letter_message(message, exchange, routing_key, Reason::MaxLength, dead);
            }
            return Admission::Full;
        }
        let place = self.next_place;
        self.next_place += 1;
        let properties = &message.properties;
        let ttl = match (self.policy.message_ttl, properties.expiration) {
            (Some(queue), Some(message)) => Some(queue.min(message)),
            (queue, message) => queue.or(message),
        };
        let entry = Entry {
            place,
            level: self.policy.order.level(properties.priority),
            redelivered: false,
            failures: 0,
            expires: ttl.and_then(|ttl| now.checked_add(ttl)),
            message: Arc::clone(message),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
        };
        if reversed {
            self.ready.push_reversed(entry)
        } else {
            self.ready.push(entry)
        }
        Admission::Placed(place)
    }

    /// Takes back a delivery: to its place, or after some time. A message that has failed too often is
    /// dead-lettered.
    pub(crate) fn put_back(
        &mut self,
        entry: Entry,
        counted: bool,
        until: Option<Instant>,
        dead: &mut VecDeque<DeadMessage>,
    ) {
        let counted = counted || self.policy.counts_released;
        match (self.returned(entry, counted, dead), until) {
            (Some(entry), Some(until)) => self.delayed.push(until, entry),
            (Some(entry), None) => self.ready.put_back(entry),
            (None, _) => {}
        }
    }

    /// Whether it counts attempts.
    pub(crate) fn counts(&self) -> bool {
        self.policy.counts
    }

    fn returned(
        &self,
        mut entry: Entry,
        failed: bool,
        dead: &mut VecDeque<DeadMessage>,
    ) -> Option<Entry> {
        entry.redelivered = true;
        if failed {
            entry.failures = entry.failures.saturating_add(1);
            if self.policy.delivery_limit.is_some_and(|limit| entry.failures > limit) {
                self.dead_letter(entry, Reason::DeliveryLimit, dead);
                return None;
            }
        }
        Some(entry)
    }

    /// Gives delayed messages their place again, once their time has come.
    pub(crate) fn resume(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.pop_due(now) {
            self.ready.put_back(entry);
        }
    }

    // --- messages out ---

    /// Hands messages to the consumers that are ready, as long as there are both.
    ///
    /// What has expired is never handed out, but for the message that has just arrived at
    /// `arrived`: one that expires at once is still for a consumer that waits for it.
    pub(crate) fn dispatch(
        &mut self,
        now: Instant,
        arrived: Option<u64>,
        consumers: &mut Slab<Consumer>,
        wakes: &mut Vec<Arc<tokio::sync::Notify>>,
        dead: &mut VecDeque<DeadMessage>,
    ) {
        while let Some(&key) = self.ready_consumers.front() {
            match self.ready.head() {
                None => return,
                Some(head) if head.is_expired(now) && arrived != Some(head.place) => {
                    self.dead_letter_head(Reason::Expired, dead);
                    continue;
                }
                Some(_) => {}
            }
            let Some(consumer) = consumers.get_mut(key) else {
                self.ready_consumers.pop_front();
                continue;
            };
            let Some(entry) = self.ready.pop() else { return };
            consumer.deliver(entry);
            consumer.wake(wakes);
            // The next message is for the next consumer.
            if !consumer.has_room() {
                consumer.is_ready = false;
                self.ready_consumers.pop_front();
            } else if self.ready_consumers.len() > 1 {
                self.ready_consumers.rotate_left(1);
            }
        }
    }

    /// Removes the messages that exceed a limit, the oldest first.
    pub(crate) fn trim(&mut self, dead: &mut VecDeque<DeadMessage>) {
        if self.policy.overflow == Overflow::DropHead {
            while self.exceeds(self.ready.len(), self.ready.bytes()) && self.ready.len() > 0 {
                self.dead_letter_head(Reason::MaxLength, dead);
            }
        }
    }

    /// Removes expired messages from the head. A message that expires behind one that does not stays until
    /// that one is gone, as in RabbitMQ.
    pub(crate) fn expire(&mut self, now: Instant, dead: &mut VecDeque<DeadMessage>) {
        while self.ready.head().is_some_and(|head| head.is_expired(now)) {
            self.dead_letter_head(Reason::Expired, dead);
        }
    }

    pub(crate) fn dead_letter(
        &self,
        entry: Entry,
        reason: Reason,
        dead: &mut VecDeque<DeadMessage>,
    ) {
        self.dead_letter_message(&entry.message, &entry.exchange, &entry.routing_key, reason, dead);
    }

    fn dead_letter_message(
        &self,
        message: &Arc<Message>,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        reason: Reason,
        dead: &mut VecDeque<DeadMessage>,
    ) {
        if let Some(target) = &self.policy.dead_letter {
            dead.push_back(DeadMessage {
                message: Arc::clone(message),
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
                queue: self.spec.name.clone(),
                reason,
                target: target.clone(),
            });
        }
    }

    fn dead_letter_head(&mut self, reason: Reason, dead: &mut VecDeque<DeadMessage>) {
        if let Some(entry) = self.ready.pop() {
            self.dead_letter(entry, reason, dead);
        }
    }

    fn exceeds(&self, messages: u64, bytes: u64) -> bool {
        self.policy.max_length.is_some_and(|limit| messages > limit)
            || self.policy.max_bytes.is_some_and(|limit| bytes > limit)
    }

    // --- time ---

    /// Sets the alarm for what happens next, if it is not set so early already.
    pub(crate) fn set_alarm(&mut self, key: QueueKey, alarms: &mut Alarms) {
        let unused = if self.consumers.is_empty() { self.unused_until } else { None };
        let expiry = self.ready.head().and_then(|head| head.expires);
        let due = unused.into_iter().chain(expiry).chain(self.delayed.next());
        let Some(next) = due.min() else { return };
        if self.alarm.is_none_or(|alarm| next < alarm) {
            self.alarm = Some(next);
            alarms.set(next, key);
        }
    }

    /// Whether an alarm is the one that was set last.
    pub(crate) fn has_alarm(&self, at: Instant) -> bool {
        self.alarm == Some(at)
    }

    /// Whether an alarm is the one that was set last; it is then no longer set.
    pub(crate) fn take_alarm(&mut self, at: Instant) -> bool {
        let is_set = self.has_alarm(at);
        if is_set {
            self.alarm = None;
        }
        is_set
    }

    // --- consumers ---

    pub(crate) fn consumers(&self) -> &[ConsumerKey] {
        &self.consumers
    }

    pub(crate) fn add_consumer(&mut self, key: ConsumerKey, consumers: &mut Slab<Consumer>) {
        self.consumers.push(key);
        self.make_ready(key, consumers);
    }

    /// Removes a consumer, and says whether that leaves the queue without one.
    pub(crate) fn remove_consumer(
        &mut self,
        key: ConsumerKey,
        now: Instant,
        consumers: &mut Slab<Consumer>,
    ) -> bool {
        let before = self.consumers.len();
        self.consumers.retain(|other| *other != key);
        if self.consumers.len() == before {
            return false;
        }
        self.ready_consumers.retain(|other| *other != key);
        if self.consumers.is_empty() {
            self.touch(now);
        } else if self.policy.single_active_consumer
            && let Some(&next) = self.consumers.first()
        {
            self.make_ready(next, consumers);
        }
        self.consumers.is_empty()
    }

    /// Takes a consumer from those that are ready.
    pub(crate) fn make_unready(&mut self, key: ConsumerKey, consumers: &mut Slab<Consumer>) {
        self.ready_consumers.retain(|other| *other != key);
        if let Some(consumer) = consumers.get_mut(key) {
            consumer.is_ready = false;
        }
    }

    /// Puts a consumer at the end of those that are ready, if it may take a message and has room.
    pub(crate) fn make_ready(&mut self, key: ConsumerKey, consumers: &mut Slab<Consumer>) {
        if self.policy.single_active_consumer && self.consumers.first() != Some(&key) {
            return;
        }
        if let Some(consumer) = consumers.get_mut(key)
            && consumer.end.is_none()
            && !consumer.is_ready
            && consumer.has_room()
        {
            consumer.is_ready = true;
            self.ready_consumers.push_back(key);
        }
    }
}
