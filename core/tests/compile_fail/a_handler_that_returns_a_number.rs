use enoki_core::{Body, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(Body(order): Body<String>) -> usize {
    order.len()
}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
