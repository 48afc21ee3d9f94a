//! What the frames of a link say that fe2o3-amqp keeps to itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

const WINDOW_OF_0: &str =
    "it takes no messages for the time being, for want of memory or disk space";

/// The links that somebody watches, by name, and what there is to know of sessions.
#[derive(Debug, Default)]
pub(crate) struct Links {
    gauges: Mutex<HashMap<String, Weak<Gauge>>>,
    /// When a session last ended.
    ended: Mutex<Option<Instant>>,
    /// Whether the broker takes no messages on this connection for the time being.
    blocked: AtomicBool,
    alarm: Arc<Alarm>,
}

/// Why the broker takes no messages for the time being on a session's connections, if it takes none.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// On how many of them.
    connections: Mutex<usize>,
    reason: watch::Sender<Option<Arc<str>>>,
}

impl Alarm {
    fn count(&self, is_blocked: bool) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections = match is_blocked {
            true => connections.saturating_add(1),
            false => connections.saturating_sub(1),
        };
        let is_blocked = *connections > 0;
        self.reason.send_if_modified(|reason| {
            let changes = reason.is_some() != is_blocked;
            if changes {
                *reason = is_blocked.then(|| WINDOW_OF_0.into());
            }
            changes
        });
    }

    /// The reason, as it changes.
    pub(crate) fn reason(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.reason.subscribe()
    }
}

impl Links {
    /// Those of a connection whose session has this alarm.
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self { alarm, ..Self::default() }
    }

    /// The broker takes no messages, or takes them again. It does not say why.
    pub(crate) fn block(&self, is_blocked: bool) {
        if self.blocked.swap(is_blocked, Ordering::AcqRel) != is_blocked {
            self.alarm.count(is_blocked);
        }
    }

    /// Watches the link that will have this name.
    pub(crate) fn watch(&self, name: &str) -> Arc<Gauge> {
        let gauge = Arc::new(Gauge::default());
        let mut links = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, gauge| gauge.strong_count() > 0);
        links.insert(name.to_owned(), Arc::downgrade(&gauge));
        gauge
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Gauge>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.upgrade()
    }

    pub(crate) fn session_ended(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When a session last ended.
    pub(crate) fn last_end(&self) -> Option<Instant> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much came in on a link, and whether that is all.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    deliveries: AtomicU64,
    drained: AtomicBool,
    changed: Notify,
}

impl Gauge {
    pub(crate) fn delivered(&self) {
        self.deliveries.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn drained(&self) {
        self.drained.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// How many deliveries came in before the broker had given up all credit; `None` while it has
    /// some.
    pub(crate) fn total(&self) -> Option<u64> {
        self.drained.load(Ordering::Acquire).then(|| self.deliveries.load(Ordering::Acquire))
    }

    /// Waits until the broker has given up all credit. Cancel safe.
    pub(crate) async fn emptied(&self) {
        while self.total().is_none() {
            self.changed.notified().await;
        }
    }
}
