use enoki_core::{Body, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(Body(_): Body<String>) -> Result<(), u32> {
    Err(7)
}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
