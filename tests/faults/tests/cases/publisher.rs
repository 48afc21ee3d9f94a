//! Publishers and what can go wrong under them.

use std::time::{Duration, Instant};

use enoki::{ErrorKind, PublisherOptions, RetryPolicy};
use enoki_faults::proxy::{Act, Cut, Direction, Flow, Kind};

use crate::{
    stage::{Checked, Stage, expect},
    steps::{expect_stored, publisher},
};

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
