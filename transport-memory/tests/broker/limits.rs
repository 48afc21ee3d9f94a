//! Length, priority and delivery limits.

use enoki_core::{
    DeadLetter, ErrorKind, Message, Outcome, Overflow, QueueKind, Value,
    transport::{Change, PublishOutcome},
};
use enoki_transport_memory::Version;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_its_oldest_message() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.max_length = Some(2)).await;
    for body in ["a", "b", "c"] {
        bench.send("q", body).await;
    }
    let mut receiver = bench.consume("q", 10).await;
    assert_eq!(all(&mut receiver).await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn only_ready_messages_count_towards_the_length() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.max_length = Some(1)).await;
    bench.send("q", "a").await;
    let mut receiver = bench.consume("q", 1).await;
    let a = next(&mut receiver).await;
    bench.send("q", "b").await;
    assert_eq!(bench.depth("q").await, Some(1));
    // What comes back is at the head, and the head is what goes.
    settle(&mut receiver, &a, Outcome::Requeue);
    assert_eq!(all(&mut receiver).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_can_refuse_and_the_publisher_is_told() {
    let mut bench = Bench::new().await;
    bench
        .declare("q", |q| {
            q.max_bytes = Some(5);
            q.overflow = Some(Overflow::RejectPublish);
        })
        .await;
    bench.send("q", "abc").await;
    match bench.publish("", "q", Message::new("def")).await {
        PublishOutcome::Rejected(error) => {
            assert_eq!(error.to_string(), "publish queue \"q\": the queue is full");
        }
        other => panic!("{other:?}"),
    }
    bench.send("q", "de").await;
    let mut receiver = bench.consume("q", 1).await;
    let abc = next(&mut receiver).await;
    bench.send("q", "f").await;
    settle(&mut receiver, &abc, Outcome::Requeue);
    assert_eq!(bench.depth("q").await, Some(2), "what comes back always has room");
}

#[tokio::test(start_paused = true)]
async fn higher_priorities_go_first_and_the_highest_is_clamped() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.max_priority = Some(5)).await;
    for (body, priority) in
        [("none", None), ("0", Some(0)), ("5", Some(5)), ("200", Some(200)), ("3", Some(3))]
    {
        let mut message = Message::new(body);
        message.properties.priority = priority;
        bench.send_message("q", message).await;
    }
    let mut receiver = bench.consume("q", 2).await;
    let five = next(&mut receiver).await;
    let mut message = Message::new("late 4");
    message.properties.priority = Some(4);
    bench.send_message("q", message).await;
    settle(&mut receiver, &five, Outcome::Requeue);
    drop(receiver);
    let mut receiver = bench.consume("q", 10).await;
    assert_eq!(all(&mut receiver).await, ["5", "200", "late 4", "3", "none", "0"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_priorities_ignores_them() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    bench.send("q", "first").await;
    let mut message = Message::new("second");
    message.properties.priority = Some(9);
    bench.send_message("q", message).await;
    let mut receiver = bench.consume("q", 10).await;
    assert_eq!(all(&mut receiver).await, ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn more_failures_than_the_limit_are_the_end_and_releases_are_none() {
    let mut bench = Bench::new().await;
    bench.queue("dead").await;
    bench
        .declare("q", |q| {
            q.delivery_limit = Some(1);
            q.dead_letter =
                Some(DeadLetter { exchange: short(""), routing_key: Some(short("dead")) });
        })
        .await;
    bench.send("q", "a").await;
    let mut receiver = bench.consume("q", 1).await;
    for (attempt, outcome) in
        [(1, Outcome::Release), (1, Outcome::Requeue), (2, Outcome::Release), (2, Outcome::Requeue)]
    {
        let delivered = next(&mut receiver).await;
        assert_eq!(delivered.attempt.number, attempt);
        settle(&mut receiver, &delivered, outcome);
    }
    assert_eq!(all(&mut receiver).await, [""; 0]);
    let mut dead = bench.consume("dead", 1).await;
    let delivered = next(&mut dead).await;
    let reason = delivered.message.headers.get("x-first-death-reason").and_then(Value::as_str);
    assert_eq!(reason, Some("delivery_limit"));
    assert_eq!((delivered.redelivered, delivered.attempt.number), (false, 1), "a new life");
}

#[tokio::test(start_paused = true)]
async fn a_queue_takes_any_number_of_failures_unless_told_otherwise() {
    let mut bench = Bench::new().await;
    for (queue, kind, limit, deliveries) in [
        ("replicated", QueueKind::Replicated, None, None),
        ("told", QueueKind::Replicated, Some(2), Some(3)),
        ("classic", QueueKind::Classic, None, None),
    ] {
        bench
            .declare(queue, |q| {
                q.kind = kind;
                q.delivery_limit = limit;
            })
            .await;
        bench.send(queue, "poison").await;
        let mut receiver = bench.consume(queue, 1).await;
        for _ in 0..deliveries.unwrap_or(50) {
            let delivered = next(&mut receiver).await;
            settle(&mut receiver, &delivered, Outcome::Requeue);
        }
        let left = usize::from(deliveries.is_none());
        assert_eq!(all(&mut receiver).await.len(), left, "{queue}");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_die_with_a_message_count_towards_the_limit() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.delivery_limit = Some(1)).await;
    bench.send("q", "poison").await;
    for attempt in 1..=2 {
        let session = connect(&bench.transport).await;
        let mut receiver = session.receiver(of(&short("q"), 1)).await.unwrap();
        assert_eq!(next(&mut receiver).await.attempt.number, attempt);
        drop(session);
    }
    assert_eq!(bench.depth("q").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_can_dead_letter_what_it_refuses() {
    let mut bench = Bench::new().await;
    bench.queue("dead").await;
    bench
        .declare("q", |q| {
            q.max_length = Some(1);
            q.overflow = Some(Overflow::RejectPublishDeadLetter);
            q.dead_letter =
                Some(DeadLetter { exchange: short(""), routing_key: Some(short("dead")) });
        })
        .await;
    bench.send("q", "a").await;
    let refused = bench.publish("", "q", Message::new("b")).await;
    assert!(matches!(refused, PublishOutcome::Rejected(_)), "{refused:?}");
    let mut dead = bench.consume("dead", 1).await;
    let letter = next(&mut dead).await;
    let reason = letter.message.headers.get("x-first-death-reason").and_then(Value::as_str);
    assert_eq!((body(&letter).as_str(), reason), ("b", Some("maxlen")));
    assert_eq!(bench.depth("q").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_refuses_what_its_kind_does_not_know() {
    let bench = Bench::like(Version::RabbitMq4_3).await;
    for (kind, name, value) in [
        (QueueKind::Replicated, "x-max-priority", Value::Int(5)),
        (QueueKind::Replicated, "x-queue-mode", "lazy".into()),
        (QueueKind::Classic, "x-delivery-limit", Value::Int(3)),
        (QueueKind::Classic, "x-dead-letter-strategy", "at-least-once".into()),
    ] {
        let spec = queue("q", |q| {
            q.kind = kind;
            q.arguments.set(short(name), value);
        });
        let error = bench.apply(Change::DeclareQueue(spec)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_a_flag_on_classic_queues_and_counted_on_replicated_ones() {
    for version in [Version::RabbitMq3_10, Version::RabbitMq4_0, Version::RabbitMq4_3] {
        let mut bench = Bench::like(version).await;
        for (name, kind, counted) in [
            ("classic", QueueKind::Classic, [2, 2, 2]),
            ("replicated", QueueKind::Replicated, [2, 3, 4]),
        ] {
            bench.declare(name, |q| q.kind = kind).await;
            bench.send(name, "a").await;
            let mut receiver = bench.consume(name, 1).await;
            assert_eq!(next(&mut receiver).await.attempt.number, 1);
            let mut attempts = Vec::new();
            for _ in 0..3 {
                receiver.close().await.unwrap();
                receiver = bench.consume(name, 1).await;
                attempts.push(next(&mut receiver).await.attempt.number);
            }
            assert_eq!(attempts, counted, "{version} {name}");
        }
    }
}
