//! Publishers and what can go wrong under them.

use std::time::{Duration, Instant};

use enoki::{
    Broker, Delivery, ErrorKind, Publisher, PublisherOptions, QueueSpec, RetryPolicy, RouteSpec,
    ShortStr, Topology,
};
use enoki_faults::proxy::{Act, Cut, Direction, Flow, Kind};
use tokio::time::timeout;

use crate::stage::{Checked, Stage, expect};

/// A publisher to this queue, which exists.
async fn publisher(
    broker: &Broker,
    queue: &QueueSpec,
    options: PublisherOptions,
) -> Checked<Publisher<u32>> {
    broker.declare(&Topology::new().with_queue(&queue.clone().of::<u32>())).await?;
    Ok(broker.publisher_with(RouteSpec::to_queue(queue.name.as_str())?, options).await?)
}

/// Waits until the queue has so many messages, and tells their ids.
async fn expect_stored(stage: &Stage, queue: &QueueSpec, messages: u64) -> Checked<Vec<ShortStr>> {
    let broker = stage.past_the_proxy().await?;
    let queue = queue.clone().of::<u32>();
    let mut deliveries = broker.subscribe(&queue, 100).await?;
    let mut held = Vec::new();
    for _ in 0..messages {
        let next = timeout(Duration::from_secs(10), deliveries.next()).await;
        let next = next.map_err(|_| format!("{} of {messages} stored", held.len()))?;
        held.push(next?.ok_or("no delivery")?);
    }
    let more = timeout(Duration::from_millis(200), deliveries.next()).await;
    expect(more.is_err(), format!("more than {messages} stored"))?;
    let id = |delivery: &Delivery| delivery.message().properties.message_id.clone();
    Ok(held.iter().filter_map(id).collect())
}

pub(crate) async fn p01_a_lost_confirm_is_indeterminate_where_nothing_is_sent_again(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("p01")?;
    let broker = stage.broker().await?;
    let options = PublisherOptions::new().retry(RetryPolicy::never());
    let publisher = publisher(&broker, &queue, options).await?;
    publisher.publish(&1).await?;
    let lost = stage.proxy.arm(Direction::FromBroker, Kind::Confirm, 1, Act::Cut(Cut::Reset));
    let outcome = publisher.publish(&2).await;
    expect(lost.fired().await, "the confirm never came")?;
    match outcome {
        Err(error) if error.kind() == ErrorKind::Indeterminate => {
            expect_stored(&stage, &queue, 2).await.map(drop)
        }
        other => Err(format!("the outcome is {other:?}").into()),
    }
}

pub(crate) async fn p01_a_lost_confirm_is_sent_again_with_the_same_id(stage: Stage) -> Checked {
    let queue = stage.queue("p01")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    let lost = stage.proxy.arm(Direction::FromBroker, Kind::Confirm, 1, Act::Cut(Cut::Reset));
    let confirmed = publisher.publish(&2).await?;
    expect(lost.fired().await, "the confirm never came")?;
    let stored = expect_stored(&stage, &queue, 3).await?;
    let copies = stored.iter().filter(|id| **id == confirmed.message_id).count();
    expect(copies == 2, format!("{copies} of three messages have the id {}", confirmed.message_id))
}

pub(crate) async fn p08_a_confirm_that_never_comes_is_indeterminate_at_the_deadline(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("p08")?;
    let broker = stage.broker().await?;
    let within = Duration::from_millis(1500);
    let options = PublisherOptions::new().timeout(within);
    let publisher = publisher(&broker, &queue, options).await?;
    publisher.publish(&1).await?;
    stage.proxy.arm(Direction::ToBroker, Kind::Publish, 1, Act::HoldAnswers);
    let began = Instant::now();
    let outcome = publisher.publish(&2).await;
    let took = began.elapsed();
    match outcome {
        Err(error) if error.kind() == ErrorKind::Indeterminate => {}
        other => return Err(format!("the outcome is {other:?}").into()),
    }
    expect(took >= within, format!("it was given up after {took:?}"))?;
    expect(took < within * 3, format!("the deadline was {within:?}, and it took {took:?}"))?;
    expect_stored(&stage, &queue, 2).await.map(drop)
}

pub(crate) async fn p19_one_byte_at_a_time_is_enough(stage: Stage) -> Checked {
    for direction in Direction::BOTH {
        stage.proxy.flow(direction, Flow::sliced(1));
    }
    let queue = stage.queue("p19")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    for outcome in publisher.publish_all(&(0..50).collect::<Vec<_>>()).await {
        outcome?;
    }
    let mut deliveries = broker.subscribe(&queue.of::<u32>(), 10).await?;
    for number in 0..50 {
        let delivery = deliveries.next().await?.ok_or("no delivery")?;
        let came: u32 = delivery.decode()?;
        expect(came == number, format!("{came} came instead of {number}"))?;
        delivery.settle(enoki::Outcome::Ack);
    }
    Ok(())
}
