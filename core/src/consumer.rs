//! The entrypoint that runs a handler for each delivery of a queue.

pub(crate) mod extract;
mod function;
pub(crate) mod handler;
pub(crate) mod incoming;
pub(crate) mod on_error;
pub(crate) mod provider;
pub(crate) mod retry;
pub(crate) mod worker;

use std::{fmt, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    broker_options::BrokerOptions,
    consumer::handler::{ConsumerOptions, Handler},
    consumer::retry::retrier::Retrier,
    consumer::worker::{Run, Runner, Worker, WorkerPermits},
    deadline::deadline,
    entrypoint::{Entrypoint, Scope},
    error::{Error, ErrorKind, Result},
    health::ConsumerHealth,
    message::payload::Payload,
    retry::plan::Plan,
    short_str::ShortStr,
    source::{self, Source},
    subscription::Subscription,
    task::spawn,
    topology::Topology,
    topology::queue::Queue,
    transport::GRACE,
};

/// Runs a handler for each delivery of a queue.
///
/// Services make one for each [`Service::consume`](crate::Service::consume), which is short for:
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use enoki::{Body, Service, WorkQueue, consume::Consumer};
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(Body(order): Body<String>) {
///     println!("{order}");
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// # let broker = enoki::connect("memory://consumer").await?;
/// let consumer = Consumer::new(&BILLING, bill, Arc::new(()));
/// let running = Service::new("billing", broker).entrypoint(consumer).start().await?;
/// # running.stop(Duration::from_secs(5)).await
/// # }
/// ```
///
/// A delivery is settled when its handler returns: `Ok` is an ack, an error what the
/// [`OnError`](crate::OnError) says, a panic a requeue. A body that cannot be decoded is rejected, with the cause in
/// the log and the body not; the handler does not see it.
pub struct Consumer {
    queue: ShortStr,
    unique: bool,
    topology: Topology,
    options: ConsumerOptions,
    runner: Arc<dyn Run>,
    running: Option<Running>,
}

struct Running {
    subscription: Subscription,
    workers: JoinSet<()>,
    /// Tells workers that wait for their turn that it will not come.
    stopping: watch::Sender<bool>,
    watch: tokio::task::AbortHandle,
}

impl Consumer {
    /// A consumer of this queue that runs this handler with this state.
    pub fn new<M: Payload, S: Send + Sync + 'static, A: 'static, H: Handler<M, S, A>>(
        queue: &dyn Queue<Message = M>,
        handler: H,
        state: Arc<S>,
    ) -> Self {
        let () = H::CHECKED;
        Self::unchecked(queue, handler, state)
    }

    /// Like [`Consumer::new`], for a caller that looks at [`Handler::CHECKED`] itself: the compiler
    /// points at the line that calls the function which does.
    pub(crate) fn unchecked<M: Payload, S: Send + Sync + 'static, A: 'static>(
        queue: &dyn Queue<Message = M>,
        handler: impl Handler<M, S, A>,
        state: Arc<S>,
    ) -> Self {
        let spec = queue.spec();
        Self {
            queue: spec.name,
            unique: spec.unique,
            topology: Topology::new().with_queue(queue),
            options: ConsumerOptions { name: Some(handler.name()), ..handler.options() },
            runner: Arc::new(Runner {
                handler,
                state,
                of: std::marker::PhantomData::<fn() -> (M, A)>,
            }),
            running: None,
        }
    }

    /// A worker of a service of this name.
    pub(crate) fn worker(&self, service: Arc<str>, options: &BrokerOptions) -> Worker {
        Worker::new(service, self.queue.clone(), &self.options, self.runner.clone(), options)
    }

    fn check(&self) -> Result<(u16, NonZeroU16)> {
        let concurrency = self.options.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        let prefetch = self.options.prefetch.unwrap_or(concurrency);
        let refuse = |reason: String, remedy: &'static str| {
            Err(Error::new(ErrorKind::Configuration, "consume")
                .on(format!("queue {:?}", self.queue.as_str()))
                .because(reason)
                .remedy(remedy))
        };
        match (concurrency, prefetch) {
            (0, _) => refuse("a concurrency of 0 handles nothing".to_owned(), "1 to 65535"),
            (concurrency, prefetch) if 0 < prefetch && prefetch < concurrency => refuse(
                format!("a prefetch of {prefetch} cannot keep {concurrency} handlers busy"),
                "a prefetch is at least the concurrency",
            ),
            (concurrency, prefetch) => Ok((concurrency, source::prefetch(&self.queue, prefetch)?)),
        }
    }
}

#[async_trait]
impl Entrypoint for Consumer {
    fn name(&self) -> &str {
        &self.queue
    }

    async fn start(&mut self, scope: Scope) -> Result<()> {
        let (concurrency, prefetch) = self.check()?;
        let (broker, connections) = (scope.broker(), scope.broker().connections());
        let mut topology = connections.localize(&self.topology)?;
        let queue = connections.whole_name(self.queue.clone(), self.unique)?;
        let policy = self.options.on_error.policy();
        let retries = policy
            .map(|policy| Plan::new(policy, broker.peer(), &queue, &self.queue, &topology))
            .transpose()?;
        retries.iter().for_each(|plan| plan.describe(&mut topology));
        let source = Source::new(connections, topology, queue.clone(), prefetch);
        let subscription =
            Subscription::open(connections, source, self.options.on_cancel, scope.start_by())
                .await?;
        let mut worker = self.worker(scope.service().clone(), connections.options());
        if let Some(plan) = retries {
            let (service, handler) = (scope.service().clone(), worker.callee.handler.clone());
            let retrier =
                Retrier::open(plan, broker, queue.clone(), service, handler, scope.start_by());
            worker.retrier = Some(retrier.await?);
        }
        worker.queue = queue;
        worker.results = scope.results().clone();
        let worker = Arc::new(worker);
        let (stopping, is_stopping) = watch::channel(false);
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            let permits = WorkerPermits::new(scope.limit().cloned(), is_stopping.clone());
            workers.spawn(worker.clone().work(subscription.deliveries(), permits));
        }
        // The service has to hear of an end that it did not ask for.
        let ended = subscription.watch_end();
        // Without the scope's broker: a task that is slow to die would keep the connection open.
        let failures = scope.failures().clone();
        let watching = async move {
            if let Err(error) = ended.await {
                let _ = failures.try_send(error);
            }
        };
        let watch = spawn("consume", watching, drop).abort_handle();
        self.running = Some(Running { subscription, workers, stopping, watch });
        Ok(())
    }

    async fn stop(&mut self, deadline: Instant) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.watch.abort();
        running.stopping.send_replace(true);
        let result = running.subscription.stop_by(deadline).await;
        let finished =
            timeout_at(deadline, async { while running.workers.join_next().await.is_some() {} })
                .await;
        if finished.is_err() {
            abandon(&mut running.workers).await;
            return Err(Error::new(ErrorKind::Timeout, "stop consuming")
                .on(format!("queue {:?}", self.queue.as_str()))
                .because("a handler was still running at the deadline; its delivery goes back to the queue"));
        }
        result
    }

    fn health(&self) -> Option<watch::Receiver<ConsumerHealth>> {
        self.running.as_ref().map(|running| running.subscription.health())
    }

    async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.watch.abort();
            running.subscription.kill();
            abandon(&mut running.workers).await;
            running.subscription.until_gone().await;
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("queue", &self.queue)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Ends handlers where they wait. One that blocks its thread cannot be ended, so it is left behind.
async fn abandon(workers: &mut JoinSet<()>) {
    let _ = timeout_at(deadline(GRACE), workers.shutdown()).await;
}

/// As in nameko, where it is called `max_workers`.
const DEFAULT_CONCURRENCY: u16 = 10;
