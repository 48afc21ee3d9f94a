//! Stopping: running handlers finish, deliveries that no handler has begun on go back, and all of it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use enoki_core::{
    Body, Broker, Capability, ErrorKind, Failure, Handler, Outcome, Publisher, QueueKind,
    QueueSpec, RunningService, Service, State, transport::Change,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error},
    stage::Stage,
    steps::{
        EARLY, PATIENCE, contents, fill, hold, next, number, ready, soon, sorted_contents,
        subscribe, take, to_queue, until,
    },
};

cases! { "shutdown":
    stopping_waits_for_running_handlers,
    stopping_gives_back_what_no_handler_has_started_on,
    stopping_does_not_count_what_no_handler_has_started_on [UncountedRelease, DeliveryCount],
    stopping_ends_at_the_deadline,
    stopping_lets_a_handler_publish,
    killing_gives_everything_back,
    dropping_a_service_kills_it,
    stopping_a_subscription_waits_for_what_is_held,
    closing_waits_for_confirms,
    closing_an_idle_handle_is_quick,
    stopping_a_service_leaves_other_handles,
    a_subscription_that_ends_as_its_queue_goes_disturbs_no_other,
    a_subscription_that_ends_as_its_replicated_queue_goes_disturbs_no_other [ReplicatedQueues] within 60,
}

/// A service whose handlers wait at a gate.
struct Gated {
    running: RunningService,
    gate: Arc<Semaphore>,
    started: Arc<AtomicUsize>,
    finished: Arc<AtomicUsize>,
}

async fn gated(
    broker: &Broker,
    queue: &QueueSpec,
    concurrency: u16,
    prefetch: u16,
) -> Result<Gated, Failed> {
    let gate = Arc::new(Semaphore::new(0));
    let (started, finished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (gate, started, finished) = (gate.clone(), started.clone(), finished.clone());
        move |_: Body<u32>| {
            let (gate, started, finished) = (gate.clone(), started.clone(), finished.clone());
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                let _permit = gate.acquire().await;
                finished.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let handler = handler.concurrency(concurrency).prefetch(prefetch);
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&queue.clone().of::<u32>(), handler).start().await?;
    Ok(Gated { running, gate, started, finished })
}

impl Gated {
    async fn busy(&self, handlers: usize) -> Result<(), Failed> {
        until("the handlers are busy", async || Ok(self.started.load(Ordering::SeqCst) == handlers))
            .await
    }
}

async fn stopping_waits_for_running_handlers(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..5).await?;
    let service = gated(&broker, &queue, 5, 5).await?;
    service.busy(5).await?;
    let mut stopping = tokio::spawn(service.running.stop(soon()));
    // It waits: the gate is shut, so it could not have ended by itself.
    let early = timeout(Duration::from_millis(50), &mut stopping).await;
    expect(early.is_err(), "that it waits for the handlers")?;
    service.gate.add_permits(100);
    timeout(PATIENCE, stopping).await???;
    expect_eq("handlers that started", service.started.load(Ordering::SeqCst), 5)?;
    expect_eq("handlers that finished", service.finished.load(Ordering::SeqCst), 5)?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn stopping_gives_back_what_no_handler_has_started_on(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    stop_with_a_full_buffer(&broker, &queue).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, (5..30).collect::<Vec<_>>())
}

async fn stopping_does_not_count_what_no_handler_has_started_on(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    stop_with_a_full_buffer(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 25).await?;
    for delivery in hold(&mut subscription, 25).await? {
        expect_eq("the attempt", delivery.attempt().number, 1)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

/// Of 30 messages 5 are being handled, 15 wait in the buffer, and 10 in the queue; then it stops.
async fn stop_with_a_full_buffer(broker: &Broker, queue: &QueueSpec) -> Result<(), Failed> {
    fill(broker, queue, 0..30).await?;
    let service = gated(broker, queue, 5, 20).await?;
    service.busy(5).await?;
    until("the buffer is full", async || Ok(ready(broker, queue).await? == 10)).await?;
    let stopping = tokio::spawn(service.running.stop(soon()));
    until("the buffer is given back", async || Ok(ready(broker, queue).await? == 25)).await?;
    service.gate.add_permits(100);
    timeout(PATIENCE, stopping).await???;
    expect_eq("handlers that started", service.started.load(Ordering::SeqCst), 5)?;
    expect_eq("handlers that finished", service.finished.load(Ordering::SeqCst), 5)
}

async fn stopping_ends_at_the_deadline(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let service = gated(&broker, &queue, 1, 2).await?;
    service.busy(1).await?;
    let started = Instant::now();
    let stopped = service.running.stop(Duration::from_millis(200)).await;
    expect(started.elapsed() < EARLY, "an end soon after the deadline")?;
    expect_error("stop", stopped, &[ErrorKind::Timeout])?;
    let found = sorted_contents(&broker, &queue).await?;
    expect_eq("what the next one gets", found, [1, 2])?;
    expect_eq("handlers that finished", service.finished.load(Ordering::SeqCst), 0)
}

async fn stopping_lets_a_handler_publish(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (orders, receipts) = (stage.queue("orders")?, stage.queue("receipts")?);
    fill(&broker, &orders, [1]).await?;
    let publisher = to_queue::<u32>(&broker, &receipts).await?;
    let (began, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (began, gate) = (began.clone(), gate.clone());
        move |State(publisher): State<Publisher<u32>>, Body(order): Body<u32>| {
            let (began, gate) = (began.clone(), gate.clone());
            async move {
                began.notify_one();
                gate.notified().await;
                publisher.publish(&order).await?;
                Ok::<_, Failure>(())
            }
        }
    };
    let running = Service::new("conformance", broker.clone())
        .state(publisher)
        .consume(&orders.clone().of::<u32>(), handler)
        .start()
        .await?;
    timeout(PATIENCE, began.notified()).await?;
    let mut stopping = tokio::spawn(running.stop(soon()));
    let early = timeout(Duration::from_millis(50), &mut stopping).await;
    expect(early.is_err(), "that it waits for the handler")?;
    gate.notify_one();
    timeout(PATIENCE, stopping).await???;
    expect_eq("the receipts", contents(&broker, &receipts).await?, [1])?;
    expect_eq("what is left", contents(&broker, &orders).await?, [0_u32; 0])
}

async fn killing_gives_everything_back(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..10).await?;
    let service = gated(&broker, &queue, 2, 5).await?;
    service.busy(2).await?;
    let started = Instant::now();
    service.running.kill().await;
    expect(started.elapsed() < EARLY, "that it waits for nothing")?;
    everything_comes_back(&broker, &queue).await?;
    expect_eq("handlers that finished", service.finished.load(Ordering::SeqCst), 0)
}

async fn dropping_a_service_kills_it(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..10).await?;
    let service = gated(&broker, &queue, 2, 5).await?;
    service.busy(2).await?;
    drop(service.running);
    everything_comes_back(&broker, &queue).await?;
    expect_eq("handlers that finished", service.finished.load(Ordering::SeqCst), 0)
}

/// The ten messages, some of which may be on their way back.
async fn everything_comes_back(broker: &Broker, queue: &QueueSpec) -> Result<(), Failed> {
    let mut subscription = subscribe(broker, queue, 10).await?;
    let mut found = crate::steps::take(&mut subscription, 10).await?;
    subscription.stop(soon()).await?;
    found.sort_unstable();
    expect_eq("what the next one gets", found, (0..10).collect::<Vec<_>>())?;
    expect_eq("what is left", contents(broker, queue).await?, [0_u32; 0])
}

async fn stopping_a_subscription_waits_for_what_is_held(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..6).await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let held = hold(&mut subscription, 2).await?;
    let settling = async {
        until("the others are given back", async || Ok(ready(&broker, &queue).await? == 4)).await?;
        for delivery in held {
            delivery.settle(Outcome::Ack);
        }
        Ok::<_, Failed>(())
    };
    let (stopped, settled) = tokio::join!(subscription.stop(soon()), settling);
    settled?;
    stopped?;
    expect_eq("what is left", contents(&broker, &queue).await?, [2, 3, 4, 5])?;
    // And one that is never settled is waited for until the deadline, and no longer.
    fill(&broker, &queue, [7]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let held = next(&mut subscription).await?;
    let started = Instant::now();
    let _ = subscription.stop(Duration::from_millis(200)).await;
    expect(started.elapsed() < EARLY, "an end soon after the deadline")?;
    expect_eq("what was held", number(&held)?, 7)?;
    expect_eq("what the next one gets", contents(&broker, &queue).await?, [7])
}

async fn closing_waits_for_confirms(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut confirms = Vec::new();
    for number in 0..200 {
        confirms.push(publisher.enqueue(&number).await?);
    }
    broker.close(soon()).await;
    for outcome in futures_util::future::join_all(confirms).await {
        outcome?;
    }
    let found = contents(&other, &queue).await?;
    expect_eq("what the queue holds", found, (0..200).collect::<Vec<_>>())
}

async fn closing_an_idle_handle_is_quick(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let _publisher = to_queue::<u32>(&broker, &queue).await?;
    let _subscription = subscribe(&broker, &queue, 10).await?;
    let started = Instant::now();
    broker.close(soon()).await;
    expect(started.elapsed() < EARLY, "that it does not wait for the deadline")
}

async fn stopping_a_service_leaves_other_handles(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let service = gated(&broker, &queue, 1, 1).await?;
    service.gate.add_permits(100);
    publisher.publish(&1).await?;
    service.busy(1).await?;
    service.running.stop(soon()).await?;
    publisher.publish(&2).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [2])?;
    if stage.can(Capability::ExclusiveQueues) {
        // The connection that consumes is still the same one.
        broker.require([Capability::ExclusiveQueues])?;
    }
    Ok(())
}

async fn a_subscription_that_ends_as_its_queue_goes_disturbs_no_other(
    stage: &Stage,
) -> Result<(), Failed> {
    ends_as_its_queue_goes(stage, QueueKind::Classic).await
}

async fn a_subscription_that_ends_as_its_replicated_queue_goes_disturbs_no_other(
    stage: &Stage,
) -> Result<(), Failed> {
    ends_as_its_queue_goes(stage, QueueKind::Replicated).await
}

/// What the broker says of a queue that goes crosses what this side says of its consumer; and the
/// connection is also its neighbour's.
async fn ends_as_its_queue_goes(stage: &Stage, kind: QueueKind) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let quiet = stage.queue("neighbour")?;
    let mut neighbour = subscribe(&broker, &quiet, 10).await?;
    let to_neighbour = to_queue::<u32>(&broker, &quiet).await?;
    let mut queue = stage.queue("q")?;
    queue.kind = kind;
    let delete = Change::DeleteQueue(queue.name.clone());
    // RabbitMQ 4.3 ends the connection itself when a consumer of a replicated queue is cancelled while the
    // queue goes: its channel has no case for that (`rabbit_channel:cancel_consumer`, 4.3.6). Such ends come
    // last, and what they may not do is to keep the neighbour's messages back.
    let (ends, may_break) = match kind {
        QueueKind::Replicated => (0..40, 30..40),
        _ => (0..30, 0..0),
    };
    for round in ends {
        if round == may_break.start {
            expect_eq("how often it subscribed", neighbour.health().borrow().subscribed, 1)?;
        }
        fill(&broker, &queue, [1]).await?;
        let mut subscription = subscribe(&broker, &queue, 1).await?;
        let stops = if may_break.is_empty() { round % 3 == 2 } else { may_break.contains(&round) };
        // One consumer with a delivery, and one without. To stop waits for the one that is held.
        let holds = round % 3 == 1 && !stops;
        let held = if holds { Some(next(&mut subscription).await?) } else { None };
        if stops {
            // That it ends is all that counts: an end on both sides may be an error.
            let (_, deleted) = tokio::join!(subscription.stop(soon()), broker.apply(&delete));
            if may_break.is_empty() {
                deleted?;
            }
        } else {
            drop(subscription);
            broker.apply(&delete).await?;
        }
        drop(held);
        to_neighbour.publish(&round).await?;
        if may_break.contains(&round) {
            // A message that it acknowledged on a connection that broke may come again.
            while take(&mut neighbour, 1).await? != [round] {}
        } else {
            expect_eq("the neighbour's message", take(&mut neighbour, 1).await?, [round])?;
        }
    }
    if may_break.is_empty() {
        expect_eq("how often it subscribed", neighbour.health().borrow().subscribed, 1)?;
    }
    Ok(())
}
