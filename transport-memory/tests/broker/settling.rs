//! Settlement, attempts, places, and who gets the next message.

use enoki_core::{Counted, Outcome, transport::Settle};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_requeued_message_goes_back_to_its_place_and_says_so() {
    let mut bench = Bench::with_messages("q", &["a", "b", "c"]).await;
    let mut receiver = bench.consume("q", 2).await;
    let (a, b) = (next(&mut receiver).await, next(&mut receiver).await);
    assert_eq!((body(&a), body(&b)), ("a".into(), "b".into()));
    assert!(!a.redelivered);
    assert_eq!((a.attempt.number, a.attempt.counted), (1, Counted::ByBroker));

    settle(&mut receiver, &a, Outcome::Requeue);
    let a = next(&mut receiver).await;
    assert_eq!((body(&a).as_str(), a.redelivered, a.attempt.number), ("a", true, 2));

    settle(&mut receiver, &a, Outcome::Release);
    let a = next(&mut receiver).await;
    assert_eq!((body(&a).as_str(), a.redelivered, a.attempt.number), ("a", true, 2));
    assert_eq!(bench.depth("q").await, Some(1));
    bench.send("q", "d").await;
}

#[tokio::test(start_paused = true)]
async fn messages_come_back_in_the_order_of_the_queue_not_of_their_return() {
    let bench = Bench::with_messages("q", &["a", "b", "c", "d", "e"]).await;
    let mut receiver = bench.consume("q", 4).await;
    let mut taken = Vec::new();
    receiver.receive(&mut taken, 4).await.unwrap();
    let mut other = bench.consume("q", 10).await;
    assert_eq!(all(&mut other).await, ["e"]);
    drop(other);

    // One batch: the broker sorts before it delivers.
    let settlements: Vec<_> = [2, 0, 3, 1]
        .iter()
        .map(|at: &usize| Settle::new(taken[*at].tag, Outcome::Requeue))
        .collect();
    receiver.stop().await.unwrap();
    receiver.settle(&settlements);
    let mut other = bench.consume("q", 10).await;
    assert_eq!(all(&mut other).await, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_settlement_does_not_hit_the_next_delivery() {
    let bench = Bench::with_messages("q", &["a", "b"]).await;
    let mut receiver = bench.consume("q", 1).await;
    let a = next(&mut receiver).await;
    settle(&mut receiver, &a, Outcome::Ack);
    let b = next(&mut receiver).await;
    settle(&mut receiver, &a, Outcome::Ack);
    settle(&mut receiver, &a, Outcome::Requeue);
    drop(receiver);
    let mut receiver = bench.consume("q", 1).await;
    assert_eq!(body(&next(&mut receiver).await), body(&b));
    assert_eq!(all(&mut receiver).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_holds_no_more_than_its_prefetch() {
    let bench = Bench::with_messages("q", &["a", "b", "c", "d"]).await;
    let mut receiver = bench.consume("q", 2).await;
    let mut taken = Vec::new();
    receiver.receive(&mut taken, 100).await.unwrap();
    assert_eq!(taken.len(), 2);
    assert_eq!(all(&mut receiver).await, [""; 0]);
    assert_eq!(bench.depth("q").await, Some(2));
    settle(&mut receiver, &taken[1], Outcome::Ack);
    assert_eq!(all(&mut receiver).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn consumers_take_turns_and_one_without_room_is_passed_over() {
    let mut bench = Bench::with_messages("q", &[]).await;
    let mut first = bench.consume("q", 10).await;
    let mut second = bench.consume("q", 2).await;
    let mut third = bench.consume("q", 10).await;
    for body in ["1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        bench.send("q", body).await;
    }
    assert_eq!(all(&mut first).await, ["1", "4", "7", "9"]);
    let mut taken = Vec::new();
    second.receive(&mut taken, 10).await.unwrap();
    assert_eq!(taken.iter().map(body).collect::<Vec<_>>(), ["2", "5"]);
    assert_eq!(all(&mut third).await, ["3", "6", "8"]);

    // With room again it waits behind the others.
    settle(&mut second, &taken[0], Outcome::Ack);
    for body in ["10", "11", "12"] {
        bench.send("q", body).await;
    }
    assert_eq!(all(&mut third).await, ["10"]);
    assert_eq!(all(&mut first).await, ["11"]);
    assert_eq!(all(&mut second).await, ["12"]);
}

#[tokio::test(start_paused = true)]
async fn one_consumer_is_active_until_it_goes() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.single_active_consumer = true).await;
    let mut first = bench.consume("q", 1).await;
    let mut second = bench.consume("q", 10).await;
    for body in ["a", "b"] {
        bench.send("q", body).await;
    }
    let a = next(&mut first).await;
    assert_eq!(all(&mut second).await, [""; 0], "b waits for the first, which has no room");

    first.stop().await.unwrap();
    assert_eq!(all(&mut second).await, ["b"]);
    settle(&mut first, &a, Outcome::Requeue);
    assert_eq!(all(&mut second).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receiver_gives_back_what_it_took_and_what_was_on_its_way() {
    let bench = Bench::with_messages("q", &["a", "b", "c"]).await;
    let mut receiver = bench.consume("q", 2).await;
    next(&mut receiver).await;
    assert_eq!(bench.depth("q").await, Some(1));
    drop(receiver);
    assert_eq!(bench.depth("q").await, Some(3));
    let mut receiver = bench.consume("q", 3).await;
    for (expected, attempt) in [("a", 2), ("b", 2), ("c", 1)] {
        let delivered = next(&mut receiver).await;
        assert_eq!((body(&delivered).as_str(), delivered.attempt.number), (expected, attempt));
        assert_eq!(delivered.redelivered, attempt > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_receiver_gives_what_is_under_way_and_still_settles() {
    let bench = Bench::with_messages("q", &["a", "b", "c"]).await;
    let mut receiver = bench.consume("q", 2).await;
    receiver.stop().await.unwrap();
    receiver.stop().await.unwrap();
    let (a, b) = (next(&mut receiver).await, next(&mut receiver).await);
    settle(&mut receiver, &a, Outcome::Ack);
    settle(&mut receiver, &b, Outcome::Release);
    for _ in 0..2 {
        assert!(matches!(end(&mut receiver).await, End::Stopped));
    }
    assert_eq!(bench.depth("q").await, Some(2));
    receiver.close().await.unwrap();
    receiver.close().await.unwrap();
    assert!(matches!(end(&mut receiver).await, End::Stopped));

    let mut receiver = bench.consume("q", 2).await;
    let b = next(&mut receiver).await;
    assert_eq!((body(&b).as_str(), b.redelivered, b.attempt.number), ("b", true, 1));
}
