use enoki_core::{Body, Broker, Service, State, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(State(_): State<u32>, Body(_): Body<String>) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
