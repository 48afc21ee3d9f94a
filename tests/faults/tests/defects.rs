//! Promises that once did not hold, each by the shortest way to see it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use enoki::{
    Broker, Publisher,
    memory::MemoryTransport,
    publish::PublisherOptions,
    topology::{QueueSpec, RouteSpec, Topology},
    transport::Purpose,
};
use enoki_faults::interposed::{Between, Reach};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_publisher_whose_messages_have_little_time_works_again_when_the_broker_does() {
    let between = Between::new(Arc::new(MemoryTransport::isolated()));
    let broker = Broker::connect(Arc::new(between.clone())).await.unwrap();
    let queue = QueueSpec::new("q").unwrap().of::<u32>();
    broker.declare(&Topology::new().with_queue(&queue)).await.unwrap();
    let options = PublisherOptions::new().timeout(Duration::from_secs(1));
    let publisher: Publisher<u32> =
        broker.publisher_with(RouteSpec::to_queue("q").unwrap(), options).await.unwrap();
    publisher.publish(&0).await.unwrap();

    between.reach(Reach::Refused);
    between.sever(&[Purpose::Publish]).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        let _ = publisher.publish(&1).await;
        sleep(Duration::from_millis(100)).await;
    }
    between.heal();
    let healed = Instant::now();
    let mut last = None;
    while healed.elapsed() < Duration::from_secs(600) {
        match publisher.publish(&2).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(100)).await;
    }
    let health = broker.health().borrow().clone();
    panic!("for ten minutes, with the connections {health}: {}", last.unwrap());
}
