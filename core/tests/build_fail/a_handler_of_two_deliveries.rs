use enoki_core::{Broker, Delivery, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(_: Delivery, _: Delivery) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {
    let _: fn(Broker) -> Service = service;
}
