//! Many at once, in one program: the limit of a client library or a broker on one connection is no limit.

use enoki_core::Outcome;
use futures_util::future::try_join_all;

use crate::{
    case::cases,
    expect::{Failed, expect_eq},
    stage::Stage,
    steps::{next, number, soon, subscribe, to_queue},
};

cases! { "many":
    hundreds_of_consumers_and_publishers_work_at_once within 120,
    more_temporary_queues_than_fit_on_a_connection_are_consumed_from [ExclusiveQueues] within 60,
}

/// Each queue has a consumer and a publisher of its own, and the message of the one reaches the other.
async fn hundreds_of_consumers_and_publishers_work_at_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queues: Vec<_> =
        (0..HUNDREDS).map(|at| stage.queue(&at.to_string())).collect::<Result<_, _>>()?;
    let mut subscriptions =
        try_join_all(queues.iter().map(|queue| subscribe(&broker, queue, 1))).await?;
    let publishers =
        try_join_all(queues.iter().map(|queue| to_queue::<u32>(&broker, queue))).await?;
    for round in 0..2 {
        let expected = |at: usize| u32::try_from(at).unwrap_or_default() + round;
        try_join_all(
            publishers
                .iter()
                .enumerate()
                .map(async |(at, publisher)| publisher.publish(&expected(at)).await),
        )
        .await?;
        try_join_all(subscriptions.iter_mut().enumerate().map(async |(at, subscription)| {
            let delivery = next(subscription).await?;
            expect_eq("what came", number(&delivery)?, expected(at))?;
            delivery.settle(Outcome::Ack);
            Ok::<_, Failed>(())
        }))
        .await?;
    }
    try_join_all(subscriptions.iter_mut().map(|subscription| subscription.stop(soon()))).await?;
    Ok(())
}

/// The broker keeps them for the connection that declared them.
async fn more_temporary_queues_than_fit_on_a_connection_are_consumed_from(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queues: Vec<_> = (0..100)
        .map(|at| {
            let mut queue = stage.queue(&at.to_string())?;
            (queue.durable, queue.exclusive, queue.auto_delete) = (false, true, true);
            Ok::<_, Failed>(queue)
        })
        .collect::<Result<_, _>>()?;
    let mut subscriptions =
        try_join_all(queues.iter().map(|queue| subscribe(&broker, queue, 1))).await?;
    for (at, (queue, subscription)) in (0..).zip(queues.iter().zip(&mut subscriptions)) {
        let route = enoki_core::RouteSpec::<u32>::to_queue(queue.name.as_str())?;
        broker.publisher(route).await?.publish(&at).await?;
        let delivery = next(subscription).await?;
        expect_eq("what came", number(&delivery)?, at)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

/// More than RabbitMQ allows AMQP 1.0 sessions on two connections.
const HUNDREDS: usize = 150;
