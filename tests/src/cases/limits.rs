//! Limits of queues: age, length, size, priority, consumers and deliveries.

use std::time::Duration;

use enoki_core::{
    ErrorKind, ExchangeKind, Outcome, Overflow, PublisherOptions, QueueKind, Raw, RouteSpec,
    ShortStr,
};
use tokio::time::{Instant, sleep};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        bind, contents, dead_letter_to, death_reason, declare, fill, hold, next, number, ready,
        soon, subscribe, take, to_queue, to_queue_with, topology, until,
    },
};

cases! { "topology":
    a_message_older_than_the_ttl_is_dead_lettered
        [QueueMessageExpiry, DeadLetterRejected, DeadLetterExpired],
    an_expired_message_is_dead_lettered [MessageExpiry, DeadLetterRejected, DeadLetterExpired],
    an_expired_message_is_not_delivered [MessageExpiry],
    an_unused_queue_expires [QueueExpiry, UnroutableDetection],
    a_full_queue_drops_the_oldest [LengthLimit, DeadLetterRejected, DeadLetterDropped],
    a_full_queue_refuses_the_newest [LengthLimit],
    a_queue_can_be_limited_in_bytes [LengthLimit],
    raw_arguments_reach_the_broker [LengthLimit],
    the_higher_priority_comes_first [Priority],
    one_consumer_at_a_time_is_active [SingleActiveConsumer],
    a_delivery_limit_ends_a_message [ReplicatedQueues, DeliveryLimit, DeadLetterRejected],
    without_a_limit_a_message_fails_as_often_as_it_does [ReplicatedQueues],
    dead_letters_may_have_a_key_of_their_own [DeadLetterRejected, Exchanges],
}

async fn a_message_older_than_the_ttl_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.message_ttl = Some(Duration::from_millis(100));
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    fill(&broker, &queue, 0..3).await?;
    let letters = hold(&mut graveyard, 3).await?;
    expect_eq("the order", crate::steps::numbers(&letters)?, [0, 1, 2])?;
    for letter in letters {
        let reason = death_reason(&letter.message().headers);
        expect_eq("the reason", reason.as_deref(), Some("expired"))?;
        letter.settle(Outcome::Ack);
    }
    expect_eq("what is left", ready(&broker, &queue).await?, 0)
}

async fn an_expired_message_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.message(&1)?.expiration(Duration::from_millis(100)).publish().await?;
    publisher.publish(&2).await?;
    let letter = next(&mut graveyard).await?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    let reason = death_reason(&letter.message().headers);
    expect_eq("the reason", reason.as_deref(), Some("expired"))?;
    // Else it would expire there as well.
    expect_eq("its expiration", letter.message().properties.expiration, None)?;
    letter.settle(Outcome::Ack);
    expect_eq("what is left", contents(&broker, &queue).await?, [2])
}

async fn an_expired_message_is_not_delivered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.message(&1)?.expiration(Duration::from_millis(50)).publish().await?;
    publisher.message(&2)?.expiration(Duration::from_secs(600)).publish().await?;
    publisher.message(&3)?.expiration(Duration::from_millis(51)).publish().await?;
    // Later than the expiration: this is the point of the case.
    sleep(Duration::from_millis(200)).await;
    expect_eq("what is delivered", contents(&broker, &queue).await?, [2])
}

async fn an_unused_queue_expires(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.expires = Some(Duration::from_millis(400));
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::to_queue(queue.name.as_str())?).await?;
    sleep(Duration::from_millis(600)).await;
    publisher.publish(&1).await?;
    expect_eq("while it is used", take(&mut subscription, 1).await?, [1])?;
    let stopped = Instant::now();
    subscription.stop(soon()).await?;
    until("the queue is gone", async || match publisher.publish(&2).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Unroutable => Ok(true),
        // It was on its way out when the message came.
        Err(error) if error.kind() == ErrorKind::Refused => Ok(false),
        Err(error) => Err(error.into()),
    })
    .await?;
    expect(stopped.elapsed() >= Duration::from_millis(350), "not earlier than it says")
}

async fn a_full_queue_drops_the_oldest(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.max_length = Some(3);
    queue.overflow = Some(Overflow::DropHead);
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    fill(&broker, &queue, 0..5).await?;
    for wanted in [0, 1] {
        let letter = next(&mut graveyard).await?;
        expect_eq("the dead letter", number(&letter)?, wanted)?;
        let reason = death_reason(&letter.message().headers);
        expect_eq("the reason", reason.as_deref(), Some("maxlen"))?;
        letter.settle(Outcome::Ack);
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 3).await?, [2, 3, 4])
}

async fn a_full_queue_refuses_the_newest(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.max_length = Some(2);
    queue.overflow = Some(Overflow::RejectPublish);
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let outcomes = publisher.publish_all(&[0, 1, 2, 3]).await;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        if at < 2 {
            outcome?;
        } else {
            expect_error(format_args!("message {at}"), outcome, &[ErrorKind::Refused])?;
        }
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 2).await?, [0, 1])?;
    until("there is room again", async || Ok(ready(&broker, &queue).await? == 0)).await?;
    publisher.publish(&4).await?;
    expect_eq("what comes next", take(&mut subscription, 1).await?, [4])
}

async fn a_queue_can_be_limited_in_bytes(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    // Three bodies of a thousand bytes each, and not a fourth. Some count headers, too: those are
    // short beside what is left.
    queue.max_bytes = Some(3999);
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    for number in 10..15 {
        publisher.publish(&Raw::new("application/json", format!("{number:>1000}"))?).await?;
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 3).await?, [12, 13, 14])
}

async fn raw_arguments_reach_the_broker(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let plain = stage.queue("q")?;
    let mut lazy = plain.clone();
    lazy.arguments.insert("x-queue-mode", "lazy")?;
    for _ in 0..2 {
        declare(&broker, &[], &[&lazy], &[]).await?;
    }
    let declared = broker.declare(&topology(&[], &[&plain], &[])).await;
    let error = expect_error("declare it without", declared, &[ErrorKind::Conflict])?;
    expect_says(&error, "x-queue-mode")
}

async fn the_higher_priority_comes_first(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.max_priority = Some(5);
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.publish(&0).await?;
    for (number, priority) in [(11, 1), (51, 5), (31, 3), (12, 1), (52, 5), (99, 9)] {
        publisher.message(&number)?.priority(priority).publish().await?;
    }
    let found = contents(&broker, &queue).await?;
    // A priority above the highest counts as the highest.
    expect_eq("the order", found, [51, 52, 99, 31, 11, 12, 0])
}

async fn one_consumer_at_a_time_is_active(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.single_active_consumer = true;
    let publisher = to_queue_with::<u32>(&broker, &queue, PublisherOptions::new()).await?;
    let mut active = subscribe(&broker, &queue, 1).await?;
    let mut waiting = subscribe(&broker, &queue, 1).await?;
    for number in 0..20 {
        publisher.publish(&number).await?;
    }
    // All of them, one by one: nothing is left that the other could have got.
    expect_eq("the active one", take(&mut active, 20).await?, (0..20).collect::<Vec<u32>>())?;
    active.stop(soon()).await?;
    publisher.publish(&20).await?;
    expect_eq("its successor", take(&mut waiting, 1).await?, [20])
}

async fn a_delivery_limit_ends_a_message(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    queue.delivery_limit = Some(2);
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    let mut deliveries = 0;
    let letter = loop {
        tokio::select! {
            letter = next(&mut graveyard) => break letter?,
            delivery = next(&mut subscription) => {
                deliveries += 1;
                expect(deliveries < 10, "an end of the deliveries")?;
                delivery?.settle(Outcome::Requeue);
            }
        }
    };
    expect_eq("how often it was delivered", deliveries, 3)?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    let reason = death_reason(&letter.message().headers);
    expect_eq("the reason", reason.as_deref(), Some("delivery_limit"))?;
    letter.settle(Outcome::Ack);
    Ok(())
}

/// A broker may have a limit of its own, after which it removes messages that have no dead letters.
async fn without_a_limit_a_message_fails_as_often_as_it_does(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    fill(&broker, &queue, [7]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for _ in 0..30 {
        next(&mut subscription).await?.settle(Outcome::Requeue);
    }
    expect_eq("what is still there", take(&mut subscription, 1).await?, [7])
}

async fn dead_letters_may_have_a_key_of_their_own(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("dead", ExchangeKind::Direct)?;
    let (by_own, by_theirs) = (stage.queue("by-own")?, stage.queue("by-theirs")?);
    let (mut own, mut theirs) = (stage.queue("own")?, stage.queue("theirs")?);
    let dead_letter =
        |routing_key| Some(enoki_core::DeadLetter { exchange: exchange.name.clone(), routing_key });
    own.dead_letter = dead_letter(Some(ShortStr::from_static("own")));
    theirs.dead_letter = dead_letter(None);
    let bindings =
        [bind(&exchange, &by_own, "own")?, bind(&exchange, &by_theirs, theirs.name.as_str())?];
    let queues = [&by_own, &by_theirs, &own, &theirs];
    declare(&broker, &[&exchange], &queues, &bindings).await?;
    for (number, queue, letters) in [(1, &own, &by_own), (2, &theirs, &by_theirs)] {
        fill(&broker, queue, [number]).await?;
        let mut subscription = subscribe(&broker, queue, 1).await?;
        let mut graveyard = subscribe(&broker, letters, 1).await?;
        next(&mut subscription).await?.settle(Outcome::Reject);
        expect_eq("the dead letter", take(&mut graveyard, 1).await?, [number])?;
    }
    Ok(())
}
