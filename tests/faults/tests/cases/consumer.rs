//! Consumers and what can go wrong under them.

use std::time::Duration;

use enoki::{
    Body, ErrorKind, Outcome, Service,
    broker::Health,
    consume::{Handler, Settled},
    publish::PublisherOptions,
    topology::{QueueSpec, RouteSpec, Topology},
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use enoki_faults::proxy::{Act, Cut, Direction, Kind};
use tokio::time::timeout;

use crate::{
    child,
    stage::{Checked, Stage, expect},
    steps::{CALM, PATIENCE, Pair, expect_stored, next, publisher, soon, until_idle},
};

async fn settled_on_the_next_connection(stage: Stage, outcome: Outcome) -> Checked {
    let mut pair = Pair::open(&stage, CALM).await?;
    pair.publisher.publish(&1).await?;
    let held = next(&mut pair.deliveries).await?;
    expect(!held.redelivered(), "the first delivery says that it is not the first")?;
    let subscribed = pair.deliveries.health().borrow().subscribed;
    stage.proxy.cut(Cut::Reset);
    pair.until_subscribed(subscribed + 1).await?;
    // The handler knows nothing of all this.
    expect(held.settle(outcome) == Settled::Stale, "a settlement of the old connection was sent")?;
    let again = loop {
        let again = next(&mut pair.deliveries).await?;
        match again.decode()? {
            // Its acknowledgement was on its way when the connection broke.
            0_u32 => again.settle(Outcome::Ack),
            1 => break again,
            other => return Err(format!("{other} came instead").into()),
        };
    };
    expect(again.redelivered(), "it does not say that it came before")?;
    again.settle(Outcome::Ack);
    let stale = pair.deliveries.health().borrow().stale;
    expect(stale == 1, format!("{stale} stale settlements were counted"))?;
    pair.round(2).await?;
    pair.deliveries.stop(soon()).await?;
    until_idle(&pair.broker, &pair.queue).await
}

pub(crate) async fn k01_an_acknowledgement_after_the_connection_broke_is_stale(
    stage: Stage,
) -> Checked {
    settled_on_the_next_connection(stage, Outcome::Ack).await
}

pub(crate) async fn k02_a_requeue_after_the_connection_broke_is_stale(stage: Stage) -> Checked {
    settled_on_the_next_connection(stage, Outcome::Requeue).await
}

pub(crate) async fn k03_a_lost_acknowledgement_is_a_redelivery(stage: Stage) -> Checked {
    let mut pair = Pair::open(&stage, CALM).await?;
    pair.publisher.publish(&1).await?;
    let first = next(&mut pair.deliveries).await?;
    let lost = stage.proxy.arm(Direction::ToBroker, Kind::Settlement, 1, Act::Cut(Cut::Reset));
    first.settle(Outcome::Ack);
    expect(lost.fired().await, "the acknowledgement was never sent")?;
    let again = next(&mut pair.deliveries).await?;
    let number: u32 = again.decode()?;
    expect(number == 1, format!("{number} came instead"))?;
    expect(again.redelivered(), "it does not say that it came before")?;
    again.settle(Outcome::Ack);
    pair.round(2).await?;
    pair.deliveries.stop(soon()).await?;
    until_idle(&pair.broker, &pair.queue).await
}

pub(crate) async fn k04_a_process_that_dies_before_it_acknowledges_loses_nothing(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("k04")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    publisher.publish(&2).await?;
    let said = child::die_holding_one(stage.direct_url(), &queue.name).await?;
    expect(said == "1", format!("the other process handled {said:?}"))?;
    let mut deliveries = broker.subscribe(&queue.clone().of::<u32>(), 10).await?;
    let again = next(&mut deliveries).await?;
    let number: u32 = again.decode()?;
    expect(number == 1, format!("{number} came instead"))?;
    expect(again.redelivered(), "it does not say that it came before")?;
    again.settle(Outcome::Ack);
    let other = next(&mut deliveries).await?;
    let number: u32 = other.decode()?;
    expect(number == 2, format!("{number} came instead"))?;
    other.settle(Outcome::Ack);
    deliveries.stop(soon()).await?;
    until_idle(&broker, &queue).await
}

pub(crate) async fn k09_a_queue_that_is_missing_at_the_start_fails_it_by_name(
    stage: Stage,
) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("k09")?;
    let mut found = QueueSpec::new(queue.name.as_str())?;
    found.passive = true;
    let found = found.of::<u32>();
    let service =
        || Service::new("faults", broker.clone()).consume(&found, |_: Body<u32>| async {});
    let error = timeout(PATIENCE, service().start()).await?.err().ok_or("it started")?;
    expect(error.kind() == ErrorKind::NotFound, format!("{error:?}"))?;
    expect(error.to_string().contains(queue.name.as_str()), format!("it names no queue: {error}"))?;
    // Who wants to wait for it starts again; the handle is as good as new.
    broker.declare(&Topology::new().with_queue(&queue.of::<u32>())).await?;
    let running = timeout(PATIENCE, service().start()).await??;
    running.stop(soon()).await?;
    Ok(())
}

pub(crate) async fn k11_an_exclusive_queue_of_a_dead_connection_is_waited_for(
    stage: Stage,
) -> Checked {
    let broker = stage.broker_beating(4).await?;
    let mut queue = stage.queue("k11")?;
    queue.exclusive = true;
    queue.expires = None;
    let queue = queue.of::<u32>();
    let mut deliveries = broker.subscribe(&queue, 1).await?;
    let other = stage.broker().await?;
    let route = enoki::topology::RouteSpec::<u32>::to_queue(broker.queue_name(&queue)?.as_str())?;
    let publisher = other.publisher_with(route, PublisherOptions::new().optional()).await?;
    // From here on the broker hears nothing from the consumer's connection, not even its end.
    let deaf = stage.proxy.arm(Direction::ToBroker, Kind::Settlement, 1, Act::Hold);
    publisher.publish(&1).await?;
    next(&mut deliveries).await?.settle(Outcome::Ack);
    expect(deaf.fired().await, "the settlement was never sent")?;
    let mut health = deliveries.health();
    stage.proxy.cut(Cut::Half(Direction::FromBroker));
    let locked = health.wait_for(|health| match &health.health {
        Health::Reconnecting { reason } => reason.kind() == ErrorKind::Conflict,
        _ => false,
    });
    timeout(PATIENCE, locked).await.map_err(|_| "the queue was never found locked")??;
    if !stage.is_amqp091() {
        // Here the broker would wait for as long as it was configured to.
        stage.proxy.cut(Cut::Reset);
    }
    let again = health.wait_for(|health| health.subscribed >= 2 && health.health.is_ready());
    timeout(PATIENCE, again).await.map_err(|_| "it does not consume again")??;
    publisher.publish(&2).await?;
    let delivery = next(&mut deliveries).await?;
    let number: u32 = delivery.decode()?;
    expect(number == 2, format!("{number} came instead"))?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

pub(crate) async fn k20_a_slow_consumer_holds_its_prefetch_and_its_connection(
    stage: Stage,
) -> Checked {
    const BACKLOG: u32 = 2000;
    const PREFETCH: u16 = 50;
    let broker = stage.broker_beating(4).await?;
    let queue = stage.queue("k20")?;
    let mine = queue.clone().of::<u32>();
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    for outcome in publisher.publish_all(&(0..BACKLOG).collect::<Vec<_>>()).await {
        outcome?;
    }
    let mut deliveries = broker.subscribe(&mine, PREFETCH).await?;
    let held = next(&mut deliveries).await?;
    let before = stage.proxy.traffic();
    // A client of AMQP 1.0 sends them as seldom as its broker lets it.
    let direction = if stage.is_amqp091() { Direction::ToBroker } else { Direction::FromBroker };
    let beats = |traffic: &enoki_faults::proxy::Traffic| {
        traffic.frames(direction, Kind::Heartbeat) - before.frames(direction, Kind::Heartbeat)
    };
    // Two connections; long enough to miss them if they were not there.
    timeout(PATIENCE, stage.proxy.until(|traffic| beats(traffic) >= 8)).await?;
    let ready = broker.queue_status(&mine).await?.messages;
    let expected = u64::from(BACKLOG) - u64::from(PREFETCH);
    expect(ready == expected, format!("{ready} are ready of {BACKLOG}"))?;
    held.settle(Outcome::Ack);
    for number in 1..BACKLOG {
        let delivery = next(&mut deliveries).await?;
        let came: u32 = delivery.decode()?;
        expect(came == number, format!("{came} came instead of {number}"))?;
        delivery.settle(Outcome::Ack);
    }
    let accepted = stage.proxy.traffic().accepted;
    expect(accepted == before.accepted, "a connection was lost meanwhile")?;
    deliveries.stop(soon()).await?;
    until_idle(&broker, &queue).await
}

pub(crate) async fn k20_a_slow_consumer_of_a_long_queue_stays_small(stage: Stage) -> Checked {
    // 64 MB, of which the prefetch is one and a half.
    const BACKLOG: usize = 4000;
    const BODY: usize = 16 * 1024;
    // Kilobytes.
    const MOST: u64 = 16 * 1024;
    let broker = stage.past_the_proxy().await?;
    let spec = stage.queue("k20")?;
    let name = spec.name.clone();
    let queue = spec.of::<String>();
    broker.declare(&Topology::new().with_queue(&queue)).await?;
    let publisher = broker.publisher(RouteSpec::to_queue(name.as_str())?).await?;
    let bodies = vec!["x".repeat(BODY); 100];
    for _ in 0..BACKLOG / bodies.len() {
        for outcome in publisher.publish_all(&bodies).await {
            outcome?;
        }
    }
    let grew = child::growth_when_taking_slowly(stage.direct_url(), &name).await;
    let left = broker.queue_status(&queue).await?.messages;
    // Before anything is said of it: it is large.
    broker.apply(&Change::DeleteQueue(name)).await?;
    let grew = grew?;
    expect(grew < MOST, format!("it grew by {grew} kB, where {MOST} are the most"))?;
    expect(left > BACKLOG as u64 / 2, format!("only {left} of {BACKLOG} were left"))
}

pub(crate) async fn k21_a_handler_that_blocks_its_thread_keeps_its_connection(
    stage: Stage,
) -> Checked {
    const HEARTBEAT: u16 = 4;
    // Past the proxy, which would share the runtime, and its threads, with the handler.
    let url = format!("{}?heartbeat={HEARTBEAT}", stage.direct_url());
    let broker = connect_patiently(url).await?;
    let queue = stage.queue("k21")?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    let (tell, mut told) = tokio::sync::mpsc::channel(10);
    let handler = move |Body(number): Body<u32>| {
        let tell = tell.clone();
        async move {
            if number == 1 {
                std::thread::sleep(3 * Duration::from_secs(u64::from(HEARTBEAT)));
            }
            let _ = tell.send(number).await;
        }
    };
    let handler = handler.concurrency(1);
    let running = Service::new("faults", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler)
        .start()
        .await?;
    for number in 1..4 {
        publisher.publish(&number).await?;
    }
    let mut handled = Vec::new();
    while !handled.contains(&3) {
        handled.push(timeout(PATIENCE, told.recv()).await?.ok_or("the handlers are gone")?);
    }
    expect(handled == [1, 2, 3], format!("{handled:?} were handled"))?;
    for (_, health) in running.health().consumers() {
        let health = health.borrow().clone();
        expect(health.subscribed == 1, format!("it consumes for the {}. time", health.subscribed))?;
    }
    running.stop(soon()).await?;
    until_idle(&broker, &queue).await
}

pub(crate) async fn k07_a_handler_that_never_returns_gives_its_message_back(
    stage: Stage,
) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("k07")?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    let (tell, mut told) = tokio::sync::mpsc::channel(10);
    let handler = move |_: Body<u32>| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(()).await;
            std::future::pending::<()>().await;
        }
    };
    let running = Service::new("faults", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler)
        .start()
        .await?;
    publisher.publish(&1).await?;
    timeout(PATIENCE, told.recv()).await?.ok_or("the handler is gone")?;
    let within = Duration::from_millis(500);
    let began = std::time::Instant::now();
    let stopped = running.stop(within).await;
    let took = began.elapsed();
    let error = stopped.err().ok_or("it stopped as if all were well")?;
    expect(error.kind() == ErrorKind::Timeout, format!("{error:?}"))?;
    expect(took < within + crate::steps::SLACK, format!("stopping took {took:?}"))?;
    expect_stored(&stage, &queue, 1).await.map(drop)
}
