//! Consuming: a message goes out of a queue, and comes back or is settled.

use std::sync::Arc;

use enoki_core::{
    Disposition, Result, ShortStr,
    transport::{Delivered, Settle, later},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    ConsumerKey, QueueKey, SessionKey, State,
    consumer::{Consumer, ConsumerEnd, Taken},
    dead_letter::Reason,
    queue::Queue,
};
use crate::fault::Fault;

impl State {
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
        let counts = self.queues.get(key).is_some_and(Queue::counts);
        let consumer = Consumer::new(key, session, prefetch, counts, waker);
        let consumer = self.consumers.insert(consumer);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.add_consumer(consumer, &mut self.consumers);
        }
        self.advance(key, now);
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
            let removes = match settle.disposition {
                Disposition::Accept | Disposition::Reject => true,
                Disposition::Return { .. } => false,
            };
            if !removes && consumer.lingers() {
                continue;
            }
            let Some(entry) = consumer.settle(settle.tag) else { continue };
            match settle.disposition {
                Disposition::Accept => {}
                Disposition::Reject if self.faults.has(Fault::RejectIsAck) => {}
                Disposition::Reject => queue.dead_letter(entry, Reason::Rejected, &mut self.dead),
                Disposition::Return { counted: true, after: None }
                    if self.faults.has(Fault::RequeueIsAck) => {}
                Disposition::Return { counted, after } => {
                    let counted = counted || self.faults.has(Fault::ReleaseIsCounted);
                    let delay = after.filter(|_| !self.faults.has(Fault::DelayIsIgnored));
                    let until = delay.map(|delay| later(now, delay));
                    queue.put_back(entry, counted, until, &mut self.dead);
                    has_returned = true;
                }
            }
        }
        queue.make_ready(key, &mut self.consumers);
        if has_returned || queue.ready.len() > 0 {
            self.advance(queue_key, now);
        }
    }

    /// Stops a consumer: it gets nothing more, and may still settle what it has.
    pub(crate) fn stop(&mut self, key: ConsumerKey, now: Instant) {
        if let Some(queue) = self.detach(key, ConsumerEnd::Stopped, now) {
            self.advance(queue, now);
        }
    }

    /// Stops a consumer that stays its queue's active one until it is closed. What comes back from it
    /// comes back then, in its order.
    pub(crate) fn stop_last(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        consumer.end.get_or_insert(ConsumerEnd::Lingers);
        consumer.wake(&mut self.wakes);
        if let Some(queue) = self.queues.get_mut(consumer.queue) {
            queue.make_unready(key, &mut self.consumers);
        }
    }

    /// Removes a consumer; what it has not settled goes back.
    pub(crate) fn close_consumer(&mut self, key: ConsumerKey, now: Instant) {
        self.detach(key, ConsumerEnd::Stopped, now);
        self.return_unsettled(key, now);
        self.consumers.remove(key);
    }

    /// Takes a consumer from its queue, which goes if it was to go with its last one.
    pub(super) fn detach(
        &mut self,
        key: ConsumerKey,
        end: ConsumerEnd,
        now: Instant,
    ) -> Option<QueueKey> {
        let consumer = self.consumers.get_mut(key)?;
        // A session that is lost is lost for consumers that had stopped before, too.
        if matches!(consumer.end, None | Some(ConsumerEnd::Lingers))
            || matches!(end, ConsumerEnd::Lost(_))
        {
            consumer.end = Some(end);
        }
        consumer.is_ready = false;
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

    pub(super) fn return_unsettled(&mut self, key: ConsumerKey, now: Instant) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let queue_key = consumer.queue;
        let entries = consumer.settle_all();
        let Some(queue) = self.queues.get_mut(queue_key) else { return };
        for entry in entries {
            queue.put_back(entry, true, None, &mut self.dead);
        }
        self.advance(queue_key, now);
    }

    /// Lets a queue do what it can now: after a message came back, or a consumer came.
    pub(super) fn advance(&mut self, key: QueueKey, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let (dead, wakes) = (&mut self.dead, &mut self.wakes);
        queue.resume(now);
        queue.trim(dead);
        queue.expire(now, dead);
        queue.dispatch(now, None, &mut self.consumers, wakes, dead);
        queue.set_alarm(key, &mut self.alarms);
    }
}
