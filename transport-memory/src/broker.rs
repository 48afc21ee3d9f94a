//! The broker itself: all of its state behind one lock.
//!
//! With one lock every operation happens at one point in time, so the order of events is never in doubt. It
//! is taken once for a batch of messages, and never held across an await. There is no background task:
//! every operation first does what is due, and a receiver that waits sleeps no longer than until the next
//! time at which something is due. Why: `docs/design/14-memory-broker.md`.

mod alarms;
mod consume;
mod consumer;
mod dead_letter;
mod delayed;
mod headers_match;
mod policy;
mod publish;
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

use enoki_core::{Result, ShortStr};
use tokio::{sync::Notify, time::Instant};

use self::{
    alarms::Alarms,
    consumer::Consumer,
    dead_letter::DeadMessage,
    ready::Entry,
    slab::{Key, Slab},
};
pub(crate) use self::{
    consumer::{ConsumerEnd, Taken},
    headers_match::HeadersMatch,
    publish::LastRoute,
    queue::Queue,
    routing::Routing,
};
use crate::{
    connection::Connection,
    error::{self, Ending},
    fault::Faults,
    version::{Behaviour, Version},
};

pub(crate) type QueueKey = Key<Queue>;
pub(crate) type ConsumerKey = Key<Consumer>;
pub(crate) type SessionKey = Key<Arc<Connection>>;

pub(crate) struct Broker {
    version: Version,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) behaviour: &'static Behaviour,
    pub(crate) faults: Faults,
    pub(crate) routing: Routing,
    pub(crate) queues: Slab<Queue>,
    consumers: Slab<Consumer>,
    sessions: Slab<Arc<Connection>>,
    alarms: Alarms,
    /// Messages that were dead-lettered in this operation. Empty when the lock is free.
    dead: VecDeque<DeadMessage>,
    /// Receivers to wake when the lock is free again. Empty when it is.
    wakes: Vec<Arc<Notify>>,
    /// One moment on two clocks: tokio's, which tests can move, and the system's, which has dates.
    origin: (Instant, SystemTime),
}

impl Broker {
    pub(crate) fn like(version: Version) -> Self {
        Self { version, state: Mutex::new(State::new(version.behaviour())) }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Runs an operation on the state: what is due is done before it, and waiting receivers are woken after
    /// it.
    pub(crate) fn with<R>(&self, operation: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
        let connections: Vec<_> = self.with(|state, now| {
            let keys: Vec<_> = state.sessions.iter().map(|(key, _)| key).collect();
            state.end_sessions(&keys, Ending::Dropped, now)
        });
        connections.iter().for_each(|connection| connection.announce());
    }
}

impl State {
    // --- sessions ---

    pub(crate) fn open_session(&mut self, connection: Arc<Connection>) -> SessionKey {
        self.sessions.insert(connection)
    }

    /// Ends sessions: their deliveries go back, their exclusive queues go. The connections are for
    /// announcing the ends when the lock is free.
    pub(crate) fn end_sessions(
        &mut self,
        keys: &[SessionKey],
        ending: Ending,
        now: Instant,
    ) -> Vec<Arc<Connection>> {
        let mut connections = Vec::new();
        for &key in keys {
            if let Some(connection) = self.sessions.remove(key) {
                connection.end(ending);
                connections.push(connection);
            }
        }
        if connections.is_empty() {
            return connections;
        }
        let lost: Vec<_> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| keys.contains(&consumer.session))
            .map(|(key, _)| key)
            .collect();
        // All consumers leave before any message goes back, so that none goes to one that leaves next.
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
        connections
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
                consumer.is_ready = false;
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
            // It happens at its time, however late this process notices it: a message that moves on by
            // it expires as early as if it had moved at once.
            if queue.is_unused(at) {
                self.delete_queue(key);
            } else {
                self.advance(key, at);
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

impl State {
    fn new(behaviour: &'static Behaviour) -> Self {
        Self {
            behaviour,
            faults: Faults::default(),
            routing: Routing::new(behaviour.comparison),
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
        f.debug_struct("Broker").field("version", &self.version).finish_non_exhaustive()
    }
}
