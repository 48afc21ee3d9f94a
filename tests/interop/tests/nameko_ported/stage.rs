//! What a test gets: a broker, names of its own, a clean-up at its end, and steps that many take.

use std::{cell::RefCell, fmt::Debug, net::SocketAddr, time::Duration};

use enoki::{
    Broker, Outcome, Publisher,
    broker::{BrokerOptions, BrokerUrl},
    codec::Payload,
    consume::{Delivery, Subscription},
    context::Context,
    publish::PublisherOptions,
    topology::{
        BindingSpec, Destination, DynamicQueue, ExchangeKind, ExchangeSpec, QueueSpec, RouteSpec,
        Topology,
    },
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use enoki_faults::proxy::Proxy;
use enoki_interop::{Checked, encrypted::Encrypted};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

pub(crate) struct Stage {
    url: String,
    proxy: Option<Proxy>,
    encrypted: Option<Encrypted>,
    prefix: String,
    made: RefCell<Vec<Change>>,
}

impl Stage {
    pub(crate) async fn open(
        url: String,
        needs_proxy: bool,
        encrypted: Option<Encrypted>,
    ) -> Checked<Self> {
        let proxy =
            if needs_proxy { Some(Proxy::start(address(&url).await?).await?) } else { None };
        let prefix = format!("nameko-ported.{}", Uuid::now_v7().simple());
        Ok(Self { url, proxy, encrypted, prefix, made: RefCell::default() })
    }

    /// A handle of its own on the broker.
    pub(crate) async fn broker(&self) -> Checked<Broker> {
        self.broker_with(BrokerOptions::new()).await
    }

    pub(crate) async fn broker_with(&self, options: BrokerOptions) -> Checked<Broker> {
        Ok(enoki::connect_with(&self.url, options).await?)
    }

    /// A handle that reaches the broker by the proxy.
    pub(crate) async fn behind_the_proxy(&self) -> Checked<Broker> {
        // As in the original, where they notice a dead broker within seconds.
        Ok(connect_patiently(format!("{}?heartbeat=2", self.proxy().url(&self.url))).await?)
    }

    /// The proxy; only for tests that need one.
    pub(crate) fn proxy(&self) -> &Proxy {
        match &self.proxy {
            Some(proxy) => proxy,
            None => unreachable!("the test does not say that it needs a proxy"),
        }
    }

    /// How the broker is reached by TLS; only for tests that are about it.
    pub(crate) fn encrypted(&self) -> &Encrypted {
        match &self.encrypted {
            Some(encrypted) => encrypted,
            None => unreachable!("the test does not say that it needs TLS"),
        }
    }

    /// The login of the URL; in memory there are none.
    pub(crate) fn user(&self) -> Option<String> {
        let url = BrokerUrl::parse(&self.url).ok()?;
        url.username().map(str::to_owned)
    }

    /// A name of this test alone.
    pub(crate) fn name(&self, label: &str) -> String {
        format!("{}.{label}", self.prefix)
    }

    /// A queue of this test alone, which goes when the test ends.
    pub(crate) fn queue(&self, label: &str) -> Checked<QueueSpec> {
        let queue = QueueSpec::new(self.name(label))?;
        self.made.borrow_mut().push(Change::DeleteQueue(queue.name.clone()));
        Ok(queue)
    }

    /// An exchange of this test alone, which goes when the test ends.
    pub(crate) fn exchange(&self, label: &str, kind: ExchangeKind) -> Checked<ExchangeSpec> {
        let exchange = ExchangeSpec::new(self.name(label), kind)?;
        self.made.borrow_mut().push(Change::DeleteExchange(exchange.name.clone()));
        Ok(exchange)
    }

    /// Removes what the test has declared.
    pub(crate) async fn tidy(self) -> Checked {
        let broker = connect_patiently(&self.url).await?;
        for change in self.made.into_inner() {
            broker.apply(&change).await?;
        }
        broker.close(soon()).await;
        Ok(())
    }
}

async fn address(url: &str) -> Checked<SocketAddr> {
    let url = BrokerUrl::parse(url)?;
    let host = url.host().ok_or("the URL names no host")?;
    let mut found = tokio::net::lookup_host((host, url.port().unwrap_or(5672))).await?;
    Ok(found.next().ok_or("the host has no address")?)
}

/// This queue, bound to the exchange by this key.
pub(crate) fn bound<M: Payload>(
    queue: &QueueSpec,
    exchange: &ExchangeSpec,
    key: &str,
) -> Checked<DynamicQueue<M>> {
    let binding = BindingSpec::new(exchange, Destination::Queue(queue.name.clone()), key)?;
    Ok(queue.clone().of::<M>().bind(exchange, binding))
}

/// A publisher to this queue, which it declares.
pub(crate) async fn to_queue<M: Payload>(
    broker: &Broker,
    queue: &QueueSpec,
) -> Checked<Publisher<M>> {
    let options = PublisherOptions::new();
    let options = options.declare(Topology::new().with_queue(&queue.clone().of::<M>()));
    Ok(broker.publisher_with(RouteSpec::to_queue(queue.name.as_str())?, options).await?)
}

/// All that the queue holds, in order, and then nothing. What is still with another consumer is not
/// in it.
pub(crate) async fn contents(broker: &Broker, queue: &QueueSpec) -> Checked<Vec<String>> {
    let end = format!("the end, {}", Uuid::now_v7());
    to_queue::<String>(broker, queue).await?.publish(&end).await?;
    let mut subscription = broker.subscribe(&queue.clone().of::<String>(), 1).await?;
    let mut found = Vec::new();
    loop {
        let delivery = next(&mut subscription).await?;
        let body = String::from_utf8_lossy(&delivery.message().body).into_owned();
        delivery.settle(Outcome::Ack);
        if body.contains(&end) {
            subscription.stop(soon()).await?;
            return Ok(found);
        }
        found.push(body);
    }
}

pub(crate) async fn next(subscription: &mut Subscription) -> Checked<Delivery> {
    let next = timeout(PATIENCE, subscription.next()).await.map_err(|_| "nothing is delivered")?;
    Ok(next?.ok_or("the subscription has ended")?)
}

/// What a handler tells the test.
pub(crate) async fn heard<T>(from: &mut mpsc::UnboundedReceiver<T>) -> Checked<T> {
    let heard = timeout(PATIENCE, from.recv()).await.map_err(|_| "no handler says anything")?;
    Ok(heard.ok_or("there is no handler any more")?)
}

/// Waits for what has to happen sooner or later.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> Checked<T> {
    within(PATIENCE, what, future).await
}

/// Waits for what takes its time.
pub(crate) async fn within<T>(
    time: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Checked<T> {
    Ok(timeout(time, future).await.map_err(|_| format!("not in time: {what}"))?)
}

pub(crate) fn soon() -> Duration {
    Duration::from_secs(10)
}

pub(crate) fn same<T: Debug + PartialEq<U>, U: Debug>(what: &str, is: T, expected: U) -> Checked {
    if is == expected {
        return Ok(());
    }
    Err(format!("{what}: {is:?}, and it should be {expected:?}").into())
}

/// The context of a call from outside, with these values.
pub(crate) fn call<const N: usize>(values: [(&str, enoki::message::Value); N]) -> Checked<Context> {
    let mut context = Context::new();
    for (name, value) in values {
        context.set(name, value)?;
    }
    Ok(context.child("test", "method"))
}

/// Long enough for a loaded machine; nothing waits so long that goes well.
const PATIENCE: Duration = Duration::from_secs(60);
