//! Publishing: which messages are confirmed, which are not, and what the publisher is told.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use enoki_core::{
    BrokerOptions, Capability, ErrorKind, ExchangeKind, ExchangeSpec, Limits, Outcome,
    PublisherOptions, Raw, RouteSpec, ShortStr, transport::Change,
};
use futures_util::{
    FutureExt,
    future::{join_all, try_join_all},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        EARLY, PATIENCE, bind, contents, dead_letter_to, declare, fill, hold, next, number, ready,
        soon, sorted_contents, subscribe, take, to_queue, to_queue_with, topology,
    },
};

cases! { "publish":
    a_confirmed_message_is_stored,
    a_hundred_messages_arrive_as_they_were,
    many_publishers_and_consumers_lose_nothing within 240,
    twenty_queues_get_their_own within 240,
    one_publisher_keeps_its_order,
    clones_of_a_publisher_share_its_order,
    an_unroutable_message_is_reported [UnroutableDetection],
    an_unroutable_message_to_a_missing_queue_is_reported [UnroutableDetection],
    an_unroutable_optional_message_is_no_error [Exchanges],
    a_mandatory_publisher_needs_its_queue_where_nobody_reports without UnroutableDetection,
    exactly_the_unroutable_ones_are_reported [UnroutableDetection, Exchanges] within 240,
    a_deleted_exchange_is_an_error_and_can_come_back [Exchanges],
    a_failing_publisher_disturbs_no_other [Exchanges],
    a_message_to_a_missing_exchange_disturbs_none_beside_it [Exchanges] within 60,
    the_window_makes_a_publisher_wait,
    a_small_window_gets_everything_through,
    a_batch_ends_as_single_messages_do [UnroutableDetection, Exchanges],
    a_batch_larger_than_the_window_gets_through,
    an_empty_batch_is_nothing,
    the_same_message_id_twice_is_two_messages,
    messages_of_one_id_under_way_together_have_outcomes_of_their_own [UnroutableDetection, Exchanges],
    message_ids_are_made_and_kept,
    a_dropped_confirm_does_not_take_the_message_back,
    twenty_publishers_close_after_ten_thousand_messages within 240,
    a_body_that_is_too_large_is_refused_and_disturbs_no_other,
    a_large_body_arrives_whole,
    headers_that_are_too_large_are_refused_and_disturb_nobody,
    a_deadline_of_zero_is_kept,
    a_window_of_zero_is_refused,
    a_key_that_cannot_be_is_refused,
    a_message_may_take_another_route_than_its_publisher [UnroutableDetection, Exchanges],
    a_message_may_be_mandatory_or_optional_by_itself [UnroutableDetection, Exchanges],
    a_delivery_is_forwarded_as_it_is,
    a_dead_letter_is_forwarded_without_what_the_broker_wrote [DeadLetterRejected],
    a_publisher_outlives_its_session,
    a_publisher_declares_again_on_a_new_session,
}

async fn a_confirmed_message_is_stored(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    for number in 1..=5 {
        publisher.publish(&number).await?;
        expect_eq("messages after the confirm", ready(&broker, &queue).await?, u64::from(number))?;
    }
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1, 2, 3, 4, 5])
}

async fn a_hundred_messages_arrive_as_they_were(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let body = |number: u32| Bytes::from(format!("body {number} ").repeat(number as usize % 7));
    for number in 0..100_u32 {
        let raw = Raw::new("text/plain", body(number))?;
        let publication = publisher.message(&raw)?;
        publication
            .header("number", number)?
            .header("text", format!("№ {number}"))?
            .publish()
            .await?;
    }
    let mut subscription = subscribe(&broker, &queue, 100).await?;
    for (number, delivery) in (0_u32..).zip(hold(&mut subscription, 100).await?) {
        let message = delivery.message();
        expect_eq("the body", &message.body, &body(number))?;
        expect_eq("a header", message.headers.get("number"), Some(&number.into()))?;
        expect_eq("a header", message.headers.get("text"), Some(&format!("№ {number}").into()))?;
        expect_eq("how many headers", message.headers.len(), 2)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn many_publishers_and_consumers_lose_nothing(stage: &Stage) -> Result<(), Failed> {
    const HANDS: u32 = 50;
    const EACH: u32 = 100;
    let (source, sink) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    for _ in 0..HANDS {
        let mut subscription = subscribe(&sink, &queue, 10).await?;
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Ok(Some(delivery)) = subscription.next().await {
                if seen.send(delivery.decode::<u32>()).is_ok() {
                    delivery.settle(Outcome::Ack);
                }
            }
        });
    }
    let publishers = try_join_all((0..HANDS).map(|_| to_queue::<u32>(&source, &queue))).await?;
    let publishing = join_all((0..).zip(publishers).map(|(hand, publisher)| async move {
        let numbers: Vec<u32> = (hand * EACH..(hand + 1) * EACH).collect();
        publisher.publish_all(&numbers).await
    }));
    let receiving = async {
        let mut numbers = BTreeSet::new();
        let mut deliveries = 0;
        while numbers.len() < (HANDS * EACH) as usize {
            let Some(number) = sees.recv().await else { break };
            numbers.insert(number?);
            deliveries += 1;
        }
        Ok::<_, Failed>((numbers, deliveries))
    };
    let (confirmed, received) = tokio::join!(publishing, receiving);
    for outcome in confirmed.into_iter().flatten() {
        outcome?;
    }
    let (numbers, deliveries) = received?;
    expect_eq("the numbers", numbers, (0..HANDS * EACH).collect::<BTreeSet<_>>())?;
    expect_eq("how many deliveries there were", deliveries, HANDS * EACH)
}

async fn twenty_queues_get_their_own(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let work = (0..20_u32).map(|at| {
        let broker = &broker;
        async move {
            let queue = stage.queue(&format!("q{at}"))?;
            let numbers: Vec<u32> = (at * 1000..at * 1000 + 100).collect();
            let filling = fill(broker, &queue, numbers.clone());
            let taking = async {
                let mut subscription = subscribe(broker, &queue, 20).await?;
                take(&mut subscription, 100).await
            };
            let (filled, taken) = tokio::join!(filling, taking);
            filled?;
            expect_eq(format_args!("queue {at}"), taken?, numbers)
        }
    });
    try_join_all(work).await.map(drop)
}

async fn one_publisher_keeps_its_order(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 50).await?;
    let publishing = async {
        let mut confirms = Vec::new();
        for number in 0..1000_u32 {
            // One way and the other: they share a path.
            if number % 7 == 0 {
                publisher.publish(&number).await?;
            } else {
                confirms.push(publisher.enqueue(&number).await?);
            }
        }
        try_join_all(confirms).await?;
        Ok::<_, Failed>(())
    };
    let (published, taken) = tokio::join!(publishing, take(&mut subscription, 1000));
    published?;
    expect_eq("the order", taken?, (0..1000).collect::<Vec<u32>>())
}

async fn clones_of_a_publisher_share_its_order(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let clones = [publisher.clone(), publisher.clone(), publisher];
    let mut confirms = Vec::new();
    for (number, publisher) in (0..60).zip(clones.iter().cycle()) {
        confirms.push(publisher.enqueue(&number).await?);
    }
    try_join_all(confirms).await?;
    expect_eq("the order", contents(&broker, &queue).await?, (0..60).collect::<Vec<u32>>())
}

/// The broker confirms a returned message, too.
async fn an_unroutable_message_is_reported(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "nowhere")?).await?;
    for number in 0..3 {
        let outcome = publisher.publish(&number).await;
        let error = expect_error("publish", outcome, &[ErrorKind::Unroutable])?;
        expect_says(&error, &exchange.name)?;
        expect_says(&error, "nowhere")?;
        expect(!error.is_transient(), "that nothing changes by itself")?;
    }
    Ok(())
}

async fn an_unroutable_message_to_a_missing_queue_is_reported(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("missing")?;
    let route = RouteSpec::<u32>::to_queue(queue.name.as_str())?;
    let publisher = broker.publisher(route).await?;
    expect_error("publish", publisher.publish(&1).await, &[ErrorKind::Unroutable])?;
    declare(&broker, &[], &[&queue], &[]).await?;
    publisher.publish(&2).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [2])
}

/// Otherwise a mistake in a name would be a message that no consumer gets, and no error.
async fn a_mandatory_publisher_needs_its_queue_where_nobody_reports(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let route = || RouteSpec::<u32>::to_queue(queue.name.as_str());
    let missing = broker.publisher(route()?).await;
    let error = expect_error("no queue", missing, &[ErrorKind::NotFound])?;
    expect_says(&error, &queue.name)?;
    declare(&broker, &[], &[&queue], &[]).await?;
    let publisher = broker.publisher(route()?).await?;
    publisher.publish(&1).await?;
    let other = publisher.publish_to(stage.name("other"), &2).await;
    expect_error("another queue", other, &[ErrorKind::Unsupported])?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])
}

async fn an_unroutable_optional_message_is_no_error(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    let options = PublisherOptions::new().optional();
    let route = RouteSpec::<u32>::new(&exchange, "nowhere")?;
    let publisher = broker.publisher_with(route, options).await?;
    for outcome in publisher.publish_all(&[1, 2, 3]).await {
        outcome?;
    }
    if stage.can(Capability::UnroutableDetection) {
        let wanted = publisher.message(&4)?.mandatory(true).publish().await;
        expect_error("a mandatory one among them", wanted, &[ErrorKind::Unroutable])?;
    }
    publisher.publish(&5).await.map(drop).map_err(Failed::from)
}

/// A client library reports the wrong ones when thousands are under way.
async fn exactly_the_unroutable_ones_are_reported(stage: &Stage) -> Result<(), Failed> {
    const COUNT: u32 = 3000;
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "in")?]).await?;
    let route = RouteSpec::<u32>::new(&exchange, "in")?;
    let options = PublisherOptions::new().window(3000);
    let publisher = broker.publisher_with(route, options).await?;
    // Not every third: a regular pattern can come out right by chance.
    let routed = |number: u32| !number.wrapping_mul(2_654_435_761).is_multiple_of(3);
    let mut confirms = Vec::new();
    for number in 0..COUNT {
        let key = if routed(number) { "in" } else { "nowhere" };
        let publication = publisher.message(&number)?.key(key)?;
        confirms.push(publication.message_id(format!("m-{number}"))?.enqueue().await?);
    }
    for (number, outcome) in (0..).zip(join_all(confirms).await) {
        if routed(number) {
            let confirmed = outcome?;
            expect_eq("the id", confirmed.message_id, ShortStr::new(format!("m-{number}"))?)?;
        } else {
            let what = format_args!("message {number}");
            expect_error(what, outcome, &[ErrorKind::Unroutable])?;
        }
    }
    let wanted: Vec<u32> = (0..COUNT).filter(|number| routed(*number)).collect();
    expect_eq("what the queue holds", contents(&broker, &queue).await?, wanted)
}

async fn a_deleted_exchange_is_an_error_and_can_come_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    let whole = topology(&[&exchange], &[&queue], &[bind(&exchange, &queue, "k")?]);
    broker.declare(&whole).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "k")?).await?;
    publisher.publish(&1).await?;
    broker.apply(&Change::DeleteExchange(exchange.name.clone())).await?;
    let kinds = [ErrorKind::NotFound, ErrorKind::Indeterminate];
    let error = expect_error("publish", publisher.publish(&2).await, &kinds)?;
    expect_says(&error, &exchange.name)?;
    broker.declare(&whole).await?;
    publisher.publish(&3).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1, 3])
}

/// A mistake of one publisher must not make the outcomes of another uncertain.
async fn a_failing_publisher_disturbs_no_other(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    let good = to_queue::<u32>(&broker, &queue).await?;
    let bad = broker.publisher(RouteSpec::<u32>::new(&exchange, "k")?).await?;
    broker.apply(&Change::DeleteExchange(exchange.name.clone())).await?;
    let mut confirms = Vec::new();
    let mut failures = Vec::new();
    for number in 0..200 {
        confirms.push(good.enqueue(&number).await?);
        if number % 10 == 0 {
            failures.push(bad.enqueue(&number).await?);
        }
    }
    for outcome in join_all(confirms).await {
        outcome?;
    }
    for outcome in join_all(failures).await {
        expect(outcome.is_err(), "no confirm for an exchange that is gone")?;
    }
    let found = contents(&broker, &queue).await?;
    expect_eq("what the queue holds", found, (0..200).collect::<Vec<u32>>())
}

/// One publisher, and one path: a wrong message must not make the others uncertain.
async fn a_message_to_a_missing_exchange_disturbs_none_beside_it(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "k")?]).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "k")?).await?;
    let missing = ExchangeSpec::new(stage.name("missing"), ExchangeKind::Direct)?;
    let mut confirms = Vec::new();
    for number in 0..100 {
        let publication = publisher.message(&number)?;
        let publication = match number % 10 {
            4 => publication.route(RouteSpec::new(&missing, "k")?),
            _ => publication,
        };
        confirms.push(publication.enqueue().await?);
    }
    for (number, outcome) in (0..).zip(join_all(confirms).await) {
        if number % 10 == 4 {
            let what = format_args!("message {number}");
            let error = expect_error(what, outcome, &[ErrorKind::NotFound])?;
            expect_says(&error, &missing.name)?;
        } else {
            outcome?;
        }
    }
    // Some may have been published again; that comes after the first time, and in order.
    let mut found = contents(&broker, &queue).await?;
    let mut seen = BTreeSet::new();
    found.retain(|number| seen.insert(*number));
    let wanted: Vec<u32> = (0..100).filter(|number| number % 10 != 4).collect();
    expect_eq("what the queue holds", found, wanted)
}

async fn the_window_makes_a_publisher_wait(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().window(2);
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    publisher.publish(&0).await?;
    // Nothing else runs on this runtime until the case waits, so no confirm can make room.
    let first = publisher.enqueue(&1).now_or_never();
    let second = publisher.enqueue(&2).now_or_never();
    let (Some(first), Some(second)) = (first, second) else {
        return Err(Failed::new("it waits, though there is room in the window"));
    };
    expect(publisher.enqueue(&3).now_or_never().is_none(), "that it waits for room")?;
    first?.await?;
    second?.await?;
    publisher.enqueue(&4).await?.await?;
    // The third was given up before it was handed over.
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [0, 1, 2, 4])
}

async fn a_small_window_gets_everything_through(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().window(1);
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    let numbers: Vec<u32> = (0..50).collect();
    for outcome in publisher.publish_all(&numbers).await {
        outcome?;
    }
    let mut confirms = Vec::new();
    for number in 50..60 {
        confirms.push(publisher.enqueue(&number).await?);
    }
    try_join_all(confirms).await?;
    expect_eq(
        "what the queue holds",
        contents(&broker, &queue).await?,
        (0..60).collect::<Vec<u32>>(),
    )
}

async fn a_batch_ends_as_single_messages_do(stage: &Stage) -> Result<(), Failed> {
    let limits = {
        let mut limits = Limits::default();
        limits.max_body = 64;
        limits
    };
    let broker = stage.broker_with(BrokerOptions::new().limits(limits)).await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "in")?]).await?;
    for key in ["in", "nowhere"] {
        let publisher = broker.publisher(RouteSpec::<String>::new(&exchange, key)?).await?;
        let messages: Vec<String> =
            (0..12).map(|n| if n % 4 == 1 { "x".repeat(100) } else { format!("{n}") }).collect();
        let batch = publisher.publish_all(&messages).await;
        expect_eq("how many outcomes", batch.len(), messages.len())?;
        let mut singles = Vec::new();
        for message in &messages {
            singles.push(publisher.publish(message).await);
        }
        let kinds = |outcomes: &[enoki_core::Result<enoki_core::Confirmed>]| -> Vec<_> {
            outcomes
                .iter()
                .map(|outcome| outcome.as_ref().map(drop).map_err(|e| e.kind()))
                .collect()
        };
        expect_eq(format_args!("outcomes by {key:?}"), kinds(&batch), kinds(&singles))?;
        let routed = if key == "in" { Ok(()) } else { Err(ErrorKind::Unroutable) };
        let wanted: Vec<_> =
            (0..12).map(|n| if n % 4 == 1 { Err(ErrorKind::TooLarge) } else { routed }).collect();
        expect_eq(format_args!("outcomes by {key:?}"), kinds(&batch), wanted)?;
        let ids: BTreeSet<_> = batch.iter().flatten().map(|c| c.message_id.clone()).collect();
        expect_eq("different ids", ids.len(), batch.iter().flatten().count())?;
    }
    expect_eq("what the queue holds", ready(&broker, &queue).await?, 18)
}

async fn a_batch_larger_than_the_window_gets_through(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().window(16);
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    let numbers: Vec<u32> = (0..1000).collect();
    for outcome in publisher.publish_all(&numbers).await {
        outcome?;
    }
    expect_eq("what the queue holds", contents(&broker, &queue).await?, numbers)
}

async fn an_empty_batch_is_nothing(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let publisher = to_queue::<u32>(&broker, &stage.queue("q")?).await?;
    let outcomes = timeout(PATIENCE, publisher.publish_all(&[])).await?;
    expect_eq("outcomes", outcomes.len(), 0)
}

async fn the_same_message_id_twice_is_two_messages(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    for number in [1, 2] {
        publisher.message(&number)?.message_id("same")?.publish().await?;
    }
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1, 2])
}

/// A broker that returns a message may name it by its id alone.
async fn messages_of_one_id_under_way_together_have_outcomes_of_their_own(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "in")?]).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "in")?).await?;
    let mut confirms = Vec::new();
    for number in 0..20 {
        let key = if number % 2 == 0 { "nowhere" } else { "in" };
        let publication = publisher.message(&number)?.key(key)?;
        confirms.push(publication.message_id("same")?.enqueue().await?);
    }
    for (number, outcome) in (0..).zip(join_all(confirms).await) {
        if number % 2 == 0 {
            expect_error(format_args!("message {number}"), outcome, &[ErrorKind::Unroutable])?;
        } else {
            outcome?;
        }
    }
    let wanted: Vec<u32> = (0..20).filter(|number| number % 2 == 1).collect();
    expect_eq("what the queue holds", contents(&broker, &queue).await?, wanted)
}

async fn message_ids_are_made_and_kept(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(publisher.publish(&number).await?.message_id);
    }
    let confirm = publisher.message(&10)?.message_id("mine")?.enqueue().await?;
    expect_eq("the id of the confirm", confirm.message_id(), &ShortStr::from_static("mine"))?;
    ids.push(confirm.await?.message_id);
    let different: BTreeSet<_> = ids.iter().cloned().collect();
    expect_eq("how many different ids", different.len(), 11)?;
    let mut subscription = subscribe(&broker, &queue, 20).await?;
    for (wanted, delivery) in ids.into_iter().zip(hold(&mut subscription, 11).await?) {
        expect_eq("the id", delivery.message().properties.message_id.clone(), Some(wanted))?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn a_dropped_confirm_does_not_take_the_message_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    for number in 0..20 {
        drop(publisher.enqueue(&number).await?);
    }
    publisher.publish(&20).await?;
    expect_eq(
        "what the queue holds",
        contents(&broker, &queue).await?,
        (0..21).collect::<Vec<u32>>(),
    )
}

async fn twenty_publishers_close_after_ten_thousand_messages(stage: &Stage) -> Result<(), Failed> {
    let (source, sink) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let publishers = try_join_all((0..20).map(|_| to_queue::<u32>(&source, &queue))).await?;
    let enqueuing = (0..).zip(publishers).map(|(hand, publisher)| async move {
        let mut confirms = Vec::new();
        for number in hand * 500..(hand + 1) * 500 {
            confirms.push(publisher.enqueue(&number).await?);
        }
        Ok::<_, Failed>(confirms)
    });
    let confirms = try_join_all(enqueuing).await?;
    source.close(Duration::from_secs(20)).await;
    for outcome in join_all(confirms.into_iter().flatten()).await {
        outcome?;
    }
    let found = sorted_contents(&sink, &queue).await?;
    expect_eq("what the queue holds", found, (0..10_000).collect::<Vec<u32>>())
}

/// A broker answers a body that is too large by closing the channel.
async fn a_body_that_is_too_large_is_refused_and_disturbs_no_other(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let max = Limits::default().max_body;
    let large = Raw::new("application/octet-stream", vec![0; max + 1])?;
    let refused = publisher.publish(&large).await;
    let error = expect_error("publish", refused, &[ErrorKind::TooLarge])?;
    expect_says(&error, &(max + 1).to_string())?;
    expect_says(&error, &max.to_string())?;
    publisher.publish(&Raw::new("application/json", "1")?).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])
}

/// Larger than any frame, and of bytes that do not repeat at the borders of frames.
async fn a_large_body_arrives_whole(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let body = |seed: u32, size: u32| -> Vec<u8> {
        (0..size).map(|at| (at.wrapping_mul(seed) >> 13) as u8).collect()
    };
    let sizes = [131_063, 131_064, 131_065, 131_072, 1, 3_000_001];
    for (seed, size) in (7919..).zip(sizes) {
        publisher.publish(&Raw::new("application/octet-stream", body(seed, size))?).await?;
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    for (seed, size) in (7919..).zip(sizes) {
        let delivery = next(&mut subscription).await?;
        let same = delivery.message().body == body(seed, size);
        expect(same, format_args!("a body of {size} bytes as it was"))?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn headers_that_are_too_large_are_refused_and_disturb_nobody(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let large = "x".repeat(Limits::default().max_headers);
    let refused = publisher.message(&1)?.header("large", large)?.publish().await;
    expect_error("publish", refused, &[ErrorKind::TooLarge])?;
    let fits = "x".repeat(Limits::default().max_headers - 100);
    publisher.message(&2)?.header("large", fits.as_str())?.publish().await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    expect_eq("the header", delivery.message().headers.get("large"), Some(&fits.into()))?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn a_deadline_of_zero_is_kept(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().timeout(Duration::ZERO);
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    let started = Instant::now();
    let outcome = publisher.publish(&1).await;
    expect(started.elapsed() < EARLY, "an end at once")?;
    let error = expect_error("publish", outcome, &[ErrorKind::Timeout, ErrorKind::Indeterminate])?;
    let found = contents(&broker, &queue).await?;
    let stored = error.kind() == ErrorKind::Indeterminate && found == [1];
    expect(stored || found.is_empty(), "that a timeout means it was not sent")
}

async fn a_window_of_zero_is_refused(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let options = PublisherOptions::new().window(0);
    let publisher = to_queue_with::<u32>(&broker, &stage.queue("q")?, options).await;
    expect(publisher.is_err(), "no publisher that could never publish")
}

async fn a_key_that_cannot_be_is_refused(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let wrong = &[ErrorKind::Configuration];
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    expect_error("no key", publisher.publish_to("", &1).await, wrong)?;
    expect_error("a long key", publisher.publish_to("x".repeat(256), &1).await, wrong)?;
    if stage.can(Capability::Exchanges) {
        let topic = stage.exchange("topic", ExchangeKind::Topic)?;
        expect_error("a wildcard", RouteSpec::<u32>::new(&topic, "a.*"), wrong)?;
        expect_error("a wildcard", RouteSpec::<u32>::new(&topic, "#"), wrong)?;
        let longest = "x".repeat(255);
        let binding = bind(&topic, &queue, &longest)?;
        declare(&broker, &[&topic], &[&queue], &[binding]).await?;
        let publisher = broker.publisher(RouteSpec::<u32>::new(&topic, longest)?).await?;
        expect_error("a wildcard", publisher.publish_to("a.#", &1).await, wrong)?;
        publisher.publish(&2).await?;
        let fanout = stage.exchange("fanout", ExchangeKind::Fanout)?;
        expect_error("a key for a fanout", RouteSpec::<u32>::new(&fanout, "k"), wrong)?;
        expect_eq("what the queue holds", contents(&broker, &queue).await?, [2])?;
    }
    Ok(())
}

async fn a_message_may_take_another_route_than_its_publisher(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (near, far) = (stage.queue("near")?, stage.queue("far")?);
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    declare(&broker, &[&exchange], &[&near, &far], &[bind(&exchange, &far, "a.*")?]).await?;
    let publisher = to_queue::<u32>(&broker, &near).await?;
    publisher.publish(&1).await?;
    publisher.message(&2)?.route(RouteSpec::new(&exchange, "a.b")?).publish().await?;
    publisher.message(&3)?.route(RouteSpec::to_queue(&*far.name)?).publish().await?;
    publisher.publish(&4).await?;
    let nowhere = publisher.message(&5)?.route(RouteSpec::new(&exchange, "b.b")?).publish().await;
    expect_error("a route to no queue", nowhere, &[ErrorKind::Unroutable])?;
    expect_eq("by the publisher's route", contents(&broker, &near).await?, [1, 4])?;
    expect_eq("by the others", contents(&broker, &far).await?, [2, 3])
}

async fn a_message_may_be_mandatory_or_optional_by_itself(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    for (optional, options) in
        [(false, PublisherOptions::new()), (true, PublisherOptions::new().optional())]
    {
        let route = RouteSpec::<u32>::new(&exchange, "a")?;
        let publisher = broker.publisher_with(route, options).await?;
        publisher.message(&1)?.mandatory(false).publish().await?;
        let mandatory = publisher.message(&2)?.mandatory(true).publish().await;
        expect_error("a mandatory message", mandatory, &[ErrorKind::Unroutable])?;
        let neither = publisher.publish(&3).await.map(drop).map_err(|error| error.kind());
        let expected = if optional { Ok(()) } else { Err(ErrorKind::Unroutable) };
        expect_eq("what the publisher says", neither, expected)?;
    }
    Ok(())
}

/// Also one that this program cannot read, by a publisher of another type.
async fn a_delivery_is_forwarded_as_it_is(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (from, to) = (stage.queue("from")?, stage.queue("to")?);
    let first = to_queue::<Raw>(&broker, &from).await?;
    let raw = Raw::new("application/x-unheard-of", &b"\xff\x00"[..])?;
    let publication = first.message(&raw)?.message_id("the first")?.correlation_id("asked")?;
    publication.kind("order")?.header("region", "eu")?.header("number", 7)?.publish().await?;
    let mut subscription = subscribe(&broker, &from, 1).await?;
    let delivery = next(&mut subscription).await?;
    let second = to_queue::<u32>(&broker, &to).await?;
    let confirmed = second.forward(delivery.envelope()).await?;
    expect_eq("the id", &*confirmed.message_id, "the first")?;
    let mut subscription = subscribe(&broker, &to, 1).await?;
    let forwarded = next(&mut subscription).await?;
    let (sent, got) = (delivery.message(), forwarded.message());
    expect_eq("the body", &got.body, &sent.body)?;
    expect_eq("the headers", &got.headers, &sent.headers)?;
    expect_eq("the properties", &got.properties, &sent.properties)?;
    forwarded.settle(Outcome::Ack);
    // With something of its own.
    second.forwarded(delivery.envelope()).header("region", "us")?.publish().await?;
    let changed = next(&mut subscription).await?;
    expect_eq("a header", changed.message().headers.get("region"), Some(&"us".into()))?;
    delivery.settle(Outcome::Ack);
    changed.settle(Outcome::Ack);
    Ok(())
}

/// Brokers do not let a publisher write the headers that they write themselves.
async fn a_dead_letter_is_forwarded_without_what_the_broker_wrote(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, [7]).await?;
    let (mut work, mut graveyard) =
        (subscribe(&broker, &queue, 1).await?, subscribe(&broker, &dead, 1).await?);
    let back = to_queue::<u32>(&broker, &queue).await?;
    for _ in 0..2 {
        next(&mut work).await?.settle(Outcome::Reject);
        let letter = next(&mut graveyard).await?;
        back.forward(letter.envelope()).await?;
        letter.settle(Outcome::Ack);
    }
    let again = next(&mut work).await?;
    expect_eq("the message", number(&again)?, 7)?;
    again.settle(Outcome::Ack);
    Ok(())
}

async fn a_publisher_outlives_its_session(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    for round in 0..3 {
        publisher.publish(&round).await?;
        stage.sever().await;
        // Until the loss is known, a message may fall into it; that must be said, and pass.
        let overdue = Instant::now() + soon();
        while let Err(error) = publisher.publish(&(100 + round)).await {
            expect_eq("the kind", error.kind(), ErrorKind::Indeterminate)?;
            expect(Instant::now() < overdue, "that it publishes again")?;
        }
    }
    let mut found = contents(&broker, &queue).await?;
    found.dedup();
    expect_eq("what the queue holds", found, [0, 100, 1, 101, 2, 102])
}

async fn a_publisher_declares_again_on_a_new_session(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.publish(&1).await?;
    other.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    stage.sever().await;
    let overdue = Instant::now() + soon();
    while let Err(error) = publisher.publish(&2).await {
        expect_eq("the kind", error.kind(), ErrorKind::Indeterminate)?;
        expect(Instant::now() < overdue, "that it publishes again")?;
    }
    let mut found = contents(&broker, &queue).await?;
    found.dedup();
    expect_eq("what the queue holds", found, [2])
}
