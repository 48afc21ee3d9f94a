//! What many cases do.

use std::time::Duration;

use enoki::{
    Broker, Outcome, Publisher,
    broker::{BrokerHealth, Health},
    consume::{Delivery, Subscription},
    message::ShortStr,
    publish::PublisherOptions,
    topology::{QueueSpec, RouteSpec, Topology},
};
use enoki_faults::proxy::{Act, Direction, Kind};
use tokio::time::timeout;

use crate::stage::{Checked, Stage, expect};

pub(crate) use enoki_faults::patience::PATIENCE;

/// Longer than any fault: a broker that is started on a busy machine may take minutes.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// What a busy machine may add to a time that was promised. Without the promise it would take much
/// longer than both: the toolkit's own deadlines are 10 and 30 seconds, two calm heartbeats are 40.
/// How exact a deadline is, core's tests say on a paused clock.
pub(crate) const SLACK: Duration = Duration::from_secs(7);

/// Seconds between heartbeats where none is to be missed. A program that gets no processor for twice as
/// long loses its connections, and on a busy machine it may get none for some seconds.
pub(crate) const CALM: u16 = 20;

/// How long something may take that is not what a case is about.
pub(crate) fn soon() -> Duration {
    PATIENCE
}

/// A publisher to this queue, which exists.
pub(crate) async fn publisher(
    broker: &Broker,
    queue: &QueueSpec,
    options: PublisherOptions,
) -> Checked<Publisher<u32>> {
    broker.declare(&Topology::new().with_queue(&queue.clone().of::<u32>())).await?;
    Ok(broker.publisher_with(RouteSpec::to_queue(queue.name.as_str())?, options).await?)
}

/// Waits until the queue has so many messages, and tells their ids.
pub(crate) async fn expect_stored(
    stage: &Stage,
    queue: &QueueSpec,
    messages: u64,
) -> Checked<Vec<ShortStr>> {
    let broker = stage.past_the_proxy().await?;
    let queue = queue.clone().of::<u32>();
    let mut deliveries = broker.subscribe(&queue, 100).await?;
    let mut held = Vec::new();
    for _ in 0..messages {
        let next = timeout(PATIENCE, deliveries.next()).await;
        let next = next.map_err(|_| format!("{} of {messages} stored", held.len()))?;
        held.push(next?.ok_or("no delivery")?);
    }
    let more = timeout(Duration::from_millis(200), deliveries.next()).await;
    expect(more.is_err(), format!("more than {messages} stored"))?;
    let id = |delivery: &Delivery| delivery.message().properties.message_id.clone();
    Ok(held.iter().filter_map(id).collect())
}

/// A publisher and a consumer of one queue, by way of the proxy.
pub(crate) struct Pair {
    pub(crate) broker: Broker,
    pub(crate) queue: QueueSpec,
    pub(crate) publisher: Publisher<u32>,
    pub(crate) deliveries: Subscription,
}

impl Pair {
    /// Opens both, with heartbeats so many seconds apart, and shows that they work.
    pub(crate) async fn open(stage: &Stage, heartbeat: u16) -> Checked<Self> {
        let queue = stage.queue("pair")?;
        let broker = stage.broker_beating(heartbeat).await?;
        let options = PublisherOptions::new().timeout(LONG);
        let publisher = publisher(&broker, &queue, options).await?;
        let deliveries = broker.subscribe(&queue.clone().of::<u32>(), 10).await?;
        let mut pair = Self { broker, queue, publisher, deliveries };
        let settled = stage.proxy.arm(Direction::ToBroker, Kind::Settlement, 1, Act::Pass);
        pair.round(0).await?;
        // What is done to the network next must not hit this settlement.
        expect(timeout(PATIENCE, settled.fired()).await?, "the settlement was never sent")?;
        Ok(pair)
    }

    /// A message goes to the broker and comes back.
    pub(crate) async fn round(&mut self, number: u32) -> Checked {
        timeout(PATIENCE, self.publisher.publish(&number)).await??;
        self.take(number).await
    }

    /// Takes what comes, until this does.
    pub(crate) async fn take(&mut self, number: u32) -> Checked {
        loop {
            let delivery = next(&mut self.deliveries).await?;
            let came: u32 = delivery.decode()?;
            delivery.settle(Outcome::Ack);
            if came == number {
                return Ok(());
            }
        }
    }

    /// Waits until this is said of the connections.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl FnMut(&BrokerHealth) -> bool,
    ) -> Checked {
        let mut health = self.broker.health();
        if timeout(PATIENCE, health.wait_for(is_so)).await.is_err() {
            let now = self.broker.health().borrow().clone();
            return Err(format!("never {what}, but {now}").into());
        }
        Ok(())
    }

    /// Waits until both connections are known to be broken.
    pub(crate) async fn until_broken(&self) -> Checked {
        let broken = |health: &Health| matches!(health, Health::Reconnecting { .. });
        self.until("broken", |health| broken(&health.publishing) && broken(&health.consuming)).await
    }

    /// Waits until it consumes for the nth time.
    pub(crate) async fn until_subscribed(&self, times: u64) -> Checked {
        let mut health = self.deliveries.health();
        let subscribed =
            health.wait_for(|health| health.subscribed >= times && health.health.is_ready());
        timeout(PATIENCE, subscribed).await.map_err(|_| "it does not consume again")??;
        Ok(())
    }
}

/// The next delivery.
pub(crate) async fn next(deliveries: &mut Subscription) -> Checked<Delivery> {
    let next = timeout(PATIENCE, deliveries.next()).await.map_err(|_| "no delivery in time")?;
    Ok(next?.ok_or("the deliveries ended")?)
}

/// Waits until a queue has nothing ready and no consumer any more.
pub(crate) async fn until_idle(broker: &Broker, queue: &QueueSpec) -> Checked {
    let queue = queue.clone().of::<u32>();
    let idle = async {
        loop {
            let found = broker.queue_status(&queue).await?;
            if found.consumers == 0 {
                return Ok::<_, enoki::Error>(found.messages);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let left = timeout(PATIENCE, idle).await??;
    expect(left == 0, format!("{left} messages are left"))
}
