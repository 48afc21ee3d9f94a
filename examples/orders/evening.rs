//! One evening: orders come in, one after the other, and each has its end before the next.

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

/// Serves all orders, and leaves the broker as it was.
pub(crate) async fn serve(broker: &Broker) -> enoki::Result<Ledger> {
    let topology = topology();
    remove(broker, &topology).await?; // what an earlier run may have left
    broker.declare(&topology).await?;
    let served = evening(broker).await;
    remove(broker, &topology).await?;
    served
}

async fn evening(broker: &Broker) -> enoki::Result<Ledger> {
    let kitchen = Kitchen::default();
    let ledger = &kitchen.ledger;
    let service = kitchen.open(broker).await?;
    let mut lost = broker.subscribe(&LOST_ORDERS, 1).await?;

    // In the kitchen: done at once, after two failures, after it was given back, never.
    let hot = broker.publisher(&HOT).await?;
    for dish in ["soup", "bread", "fish"] {
        publish(ledger, &hot, dish).await?;
        ledger.acknowledged(dish).await;
    }
    for dish in ["stone", "cursed"] {
        publish(ledger, &hot, dish).await?;
        write_off(ledger, &mut lost, dish).await?;
    }
    // Nobody can read it.
    let scribble = broker.publisher(RouteSpec::<Raw>::to_queue(KITCHEN.name())?).await?;
    publish_as(ledger, &scribble, "scribble", &Raw::new("application/json", "{")?).await?;
    write_off(ledger, &mut lost, "scribble").await?;

    // At the counter deliveries are settled by hand, and one is dropped.
    let cold = broker.publisher(&COLD).await?;
    for dish in ["salad", "jelly"] {
        publish(ledger, &cold, dish).await?;
        ledger.acknowledged(dish).await;
    }

    // What a publisher is told: nobody wants it, there is no room.
    publish(ledger, &broker.publisher(&DRINKS).await?, "wine").await?;
    let reserved = broker.publisher(&RESERVED).await?;
    publish(ledger, &reserved, "cake").await?;
    publish(ledger, &reserved, "tiramisu").await?;

    // What nobody fetches is lost, and so is what something newer drives out.
    publish(ledger, &broker.publisher(&LEFT).await?, "leftovers").await?;
    write_off(ledger, &mut lost, "leftovers").await?;
    let shown = broker.publisher(&SHOWN).await?;
    publish(ledger, &shown, "tart").await?;
    publish(ledger, &shown, "pie").await?;
    write_off(ledger, &mut lost, "tart").await?;

    // Closing time: what is in the oven is finished, and not cooked again when the kitchen opens
    // the next time.
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
