//! Consuming: which consumer gets a message, how many it holds at a time, and how consuming ends.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU16,
    time::Duration,
};

use enoki_core::{
    ErrorKind, ExchangeKind, OnCancel, Outcome, QueueKind, QueueSpec, RouteSpec,
    transport::{Change, Delivered, Receiver, ReceiverOptions, Settle},
};
use futures_util::future::try_join_all;
use tokio::{
    task::yield_now,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        EARLY, PATIENCE, bind, consumes_again, contents, declare, fill, hold, next, number,
        numbers, ready, settle_all, soon, sorted_contents, subscribe, take, to_queue, topology,
        until,
    },
};

cases! { "consume":
    subscribing_declares_the_queue,
    what_was_there_and_what_comes_both_arrive,
    a_delivery_tells_where_it_was_published [Exchanges],
    a_prefetch_of_one_is_one_at_a_time,
    a_prefetch_is_exact,
    what_is_not_settled_has_its_place_in_the_prefetch,
    each_outcome_makes_room_for_the_next_delivery,
    each_outcome_makes_room_in_a_replicated_queue [ReplicatedQueues],
    closing_counts_what_was_not_settled_as_an_attempt [DeliveryCount],
    a_large_prefetch_is_used,
    a_prefetch_of_zero_is_refused,
    two_consumers_share_a_queue,
    two_queues_both_get_everything [Exchanges],
    a_waiting_consumer_that_is_cancelled_loses_nothing,
    a_subscription_given_up_while_it_opens_leaves_nothing_behind,
    what_was_not_taken_is_there_for_the_next within 240,
    what_was_not_taken_keeps_its_order,
    a_dropped_subscription_gives_everything_back,
    ten_consumers_that_close_at_once_lose_nothing,
    three_consumers_that_fail_lose_nothing,
    a_deleted_queue_is_declared_again_by_its_consumer,
    a_deleted_queue_ends_a_consumer_that_is_to_fail_with_an_error,
    one_consumer_that_ends_disturbs_no_other,
    a_consumer_goes_on_after_a_lost_connection_and_nothing_is_lost,
    stopping_twice_is_stopping_once,
    an_idle_consumer_stops_at_once,
}

async fn subscribing_declares_the_queue(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let _subscription = subscribe(&broker, &queue, 1).await?;
    broker.verify(&topology(&[], &[&queue], &[])).await?;
    Ok(())
}

async fn what_was_there_and_what_comes_both_arrive(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what was there", take(&mut subscription, 2).await?, [1, 2])?;
    fill(&broker, &queue, [3, 4]).await?;
    expect_eq("what came", take(&mut subscription, 2).await?, [3, 4])
}

async fn a_delivery_tells_where_it_was_published(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "a.#")?]).await?;
    broker.publisher(RouteSpec::<u32>::new(&exchange, "a.b.c")?).await?.publish(&1).await?;
    fill(&broker, &queue, [2]).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    for (exchange, key) in [(exchange.name.as_str(), "a.b.c"), ("", queue.name.as_str())] {
        let delivery = next(&mut subscription).await?;
        let envelope = delivery.envelope();
        expect_eq("the exchange", envelope.exchange.as_str(), exchange)?;
        expect_eq("the routing key", envelope.routing_key.as_str(), key)?;
        expect_eq("redelivered", envelope.redelivered, false)?;
        expect_eq("the attempt", envelope.attempt.number, 1)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn a_prefetch_of_one_is_one_at_a_time(stage: &Stage) -> Result<(), Failed> {
    prefetch(stage, 1).await
}

async fn a_prefetch_is_exact(stage: &Stage) -> Result<(), Failed> {
    prefetch(stage, 3).await
}

async fn prefetch(stage: &Stage, prefetch: u16) -> Result<(), Failed> {
    const COUNT: u32 = 8;
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..COUNT).await?;
    let mut subscription = subscribe(&broker, &queue, prefetch).await?;
    let mut held = hold(&mut subscription, prefetch.into()).await?;
    // The broker counts the messages that it has not handed over as ready, and the consumer cannot see those.
    let rest = u64::from(COUNT) - u64::from(prefetch);
    expect_eq("what the broker keeps", ready(&broker, &queue).await?, rest)?;
    let early = timeout_at(Instant::now(), subscription.next()).await;
    expect(early.is_err(), "no delivery more than the prefetch")?;
    let mut seen = numbers(&held)?;
    while seen.len() < COUNT as usize {
        held.remove(0).settle(Outcome::Ack);
        let delivery = next(&mut subscription).await?;
        seen.push(number(&delivery)?);
        held.push(delivery);
        let rest = (COUNT as usize - seen.len()) as u64;
        expect_eq("what the broker keeps", ready(&broker, &queue).await?, rest)?;
    }
    settle_all(held, Outcome::Ack);
    expect_eq("the order", seen, (0..COUNT).collect::<Vec<_>>())
}

/// Below core, which releases at once the deliveries that it did not ask for.
async fn what_is_not_settled_has_its_place_in_the_prefetch(stage: &Stage) -> Result<(), Failed> {
    const COUNT: u64 = 20;
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..20).await?;
    let session = stage.session().await?;
    let mut receiver = session.receiver(of(&queue, 4)).await?;
    let (mut held, mut seen) = (VecDeque::new(), 0);
    while seen < COUNT {
        let mut arrived = Vec::new();
        receive(&mut *receiver, &mut arrived).await?;
        seen += arrived.len() as u64;
        held.extend(arrived.into_iter().map(|delivered| delivered.tag));
        expect(held.len() <= 4, "no delivery more than the prefetch")?;
        if held.len() == 4 {
            expect_eq("what the broker keeps", ready(&broker, &queue).await?, COUNT - seen)?;
            let settled = held.pop_front().map(|tag| Settle::new(tag, Outcome::Ack));
            receiver.settle(settled.as_slice());
        }
    }
    receiver.close().await?;
    session.close(Instant::now() + PATIENCE).await;
    Ok(())
}

/// A delivery that a transport does not settle keeps its place in the prefetch until the receiver ends.
async fn each_outcome_makes_room_for_the_next_delivery(stage: &Stage) -> Result<(), Failed> {
    make_room(stage, QueueKind::Classic).await
}

/// The broker may send its own count of the deliveries, which a client must not count twice.
async fn each_outcome_makes_room_in_a_replicated_queue(stage: &Stage) -> Result<(), Failed> {
    make_room(stage, QueueKind::Replicated).await
}

async fn make_room(stage: &Stage, kind: QueueKind) -> Result<(), Failed> {
    const MESSAGES: usize = 12;
    const PREFETCH: u16 = 2;
    let broker = stage.broker().await?;
    let session = stage.session().await?;
    for outcome in [Outcome::Ack, Outcome::Requeue, Outcome::Release, Outcome::Reject, DELAYED] {
        let mut queue = stage.queue(&outcome.to_string())?;
        queue.kind = kind;
        fill(&broker, &queue, 0..12).await?;
        let mut receiver = session.receiver(of(&queue, PREFETCH)).await?;
        // Where the broker cannot delay, core holds the delivery.
        let skipped = outcome == DELAYED && !receiver.delays();
        let mut settled = if skipped { MESSAGES } else { 0 };
        while settled < MESSAGES {
            let mut arrived = Vec::new();
            receive(&mut *receiver, &mut arrived).await?;
            expect(arrived.len() <= PREFETCH.into(), "no delivery more than the prefetch")?;
            settled += arrived.len();
            let settlements = arrived.iter().map(|delivered| Settle::new(delivered.tag, outcome));
            receiver.settle(&settlements.collect::<Vec<_>>());
        }
        receiver.close().await?;
    }
    session.close(Instant::now() + PATIENCE).await;
    Ok(())
}

const DELAYED: Outcome = Outcome::RetryAfter(Duration::from_millis(1));

fn of(queue: &QueueSpec, prefetch: u16) -> ReceiverOptions {
    let prefetch = NonZeroU16::new(prefetch).unwrap_or(NonZeroU16::MIN);
    ReceiverOptions::new(queue.name.clone(), prefetch)
}

async fn closing_counts_what_was_not_settled_as_an_attempt(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let session = stage.session().await?;
    for attempt in 1..=3 {
        let mut receiver = session.receiver(of(&queue, 1)).await?;
        let mut arrived = Vec::new();
        receive(&mut *receiver, &mut arrived).await?;
        let attempts: Vec<_> = arrived.iter().map(|delivered| delivered.attempt.number).collect();
        expect_eq("the attempt", attempts, [attempt])?;
        receiver.close().await?;
    }
    session.close(Instant::now() + PATIENCE).await;
    Ok(())
}

/// The next deliveries of a receiver, which must come.
async fn receive(receiver: &mut dyn Receiver, into: &mut Vec<Delivered>) -> Result<(), Failed> {
    match timeout(PATIENCE, receiver.receive(into, 100)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(end)) => Err(Failed::new(format!("it ended: {end:?}"))),
        Err(_) => Err(Failed::new(format!("no delivery came within {PATIENCE:?}"))),
    }
}

async fn a_large_prefetch_is_used(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..2500).await?;
    let mut subscription = subscribe(&broker, &queue, 2000).await?;
    let held = hold(&mut subscription, 2000).await?;
    expect_eq("the order", numbers(&held)?, (0..2000).collect::<Vec<_>>())?;
    settle_all(held, Outcome::Ack);
    let rest = take(&mut subscription, 500).await?;
    expect_eq("the rest", rest, (2000..2500).collect::<Vec<_>>())
}

async fn a_prefetch_of_zero_is_refused(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?.of::<u32>();
    let refused = broker.subscribe(&queue, 0).await;
    expect_error("subscribe", refused, &[ErrorKind::Configuration]).map(drop)
}

async fn two_consumers_share_a_queue(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mut one = subscribe(&broker, &queue, 5).await?;
    let mut other = subscribe(&broker, &queue, 5).await?;
    fill(&broker, &queue, 0..10).await?;
    // Neither settles, so each gets its prefetch and no more.
    let (mine, theirs) = (hold(&mut one, 5).await?, hold(&mut other, 5).await?);
    let mut seen = numbers(&mine)?;
    seen.extend(numbers(&theirs)?);
    seen.sort_unstable();
    expect_eq("both together", seen, (0..10).collect::<Vec<_>>())?;
    settle_all(mine.into_iter().chain(theirs), Outcome::Ack);
    one.stop(soon()).await?;
    other.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn two_queues_both_get_everything(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Fanout)?;
    let (one, other) = (stage.queue("one")?, stage.queue("other")?);
    let bindings = [bind(&exchange, &one, "")?, bind(&exchange, &other, "")?];
    declare(&broker, &[&exchange], &[&one, &other], &bindings).await?;
    let mut first = subscribe(&broker, &one, 10).await?;
    let mut second = subscribe(&broker, &other, 10).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "")?).await?;
    let numbers: Vec<u32> = (0..50).collect();
    for outcome in publisher.publish_all(&numbers).await {
        outcome?;
    }
    expect_eq("the one", take(&mut first, 50).await?, numbers.clone())?;
    expect_eq("the other", take(&mut second, 50).await?, numbers)
}

async fn a_waiting_consumer_that_is_cancelled_loses_nothing(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let mut confirms = Vec::new();
    for number in 0..20 {
        confirms.push(publisher.enqueue(&number).await?);
    }
    let mut seen = Vec::new();
    let overdue = Instant::now() + soon();
    while seen.len() < 20 {
        expect(Instant::now() < overdue, format_args!("20 messages, not only {seen:?}"))?;
        tokio::select! {
            biased;
            delivery = subscription.next() => {
                let delivery = delivery?.ok_or_else(|| Failed::new("it stopped"))?;
                seen.push(number(&delivery)?);
                delivery.settle(Outcome::Ack);
            }
            // Gives up the wait above, again and again.
            () = yield_now() => {}
        }
        // Else a paused clock would never move on.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    try_join_all(confirms).await?;
    expect_eq("what came", seen, (0..20).collect::<Vec<_>>())
}

/// A consumer that the program no longer knows of would keep its prefetch until the connection ends.
async fn a_subscription_given_up_while_it_opens_leaves_nothing_behind(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..20).await?;
    let mine = queue.clone().of::<u32>();
    // Given up after ever longer: somewhere on the way to the broker and back.
    for step in 0..40 {
        let later = async {
            for _ in 0..step {
                yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(step / 2)).await;
        };
        tokio::select! {
            biased;
            () = later => {}
            opened = broker.subscribe(&mine, 5) => opened?.stop(soon()).await?,
        }
    }
    until("no consumer is left behind", async || {
        Ok(broker.queue_status(&mine).await?.consumers == 0)
    })
    .await?;
    let found = sorted_contents(&broker, &queue).await?;
    expect_eq("what is left", found, (0..20).collect::<Vec<_>>())
}

async fn what_was_not_taken_is_there_for_the_next(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..5000).await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let mut subscription = subscribe(&broker, &queue, 100).await?;
        seen.extend(take(&mut subscription, 1000).await?);
        subscription.stop(soon()).await?;
    }
    seen.sort_unstable();
    expect_eq("what came", seen, (0..5000).collect::<Vec<_>>())?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn what_was_not_taken_keeps_its_order(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..20).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what was taken", take(&mut subscription, 3).await?, [0, 1, 2])?;
    subscription.stop(soon()).await?;
    expect_eq("the rest", contents(&broker, &queue).await?, (3..20).collect::<Vec<_>>())
}

async fn a_dropped_subscription_gives_everything_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..10).await?;
    let mut subscription = subscribe(&broker, &queue, 5).await?;
    let held = hold(&mut subscription, 2).await?;
    drop(subscription);
    drop(held);
    let mut other = subscribe(&broker, &queue, 10).await?;
    let mut seen = take(&mut other, 10).await?;
    seen.sort_unstable();
    expect_eq("what the next one gets", seen, (0..10).collect::<Vec<_>>())
}

async fn ten_consumers_that_close_at_once_lose_nothing(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..25).await?;
    let subscriptions = try_join_all((0..10).map(|_| subscribe(&broker, &queue, 10))).await?;
    let stops = subscriptions.into_iter().enumerate().map(|(at, mut subscription)| async move {
        // Some say goodbye, others do not.
        if at % 2 == 0 { subscription.stop(soon()).await } else { Ok(()) }
    });
    try_join_all(stops).await?;
    fill(&broker, &queue, 25..50).await?;
    let mut subscription = subscribe(&broker, &queue, 50).await?;
    let mut seen = take(&mut subscription, 50).await?;
    seen.sort_unstable();
    expect_eq("what the next one gets", seen, (0..50).collect::<Vec<_>>())
}

async fn three_consumers_that_fail_lose_nothing(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..50).await?;
    for _ in 0..3 {
        let mut subscription = subscribe(&broker, &queue, 10).await?;
        for _ in 0..100 {
            next(&mut subscription).await?.settle(Outcome::Requeue);
        }
        subscription.stop(soon()).await?;
    }
    let found = sorted_contents(&broker, &queue).await?;
    expect_eq("what is left", found, (0..50).collect::<Vec<_>>())
}

/// A client library may end its stream without an error; the program would then wait without end.
async fn a_deleted_queue_ends_a_consumer_that_is_to_fail_with_an_error(
    stage: &Stage,
) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<u32>();
    let mut subscription = broker.subscribe_with(&mine, 1, OnCancel::Fail).await?;
    fill(&other, &queue, [1]).await?;
    take(&mut subscription, 1).await?;
    other.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    match tokio::time::timeout(PATIENCE, subscription.next()).await? {
        Err(error) => {
            expect_says(&error, &queue.name)?;
            expect(!error.is_transient(), "that the queue does not come back by itself")
        }
        Ok(next) => Err(Failed::new(format!("a silent end, or a delivery: {next:?}"))),
    }
}

async fn a_deleted_queue_is_declared_again_by_its_consumer(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    fill(&other, &queue, [1]).await?;
    take(&mut subscription, 1).await?;
    other.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    consumes_again(&subscription).await?;
    fill(&other, &queue, [2]).await?;
    expect_eq("what it gets then", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn one_consumer_that_ends_disturbs_no_other(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (doomed, queue) = (stage.queue("doomed")?, stage.queue("q")?);
    let mine = doomed.clone().of::<u32>();
    let mut ending = broker.subscribe_with(&mine, 1, OnCancel::Fail).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    fill(&broker, &queue, [1, 2]).await?;
    let held = hold(&mut subscription, 2).await?;
    broker.apply(&Change::DeleteQueue(doomed.name.clone())).await?;
    let ended = tokio::time::timeout(PATIENCE, ending.next()).await?;
    expect(ended.is_err(), "an error of the other consumer")?;
    settle_all(held, Outcome::Ack);
    fill(&broker, &queue, [3]).await?;
    expect_eq("what still arrives", take(&mut subscription, 1).await?, [3])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_consumer_goes_on_after_a_lost_connection_and_nothing_is_lost(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..6).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let held = hold(&mut subscription, 1).await?;
    stage.sever().await;
    consumes_again(&subscription).await?;
    drop(held);
    let mut seen: BTreeSet<u32> = take(&mut subscription, 6).await?.into_iter().collect();
    // A message that was on its way when the connection broke may come twice.
    while seen.len() < 6 {
        seen.extend(take(&mut subscription, 1).await?);
    }
    expect_eq("what it gets", seen, (0..6).collect::<BTreeSet<_>>())?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn stopping_twice_is_stopping_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mut subscription = subscribe(&broker, &queue, 3).await?;
    for _ in 0..2 {
        subscription.stop(soon()).await?;
        let end = tokio::time::timeout(PATIENCE, subscription.next()).await??;
        expect(end.is_none(), "nothing after the stop")?;
    }
    Ok(())
}

async fn an_idle_consumer_stops_at_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut subscription = subscribe(&broker, &stage.queue("q")?, 10).await?;
    let started = Instant::now();
    subscription.stop(soon()).await?;
    expect(started.elapsed() < EARLY, "that it does not wait for the deadline")
}
