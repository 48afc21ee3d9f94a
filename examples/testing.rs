//! A service and its tests: a handler by itself, a dependency that is replaced, the whole service in
//! memory, and a mock of a broker that fails as the test says.
//!
//! ```sh
//! cargo run --example testing
//! cargo test --example testing --features mock
//! ```
#![allow(clippy::print_stdout)]

use std::{sync::Arc, time::Duration};

use enoki::{
    Body, Broker, Failure, Publisher, Route, Service, State, Topic, WorkQueue,
    consume::{Handler, OnError},
    testing::EntrypointWaiter,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    id: u32,
    cents: u32,
    currency: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    order: u32,
    euro_cents: u32,
}

const SHOP: Topic = Topic::new("testing.shop");
const ORDERS: WorkQueue<Order> = WorkQueue::new("testing.orders");
const RECEIPT: Route<Receipt> = SHOP.route("receipt.made");
const RECEIPTS: WorkQueue<Receipt> =
    WorkQueue::new("testing.receipts").bind(&[SHOP.pattern("receipt.*")]);
const _: () = assert!(RECEIPTS.accepts(&RECEIPT), "no queue gets receipts");

/// A dependency of the service: a table here; it could be a call to a bank.
#[cfg_attr(test, mockall::automock)]
trait Rates: Send + Sync {
    /// What a hundred cents of this currency are in euro cents, if it is known.
    fn euro_cents(&self, currency: &str) -> Option<u32>;
}

struct Table;

impl Rates for Table {
    fn euro_cents(&self, currency: &str) -> Option<u32> {
        match currency {
            "EUR" => Some(100),
            "SEK" => Some(9),
            _ => None,
        }
    }
}

/// The state of the service: all that its handlers depend on. A test makes another one.
#[derive(Clone)]
struct Desk {
    rates: Arc<dyn Rates>,
    receipts: Publisher<Receipt>,
}

async fn bill(State(desk): State<Desk>, Body(order): Body<Order>) -> Result<(), Failure> {
    let rate = desk.rates.euro_cents(&order.currency);
    let rate = rate.ok_or_else(|| Failure::new(format!("no rate for {}", order.currency)))?;
    let receipt = Receipt { order: order.id, euro_cents: order.cents * rate / 100 };
    desk.receipts.publish(&receipt).await?;
    Ok(())
}

/// The same service for the program and for its tests.
fn service(broker: Broker, desk: Desk) -> Service<Desk> {
    Service::new("billing", broker).state(desk).consume(&ORDERS, billing())
}

/// The handler, and what becomes of its errors.
fn billing() -> impl Handler<Order, Desk, (State<Desk>, Body<Order>)> {
    bill.concurrency(4).on_error(OnError::reject())
}

#[tokio::main]
async fn main() -> enoki::Result<()> {
    let broker = enoki::connect("memory:").await?;
    broker.declare(&enoki::topology::Topology::new().with_queue(&RECEIPTS)).await?;
    let receipts = broker.publisher(&RECEIPT).await?;
    let running =
        service(broker.clone(), Desk { rates: Arc::new(Table), receipts }).start().await?;
    let mut waiter = EntrypointWaiter::new(&running);
    let order = Order { id: 1, cents: 850, currency: "SEK".to_owned() };
    let sent = broker.publisher(&ORDERS.route()).await?.publish(&order).await?;
    let result = waiter.of_message(&sent.message_id).await?;
    println!("order 1 is billed: {:?}", result.outcome);
    running.stop(Duration::from_secs(5)).await
}

#[cfg(test)]
mod tests {
    use enoki::{Outcome, testing::EntrypointHook, topology::Topology};

    use super::*;

    fn order(currency: &str) -> Order {
        Order { id: 7, cents: 1000, currency: currency.to_owned() }
    }

    /// A rate for crowns, which is asked for once.
    fn crowns(rate: Option<u32>) -> Arc<dyn Rates> {
        let mut rates = MockRates::new();
        rates.expect_euro_cents().withf(|of| of == "SEK").times(1).return_const(rate);
        Arc::new(rates)
    }

    /// A broker of this test's own, with a queue that gets the receipts.
    async fn broker(test: &str) -> Broker {
        let broker = enoki::connect(format!("memory://testing-{test}")).await.unwrap();
        broker.declare(&Topology::new().with_queue(&RECEIPTS)).await.unwrap();
        broker
    }

    async fn receipt(broker: &Broker) -> Receipt {
        let mut receipts = broker.subscribe(&RECEIPTS, 1).await.unwrap();
        let delivery = receipts.next().await.unwrap().unwrap();
        let receipt = delivery.decode().unwrap();
        delivery.settle(Outcome::Ack);
        receipt
    }

    /// The handler alone, called as a consumer calls it, with a dependency that is replaced.
    #[tokio::test]
    async fn an_order_is_billed_in_euros() {
        let broker = broker("hook").await;
        let receipts = broker.publisher(&RECEIPT).await.unwrap();
        let desk = Desk { rates: crowns(Some(9)), receipts };
        let hook = EntrypointHook::new(&ORDERS, billing(), desk);
        let result = hook.call(&order("SEK")).await.unwrap();
        assert_eq!(result.outcome, Some(Outcome::Ack));
        assert_eq!(receipt(&broker).await, Receipt { order: 7, euro_cents: 90 });
    }

    #[tokio::test]
    async fn an_order_without_a_rate_is_rejected() {
        let receipts = broker("no-rate").await.publisher(&RECEIPT).await.unwrap();
        let hook = EntrypointHook::new(&ORDERS, billing(), Desk { rates: crowns(None), receipts });
        let result = hook.call(&order("SEK")).await.unwrap();
        assert_eq!(result.outcome, Some(Outcome::Reject));
        assert_eq!(result.failure().unwrap().to_string(), "no rate for SEK");
    }

    /// The whole service, on the broker in memory: published, routed, handled, settled.
    #[tokio::test]
    async fn the_service_bills_what_is_published() {
        let broker = broker("service").await;
        let receipts = broker.publisher(&RECEIPT).await.unwrap();
        let desk = Desk { rates: Arc::new(Table), receipts };
        let running = service(broker.clone(), desk).start().await.unwrap();
        let mut waiter = EntrypointWaiter::new(&running); // before the first message
        let orders = broker.publisher(&ORDERS.route()).await.unwrap();
        let unknown = orders.publish(&order("XXX")).await.unwrap();
        let known = orders.publish(&order("SEK")).await.unwrap();
        let result = waiter.of_message(&known.message_id).await.unwrap();
        assert_eq!(result.outcome, Some(Outcome::Ack));
        assert_eq!(receipt(&broker).await, Receipt { order: 7, euro_cents: 90 });
        let result = waiter.of_message(&unknown.message_id).await.unwrap();
        assert_eq!(result.outcome, Some(Outcome::Reject));
        running.stop(Duration::from_secs(5)).await.unwrap();
    }

    /// A broker that has no room for receipts, which no broker is on demand.
    #[cfg(feature = "mock")]
    #[tokio::test]
    async fn an_order_whose_receipt_is_refused_is_not_acknowledged() {
        let broker = Broker::connect(Arc::new(full::broker())).await.unwrap();
        let receipts = broker.publisher(&RECEIPT).await.unwrap();
        let desk = Desk { rates: crowns(Some(9)), receipts };
        let hook = EntrypointHook::new(&ORDERS, billing(), desk);
        let result = hook.call(&order("SEK")).await.unwrap();
        assert_eq!(result.outcome, Some(Outcome::Reject));
        let failure = result.failure().unwrap();
        assert!(failure.to_string().contains("the queue is full"), "{failure}");
    }

    #[cfg(feature = "mock")]
    mod full {
        use std::{
            future::{pending, ready},
            sync::Arc,
        };

        use enoki::{
            Error, ErrorKind,
            broker::{Capability, Peer},
            mock::{MockSender, MockSession, MockTransport},
            transport::{Found, PublishOutcome},
        };
        use tokio::sync::mpsc;

        /// A broker that refuses each message, because its queue is full.
        pub(super) fn broker() -> MockTransport {
            let mut broker = MockTransport::new();
            broker.expect_name().return_const("full");
            broker.expect_connect().returning(|_, _| Box::pin(ready(Ok(Arc::new(session()) as _))));
            broker
        }

        fn session() -> MockSession {
            let mut session = MockSession::new();
            let can = [Capability::Exchanges, Capability::UnroutableDetection];
            session.expect_peer().return_const(Peer::new("full", "1", can));
            session.expect_ended().returning(|| Box::pin(pending()));
            session.expect_apply().returning(|_| Box::pin(ready(Ok(Found::default()))));
            session.expect_sender().returning(|_| Box::pin(ready(Ok(Box::new(sender()) as _))));
            session.expect_close().returning(|_| Box::pin(ready(())));
            session
        }

        fn sender() -> MockSender {
            let (take, mut taken) = mpsc::unbounded_channel();
            let mut sender = MockSender::new();
            sender.expect_submit().returning(move |messages| {
                messages.drain(..).try_for_each(|message| take.send(message.id)).unwrap();
                Box::pin(ready(Ok(())))
            });
            sender.expect_outcomes().returning(move |outcomes| {
                let Ok(id) = taken.try_recv() else { return Box::pin(pending()) };
                let full = Error::new(ErrorKind::Refused, "store").because("the queue is full");
                outcomes.push((id, PublishOutcome::Rejected(full)));
                Box::pin(ready(Ok(())))
            });
            sender
        }
    }
}
