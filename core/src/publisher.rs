//! Publishing typed messages.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context as Waker, Poll},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep},
};
use uuid::Uuid;

use crate::{
    broker::Broker,
    codec::Codecs,
    context::Context,
    error::{Error, ErrorKind, Result},
    lane::{Batch, Lane, Parcel, Reply},
    message::{Message, Properties},
    payload::Payload,
    route::{RouteSpec, check_key},
    short_str::ShortStr,
    topology::Topology,
    value::{Table, Timestamp, Value},
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
///     Err(error) if error.kind() == ErrorKind::Unroutable => println!("nobody wants it"),
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
    broker: Broker,
    route: Route,
    options: PublisherOptions,
    codecs: Codecs,
    lane: Lane,
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

/// What holds for every message of a publisher, unless the call says otherwise.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::PublisherOptions;
///
/// let options = PublisherOptions::new().window(512).expiration(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    mandatory: bool,
    properties: Properties,
    headers: Table,
    codecs: Option<Codecs>,
    pub(crate) window: u16,
    timeout: Duration,
    pub(crate) declare: Topology,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            mandatory: true,
            properties: Properties::default(),
            headers: Table::new(),
            codecs: None,
            window: 256,
            timeout: Duration::from_secs(30),
            declare: Topology::new(),
        }
    }
}

impl PublisherOptions {
    /// The defaults: persistent, mandatory, a window of 256 messages, 30 seconds for each.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message that no queue is bound for is no error: it is confirmed, and gone.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.mandatory = false;
        self
    }

    /// Messages do not survive a restart of the broker, not even in a durable queue.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.properties.persistent = false;
        self
    }

    /// How long messages wait in a queue, at most.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.properties.expiration = Some(expiration);
        self
    }

    /// The priority of messages, on queues that have priorities.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.properties.priority = Some(priority);
        self
    }

    /// The name of the application, on each message.
    #[must_use]
    pub fn app_id(mut self, app_id: ShortStr) -> Self {
        self.properties.app_id = Some(app_id);
        self
    }

    /// Headers for each message; a call's own win over them, and the context over both.
    #[must_use]
    pub fn headers(mut self, headers: Table) -> Self {
        self.headers = headers;
        self
    }

    /// The encoding of bodies; the broker handle's by default.
    #[must_use]
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = Some(codecs);
        self
    }

    /// How many messages may be without an outcome, 1 to 65,535; 256 by default. This is what
    /// bounds the memory of a publisher, and what makes it wait.
    #[must_use]
    pub fn window(mut self, messages: u16) -> Self {
        self.window = messages;
        self
    }

    /// How long a message may take from the call to its outcome; 30 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What else to declare before publishing, for instance the queue that is to get the messages.
    #[must_use]
    pub fn declare(mut self, topology: Topology) -> Self {
        self.declare = topology;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.window == 0 {
            return Err(Error::new(ErrorKind::Configuration, "make a publisher")
                .because("a window of 0 has no room for a message")
                .remedy("1 to 65535; 256 is the default"));
        }
        Ok(())
    }
}

impl<M: Payload> Publisher<M> {
    pub(crate) fn new(
        broker: Broker,
        route: RouteSpec<M>,
        options: PublisherOptions,
        lane: Lane,
    ) -> Self {
        let codecs = options.codecs.clone().unwrap_or_else(|| broker.options().codecs.clone());
        let route = Route {
            exchange: route.exchange,
            kind: route.kind,
            key: route.key,
            headers: route.headers,
        };
        Self {
            inner: Arc::new(Inner { broker, route, options, codecs, lane }),
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
        let mut publications = Vec::new();
        for message in messages {
            publications.push(self.message(message).and_then(Publication::seal));
        }
        let deadline = Instant::now() + self.inner.options.timeout;
        let batch = Batch::of(publications.len());
        let mut parcels = Vec::with_capacity(publications.len());
        let mut ids = Vec::with_capacity(publications.len());
        for (at, sealed) in publications.into_iter().enumerate() {
            match sealed {
                Ok(sealed) => {
                    ids.push(sealed.id.clone());
                    parcels
                        .push(sealed.parcel(deadline, Reply::Batch { batch: batch.clone(), at }));
                }
                Err(error) => {
                    ids.push(ShortStr::EMPTY);
                    batch.settle(at, Err(error));
                }
            }
        }
        self.inner.lane.send_many(deadline, parcels).await;
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
    /// # use enoki::{Topology, WorkQueue};
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
    pub fn message(&self, message: &M) -> Result<Publication<'_>> {
        let encoded = message.encode(&self.inner.codecs)?;
        let options = &self.inner.options;
        let mut headers = self.inner.route.headers.clone();
        headers.merge(options.headers.clone());
        let mut properties = options.properties.clone();
        properties.content_type = encoded.content_type;
        let message = Message { body: encoded.body, headers, properties };
        Ok(Publication {
            publisher: &self.inner,
            key: self.inner.route.key.clone(),
            mandatory: options.mandatory,
            message,
        })
    }
}

impl Inner {
    fn overdue(&self) -> Error {
        Error::new(ErrorKind::Indeterminate, "publish to")
            .on(format!("exchange {:?}", self.route.exchange.as_str()))
            .because(format!("the broker had not confirmed it after {:?}", self.options.timeout))
            .remedy("publish it again with the same message id, if a duplicate does no harm")
    }
}

/// A message about to be published, with what is its own.
///
/// Made by [`Publisher::message`].
#[must_use = "it is only published by `publish` or `enqueue`"]
pub struct Publication<'p> {
    publisher: &'p Inner,
    key: ShortStr,
    mandatory: bool,
    message: Message,
}

macro_rules! text_properties {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {$(
        $(#[$doc])+
        pub fn $name(mut self, $name: impl TryInto<ShortStr, Error: Into<Error>>) -> Result<Self> {
            self.message.properties.$name = Some($name.try_into().map_err(Into::into)?);
            Ok(self)
        }
    )+};
}

impl Publication<'_> {
    text_properties! {
        /// The id; unique to the message, also over retries.
        message_id,
        /// What this message answers.
        correlation_id,
        /// The queue that answers go to.
        reply_to,
        /// The application's name for this sort of message.
        kind,
        /// The application that publishes.
        app_id,
        /// The login that publishes; brokers refuse any other than the connection's own.
        user_id,
        /// How the body is encoded on top of its type. Says so only; the body is sent as it is.
        content_encoding,
    }

    /// The routing key.
    pub fn key(mut self, key: impl TryInto<ShortStr, Error: Into<Error>>) -> Result<Self> {
        self.key = key.try_into().map_err(Into::into)?;
        Ok(self)
    }

    /// A header; wins over the publisher's of the same name.
    pub fn header(
        mut self,
        name: impl TryInto<ShortStr, Error: Into<Error>>,
        value: impl Into<Value>,
    ) -> Result<Self> {
        self.message.headers.insert(name, value)?;
        Ok(self)
    }

    /// When the message was made.
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.message.properties.timestamp = Some(timestamp);
        self
    }

    /// How long it may wait in a queue.
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.message.properties.expiration = Some(expiration);
        self
    }

    /// The higher the sooner, on queues that have priorities.
    pub fn priority(mut self, priority: u8) -> Self {
        self.message.properties.priority = Some(priority);
        self
    }

    /// Whether it survives a restart of the broker, in a durable queue.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.message.properties.persistent = persistent;
        self
    }

    /// Whether it is an error that no queue is bound for it.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = mandatory;
        self
    }

    /// Publishes and waits for the outcome, like [`Publisher::publish`].
    pub async fn publish(self) -> Result<Confirmed> {
        self.enqueue().await?.await
    }

    /// Hands over and tells the outcome later, like [`Publisher::enqueue`].
    pub async fn enqueue(self) -> Result<Confirm> {
        let publisher = self.publisher;
        let deadline = Instant::now() + publisher.options.timeout;
        let sealed = self.seal()?;
        let (reply, outcome) = oneshot::channel();
        let confirm = Confirm {
            outcome,
            message_id: sealed.id.clone(),
            exchange: publisher.route.exchange.clone(),
            deadline,
            timer: None,
        };
        publisher.lane.send(deadline, || sealed.parcel(deadline, Reply::One(reply))).await?;
        Ok(confirm)
    }

    /// Adds the context and the id, and checks what no wire could carry.
    fn seal(mut self) -> Result<Sealed> {
        let inner = self.publisher;
        check_key(&inner.route.kind, &inner.route.exchange, &self.key)?;
        // Read now, not when the publisher was made: the handler may have changed it.
        if let Some(context) = Context::current() {
            inner.broker.options().header_codec.encode(&context, &mut self.message.headers)?;
        }
        self.message.check(&inner.broker.options().limits)?;
        // As the wires carry it, so that it arrives equal on all of them.
        if let Some(millis) = self.message.properties.expiration_millis() {
            self.message.properties.expiration = Some(Duration::from_millis(millis.into()));
        }
        let id = match &self.message.properties.message_id {
            Some(id) => id.clone(),
            None => message_id(),
        };
        self.message.properties.message_id = Some(id.clone());
        Ok(Sealed {
            id,
            exchange: inner.route.exchange.clone(),
            key: self.key,
            mandatory: self.mandatory,
            message: Arc::new(self.message),
        })
    }
}

/// Unique, and in the order of time.
fn message_id() -> ShortStr {
    let mut text = Uuid::encode_buffer();
    ShortStr::within_limit(Uuid::now_v7().hyphenated().encode_lower(&mut text))
}

/// A message that can be sent as it is.
struct Sealed {
    id: ShortStr,
    exchange: ShortStr,
    key: ShortStr,
    mandatory: bool,
    message: Arc<Message>,
}

impl Sealed {
    fn parcel(self, deadline: Instant, reply: Reply) -> Parcel {
        Parcel {
            exchange: self.exchange,
            routing_key: self.key,
            mandatory: self.mandatory,
            message: self.message,
            deadline,
            reply,
        }
    }
}

/// The outcome of a message that was handed over; await it.
///
/// Dropping it does not take the message back.
///
/// ```
/// # use enoki::{Topology, WorkQueue};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
///
/// let broker = enoki::connect("memory://confirm").await?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// let orders = broker.publisher(&BILLING.route()).await?;
/// let mut confirms = Vec::new();
/// for order in 0..100 {
///     confirms.push(orders.enqueue(&order).await?); // waits only for room
/// }
/// for confirm in confirms {
///     confirm.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the outcome is only known by awaiting it"]
pub struct Confirm {
    outcome: oneshot::Receiver<Result<()>>,
    message_id: ShortStr,
    exchange: ShortStr,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Confirm {
    /// The id of the message.
    pub fn message_id(&self) -> &ShortStr {
        &self.message_id
    }

    fn indeterminate(&self, reason: &'static str) -> Error {
        Error::new(ErrorKind::Indeterminate, "publish to")
            .on(format!("exchange {:?}", self.exchange.as_str()))
            .because(reason)
            .remedy("publish it again with the same message id, if a duplicate does no harm")
    }
}

impl Future for Confirm {
    type Output = Result<Confirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match Pin::new(&mut this.outcome).poll(cx) {
            Poll::Ready(Ok(result)) => {
                return Poll::Ready(
                    result.map(|()| Confirmed { message_id: this.message_id.clone() }),
                );
            }
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Err(
                    this.indeterminate("the publisher's task ended before the outcome was known")
                ));
            }
            Poll::Pending => {}
        }
        // Most outcomes are there when they are asked for: a timer is only made for the others.
        let deadline = this.deadline;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(this.indeterminate("the broker had not confirmed it by the deadline")))
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Publication<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("key", &self.key)
            .field("message", &self.message)
            .finish_non_exhaustive()
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
