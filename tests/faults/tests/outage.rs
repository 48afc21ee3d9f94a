//! A broker that is away for long, on a clock that does not have to wait for it.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use enoki::{
    Broker, ErrorKind, Outcome, Publisher, Result,
    broker::Health,
    memory::MemoryTransport,
    publish::PublisherOptions,
    topology::{QueueSpec, RouteSpec, Topology},
    transport::{Purpose, Session, Transport},
};
use enoki_faults::interposed::{Between, Reach};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Counts who connects.
#[derive(Debug)]
struct Counting {
    inner: Between,
    tries: watch::Sender<u64>,
}

#[async_trait]
impl Transport for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    async fn connect(&self, purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        self.tries.send_modify(|tries| *tries += 1);
        self.inner.connect(purpose, deadline).await
    }
}

const OUTAGE: Duration = Duration::from_secs(600);
const WINDOW: u16 = 20;

async fn r12(reach: Reach) {
    let between = Between::new(Arc::new(MemoryTransport::isolated()));
    let counting = Arc::new(Counting { inner: between.clone(), tries: watch::Sender::new(0) });
    let broker = Broker::connect(counting.clone()).await.unwrap();
    let queue = QueueSpec::new("q").unwrap().of::<u32>();
    broker.declare(&Topology::new().with_queue(&queue)).await.unwrap();
    let options = PublisherOptions::new().window(WINDOW).timeout(2 * OUTAGE);
    let publisher: Publisher<u32> =
        broker.publisher_with(RouteSpec::to_queue("q").unwrap(), options).await.unwrap();
    let mut deliveries = broker.subscribe(&queue, 5).await.unwrap();
    publisher.publish(&0).await.unwrap();
    deliveries.next().await.unwrap().unwrap().settle(Outcome::Ack);

    between.reach(reach);
    between.sever(&[Purpose::Publish, Purpose::Consume]).await;
    let before = *counting.tries.borrow();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut waiting = Vec::new();
    for number in 1..=u32::from(WINDOW) {
        waiting.push(publisher.enqueue(&number).await.unwrap());
    }
    // The window is full, so nothing more is taken in.
    let one_more = timeout(Duration::from_secs(60), publisher.enqueue(&99)).await;
    assert!(one_more.is_err(), "a message more than the window has room for");
    let tasks_then = tasks();
    sleep(OUTAGE - Duration::from_secs(60)).await;
    assert!(tasks() <= tasks_then, "{} tasks have become {}", tasks_then, tasks());

    // Two connections, each tried every 0.6 to 1.2 seconds in the end, since calls wait for both; a try
    // that hangs takes as long as it may.
    let tries = *counting.tries.borrow() - before;
    assert!((20..=2_100).contains(&tries), "{tries} tries in ten minutes");
    let health = broker.health().borrow().clone();
    assert!(matches!(health.publishing, Health::Reconnecting { .. }), "{health}");
    assert!(matches!(health.consuming, Health::Reconnecting { .. }), "{health}");

    between.heal();
    let healed = Instant::now();
    for confirm in waiting {
        confirm.await.unwrap();
    }
    let mut expected = 1..=u32::from(WINDOW);
    while !expected.is_empty() {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let number = delivery.decode::<u32>().unwrap();
        // Its settlement may have gone down with the connection.
        if number != 0 {
            assert_eq!(Some(number), expected.next());
        }
        delivery.settle(Outcome::Ack);
    }
    // A try that hangs until its deadline, and the longest pauses after it: of the connection, and of
    // the consumer that waits for it.
    let back = healed.elapsed();
    assert!(back < Duration::from_secs(90), "it took {back:?} to work again");
    broker.close(Duration::from_secs(5)).await;
    assert_eq!(publisher.publish(&1).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn r12_ten_minutes_without_a_broker_that_refuses_cost_nothing() {
    r12(Reach::Refused).await;
}

#[tokio::test(start_paused = true)]
async fn r12_ten_minutes_without_a_broker_that_hangs_cost_nothing() {
    r12(Reach::Hanging).await;
}
