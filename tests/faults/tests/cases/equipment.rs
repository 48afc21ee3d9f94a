//! The equipment, against real brokers.

use std::time::Duration;

use enoki::{
    Publisher,
    topology::{RouteSpec, Topology},
};
use enoki_faults::{
    broker_process::Alarm,
    proxy::{Direction, Kind, Traffic},
};
use tokio::time::timeout;

use crate::{
    stage::{Checked, Stage, expect},
    steps::PATIENCE,
};

pub(crate) async fn a_login_passes_the_proxy_and_is_understood(stage: Stage) -> Checked {
    let queue = stage.queue("understood")?.of::<u32>();
    let broker = stage.broker().await?;
    broker.declare(&Topology::new().with_queue(&queue)).await?;
    let name = broker.queue_name(&queue)?;
    let publisher: Publisher<u32> = broker.publisher(RouteSpec::to_queue(name.as_str())?).await?;
    for number in 0..3 {
        publisher.publish(&number).await?;
    }
    let mut deliveries = broker.subscribe(&queue, 10).await?;
    for _ in 0..3 {
        deliveries.next().await?.ok_or("no delivery")?.settle(enoki::Outcome::Ack);
    }
    let settled = |traffic: &enoki_faults::proxy::Traffic| {
        traffic.frames(Direction::ToBroker, Kind::Settlement) >= 1
    };
    timeout(PATIENCE, stage.proxy.until(settled)).await?;
    let traffic = stage.proxy.traffic();
    let count = |direction, kind| traffic.frames(direction, kind);
    let published = count(Direction::ToBroker, Kind::Publish);
    expect(published == 3, format!("3 were published, and the proxy saw {published}"))?;
    let delivered = count(Direction::FromBroker, Kind::Delivery);
    expect(delivered == 3, format!("3 were delivered, and the proxy saw {delivered}"))?;
    // Published one by one, so confirmed one by one.
    let confirmed = count(Direction::FromBroker, Kind::Confirm);
    expect(confirmed == 3, format!("3 were confirmed, and the proxy saw {confirmed}"))?;
    expect(count(Direction::FromBroker, Kind::Opened) == 2, "two connections were opened")
}

pub(crate) async fn a_broker_can_be_killed_frozen_and_alarmed_and_brought_back(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    let a_moment = Duration::from_secs(2);
    process.freeze().await?;
    let frozen = timeout(a_moment, stage.past_the_proxy()).await;
    process.thaw().await?;
    expect(frozen.is_err(), format!("a frozen broker answered: {frozen:?}"))?;
    drop(stage.past_the_proxy().await?);

    let alarms = "rabbit_alarm:get_alarms().";
    process.alarm(Alarm::Memory).await?;
    process.alarm(Alarm::Disk).await?;
    let set = process.eval(alarms).await?;
    process.clear(Alarm::Memory).await?;
    let one = process.eval(alarms).await?;
    process.recover().await?;
    let none = process.eval(alarms).await?;
    expect(set.contains("memory") && set.contains("disk"), set)?;
    expect(!one.contains("memory") && one.contains("disk"), one)?;
    expect(!none.contains("resource_limit"), none)?;

    let broker = stage.broker().await?;
    let before = stage.proxy.traffic().accepted;
    process.close_connections().await?;
    // It is opened again at once, so that there is none may have been too short to be seen.
    let is_closed = |traffic: &Traffic| traffic.open == 0 || traffic.accepted > before;
    timeout(PATIENCE, stage.proxy.until(is_closed)).await?;
    drop(broker);

    process.kill().await?;
    let killed = timeout(a_moment, stage.past_the_proxy()).await;
    process.restart().await?;
    expect(!matches!(killed, Ok(Ok(_))), "a killed broker answered")?;
    drop(stage.past_the_proxy().await?);
    Ok(())
}
