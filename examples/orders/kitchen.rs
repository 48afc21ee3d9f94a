//! The service: its topology and its handlers. Neither names a broker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use enoki::{
    Body, Broker, Failure, Outcome, Route, Service, State, Topic, WorkQueue,
    consume::{Delivery, Envelope, Handler, OnError},
    service::RunningService,
    topology::{Fanout, Overflow, ReplicatedQueue, Topology},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::ledger::Ledger;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) dish: String,
}

const MENU: Topic = Topic::new("orders.menu");
const LOST: Fanout = Fanout::new("orders.lost");

pub(crate) const HOT: Route<Order> = MENU.route("hot");
pub(crate) const COLD: Route<Order> = MENU.route("cold");
/// No queue is bound for it.
pub(crate) const DRINKS: Route<Order> = MENU.route("drinks");
pub(crate) const RESERVED: Route<Order> = MENU.route("reserved");
pub(crate) const LEFT: Route<Order> = MENU.route("left");
pub(crate) const SHOWN: Route<Order> = MENU.route("shown");

/// A message that failed more than three times becomes a dead letter.
pub(crate) const KITCHEN: ReplicatedQueue<Order> = ReplicatedQueue::new("orders.kitchen")
    .bind(&[MENU.pattern("hot")])
    .dead_letters_over(&LOST, &LOST_ORDERS)
    .delivery_limit(3);
pub(crate) const COUNTER: WorkQueue<Order> = WorkQueue::new("orders.counter")
    .bind(&[MENU.pattern("cold")])
    .dead_letters_over(&LOST, &LOST_ORDERS);
/// Has room for one message, and refuses the next one.
const TABLE: WorkQueue<Order> = WorkQueue::new("orders.table")
    .bind(&[MENU.pattern("reserved")])
    .max_length(1)
    .overflow(Overflow::RejectPublish);
/// Its messages expire after a millisecond.
const SHELF: WorkQueue<Order> = WorkQueue::new("orders.shelf")
    .bind(&[MENU.pattern("left")])
    .message_ttl(Duration::from_millis(1))
    .dead_letters_over(&LOST, &LOST_ORDERS);
/// Keeps the newest message only.
const WINDOW: WorkQueue<Order> = WorkQueue::new("orders.window")
    .bind(&[MENU.pattern("shown")])
    .max_length(1)
    .overflow(Overflow::DropHead)
    .dead_letters_over(&LOST, &LOST_ORDERS);
pub(crate) const LOST_ORDERS: WorkQueue<Order> =
    WorkQueue::new("orders.lost-orders").bind(&[LOST.binding()]);

const _: () = assert!(KITCHEN.accepts(&HOT), "the kitchen gets no hot dishes");
const _: () = assert!(COUNTER.accepts(&COLD), "the counter gets no cold dishes");

pub(crate) fn topology() -> Topology {
    Topology::new()
        .with_queue(&KITCHEN)
        .with_queue(&COUNTER)
        .with_queue(&TABLE)
        .with_queue(&SHELF)
        .with_queue(&WINDOW)
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Kitchen {
    pub(crate) ledger: Ledger,
    /// How often each dish was begun.
    begun: Arc<Mutex<HashMap<String, u32>>>,
    /// The handler of roast has begun.
    pub(crate) in_the_oven: Arc<Notify>,
    /// Lets the handler of roast finish.
    pub(crate) done: Arc<Notify>,
}

impl Kitchen {
    /// How often this dish was begun, by our own count.
    fn begin(&self, dish: &str) -> u32 {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let times = begun.entry(dish.to_owned()).or_default();
        *times += 1;
        *times
    }

    /// Starts the service.
    pub(crate) async fn open(&self, broker: &Broker) -> enoki::Result<RunningService> {
        Service::new("restaurant", broker.clone())
            .state(self.clone())
            .consume(&KITCHEN, cook.concurrency(1).on_error(OnError::requeue()))
            .consume(&COUNTER, serve.concurrency(1))
            .start()
            .await
    }
}

async fn cook(
    State(kitchen): State<Kitchen>,
    Body(order): Body<Order>,
    delivery: Envelope,
) -> Result<Outcome, Failure> {
    let ledger = &kitchen.ledger;
    let times = kitchen.begin(&order.dish);
    match order.dish.as_str() {
        "bread" if times < 3 => {
            ledger.settle(&delivery, Outcome::Requeue);
            Err(Failure::new("burnt"))
        }
        // Ends the example also on a broker that has no delivery limit.
        "cursed" if times < 10 => {
            ledger.settle(&delivery, Outcome::Requeue);
            Err(Failure::new("it fell on the floor"))
        }
        "fish" if times == 1 => Ok(ledger.settle(&delivery, Outcome::Release)),
        "stone" => Ok(ledger.settle(&delivery, Outcome::Reject)),
        "roast" => {
            kitchen.in_the_oven.notify_one();
            kitchen.done.notified().await;
            Ok(ledger.settle(&delivery, Outcome::Ack))
        }
        _ => Ok(ledger.settle(&delivery, Outcome::Ack)),
    }
}

/// Settles by hand. A delivery that it drops is requeued.
async fn serve(State(kitchen): State<Kitchen>, Body(order): Body<Order>, delivery: Delivery) {
    if order.dish == "jelly" && kitchen.begin("jelly") == 1 {
        kitchen.ledger.settle(delivery.envelope(), Outcome::Requeue);
        drop(delivery);
    } else {
        let outcome = kitchen.ledger.settle(delivery.envelope(), Outcome::Ack);
        delivery.settle(outcome);
    }
}
