//! Retries: a failed message is tried again later, a limited number of times, and then kept with its cause.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use enoki_core::{
    Attempt, Body, Counted, DelayedBy, Delivery, Envelope, ErrorKind, ExchangeKind, Failure,
    Handler, OnError, Outcome, QueueKind, QueueSpec, Retry, RouteSpec, Service, Timestamp, Value,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error},
    stage::Stage,
    steps::{
        PATIENCE, bind, contents, dead_letter_to, declare, fill, next, number, soon, subscribe,
        to_queue,
    },
};

cases! { "retry":
    attempts_are_exact_and_the_last_failure_is_a_dead_letter [DeadLetter, Expiry, UnroutableDetection],
    attempts_are_exact_on_a_replicated_queue [DeadLetter, Expiry, UnroutableDetection, ReplicatedQueues],
    attempts_are_exact_where_no_queue_expires [DeliveryCount] without Expiry,
    a_message_that_succeeds_at_last_leaves_nothing_behind [DeadLetter, Expiry, UnroutableDetection],
    a_retry_is_the_message_it_was [DeadLetter, Expiry, UnroutableDetection, Exchanges],
    a_dead_letter_goes_where_those_of_its_queue_go [DeadLetter, Expiry, UnroutableDetection, Exchanges],
    a_panic_is_tried_again_and_named [DeadLetter, Expiry, UnroutableDetection],
    a_forged_attempt_loses_no_message [DeadLetter, Expiry, UnroutableDetection],
    an_outcome_of_a_failure_is_not_tried_again [DeadLetter, Expiry, UnroutableDetection],
    a_message_that_always_fails_delays_no_other [DeadLetter, Expiry, UnroutableDetection],
    a_policy_without_attempts_does_not_start,
}

/// Its delays are 50, 100 and 200 ms.
fn policy() -> Retry {
    OnError::retry().attempts(4).first(Duration::from_millis(50))
}

/// A queue, and the names of the queues that its retries need, so that they go when the case ends.
fn retried(stage: &Stage) -> Result<(QueueSpec, QueueSpec), Failed> {
    for millis in [50, 100, 200, 60_000, 120_000] {
        stage.queue(&format!("q.retry.{millis}ms"))?;
    }
    Ok((stage.queue("q")?, stage.queue("q.dead")?))
}

/// What a handler saw of a message.
#[derive(Debug, Clone)]
struct Seen {
    number: u32,
    attempt: Attempt,
    envelope: Envelope,
    at: Instant,
}

type Seeing = mpsc::UnboundedReceiver<Seen>;

async fn heard(from: &mut Seeing) -> Result<Seen, Failed> {
    timeout(PATIENCE, from.recv()).await?.ok_or_else(|| Failed::new("the handler is gone"))
}

/// A handler that reports what it sees, and fails as long as this says so.
fn failing(
    fails: impl Fn(u32, u32) -> bool + Clone + Send + Sync + 'static,
) -> (impl Handler<u32, (), (Body<u32>, Attempt, Envelope)>, Seeing) {
    let (seen, sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>, attempt: Attempt, envelope: Envelope| {
        let _ = seen.send(Seen { number, attempt, envelope, at: Instant::now() });
        let failed = fails(number, attempt.number);
        async move {
            match failed {
                true => Err(Failure::new(format!("attempt {} failed", attempt.number))),
                false => Ok(()),
            }
        }
    };
    (handler.named("fails"), sees)
}

fn text<'d>(letter: &'d Delivery, name: &str) -> &'d str {
    letter.message().headers.get(name).and_then(Value::as_str).unwrap_or("(no text)")
}

fn time(letter: &Delivery, name: &str) -> Option<Timestamp> {
    letter.message().headers.get(name).and_then(Value::as_timestamp)
}

async fn attempts_are_exact_and_the_last_failure_is_a_dead_letter(
    stage: &Stage,
) -> Result<(), Failed> {
    attempts_are_exact(stage, QueueKind::Classic).await
}

async fn attempts_are_exact_on_a_replicated_queue(stage: &Stage) -> Result<(), Failed> {
    attempts_are_exact(stage, QueueKind::Replicated).await
}

async fn attempts_are_exact_where_no_queue_expires(stage: &Stage) -> Result<(), Failed> {
    attempts_are_exact(stage, QueueKind::Classic).await
}

async fn attempts_are_exact(stage: &Stage, kind: QueueKind) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (mut queue, mut dead) = retried(stage)?;
    (queue.kind, dead.kind) = (kind, kind);
    let mine = queue.clone().of::<u32>();
    let (handler, mut sees) = failing(|_, _| true);
    let running = Service::new("conformance", broker.clone())
        .consume(&mine, handler.concurrency(1).on_error(policy()))
        .start()
        .await?;
    let began = Timestamp::now();
    fill(&broker, &queue, [7]).await?;
    let delayed_by = broker.delayed_by(&mine)?;
    let counted = match delayed_by {
        DelayedBy::WaitQueues => Counted::ByToolkit,
        _ => Counted::ByBroker,
    };
    let mut last: Option<Seen> = None;
    for attempt in 1..=4 {
        let seen = heard(&mut sees).await?;
        expect_eq("the message", seen.number, 7)?;
        expect_eq("the attempt", seen.attempt, Attempt { number: attempt, counted })?;
        expect_eq("redelivered", seen.envelope.redelivered, attempt > 1)?;
        if let Some(last) = last {
            let (after, least) = (seen.at - last.at, Duration::from_millis(25 << (attempt - 1)));
            expect(after >= least, format_args!("it {least:?} later at least, not {after:?}"))?;
        }
        last = Some(seen);
    }
    let mut letters = subscribe(&broker, &dead, 1).await?;
    let letter = next(&mut letters).await?;
    expect_eq("the dead letter", number(&letter)?, 7)?;
    for (name, expected) in [
        ("enoki-error", "attempt 4 failed"),
        ("enoki-error-kind", "error"),
        ("enoki-service", "conformance"),
        ("enoki-handler", "fails"),
        ("enoki-exchange", ""),
        ("enoki-routing-key", queue.name.as_str()),
    ] {
        expect_eq(name, text(&letter, name), expected)?;
    }
    expect(!text(&letter, "enoki-host").is_empty(), "the name of the host")?;
    let attempts = letter.message().headers.get("enoki-attempts").and_then(Value::as_int);
    expect_eq("enoki-attempts", attempts, Some(4))?;
    let (first, last) = (time(&letter, "enoki-first-failure"), time(&letter, "enoki-last-failure"));
    expect(last >= Some(began), format_args!("a last failure since {began:?}, not {last:?}"))?;
    match delayed_by {
        DelayedBy::WaitQueues => {
            expect(
                Some(began) <= first && first <= last,
                format_args!("a first failure: {first:?}"),
            )?;
        }
        _ => expect_eq("the first failure, which is not known", first, None)?,
    }
    letter.settle(Outcome::Ack);
    letters.stop(soon()).await?;
    running.stop(soon()).await?;
    expect(sees.try_recv().is_err(), "no more attempts")?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_message_that_succeeds_at_last_leaves_nothing_behind(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = retried(stage)?;
    let (handler, mut sees) = failing(|_, attempt| attempt < 4);
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.concurrency(2).on_error(policy()))
        .start()
        .await?;
    fill(&broker, &queue, 0..10).await?;
    let mut attempts = [0; 10];
    for _ in 0..40 {
        let seen = heard(&mut sees).await?;
        let number = usize::try_from(seen.number)?;
        let attempt = attempts.get_mut(number).ok_or_else(|| Failed::new("another number"))?;
        *attempt += 1;
        expect_eq("the attempt", seen.attempt.number, *attempt)?;
    }
    running.stop(soon()).await?;
    for queue in [&queue, &dead] {
        expect_eq("what is left", contents(&broker, queue).await?, [0_u32; 0])?;
    }
    Ok(())
}

async fn a_retry_is_the_message_it_was(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = retried(stage)?;
    let shop = stage.exchange("shop", ExchangeKind::Topic)?;
    declare(&broker, &[&shop], &[&queue], &[bind(&shop, &queue, "order.#")?]).await?;
    let (handler, mut sees) = failing(|_, _| true);
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.on_error(policy().attempts(2)))
        .start()
        .await?;
    let orders = broker.publisher(RouteSpec::<u32>::new(&shop, "order.placed")?).await?;
    let published = orders
        .message(&7)?
        .header("region", "eu")?
        .header("count", 3)?
        .header("x-own", true)?
        .message_id("order-7")?
        .correlation_id("basket-3")?
        .reply_to("answers")?
        .kind("order")?
        .app_id("shop")?
        .priority(3)
        .expiration(Duration::from_secs(3600))
        .timestamp(Timestamp::from_unix_seconds(1_700_000_000));
    published.publish().await?;
    let first = heard(&mut sees).await?.envelope;
    let second = heard(&mut sees).await?.envelope;
    expect_eq("the properties", &second.message.properties, &first.message.properties)?;
    expect_eq("the headers", &second.message.headers, &first.message.headers)?;
    expect_eq("the body", &second.message.body, &first.message.body)?;
    expect_eq("the exchange", second.exchange.as_str(), shop.name.as_str())?;
    expect_eq("the routing key", second.routing_key.as_str(), "order.placed")?;

    let mut letters = subscribe(&broker, &dead, 1).await?;
    let letter = next(&mut letters).await?;
    // A dead letter is kept.
    let mut properties = first.message.properties.clone();
    properties.expiration = None;
    expect_eq("the properties of the dead letter", &letter.message().properties, &properties)?;
    expect_eq("its exchange", text(&letter, "enoki-exchange"), shop.name.as_str())?;
    expect_eq("its routing key", text(&letter, "enoki-routing-key"), "order.placed")?;
    expect_eq("its region", text(&letter, "region"), "eu")?;
    letter.settle(Outcome::Ack);
    Ok(running.stop(soon()).await?)
}

async fn a_dead_letter_goes_where_those_of_its_queue_go(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    for (key, at) in [(None, "own-key"), (Some("lost"), "another-key")] {
        let lost = stage.exchange(&format!("lost-{at}"), ExchangeKind::Topic)?;
        let graves = stage.queue(&format!("graves-{at}"))?;
        let mut queue = stage.queue(at)?;
        let target = dead_letter_to(&graves).map(|mut target| {
            target.exchange = lost.name.clone();
            target.routing_key = key.map(enoki_core::ShortStr::from_static);
            target
        });
        queue.dead_letter = target;
        let expected = key.unwrap_or(queue.name.as_str());
        declare(&broker, &[&lost], &[&graves, &queue], &[bind(&lost, &graves, expected)?]).await?;
        let (handler, _sees) = failing(|_, _| true);
        let running = Service::new("conformance", broker.clone())
            .consume(&queue.clone().of::<u32>(), handler.on_error(policy().attempts(1)))
            .start()
            .await?;
        fill(&broker, &queue, [7]).await?;
        let mut letters = subscribe(&broker, &graves, 1).await?;
        let letter = next(&mut letters).await?;
        expect_eq("its error", text(&letter, "enoki-error"), "attempt 1 failed")?;
        expect_eq("its routing key", letter.envelope().routing_key.as_str(), expected)?;
        letter.settle(Outcome::Ack);
        running.stop(soon()).await?;
    }
    Ok(())
}

async fn a_panic_is_tried_again_and_named(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = retried(stage)?;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let attempts = attempts.clone();
        move |Body(number): Body<u32>, attempt: Attempt| {
            attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt.number);
            async move { assert_ne!(number, 7, "the case says so") }
        }
    };
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.on_error(policy().attempts(3)))
        .start()
        .await?;
    fill(&broker, &queue, [7]).await?;
    let mut letters = subscribe(&broker, &dead, 1).await?;
    let letter = next(&mut letters).await?;
    expect_eq("its kind", text(&letter, "enoki-error-kind"), "panic")?;
    expect_eq("its error", text(&letter, "enoki-error"), "the handler panicked")?;
    letter.settle(Outcome::Ack);
    running.stop(soon()).await?;
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    expect_eq("the attempts", attempts, [1, 2, 3])
}

/// Any publisher can write the header that counts. It makes the message a dead letter sooner, and only after
/// its handler has failed.
async fn a_forged_attempt_loses_no_message(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = retried(stage)?;
    let (handler, mut sees) = failing(|number, _| number >= 10);
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.concurrency(1).on_error(policy()))
        .start()
        .await?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let forged = [
        Value::from(4),
        Value::from(u32::MAX),
        Value::from(i64::MAX),
        Value::from(i64::MIN),
        Value::from("4"),
        Value::Null,
    ];
    // Each once for a handler that succeeds, and once for one that fails.
    for number in [0, 10] {
        for (value, number) in forged.iter().zip(number..) {
            publisher.message(&number)?.header("enoki-attempt", value.clone())?.publish().await?;
        }
    }
    let mut letters = subscribe(&broker, &dead, 1).await?;
    let mut dead_numbers = Vec::new();
    for _ in 0..forged.len() {
        let letter = next(&mut letters).await?;
        dead_numbers.push(number(&letter)?);
        letter.settle(Outcome::Ack);
    }
    dead_numbers.sort_unstable();
    expect_eq("the dead letters", dead_numbers, [10, 11, 12, 13, 14, 15])?;
    running.stop(soon()).await?;
    let mut handled = Vec::new();
    while let Ok(seen) = sees.try_recv() {
        handled.push(seen.number);
    }
    expect(handled.len() <= 6 + 6 * 4, "no more attempts than the policy has")?;
    handled.sort_unstable();
    handled.dedup();
    let expected: Vec<u32> = (0..6).chain(10..16).collect();
    expect_eq("what was handled", handled, expected)?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn an_outcome_of_a_failure_is_not_tried_again(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (mut queue, _) = retried(stage)?;
    let lost = stage.queue("lost")?;
    queue.dead_letter = dead_letter_to(&lost);
    declare(&broker, &[], &[&lost, &queue], &[]).await?;
    let handler =
        |_: Body<u32>| async { Err::<(), _>(Failure::new("never again").outcome(Outcome::Reject)) };
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.on_error(policy()))
        .start()
        .await?;
    fill(&broker, &queue, [7]).await?;
    let mut letters = subscribe(&broker, &lost, 1).await?;
    let letter = next(&mut letters).await?;
    // The broker made it one.
    expect_eq("its reason", text(&letter, "x-first-death-reason"), "rejected")?;
    expect(!letter.message().headers.contains("enoki-error"), "no error of a retry")?;
    letter.settle(Outcome::Ack);
    Ok(running.stop(soon()).await?)
}

async fn a_message_that_always_fails_delays_no_other(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, _) = retried(stage)?;
    let (handler, mut sees) = failing(|number, _| number == 0);
    let slow = OnError::retry().attempts(3).first(Duration::from_secs(60));
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler.concurrency(1).on_error(slow))
        .start()
        .await?;
    fill(&broker, &queue, 0..=200).await?;
    // With one worker and a prefetch of one, whatever waited here would hold up the others.
    for number in 0..=200 {
        let seen = heard(&mut sees).await?;
        expect_eq("the message", (seen.number, seen.attempt.number), (number, 1))?;
    }
    Ok(running.stop(soon()).await?)
}

async fn a_policy_without_attempts_does_not_start(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, _) = retried(stage)?;
    let handler = |_: Body<u32>| async {};
    let started = Service::new("conformance", broker)
        .consume(&queue.of::<u32>(), handler.on_error(OnError::retry().attempts(0)))
        .start()
        .await;
    expect_error("starting", started.map(drop), &[ErrorKind::Configuration]).map(drop)
}
