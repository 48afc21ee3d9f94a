use enoki_core::{Body, Broker, Handler, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn count(Body(_): Body<u32>) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, count.concurrency(4))
}

fn main() {}
