//! The workers of a consumer: each runs the handler for one delivery after the other.

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    broker_options::BrokerOptions,
    consumer::handler::{ConsumerOptions, Expected, Handled, Handler},
    consumer::incoming::{Hooks, Incoming},
    consumer::on_error::OnError,
    consumer::retry::{
        marks::History,
        retrier::{Failed, Retrier},
    },
    context::{Call, Callee},
    delivery::{Delivery, Envelope},
    error::{Error, ErrorKind},
    failure::Failure,
    message::codec::Codecs,
    outcome::Outcome,
    short_str::ShortStr,
    subscription::deliveries::Deliveries,
    task::{forget, guarded, log},
    worker_result::{Ended, Results, WorkerResult},
};

/// What each worker of a consumer knows.
pub(crate) struct Worker {
    pub(crate) callee: Arc<Callee>,
    codecs: Codecs,
    on_error: OnError,
    expected: Vec<Expected>,
    pub(crate) queue: ShortStr,
    runner: Arc<dyn Run>,
    pub(super) results: Results,
    /// Set where `on_error` retries, before the first delivery; a test that calls a handler has none.
    pub(super) retrier: Option<Retrier>,
}

impl Worker {
    pub(super) fn new(
        service: Arc<str>,
        queue: ShortStr,
        options: &ConsumerOptions,
        runner: Arc<dyn Run>,
        broker: &BrokerOptions,
    ) -> Self {
        let callee = Callee {
            service,
            handler: options.name.unwrap_or("handler").into(),
            codec: broker.header_codec.clone(),
            parent_calls: broker.parent_calls,
        };
        Self {
            callee: Arc::new(callee),
            codecs: options.accept.clone().unwrap_or_else(|| broker.codecs.clone()),
            on_error: options.on_error,
            expected: options.expected.clone(),
            queue,
            runner,
            results: Results::default(),
            retrier: None,
        }
    }

    pub(super) async fn work(self: Arc<Self>, deliveries: Deliveries, mut permits: WorkerPermits) {
        while let Some(mut delivery) = deliveries.next().await {
            let permit = permits.acquire().await;
            // It may have been revoked meanwhile.
            let (Ok(_permit), false) = (permit, delivery.is_revoked()) else {
                delivery.release();
                continue;
            };
            let retrier = self.retrier.as_ref();
            let history = retrier.map(|retrier| retrier.begin(delivery.envelope_mut()));
            let envelope = self.results.is_listened_to().then(|| delivery.envelope().clone());
            let (ended, outcome) = self.handle(delivery, history.unwrap_or_default()).await;
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

    /// Runs the handler and settles the delivery, unless the handler took it. A panic of whatever is
    /// around the handler is one of the handler: the worker goes on with the next delivery.
    pub(crate) async fn handle(
        &self,
        delivery: Delivery,
        history: History,
    ) -> (Ended, Option<Outcome>) {
        // The delivery is dropped where it was, and so requeued.
        let requeued = |_| (Ended::Panicked, Some(Outcome::Requeue));
        guarded("handle a message", self.settle(delivery, history)).await.unwrap_or_else(requeued)
    }

    async fn settle(&self, delivery: Delivery, history: History) -> (Ended, Option<Outcome>) {
        if let Some(reason) = delivery.undecodable() {
            log(
                || tracing::warn!(queue = &*self.queue, %reason, "rejected: the message cannot be read"),
            );
            let error = Error::new(ErrorKind::Codec, "read a message").because(reason.to_string());
            delivery.settle(Outcome::Reject);
            return (Ended::Undecodable(error), Some(Outcome::Reject));
        }
        let call = Call::of(delivery.envelope().message.clone(), self.callee.clone());
        let mut delivery = Some(delivery);
        let (ended, outcome) = call.run(self.run(&mut delivery)).await;
        // Without its token where an argument of the handler took it.
        let Some(delivery) = delivery.filter(Delivery::has_token) else { return (ended, None) };
        let settlement = self.settlement(&delivery, history, &ended, outcome).await;
        delivery.settle(settlement);
        (ended, Some(outcome))
    }

    /// How the delivery is settled after this outcome: a retry or a dead letter is stored first, where the
    /// policy of the consumer decided it.
    async fn settlement(
        &self,
        delivery: &Delivery,
        history: History,
        ended: &Ended,
        outcome: Outcome,
    ) -> Outcome {
        let failure = match ended {
            Ended::Failed(failure) if failure.chosen().is_none() => Some(failure),
            Ended::Panicked => None,
            _ => return outcome,
        };
        let Some(retrier) = &self.retrier else { return outcome };
        let failed = Failed { envelope: delivery.envelope(), history, failure };
        retrier.settle(failed, outcome).await
    }

    /// Runs the handler, with everything that providers do before and after it.
    async fn run(&self, delivery: &mut Option<Delivery>) -> (Ended, Outcome) {
        let mut hooks = Hooks::default();
        let attempt = delivery.as_ref().map_or(1, |delivery| delivery.attempt().number);
        let incoming = Incoming::new(delivery, &self.codecs, &self.callee, &mut hooks);
        let handled = AssertUnwindSafe(self.runner.run(incoming)).catch_unwind().await;
        let (queue, handler) = (&*self.queue, &*self.callee.handler);
        let (result, what) = match handled {
            Ok(Handled::Returned(result)) => (hooks.result(result).await, "the handler failed"),
            Ok(Handled::Refused(failure)) => {
                if let Some(error) = failure.undecodable().cloned() {
                    log(|| {
                        let what = "rejected: the message cannot be decoded";
                        tracing::warn!(queue, handler, %error, "{what}");
                    });
                    // What was provided is told no result, since there was nothing to handle.
                    self.leave(&mut hooks).await;
                    return (Ended::Undecodable(error), Outcome::Reject);
                }
                (hooks.result(Err(failure)).await, "an argument of the handler refused the message")
            }
            Err(panic) => {
                forget(panic);
                let then = self.on_error.outcome_of_a_panic(attempt);
                log(|| tracing::error!(queue, handler, %then, "the handler panicked"));
                let _ = hooks.result(Err(Failure::new("the handler panicked"))).await;
                self.leave(&mut hooks).await;
                return (Ended::Panicked, then);
            }
        };
        let left = hooks.tear_down().await;
        match result.and_then(|outcome| left.map(|()| outcome)) {
            Ok(outcome) => (Ended::Returned, outcome),
            Err(failure) => {
                let then = failure.chosen().unwrap_or_else(|| self.on_error.outcome(attempt));
                let is_expected = self.expected.iter().any(|expects| expects(failure.source()));
                log(|| match is_expected {
                    true => tracing::warn!(queue, handler, %failure, %then, "{what}, as expected"),
                    false => tracing::error!(queue, handler, %failure, %then, "{what}"),
                });
                (Ended::Failed(failure), then)
            }
        }
    }

    /// Takes leave of what was provided, where the message is settled whatever comes of it.
    async fn leave(&self, hooks: &mut Hooks) {
        if let Err(failure) = hooks.tear_down().await {
            let (queue, handler) = (&*self.queue, &*self.callee.handler);
            log(|| tracing::error!(queue, handler, %failure, "a provider failed in its teardown"));
        }
    }
}

/// Permits of the service, where it limits how many of its workers run at a time.
pub(super) struct WorkerPermits {
    limit: Option<Arc<Semaphore>>,
    stopping: watch::Receiver<bool>,
}

/// The consumer stops before this worker got a permit.
pub(super) struct Stopping;

impl WorkerPermits {
    pub(super) fn new(limit: Option<Arc<Semaphore>>, stopping: watch::Receiver<bool>) -> Self {
        Self { limit, stopping }
    }

    /// Waits for a permit. Workers get them in the order in which they ask, over all consumers of the
    /// service.
    async fn acquire(&mut self) -> Result<Option<OwnedSemaphorePermit>, Stopping> {
        let Some(limit) = self.limit.clone() else { return Ok(None) };
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(Stopping),
            permit = limit.acquire_owned() => Ok(permit.ok()),
        }
    }
}

/// A handler whose types are forgotten.
pub(super) trait Run: Send + Sync {
    fn run<'c>(
        &'c self,
        incoming: Incoming<'c>,
    ) -> Pin<Box<dyn Future<Output = Handled> + Send + 'c>>;
}

pub(super) struct Runner<H, S, T> {
    pub(super) handler: H,
    pub(super) state: Arc<S>,
    pub(super) of: std::marker::PhantomData<T>,
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
