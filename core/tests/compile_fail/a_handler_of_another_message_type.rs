use enoki_core::{Body, Broker, Service, WorkQueue};

#[derive(serde::Serialize, serde::Deserialize)]
struct Order;
#[derive(serde::Serialize, serde::Deserialize)]
struct Receipt;

const ORDERS: WorkQueue<Order> = WorkQueue::new("orders");

async fn file(Body(_): Body<Receipt>) {}

fn service(broker: Broker) -> Service {
    Service::new("office", broker).consume(&ORDERS, file)
}

fn main() {}
