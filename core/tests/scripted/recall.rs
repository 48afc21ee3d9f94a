//! What goes back to the queue was behind everything that a handler has begun on: nothing is overtaken.

use std::sync::{Arc, Mutex};

use enoki_core::{Body, Error, ErrorKind, Handler, Service, State, WorkQueue, transport::End};
use tokio::time::Duration;

use crate::script::{Script, broken, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

type Begun = Arc<Mutex<Vec<usize>>>;

async fn begin(State(begun): State<Begun>, Body(number): Body<String>) {
    begun.lock().unwrap().push(number.parse().unwrap());
}

/// How the deliveries end.
#[derive(Debug, Clone, Copy)]
enum Way {
    Lost,
    Cancelled,
    Stopped,
}

/// One handler at a time, with many deliveries before it when they end; says which it began on.
async fn round(way: Way) -> Vec<usize> {
    let (broker, script) = Script::broker().await;
    let begun = Begun::default();
    let service = Service::new("office", broker).state(begun.clone());
    let running = service.consume(&BILLING, begin.concurrency(1).prefetch(PREFETCH));
    let running = running.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.change(|state| {
        (0..PREFETCH).for_each(|number| state.deliver(&number.to_string()));
        state.end = match way {
            Way::Lost => Some(|| End::Lost(broken())),
            Way::Cancelled => Some(|| End::Cancelled(Error::new(ErrorKind::NotFound, "consume"))),
            Way::Stopped => None,
        };
    });
    if let Way::Stopped = way {
        receiver.settles(1).await;
        in_time(running.stop(Duration::from_secs(60))).await.unwrap();
    } else {
        receiver.is_dropped().await;
        in_time(running.kill()).await;
    }
    std::mem::take(&mut *begun.lock().unwrap())
}

/// On two threads, since it takes two to meet, and many times, since they seldom do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handler_begins_behind_what_was_given_back() {
    for way in [Way::Lost, Way::Cancelled, Way::Stopped] {
        for _ in 0..500 {
            let begun = round(way).await;
            assert!(begun.iter().copied().eq(0..begun.len()), "{way:?}: {begun:?}");
        }
    }
}

const PREFETCH: u16 = 64;
