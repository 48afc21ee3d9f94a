use enoki_core::{Delivery, Outcome};

async fn handle(delivery: Delivery) {
    delivery.settle(Outcome::Ack);
    delivery.settle(Outcome::Requeue);
}

fn main() {}
