//! What workers made of their deliveries, for those who test them.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

use crate::{
    delivery::Envelope, error::Error, failure::Failure, outcome::Outcome, short_str::ShortStr,
};

/// What a worker made of one delivery.
#[derive(Debug)]
#[non_exhaustive]
pub struct WorkerResult {
    /// The queue it came from.
    pub queue: ShortStr,
    /// The name of the handler.
    pub handler: Arc<str>,
    /// The message, and how it came here.
    pub envelope: Envelope,
    /// How the handler ended.
    pub ended: Ended,
    /// How the delivery was settled; `None` where the handler took the
    /// [`Delivery`](crate::Delivery) to settle it itself.
    ///
    /// Where [`OnError::retry`](crate::OnError::retry) decided, `RetryAfter` says that the message is tried
    /// again, and `Reject` that it is a dead letter. On a running service the delivery itself may have been
    /// acknowledged then, because a copy of it was stored.
    ///
    /// On a running service it is on its way to the broker, and perhaps not there yet.
    pub outcome: Option<Outcome>,
}

impl WorkerResult {
    /// Why the handler failed, if it returned an error.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.ended {
            Ended::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// How a handler ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ended {
    /// It returned an outcome.
    Returned,
    /// It returned an error, which became an outcome by its [`OnError`](crate::OnError).
    Failed(Failure),
    /// It was not called: an argument could not be taken out of the delivery.
    Undecodable(Error),
    /// It panicked.
    Panicked,
}

/// The channel on which the workers of a service report their results, once a test listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results(Arc<OnceLock<broadcast::Sender<Arc<WorkerResult>>>>);

/// How many results wait for a listener.
pub(crate) const CAPACITY: usize = 1024;

impl Results {
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<WorkerResult>> {
        self.0.get_or_init(|| broadcast::Sender::new(CAPACITY)).subscribe()
    }

    pub(crate) fn is_listened_to(&self) -> bool {
        self.0.get().is_some()
    }

    pub(crate) fn tell(&self, result: WorkerResult) {
        if let Some(listeners) = self.0.get() {
            // An error means that no test listens any more.
            let _ = listeners.send(Arc::new(result));
        }
    }
}
