//! How far the broker is with the deliveries of a link: fe2o3-amqp reads it on the wire and does not tell.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::proto::event::LinkId;

/// The links of one connection whose progress is watched, by name.
#[derive(Debug, Default)]
pub(crate) struct LinkRegistry(Mutex<HashMap<String, Weak<LinkProgress>>>);

impl LinkRegistry {
    /// Watches the link that will be attached with this name.
    pub(crate) fn watch(&self, name: &str) -> Arc<LinkProgress> {
        let progress = Arc::new(LinkProgress::default());
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, progress| progress.strong_count() > 0);
        watched.insert(name.to_owned(), Arc::downgrade(&progress));
        progress
    }

    fn find(&self, name: &str) -> Option<Arc<LinkProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.upgrade()
    }
}

/// The watched links that are attached, by the broker's channel and handle.
#[derive(Debug, Default)]
pub(super) struct AttachedLinks(HashMap<LinkId, Arc<LinkProgress>>);

impl AttachedLinks {
    pub(super) fn attached(&mut self, link: LinkId, name: &str, registry: &LinkRegistry) {
        if let Some(progress) = registry.find(name) {
            self.0.insert(link, progress);
        }
    }

    pub(super) fn detached(&mut self, link: LinkId) {
        self.0.remove(&link);
    }

    /// The AMQP session on this channel ended, with all its links.
    pub(super) fn session_ended(&mut self, channel: u16) {
        self.0.retain(|link, _| link.channel != channel);
    }

    pub(super) fn delivered(&self, link: LinkId) {
        if let Some(progress) = self.0.get(&link) {
            progress.delivered();
        }
    }

    pub(super) fn drained(&self, link: LinkId) {
        if let Some(progress) = self.0.get(&link) {
            progress.drained();
        }
    }
}

/// How many deliveries came in on a link, and whether the broker will send more.
///
/// `deliveries` no longer changes once `is_drained` is set: the broker sends its last delivery before it says
/// that no credit is left (§2.6.7), and this side grants no more credit after it asked for that.
#[derive(Debug, Default)]
pub(crate) struct LinkProgress {
    deliveries: AtomicU64,
    is_drained: AtomicBool,
    drained: Notify,
}

impl LinkProgress {
    fn delivered(&self) {
        self.deliveries.fetch_add(1, Ordering::AcqRel);
    }

    fn drained(&self) {
        self.is_drained.store(true, Ordering::Release);
        self.drained.notify_one();
    }

    /// How many deliveries came in before the broker had no credit left; `None` while it may have some.
    pub(crate) fn total(&self) -> Option<u64> {
        self.is_drained.load(Ordering::Acquire).then(|| self.deliveries.load(Ordering::Acquire))
    }

    /// Waits until the broker has said that it has no credit left. Cancel safe.
    pub(crate) async fn wait_drained(&self) {
        while self.total().is_none() {
            self.drained.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: LinkId = LinkId { channel: 3, handle: 5 };
    const OTHER: LinkId = LinkId { channel: 3, handle: 6 };

    #[test]
    fn a_link_has_a_total_once_it_is_drained() {
        let registry = LinkRegistry::default();
        let progress = registry.watch("mine");
        let mut attached = AttachedLinks::default();
        attached.attached(MINE, "mine", &registry);
        attached.attached(OTHER, "other", &registry);
        attached.delivered(MINE);
        attached.delivered(OTHER);
        attached.drained(OTHER);
        assert_eq!(progress.total(), None);
        attached.delivered(MINE);
        attached.drained(MINE);
        assert_eq!(progress.total(), Some(2));
    }

    #[test]
    fn a_link_that_is_gone_is_not_counted() {
        let registry = LinkRegistry::default();
        let progress = registry.watch("mine");
        let mut attached = AttachedLinks::default();
        attached.attached(MINE, "mine", &registry);
        attached.detached(MINE);
        attached.delivered(MINE);
        attached.attached(MINE, "mine", &registry);
        attached.session_ended(3);
        attached.delivered(MINE);
        attached.attached(MINE, "mine", &registry);
        attached.session_ended(4);
        attached.drained(MINE);
        assert_eq!(progress.total(), Some(0));
    }
}
