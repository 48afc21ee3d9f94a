//! A broker, reached: where publishers, topology and services come from.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    broker_options::BrokerOptions,
    capability::{Capability, Peer},
    connections::Connections,
    deadline::deadline,
    declare::{apply, declare, find_named},
    error::{Error, ErrorKind, Result},
    health::BrokerHealth,
    message::payload::Payload,
    publisher::mandatory::require_queue,
    publisher::pipeline::{PipelineOptions, PublishPipeline, Window},
    publisher::{Publisher, PublisherOptions},
    retry::plan::DelayedBy,
    short_str::ShortStr,
    source::{self, Source},
    subscription::Subscription,
    subscription::on_cancel::OnCancel,
    topology::Exchange,
    topology::queue::Queue,
    topology::route::RouteSpec,
    topology::{Change, Found, Topology},
    transport::Transport,
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
/// use enoki::{WorkQueue, broker::Capability, topology::Topology};
/// # use std::time::Duration;
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://broker").await?;
/// broker.require([Capability::DeadLetter, Capability::UnroutableDetection])?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// assert_eq!(broker.queue_status(&BILLING).await?.messages, 0);
/// broker.close(Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Broker {
    connections: Arc<Connections>,
    /// Those of its publishers. One that is gone has its window until its last message has an outcome.
    windows: Arc<Mutex<Vec<Weak<Window>>>>,
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
        let connections = Arc::new(Connections::open(transport, options).await?);
        Ok(Self { connections, windows: Arc::default() })
    }

    /// The broker that was reached, and what it can do.
    pub fn peer(&self) -> &Peer {
        self.connections.peer()
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

    /// How the two connections are doing, now and as it changes. Connections that break are opened
    /// again by themselves; this is where that shows.
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.connections.health()
    }

    /// Makes everything of the topology exist. Idempotent; what exists with other arguments is
    /// [`Conflict`](ErrorKind::Conflict).
    ///
    /// It happens on the connection that consumes, since a temporary queue belongs to that one, and
    /// again whenever that connection had to be opened anew, until this handle deletes it.
    pub async fn declare(&self, topology: &Topology) -> Result<()> {
        let topology = self.connections.localize(topology)?;
        let topology = &topology;
        self.connections
            .with_session(|session| async move { declare(&*session, topology).await })
            .await?;
        self.connections.declared().extend(topology.clone());
        Ok(())
    }

    /// Checks that everything of the topology but the bindings exists, with equal arguments, and
    /// creates nothing. What is missing is [`NotFound`](ErrorKind::NotFound), and so is what it only
    /// names: where dead letters go, or what an exchange cannot route.
    ///
    /// A broker compares arguments only with what is declared, so this needs the permission to
    /// *configure*, as declaring does: without it, it is [`Denied`](ErrorKind::Denied). What is
    /// `passive` is looked for by its name alone, and needs none.
    pub async fn verify(&self, topology: &Topology) -> Result<()> {
        let topology = self.connections.localize(topology)?;
        self.connections
            .with_session(|session| async move {
                for exchange in topology.exchanges() {
                    apply(&*session, &Change::VerifyExchange(exchange.clone())).await?;
                }
                for queue in topology.queues() {
                    apply(&*session, &Change::VerifyQueue(queue.clone())).await?;
                }
                find_named(&*session, &topology).await
            })
            .await
    }

    /// Removes the messages that wait in a queue, and says how many they were. Those that consumers
    /// have and did not settle stay. Without the queue it is [`NotFound`](ErrorKind::NotFound).
    ///
    /// ```
    /// # use enoki::{WorkQueue, topology::Topology};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> enoki::Result<()> {
    /// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
    ///
    /// let broker = enoki::connect("memory://purge").await?;
    /// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
    /// broker.publisher(&BILLING.route()).await?.publish(&"order 1".to_owned()).await?;
    /// assert_eq!(broker.purge(&BILLING).await?, 1);
    /// broker.delete_queue(&BILLING).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<u64> {
        Ok(self.apply(&Change::PurgeQueue(self.queue_name(queue)?)).await?.messages)
    }

    /// Deletes a queue with its bindings and its messages. Where there is none, that is no error. A
    /// consumer of it declares it again, unless it is told to [fail](crate::OnCancel::Fail).
    pub async fn delete_queue<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<()> {
        self.apply(&Change::DeleteQueue(self.queue_name(queue)?)).await.map(drop)
    }

    /// Deletes an exchange with its bindings. Where there is none, that is no error.
    pub async fn delete_exchange(&self, exchange: &dyn Exchange) -> Result<()> {
        self.apply(&Change::DeleteExchange(exchange.spec().name)).await.map(drop)
    }

    /// Makes one change to the topology, by name, in the words of the interface for transports: for
    /// what has no method of its own, such as removing a binding.
    pub async fn apply(&self, change: &Change) -> Result<Found> {
        match change {
            Change::DeclareExchange(spec) | Change::VerifyExchange(spec) => spec.check()?,
            Change::DeclareQueue(spec) | Change::VerifyQueue(spec) => spec.check()?,
            _ => {}
        }
        // First, so that a connection that breaks meanwhile does not bring it back.
        self.connections.declared().forget(change);
        self.connections.with_session(|session| async move { apply(&*session, change).await }).await
    }

    /// How many messages wait in a queue and how many consumers it has. A queue that is missing is
    /// [`NotFound`](ErrorKind::NotFound), and one with other arguments [`Conflict`](ErrorKind::Conflict).
    pub async fn queue_status<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<Found> {
        let topology = self.connections.localize(&Topology::new().with_queue(queue))?;
        let name = self.queue_name(queue)?;
        self.connections
            .with_session(|session| async move {
                match topology.queues().iter().find(|queue| queue.name == name) {
                    Some(queue) => apply(&*session, &Change::VerifyQueue(queue.clone())).await,
                    None => Ok(Found::default()),
                }
            })
            .await
    }

    /// Who keeps a failed message of this queue until its next attempt, where its handler has
    /// [`OnError::retry`](crate::OnError::retry). [`Unsupported`](ErrorKind::Unsupported) where this broker
    /// lets no attempt be counted: a consumer with that policy does not start then.
    ///
    /// ```
    /// # use enoki::{WorkQueue, consume::DelayedBy};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> enoki::Result<()> {
    /// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
    ///
    /// let broker = enoki::connect("memory://delayed-by").await?;
    /// assert_eq!(broker.delayed_by(&BILLING)?, DelayedBy::WaitQueues); // as RabbitMQ 4.3 over AMQP 0-9-1
    /// # Ok(())
    /// # }
    /// ```
    pub fn delayed_by<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<DelayedBy> {
        let spec = queue.spec();
        DelayedBy::of(self.peer(), &spec)
            .ok_or_else(|| DelayedBy::unsupported(self.peer(), &spec.name))
    }

    /// The whole name of a queue: a temporary one has a suffix of this handle's.
    pub fn queue_name<M: Payload>(&self, queue: &dyn Queue<Message = M>) -> Result<ShortStr> {
        let spec = queue.spec();
        self.connections.whole_name(spec.name, spec.unique)
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
        let window = options.check()?;
        route.topology.extend(options.declare.clone());
        let mut topology = self.connections.localize(&route.topology)?;
        require_queue(self.peer(), &options, &route.exchange, &route.key, &mut topology)?;
        self.connections.declare_for_publisher(&topology).await?;
        let connections = &self.connections;
        let pipeline = PublishPipeline::new(PipelineOptions {
            connection: connections.publishing().clone(),
            topology,
            by_hand: connections.declared_by_hand(),
            give_up_after: connections.options().give_up_after,
            window,
            open_timeout: connections.options().connect_timeout,
            retry: options.retry,
            fail_fast: options.fail_fast,
        });
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|window| window.strong_count() > 0);
        windows.push(Arc::downgrade(pipeline.window()));
        drop(windows);
        Ok(Publisher::new(connections.clone(), route, options, pipeline))
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
        self.subscribe_with(queue, prefetch, OnCancel::default()).await
    }

    /// Like [`Broker::subscribe`], and says what happens when the broker cancels the consumer.
    pub async fn subscribe_with<M: Payload>(
        &self,
        queue: &dyn Queue<Message = M>,
        prefetch: u16,
        on_cancel: OnCancel,
    ) -> Result<Subscription> {
        let topology = self.connections.localize(&Topology::new().with_queue(queue))?;
        let queue = self.queue_name(queue)?;
        let prefetch = source::prefetch(&queue, prefetch)?;
        let source = Source::new(&self.connections, topology, queue, prefetch);
        Subscription::open(&self.connections, source, on_cancel, self.connections.declare_by())
            .await
    }

    /// Waits for the outcomes of what was published, then closes the connections, all within this
    /// time. What is published or consumed later fails as
    /// [`Closed`](ErrorKind::Closed). Idempotent.
    pub async fn close(&self, within: Duration) {
        let deadline = deadline(within);
        drain(&self.windows, deadline).await;
        self.connections.close(deadline).await;
    }

    /// Closes the connections if this is the last handle on them.
    pub(crate) async fn release(self, deadline: Instant) {
        let Self { connections, windows } = self;
        if let Ok(connections) = Arc::try_unwrap(connections) {
            drain(&windows, deadline).await;
            connections.close(deadline).await;
        }
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("transport", self.connections.transport())
            .field("peer", self.connections.peer())
            .finish_non_exhaustive()
    }
}

/// Waits until what was published has its outcome, and lets no more in.
async fn drain(windows: &Mutex<Vec<Weak<Window>>>, deadline: Instant) {
    let windows: Vec<_> = {
        let windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.iter().filter_map(Weak::upgrade).collect()
    };
    for window in windows {
        window.close(deadline).await;
    }
}
