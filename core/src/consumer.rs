//! The entrypoint that runs a handler for each delivery of a queue.

pub(crate) mod extract;
pub(crate) mod failure;
pub(crate) mod handler;
pub(crate) mod on_cancel;
pub(crate) mod on_error;
pub(crate) mod result;

use std::{fmt, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    broker::BrokerOptions,
    consumer::extract::Incoming,
    consumer::handler::{ConsumerOptions, Handled, Handler},
    consumer::on_error::OnError,
    consumer::result::{Ended, Results, WorkerResult},
    context::{Call, Callee},
    delivery::{Delivery, Envelope},
    error::{Error, ErrorKind, Result},
    health::ConsumerHealth,
    message::codec::Codecs,
    message::payload::Payload,
    outcome::Outcome,
    service::entrypoint::{Entrypoint, Scope},
    short_str::ShortStr,
    source::Source,
    subscription::Subscription,
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
/// # use enoki::{Body, Consumer, Service, WorkQueue};
/// # use tokio::time::Instant;
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
/// # running.stop(Instant::now() + Duration::from_secs(5)).await
/// # }
/// ```
///
/// A delivery is settled when its handler returns: `Ok` is an ack, an error what the
/// [`OnError`] says, a panic a requeue. A body that cannot be decoded is rejected, with the cause in
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
    watch: tokio::task::AbortHandle,
}

impl Consumer {
    /// A consumer of this queue that runs this handler with this state.
    pub fn new<M: Payload, S: Send + Sync + 'static, A: 'static>(
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
        Worker {
            callee: Arc::new(Callee {
                service,
                handler: self.options.name.unwrap_or("handler").into(),
                codec: options.header_codec.clone(),
            }),
            codecs: self.options.accept.clone().unwrap_or_else(|| options.codecs.clone()),
            on_error: self.options.on_error,
            queue: self.queue.clone(),
            runner: self.runner.clone(),
            results: Results::default(),
        }
    }

    fn check(&self) -> Result<(u16, u16)> {
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
            (_, 0) => refuse(
                "a prefetch of 0 means no limit to one broker and nothing at all to another"
                    .to_owned(),
                "1 to 65535",
            ),
            (concurrency, prefetch) if prefetch < concurrency => refuse(
                format!("a prefetch of {prefetch} cannot keep {concurrency} handlers busy"),
                "a prefetch is at least the concurrency",
            ),
            both => Ok(both),
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
        let broker = scope.broker();
        let topology = broker.localize(&self.topology)?;
        let queue = broker.whole_name(self.queue.clone(), self.unique)?;
        let source = Source::new(broker, topology, queue.clone(), prefetch);
        let subscription =
            Subscription::open(broker, source, self.options.on_cancel, scope.start_by()).await?;
        let worker = Arc::new(Worker {
            queue,
            results: scope.results().clone(),
            ..self.worker(scope.service().clone(), broker.options())
        });
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            workers.spawn(worker.clone().work(subscription.deliveries()));
        }
        // An end that nobody asked for is the service's business.
        let ended = subscription.watch_end();
        // Without the scope's broker: a task that is slow to die would keep the connection open.
        let failures = scope.failures().clone();
        let watch = tokio::spawn(async move {
            if let Err(error) = ended.await {
                let _ = failures.try_send(error);
            }
        })
        .abort_handle();
        self.running = Some(Running { subscription, workers, watch });
        Ok(())
    }

    async fn stop(&mut self, deadline: Instant) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.watch.abort();
        let result = running.subscription.stop(deadline).await;
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
    let _ = timeout_at(Instant::now() + GRACE, workers.shutdown()).await;
}

/// As in nameko, where it is called `max_workers`.
const DEFAULT_CONCURRENCY: u16 = 10;

/// What each worker of a consumer knows.
pub(crate) struct Worker {
    pub(crate) callee: Arc<Callee>,
    codecs: Codecs,
    on_error: OnError,
    pub(crate) queue: ShortStr,
    runner: Arc<dyn Run>,
    results: Results,
}

impl Worker {
    async fn work(self: Arc<Self>, deliveries: async_channel::Receiver<Delivery>) {
        while let Ok(delivery) = deliveries.recv().await {
            let envelope = self.results.is_listened_to().then(|| delivery.envelope().clone());
            let (ended, outcome) = self.handle(delivery).await;
            if let Some(envelope) = envelope {
                self.results.tell(self.result(envelope, ended, outcome));
            }
        }
    }

    pub(crate) fn result(
        &self,
        envelope: Envelope,
        ended: Ended,
        outcome: Option<Outcome>,
    ) -> WorkerResult {
        let (queue, handler) = (self.queue.clone(), self.callee.handler.clone());
        WorkerResult { queue, handler, envelope, ended, outcome }
    }

    /// Runs the handler and settles the delivery, unless the handler took it.
    pub(crate) async fn handle(&self, delivery: Delivery) -> (Ended, Option<Outcome>) {
        if let Some(reason) = delivery.undecodable() {
            tracing::warn!(queue = %self.queue, %reason, "rejected: the message cannot be read");
            let error = Error::new(ErrorKind::Codec, "read a message").because(reason.to_string());
            delivery.settle(Outcome::Reject);
            return (Ended::Undecodable(error), Some(Outcome::Reject));
        }
        let call = Call::of(delivery.envelope().message.clone(), self.callee.clone());
        let mut delivery = Some(delivery);
        let incoming = Incoming::new(&mut delivery, &self.codecs, &self.callee);
        let handled = AssertUnwindSafe(call.run(self.runner.run(incoming))).catch_unwind().await;
        let (queue, handler) = (&*self.queue, &*self.callee.handler);
        let (ended, outcome) = match handled {
            Ok(Handled::Returned(Ok(outcome))) => (Ended::Returned, outcome),
            Ok(Handled::Returned(Err(failure))) => {
                tracing::error!(queue, handler, %failure, then = %self.on_error, "the handler failed");
                (Ended::Failed(failure), self.on_error.outcome())
            }
            Ok(Handled::Undecodable(error)) => {
                tracing::warn!(queue, handler, %error, "rejected: the message cannot be decoded");
                (Ended::Undecodable(error), Outcome::Reject)
            }
            Err(_) => {
                tracing::error!(queue, handler, "the handler panicked; its delivery is requeued");
                (Ended::Panicked, Outcome::Requeue)
            }
        };
        // Without its token where an argument of the handler took it.
        let settled = delivery.filter(Delivery::has_token).map(|delivery| {
            delivery.settle(outcome);
            outcome
        });
        (ended, settled)
    }
}

/// A handler whose types are forgotten.
trait Run: Send + Sync {
    fn run<'c>(
        &'c self,
        incoming: Incoming<'c>,
    ) -> Pin<Box<dyn Future<Output = Handled> + Send + 'c>>;
}

struct Runner<H, S, T> {
    handler: H,
    state: Arc<S>,
    of: std::marker::PhantomData<T>,
}

impl<M, A, S, H> Run for Runner<H, S, fn() -> (M, A)>
where
    H: Handler<M, S, A>,
    S: Send + Sync,
{
    fn run<'c>(
        &'c self,
        incoming: Incoming<'c>,
    ) -> Pin<Box<dyn Future<Output = Handled> + Send + 'c>> {
        self.handler.call(incoming, &self.state)
    }
}
