//! What a program awaits it can also spawn: every future is `Send`, and owns or borrows no more
//! than it says.

use std::time::Duration;

use enoki_core::{
    Broker, Capability, Confirm, Confirmed, Delivery, Publisher, Route, RunningService, Service,
    Subscription, Topic, Topology, WorkQueue, transport::Change,
};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> = WorkQueue::new("billing").bind(&[SHOP.pattern("order.*")]);

fn spawn<F: Future<Output: Send> + Send + 'static>(future: F) {
    tokio::spawn(future);
}

fn is_send<F: Future + Send>(future: F) {
    drop(future);
}

async fn handler() {}

fn owning(broker: Broker, publisher: Publisher<String>, confirm: Confirm) {
    spawn(confirm);
    let moved = publisher.clone();
    spawn(async move { moved.publish(&"a".to_owned()).await.map(|_: Confirmed| ()) });
    let moved = publisher.clone();
    spawn(async move { moved.publish_all(&["a".to_owned(), "b".to_owned()]).await.len() });
    let moved = publisher;
    spawn(async move { moved.message(&"a".to_owned())?.priority(1).publish().await });
    let moved = broker.clone();
    spawn(async move {
        moved.require([Capability::Exchanges])?;
        let deliveries = moved.subscribe(&BILLING, 8).await;
        let publisher = moved.publisher(&PLACED).await;
        moved.close(Duration::ZERO).await;
        publisher.and(deliveries)
    });
    spawn(Service::new("a", broker.clone()).consume(&BILLING, handler).start());
    spawn(Service::new("a", broker).consume(&BILLING, handler).run_until(std::future::pending()));
}

fn ending(running: RunningService, killed: RunningService) {
    spawn(running.stop(Duration::ZERO));
    spawn(killed.kill());
}

fn borrowing(broker: &Broker, publisher: &Publisher<String>, deliveries: &mut Subscription) {
    is_send(publisher.publish(&"a".to_owned()));
    is_send(publisher.publish_to("key", &"a".to_owned()));
    is_send(publisher.enqueue(&"a".to_owned()));
    is_send(broker.declare(&Topology::new()));
    is_send(broker.queue_status(&BILLING));
    is_send(broker.apply(&Change::PurgeQueue(enoki_core::ShortStr::EMPTY)));
    is_send(deliveries.next());
    is_send(deliveries.stop(Duration::ZERO));
}

fn shared<T: Send + Sync + 'static>() {}

fn main() {
    let _ = (owning, ending, borrowing);
    shared::<Broker>();
    shared::<Publisher<String>>();
    shared::<Delivery>();
    shared::<enoki_core::Error>();
    shared::<enoki_core::Context>();
}
