//! Reaching a broker, and letting go of it.

use std::time::Duration;

use enoki_core::{Broker, BrokerOptions, Capability, ErrorKind, Purpose, RouteSpec, Topology};
use tokio::time::Instant;

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    harness::Broken,
    stage::Stage,
    steps::{EARLY, PATIENCE, contents, fill, next, soon, subscribe, to_queue, topology, until},
};

cases! { "connect":
    a_broker_tells_its_name_and_version,
    a_broker_can_what_its_harness_says,
    a_missing_capability_is_refused_at_start,
    a_wrong_password_is_denied broken WrongPassword,
    a_missing_virtual_host_is_refused broken MissingVirtualHost,
    an_unreachable_broker_is_a_transient_failure broken Unreachable,
    a_silent_broker_is_given_up_at_the_deadline broken Silent,
    a_broker_that_refuses_leaves_no_task_behind broken Unreachable,
    a_silent_broker_leaves_no_task_behind broken Silent,
    closing_one_handle_leaves_the_others,
    closing_twice_is_closing_once,
    what_was_closed_says_so,
    a_lost_connection_is_replaced,
    what_was_declared_by_hand_is_back_before_the_next_message [ExclusiveQueues],
}

async fn a_broker_tells_its_name_and_version(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    expect(!broker.peer().product().is_empty(), "a product")?;
    expect(!broker.peer().version().is_empty(), "a version")
}

async fn a_broker_can_what_its_harness_says(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    Ok(broker.require(stage.capabilities())?)
}

async fn a_missing_capability_is_refused_at_start(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    for &capability in Capability::ALL {
        let required = broker.require([capability]);
        if broker.peer().can(capability) {
            required?;
        } else {
            let error = expect_error(capability, required, &[ErrorKind::Unsupported])?;
            expect_says(&error, capability.as_str())?;
        }
    }
    Ok(())
}

async fn a_wrong_password_is_denied(stage: &Stage) -> Result<(), Failed> {
    let connected = Broker::connect(stage.broken(Broken::WrongPassword)?).await;
    let error = expect_error("connect", connected, &[ErrorKind::Denied])?;
    expect(!error.is_transient(), "that trying again with the same password is no use")
}

async fn a_missing_virtual_host_is_refused(stage: &Stage) -> Result<(), Failed> {
    let connected = Broker::connect(stage.broken(Broken::MissingVirtualHost)?).await;
    // Not every broker says why it refuses a virtual host.
    let kinds = [ErrorKind::NotFound, ErrorKind::Denied];
    let error = expect_error("connect", connected, &kinds)?;
    expect_says(&error, Broken::VIRTUAL_HOST)?;
    expect(!error.is_transient(), "that the virtual host will not appear by itself")
}

/// One try, and not as many as there is time for.
fn once() -> BrokerOptions {
    BrokerOptions::new().reach_within(Duration::ZERO)
}

async fn an_unreachable_broker_is_a_transient_failure(stage: &Stage) -> Result<(), Failed> {
    let started = Instant::now();
    let options = once().connect_timeout(PATIENCE);
    let connected = Broker::connect_with(stage.broken(Broken::Unreachable)?, options).await;
    let error = expect_error("connect", connected, &[ErrorKind::Connection])?;
    expect(error.is_transient(), "that it may be reachable later")?;
    expect_says(&error, "tried for")?;
    expect(started.elapsed() < EARLY, "that a refusal is told at once")
}

/// A peer that accepts the connection and says nothing must not hold anybody for ever.
async fn a_silent_broker_is_given_up_at_the_deadline(stage: &Stage) -> Result<(), Failed> {
    let started = Instant::now();
    let options = once().connect_timeout(Duration::from_millis(500));
    let connected = Broker::connect_with(stage.broken(Broken::Silent)?, options).await;
    let kinds = [ErrorKind::Timeout, ErrorKind::Connection];
    let error = expect_error("connect", connected, &kinds)?;
    expect(error.is_transient(), "that it may answer later")?;
    // Without one of its own it would have 10 seconds.
    expect(started.elapsed() < Duration::from_secs(8), "an end soon after the deadline")
}

/// A broker that is away for a day is tried thousands of times.
async fn a_broker_that_refuses_leaves_no_task_behind(stage: &Stage) -> Result<(), Failed> {
    leaves_no_task(stage, Broken::Unreachable, 60, Duration::from_secs(3)).await
}

async fn a_silent_broker_leaves_no_task_behind(stage: &Stage) -> Result<(), Failed> {
    leaves_no_task(stage, Broken::Silent, 10, Duration::from_millis(100)).await
}

async fn leaves_no_task(
    stage: &Stage,
    how: Broken,
    tries: u32,
    within: Duration,
) -> Result<(), Failed> {
    let transport = stage.broken(how)?;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..tries {
        let tried = transport.connect(Purpose::Publish, Instant::now() + within).await;
        expect(tried.is_err(), "that no try succeeds")?;
    }
    until("as many tasks as before the tries", async || Ok(tasks() <= before)).await
}

async fn closing_one_handle_leaves_the_others(stage: &Stage) -> Result<(), Failed> {
    let (one, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("shared")?;
    fill(&one, &queue, [1]).await?;
    let publisher = to_queue::<u32>(&other, &queue).await?;
    let mut subscription = subscribe(&other, &queue, 10).await?;
    next(&mut subscription).await?.settle(enoki_core::Outcome::Ack);
    one.close(soon()).await;
    publisher.publish(&2).await?;
    next(&mut subscription).await?.settle(enoki_core::Outcome::Ack);
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&other, &queue).await?, [0_u32; 0])
}

async fn closing_twice_is_closing_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    fill(&broker, &stage.queue("q")?, [1]).await?;
    let clone = broker.clone();
    let started = Instant::now();
    tokio::join!(broker.close(soon()), clone.close(soon()));
    broker.close(soon()).await;
    expect(started.elapsed() < EARLY, "that nothing waits for the deadline")
}

async fn what_was_closed_says_so(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    broker.close(soon()).await;
    let closed = &[ErrorKind::Closed];
    let mine = queue.clone().of::<u32>();
    expect_error("publish", publisher.publish(&1).await, closed)?;
    expect_error("enqueue", publisher.enqueue(&1).await, closed)?;
    for outcome in publisher.publish_all(&[1, 2]).await {
        expect_error("publish a batch", outcome, closed)?;
    }
    expect_error("subscribe", broker.subscribe(&mine, 1).await, closed)?;
    expect_error("declare", broker.declare(&topology(&[], &[&queue], &[])).await, closed)?;
    expect_error("verify", broker.verify(&topology(&[], &[&queue], &[])).await, closed)?;
    let route = enoki_core::RouteSpec::<u32>::to_queue(queue.name.as_str())?;
    expect_error("make a publisher", broker.publisher(route).await, closed)?;
    // The subscription was open. It ends; whether with an error is the broker's choice.
    if let Ok(next) = tokio::time::timeout(soon(), subscription.next()).await {
        expect(matches!(next, Ok(None) | Err(_)), "no delivery on a closed connection")
    } else {
        Err(Failed::new("the subscription waits for ever on a closed connection"))
    }
}

/// A session dies once; the next use opens the next one.
async fn a_lost_connection_is_replaced(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.publish(&1).await?;
    broker.declare(&Topology::new()).await?;
    stage.sever().await;
    // The first one after the loss may fall into it, and then it says so.
    if let Err(error) = publisher.publish(&2).await {
        expect_eq("the kind", error.kind(), ErrorKind::Indeterminate)?;
        publisher.publish(&2).await?;
    }
    let found = contents(&broker, &queue).await?;
    expect(found == [1, 2] || found == [1, 2, 2], format_args!("both messages, not {found:?}"))
}

/// An exclusive queue goes with the connection that consumes, and messages with another one.
async fn what_was_declared_by_hand_is_back_before_the_next_message(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("exclusive")?;
    queue.exclusive = true;
    queue.durable = false;
    broker.declare(&topology(&[], &[&queue], &[])).await?;
    let route = RouteSpec::<u32>::to_queue(queue.name.as_str())?;
    let publisher = broker.publisher(route).await?;
    publisher.publish(&0).await?;
    for round in 1..=5 {
        stage.sever().await;
        for _ in 0..3 {
            if let Err(error) = publisher.publish(&round).await {
                return Err(Failed::new(format!("after {round} losses: {error:?}")));
            }
        }
    }
    Ok(())
}
