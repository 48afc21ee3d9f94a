//! Settling: what becomes of a delivery.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use enoki_core::{
    Capability, Counted, Delivery, ErrorKind, ExchangeKind, Outcome, QueueKind, QueueSpec,
    RouteSpec, Settled, Subscription, Timestamp, Value,
};
use tokio::time::Instant;

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq},
    stage::Stage,
    steps::{
        bind, consumes_again, contents, dead_letter_to, death_reason, declare, fill, hold, next,
        number, numbers, ready, settle_all, soon, sorted_contents, subscribe, take, to_queue,
        until,
    },
};

/// Every one.
const OUTCOMES: [Outcome; 4] = [Outcome::Ack, Outcome::Requeue, Outcome::Reject, Outcome::Release];

cases! { "settle":
    an_acknowledged_message_is_gone,
    a_requeued_message_comes_back,
    a_requeued_message_keeps_its_place [PlaceKept],
    a_requeued_message_may_go_to_another_consumer,
    two_requeued_of_a_hundred_come_back,
    a_message_requeued_for_later_comes_back_after_its_delay_and_not_before,
    a_replicated_queue_requeues_for_later [ReplicatedQueues],
    requeueing_for_later_counts_as_an_attempt [DeliveryCount],
    what_is_requeued_for_later_waits_in_the_broker [DelayedRequeue],
    what_is_requeued_for_later_waits_in_a_replicated_queue
        [ReplicatedDelayedRequeue, ReplicatedQueues],
    what_is_held_for_later_comes_back_when_its_consumer_stops without DelayedRequeue,
    each_delay_is_its_own,
    a_delay_of_nothing_is_a_requeue,
    a_released_message_comes_back,
    a_released_message_keeps_its_place [PlaceKept],
    a_released_message_is_not_counted [UncountedRelease, DeliveryCount],
    attempts_are_counted [DeliveryCount],
    attempts_are_counted_on_replicated_queues [ReplicatedDeliveryCount, ReplicatedQueues],
    a_first_delivery_is_not_redelivered,
    a_rejected_message_is_dead_lettered [DeadLetterRejected],
    a_rejected_message_without_dead_letters_is_gone,
    a_dead_letter_is_the_message_it_was [DeadLetterRejected, Exchanges],
    dead_letters_count_their_deaths [DeadLetterRejected],
    a_dropped_delivery_comes_back,
    acknowledgements_out_of_order_all_count,
    each_of_a_batch_ends_as_it_was_settled [DeadLetterRejected],
    settling_one_queue_leaves_the_other,
    a_thousand_acknowledgements_survive_closing,
    settling_after_the_end_is_stale,
    settling_after_a_lost_connection_is_stale,
    a_stale_settlement_settles_nothing_else,
    what_is_unsettled_comes_back_when_the_handle_closes,
    random_sequences_agree_with_the_model [DeadLetterRejected] within 240,
}

async fn an_acknowledged_message_is_gone(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let settled = next(&mut subscription).await?.settle(Outcome::Ack);
    expect_eq("settling", settled, Settled::Queued)?;
    expect_eq("what comes next", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_requeued_message_comes_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    expect_eq("the first delivery: redelivered", delivery.redelivered(), false)?;
    expect_eq("the first delivery: attempt", delivery.attempt().number, 1)?;
    delivery.settle(Outcome::Requeue);
    let delivery = next(&mut subscription).await?;
    expect_eq("the message", number(&delivery)?, 1)?;
    expect_eq("the second delivery: redelivered", delivery.redelivered(), true)?;
    expect_eq("the second delivery: attempt", delivery.attempt().number, 2)?;
    delivery.settle(Outcome::Ack);
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_requeued_message_keeps_its_place(stage: &Stage) -> Result<(), Failed> {
    keeps_its_place(stage, Outcome::Requeue).await
}

async fn a_released_message_keeps_its_place(stage: &Stage) -> Result<(), Failed> {
    keeps_its_place(stage, Outcome::Release).await
}

async fn keeps_its_place(stage: &Stage, outcome: Outcome) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..6).await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let held = hold(&mut subscription, 4).await?;
    // In another order than they came: their place is that in the queue.
    for at in [2, 0, 3, 1] {
        if let Some(delivery) = held.get(at) {
            expect_eq("a message", number(delivery)?, at as u32)?;
        }
    }
    let mut held: BTreeMap<_, _> = held.into_iter().enumerate().collect();
    for at in [2, 0, 3, 1] {
        held.remove(&at).map(|delivery| delivery.settle(outcome));
    }
    // They may be delivered again at once; nothing of that is settled, so stopping gives it back.
    subscription.stop(soon()).await?;
    expect_eq("the order", contents(&broker, &queue).await?, [0, 1, 2, 3, 4, 5])
}

async fn a_requeued_message_may_go_to_another_consumer(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mut one = subscribe(&broker, &queue, 1).await?;
    fill(&broker, &queue, [1]).await?;
    let delivery = next(&mut one).await?;
    let other = stage.broker().await?;
    let mut another = subscribe(&other, &queue, 1).await?;
    delivery.settle(Outcome::Requeue);
    one.stop(soon()).await?;
    let delivery = next(&mut another).await?;
    expect_eq("the message", number(&delivery)?, 1)?;
    expect(delivery.redelivered(), "that it is marked as redelivered")?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn two_requeued_of_a_hundred_come_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..100).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    let mut seen = Vec::new();
    let mut again = Vec::new();
    while seen.len() + again.len() < 102 {
        let delivery = next(&mut subscription).await?;
        let number = number(&delivery)?;
        if delivery.redelivered() {
            expect_eq("the attempt", delivery.attempt().number, 2)?;
            again.push(number);
            delivery.settle(Outcome::Ack);
        } else {
            let bad = number == 7 || number == 42;
            seen.push(number);
            delivery.settle(if bad { Outcome::Requeue } else { Outcome::Ack });
        }
    }
    again.sort_unstable();
    expect_eq("first deliveries", seen, (0..100).collect::<Vec<_>>())?;
    expect_eq("second deliveries", again, [7, 42])
}

async fn a_message_requeued_for_later_comes_back_after_its_delay_and_not_before(
    stage: &Stage,
) -> Result<(), Failed> {
    comes_back_later(stage, stage.queue("q")?).await
}

async fn a_replicated_queue_requeues_for_later(stage: &Stage) -> Result<(), Failed> {
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    comes_back_later(stage, queue).await
}

/// Long enough that nothing comes back by itself meanwhile.
const LATER: Duration = Duration::from_millis(1500);

async fn comes_back_later(stage: &Stage, queue: QueueSpec) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let delivery = next(&mut subscription).await?;
    expect_eq("the first message", number(&delivery)?, 1)?;
    let since = Instant::now();
    expect_eq("settling", delivery.settle(Outcome::RetryAfter(LATER)), Settled::Queued)?;
    expect_eq("what comes meanwhile", take(&mut subscription, 1).await?, [2])?;
    let delivery = next(&mut subscription).await?;
    let after = since.elapsed();
    expect_eq("what comes back", number(&delivery)?, 1)?;
    expect(after >= LATER, format_args!("it after {LATER:?}, and not after {after:?}"))?;
    expect(delivery.redelivered(), "that it is marked as redelivered")?;
    expect_eq("the attempt", delivery.attempt().number, 2)?;
    delivery.settle(Outcome::Ack);
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn requeueing_for_later_counts_as_an_attempt(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for attempt in 1..=4 {
        let delivery = next(&mut subscription).await?;
        expect_eq("the attempt", delivery.attempt().number, attempt)?;
        let later = Outcome::RetryAfter(Duration::from_millis(20));
        delivery.settle(if attempt < 4 { later } else { Outcome::Ack });
    }
    Ok(())
}

async fn what_is_requeued_for_later_waits_in_the_broker(stage: &Stage) -> Result<(), Failed> {
    waits_in_the_broker(stage, stage.queue("q")?).await
}

async fn what_is_requeued_for_later_waits_in_a_replicated_queue(
    stage: &Stage,
) -> Result<(), Failed> {
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    waits_in_the_broker(stage, queue).await
}

async fn waits_in_the_broker(stage: &Stage, queue: QueueSpec) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    let since = Instant::now();
    delivery.settle(Outcome::RetryAfter(LATER));
    // With a prefetch of one, nothing would come before a message that is held.
    expect_eq("what comes meanwhile", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    broker.close(soon()).await;
    let mut subscription = subscribe(&other, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    let after = since.elapsed();
    expect_eq("what comes back", number(&delivery)?, 1)?;
    expect(after >= LATER, format_args!("it after {LATER:?}, and not after {after:?}"))?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn what_is_held_for_later_comes_back_when_its_consumer_stops(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let later = Outcome::RetryAfter(Duration::from_secs(3600));
    next(&mut subscription).await?.settle(later);
    expect_eq("what comes meanwhile", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let delivery = next(&mut subscription).await?;
    expect_eq("what comes back", number(&delivery)?, 1)?;
    expect(delivery.redelivered(), "that it is marked as redelivered")?;
    expect_eq("the attempt", delivery.attempt().number, 2)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn each_delay_is_its_own(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..4).await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let since = Instant::now();
    let delays = [1200, 300, 900, 600].map(Duration::from_millis);
    for (delivery, delay) in hold(&mut subscription, 4).await?.into_iter().zip(delays) {
        delivery.settle(Outcome::RetryAfter(delay));
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        let delivery = next(&mut subscription).await?;
        let (number, after) = (number(&delivery)?, since.elapsed());
        let delay = delays.get(number as usize).copied().unwrap_or_default();
        expect(after >= delay, format_args!("{number} after {delay:?}, and not after {after:?}"))?;
        order.push(number);
        delivery.settle(Outcome::Ack);
    }
    order.sort_unstable();
    expect_eq("what came back", order, [0, 1, 2, 3])
}

async fn a_delay_of_nothing_is_a_requeue(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    next(&mut subscription).await?.settle(Outcome::RetryAfter(Duration::ZERO));
    let delivery = next(&mut subscription).await?;
    expect(delivery.redelivered(), "that it is marked as redelivered")?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn a_released_message_comes_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    next(&mut subscription).await?.settle(Outcome::Release);
    expect_eq("what comes back", take(&mut subscription, 1).await?, [1])
}

async fn a_released_message_is_not_counted(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for _ in 0..5 {
        let delivery = next(&mut subscription).await?;
        expect_eq("the attempt", delivery.attempt().number, 1)?;
        delivery.settle(Outcome::Release);
    }
    next(&mut subscription).await?.settle(Outcome::Requeue);
    let delivery = next(&mut subscription).await?;
    expect_eq("the attempt after a requeue", delivery.attempt().number, 2)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn attempts_are_counted(stage: &Stage) -> Result<(), Failed> {
    attempts(stage, stage.queue("q")?).await
}

async fn attempts_are_counted_on_replicated_queues(stage: &Stage) -> Result<(), Failed> {
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    attempts(stage, queue).await
}

async fn attempts(stage: &Stage, queue: QueueSpec) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for attempt in 1..=5 {
        let delivery = next(&mut subscription).await?;
        expect_eq("the attempt", delivery.attempt().number, attempt)?;
        // The first delivery need not tell whether the broker counts: there was nothing to count.
        if attempt > 1 {
            expect_eq("who counts", delivery.attempt().counted, Counted::ByBroker)?;
        }
        expect_eq("redelivered", delivery.redelivered(), attempt > 1)?;
        delivery.settle(if attempt < 5 { Outcome::Requeue } else { Outcome::Ack });
    }
    Ok(())
}

async fn a_first_delivery_is_not_redelivered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..5).await?;
    let mut subscription = subscribe(&broker, &queue, 5).await?;
    for delivery in hold(&mut subscription, 5).await? {
        expect_eq("redelivered", delivery.redelivered(), false)?;
        expect_eq("the attempt", delivery.attempt().number, 1)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn a_rejected_message_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = with_dead_letters(stage)?;
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    next(&mut subscription).await?.settle(Outcome::Reject);
    let letter = next(&mut graveyard).await?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    let headers = &letter.message().headers;
    expect_eq("the reason", death_reason(headers).as_deref(), Some("rejected"))?;
    letter.settle(Outcome::Ack);
    expect_eq("what comes next", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

fn with_dead_letters(stage: &Stage) -> Result<(QueueSpec, QueueSpec), Failed> {
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    Ok((queue, dead))
}

async fn a_rejected_message_without_dead_letters_is_gone(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    next(&mut subscription).await?.settle(Outcome::Reject);
    expect_eq("what comes next", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_dead_letter_is_the_message_it_was(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = with_dead_letters(stage)?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    let bindings = [bind(&exchange, &queue, "a.#")?];
    declare(&broker, &[&exchange], &[&dead, &queue], &bindings).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "a.b")?).await?;
    let publication = publisher
        .message(&1)?
        .message_id("id")?
        .correlation_id("correlation")?
        .kind("kind")?
        .header("region", "eu")?
        .timestamp(Timestamp::from_unix_seconds(1_700_000_000));
    publication.publish().await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    let delivery = next(&mut subscription).await?;
    let before = delivery.envelope().message.clone();
    delivery.settle(Outcome::Reject);
    let letter = next(&mut graveyard).await?;
    expect_eq("the body", &letter.message().body, &before.body)?;
    expect_eq("the properties", &letter.message().properties, &before.properties)?;
    expect_eq("a header", letter.message().headers.get("region"), Some(&Value::from("eu")))?;
    let deaths = letter.message().headers.get("x-death").and_then(Value::as_list);
    let death = deaths.and_then(<[Value]>::first).and_then(Value::as_table);
    let death = death.ok_or_else(|| Failed::new("no x-death header"))?;
    let said = |name: &str| death.get(name).and_then(Value::as_str);
    expect_eq("where it died", said("queue"), Some(queue.name.as_str()))?;
    expect_eq("where it was published", said("exchange"), Some(exchange.name.as_str()))?;
    let keys = death.get("routing-keys").and_then(Value::as_list);
    expect_eq("its routing keys", keys, Some(&["a.b".into()][..]))?;
    letter.settle(Outcome::Ack);
    Ok(())
}

async fn dead_letters_count_their_deaths(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (one, mut other) = (stage.queue("one")?, stage.queue("other")?);
    other.dead_letter = dead_letter_to(&one);
    let mut one = one;
    one.dead_letter = dead_letter_to(&other);
    declare(&broker, &[], &[&one, &other], &[]).await?;
    fill(&broker, &one, [1]).await?;
    let mut here = subscribe(&broker, &one, 1).await?;
    let mut there = subscribe(&broker, &other, 1).await?;
    for _ in 0..2 {
        next(&mut here).await?.settle(Outcome::Reject);
        next(&mut there).await?.settle(Outcome::Reject);
    }
    let letter = next(&mut here).await?;
    let deaths = letter.message().headers.get("x-death").and_then(Value::as_list);
    let mut counts: Vec<_> = deaths
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_table)
        .map(|death| (death.get("queue").cloned(), death.get("count").and_then(Value::as_int)))
        .collect();
    counts.sort_by_key(|(queue, _)| format!("{queue:?}"));
    let wanted = [(Some(one.name.into()), Some(2)), (Some(other.name.into()), Some(2))];
    expect_eq("queues and counts", counts, wanted)?;
    letter.settle(Outcome::Ack);
    Ok(())
}

async fn a_dropped_delivery_comes_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    drop(next(&mut subscription).await?);
    let delivery = next(&mut subscription).await?;
    expect(delivery.redelivered(), "that it is marked as redelivered")?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// A cumulative acknowledgement of the latest would take the earlier ones along.
async fn acknowledgements_out_of_order_all_count(stage: &Stage) -> Result<(), Failed> {
    const COUNT: u32 = 40;
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..COUNT).await?;
    let mut subscription = subscribe(&broker, &queue, 40).await?;
    let held = hold(&mut subscription, COUNT as usize).await?;
    let mut odd = Vec::new();
    for delivery in held {
        if number(&delivery)?.is_multiple_of(2) {
            delivery.settle(Outcome::Ack);
        } else {
            odd.push(delivery);
        }
    }
    // All but five of the others too, the last first; those five were never acknowledged.
    for delivery in odd.drain(5..).rev() {
        delivery.settle(Outcome::Ack);
    }
    let left = numbers(&odd)?;
    settle_all(odd, Outcome::Release);
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, left)
}

async fn each_of_a_batch_ends_as_it_was_settled(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = with_dead_letters(stage)?;
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, 0..60).await?;
    let mut subscription = subscribe(&broker, &queue, 60).await?;
    let mut wanted = (BTreeSet::new(), BTreeSet::new());
    for delivery in hold(&mut subscription, 60).await? {
        let number = number(&delivery)?;
        // Runs of each, and single ones between them.
        let outcome = match (number / 5 + number) % 4 {
            0 | 1 => Outcome::Ack,
            2 => Outcome::Reject,
            _ => Outcome::Requeue,
        };
        match outcome {
            Outcome::Reject => drop(wanted.0.insert(number)),
            Outcome::Requeue => drop(wanted.1.insert(number)),
            _ => {}
        }
        delivery.settle(outcome);
    }
    let mut back = BTreeSet::new();
    while back.len() < wanted.1.len() {
        let delivery = next(&mut subscription).await?;
        expect(delivery.redelivered(), "that it is marked as redelivered")?;
        back.insert(number(&delivery)?);
        delivery.settle(Outcome::Ack);
    }
    expect_eq("what came back", back, wanted.1)?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])?;
    until("all dead letters are there", async || {
        Ok(ready(&broker, &dead).await? == wanted.0.len() as u64)
    })
    .await?;
    let dead: BTreeSet<_> = contents(&broker, &dead).await?.into_iter().collect();
    expect_eq("what is dead", dead, wanted.0)
}

async fn settling_one_queue_leaves_the_other(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (one, other) = (stage.queue("one")?, stage.queue("other")?);
    fill(&broker, &one, 0..10).await?;
    fill(&broker, &other, 0..10).await?;
    let mut here = subscribe(&broker, &one, 10).await?;
    let mut there = subscribe(&broker, &other, 10).await?;
    let mine = hold(&mut here, 10).await?;
    let theirs = hold(&mut there, 10).await?;
    settle_all(mine, Outcome::Ack);
    settle_all(theirs, Outcome::Release);
    here.stop(soon()).await?;
    there.stop(soon()).await?;
    expect_eq("what is left of the one", contents(&broker, &one).await?, [0_u32; 0])?;
    let rest = contents(&broker, &other).await?;
    expect_eq("what is left of the other", rest, (0..10).collect::<Vec<_>>())
}

async fn a_thousand_acknowledgements_survive_closing(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    fill(&other, &queue, 0..1000).await?;
    let mut subscription = subscribe(&broker, &queue, 1000).await?;
    for delivery in hold(&mut subscription, 1000).await? {
        delivery.settle(Outcome::Ack);
    }
    // Settling does not wait for the wire, but stopping does.
    subscription.stop(soon()).await?;
    broker.close(soon()).await;
    expect_eq("what is left", contents(&other, &queue).await?, [0_u32; 0])
}

async fn settling_after_the_end_is_stale(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    fill(&other, &queue, 0..3).await?;
    let mut subscription = subscribe(&broker, &queue, 3).await?;
    let held = hold(&mut subscription, 3).await?;
    broker.close(Duration::ZERO).await;
    // Every delivery is held, so the end comes next.
    let end = tokio::time::timeout(soon(), subscription.next()).await?;
    expect(end.is_err_and(|error| error.kind() == ErrorKind::Closed), "an end that says so")?;
    for (delivery, outcome) in held.into_iter().zip(OUTCOMES) {
        expect_eq(outcome, delivery.settle(outcome), Settled::Stale)?;
    }
    let mut subscription = subscribe(&other, &queue, 3).await?;
    for delivery in hold(&mut subscription, 3).await? {
        expect_marked(stage, &delivery)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

/// That it is marked as redelivered, where the broker marks messages that came back by themselves.
fn expect_marked(stage: &Stage, delivery: &Delivery) -> Result<(), Failed> {
    let marked = delivery.redelivered() || !stage.can(Capability::RedeliveredFlag);
    expect(marked, "that it is marked as redelivered")
}

async fn settling_after_a_lost_connection_is_stale(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..3).await?;
    let mut subscription = subscribe(&broker, &queue, 3).await?;
    let held = hold(&mut subscription, 3).await?;
    stage.sever().await;
    consumes_again(&subscription).await?;
    for (delivery, outcome) in held.into_iter().zip(OUTCOMES) {
        expect_eq(outcome, delivery.settle(outcome), Settled::Stale)?;
    }
    expect_eq("how many were stale", subscription.health().borrow().stale, 3)?;
    let mut again = hold(&mut subscription, 3).await?;
    again.sort_by_key(|delivery| number(delivery).unwrap_or_default());
    expect_eq("what comes again", numbers(&again)?, [0, 1, 2])?;
    for delivery in again {
        expect_marked(stage, &delivery)?;
        expect_eq("settling", delivery.settle(Outcome::Ack), Settled::Queued)?;
    }
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

/// The tags of a new channel begin anew: an old one must not settle a new delivery.
async fn a_stale_settlement_settles_nothing_else(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let old = hold(&mut subscription, 2).await?;
    stage.sever().await;
    consumes_again(&subscription).await?;
    let new = hold(&mut subscription, 2).await?;
    for delivery in old {
        expect_eq("settling", delivery.settle(Outcome::Ack), Settled::Stale)?;
    }
    drop(new);
    subscription.stop(soon()).await?;
    expect_eq("what is left", sorted_contents(&broker, &queue).await?, [1, 2])
}

async fn what_is_unsettled_comes_back_when_the_handle_closes(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    fill(&other, &queue, 0..10).await?;
    let mut subscription = subscribe(&broker, &queue, 5).await?;
    let held = hold(&mut subscription, 3).await?;
    broker.close(Duration::ZERO).await;
    let found = contents(&other, &queue).await?;
    drop(held);
    expect_eq("what the next one gets", found, (0..10).collect::<Vec<_>>())
}

async fn random_sequences_agree_with_the_model(stage: &Stage) -> Result<(), Failed> {
    let rounds = if stage.can(Capability::VirtualTime) { 40 } else { 4 };
    for seed in 1..=rounds {
        Model::new(stage, seed)
            .await?
            .play(80)
            .await
            .map_err(|failed| Failed::new(format!("with the seed {seed}: {failed}")))?;
    }
    Ok(())
}

/// Where each message must be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ready { delivered: bool },
    Held,
    Acked,
    Rejected,
}

struct Model {
    broker: enoki_core::Broker,
    queue: QueueSpec,
    dead: QueueSpec,
    publisher: enoki_core::Publisher<u32>,
    subscription: Subscription,
    fates: Vec<Fate>,
    held: Vec<Delivery>,
    random: u64,
}

impl Model {
    const PREFETCH: u16 = 4;

    async fn new(stage: &Stage, seed: u64) -> Result<Self, Failed> {
        let broker = stage.broker().await?;
        let dead = stage.queue(&format!("dead-{seed}"))?;
        let mut queue = stage.queue(&format!("q-{seed}"))?;
        queue.dead_letter = dead_letter_to(&dead);
        declare(&broker, &[], &[&dead, &queue], &[]).await?;
        Ok(Self {
            publisher: to_queue(&broker, &queue).await?,
            subscription: subscribe(&broker, &queue, Self::PREFETCH).await?,
            broker,
            queue,
            dead,
            fates: Vec::new(),
            held: Vec::new(),
            random: seed,
        })
    }

    async fn play(mut self, steps: usize) -> Result<(), Failed> {
        for _ in 0..steps {
            match self.random(8) {
                0..=2 => self.publish().await?,
                3..=4 => self.deliver().await?,
                5..=6 => self.settle()?,
                _ if self.random(4) == 0 => self.reopen().await?,
                _ => self.settle()?,
            }
        }
        self.close().await?;
        let fate = |wanted: fn(&Fate) -> bool| -> Vec<u32> {
            (0..).zip(&self.fates).filter(|(_, fate)| wanted(fate)).map(|(n, _)| n).collect()
        };
        let rest = fate(|fate| matches!(fate, Fate::Ready { .. }));
        expect_eq("what is left", sorted_contents(&self.broker, &self.queue).await?, rest)?;
        let dead = fate(|fate| *fate == Fate::Rejected);
        until("all dead letters are there", async || {
            Ok(ready(&self.broker, &self.dead).await? == dead.len() as u64)
        })
        .await?;
        expect_eq("what is dead", sorted_contents(&self.broker, &self.dead).await?, dead)?;
        self.broker.close(soon()).await;
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), Failed> {
        self.publisher.publish(&(self.fates.len() as u32)).await?;
        self.fates.push(Fate::Ready { delivered: false });
        Ok(())
    }

    async fn deliver(&mut self) -> Result<(), Failed> {
        let ready = self.fates.iter().any(|fate| matches!(fate, Fate::Ready { .. }));
        if !ready || self.held.len() >= Self::PREFETCH.into() {
            return Ok(());
        }
        let delivery = next(&mut self.subscription).await?;
        let at = number(&delivery)? as usize;
        match self.fates.get_mut(at) {
            Some(fate @ Fate::Ready { .. }) => {
                // Also one that was only buffered may be marked, but not the other way round.
                if *fate == (Fate::Ready { delivered: true }) {
                    expect(delivery.redelivered(), format_args!("{at} is redelivered"))?;
                }
                *fate = Fate::Held;
            }
            other => return Err(Failed::new(format!("{at} came, and it is {other:?}"))),
        }
        self.held.push(delivery);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failed> {
        if self.held.is_empty() {
            return Ok(());
        }
        let at = self.random(self.held.len() as u64) as usize;
        let delivery = self.held.swap_remove(at);
        let number = number(&delivery)? as usize;
        let (outcome, fate) = match self.random(5) {
            0 | 1 => (Outcome::Ack, Fate::Acked),
            2 => (Outcome::Reject, Fate::Rejected),
            3 => (Outcome::Requeue, Fate::Ready { delivered: true }),
            _ => (Outcome::Release, Fate::Ready { delivered: true }),
        };
        expect_eq("settling", delivery.settle(outcome), Settled::Queued)?;
        if let Some(slot) = self.fates.get_mut(number) {
            *slot = fate;
        }
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Failed> {
        self.close().await?;
        self.subscription = subscribe(&self.broker, &self.queue, Self::PREFETCH).await?;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failed> {
        for delivery in self.held.drain(..) {
            if let Some(fate) = self.fates.get_mut(number(&delivery)? as usize) {
                *fate = Fate::Ready { delivered: true };
            }
            drop(delivery);
        }
        Ok(self.subscription.stop(soon()).await?)
    }

    /// Numbers that look random and are the same for the same seed (splitmix64).
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    }
}
