//! What brings work into a service.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{
    broker::Broker,
    context::Context,
    error::{Error, Result},
    health::ConsumerHealth,
    worker_result::Results,
};

/// What brings work into a service, and starts, stops and is killed with it: a [`Consumer`] is one,
/// a timer another.
///
/// [`Consumer`]: crate::Consumer
///
/// ```
/// use std::time::Duration;
/// use enoki::{Result, Service, service::{Entrypoint, Scope}};
/// use tokio::{task::JoinHandle, time::{Instant, interval}};
///
/// struct Heartbeat(Option<JoinHandle<()>>);
///
/// #[async_trait::async_trait]
/// impl Entrypoint for Heartbeat {
///     fn name(&self) -> &str {
///         "heartbeat"
///     }
///
///     async fn start(&mut self, scope: Scope) -> Result<()> {
///         self.0 = Some(tokio::spawn(async move {
///             let mut beat = interval(Duration::from_secs(1));
///             loop {
///                 beat.tick().await;
///                 println!("{} is alive", scope.service());
///             }
///         }));
///         Ok(())
///     }
///
///     async fn stop(&mut self, _: Instant) -> Result<()> {
///         self.kill().await;
///         Ok(())
///     }
///
///     async fn kill(&mut self) {
///         if let Some(task) = self.0.take() {
///             task.abort();
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let broker = enoki::connect("memory://entrypoint").await?;
/// let service = Service::new("clock", broker).entrypoint(Heartbeat(None));
/// service.run_until(tokio::task::yield_now()).await // long enough for the first beat
/// # }
/// ```
#[async_trait]
pub trait Entrypoint: Send + 'static {
    /// The name in logs and errors.
    fn name(&self) -> &str;

    /// Starts to bring work in, and returns when it does.
    async fn start(&mut self, scope: Scope) -> Result<()>;

    /// Brings no more work in, and waits until what runs has finished and is settled, at most until
    /// the deadline. Called at most once, also where `start` was not or failed.
    async fn stop(&mut self, deadline: Instant) -> Result<()>;

    /// Ends now. Work under way is abandoned; nothing is waited for.
    async fn kill(&mut self);

    /// How it is doing, for entrypoints that consume.
    fn health(&self) -> Option<watch::Receiver<ConsumerHealth>> {
        None
    }
}

/// What a service lends its entrypoints.
#[derive(Debug, Clone)]
pub struct Scope {
    service: Arc<str>,
    broker: Broker,
    failures: mpsc::Sender<Error>,
    start_by: Instant,
    results: Results,
    limit: Option<Arc<Semaphore>>,
}

impl Scope {
    pub(crate) fn new(
        service: Arc<str>,
        broker: Broker,
        failures: mpsc::Sender<Error>,
        start_by: Instant,
        limit: Option<Arc<Semaphore>>,
    ) -> Self {
        Self { service, broker, failures, start_by, results: Results::default(), limit }
    }

    /// How many workers of the whole service may run at the same time, if that is limited.
    pub(crate) fn limit(&self) -> Option<&Arc<Semaphore>> {
        self.limit.as_ref()
    }

    pub(crate) fn starting_by(self, start_by: Instant) -> Self {
        Self { start_by, ..self }
    }

    /// Closes the connections if there is no other handle on them.
    pub(crate) async fn release(self, deadline: Instant) {
        self.broker.release(deadline).await;
    }

    /// Until when the start may take: what fails before and may pass is worth another try.
    pub fn start_by(&self) -> Instant {
        self.start_by
    }

    /// The name of the service.
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// The broker of the service.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    pub(crate) fn failures(&self) -> &mpsc::Sender<Error> {
        &self.failures
    }

    pub(crate) fn results(&self) -> &Results {
        &self.results
    }

    /// A context for work that this entrypoint begins, with a call id of its own.
    pub fn context(&self, handler: &str) -> Context {
        let parent_calls = self.broker.connections().options().parent_calls;
        Context::new().with_parent_calls(parent_calls).child(&self.service, handler)
    }

    /// Tells the service that this entrypoint has failed: the service stops, and its `run_until`
    /// returns the error. The first failure counts.
    pub fn fail(&self, error: Error) {
        // A full channel holds the first failure already.
        let _ = self.failures.try_send(error);
    }
}
