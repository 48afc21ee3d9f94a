use enoki_core::{Attempt, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

type A = Attempt;

async fn bill(_: A, _: A, _: A, _: A, _: A, _: A, _: A, _: A, _: A) {}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
