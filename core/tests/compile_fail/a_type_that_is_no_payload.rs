use enoki_core::{Broker, Route, Topic};

struct Order;

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<Order> = SHOP.route("order.placed");

fn publisher(broker: Broker) {
    drop(broker.publisher(&PLACED));
}

fn main() {}
