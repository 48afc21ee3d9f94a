//! The scenario: orders come in one after the other, and each is finished before the next one.

use std::time::Duration;

use enoki::{
    Broker, ErrorKind, Outcome, Publisher,
    codec::{Payload, Raw},
    consume::Subscription,
    topology::{RouteSpec, Topology},
};

use crate::{
    kitchen::{
        COLD, DRINKS, HOT, KITCHEN, Kitchen, LEFT, LOST_ORDERS, Order, RESERVED, SHOWN, topology,
    },
    ledger::{Event, Ledger},
};

/// Serves all orders, and removes its queues and exchanges before and after.
pub(crate) async fn serve(broker: &Broker) -> enoki::Result<Ledger> {
    let topology = topology();
    remove(broker, &topology).await?; // what an earlier run may have left
    broker.declare(&topology).await?;
    let served = scenario(broker).await;
    remove(broker, &topology).await?;
    served
}

async fn scenario(broker: &Broker) -> enoki::Result<Ledger> {
    let kitchen = Kitchen::default();
    let ledger = &kitchen.ledger;
    let service = kitchen.open(broker).await?;
    let mut lost = broker.subscribe(&LOST_ORDERS, 1).await?;

    // The kitchen acknowledges soup at once, bread after two failures, and fish after a release. It
    // rejects stone, and fails at cursed until the delivery limit.
    let hot = broker.publisher(&HOT).await?;
    for dish in ["soup", "bread", "fish"] {
        publish(ledger, &hot, dish).await?;
        ledger.acknowledged(dish).await;
    }
    for dish in ["stone", "cursed"] {
        publish(ledger, &hot, dish).await?;
        write_off(ledger, &mut lost, dish).await?;
    }
    // Its body cannot be decoded.
    let scribble = broker.publisher(RouteSpec::<Raw>::to_queue(KITCHEN.name())?).await?;
    publish_as(ledger, &scribble, "scribble", &Raw::new("application/json", "{")?).await?;
    write_off(ledger, &mut lost, "scribble").await?;

    // The counter settles deliveries by hand, and drops the first one of jelly.
    let cold = broker.publisher(&COLD).await?;
    for dish in ["salad", "jelly"] {
        publish(ledger, &cold, dish).await?;
        ledger.acknowledged(dish).await;
    }

    // The publisher of wine is told that no queue is bound, that of tiramisu that the queue is full.
    publish(ledger, &broker.publisher(&DRINKS).await?, "wine").await?;
    let reserved = broker.publisher(&RESERVED).await?;
    publish(ledger, &reserved, "cake").await?;
    publish(ledger, &reserved, "tiramisu").await?;

    // Leftovers expire, and the newer pie drops the tart: both become dead letters.
    publish(ledger, &broker.publisher(&LEFT).await?, "leftovers").await?;
    write_off(ledger, &mut lost, "leftovers").await?;
    let shown = broker.publisher(&SHOWN).await?;
    publish(ledger, &shown, "tart").await?;
    publish(ledger, &shown, "pie").await?;
    write_off(ledger, &mut lost, "tart").await?;

    // The service stops while the handler of roast runs. The handler finishes, and the next start does
    // not run it again.
    publish(ledger, &hot, "roast").await?;
    ledger.expect("roast", kitchen.in_the_oven.notified()).await;
    let (stopped, ()) = tokio::join!(service.stop(soon()), async { kitchen.done.notify_one() });
    stopped?;
    let service = kitchen.open(broker).await?;
    publish(ledger, &hot, "breakfast").await?;
    ledger.acknowledged("breakfast").await;
    lost.stop(soon()).await?;
    service.stop(soon()).await?;
    Ok(ledger.clone())
}

async fn publish(ledger: &Ledger, publisher: &Publisher<Order>, dish: &str) -> enoki::Result<()> {
    publish_as(ledger, publisher, dish, &Order { dish: dish.to_owned() }).await
}

async fn publish_as<M: Payload>(
    ledger: &Ledger,
    publisher: &Publisher<M>,
    id: &str,
    message: &M,
) -> enoki::Result<()> {
    let how = match publisher.message(message)?.message_id(id)?.publish().await {
        Ok(_) => "confirmed".to_owned(),
        Err(error) if [ErrorKind::Unroutable, ErrorKind::Refused].contains(&error.kind()) => {
            format!("{:?}", error.kind()).to_lowercase()
        }
        Err(error) => return Err(error),
    };
    ledger.write(id, Event::Published(how));
    Ok(())
}

/// Takes the next of the lost orders, which should be this one, and writes down why it is lost.
async fn write_off(ledger: &Ledger, lost: &mut Subscription, dish: &str) -> enoki::Result<()> {
    if let Some(letter) = ledger.expect(dish, lost.next()).await.transpose()?.flatten() {
        ledger.lose(letter.envelope());
        letter.settle(Outcome::Ack);
    }
    Ok(())
}

async fn remove(broker: &Broker, topology: &Topology) -> enoki::Result<()> {
    for queue in topology.queues() {
        broker.delete_queue(queue).await?;
    }
    for exchange in topology.exchanges() {
        broker.delete_exchange(exchange).await?;
    }
    Ok(())
}

fn soon() -> Duration {
    Duration::from_secs(10)
}
