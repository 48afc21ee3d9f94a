//! How a service is doing, for those who do not hold it.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::health::ConsumerHealth;

/// How a service is doing: a handle that can be cloned, is taken before the service starts, and stays
/// good while it runs and after it.
///
/// ```
/// use enoki::{Body, Service, WorkQueue};
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(Body(order): Body<String>) {
///     println!("{order}");
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://service-health").await?;
/// let service = Service::new("billing", broker).consume(&BILLING, bill);
/// let mut health = service.health();
/// assert!(!health.is_ready());
/// let signal = async move {
///     health.ready().await; // a health check of an orchestrator would ask `is_ready` now and then
///     for (queue, consumer) in health.consumers() {
///         println!("{queue}: {}", *consumer.borrow());
///     }
/// };
/// service.run_until(signal).await
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceHealth(watch::Receiver<ServiceState>);

/// What a service tells of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceState {
    /// Whether its start is over and its stop has not begun.
    pub(super) runs: bool,
    pub(super) consumers: Vec<(Arc<str>, watch::Receiver<ConsumerHealth>)>,
}

impl ServiceState {
    fn is_ready(&self) -> bool {
        self.runs && self.consumers.iter().all(|(_, consumer)| consumer.borrow().health.is_ready())
    }
}

impl ServiceHealth {
    pub(super) fn new(state: watch::Receiver<ServiceState>) -> Self {
        Self(state)
    }

    /// Whether the service has started, does not stop, and each of its consumers consumes.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_ready()
    }

    /// Waits until it is ready; for ever where the service ends before. Cancel safe.
    pub async fn ready(&mut self) {
        loop {
            let state = self.0.borrow_and_update().clone();
            let waits = state.consumers.iter().find(|(_, it)| !it.borrow().health.is_ready());
            let changed = match waits {
                None if state.runs => return,
                Some((_, consumer)) if state.runs => {
                    let mut consumer = consumer.clone();
                    let ready =
                        async move { consumer.wait_for(|now| now.health.is_ready()).await.is_ok() };
                    tokio::select! {
                        changed = self.0.changed() => changed.is_ok(),
                        // One that has ended gives way to a change of the service.
                        true = ready => true,
                    }
                }
                _ => self.0.changed().await.is_ok(),
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How each of its consumers is doing, by the name of its queue, now and as it changes. Empty
    /// before the start and after the stop.
    pub fn consumers(&self) -> Vec<(Arc<str>, watch::Receiver<ConsumerHealth>)> {
        self.0.borrow().consumers.clone()
    }
}

impl fmt::Debug for ServiceHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        let consumers = state.consumers.iter().map(|(name, it)| (name, it.borrow().to_string()));
        f.debug_struct("ServiceHealth")
            .field("runs", &state.runs)
            .field("consumers", &consumers.collect::<Vec<_>>())
            .finish()
    }
}
