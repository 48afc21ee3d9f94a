//! Messages without an outcome.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::QueuedMessage;
use crate::{
    error::{Error, ErrorKind},
    transport::Outgoing,
};

/// Messages without an outcome, by consecutive ids: the window slides over them.
#[derive(Default)]
pub(super) struct InFlight {
    first: u64,
    slots: VecDeque<Option<Pending>>,
}

/// A message without an outcome.
pub(super) struct Pending {
    pub(super) message: QueuedMessage,
    /// A little before its deadline: sent later than this, its outcome would come too late; and what is
    /// given up then is told with the reason, before the caller stops waiting.
    pub(super) too_late: Instant,
    /// How often a sender took it.
    pub(super) sent: u32,
}

/// How long before its deadline a message that has so much time is given up, if it was not sent: a
/// twentieth of that time, for a caller and a task that share a busy machine; not more than a quarter of a
/// second.
fn margin(time: Duration) -> Duration {
    (time / 20).clamp(Duration::from_millis(5), Duration::from_millis(250))
}

impl Pending {
    pub(super) fn new(message: QueuedMessage, now: Instant) -> Self {
        let margin = margin(message.deadline.saturating_duration_since(now));
        let too_late = message.deadline.checked_sub(margin).unwrap_or(message.deadline);
        Self { message, too_late, sent: 0 }
    }

    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "publish to").on(format!(
            "exchange {:?} with key {:?}",
            self.message.exchange.as_str(),
            self.message.routing_key.as_str()
        ))
    }

    pub(super) fn indeterminate(&self, reason: String) -> Error {
        self.error(ErrorKind::Indeterminate)
            .because(reason)
            .remedy("publish it again with the same message id, if a duplicate does no harm")
    }

    /// What a sender gets of it.
    pub(super) fn outgoing(&self, id: u64) -> Outgoing {
        let QueuedMessage { exchange, routing_key, mandatory, message, .. } = &self.message;
        Outgoing {
            id,
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            mandatory: *mandatory,
            message: message.clone(),
        }
    }
}

impl InFlight {
    /// The id of what is added next; none is used twice.
    pub(super) fn next_id(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn add(&mut self, pending: Pending) -> u64 {
        let id = self.next_id();
        self.slots.push_back(Some(pending));
        id
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Pending> {
        let at = self.at(id)?;
        let pending = self.slots.get_mut(at)?.take();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        pending
    }

    pub(super) fn get(&self, id: u64) -> Option<&Pending> {
        self.slots.get(self.at(id)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Pending> {
        let at = self.at(id)?;
        self.slots.get_mut(at)?.as_mut()
    }

    pub(super) fn too_late(&self, id: u64) -> Option<Instant> {
        self.get(id).map(|pending| pending.too_late)
    }

    /// In the order they were added.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        (self.first..).zip(&self.slots).filter(|(_, slot)| slot.is_some()).map(|(id, _)| id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn at(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first)?).ok()
    }
}
