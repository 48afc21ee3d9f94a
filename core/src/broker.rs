//! A broker, reached: where publishers, topology and services come from.

mod options;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

pub use self::options::BrokerOptions;
use crate::{
    capability::{Capability, Peer},
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::Link,
    message::payload::Payload,
    publisher::lane::{Lane, Window},
    publisher::{Publisher, PublisherOptions},
    short_str::ShortStr,
    subscription::Subscription,
    topology::queue::Queue,
    topology::route::RouteSpec,
    topology::{Topology, unique_name},
    transport::{Change, Found, Purpose, Session, Transport},
};

/// A broker that was reached: publishers, topology and services come from it.
///
/// Cloning it makes another handle on the same two connections, one for publishing, one for
/// consuming; they close when the last handle, publisher and service is gone, or by
/// [`Broker::close`].
///
/// Programs get one by `enoki::connect(url)`.
///
/// ```
/// use enoki::{Capability, Topology, WorkQueue};
/// # use std::time::Duration;
/// # use tokio::time::Instant;
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://broker").await?;
/// broker.require([Capability::DeadLetter, Capability::UnroutableDetection])?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// assert_eq!(broker.queue_status(&BILLING).await?.messages, 0);
/// broker.close(Instant::now() + Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    publishing: Link,
    consuming: Link,
    peer: Peer,
    options: BrokerOptions,
    /// Tells this handle's temporary queues from everybody else's.
    suffix: String,
    windows: Mutex<Vec<Weak<Window>>>,
}

impl Inner {
    async fn close(&self, deadline: Instant) {
        let windows: Vec<_> = {
            let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            // A publisher that is gone has its window until its last message has an outcome.
            windows.iter().filter_map(Weak::upgrade).collect()
        };
        for window in windows {
            window.close(deadline).await;
        }
        tokio::join!(self.publishing.close(deadline), self.consuming.close(deadline));
    }
}

impl Broker {
    /// Reaches a broker by a transport: a refused login or an unreachable broker is known here.
    pub async fn connect(transport: Arc<dyn Transport>) -> Result<Self> {
        Self::connect_with(transport, BrokerOptions::default()).await
    }

    /// Like [`Broker::connect`], with options.
    pub async fn connect_with(
        transport: Arc<dyn Transport>,
        options: BrokerOptions,
    ) -> Result<Self> {
        let link = |purpose| Link::new(transport.clone(), purpose, options.connect_timeout);
        let (publishing, consuming) = (link(Purpose::Publish), link(Purpose::Consume));
        let reached = publishing.session(Instant::now() + 2 * options.connect_timeout).await?;
        let inner = Inner {
            peer: reached.session.peer().clone(),
            transport,
            publishing,
            consuming,
            options,
            suffix: Uuid::now_v7().simple().to_string(),
            windows: Mutex::new(Vec::new()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who was reached, and what they can do.
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// Fails unless the broker can do all of this: at start, where it is cheap, and not at message
    /// time.
    pub fn require(&self, capabilities: impl IntoIterator<Item = Capability>) -> Result<()> {
        let missing: Vec<_> = capabilities
            .into_iter()
            .filter(|wanted| !self.peer().can(*wanted))
            .map(Capability::as_str)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, "require capabilities")
            .on(format!("of {}", self.peer()))
            .because(format!("it lacks {}", missing.join(", "))))
    }

    /// Makes everything of the topology exist. Idempotent; what exists with other arguments is
    /// [`Conflict`](ErrorKind::Conflict).
    ///
    /// It happens on the connection that consumes, since a temporary queue belongs to that one.
    pub async fn declare(&self, topology: &Topology) -> Result<()> {
        let topology = self.localize(topology)?;
        self.with_session(|session| async move { declare(&*session, &topology).await }).await
    }

    /// Checks that everything of the topology but the bindings exists, with equal arguments, and
    /// creates nothing. What is missing is [`NotFound`](ErrorKind::NotFound).
    pub async fn verify(&self, topology: &Topology) -> Result<()> {
        let topology = self.localize(topology)?;
        self.with_session(|session| async move {
            for exchange in topology.exchanges() {
                session.apply(&Change::VerifyExchange(exchange.clone())).await?;
            }
            for queue in topology.queues() {
                session.apply(&Change::VerifyQueue(queue.clone())).await?;
            }
            Ok(())
        })
        .await
    }

    /// Makes one change to the topology, by name: deletes, purges, unbinds.
    pub async fn apply(&self, change: &Change) -> Result<Found> {
        self.with_session(|session| async move { session.apply(change).await }).await
    }

    /// How many messages wait in a queue and how many consumers it has. Fails like
    /// [`Broker::verify`].
    pub async fn queue_status<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<Found> {
        let topology = self.localize(&Topology::new().with_queue(queue))?;
        let name = self.queue_name(queue)?;
        self.with_session(|session| async move {
            let mut status = Found::default();
            for queue in topology.queues() {
                let found = session.apply(&Change::VerifyQueue(queue.clone())).await?;
                if queue.name == name {
                    status = found;
                }
            }
            Ok(status)
        })
        .await
    }

    /// The whole name of a queue: a temporary one has a suffix of this handle's.
    pub fn queue_name<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<ShortStr> {
        let spec = queue.spec();
        self.whole_name(spec.name, spec.unique)
    }

    pub(crate) fn whole_name(&self, name: ShortStr, unique: bool) -> Result<ShortStr> {
        if unique { unique_name(&name, &self.inner.suffix) } else { Ok(name) }
    }

    /// A publisher on this route; its exchange is declared here and again on each new connection.
    pub async fn publisher<M: Payload>(
        &self,
        route: impl Into<RouteSpec<M>>,
    ) -> Result<Publisher<M>> {
        self.publisher_with(route, PublisherOptions::default()).await
    }

    /// Like [`Broker::publisher`], with options.
    pub async fn publisher_with<M: Payload>(
        &self,
        route: impl Into<RouteSpec<M>>,
        options: PublisherOptions,
    ) -> Result<Publisher<M>> {
        let mut route = route.into();
        options.check()?;
        route.topology.extend(options.declare.clone());
        let topology = self.localize(&route.topology)?;
        let deadline = Instant::now() + self.inner.options.declare_timeout;
        let declaring = async {
            let incarnation = self.inner.publishing.session(deadline).await?;
            declare(&*incarnation.session, &topology).await
        };
        timeout_at(deadline, declaring).await.unwrap_or_else(|_| Err(overdue("declare")))?;
        let lane = Lane::new(
            self.inner.publishing.clone(),
            topology,
            options.window,
            self.inner.options.connect_timeout,
        );
        let mut windows = self.inner.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|window| window.strong_count() > 0);
        windows.push(Arc::downgrade(lane.window()));
        drop(windows);
        Ok(Publisher::new(self.clone(), route, options, lane))
    }

    /// Consumes from a queue by hand, with at most `prefetch` unsettled deliveries at a time: for
    /// programs that are no [`Service`](crate::Service). The queue is declared first.
    ///
    /// ```
    /// # use enoki::{Outcome, WorkQueue};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> enoki::Result<()> {
    /// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
    ///
    /// let broker = enoki::connect("memory://subscribe").await?;
    /// let mut deliveries = broker.subscribe(&BILLING, 32).await?;
    /// broker.publisher(&BILLING.route()).await?.publish(&"order 1".to_owned()).await?;
    /// if let Some(delivery) = deliveries.next().await? {
    ///     let order: String = delivery.decode()?;
    ///     assert_eq!(order, "order 1");
    ///     delivery.settle(Outcome::Ack);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe<M: Payload>(
        &self,
        queue: &dyn Queue<Message = M>,
        prefetch: u16,
    ) -> Result<Subscription> {
        let topology = self.localize(&Topology::new().with_queue(queue))?;
        let name = self.queue_name(queue)?;
        Subscription::open(self, &topology, name, prefetch).await
    }

    /// Closes the connections: waits for the outcomes of what was published, then says goodbye, all
    /// within the deadline. What is published or consumed later fails as
    /// [`Closed`](ErrorKind::Closed). Twice is once.
    pub async fn close(&self, deadline: Instant) {
        self.inner.close(deadline).await;
    }

    /// Closes the connections if nobody else has a handle on them.
    pub(crate) async fn release(self, deadline: Instant) {
        if let Ok(last) = Arc::try_unwrap(self.inner) {
            last.close(deadline).await;
        }
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    pub(crate) fn localize(&self, topology: &Topology) -> Result<Topology> {
        topology.clone().localize(&self.inner.suffix)
    }

    /// Does something on the consuming connection, within the time for declaring.
    pub(crate) async fn with_session<T, F>(
        &self,
        work: impl FnOnce(Arc<dyn Session>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now()
            + self.inner.options.connect_timeout
            + self.inner.options.declare_timeout;
        let working = async {
            let incarnation = self.inner.consuming.session(deadline).await?;
            work(incarnation.session).await
        };
        timeout_at(deadline, working).await.unwrap_or_else(|_| Err(overdue("declare")))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("transport", &self.inner.transport)
            .field("peer", &self.inner.peer)
            .finish_non_exhaustive()
    }
}

fn overdue(operation: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, operation).because("the deadline passed")
}
