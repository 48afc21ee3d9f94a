//! A handler called as a consumer would call it, with no broker.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    broker_options::BrokerOptions,
    consumer::Consumer,
    consumer::handler::Handler,
    consumer::retry::marks::History,
    consumer::worker::Worker,
    context::Context,
    delivery::{Delivery, Envelope, Settler},
    error::{Error, ErrorKind, Result},
    message::Message,
    message::codec::Codecs,
    message::payload::Payload,
    outcome::{Attempt, Counted},
    topology::queue::Queue,
    transport::Delivered,
    worker_result::WorkerResult,
};

/// Calls a handler as a consumer of the queue would, with no broker: the body is encoded and decoded
/// again, the arguments come out of the delivery, and an error becomes an outcome by the handler's
/// [`OnError`](crate::OnError).
///
/// ```
/// use enoki_core::{
///     Body, Failure, Handler, OnError, Outcome, State, WorkQueue, testing::EntrypointHook,
/// };
///
/// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
///
/// async fn bill(State(limit): State<u32>, Body(cents): Body<u32>) -> Result<(), Failure> {
///     if cents <= limit { Ok(()) } else { Err(Failure::new("too much")) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki_core::Result<()> {
/// let hook = EntrypointHook::new(&BILLING, bill.on_error(OnError::reject()), 1000);
/// assert_eq!(hook.call(&850).await?.outcome, Some(Outcome::Ack));
///
/// let refused = hook.call(&5000).await?;
/// assert_eq!(refused.outcome, Some(Outcome::Reject));
/// assert_eq!(refused.failure().map(ToString::to_string).as_deref(), Some("too much"));
///
/// let mut again = hook.envelope(&850)?;
/// again.attempt.number = 3;
/// assert_eq!(hook.deliver(again).await?.outcome, Some(Outcome::Ack));
/// # Ok(())
/// # }
/// ```
pub struct EntrypointHook<M> {
    worker: Worker,
    writes: Codecs,
    within: Duration,
    message: PhantomData<fn(M)>,
}

impl<M: Payload> EntrypointHook<M> {
    /// A hook for this handler, as if a service with this state consumed the queue with it.
    pub fn new<S: Send + Sync + 'static, A: 'static>(
        queue: &dyn Queue<Message = M>,
        handler: impl Handler<M, S, A>,
        state: S,
    ) -> Self {
        Self::with(queue, handler, state, BrokerOptions::default())
    }

    /// Like [`EntrypointHook::new`], with the encodings and the header names of a broker handle.
    pub fn with<S: Send + Sync + 'static, A: 'static>(
        queue: &dyn Queue<Message = M>,
        handler: impl Handler<M, S, A>,
        state: S,
        options: BrokerOptions,
    ) -> Self {
        let consumer = Consumer::new(queue, handler, Arc::new(state));
        Self {
            worker: consumer.worker(SERVICE.into(), &options),
            writes: options.codecs,
            within: Duration::from_secs(30),
            message: PhantomData,
        }
    }

    /// How long the handler may take; 30 seconds by default.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Delivers a message with this body, and returns what the worker made of it.
    ///
    /// The current [`Context`] travels in its headers, as it does with a publisher. Fails if the body
    /// cannot be encoded, or if the handler takes too long.
    pub async fn call(&self, body: &M) -> Result<WorkerResult> {
        self.deliver(self.envelope(body)?).await
    }

    /// What [`call`](Self::call) delivers, to be changed: headers, the attempt, even the body.
    pub fn envelope(&self, body: &M) -> Result<Envelope> {
        let encoded = body.encode(&self.writes)?;
        let mut message = Message::new(encoded.body);
        message.properties.content_type = encoded.content_type;
        if let Some(context) = Context::current() {
            self.worker.callee.codec.encode(&context, &mut message.headers)?;
        }
        Ok(Envelope {
            message: Arc::new(self.writes.pack(message)?),
            exchange: crate::ShortStr::EMPTY,
            routing_key: self.worker.queue.clone(),
            redelivered: false,
            attempt: Attempt { number: 1, counted: Counted::ByBroker },
        })
    }

    /// Delivers this, and returns what the worker made of it.
    pub async fn deliver(&self, envelope: Envelope) -> Result<WorkerResult> {
        let (settle, mut settled) = mpsc::channel(1);
        let Envelope { message, exchange, routing_key, redelivered, attempt } = envelope.clone();
        let delivered = Delivered {
            tag: 1,
            message,
            exchange,
            routing_key,
            redelivered,
            attempt,
            undecodable: None,
        };
        let delivery = Delivery::new(delivered, self.writes.clone(), Settler::alone(settle));
        let working = timeout(self.within, self.worker.handle(delivery, History::default()));
        let (ended, _) = working.await.map_err(|_| {
            Error::new(ErrorKind::Timeout, "call")
                .on(format!("handler {:?}", &*self.worker.callee.handler))
                .because(format!("it was still running after {:?}", self.within))
        })?;
        let outcome = settled.try_recv().ok().map(|decided| decided.outcome);
        Ok(self.worker.result(envelope, ended, outcome))
    }
}

/// The name of the service in call ids.
const SERVICE: &str = "test";

impl<M> fmt::Debug for EntrypointHook<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntrypointHook")
            .field("queue", &self.worker.queue)
            .field("handler", &self.worker.callee.handler)
            .finish_non_exhaustive()
    }
}
