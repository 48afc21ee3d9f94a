//! The broker itself: all of its state behind one lock.
//!
//! One lock makes every operation happen at one point in time, which is what a reference is for. It
//! is taken once for a batch of messages and never held across an await. Nothing runs in the
//! background: every operation first lets happen what is due, and a receiver that waits sleeps no
//! longer than until the next thing is due.

mod alarms;
mod consumer;
mod dead_letter;
mod headers_match;
mod policy;
mod queue;
mod ready;
mod routing;
mod slab;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use enoki_core::{
    Error, ErrorKind, Message, Outcome, Result, ShortStr, Timestamp,
    transport::{Delivered, Outgoing, PublishOutcome, Settle},
};
use tokio::{sync::Notify, time::Instant};

use self::{
    alarms::Alarms,
    consumer::Consumer,
    dead_letter::{Corpse, Reason},
    queue::Admission,
    ready::Entry,
    routing::Targets,
    slab::{Key, Slab},
};
pub(crate) use self::{
    consumer::{ConsumerEnd, Taken},
    headers_match::HeadersMatch,
    queue::Queue,
    routing::Routing,
};
use crate::{
    error::{self, Ending},
    fault::{Fault, Faults},
    session::Signal,
};

pub(crate) type QueueKey = Key<Queue>;
pub(crate) type ConsumerKey = Key<Consumer>;
pub(crate) type SessionKey = Key<Arc<Signal>>;

#[derive(Default)]
pub(crate) struct Broker(Mutex<State>);

pub(crate) struct State {
    pub(crate) faults: Faults,
    pub(crate) routing: Routing,
    pub(crate) queues: Slab<Queue>,
    consumers: Slab<Consumer>,
    sessions: Slab<Arc<Signal>>,
    alarms: Alarms,
    /// Messages that died in this operation.
    dead: VecDeque<Corpse>,
    /// Receivers to wake when the lock is free again.
    wakes: Vec<Arc<Notify>>,
    /// One moment on both clocks: the one that tests move, and the one that has dates.
    origin: (Instant, SystemTime),
}

/// The way of the message before, for the next one with the same exchange and key.
#[derive(Default)]
pub(crate) struct LastWay(Option<(ShortStr, ShortStr, Targets)>);

impl Broker {
    /// Does something to the state, after what is due and before those who wait are woken.
    pub(crate) fn with<R>(&self, operation: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let next_alarm = state.alarms.next();
        state.run_due(now);
        let result = operation(&mut state, now);
        state.route_dead(now);
        state.wake_for_earlier_alarm(next_alarm);
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        for waker in wakes {
            waker.notify_one();
        }
        result
    }

    /// Ends all sessions as if the network had.
    pub(crate) fn drop_sessions(&self) {
        let signals: Vec<_> = self.with(|state, now| {
            let keys: Vec<_> = state.sessions.iter().map(|(key, _)| key).collect();
            state.end_sessions(&keys, Ending::Dropped, now)
        });
        signals.iter().for_each(|signal| signal.announce());
    }
}

impl State {
    // --- sessions ---

    pub(crate) fn open_session(&mut self, signal: Arc<Signal>) -> SessionKey {
        self.sessions.insert(signal)
    }

    /// Ends sessions: their deliveries go back, their exclusive queues go. The signals are for
    /// announcing the ends when the lock is free.
    pub(crate) fn end_sessions(
        &mut self,
        keys: &[SessionKey],
        ending: Ending,
        now: Instant,
    ) -> Vec<Arc<Signal>> {
        let mut signals = Vec::new();
        for &key in keys {
            if let Some(signal) = self.sessions.remove(key) {
                signal.end(ending);
                signals.push(signal);
            }
        }
        if signals.is_empty() {
            return signals;
        }
        let lost: Vec<_> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| keys.contains(&consumer.session))
            .map(|(key, _)| key)
            .collect();
        // All leave before anything goes back: no delivery goes to another that is about to leave.
        for &consumer in &lost {
            self.detach(consumer, ConsumerEnd::Lost(ending), now);
        }
        for consumer in lost {
            self.return_unsettled(consumer, now);
        }
        let owned: Vec<_> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.owner.is_some_and(|owner| keys.contains(&owner)))
            .map(|(key, _)| key)
            .collect();
        for queue in owned {
            self.delete_queue(queue);
        }
        signals
    }

    // --- publishing ---

    pub(crate) fn publish(
        &mut self,
        outgoing: &Outgoing,
        last: &mut LastWay,
        now: Instant,
    ) -> PublishOutcome {
        let Outgoing { exchange, routing_key, message, .. } = outgoing;
        let targets = match &last.0 {
            Some((last_exchange, last_key, targets))
                if last_exchange == exchange && last_key == routing_key =>
            {
                Arc::clone(targets)
            }
            _ => match self.find_way(exchange, routing_key, message, last) {
                Ok(targets) => targets,
                Err(refusal) => return PublishOutcome::Rejected(refusal),
            },
        };
        if targets.is_empty() {
            let is_told = outgoing.mandatory && !self.faults.has(Fault::UnroutableIsConfirmed);
            return if is_told { PublishOutcome::Unroutable } else { PublishOutcome::Confirmed };
        }
        if self.faults.has(Fault::MessagesAreLost) {
            return PublishOutcome::Confirmed;
        }
        let mut full = None;
        for &target in targets.iter() {
            if !self.enqueue(target, message, exchange, routing_key, now) {
                full = Some(target);
            }
        }
        // What a message dies of it has died of before the next one arrives.
        self.route_dead(now);
        match full {
            None => PublishOutcome::Confirmed,
            Some(queue) => PublishOutcome::Rejected(self.full(queue)),
        }
    }

    fn find_way(
        &mut self,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        message: &Message,
        last: &mut LastWay,
    ) -> Result<Targets> {
        match self.routing.exchange(exchange) {
            Some(spec) if spec.internal => {
                return Err(error::denied(
                    "publish",
                    error::exchange_subject(exchange),
                    "it is internal: only other exchanges publish to it",
                ));
            }
            _ => {}
        }
        let way = self
            .routing
            .way(exchange, routing_key, &message.headers)
            .ok_or_else(|| error::no_exchange("publish", exchange))?;
        last.0 =
            way.is_fixed.then(|| (exchange.clone(), routing_key.clone(), Arc::clone(&way.targets)));
        Ok(way.targets)
    }

    /// Puts a message into a queue, and says whether there was room.
    fn enqueue(
        &mut self,
        target: QueueKey,
        message: &Arc<Message>,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        now: Instant,
    ) -> bool {
        let reversed = self.faults.has(Fault::OrderIsReversed);
        let Some(queue) = self.queues.get_mut(target) else { return true };
        let Admission::Placed(place) = queue.admit(message, exchange, routing_key, now, reversed)
        else {
            return false;
        };
        let (dead, wakes) = (&mut self.dead, &mut self.wakes);
        queue.dispatch(now, Some(place), &mut self.consumers, wakes, dead);
        queue.trim(dead);
        queue.expire(now, dead);
        queue.set_alarm(target, &mut self.alarms);
        true
    }

    fn full(&self, queue: QueueKey) -> Error {
        let error = Error::new(ErrorKind::Refused, "publish").because("the queue is full");
        match self.queues.get(queue) {
            Some(queue) => error.on(queue.spec.subject()),
            None => error,
        }
    }

    /// Publishes what died to where dead messages go, and what dies of that, and so on. It comes to
    /// an end: nothing dies twice in one queue without a consumer's rejection in between.
    fn route_dead(&mut self, now: Instant) {
        while let Some(corpse) = self.dead.pop_front() {
            let message = Arc::new(corpse.message(self.date(now)));
            let (exchange, key) = (&corpse.target.exchange, corpse.routing_key());
            let Some(way) = self.routing.way(exchange, key, &message.headers) else {
                tracing::debug!(queue = %corpse.queue, %exchange, "no exchange for a dead message");
                continue;
            };
            for &target in way.targets.iter() {
                if self.queues.get(target).is_some_and(|q| corpse.would_cycle(&q.spec.name)) {
                    tracing::warn!(queue = %corpse.queue, "dropped a message that died in a circle");
                } else {
                    self.enqueue(target, &message, exchange, key, now);
                }
            }
        }
    }

    fn date(&self, now: Instant) -> Timestamp {
        let (instant, date) = self.origin;
        date.checked_add(now.saturating_duration_since(instant)).unwrap_or(date).into()
    }

    // --- consuming ---

    pub(crate) fn consume(
        &mut self,
        session: SessionKey,
        name: &ShortStr,
        prefetch: usize,
        waker: Arc<Notify>,
        now: Instant,
    ) -> Result<ConsumerKey> {
        let key = self.usable_queue("consume", name, session)?;
        let prefetch =
            if self.faults.has(Fault::PrefetchIsIgnored) { usize::MAX } else { prefetch };
        let consumer = self.consumers.insert(Consumer::new(key, session, prefetch, waker));
        if let Some(queue) = self.queues.get_mut(key) {
            queue.add_consumer(consumer, &mut self.consumers);
        }
        self.pump(key, now);
        Ok(consumer)
    }

    pub(crate) fn take(
        &mut self,
        key: ConsumerKey,
        into: &mut Vec<Delivered>,
        max: usize,
    ) -> Taken {
        let before = into.len();
        let next_alarm = self.alarms.next();
        let Some(consumer) = self.consumers.get_mut(key) else {
            return Taken::End(ConsumerEnd::Stopped);
        };
        let taken = consumer.take(into, max, next_alarm);
        if self.faults.has(Fault::RedeliveredIsLost) {
            for delivered in into.iter_mut().skip(before) {
                delivered.redelivered = false;
                delivered.attempt.number = 1;
            }
        }
        taken
    }

    pub(crate) fn settle(&mut self, key: ConsumerKey, settlements: &[Settle], now: Instant) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let queue_key = consumer.queue;
        // Deliveries of a queue that is gone are gone with it.
        let Some(queue) = self.queues.get_mut(queue_key) else {
            settlements.iter().for_each(|settle| drop(consumer.settle(settle.tag)));
            return;
        };
        let mut has_returned = false;
        for settle in settlements {
            let Some(entry) = consumer.settle(settle.tag) else { continue };
            match settle.outcome {
                Outcome::Ack => {}
                Outcome::Requeue if self.faults.has(Fault::RequeueIsAck) => {}
                Outcome::Reject if self.faults.has(Fault::RejectIsAck) => {}
                Outcome::Reject => queue.bury(entry, Reason::Rejected, &mut self.dead),
                outcome => {
                    let failed =
                        outcome != Outcome::Release || self.faults.has(Fault::ReleaseIsCounted);
                    queue.put_back(entry, failed, &mut self.dead);
                    has_returned = true;
                }
            }
        }
        queue.give_turn(key, &mut self.consumers);
        if has_returned || queue.ready.len() > 0 {
            self.pump(queue_key, now);
        }
    }

    /// Stops a consumer: it gets nothing more, and may still settle what it has.
    pub(crate) fn stop(&mut self, key: ConsumerKey, now: Instant) {
        if let Some(queue) = self.detach(key, ConsumerEnd::Stopped, now) {
            self.pump(queue, now);
        }
    }

    /// Removes a consumer; what it has not settled goes back.
    pub(crate) fn close_consumer(&mut self, key: ConsumerKey, now: Instant) {
        self.detach(key, ConsumerEnd::Stopped, now);
        self.return_unsettled(key, now);
        self.consumers.remove(key);
    }

    /// Takes a consumer from its queue, which goes if it was to go with its last one.
    fn detach(&mut self, key: ConsumerKey, end: ConsumerEnd, now: Instant) -> Option<QueueKey> {
        let consumer = self.consumers.get_mut(key)?;
        // A session that is lost is lost for those who had stopped before, too.
        if consumer.end.is_none() || matches!(end, ConsumerEnd::Lost(_)) {
            consumer.end = Some(end);
        }
        consumer.in_turn = false;
        consumer.wake(&mut self.wakes);
        let queue_key = consumer.queue;
        let queue = self.queues.get_mut(queue_key)?;
        let is_last = queue.remove_consumer(key, now, &mut self.consumers);
        if is_last && queue.spec.auto_delete {
            self.delete_queue(queue_key);
            return None;
        }
        Some(queue_key)
    }

    fn return_unsettled(&mut self, key: ConsumerKey, now: Instant) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let queue_key = consumer.queue;
        let entries = consumer.settle_all();
        let Some(queue) = self.queues.get_mut(queue_key) else { return };
        for entry in entries {
            queue.put_back(entry, true, &mut self.dead);
        }
        self.pump(queue_key, now);
    }

    /// Lets a queue do what it can now, after something came back or somebody came.
    fn pump(&mut self, key: QueueKey, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let (dead, wakes) = (&mut self.dead, &mut self.wakes);
        queue.trim(dead);
        queue.expire(now, dead);
        queue.dispatch(now, None, &mut self.consumers, wakes, dead);
        queue.set_alarm(key, &mut self.alarms);
    }

    // --- queues ---

    pub(crate) fn add_queue(&mut self, mut queue: Queue, now: Instant) {
        queue.touch(now);
        let name = queue.spec.name.clone();
        let key = self.queues.insert(queue);
        self.routing.add_queue(name, key);
        self.set_alarm(key);
    }

    /// A queue that this session may use.
    pub(crate) fn usable_queue(
        &self,
        operation: &'static str,
        name: &ShortStr,
        session: SessionKey,
    ) -> Result<QueueKey> {
        let key = self.routing.queue(name).ok_or_else(|| error::no_queue(operation, name))?;
        match self.queues.get(key).and_then(|queue| queue.owner) {
            Some(owner) if owner != session => Err(error::exclusive(operation, name)),
            _ => Ok(key),
        }
    }

    pub(crate) fn delete_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.remove(key) else { return };
        self.routing.remove_queue(&queue.spec.name);
        for &consumer in queue.consumers() {
            if let Some(consumer) = self.consumers.get_mut(consumer) {
                consumer.end.get_or_insert(ConsumerEnd::QueueDeleted);
                consumer.in_turn = false;
                consumer.wake(&mut self.wakes);
            }
        }
    }

    pub(crate) fn set_alarm(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.set_alarm(key, &mut self.alarms);
        }
    }

    // --- time ---

    fn run_due(&mut self, now: Instant) {
        // Alarms of queues that are gone, or that were set anew, must not pile up.
        if self.alarms.len() > 64 + 2 * self.queues.len() {
            let queues = &self.queues;
            self.alarms.retain(|at, key| queues.get(key).is_some_and(|queue| queue.has_alarm(at)));
        }
        while let Some((at, key)) = self.alarms.pop_due(now) {
            let Some(queue) = self.queues.get_mut(key) else { continue };
            if !queue.take_alarm(at) {
                continue;
            }
            // It happens at its time, however late that is noticed: what is moved on by it expires
            // as early as if somebody had watched.
            if queue.is_unused(at) {
                self.delete_queue(key);
            } else {
                self.pump(key, at);
                self.route_dead(at);
            }
        }
    }

    /// A receiver sleeps until the next alarm that there was: an earlier one concerns it.
    fn wake_for_earlier_alarm(&mut self, before: Option<Instant>) {
        if let Some(next) = self.alarms.next()
            && before.is_none_or(|before| next < before)
        {
            for consumer in self.consumers.values_mut() {
                consumer.wake_before(next, &mut self.wakes);
            }
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            routing: Routing::default(),
            queues: Slab::default(),
            consumers: Slab::default(),
            sessions: Slab::default(),
            alarms: Alarms::default(),
            dead: VecDeque::new(),
            wakes: Vec::new(),
            origin: (Instant::now(), SystemTime::now()),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}
