//! What a login may not do.

use enoki::{
    ErrorKind, Outcome,
    topology::{BindingSpec, Destination, ExchangeSpec, RouteSpec, Topology},
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use tokio::time::timeout;

use crate::{
    stage::{Checked, Stage, expect},
    steps::{PATIENCE, soon},
};

/// By the exchange, by the routing key, and by the name of a queue.
pub(crate) async fn r28_what_a_user_may_not_publish_is_denied_for_good_and_disturbs_nothing_else(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    let queue = stage.queue("q")?;
    let (open, shut) = (stage.exchange("open")?, stage.exchange("shut")?);
    let mut topology = Topology::new().with_queue(&queue.clone().of::<u32>());
    for exchange in [&open, &shut] {
        let to_queue = Destination::Queue(queue.name.clone());
        topology.add_exchange(exchange.clone());
        topology.add_binding(BindingSpec::new(exchange, to_queue, "#")?);
    }
    let owner = stage.past_the_proxy().await?;
    owner.declare(&topology).await?;
    let (name, host) = (stage.queue("user")?.name, stage.host()?);
    process.ctl(&["add_user", &name, "password"]).await?;
    let only_open = format!("^{}$", open.name.replace('.', "[.]"));
    process.ctl(&["set_permissions", "-p", host, &name, "^$", &only_open, ".*"]).await?;
    let topics = ["set_topic_permissions", "-p", host, &name, &open.name, "^yes", ".*"];
    process.ctl(&topics).await?;

    let broker = connect_patiently(stage.url_of_user(&name, "password")?).await?;
    let route = |exchange: &ExchangeSpec, key| {
        let mut there = exchange.clone();
        there.passive = true;
        RouteSpec::<u32>::new(&there, key)
    };
    let publisher = broker.publisher(route(&open, "yes")?).await?;
    let mut confirms = Vec::new();
    for number in 0..60 {
        let route = match number % 6 {
            1 => route(&open, "no")?,
            3 => route(&shut, "yes")?,
            5 => RouteSpec::to_queue(queue.name.as_str())?,
            _ => route(&open, "yes.and.yes")?,
        };
        confirms.push(publisher.message(&number)?.route(route).enqueue().await?);
    }
    for (number, confirm) in (0..).zip(confirms) {
        match (number % 2, confirm.await) {
            (0, Ok(_)) => {}
            (1, Err(error)) if error.kind() == ErrorKind::Denied && !error.is_transient() => {}
            (_, outcome) => return Err(format!("message {number}: {outcome:?}").into()),
        }
    }
    broker.close(soon()).await;
    let mut deliveries = owner.subscribe(&queue.of::<u32>(), 100).await?;
    let mut stored = Vec::new();
    while stored.last() != Some(&58) {
        let delivery = timeout(PATIENCE, deliveries.next()).await??.ok_or("no delivery")?;
        let number = delivery.decode::<u32>()?;
        delivery.settle(Outcome::Ack);
        // Published again beside one that was refused.
        if !stored.contains(&number) {
            stored.push(number);
        }
    }
    let wanted: Vec<u32> = (0..60).step_by(2).collect();
    expect(stored == wanted, format!("stored are {stored:?}"))?;
    for exchange in [open, shut] {
        owner.apply(&Change::DeleteExchange(exchange.name)).await?;
    }
    process.ctl(&["delete_user", &name]).await.map_err(Into::into).map(drop)
}
