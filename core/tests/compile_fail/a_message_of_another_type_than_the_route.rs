use enoki_core::{Broker, Result, Route, Topic};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");

async fn publish(broker: Broker) -> Result<()> {
    broker.publisher(&PLACED).await?.publish(&7).await?;
    Ok(())
}

fn main() {}
