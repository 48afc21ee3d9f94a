//! Publishing typed messages.

mod confirm;
pub(crate) mod mandatory;
mod options;
pub(crate) mod pipeline;
mod publication;
mod retry;

use std::{fmt, marker::PhantomData, sync::Arc};

pub use self::{
    confirm::Confirm, options::PublisherOptions, publication::Publication, retry::RetryPolicy,
};
use crate::{
    connections::Connections,
    deadline::deadline,
    delivery::Envelope,
    error::{Error, ErrorKind, Result},
    message::codec::Codecs,
    message::payload::Payload,
    message::value::Table,
    message::{Message, is_reserved},
    publisher::pipeline::{Batch, PublishPipeline, Reply},
    short_str::ShortStr,
    topology::route::RouteSpec,
};

/// Publishes messages of type `M` on one route: persistent, confirmed, and routed or reported.
///
/// Cloning it makes another handle on the same ordered path. Made by
/// [`Broker::publisher`](crate::Broker::publisher).
///
/// ```
/// use enoki::{ErrorKind, Route, Topic};
///
/// const SHOP: Topic = Topic::new("shop");
/// const PLACED: Route<String> = SHOP.route("order.placed");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://publisher").await?;
/// let orders = broker.publisher(&PLACED).await?;
/// match orders.publish(&"order 1".to_owned()).await {
///     Ok(confirmed) => println!("stored as {}", confirmed.message_id),
///     Err(error) if error.kind() == ErrorKind::Unroutable => println!("no queue gets it"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Publisher<M> {
    inner: Arc<Inner>,
    message: PhantomData<fn(M)>,
}

struct Inner {
    connections: Arc<Connections>,
    route: Route,
    options: PublisherOptions,
    codecs: Codecs,
    pipeline: PublishPipeline,
}

struct Route {
    exchange: ShortStr,
    kind: crate::topology::ExchangeKind,
    key: ShortStr,
    headers: Table,
}

/// The broker took responsibility for the message, and routed it to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmed {
    /// The id it was published with: the program's, or one made for it.
    pub message_id: ShortStr,
}

impl<M: Payload> Publisher<M> {
    pub(crate) fn new(
        connections: Arc<Connections>,
        route: RouteSpec<M>,
        options: PublisherOptions,
        pipeline: PublishPipeline,
    ) -> Self {
        let codecs = options.codecs.clone().unwrap_or_else(|| connections.options().codecs.clone());
        let route = Route {
            exchange: route.exchange,
            kind: route.kind,
            key: route.key,
            headers: route.headers,
        };
        Self {
            inner: Arc::new(Inner { connections, route, options, codecs, pipeline }),
            message: PhantomData,
        }
    }

    /// Publishes a message and waits until the broker has taken responsibility for it and routed it
    /// to a queue.
    ///
    /// The error's kind is the outcome otherwise: [`Unroutable`](ErrorKind::Unroutable),
    /// [`Refused`](ErrorKind::Refused), or [`Indeterminate`](ErrorKind::Indeterminate) when the
    /// connection or the deadline ended first. Dropped before it is ready, the message may or may
    /// not be published.
    pub async fn publish(&self, message: &M) -> Result<Confirmed> {
        self.enqueue(message).await?.await
    }

    /// Publishes with a routing key of the call's own.
    pub async fn publish_to(
        &self,
        key: impl TryInto<ShortStr, Error: Into<Error>>,
        message: &M,
    ) -> Result<Confirmed> {
        self.message(message)?.key(key)?.publish().await
    }

    /// Waits only for room in the window, then hands the message over; the [`Confirm`] tells the
    /// outcome later. Messages are published in the order of these calls.
    ///
    /// Cancel safe: dropped before it is ready, the message is not published.
    pub async fn enqueue(&self, message: &M) -> Result<Confirm> {
        self.message(message)?.enqueue().await
    }

    /// Publishes messages in order and waits for all outcomes, with one wake for all; outcomes are
    /// in the order of the messages.
    pub async fn publish_all<'m>(
        &self,
        messages: impl IntoIterator<Item = &'m M>,
    ) -> Vec<Result<Confirmed>> {
        let publications: Vec<_> =
            messages.into_iter().map(|message| self.message(message)).collect();
        let deadline = deadline(self.inner.options.timeout);
        let batch = Batch::of(publications.len());
        let mut queued = Vec::with_capacity(publications.len());
        let mut ids = Vec::with_capacity(publications.len());
        for (at, publication) in publications.into_iter().enumerate() {
            let reply = Reply::Batch { batch: batch.clone(), at };
            match publication.and_then(|publication| publication.into_queued(deadline, reply)) {
                Ok((id, message)) => {
                    ids.push(id);
                    queued.push(message);
                }
                Err(error) => {
                    ids.push(ShortStr::EMPTY);
                    batch.settle(at, Err(error));
                }
            }
        }
        self.inner.pipeline.send_many(deadline, queued).await;
        let outcomes = batch.outcomes(deadline).await;
        let outcome = |(outcome, message_id): (Option<Result<()>>, ShortStr)| match outcome {
            Some(result) => result.map(|()| Confirmed { message_id }),
            None => Err(self.inner.overdue()),
        };
        outcomes.into_iter().zip(ids).map(outcome).collect()
    }

    /// A message with properties of its own.
    ///
    /// ```
    /// # use enoki::{WorkQueue, topology::Topology};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> enoki::Result<()> {
    /// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
    ///
    /// let broker = enoki::connect("memory://message").await?;
    /// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
    /// let orders = broker.publisher(&BILLING.route()).await?;
    /// orders.message(&"order 2".to_owned())?.priority(5).header("region", "eu")?.publish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&self, message: &M) -> Result<Publication<'_, M>> {
        self.message_with(message, &self.inner.codecs)
    }

    /// A message with properties of its own, in another encoding than the publisher's.
    pub fn message_with(&self, message: &M, codecs: &Codecs) -> Result<Publication<'_, M>> {
        let encoded = message.encode(codecs)?;
        let options = &self.inner.options;
        let mut properties = options.properties.clone();
        properties.content_type = encoded.content_type;
        let message = Message { body: encoded.body, headers: options.headers.clone(), properties };
        Ok(self.publication(codecs.pack(message)?))
    }
}

impl<M> Publisher<M> {
    /// Publishes a message that was delivered, as it is: its body, headers and properties, on this
    /// publisher's route. Waits for the outcome like [`publish`](Publisher::publish).
    ///
    /// What it was made for is not looked at: the body may be of another type than `M`, or unreadable.
    /// The message keeps its id, so consumers that look for duplicates take the two for one. What
    /// brokers write and do not take back (`x-death` and its kin, the user id) is left out. Settle the
    /// delivery after this has succeeded: what happens in between is a second copy and not a loss.
    ///
    /// ```
    /// # use enoki::{Outcome, WorkQueue, topology::Topology};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> enoki::Result<()> {
    /// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
    /// const LOST: WorkQueue<u32> = WorkQueue::new("lost");
    ///
    /// let broker = enoki::connect("memory://forward").await?;
    /// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
    /// broker.publisher(&LOST.route()).await?;
    /// # broker.declare(&Topology::new().with_queue(&LOST)).await?;
    /// # broker.publisher(&LOST.route()).await?.publish(&7).await?;
    /// let orders = broker.publisher(&BILLING.route()).await?;
    /// let mut lost = broker.subscribe(&LOST, 1).await?;
    /// if let Some(letter) = lost.next().await? {
    ///     orders.forward(letter.envelope()).await?;
    ///     letter.settle(Outcome::Ack);
    /// }
    /// assert_eq!(broker.queue_status(&BILLING).await?.messages, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forward(&self, envelope: &Envelope) -> Result<Confirmed> {
        self.forwarded(envelope).publish().await
    }

    /// The same, with something of its own: another key, a header more, no expiration.
    pub fn forwarded(&self, envelope: &Envelope) -> Publication<'_, M> {
        let mut message = Message::clone(&envelope.message);
        message.headers.without(is_reserved);
        message.properties.user_id = None;
        self.publication(message)
    }

    /// A message as it is, on this publisher's route.
    pub(crate) fn publication(&self, message: Message) -> Publication<'_, M> {
        let Inner { route, options, .. } = &*self.inner;
        Publication {
            publisher: &self.inner,
            exchange: route.exchange.clone(),
            kind: route.kind.clone(),
            key: route.key.clone(),
            headers: route.headers.clone(),
            mandatory: options.mandatory,
            timeout: options.timeout,
            retry: options.retry,
            message,
            of: PhantomData,
        }
    }
}

impl Inner {
    fn overdue(&self) -> Error {
        Error::new(ErrorKind::Indeterminate, "publish to")
            .on(format!("exchange {:?}", self.route.exchange.as_str()))
            .because(format!(
                "the broker had not confirmed it after {:?}{}",
                self.options.timeout,
                self.pipeline.window().trouble()
            ))
            .remedy("publish it again with the same message id, if a duplicate does no harm")
    }
}

impl<M> Clone for Publisher<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), message: PhantomData }
    }
}

impl<M> fmt::Debug for Publisher<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("exchange", &self.inner.route.exchange)
            .field("key", &self.inner.route.key)
            .finish_non_exhaustive()
    }
}
