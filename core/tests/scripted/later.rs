//! Deliveries that are requeued for later: by the broker, or held here until then.

use std::{sync::Arc, time::Duration};

use enoki_core::{Broker, Delivery, Outcome, Purpose, Settled, Subscription, WorkQueue};
use tokio::time::{Instant, sleep};

use crate::script::{ReceiverState, Script, Watched, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");
const MINUTE: Duration = Duration::from_secs(60);

struct Stage {
    subscription: Subscription,
    receiver: Arc<Watched<ReceiverState>>,
    script: Arc<Script>,
    _broker: Broker,
}

impl Stage {
    /// A consumer with this prefetch, and as many deliveries.
    async fn with(prefetch: u16) -> (Self, Vec<Delivery>) {
        let (broker, script) = Script::broker().await;
        let mut subscription = broker.subscribe(&BILLING, prefetch).await.unwrap();
        let receiver = script.receiver(0).await;
        let mut deliveries = Vec::new();
        for n in 0..prefetch {
            receiver.deliver(&n.to_string());
            deliveries.push(in_time(subscription.next()).await.unwrap().unwrap());
        }
        (Self { subscription, receiver, script, _broker: broker }, deliveries)
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_broker_can_wait_it_does() {
    let (stage, mut deliveries) = Stage::with(1).await;
    stage.receiver.change(|state| state.delays = true);
    let since = Instant::now();
    deliveries.remove(0).settle(Outcome::RetryAfter(MINUTE));
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::RetryAfter(MINUTE))]);
    assert!(since.elapsed() < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_deliveries_are_held_and_each_is_requeued_at_its_time() {
    let (stage, deliveries) = Stage::with(4).await;
    let since = Instant::now();
    for (delivery, minutes) in deliveries.into_iter().zip([3, 1, 2, 1]) {
        let later = Outcome::RetryAfter(minutes * MINUTE);
        assert_eq!(delivery.settle(later), Settled::Queued);
    }
    for (minute, settled) in [(1, vec![2, 4]), (2, vec![2, 3, 4]), (3, vec![1, 2, 3, 4])] {
        sleep(since + minute * MINUTE - Duration::from_millis(1) - Instant::now()).await;
        assert!(stage.receiver.settlements().len() < settled.len(), "too early: minute {minute}");
        stage.receiver.settles(settled.len()).await;
        let expected: Vec<_> = settled.iter().map(|tag| (*tag, Outcome::Requeue)).collect();
        assert_eq!(stage.receiver.settlements(), expected);
        assert_eq!(since.elapsed().as_secs(), u64::from(minute) * 60);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_counts_towards_the_prefetch_and_other_settlements_go_on() {
    let (mut stage, mut deliveries) = Stage::with(2).await;
    deliveries.remove(0).settle(Outcome::RetryAfter(MINUTE));
    stage.receiver.deliver("third");
    deliveries.remove(0).settle(Outcome::Ack);
    let third = in_time(stage.subscription.next()).await.unwrap().unwrap();
    assert_eq!(stage.receiver.settlements(), [(2, Outcome::Ack)]);
    stage.receiver.deliver("fourth");
    // One is held and one is with the program: there is no room until the first is due.
    let since = Instant::now();
    let fourth = in_time(stage.subscription.next()).await.unwrap().unwrap();
    assert_eq!(since.elapsed().as_secs(), 60);
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn stopping_requeues_at_once_what_is_held() {
    let (mut stage, mut deliveries) = Stage::with(2).await;
    deliveries.remove(0).settle(Outcome::RetryAfter(MINUTE));
    let running = deliveries.remove(0);
    let since = Instant::now();
    let handler = async {
        sleep(Duration::from_secs(1)).await;
        // Also what is settled while it stops.
        running.settle(Outcome::RetryAfter(MINUTE));
    };
    let stopping = stage.subscription.stop(Duration::from_secs(30));
    let (stopped, ()) = tokio::join!(stopping, handler);
    stopped.unwrap();
    assert_eq!(since.elapsed().as_secs(), 1);
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue), (2, Outcome::Requeue)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_when_the_connection_breaks_is_the_brokers() {
    let (stage, mut deliveries) = Stage::with(1).await;
    deliveries.remove(0).settle(Outcome::RetryAfter(MINUTE));
    stage.script.session(Purpose::Consume, 0).await.break_off();
    stage.receiver.is_dropped().await;
    assert_eq!(stage.receiver.settlements(), []);
}

#[tokio::test(start_paused = true)]
async fn no_delay_is_a_requeue_and_none_is_longer_than_the_longest() {
    let (stage, deliveries) = Stage::with(2).await;
    stage.receiver.change(|state| state.delays = true);
    for (delivery, delay) in deliveries.into_iter().zip([Duration::ZERO, Duration::MAX]) {
        delivery.settle(Outcome::RetryAfter(delay));
    }
    stage.receiver.settles(2).await;
    let longest = Outcome::RetryAfter(Outcome::LONGEST_DELAY);
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue), (2, longest)]);
}
