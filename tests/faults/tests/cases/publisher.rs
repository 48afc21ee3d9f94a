//! Publishers and what can go wrong under them.

use std::time::{Duration, Instant};

use enoki::{
    ErrorKind, Outcome,
    broker::{BrokerHealth, BrokerOptions, Health},
    publish::{PublisherOptions, RetryPolicy},
};
use enoki_faults::proxy::{Act, Cut, Direction, Door, Flow, Kind};
use tokio::time::timeout;

use crate::{
    stage::{Checked, Stage, expect},
    steps::{CALM, PATIENCE, SLACK, expect_stored, next, publisher},
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
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    stage.proxy.arm(Direction::ToBroker, Kind::Publish, 1, Act::HoldAnswers);
    let began = Instant::now();
    let outcome = publisher.message(&2)?.timeout(within).publish().await;
    let took = began.elapsed();
    match outcome {
        Err(error) if error.kind() == ErrorKind::Indeterminate => {}
        other => return Err(format!("the outcome is {other:?}").into()),
    }
    expect(took >= within, format!("it was given up after {took:?}"))?;
    expect(took < within + SLACK, format!("the deadline was {within:?}, and it took {took:?}"))?;
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

pub(crate) async fn p09_a_broker_that_is_down_is_told_at_once_or_waited_for(
    stage: Stage,
) -> Checked {
    stage.proxy.door(Door::Refusing).await;
    let began = Instant::now();
    let at_once = BrokerOptions::new().reach_within(Duration::ZERO);
    let connecting = enoki::connect_with(stage.url(CALM), at_once).await;
    let error = connecting.err().ok_or("it reached a broker that is down")?;
    expect(error.kind() == ErrorKind::Connection, format!("{error:?}"))?;
    expect(error.to_string().contains("refused"), format!("it does not say why: {error}"))?;
    expect(began.elapsed() < SLACK, format!("it took {:?}", began.elapsed()))?;

    stage.proxy.heal().await;
    let queue = stage.queue("p09")?;
    let broker = stage.broker().await?;
    let within = Duration::from_secs(5);
    let patient = publisher(&broker, &queue, PublisherOptions::new()).await?;
    let hasty = publisher(&broker, &queue, PublisherOptions::new().timeout(within)).await?;
    let fast = publisher(&broker, &queue, PublisherOptions::new().fail_fast()).await?;
    stage.proxy.door(Door::Refusing).await;
    stage.proxy.cut(Cut::Reset);
    let mut health = broker.health();
    let down = |health: &BrokerHealth| matches!(&health.publishing, Health::Reconnecting { .. });
    timeout(PATIENCE, health.wait_for(down)).await??;

    let began = Instant::now();
    let error = fast.publish(&1).await.err().ok_or("it was confirmed")?;
    expect(error.kind() == ErrorKind::Connection, format!("{error:?}"))?;
    expect(began.elapsed() < within, format!("failing fast took {:?}", began.elapsed()))?;

    let waiting = patient.enqueue(&2).await?;
    let began = Instant::now();
    let error = hasty.publish(&3).await.err().ok_or("it was confirmed")?;
    let took = began.elapsed();
    expect(error.kind() == ErrorKind::Timeout, format!("{error:?}"))?;
    // A message is given up a few milliseconds early, so that the reason comes in time.
    let early = within * 9 / 10;
    expect(took > early && took < within + SLACK, format!("it took {took:?}"))?;

    stage.proxy.heal().await;
    timeout(PATIENCE, waiting).await??;
    fast.publish(&4).await?;
    // What timed out without a connection was never sent, and is not sent later.
    expect_stored(&stage, &queue, 2).await.map(drop)
}

pub(crate) async fn p10_a_publish_on_a_connection_that_died_unnoticed_arrives(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("p10")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    let mut ids = Vec::new();
    for cut in [Cut::Reset, Cut::Fin] {
        publisher.publish(&1).await?;
        stage.proxy.cut(cut);
        // The program does not know yet.
        ids.push(timeout(PATIENCE, publisher.publish(&2)).await??.message_id);
    }
    publisher.publish(&3).await?;
    let mut deliveries = stage.past_the_proxy().await?.subscribe(&queue.of::<u32>(), 100).await?;
    let mut found = Vec::new();
    loop {
        let delivery = next(&mut deliveries).await?;
        found.extend(delivery.message().properties.message_id.clone());
        let number: u32 = delivery.decode()?;
        delivery.settle(Outcome::Ack);
        if number == 3 {
            break;
        }
    }
    expect(ids.iter().all(|id| found.contains(id)), format!("{ids:?} are not all in {found:?}"))?;
    // At most one copy more for each that was on its way.
    expect(found.len() <= 7, format!("{} messages of five", found.len()))
}

pub(crate) async fn p11_a_policy_of_two_retries_sends_three_times(stage: Stage) -> Checked {
    let queue = stage.queue("p11")?;
    let broker = stage.broker().await?;
    let soon = Duration::from_millis(10);
    let policy = RetryPolicy::new().retries(2).backoff(soon, soon);
    let publisher = publisher(&broker, &queue, PublisherOptions::new().retry(policy)).await?;
    publisher.publish(&1).await?;
    let lost = [1, 2, 3].map(|nth| {
        stage.proxy.arm(Direction::FromBroker, Kind::Confirm, nth, Act::Cut(Cut::Reset))
    });
    let error = publisher.publish(&2).await.err().ok_or("it was confirmed")?;
    expect(error.kind() == ErrorKind::Indeterminate, format!("{error:?}"))?;
    for lost in lost {
        expect(lost.fired().await, "it gave up too early")?;
    }
    let cause = std::error::Error::source(&error);
    expect(cause.is_some(), format!("the last failure is not among its causes: {error:?}"))?;
    let stored = expect_stored(&stage, &queue, 4).await?;
    let copies = stored.iter().filter(|id| Some(*id) == stored.last()).count();
    expect(copies == 3, format!("{copies} copies: {stored:?}"))
}

pub(crate) async fn p21_closing_leaves_no_message_without_a_word(stage: Stage) -> Checked {
    const MESSAGES: u16 = 1000;
    let queue = stage.queue("p21")?;
    let broker = stage.broker().await?;
    let options = PublisherOptions::new().window(MESSAGES);
    let publisher = publisher(&broker, &queue, options).await?;
    stage.proxy.arm(Direction::ToBroker, Kind::Publish, 1, Act::HoldAnswers);
    let mut confirms = Vec::new();
    for number in 0..u32::from(MESSAGES) {
        confirms.push(publisher.enqueue(&number).await?);
    }
    let deadline = Duration::from_secs(2);
    let began = Instant::now();
    broker.close(deadline).await;
    let took = began.elapsed();
    // A second of grace for closing a connection to a peer that does not answer.
    expect(took < deadline + Duration::from_secs(1) + SLACK, format!("closing took {took:?}"))?;
    let mut unknown = 0;
    for confirm in confirms {
        let outcome = timeout(PATIENCE, confirm).await.map_err(|_| "no word about a message")?;
        match outcome.map_err(|error| error.kind()) {
            Err(ErrorKind::Indeterminate) => unknown += 1,
            // Where the broker gave no credit for it, it was never sent.
            Err(ErrorKind::Closed | ErrorKind::Timeout) => {}
            other => return Err(format!("the outcome is {other:?}").into()),
        }
    }
    // Only an indeterminate message may be stored.
    let viewer = stage.past_the_proxy().await?;
    let stored = viewer.queue_status(&queue.of::<u32>()).await?.messages;
    expect(stored > 0 && stored <= unknown, format!("{stored} are stored of {unknown} unknown"))
}
