//! Services: entrypoints that start, stop and are killed together.

pub(crate) mod extension;
pub(crate) mod health;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    broker::Broker,
    consumer::Consumer,
    consumer::handler::Handler,
    deadline::{deadline, later},
    entrypoint::{Entrypoint, Scope},
    error::{Error, ErrorKind, Result},
    message::payload::Payload,
    service::extension::Extension,
    service::health::{ServiceHealth, ServiceState},
    topology::queue::Queue,
    transport::GRACE,
    worker_result::Results,
};

/// A service: a name, a broker, a state, and what brings work in.
///
/// ```
/// use std::sync::Arc;
///
/// use enoki::{Body, Service, State, WorkQueue, consume::{Handler, OnError}, topology::Topology};
/// use tokio::sync::Notify;
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(State(billed): State<Arc<Notify>>, Body(order): Body<String>) {
///     println!("{order}");
///     billed.notify_one();
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://service").await?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// broker.publisher(&BILLING.route()).await?.publish(&"order 1".to_owned()).await?;
///
/// let billed = Arc::new(Notify::new());
/// Service::new("billing", broker)
///     .state(billed.clone())
///     .consume(&BILLING, bill.concurrency(16).on_error(OnError::reject()))
///     .run_until(billed.notified()) // or a signal to stop
///     .await
/// # }
/// ```
pub struct Service<S = ()> {
    name: Arc<str>,
    broker: Broker,
    state: Arc<S>,
    entrypoints: Vec<Box<dyn Entrypoint>>,
    extensions: Vec<Arc<dyn Extension>>,
    workers: Option<u16>,
    start_within: Duration,
    stop_within: Duration,
    health: watch::Sender<ServiceState>,
}

impl Service {
    /// A service of this name, which is part of its call ids, on this broker.
    pub fn new(name: impl Into<Arc<str>>, broker: Broker) -> Self {
        Self {
            name: name.into(),
            broker,
            state: Arc::new(()),
            entrypoints: Vec::new(),
            extensions: Vec::new(),
            workers: None,
            start_within: Duration::from_secs(60),
            stop_within: Duration::from_secs(30),
            health: watch::Sender::default(),
        }
    }

    /// Gives the service a state, which its handlers take parts of by
    /// [`State`](crate::State). Comes before the consumers.
    pub fn state<S: Send + Sync + 'static>(self, state: S) -> Service<S> {
        Service {
            name: self.name,
            broker: self.broker,
            state: Arc::new(state),
            entrypoints: self.entrypoints,
            extensions: self.extensions,
            workers: self.workers,
            start_within: self.start_within,
            stop_within: self.stop_within,
            health: self.health,
        }
    }
}

impl<S: Send + Sync + 'static> Service<S> {
    /// Runs a handler for each delivery of a queue, which is declared at start.
    #[must_use]
    pub fn consume<M: Payload, A: 'static, H: Handler<M, S, A>>(
        self,
        queue: &dyn Queue<Message = M>,
        handler: H,
    ) -> Self {
        let () = H::CHECKED;
        let consumer = Consumer::unchecked(queue, handler, self.state.clone());
        self.entrypoint(consumer)
    }

    /// Adds an entrypoint of your own.
    #[must_use]
    pub fn entrypoint(mut self, entrypoint: impl Entrypoint) -> Self {
        self.entrypoints.push(Box::new(entrypoint));
        self
    }

    /// Adds something that lives as long as the service; the same one only once.
    #[must_use]
    pub fn extension(mut self, extension: Arc<impl Extension>) -> Self {
        let extension: Arc<dyn Extension> = extension;
        if !self.extensions.iter().any(|other| Arc::ptr_eq(other, &extension)) {
            self.extensions.push(extension);
        }
        self
    }

    /// How many handlers of the whole service run at the same time, over all its consumers, at least
    /// 1; by default only each consumer's own concurrency counts. Deliveries that wait for their turn
    /// take it in their order, and are released when the service stops first.
    #[must_use]
    pub fn workers(mut self, workers: u16) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How long the start may take, all of it; 60 seconds by default.
    #[must_use]
    pub fn start_within(mut self, time: Duration) -> Self {
        self.start_within = time;
        self
    }

    /// How long [`run_until`](Self::run_until) lets running handlers finish; 30 seconds by default.
    #[must_use]
    pub fn stop_within(mut self, time: Duration) -> Self {
        self.stop_within = time;
        self
    }

    /// How it is doing, for a health check: a handle that stays good while
    /// [`run_until`](Self::run_until) has the service.
    pub fn health(&self) -> ServiceHealth {
        ServiceHealth::new(self.health.subscribe())
    }

    /// Starts, and returns when every entrypoint brings work in. If one fails to, those that
    /// started are stopped and its error is returned.
    pub async fn start(self) -> Result<RunningService> {
        match self.start_until(std::future::pending()).await? {
            Started::Running(running) => Ok(running),
            Started::Stopped => Err(Error::new(ErrorKind::Unexpected, "start")
                .because("it was stopped without a call of this process")),
        }
    }

    /// Starts, unless the signal comes first: then what had started is stopped again.
    pub async fn start_until(self, signal: impl Future<Output = ()>) -> Result<Started> {
        // The consumers have it. Kept here, publishers in it would hold the connection of a service
        // that fails to start.
        drop(self.state);
        if self.workers == Some(0) {
            return Err(Error::new(ErrorKind::Configuration, "start")
                .on(format!("service {:?}", self.name))
                .because("without a worker it handles nothing")
                .remedy("1 to 65535 workers, or no limit"));
        }
        let limit = self.workers.map(|workers| Arc::new(Semaphore::new(workers.into())));
        let (report, failures) = mpsc::channel(1);
        let start_by = deadline(self.start_within);
        let mut running = RunningService {
            scope: Scope::new(self.name, self.broker, report, start_by, limit),
            entrypoints: Vec::new(),
            extensions: Vec::new(),
            failures,
            start_within: self.start_within,
            stop_within: self.stop_within,
            health: self.health,
        };
        let started = tokio::select! {
            biased;
            // An entrypoint keeps the deadline itself, and then says what kept it.
            started = timeout_at(later(start_by, GRACE), running.bring_up(self.extensions, self.entrypoints)) => {
                started.map_err(|_| self.start_within)
            }
            () = signal => {
                let within = running.stop_within;
                return running.stop(within).await.map(|()| Started::Stopped);
            }
        };
        let started = started.unwrap_or_else(|within| {
            Err(Error::new(ErrorKind::Timeout, "start")
                .on(format!("service {:?}", running.scope.service()))
                .because(format!("it was not ready within {within:?}")))
        });
        match started {
            Ok(()) => Ok(Started::Running(running)),
            Err(error) => {
                let within = running.stop_within;
                // The first error tells more than what comes of stopping.
                let _ = running.stop(within).await;
                Err(error)
            }
        }
    }

    /// Starts, runs until the signal or until an entrypoint fails, then stops. A signal that comes
    /// during the start ends it.
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> Result<()> {
        let mut signal = std::pin::pin!(signal);
        let mut running = match self.start_until(&mut signal).await? {
            Started::Running(running) => running,
            Started::Stopped => return Ok(()),
        };
        let failed = tokio::select! {
            () = signal => Ok(()),
            error = running.failed() => Err(error),
        };
        let within = running.stop_within;
        let stopped = running.stop(within).await;
        failed.and(stopped)
    }
}

/// What came of starting a service that a signal could stop.
#[derive(Debug)]
pub enum Started {
    /// Every entrypoint brings work in.
    Running(RunningService),
    /// The signal came first, and what had started is stopped. This is no error.
    Stopped,
}

/// A service that brings work in. Dropped, it is killed.
///
/// ```
/// # use std::time::Duration;
/// # use enoki::{Body, Service, WorkQueue};
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(Body(order): Body<String>) {
///     println!("{order}");
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://running").await?;
/// let running = Service::new("billing", broker).consume(&BILLING, bill).start().await?;
/// running.stop(Duration::from_secs(5)).await
/// # }
/// ```
#[must_use = "a service that is dropped is killed"]
pub struct RunningService {
    scope: Scope,
    entrypoints: Vec<Box<dyn Entrypoint>>,
    /// Those that were set up, in that order.
    extensions: Vec<Arc<dyn Extension>>,
    failures: mpsc::Receiver<Error>,
    start_within: Duration,
    stop_within: Duration,
    health: watch::Sender<ServiceState>,
}

impl RunningService {
    async fn bring_up(
        &mut self,
        extensions: Vec<Arc<dyn Extension>>,
        entrypoints: Vec<Box<dyn Entrypoint>>,
    ) -> Result<()> {
        for extension in extensions {
            // Before it is set up, so that one which fails half way is stopped, too.
            self.extensions.push(extension.clone());
            extension.setup(&self.scope).await?;
        }
        for extension in &self.extensions {
            extension.start().await?;
        }
        for entrypoint in entrypoints {
            self.entrypoints.push(entrypoint);
            if let Some(entrypoint) = self.entrypoints.last_mut() {
                entrypoint.start(self.scope.clone()).await?;
            }
        }
        self.tell(true);
        Ok(())
    }

    /// Tells those who watch its health.
    fn tell(&self, runs: bool) {
        let entrypoints = self.entrypoints.iter();
        let consumers = entrypoints
            .filter_map(|entrypoint| Some((entrypoint.name().into(), entrypoint.health()?)))
            .collect();
        self.health.send_replace(ServiceState { runs, consumers });
    }

    /// Starts one more entrypoint, and returns when it brings work in. One that fails to start is
    /// stopped and not kept.
    pub async fn add(&mut self, entrypoint: impl Entrypoint) -> Result<()> {
        let start_by = deadline(self.start_within);
        let mut entrypoint: Box<dyn Entrypoint> = Box::new(entrypoint);
        let scope = self.scope.clone().starting_by(start_by);
        let started = timeout_at(later(start_by, GRACE), entrypoint.start(scope)).await;
        let started = started.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "start")
                .on(format!("entrypoint {:?}", entrypoint.name()))
                .because(format!("it was not ready within {:?}", self.start_within)))
        });
        match started {
            Ok(()) => {
                self.entrypoints.push(entrypoint);
                self.tell(true);
                Ok(())
            }
            Err(error) => {
                let _ = stop(&mut *entrypoint, deadline(self.stop_within)).await;
                Err(error)
            }
        }
    }

    /// Stops the entrypoints of this name within this time, as [`stop`](Self::stop) would, and the
    /// service goes on without them. Says how many there were.
    pub async fn remove(&mut self, name: &str, within: Duration) -> Result<usize> {
        let deadline = deadline(within);
        let is_meant = |entrypoint: &mut Box<dyn Entrypoint>| entrypoint.name() == name;
        let mut removed: Vec<_> = self.entrypoints.extract_if(.., is_meant).collect();
        self.tell(true);
        let stopping = removed.iter_mut().map(|entrypoint| stop(&mut **entrypoint, deadline));
        join_all(stopping).await.into_iter().collect::<Result<()>>()?;
        Ok(removed.len())
    }

    /// Waits until an entrypoint fails, and says why. Cancel safe.
    pub async fn failed(&mut self) -> Error {
        match self.failures.recv().await {
            Some(error) => error,
            // Every entrypoint has ended without a failure; nothing will fail any more.
            None => std::future::pending().await,
        }
    }

    /// How it is doing, now and as it changes.
    pub fn health(&self) -> ServiceHealth {
        ServiceHealth::new(self.health.subscribe())
    }

    /// What its workers make of their deliveries.
    pub(crate) fn results(&self) -> &Results {
        self.scope.results()
    }

    /// Stops: no more work comes in, deliveries that no handler has started on are released, running
    /// handlers finish and are settled, then extensions stop, then the connection closes if no other
    /// handle uses it. What is not done within this time is abandoned and goes back to its queue.
    pub async fn stop(mut self, within: Duration) -> Result<()> {
        let deadline = deadline(within);
        self.tell(false);
        let stopping =
            self.entrypoints.iter_mut().map(|entrypoint| stop(&mut **entrypoint, deadline));
        let mut results = join_all(stopping).await;
        // The handlers' state goes first: publishers in it hold on to the connection.
        self.entrypoints.clear();
        self.tell(false);
        while let Some(extension) = self.extensions.pop() {
            let stopped = timeout_at(later(deadline, GRACE), extension.stop(deadline)).await;
            results.push(stopped.unwrap_or_else(|_| Err(overdue("extension", extension.name()))));
        }
        self.scope.release(deadline).await;
        results.into_iter().collect()
    }

    /// Ends now: running handlers are abandoned, and their deliveries go back to their queues.
    pub async fn kill(mut self) {
        join_all(self.entrypoints.iter_mut().map(|entrypoint| kill(&mut **entrypoint))).await;
        self.entrypoints.clear();
        self.tell(false);
        while let Some(extension) = self.extensions.pop() {
            let _ = timeout_at(deadline(GRACE), extension.kill()).await;
        }
        let now = Instant::now();
        let _ = timeout_at(deadline(GRACE), self.scope.release(now)).await;
    }
}

/// An entrypoint keeps the deadline itself, and has some time to clean up after it.
async fn stop(entrypoint: &mut dyn Entrypoint, deadline: Instant) -> Result<()> {
    match timeout_at(later(deadline, 3 * GRACE), entrypoint.stop(deadline)).await {
        Ok(result) => result,
        Err(_) => {
            kill(entrypoint).await;
            Err(overdue("entrypoint", entrypoint.name()))
        }
    }
}

async fn kill(entrypoint: &mut dyn Entrypoint) {
    let _ = timeout_at(deadline(2 * GRACE), entrypoint.kill()).await;
}

fn overdue(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::Timeout, "stop")
        .on(format!("{what} {name:?}"))
        .because("it was still stopping long after the deadline")
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entrypoints: Vec<_> =
            self.entrypoints.iter().map(|entrypoint| entrypoint.name()).collect();
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("entrypoints", &entrypoints)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RunningService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningService").field("name", self.scope.service()).finish_non_exhaustive()
    }
}
