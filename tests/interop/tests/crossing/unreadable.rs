//! A message that RabbitMQ cannot convert to the protocol of its consumer: the broker fails on it, and ends the
//! connection or the AMQP session. Only the consumer of that queue may suffer.

use std::time::Duration;

use enoki::{
    Body, Broker, Service, State,
    broker::Health,
    consume::ConsumerHealth,
    service::RunningService,
    topology::{QueueSpec, RouteSpec},
};
use enoki_faults::patience::connect_patiently;
use enoki_interop::{Broker as RealBroker, Checked};
use tokio::{sync::mpsc, time::timeout};

use super::{client::Protocol, foreign};

async fn handle(State(handled): State<mpsc::UnboundedSender<u32>>, Body(number): Body<u32>) {
    // The test reads all that it needs.
    let _ = handled.send(number);
}

/// A service consumes by `protocol` from a queue that gets such a message, and from a neighbour.
pub(crate) async fn stops_its_own_consumer(real: RealBroker, protocol: Protocol) -> Checked {
    let foreigner = match protocol {
        Protocol::Amqp091 => Protocol::Amqp10,
        Protocol::Amqp10 => Protocol::Amqp091,
    };
    let url = |protocol: Protocol| real.url(protocol.scheme()).ok_or("no broker");
    let broker = connect_patiently(url(protocol)?).await?;
    let name =
        |label| format!("enoki-unreadable {} {label} {}", protocol.scheme(), std::process::id());
    let (spoiled, sound) = (QueueSpec::new(name("spoiled"))?, QueueSpec::new(name("sound"))?);
    let (handled, mut numbers) = mpsc::unbounded_channel();
    let service = Service::new("unreadable", broker.clone())
        .state(handled)
        .consume(&spoiled.clone().of::<u32>(), handle)
        .consume(&sound.clone().of::<u32>(), handle)
        .start()
        .await?;
    foreign::unreadable(foreigner, &url(foreigner)?, &spoiled.name).await?;
    let seen = goes_on(&broker, &service, [&spoiled, &sound], &mut numbers).await;
    broker.purge(&spoiled.clone().of::<u32>()).await?;
    let back = async {
        seen?;
        // The message is gone, so its consumer works again by itself.
        let spoiled = RouteSpec::<u32>::to_queue(&*spoiled.name)?;
        broker.publisher(spoiled).await?.publish(&BACK).await?;
        next(&mut numbers, BACK).await
    };
    let back = back.await;
    service.stop(PATIENCE).await?;
    broker.delete_queue(&spoiled.of::<u32>()).await?;
    broker.delete_queue(&sound.of::<u32>()).await?;
    back
}

/// The error of the consumer says what to do, and its neighbour goes on where it was.
async fn goes_on(
    broker: &Broker,
    service: &RunningService,
    [spoiled, sound]: [&QueueSpec; 2],
    numbers: &mut mpsc::UnboundedReceiver<u32>,
) -> Checked {
    let health = service.health();
    let consumers = health.consumers();
    let [(_, of_spoiled), _] = &*consumers else { return Err("two consumers".into()) };
    let is_explained = |now: &ConsumerHealth| match &now.health {
        Health::Reconnecting { reason } => {
            let text = reason.to_string();
            text.contains(&*spoiled.name)
                && text.contains("convert a message")
                && text.contains("consume that message over the other protocol")
        }
        _ => false,
    };
    timeout(PATIENCE, of_spoiled.clone().wait_for(is_explained)).await??;
    let opened = broker.health().borrow().consuming_opened;
    let sound = RouteSpec::<u32>::to_queue(&*sound.name)?;
    let publisher = broker.publisher(sound).await?;
    for number in 0..1000 {
        publisher.publish(&number).await?;
    }
    next(numbers, 999).await?;
    let now = broker.health().borrow().consuming_opened;
    if now > opened + 1 {
        return Err(
            format!("the shared connection was opened {} times meanwhile", now - opened).into()
        );
    }
    Ok(())
}

async fn next(numbers: &mut mpsc::UnboundedReceiver<u32>, wanted: u32) -> Checked {
    let came = async { while numbers.recv().await.is_some_and(|number| number != wanted) {} };
    timeout(PATIENCE, came).await.map_err(|_| format!("{wanted} was not handled"))?;
    Ok(())
}

const BACK: u32 = 5000;

/// What a step may take.
const PATIENCE: Duration = Duration::from_secs(60);
