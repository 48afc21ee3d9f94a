use enoki_core::{Body, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(Body(_): Body<String>, _: std::time::Duration) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
