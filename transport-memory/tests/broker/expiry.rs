//! Expiry: of which messages and queues, when, and which receivers it wakes. The clock is paused: it moves when every task waits.

use std::time::Duration;

use enoki_core::{DeadLetter, Outcome, QueueSpec, transport::Change};
use tokio::time::{Instant, advance};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_queues_and_the_messages_time_counts() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.message_ttl = Some(SECOND * 2)).await;
    bench.send_message("q", expiring("short", SECOND)).await;
    bench.send_message("q", expiring("long", SECOND * 5)).await;
    advance(SECOND - TICK).await;
    assert_eq!(bench.depth("q").await, Some(2));
    advance(TICK).await;
    assert_eq!(bench.depth("q").await, Some(1));
    advance(SECOND).await;
    assert_eq!(bench.depth("q").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn messages_expire_at_the_head_only() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    bench.send("q", "blocks").await;
    bench.send_message("q", expiring("behind", SECOND)).await;
    bench.send_message("q", expiring("stays", SECOND * 100)).await;
    advance(SECOND * 10).await;
    assert_eq!(bench.depth("q").await, Some(3));
    // It is never delivered, though.
    let mut receiver = bench.consume("q", 1).await;
    let blocks = next(&mut receiver).await;
    assert_eq!(bench.depth("q").await, Some(1));
    settle(&mut receiver, &blocks, Outcome::Ack);
    assert_eq!(all(&mut receiver).await, ["stays"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_message_behind_the_head_is_not_delivered_in_the_same_breath() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    bench.send("q", "blocks").await;
    bench.send_message("q", expiring("behind", SECOND)).await;
    advance(SECOND * 10).await;
    let mut receiver = bench.consume("q", 10).await;
    assert_eq!(all(&mut receiver).await, ["blocks"]);
}

#[tokio::test(start_paused = true)]
async fn what_expires_at_once_is_for_a_consumer_that_waits() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    bench.send_message("q", expiring("gone", Duration::ZERO)).await;
    assert_eq!(bench.depth("q").await, Some(0));
    let mut receiver = bench.consume("q", 1).await;
    bench.send_message("q", expiring("taken", Duration::ZERO)).await;
    bench.send_message("q", expiring("no room", Duration::ZERO)).await;
    let taken = next(&mut receiver).await;
    assert_eq!(body(&taken), "taken");
    assert_eq!(bench.depth("q").await, Some(0));
    settle(&mut receiver, &taken, Outcome::Requeue);
    assert_eq!(all(&mut receiver).await, [""; 0], "it expired while it was held");
}

#[tokio::test(start_paused = true)]
async fn a_held_message_does_not_expire_until_it_comes_back() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.message_ttl = Some(SECOND)).await;
    bench.send("q", "a").await;
    let mut receiver = bench.consume("q", 1).await;
    let a = next(&mut receiver).await;
    advance(SECOND * 10).await;
    settle(&mut receiver, &a, Outcome::Requeue);
    assert_eq!(all(&mut receiver).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_sleeps_drives_the_clock() {
    let mut bench = delayed().await;
    let start = Instant::now();
    bench.send("wait", "a").await;
    let mut receiver = bench.consume("work", 1).await;
    assert_eq!(body(&next(&mut receiver).await), "a");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_sleeps_already_hears_of_an_earlier_alarm() {
    let mut bench = delayed().await;
    let start = Instant::now();
    bench.send("wait", "later").await;
    let mut receiver = bench.consume("work", 10).await;
    let sleeper = tokio::spawn(async move {
        let first = body(&next(&mut receiver).await);
        (first, start.elapsed().as_secs(), receiver)
    });
    tokio::task::yield_now().await;
    bench.send_message("other wait", expiring("sooner", SECOND)).await;
    let (first, seconds, mut receiver) = sleeper.await.unwrap();
    assert_eq!((first.as_str(), seconds), ("sooner", 1));
    assert_eq!(body(&next(&mut receiver).await), "later");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_sleeps_without_an_alarm_hears_of_the_first() {
    let mut bench = delayed().await;
    let mut receiver = bench.consume("work", 10).await;
    let sleeper = tokio::spawn(async move { body(&next(&mut receiver).await) });
    tokio::task::yield_now().await;
    bench.send("wait", "a").await;
    assert_eq!(sleeper.await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn what_is_noticed_late_has_happened_in_time() {
    let mut bench = Bench::new().await;
    bench.queue("end").await;
    bench.declare("second", |q| expires_to(q, SECOND, "end")).await;
    bench.declare("first", |q| expires_to(q, SECOND, "second")).await;
    bench.send("first", "a").await;
    // No call looks after one second, when it moves on.
    advance(SECOND * 2).await;
    assert_eq!(bench.depth("end").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_message_dies_before_its_queue_however_late_that_is_noticed() {
    let mut bench = Bench::new().await;
    bench.queue("end").await;
    bench
        .declare("q", |q| {
            expires_to(q, SECOND, "end");
            q.expires = Some(SECOND * 2);
        })
        .await;
    bench.send("q", "a").await;
    advance(SECOND * 3).await;
    assert_eq!((bench.depth("q").await, bench.depth("end").await), (None, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_becomes_the_head_brings_its_own_time() {
    let mut bench = delayed().await;
    bench.send("other wait", "long").await;
    bench.send_message("other wait", expiring("short", SECOND)).await;
    let mut receiver = bench.consume("other wait", 1).await;
    next(&mut receiver).await;
    let start = Instant::now();
    let mut work = bench.consume("work", 1).await;
    assert_eq!(body(&next(&mut work).await), "short");
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unused_queue_goes_and_a_used_one_stays() {
    let mut bench = Bench::new().await;
    let expires = |q: &mut QueueSpec| q.expires = Some(SECOND * 10);
    bench.declare("q", expires).await;
    advance(SECOND * 9).await;
    bench.declare("q", expires).await;
    advance(SECOND * 9).await;
    assert_eq!(bench.depth("q").await, Some(0), "declaring it again is a use");
    let receiver = bench.consume("q", 1).await;
    advance(SECOND * 100).await;
    assert_eq!(bench.depth("q").await, Some(0));
    drop(receiver);
    advance(SECOND * 10 - TICK).await;
    assert_eq!(bench.depth("q").await, Some(0), "the time begins when the last consumer goes");
    advance(SECOND * 10 - TICK).await;
    assert_eq!(bench.depth("q").await, Some(0), "to look at it is to use it");
    advance(SECOND * 9).await;
    let by_name = queue("q", |q| q.passive = true);
    bench
        .apply(Change::VerifyQueue(by_name))
        .await
        .expect("to look for its name is to use it, too");
    advance(SECOND * 10 - TICK).await;
    assert_eq!(bench.depth("q").await, Some(0));
    advance(SECOND * 10).await;
    assert_eq!(bench.depth("q").await, None);
}

/// A queue `work`, and queues `wait` (ten seconds) and `other wait` that lead to it.
async fn delayed() -> Bench {
    let mut bench = Bench::new().await;
    bench.queue("work").await;
    bench.declare("wait", |q| expires_to(q, SECOND * 10, "work")).await;
    bench.declare("other wait", |q| expires_to(q, SECOND * 100, "work")).await;
    bench
}

fn expires_to(queue: &mut QueueSpec, after: Duration, target: &str) {
    queue.message_ttl = Some(after);
    queue.dead_letter = Some(DeadLetter { exchange: short(""), routing_key: Some(short(target)) });
}

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);
