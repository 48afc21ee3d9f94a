//! Publishing: a message goes into queues, and a dead-lettered one into others.

use std::sync::Arc;

use enoki_core::{
    Error, ErrorKind, Message, Result, ShortStr, Timestamp,
    transport::{Outgoing, PublishOutcome},
};
use tokio::time::Instant;

use super::{QueueKey, State, queue::Admission, routing::Targets};
use crate::{error, fault::Fault};

/// The route of the message before, for the next one with the same exchange and key.
///
/// Set only where the route depends on the exchange and the key alone, and valid for one batch: the lock is
/// held meanwhile, so that no binding changes.
#[derive(Default)]
pub(crate) struct LastRoute(Option<(ShortStr, ShortStr, Targets)>);

impl State {
    pub(crate) fn publish(
        &mut self,
        outgoing: &Outgoing,
        last: &mut LastRoute,
        now: Instant,
    ) -> PublishOutcome {
        let Outgoing { exchange, routing_key, message, .. } = outgoing;
        let targets = match &last.0 {
            Some((last_exchange, last_key, targets))
                if last_exchange == exchange && last_key == routing_key =>
            {
                Arc::clone(targets)
            }
            _ => match self.resolve(exchange, routing_key, message, last) {
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
        // Before the next message arrives, so that dead letters keep their order.
        self.route_dead(now);
        match full {
            None => PublishOutcome::Confirmed,
            Some(queue) => PublishOutcome::Rejected(self.full(queue)),
        }
    }

    fn resolve(
        &mut self,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        message: &Message,
        last: &mut LastRoute,
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
        let route = self
            .routing
            .resolve(exchange, routing_key, &message.headers)
            .ok_or_else(|| error::no_exchange("publish", exchange))?;
        last.0 = route
            .is_fixed
            .then(|| (exchange.clone(), routing_key.clone(), Arc::clone(&route.targets)));
        Ok(route.targets)
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
        let (dead, wakes) = (&mut self.dead, &mut self.wakes);
        let Admission::Placed(place) =
            queue.admit(message, exchange, routing_key, now, reversed, dead)
        else {
            return false;
        };
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

    /// Publishes dead messages to where their queues send them, and those that die of it, and so on. It
    /// ends: no message dies twice in one queue without a rejection by a consumer in between.
    pub(super) fn route_dead(&mut self, now: Instant) {
        while let Some(dead_message) = self.dead.pop_front() {
            let message = Arc::new(dead_message.message(self.date(now)));
            let (exchange, key) = (&dead_message.target.exchange, dead_message.routing_key());
            let Some(route) = self.routing.resolve(exchange, key, &message.headers) else {
                tracing::warn!(
                    queue = &*dead_message.queue,
                    exchange = &**exchange,
                    "dropped a dead letter: no exchange"
                );
                continue;
            };
            if route.targets.is_empty() {
                tracing::warn!(
                    queue = &*dead_message.queue,
                    exchange = &**exchange,
                    "dropped a dead letter: no queue"
                );
            }
            for &target in route.targets.iter() {
                if self.queues.get(target).is_some_and(|q| dead_message.would_cycle(&q.spec.name)) {
                    tracing::warn!(
                        queue = &*dead_message.queue,
                        "dropped a dead letter: it died in this queue before"
                    );
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
}
