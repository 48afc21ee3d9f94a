//! Publishers and what can go wrong under them.

use std::time::{Duration, Instant};

use enoki::{Broker, ErrorKind, Publisher, PublisherOptions, QueueSpec, RouteSpec, Topology};
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

/// Waits until the queue has so many messages.
async fn expect_stored(stage: &Stage, queue: &QueueSpec, messages: u64) -> Checked {
    let broker = stage.past_the_proxy().await?;
    let queue = queue.clone().of::<u32>();
    let mut deliveries = broker.subscribe(&queue, 100).await?;
    let mut held = Vec::new();
    for _ in 0..messages {
        let next = timeout(Duration::from_secs(10), deliveries.next()).await;
        let next = next.map_err(|_| format!("{} of {messages} stored", held.len()))?;
        held.push(next?);
    }
    let more = timeout(Duration::from_millis(200), deliveries.next()).await;
    expect(more.is_err(), format!("more than {messages} stored"))
}

pub(crate) async fn p01_a_lost_confirm_is_indeterminate_and_the_message_is_stored(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("p01")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    let lost = stage.proxy.arm(Direction::FromBroker, Kind::Confirm, 1, Act::Cut(Cut::Reset));
    let outcome = publisher.publish(&2).await;
    expect(lost.fired().await, "the confirm never came")?;
    match outcome {
        Err(error) if error.kind() == ErrorKind::Indeterminate => {
            expect_stored(&stage, &queue, 2).await
        }
        other => Err(format!("the outcome is {other:?}").into()),
    }
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
    expect_stored(&stage, &queue, 2).await
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
