//! Steps that many cases take. Most messages are numbers: they are easy to compare.

use std::time::Duration;

use enoki_core::{
    BindingSpec, Broker, DeadLetter, Delivery, Destination, ErrorKind, ExchangeSpec, Outcome,
    Payload, Publisher, PublisherOptions, QueueSpec, RouteSpec, Subscription, Table, Topology,
};
use tokio::time::{sleep, timeout};

use crate::expect::Failed;

/// How long to wait for an event that must happen, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An operation that does not wait for its deadline ends before this has passed; the deadline is [`soon`], or
/// there is none.
pub(crate) const EARLY: Duration = Duration::from_secs(15);

/// The number that [`contents`] publishes to know that nothing follows.
const FENCE: u32 = u32::MAX;

/// How long a step may take that the case is not about.
pub(crate) fn soon() -> Duration {
    PATIENCE
}

/// Declares things by themselves.
pub(crate) async fn declare(
    broker: &Broker,
    exchanges: &[&ExchangeSpec],
    queues: &[&QueueSpec],
    bindings: &[BindingSpec],
) -> Result<(), Failed> {
    Ok(broker.declare(&topology(exchanges, queues, bindings)).await?)
}

pub(crate) fn topology(
    exchanges: &[&ExchangeSpec],
    queues: &[&QueueSpec],
    bindings: &[BindingSpec],
) -> Topology {
    let mut topology = Topology::new();
    exchanges.iter().for_each(|exchange| topology.add_exchange((*exchange).clone()));
    queues.iter().for_each(|queue| topology.add_queue((*queue).clone()));
    bindings.iter().for_each(|binding| topology.add_binding(binding.clone()));
    topology
}

/// The binding of a queue.
pub(crate) fn bind(
    exchange: &ExchangeSpec,
    queue: &QueueSpec,
    key: &str,
) -> Result<BindingSpec, Failed> {
    Ok(BindingSpec::new(exchange, Destination::Queue(queue.name.clone()), key)?)
}

/// Sends rejected, expired and dropped messages to another queue.
pub(crate) fn dead_letter_to(queue: &QueueSpec) -> Option<DeadLetter> {
    Some(DeadLetter::to_queue(queue.name.clone()))
}

/// A publisher to a queue by its name; declares the queue.
pub(crate) async fn to_queue<M: Payload>(
    broker: &Broker,
    queue: &QueueSpec,
) -> Result<Publisher<M>, Failed> {
    to_queue_with(broker, queue, PublisherOptions::new()).await
}

pub(crate) async fn to_queue_with<M: Payload>(
    broker: &Broker,
    queue: &QueueSpec,
    options: PublisherOptions,
) -> Result<Publisher<M>, Failed> {
    let options = options.declare(topology(&[], &[queue], &[]));
    Ok(broker.publisher_with(RouteSpec::to_queue(queue.name.as_str())?, options).await?)
}

/// Publishes numbers to a queue, which it declares, and waits for the confirms.
pub(crate) async fn fill(
    broker: &Broker,
    queue: &QueueSpec,
    numbers: impl IntoIterator<Item = u32>,
) -> Result<(), Failed> {
    let numbers: Vec<u32> = numbers.into_iter().collect();
    let publisher = to_queue::<u32>(broker, queue).await?;
    for confirmed in publisher.publish_all(&numbers).await {
        confirmed?;
    }
    Ok(())
}

pub(crate) async fn subscribe(
    broker: &Broker,
    queue: &QueueSpec,
    prefetch: u16,
) -> Result<Subscription, Failed> {
    Ok(broker.subscribe(&queue.clone().of::<u32>(), prefetch).await?)
}

/// Waits until it has begun to consume a second time.
pub(crate) async fn consumes_again(subscription: &Subscription) -> Result<(), Failed> {
    let mut health = subscription.health();
    let again = health.wait_for(|now| now.subscribed >= 2 && now.health.is_ready());
    match tokio::time::timeout(PATIENCE, again).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failed::new("it does not consume again")),
    }
}

/// The next delivery, which must come.
#[track_caller]
pub(crate) fn next(
    subscription: &mut Subscription,
) -> impl Future<Output = Result<Delivery, Failed>> {
    let missing = Failed::new(format!("no delivery came within {PATIENCE:?}"));
    let ended = Failed::new("the subscription stopped, though the case did not stop it");
    async move { timeout(PATIENCE, subscription.next()).await.map_err(|_| missing)??.ok_or(ended) }
}

/// The next deliveries, all of which must come, without settling them.
pub(crate) async fn hold(
    subscription: &mut Subscription,
    count: usize,
) -> Result<Vec<Delivery>, Failed> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let after = held.len();
        let delivery = timeout(PATIENCE, subscription.next()).await;
        let delivery = delivery.map_err(|_| {
            Failed::new(format!("{after} of {count} deliveries came within {PATIENCE:?}"))
        })?;
        held.push(delivery?.ok_or_else(|| Failed::new("the subscription stopped"))?);
    }
    Ok(held)
}

/// The numbers of the next deliveries, all of which must come, and which are acknowledged.
pub(crate) async fn take(
    subscription: &mut Subscription,
    count: usize,
) -> Result<Vec<u32>, Failed> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        for delivery in hold(subscription, 1).await? {
            numbers.push(number(&delivery)?);
            delivery.settle(Outcome::Ack);
        }
    }
    Ok(numbers)
}

pub(crate) fn settle_all(deliveries: impl IntoIterator<Item = Delivery>, outcome: Outcome) {
    for delivery in deliveries {
        delivery.settle(outcome);
    }
}

#[track_caller]
pub(crate) fn number(delivery: &Delivery) -> Result<u32, Failed> {
    Ok(delivery.decode::<u32>()?)
}

pub(crate) fn numbers(deliveries: &[Delivery]) -> Result<Vec<u32>, Failed> {
    deliveries.iter().map(number).collect()
}

/// Takes all messages out of a queue, in order. That nothing follows is known by a message that is
/// published after them, and not by waiting.
pub(crate) async fn contents(broker: &Broker, queue: &QueueSpec) -> Result<Vec<u32>, Failed> {
    to_queue::<u32>(broker, queue).await?.publish(&FENCE).await?;
    let mut subscription = subscribe(broker, queue, 64).await?;
    let mut found = Vec::new();
    loop {
        match take(&mut subscription, 1).await?.first() {
            Some(&FENCE) => break,
            other => found.extend(other),
        }
    }
    subscription.stop(soon()).await?;
    Ok(found)
}

/// Like [`contents`], for when the order does not matter.
pub(crate) async fn sorted_contents(
    broker: &Broker,
    queue: &QueueSpec,
) -> Result<Vec<u32>, Failed> {
    let mut found = contents(broker, queue).await?;
    found.sort_unstable();
    Ok(found)
}

/// How many messages are ready in a queue.
pub(crate) async fn ready(broker: &Broker, queue: &QueueSpec) -> Result<u64, Failed> {
    Ok(broker.queue_status(&queue.clone().of::<u32>()).await?.messages)
}

/// Asks until it is so.
#[track_caller]
pub(crate) fn until(
    what: &'static str,
    mut check: impl AsyncFnMut() -> Result<bool, Failed>,
) -> impl Future<Output = Result<(), Failed>> {
    let overdue = Failed::new(format!("expected within {PATIENCE:?}: {what}"));
    async move {
        let asking = async {
            while !check().await? {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(PATIENCE, asking).await.unwrap_or(Err(overdue))
    }
}

/// The reason of the latest dead-lettering that the message tells of.
pub(crate) fn death_reason(headers: &Table) -> Option<String> {
    let death = headers.get("x-death")?.as_list()?.first()?.as_table()?;
    Some(death.get("reason")?.as_str()?.to_owned())
}

/// Waits until none of it can be found.
pub(crate) async fn gone(broker: &Broker, topology: &Topology) -> Result<(), Failed> {
    until("it is gone", async || match broker.verify(topology).await {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    })
    .await
}
