use enoki_core::{Body, Broker, Service, State, WorkQueue};

const ORDERS: WorkQueue<String> = WorkQueue::new("orders");

#[derive(Clone)]
struct Billing;
#[derive(Clone)]
struct Shipping;

async fn ship(State(_): State<Shipping>, Body(_): Body<String>) {}

fn service(broker: Broker) -> Service<Billing> {
    Service::new("billing", broker).state(Billing).consume(&ORDERS, ship)
}

fn main() {}
