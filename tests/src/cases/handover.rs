//! A queue with a single active consumer, handed over: its order holds, however that one ends.

use std::sync::{Arc, Mutex, PoisonError};

use enoki_core::{
    Body, Broker, Handler, Outcome, QueueKind, QueueSpec, RunningService, Service, Settled,
};
use tokio::sync::Semaphore;

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq},
    stage::Stage,
    steps::{contents, fill, next, soon, subscribe, until},
};

cases! { "handover":
    an_active_consumer_that_stops_hands_over_in_order [SingleActiveConsumer],
    an_active_consumer_that_is_killed_hands_over_in_order [SingleActiveConsumer],
    an_active_consumer_that_is_dropped_hands_over_in_order [SingleActiveConsumer],
    an_active_consumer_that_loses_its_connection_hands_over_in_order [SingleActiveConsumer],
    a_replicated_queue_hands_over_in_order_when_its_consumer_stops
        [SingleActiveConsumer, ReplicatedQueues],
    a_replicated_queue_hands_over_in_order_when_its_consumer_is_killed
        [SingleActiveConsumer, ReplicatedQueues],
    a_replicated_queue_hands_over_in_order_when_its_consumer_is_dropped
        [SingleActiveConsumer, ReplicatedQueues],
    a_replicated_queue_hands_over_in_order_when_its_consumer_loses_its_connection
        [SingleActiveConsumer, ReplicatedQueues],
    an_active_consumer_that_stops_settles_what_runs [SingleActiveConsumer],
}

async fn an_active_consumer_that_stops_hands_over_in_order(stage: &Stage) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Classic, Ending::Stop).await
}

async fn an_active_consumer_that_is_killed_hands_over_in_order(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Classic, Ending::Kill).await
}

async fn an_active_consumer_that_is_dropped_hands_over_in_order(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Classic, Ending::Drop).await
}

async fn an_active_consumer_that_loses_its_connection_hands_over_in_order(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Classic, Ending::Loss).await
}

async fn a_replicated_queue_hands_over_in_order_when_its_consumer_stops(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Replicated, Ending::Stop).await
}

async fn a_replicated_queue_hands_over_in_order_when_its_consumer_is_killed(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Replicated, Ending::Kill).await
}

async fn a_replicated_queue_hands_over_in_order_when_its_consumer_is_dropped(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Replicated, Ending::Drop).await
}

async fn a_replicated_queue_hands_over_in_order_when_its_consumer_loses_its_connection(
    stage: &Stage,
) -> Result<(), Failed> {
    hands_over(stage, QueueKind::Replicated, Ending::Loss).await
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Stop,
    Kill,
    Drop,
    Loss,
}

/// How many messages there are, and how many of them the first consumer has at a time.
const COUNT: u32 = 12;
const PREFETCH: u16 = 5;

/// The first consumer handles two messages, and ends with a prefetch full of what it has not begun;
/// the second, which stands by, gets the rest.
async fn hands_over(stage: &Stage, kind: QueueKind, ending: Ending) -> Result<(), Failed> {
    let (first, cut) = stage.severable_broker().await?;
    let second = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.kind = kind;
    queue.single_active_consumer = true;
    fill(&second, &queue, 1..=COUNT).await?;
    let (running, one) = Worker::start(&first, &queue, 1).await?;
    one.begins(1).await?;
    let (standing_by, other) = Worker::start(&second, &queue, COUNT as usize).await?;
    // One more may begin, so one has been settled and its place was filled.
    one.gate.add_permits(1);
    one.begins(2).await?;
    match ending {
        Ending::Stop => {
            let stopping = tokio::spawn(running.stop(soon()));
            // The handler that runs may end now, so that stopping need not wait until the deadline.
            one.gate.add_permits(usize::from(PREFETCH));
            stopping.await??;
        }
        Ending::Kill => running.kill().await,
        Ending::Drop => drop(running),
        Ending::Loss => cut.sever().await,
    }
    other.begins(COUNT).await?;
    let (begun, rest) = (one.begun(), other.begun());
    let from = rest.first().copied().unwrap_or_default();
    let first = (1..=begun.len() as u32).collect::<Vec<_>>();
    expect_eq("what the first consumer began", &begun, &first)?;
    expect_eq("what the second got", rest, (from..=COUNT).collect::<Vec<_>>())?;
    match ending {
        Ending::Stop => expect_eq("what it got first", from, begun.len() as u32 + 1)?,
        // The acknowledgement of the first message may have been lost on its way.
        Ending::Kill | Ending::Drop | Ending::Loss => {
            expect(from == 1 || from == 2, format_args!("to get 1 or 2 first, and not {from}"))?;
        }
    }
    standing_by.stop(soon()).await?;
    Ok(())
}

/// Handles one message at a time, while its gate lets it.
struct Worker {
    gate: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<u32>>>,
}

impl Worker {
    async fn start(
        broker: &Broker,
        queue: &QueueSpec,
        permits: usize,
    ) -> Result<(RunningService, Self), Failed> {
        let (gate, seen) =
            (Arc::new(Semaphore::new(permits - 1)), Arc::<Mutex<Vec<u32>>>::default());
        let handler = {
            let (gate, seen) = (gate.clone(), seen.clone());
            move |Body(number): Body<u32>| {
                let (gate, seen) = (gate.clone(), seen.clone());
                async move {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                    if let Ok(permit) = gate.acquire().await {
                        permit.forget();
                    }
                }
            }
        };
        let service = Service::new("conformance", broker.clone())
            .consume(&queue.clone().of::<u32>(), handler.concurrency(1).prefetch(PREFETCH))
            .start()
            .await?;
        Ok((service, Self { gate, seen }))
    }

    /// Waits until it has begun on this message.
    async fn begins(&self, number: u32) -> Result<(), Failed> {
        until("a message has come to its handler", async || Ok(self.begun().contains(&number)))
            .await
    }

    fn begun(&self) -> Vec<u32> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a handler still decides counts, whatever it decides: one acknowledged is gone, one requeued
/// comes back at its place.
async fn an_active_consumer_that_stops_settles_what_runs(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let mut queue = stage.queue("q")?;
    queue.single_active_consumer = true;
    fill(&broker, &queue, 1..=6).await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let (one, two) = (next(&mut subscription).await?, next(&mut subscription).await?);
    let three = next(&mut subscription).await?;
    let stopping = tokio::spawn(async move { subscription.stop(soon()).await });
    expect_eq("settling", one.settle(Outcome::Requeue), Settled::Queued)?;
    expect_eq("settling", two.settle(Outcome::Ack), Settled::Queued)?;
    drop(three);
    stopping.await??;
    expect_eq("what is left", contents(&other, &queue).await?, [1, 3, 4, 5, 6])
}
