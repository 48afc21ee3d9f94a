//! A small order service, from the first message to a dead letter.
//!
//! ```sh
//! cargo run --example quickstart
//! BROKER_URL=amqp091://guest:guest@localhost cargo run --example quickstart --features amqp091
//! BROKER_URL=amqp10://guest:guest@localhost cargo run --example quickstart --features amqp10
//! ```
//!
//! The program is the same each time, and so is what it prints.
#![allow(clippy::print_stdout)] // it prints what happens

use std::time::Duration;

use enoki::{
    Body, Broker, ErrorKind, Failure, Outcome, Publisher, Route, Service, State, Topic, WorkQueue,
    consume::{Attempt, Delivery, Handler, OnError},
    message::Table,
    topology::Topology,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

// The messages.

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u32,
    dish: String,
    cents: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    order: u32,
    cents: u32,
}

// The topology. The compiler checks that a queue gets each message.

const SHOP: Topic = Topic::new("quickstart.shop");

const ORDER_PLACED: Route<Order> = SHOP.route("order.placed");
const ORDER_CANCELLED: Route<Order> = SHOP.route("order.cancelled");
const RECEIPT_MADE: Route<Receipt> = SHOP.route("receipt.made");

const BILLING: WorkQueue<Order> = WorkQueue::new("quickstart.billing")
    .bind(&[SHOP.pattern("order.placed")])
    .dead_letters_to(&LOST_ORDERS);
const ARCHIVE: WorkQueue<Receipt> =
    WorkQueue::new("quickstart.archive").bind(&[SHOP.pattern("receipt.*")]);
const LOST_ORDERS: WorkQueue<Order> = WorkQueue::new("quickstart.lost-orders");

const _: () = assert!(BILLING.accepts(&ORDER_PLACED), "no queue gets placed orders");
const _: () = assert!(ARCHIVE.accepts(&RECEIPT_MADE), "no queue gets receipts");

// The handlers. They name no broker.

#[derive(Clone)]
struct Desk {
    receipts: Publisher<Receipt>,
    /// Tells `publish_orders` that an order is done.
    through: mpsc::Sender<()>,
}

async fn bill(
    State(desk): State<Desk>,
    Body(order): Body<Order>,
    attempt: Attempt,
) -> Result<Outcome, Failure> {
    println!("  billing  gets order {} ({}), attempt {}", order.id, order.dish, attempt.number);
    if order.cents == 0 {
        println!("  billing  rejects it: nothing to pay, never again");
        return Ok(Outcome::Reject);
    }
    if order.dish == "soup" && attempt.number == 1 {
        println!("  billing  fails: the card terminal is asleep, so it is requeued");
        return Err(Failure::new("the card terminal is asleep"));
    }
    println!("  billing  bills {} cents and publishes the receipt", order.cents);
    desk.receipts.publish(&Receipt { order: order.id, cents: order.cents }).await?; // confirmed
    Ok(Outcome::Ack) // acknowledged only now
}

async fn keep(State(desk): State<Desk>, Body(receipt): Body<Receipt>) -> Result<(), Failure> {
    println!("  archive  keeps the receipt of order {}: {} cents", receipt.order, receipt.cents);
    desk.through.send(()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> enoki::Result<()> {
    // The only line that knows the broker reads it from the environment.
    let url = std::env::var("BROKER_URL").unwrap_or_else(|_| "memory:".to_owned());
    let broker = enoki::connect(url).await?;
    eprintln!("(carried by {})", broker.peer());

    // The queue of the dead letters is declared with the queue that they come from.
    let topology = Topology::new().with_queue(&BILLING).with_queue(&ARCHIVE);
    remove(&broker, &topology).await?; // an earlier run may have left some
    broker.declare(&topology).await?;
    let published = publish_orders(&broker).await;
    remove(&broker, &topology).await?;
    broker.close(Duration::from_secs(5)).await;
    published
}

async fn publish_orders(broker: &Broker) -> enoki::Result<()> {
    let (through, mut orders_through) = mpsc::channel(1);
    let desk = Desk { receipts: broker.publisher(&RECEIPT_MADE).await?, through };
    let service = Service::new("shop", broker.clone())
        .state(desk)
        .consume(&BILLING, bill.concurrency(1).on_error(OnError::requeue()))
        .consume(&ARCHIVE, keep.concurrency(1))
        .start()
        .await?;
    let orders = broker.publisher(&ORDER_PLACED).await?;

    println!("An order comes in, is billed, and its receipt is kept.");
    orders.publish(&order(1, "pancakes", 850)).await?;
    orders_through.recv().await;

    println!("An order whose first attempt fails comes back, and is billed then.");
    orders.publish(&order(2, "soup", 420)).await?;
    orders_through.recv().await;

    println!("An order that can never be billed is rejected, and kept as a dead letter.");
    orders.publish(&order(3, "air", 0)).await?;
    let mut lost = broker.subscribe(&LOST_ORDERS, 1).await?;
    if let Some(letter) = lost.next().await? {
        let order: Order = letter.decode()?;
        println!("  lost     has order {} ({}), {}", order.id, order.dish, why_dead(&letter));
        letter.settle(Outcome::Ack);
    }
    lost.stop(Duration::from_secs(5)).await?;

    println!("A message that no queue would get is reported to its publisher.");
    match broker.publisher(&ORDER_CANCELLED).await?.publish(&order(1, "pancakes", 850)).await {
        Err(error) if error.kind() == ErrorKind::Unroutable => {
            println!("  publish  fails: {error}")
        }
        other => println!("  publish  should have failed: {other:?}"),
    }

    println!(
        "The service stops: handlers that run finish, messages that wait stay in their queue."
    );
    service.stop(Duration::from_secs(5)).await
}

fn order(id: u32, dish: &str, cents: u32) -> Order {
    Order { id, dish: dish.to_owned(), cents }
}

/// Brokers write into the headers of a dead letter where it came from, and why.
fn why_dead(letter: &Delivery) -> String {
    let text = |table: &Table, name| {
        table.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned()
    };
    let headers = &letter.message().headers;
    let (reason, queue) =
        (text(headers, "x-first-death-reason"), text(headers, "x-first-death-queue"));
    format!("{reason} from {queue}")
}

/// Removes all that this program declares, so that it leaves the broker as it was.
async fn remove(broker: &Broker, topology: &Topology) -> enoki::Result<()> {
    for queue in topology.queues() {
        broker.delete_queue(queue).await?;
    }
    for exchange in topology.exchanges() {
        broker.delete_exchange(exchange).await?;
    }
    Ok(())
}
