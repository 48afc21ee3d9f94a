use std::rc::Rc;

use enoki_core::{Body, Broker, Service, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

async fn bill(Body(_): Body<String>) {
    let kept = Rc::new(());
    std::future::ready(()).await;
    drop(kept);
}

fn service(broker: Broker) -> Service {
    Service::new("billing", broker).consume(&ORDERS, bill)
}

fn main() {}
