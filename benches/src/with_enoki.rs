//! enoki, used the way its README shows: a publisher that enqueues, a service that handles.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use enoki::{
    Body, Broker, Publisher, Service, State,
    codec::Raw,
    consume::Handler,
    topology::{DynamicQueue, QueueSpec, RouteSpec},
};
use tokio::sync::Notify;

use crate::{Load, OUTSTANDING, Outcome};

/// The broker's name and version.
pub(crate) async fn peer(load: &Load) -> Outcome<String> {
    let broker = enoki::connect(&load.url).await?;
    let peer = broker.peer().to_string();
    close(broker).await;
    Ok(peer)
}

/// Publishes confirmed, with at most 256 confirms outstanding: the default window.
pub(crate) async fn publish(load: &Load) -> Outcome<Duration> {
    let broker = enoki::connect(&load.url).await?;
    let publisher = broker.publisher(route(load)?).await?;
    // Opens the channel, which the bare clients have open when their time begins.
    publisher.publish(&Raw::from(load.body.clone())).await?;
    let started = Instant::now();
    publish_all(&publisher, load).await?;
    let time = started.elapsed();
    close(broker).await;
    Ok(time)
}

/// Handles each delivery, with a prefetch of 256; it is acknowledged when the handler returns.
pub(crate) async fn consume(load: &Load) -> Outcome<Duration> {
    let broker = enoki::connect(&load.url).await?;
    let started = Instant::now();
    let done = Arc::new(Done { open: AtomicUsize::new(load.messages), all: Notify::new() });
    let service = Service::new("bench", broker.clone())
        .state(done.clone())
        .consume(&queue(load)?, count.concurrency(16).prefetch(OUTSTANDING))
        .start()
        .await?;
    done.all.notified().await;
    let time = started.elapsed();
    service.stop(soon()).await?;
    close(broker).await;
    Ok(time)
}

/// Publishes and handles at the same time, the whole way through.
pub(crate) async fn publish_handle_ack(load: &Load) -> Outcome<Duration> {
    let broker = enoki::connect(&load.url).await?;
    let done = Arc::new(Done { open: AtomicUsize::new(load.messages), all: Notify::new() });
    let service = Service::new("bench", broker.clone())
        .state(done.clone())
        .consume(&queue(load)?, count.concurrency(16).prefetch(OUTSTANDING))
        .start()
        .await?;
    let publisher = broker.publisher(route(load)?).await?;
    let started = Instant::now();
    publish_all(&publisher, load).await?;
    done.all.notified().await;
    let time = started.elapsed();
    service.stop(soon()).await?;
    Ok(time)
}

async fn publish_all(publisher: &Publisher<Raw>, load: &Load) -> Outcome<()> {
    let message = Raw::from(load.body.clone());
    let mut confirms = VecDeque::with_capacity(OUTSTANDING.into());
    for _ in 0..load.messages {
        if confirms.len() == usize::from(OUTSTANDING)
            && let Some(oldest) = confirms.pop_front()
        {
            let oldest: enoki::publish::Confirm = oldest;
            oldest.await?;
        }
        confirms.push_back(publisher.enqueue(&message).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    Ok(())
}

struct Done {
    open: AtomicUsize,
    all: Notify,
}

async fn count(State(done): State<Arc<Done>>, Body(_): Body<Raw>) {
    if done.open.fetch_sub(1, Ordering::Relaxed) == 1 {
        done.all.notify_one();
    }
}

fn queue(load: &Load) -> enoki::Result<DynamicQueue<Raw>> {
    Ok(QueueSpec::new(load.queue)?.of())
}

fn route(load: &Load) -> enoki::Result<RouteSpec<Raw>> {
    RouteSpec::to_queue(load.queue)
}

async fn close(broker: Broker) {
    broker.close(soon()).await;
}

fn soon() -> Duration {
    Duration::from_secs(5)
}
