use enoki_core::{Body, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(_: Body<String>, _: Body<String>) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {
    let _: fn(Broker) -> Service = service;
}
