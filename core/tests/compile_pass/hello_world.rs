//! The whole of a first program, as the documentation shows it.

use enoki_core::{
    Body, Broker, Failure, Handler, OnError, Publisher, Result, Route, Service, State, Topic,
    WorkQueue,
};

#[derive(serde::Serialize, serde::Deserialize)]
struct OrderPlaced {
    id: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Receipt {
    order: u64,
}

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<OrderPlaced> = SHOP.route("order.placed.eu");
const RECEIPTS: Route<Receipt> = SHOP.route("receipt.created");
const BILLING: WorkQueue<OrderPlaced> =
    WorkQueue::new("billing").bind(&[SHOP.pattern("order.placed.*")]);
const _: () = assert!(BILLING.accepts(&PLACED), "no queue gets PLACED");

#[derive(Clone)]
struct Billing {
    receipts: Publisher<Receipt>,
}

async fn bill(
    State(billing): State<Billing>,
    Body(order): Body<OrderPlaced>,
) -> Result<(), Failure> {
    billing.receipts.publish(&Receipt { order: order.id }).await?;
    Ok(())
}

async fn run(broker: Broker, shutdown_signal: impl Future<Output = ()>) -> Result<()> {
    let billing = Billing { receipts: broker.publisher(&RECEIPTS).await? };
    Service::new("billing", broker)
        .state(billing)
        .consume(&BILLING, bill.concurrency(16).on_error(OnError::reject()))
        .run_until(shutdown_signal)
        .await
}

fn main() {
    let _ = |broker: Broker| run(broker, std::future::pending());
}
